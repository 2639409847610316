"""The folder of an original controller in and out, backups, and what a store refuses."""

import asyncio
import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.unit.controller_support import client, running
from zt.controller.main import main
from zt.controller.storage import StoreError, open_store, schema
from zt.controller.storage.migrations import migrate
from zt.protocol.address import NetworkId
from zt.protocol.identity import Identity


def recorded_folder(vectors: Callable[[str], Any], folder: Path) -> tuple[Identity, dict[str, str]]:
    """Writes the files that an original controller left; returns it and the contents by name."""
    meta = vectors("controller_http.json")["meta"]
    disks = [listing for key, listing in meta.items() if key.startswith("disk_")]
    contents = {}
    for name, entry in max(disks, key=len).items():
        if "text" in entry:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(entry["text"])
            contents[name.lower()] = entry["text"]
    return Identity.parse(meta["controller_identity_secret"]), contents


def files_below(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_an_original_folder_comes_in_and_out_unchanged(
    vectors: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    identity, contents = recorded_folder(vectors, home / "controller.d")
    extra = json.loads(next(iter(contents.values())))
    nwid = f"{identity.address}abcdef"
    extra |= {"id": nwid, "nwid": nwid, "revision": 77, "unknownKey": {"deep": [1, 2.5, None]}}
    name = f"network/{nwid}.json"
    contents[name] = json.dumps(extra, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    (home / "controller.d" / name).write_text(contents[name])
    (home / "controller.d" / "network" / "0000000000000000.json").write_text('{"broken')
    (home / "identity.public").write_text(identity.to_text())

    async def first_start() -> None:
        async with running(identity, home) as controller, client(controller) as http:
            for text in contents.values():
                stored = json.loads(text)
                path = f"/controller/network/{stored['nwid'].lower()}"
                if stored["objtype"] == "member":
                    path += f"/member/{stored['id'].lower()}"
                assert (await http.get(path)).json() == stored
            # Members of a network beyond those of the folder are made from then on.
            changed = await http.post(f"/controller/network/{nwid}", json={"name": "changed"})
            assert changed.json()["revision"] == 78
            assert changed.json()["unknownKey"] == extra["unknownKey"]

    asyncio.run(first_start())
    out = tmp_path / "out"
    assert main(["--home", str(home), "export", str(out)]) == 0
    exported = files_below(out)
    assert json.loads(exported.pop(name))["name"] == "changed"
    del contents[name]
    assert exported == contents
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert main(["--home", str(home), "export", str(out)]) == 1

    async def second_start() -> None:
        # The folder is only taken over by an empty database.
        async with running(identity, home) as controller:
            assert controller.network(NetworkId.parse(nwid)).fields["name"] == "changed"

    asyncio.run(second_start())
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "identity.public").write_text(identity.to_text())
    assert main(["--home", str(fresh), "import", str(out)]) == 0
    again = tmp_path / "again"
    assert main(["--home", str(fresh), "export", str(again)]) == 0
    assert files_below(again) == files_below(out)
    assert "were there already" in capsys.readouterr().out


def test_backup_and_restore(identity: Identity, tmp_path: Path) -> None:
    (tmp_path / "identity.public").write_text(identity.to_text())
    nwid = NetworkId(identity.address << 24 | 1)

    async def fill() -> None:
        async with running(identity, tmp_path) as controller:
            await controller.put_network(nwid, {"name": "kept"})
            # While the controller runs.
            assert (
                await asyncio.to_thread(
                    main, ["--home", str(tmp_path), "backup", str(tmp_path / "copy")]
                )
                == 0
            )
            await controller.put_network(nwid, {"name": "later"})

    asyncio.run(fill())
    other = tmp_path / "other"
    other.mkdir()
    (other / "identity.public").write_text(identity.to_text())
    restore = ["--home", str(other), "restore", str(tmp_path / "copy")]
    assert main(restore) == 0
    assert main(restore) == 1  # not empty any more
    assert main(["--home", str(other), "restore", str(tmp_path / "none")]) == 1

    async def check() -> None:
        async with running(identity, other) as controller:
            assert controller.network(nwid).fields["name"] == "kept"

    asyncio.run(check())


def test_what_is_refused(identity: Identity, tmp_path: Path) -> None:
    async def start(location: str, controller: str) -> None:
        store = open_store(location, tmp_path, controller)
        try:
            await store.open()
            await store.log(1, "local", "test", b"{}")
        finally:
            await store.close()

    address = str(identity.address)
    asyncio.run(start("", address))
    assert stat.S_IMODE((tmp_path / "controller.d/controller.db").stat().st_mode) == 0o600
    with pytest.raises(StoreError, match="belongs to"):
        asyncio.run(start("", "0123456789"))
    (tmp_path / "damaged.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match=r"damaged\.db"):
        asyncio.run(start("damaged.db", address))
    database = sqlite3.connect(tmp_path / "controller.d/controller.db")
    with database:
        database.execute("INSERT INTO migration VALUES ('m2999_01_01_unknown')")
    database.close()
    with pytest.raises(StoreError, match="newer"):
        asyncio.run(start("", address))


def test_nothing_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = open_store("", tmp_path, "0123456789")
        await store.open()
        assert [rows async for rows in store.objects()] == []
        assert await store.last_seq() == 0
        assert not (tmp_path / "controller.d/controller.db").exists()
        await store.log(1, "local", "test", b"{}")
        assert (tmp_path / "controller.d/controller.db").exists()
        assert await store.last_seq() == 1
        await store.close()

    async def another_process() -> None:
        woken: list[bool] = []
        store = open_store("", tmp_path / "b", "0123456789")
        store.listen(lambda: woken.append(True), lambda: None)
        await store.open()
        other = open_store("", tmp_path / "b", "0123456789")
        await other.log(1, "local", "test", b"{}")
        await other.close()
        await store.ping()
        assert woken
        assert await store.last_seq() == 1
        await store.close()

    asyncio.run(scenario())
    asyncio.run(another_process())


def test_migrations_end_at_the_schema(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.begin() as connection:
        assert migrate(connection)
        assert not migrate(connection)
        assert shape(connection) == expected_shape()
    engine.dispose()


def expected_shape() -> dict[str, Any]:
    return {
        table.name: {
            "columns": [(c.name, c.nullable) for c in table.columns],
            "key": [c.name for c in table.primary_key],
            "indexes": sorted(index.name or "" for index in table.indexes),
            "foreign": sorted(key.target_fullname for key in table.foreign_keys),
        }
        for table in schema.metadata.sorted_tables
    }


def shape(connection: sqlalchemy.Connection) -> dict[str, Any]:
    """What is really there."""
    found = sqlalchemy.inspect(connection)
    return {
        name: {
            "columns": [(c["name"], c["nullable"]) for c in found.get_columns(name)],
            "key": found.get_pk_constraint(name)["constrained_columns"],
            "indexes": sorted(str(index["name"]) for index in found.get_indexes(name)),
            "foreign": sorted(
                f"{key['referred_table']}.{column}"
                for key in found.get_foreign_keys(name)
                for column in key["referred_columns"]
            ),
        }
        for name in found.get_table_names()
    }
