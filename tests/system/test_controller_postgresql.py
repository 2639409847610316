"""The controller on PostgreSQL: the recorded behaviour, several controllers, faults."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from tests.system.postgresql import Cluster
from tests.unit.controller_support import Clock, RecordingLink, Sent, client, running
from tests.unit.test_controller_configs import identities_of, run_cases
from tests.unit.test_controller_files import expected_shape, shape
from tests.unit.test_controller_http import replay
from tests.unit.test_controller_openapi import storm
from zt.controller import Controller, StoreUnavailable
from zt.controller.storage.migrations import migrate
from zt.controller.tokens import Scope
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import ConfigChunk, NetworkConfig, RequestMetadata
from zt.protocol.packet import ErrorCode

METADATA = RequestMetadata.own("linux/x86_64").encode()
POOL = {
    "routes": [{"target": "10.0.0.0/24"}],
    "ipAssignmentPools": [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.50"}],
    "v4AssignMode": {"zt": True},
    "private": False,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster()
    yield started
    started.remove()


@pytest.fixture
def identity(vectors: Callable[[str], Any]) -> Identity:
    recording = vectors("controller_http.json")
    return Identity.parse(recording["meta"]["controller_identity_secret"])


def node(number: int) -> Identity:
    return Identity(Address(0x1000000000 + number), number.to_bytes(64))


def config(sent: Sent) -> NetworkConfig:
    return NetworkConfig.decode(b"".join(ConfigChunk.decode(c).data for c in sent.chunks))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():  # noqa: ASYNC110 - what another process or task brings about
            await asyncio.sleep(0.02)


def test_recorded_exchanges(
    vectors: Callable[[str], Any], cluster: Cluster, tmp_path: Path
) -> None:
    asyncio.run(replay(vectors("controller_http.json"), tmp_path, cluster.database()))


def test_recorded_configs(vectors: Callable[[str], Any], cluster: Cluster, tmp_path: Path) -> None:
    recording = vectors("controller_configs.json")
    cases = run_cases(recording["cases"], identities_of(recording), tmp_path, cluster.database())
    asyncio.run(cases)


def test_made_up_requests(identity: Identity, cluster: Cluster, tmp_path: Path) -> None:
    storm(identity, tmp_path, cluster.database())


def test_migrations_end_at_the_schema(cluster: Cluster) -> None:
    async def check() -> None:
        url = cluster.database().replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            assert await connection.run_sync(migrate)
            assert not await connection.run_sync(migrate)
            assert await connection.run_sync(shape) == expected_shape()
        await engine.dispose()

    asyncio.run(check())


def test_controllers_see_each_other(identity: Identity, cluster: Cluster, tmp_path: Path) -> None:
    async def play() -> None:
        database = cluster.database()
        link, clock = RecordingLink(), Clock()
        nwid = NetworkId(identity.address << 24 | 1)
        alice = node(1)
        async with (
            running(identity, tmp_path, location=database, clock=clock, link=link) as one,
            running(identity, tmp_path, location=database, clock=clock) as other,
        ):
            await other.put_network(nwid, {"name": "theirs"})
            await until(lambda: nwid in one.state.networks)
            await other.put_member(nwid, alice.address, {"authorized": True})
            await until(lambda: alice.address in one.network(nwid).members)
            one.request(nwid, alice, METADATA, None, 1)
            await link.wait(lambda sent: bool(sent.chunks))
            # A change there is pushed here, and a de-authorization there revoked here.
            link.sent.clear()
            await other.put_network(nwid, {"name": "changed"})
            (pushed,) = await link.wait(lambda sent: bool(sent.chunks))
            assert config(pushed).name == "changed"
            await other.put_member(nwid, alice.address, {"authorized": False})
            (revoked,) = await link.wait(lambda sent: bool(sent.revocations))
            assert revoked.revocations[0].target == alice.address
            # Both at once: no change is lost, and both agree afterwards.
            await asyncio.gather(
                *(
                    controller.put_member(nwid, alice.address, {field: value})
                    for controller, field, value in itertools.chain(
                        ((one, "name", f"n{i}") for i in range(10)),
                        ((other, "activeBridge", i % 2 == 0) for i in range(10)),
                    )
                )
            )

            def stored(controller: Controller) -> bytes:
                return controller.member(nwid, alice.address).document

            await until(lambda: stored(one) == stored(other))
            fields = one.member(nwid, alice.address).fields()
            assert (fields["name"], fields["activeBridge"]) == ("n9", False)
            _, secret = await one.tokens.create("t", Scope.READ, (), 0, "local")
            await until(lambda: other.authenticate(secret) is not None)
            await one.delete_network(nwid)
            await until(lambda: nwid not in other.state.networks)

    asyncio.run(play())


def test_no_address_twice(identity: Identity, cluster: Cluster, tmp_path: Path) -> None:
    """Two controllers race for the addresses of one pool, each for its own half of the members."""

    async def play() -> None:
        database = cluster.database()
        links = [RecordingLink(), RecordingLink()]
        clock = Clock()
        nwid = NetworkId(identity.address << 24 | 1)
        async with (
            running(identity, tmp_path, location=database, clock=clock, link=links[0]) as one,
            running(identity, tmp_path, location=database, clock=clock, link=links[1]) as other,
        ):
            await one.put_network(nwid, POOL)
            await until(lambda: nwid in other.state.networks)
            members = [node(number) for number in range(60)]
            for member, controller in zip(members, itertools.cycle((one, other))):
                controller.request(nwid, member, METADATA, None, 1)
            for link in links:
                await link.wait(lambda sent: bool(sent.chunks), 30)
            given = [
                ip.ip for link in links for sent in link.sent for ip in config(sent).static_ips
            ]
            assert len(given) == 50  # the whole pool
            assert len(set(given)) == 50
            await until(lambda: len(one.network(nwid).members) == 60)
            await until(lambda: len(other.network(nwid).members) == 60)

    asyncio.run(play())


def test_the_database_goes_away_and_comes_back(
    identity: Identity, cluster: Cluster, tmp_path: Path
) -> None:
    async def play() -> None:
        database = cluster.database()
        link, clock = RecordingLink(), Clock()
        nwid = NetworkId(identity.address << 24 | 1)
        alice, bob = node(1), node(2)
        acknowledged: list[Address] = []
        stopped = asyncio.Event()

        async def load(controller: Controller) -> None:
            """Writes all the time, and remembers what was acknowledged."""
            for number in itertools.count(0x4000000000):
                if stopped.is_set():
                    return
                try:
                    await controller.put_member(nwid, Address(number), {"authorized": True})
                    acknowledged.append(Address(number))
                except StoreUnavailable:
                    await asyncio.sleep(0.01)

        async with (
            running(identity, tmp_path, location=database, clock=clock, link=link) as controller,
            client(controller) as http,
        ):
            await controller.put_network(nwid, {**POOL, "private": True})
            await controller.put_member(nwid, alice.address, {"authorized": True})
            controller.request(nwid, alice, METADATA, None, 1)
            (first,) = await link.wait(lambda sent: bool(sent.chunks))
            writer = asyncio.create_task(load(controller))
            await until(lambda: len(acknowledged) > 20)
            await asyncio.to_thread(cluster.stop)
            await until(lambda: controller.changes.unavailable is not None)
            # Members keep their config, nobody new is admitted, and the API says why.
            clock.now += 2000
            controller.request(nwid, alice, METADATA, None, 2)
            controller.request(nwid, bob, METADATA, None, 3)
            (again,) = await link.wait(lambda sent: sent.request_id == 2)
            assert config(again).static_ips == config(first).static_ips
            answer = await http.post(f"/controller/network/{nwid}", json={"name": "x"})
            assert answer.status_code == 503
            assert "database is not available" in answer.json()["description"]
            assert (await http.get("/controller")).status_code == 503
            assert (await http.get("/controller")).json()["databaseReady"] is False
            assert (await http.get(f"/controller/network/{nwid}")).status_code == 200
            await asyncio.to_thread(cluster.start)
            await until(lambda: controller.changes.unavailable is None)
            count = len(acknowledged)
            await until(lambda: len(acknowledged) > count + 20)
            answer = await http.post(f"/controller/network/{nwid}", json={"name": "x"})
            assert answer.status_code == 200
            stopped.set()
            await writer
            assert all(sent.error != ErrorCode.OBJECT_NOT_FOUND for sent in link.sent)
        async with running(identity, tmp_path, location=database) as controller:
            assert set(acknowledged) <= controller.network(nwid).members.keys()

    asyncio.run(play())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kill_loses_nothing_acknowledged(
    kind: str, identity: Identity, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """10,000 writes under way, killed in the middle."""
    location = "" if kind == "sqlite" else request.getfixturevalue("cluster").database()
    secret = identity.to_text(private=True)
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.system.controller_writer", str(tmp_path), location, secret],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    acknowledged = [line.strip() for line in itertools.islice(writer.stdout, 3000)]
    writer.kill()
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    writer.stdout.close()

    async def check() -> None:
        async with running(identity, tmp_path, location=location) as controller:
            members = controller.network(NetworkId(identity.address << 24 | 1)).members
            assert len(acknowledged) >= 3000
            assert {Address.parse(text) for text in acknowledged} <= members.keys()
            assert all(member.authorized for member in members.values())

    asyncio.run(check())


def test_connection_strings_of_the_original(
    identity: Identity, cluster: Cluster, tmp_path: Path
) -> None:
    url = sqlalchemy.make_url(cluster.database())
    location = f"postgres:host={url.host} port={url.port} user={url.username} dbname={url.database}"

    async def play() -> None:
        async with running(identity, tmp_path, location=location) as controller:
            await controller.create_network({})

    asyncio.run(play())
