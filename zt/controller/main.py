"""zerotier-controller: what is done to a controller's database from the outside.

Reading (export, backup) is safe while the node runs; import and restore want it stopped.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from zt.controller import files
from zt.controller.controller import wall_ms
from zt.controller.storage import Store, StoreError, StoreUnavailable, open_store
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity

DEFAULT_HOME = "/var/lib/zerotier-one"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except (StoreError, StoreUnavailable, OSError) as error:
        print(f"zerotier-controller: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zerotier-controller", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(DEFAULT_HOME), help="the node's folder")
    parser.add_argument(
        "--database", default="", metavar="LOCATION", help="as the setting controllerDbPath"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, argument, text in (
        ("export", "folder", "write the objects as a controller.d folder, which must not exist"),
        ("import", "folder", "add the objects of a controller.d folder"),
        ("backup", "file", "write one consistent copy of everything"),
        ("restore", "file", "fill an empty database from a backup"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("path", type=Path, metavar=argument)
    return parser


async def _run(options: argparse.Namespace) -> None:
    store = open_store(options.database, options.home, _address(options.home))
    store.folder = None
    await store.open()
    try:
        print(await _VERBS[options.verb](store, options.path))
    finally:
        await store.close()


def _address(home: Path) -> str:
    path = home / "identity.public"
    try:
        return str(Identity.parse(path.read_text().strip()).address)
    except (OSError, DecodeError) as error:
        raise StoreError(f"{path}: {error}") from None


async def _export(store: Store, folder: Path) -> str:
    files.prepare(folder)
    count = 0
    with TemporaryDirectory(prefix="controller-export-") as scratch:
        # A copy, so that everything is of one instant.
        await store.backup(f"{scratch}/copy.db")
        copy = open_store(f"{scratch}/copy.db", folder, store.controller)
        await copy.open()
        async for rows in copy.objects():
            files.write(folder, rows)
            count += len(rows)
        await copy.close()
    return f"{count} objects written to {folder}"


async def _import(store: Store, folder: Path) -> str:
    objects = list(files.read(folder))
    networks, members = await files.import_objects(store, objects, wall_ms())
    left = len(objects) - networks - members
    return f"{networks} networks, {members} members added; {left} were there already"


async def _backup(store: Store, path: Path) -> str:
    counts = await store.backup(str(path))
    return f"{counts['network']} networks, {counts['member']} members saved to {path}"


async def _restore(store: Store, path: Path) -> str:
    counts = await store.restore(str(path))
    return f"{counts['network']} networks, {counts['member']} members restored from {path}"


_VERBS = {"export": _export, "import": _import, "backup": _backup, "restore": _restore}


if __name__ == "__main__":
    sys.exit(main())
