"""The folder that original controllers keep their objects in (ch. 05, 16.1): read and written.

    controller.d/network/<nwid>.json
    controller.d/network/<nwid>/member/<address>.json

Content is the object as compact JSON. The content decides what an object is, not the file's name;
unknown keys stay, so that import and export lose nothing.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from zt.controller.bodies import dump
from zt.controller.decisions import listed_ips
from zt.controller.documents import Document
from zt.controller.storage.interface import Change, Claim, Key, ObjectRow, Store
from zt.protocol.coerce import integer
from zt.protocol.inet import ip_text
from zt.protocol.text import HEX_DIGITS

BATCH = 500


def read(folder: Path) -> Iterator[tuple[Key, Document]]:
    """The objects of a folder, each network before its members. Broken files are left out."""
    for path in sorted(folder.glob("network/*.json")):
        network = _load(path)
        nwid = _id(network, "id", 16)
        if network is None or nwid is None:
            continue
        yield (nwid, ""), network
        for member_path in sorted(folder.glob(f"network/{nwid}/member/*.json")):
            member = _load(member_path)
            address = _id(member, "id", 10)
            if member is not None and address is not None and _id(member, "nwid", 16) == nwid:
                yield (nwid, address), member


def _load(path: Path) -> Document | None:
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _id(document: Document | None, key: str, digits: int) -> str | None:
    value = document.get(key) if document is not None else None
    if isinstance(value, str) and len(value) == digits and HEX_DIGITS.issuperset(value):
        return value.lower()
    return None


async def import_objects(
    store: Store, objects: Iterable[tuple[Key, Document]], now_ms: int
) -> tuple[int, int]:
    """Store objects as they are; those that exist already stay. Numbers of networks and members."""
    counts = [0, 0]
    batch: list[Change] = []

    async def flush() -> None:
        applied = await store.apply(batch)
        for change, conflict in zip(batch, applied.outcomes, strict=True):
            counts[bool(change.key[1])] += conflict is None
        batch.clear()

    seen: set[Key] = set()
    for key, document in objects:
        if key in seen:
            continue  # a second file with the same content ID
        seen.add(key)
        batch.append(_change(key, document, now_ms))
        if len(batch) == BATCH:
            await flush()
    if batch:
        await flush()
    return counts[0], counts[1]


def _change(key: Key, document: Document, now_ms: int) -> Change:
    ips = dict.fromkeys(map(ip_text, listed_ips(document))) if key[1] else ()
    return Change(
        key=key,
        expected=0,
        revision=max(integer(document.get("revision")), 1),
        document=dump(document),
        claims=tuple(Claim(ip, False) for ip in ips),
        time_ms=now_ms,
        actor="import",
        action=f"{'member' if key[1] else 'network'}.create",
    )


def write(folder: Path, rows: Sequence[ObjectRow]) -> None:
    """Add objects to a folder, each file whole or not at all."""
    for row in rows:
        nwid, address = row.key
        networks = folder / "network"
        target = networks / nwid / "member" / f"{address}.json" if address else None
        path = target or networks / f"{nwid}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(row.document)
        os.replace(partial, path)


def prepare(folder: Path) -> None:
    """Make the folder as original controllers do: nobody else may look into it."""
    folder.mkdir(mode=0o700, parents=True)
    for name in ("network", "trace"):
        (folder / name).mkdir()
