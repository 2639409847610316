"""Moon and planet files for zerotier-idtool: JSON descriptions in, signed worlds out."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.world import Root, World, WorldType, make

PLANET_FILE = "planet"
PLANET_KEY_FILE = "planet.secret"

ReadIdentity = Callable[[str], Identity | None]


class WorldFileError(Exception):
    """A description that makes no world; the text is for users."""


def new_moon(identity: Identity) -> dict[str, Any]:
    """The description of a moon with this first root and fresh signing keys."""
    keys = KeyPair.generate(os.urandom)
    return {
        "id": str(identity.address),
        "objtype": "world",
        "roots": [{"identity": identity.to_text(), "stableEndpoints": []}],
        "signingKey": keys.public.hex(),
        "signingKey_SECRET": keys.private.hex(),
        "updatesMustBeSignedBy": keys.public.hex(),
        "worldType": "moon",
    }


def make_moon(text: str, name: str) -> World:
    """The signed world of a JSON description (`name` is the file it came from).

    :raises WorldFileError: with the line to print.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise WorldFileError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WorldFileError(f"{name} is not a JSON object")
    kinds = {"moon": WorldType.MOON, "planet": WorldType.PLANET}
    world_id = _hex_number(value.get("id"))
    if not world_id:
        raise WorldFileError(f"ID in {name} is invalid")
    kind = kinds.get(str(value.get("worldType")))
    if kind is None:
        raise WorldFileError("invalid worldType")
    try:
        return make(
            kind,
            world_id,
            time.time_ns() // 1_000_000,
            _roots(value.get("roots"), name),
            KeyPair(_key(value, "signingKey_SECRET", name), _key(value, "signingKey", name)),
            _key(value, "updatesMustBeSignedBy", name),
        )
    except ValueError as error:
        raise WorldFileError(f"{name}: {error}") from None


def _hex_number(value: Any) -> int:
    """Hex text; the decimal text of a number is read as hex, too."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return 0
    try:
        return int(str(value), 16) & 0xFFFF_FFFF_FFFF_FFFF
    except ValueError:
        return 0


def _key(value: dict[str, Any], field: str, name: str) -> bytes:
    try:
        key = bytes.fromhex(value.get(field, ""))
    except (TypeError, ValueError):
        key = b""
    if len(key) != 64:
        raise WorldFileError(f"{field} in {name} is not a key of 128 hex digits")
    return key


def _roots(value: Any, name: str) -> list[Root]:
    roots = []
    for entry in value if isinstance(value, list) else []:
        text = entry.get("identity") if isinstance(entry, dict) else None
        try:
            identity = Identity.parse(text if isinstance(text, str) else "")
        except DecodeError as error:
            raise WorldFileError(f"root identity in {name} is invalid: {error}") from None
        endpoints = entry.get("stableEndpoints")
        texts = endpoints if isinstance(endpoints, list) else []
        roots.append(Root(identity.public(), _sorted(_endpoint(t, name) for t in texts)))
    return sorted(roots, key=lambda root: root.identity)


def _sorted(endpoints: Iterable[InetAddress]) -> tuple[InetAddress, ...]:
    """IPv4 first, then by address and port."""
    return tuple(sorted(endpoints, key=lambda endpoint: (len(endpoint.ip), endpoint)))


def _endpoint(text: Any, name: str) -> InetAddress:
    try:
        endpoint = InetAddress.parse(text if isinstance(text, str) else "")
    except DecodeError:
        endpoint = InetAddress()
    if not endpoint or not endpoint.port:
        raise WorldFileError(f"endpoint in {name} is not an IP/port: {text!r}")
    return endpoint


# --- a private planet in one step ------------------------------------------------------------


def make_planet(arguments: Sequence[str], read_identity: ReadIdentity) -> Iterator[str]:
    """Write `planet` and its signing key from words `<identity>=<IP/port>[,<IP/port>...]`.

    A missing identity file is generated, with its public half beside it. With a key of an earlier
    run the new planet is an update that every node of the old one accepts. Yields what was done.

    :raises WorldFileError: with the line to print.
    """
    roots = []
    for word in arguments:
        source, equals, endpoints = word.partition("=")
        if not equals or not source or not endpoints:
            raise WorldFileError(f"not <identity>=<IP/port>[,<IP/port>...]: {word}")
        identity = read_identity(source)
        if identity is None and not os.path.exists(source) and ":" not in source:
            identity = Identity.generate(os.urandom)
            yield from _write_identity(source, identity)
        if identity is None:
            raise WorldFileError(f"Identity argument invalid or file unreadable: {source}")
        addresses = _sorted(_endpoint(text, "the arguments") for text in endpoints.split(","))
        roots.append(Root(identity.public(), addresses))
    keys, previous = _read_keys()
    if keys is None:
        keys = KeyPair.generate(os.urandom)
        yield from _write_keys(keys)
    timestamp = time.time_ns() // 1_000_000
    if previous is not None:
        timestamp = max(timestamp, previous.timestamp + 1)
    world_id = previous.id if previous is not None else secrets.randbits(63) | 1
    roots.sort(key=lambda root: root.identity)
    try:
        world = make(WorldType.PLANET, world_id, timestamp, roots, keys)
    except ValueError as error:
        raise WorldFileError(str(error)) from None
    with open(PLANET_FILE, "wb") as file:
        file.write(world.encode())
    yield f"wrote {PLANET_FILE} (id {world.id:016x}, {len(roots)} roots, timestamp {timestamp})"


def _write_identity(path: str, identity: Identity) -> Iterator[str]:
    _write_secret(path, identity.to_text(private=True))
    yield f"wrote {path} (secret identity of {identity.address})"
    public = f"{path.removesuffix('.secret')}.public"
    with open(public, "w", encoding="ascii") as file:
        file.write(identity.to_text())
    yield f"wrote {public}"


def _read_keys() -> tuple[KeyPair | None, World | None]:
    """The signing key and the planet of an earlier run in this folder."""
    try:
        with open(PLANET_KEY_FILE, encoding="ascii") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        raise WorldFileError(f"{PLANET_KEY_FILE} cannot be used: {error}") from None
    if not isinstance(value, dict):
        raise WorldFileError(f"{PLANET_KEY_FILE} is not a JSON object")
    keys = KeyPair(
        _key(value, "signingKey_SECRET", PLANET_KEY_FILE),
        _key(value, "signingKey", PLANET_KEY_FILE),
    )
    try:
        with open(PLANET_FILE, "rb") as planet:
            previous = World.decode(planet.read())
    except FileNotFoundError:
        return keys, None
    except DecodeError as error:
        raise WorldFileError(f"{PLANET_FILE} is damaged: {error}") from None
    if previous.update_key != keys.public:
        raise WorldFileError(
            f"{PLANET_KEY_FILE} is not the key that updates of this {PLANET_FILE} need"
        )
    return keys, previous


def _write_keys(keys: KeyPair) -> Iterator[str]:
    value = {"signingKey": keys.public.hex(), "signingKey_SECRET": keys.private.hex()}
    _write_secret(PLANET_KEY_FILE, json.dumps(value, indent=1) + "\n")
    yield f"wrote {PLANET_KEY_FILE} (signing key of this planet's updates; keep it)"


def _write_secret(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
