"""How the state follows the database when log entries are missing or a write is under way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from tests.unit.controller_support import Clock, RecordingLink, running
from zt.controller import Controller, open_store
from zt.controller.storage.interface import Change, Event, ObjectRow
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import ConfigChunk, NetworkConfig, RequestMetadata

METADATA = RequestMetadata.own("linux/x86_64").encode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what another task brings about
            await asyncio.sleep(0.01)


async def by_another(controller: Controller, home: Path, nwid: NetworkId, names: list[str]) -> None:
    """Another process renames the network, and all but the last entry of the log are forgotten."""
    other = open_store("", home, str(nwid.controller))
    await other.open()
    network = controller.network(nwid)
    document, revision = msgspec.json.decode(network.document), network.revision
    for name in names:
        document = {**document, "name": name, "revision": revision + 1}
        change = Change(
            key=(str(nwid), ""),
            expected=revision,
            revision=revision + 1,
            document=msgspec.json.encode(document),
            time_ms=0,
            actor="local",
            action="network.update",
        )
        applied = await other.apply([change])
        assert applied.outcomes == [None]
        revision += 1
    await other.prune_events(1 << 60, 1)
    await other.close()


def test_forgotten_entries_hide_nothing(identity: Identity, tmp_path: Path) -> None:
    """While everything is read again members get their config; afterwards the new one is pushed."""

    async def play() -> None:
        link, clock = RecordingLink(), Clock()
        nwid = NetworkId(identity.address << 24 | 1)
        alice = Identity(Address(0x1000000001), bytes(63) + b"\1")
        async with running(identity, tmp_path, link=link, clock=clock) as controller:
            await controller.put_network(nwid, {"private": True, "name": "old"})
            for number in (alice.address, 0x1000000002):
                await controller.put_member(nwid, Address(number), {"authorized": True})
            controller.request(nwid, alice, METADATA, None, 1)
            await link.wait(lambda sent: bool(sent.chunks))
            reading, go_on = asyncio.Event(), asyncio.Event()
            objects = controller.store.objects

            async def slowly() -> AsyncIterator[Sequence[ObjectRow]]:
                reading.set()
                await go_on.wait()
                async for rows in objects():
                    yield rows

            controller.store.objects = slowly  # type: ignore[method-assign]
            await by_another(controller, tmp_path, nwid, ["a", "b", "c"])
            controller.changes._feed_wake.set()
            async with asyncio.timeout(60):
                await reading.wait()
            clock.now += 2000
            controller.request(nwid, alice, METADATA, None, 2)
            (answer,) = await link.wait(lambda sent: sent.request_id == 2)
            assert answer.chunks
            write = asyncio.create_task(
                controller.put_member(nwid, Address(0x1000000003), {"authorized": True})
            )
            link.sent.clear()
            go_on.set()
            await until(lambda: controller.network(nwid).fields["name"] == "c")
            (pushed,) = await link.wait(lambda sent: bool(sent.chunks))
            chunks = b"".join(ConfigChunk.decode(chunk).data for chunk in pushed.chunks)
            assert NetworkConfig.decode(chunks).name == "c"
            await write
            assert len(controller.network(nwid).members) == 3

    asyncio.run(play())


def test_own_write_while_the_log_is_read(identity: Identity, tmp_path: Path) -> None:
    """It moves the log on; that is no gap, so nothing is read again."""

    async def play() -> None:
        nwid = NetworkId(identity.address << 24 | 1)
        async with running(identity, tmp_path) as controller:
            await controller.put_network(nwid, {})
            events = controller.store.events

            async def meanwhile(after: int, limit: int, *rest: str) -> list[Event]:
                controller.store.events = events  # type: ignore[method-assign]
                await controller.put_network(nwid, {"name": "mine"})
                return await events(after, limit, *rest)

            def never() -> AsyncIterator[Sequence[ObjectRow]]:
                raise AssertionError("everything is read again")

            controller.store.events = meanwhile  # type: ignore[method-assign]
            controller.store.objects = never  # type: ignore[method-assign]
            seq = controller.changes.last_seq
            await controller.changes._catch_up(foreign_only=True)
            assert controller.changes.last_seq == seq + 1
            assert controller.network(nwid).fields["name"] == "mine"

    asyncio.run(play())
