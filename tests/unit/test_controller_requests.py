"""Requests, pushes and revocations over time (ch. 05, 9, 13 and 14)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.controller_support import Clock, RecordingLink, Sent, running
from zt.controller import Controller, Settings
from zt.controller.changes import Changes
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import ConfigChunk, NetworkConfig, RequestMetadata
from zt.protocol.packet import ErrorCode

METADATA = RequestMetadata.own("linux/x86_64").encode()
POOL: dict[str, object] = {
    "routes": [{"target": "10.0.0.0/24"}],
    "ipAssignmentPools": [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.0.0.99"}],
    "v4AssignMode": {"zt": True},
}


def node(number: int) -> Identity:
    """A member; nobody checks its proof of work here."""
    return Identity(Address(0x1000000000 + number), number.to_bytes(64))


class Scene:
    """A controller, its link, a clock that tests move, and one network."""

    def __init__(self, controller: Controller, link: RecordingLink, clock: Clock) -> None:
        self.controller, self.link, self.clock = controller, link, clock
        self.nwid = NetworkId(controller.address << 24 | 1)
        self._requests = 0

    async def ask(self, member: Identity, nwid: NetworkId | None = None) -> Sent:
        """The answer to a request, a second and a half after whatever was before."""
        self.clock.now += 1500
        self._requests += 1
        request_id = self._requests
        self.controller.request(nwid or self.nwid, member, METADATA, None, request_id)
        (answer,) = await self.link.wait(lambda sent: sent.request_id == request_id)
        return answer

    async def authorize(self, member: Identity, authorized: bool = True) -> None:
        body = {"authorized": authorized}
        await self.controller.put_member(self.nwid, member.address, body)

    async def join(self, *members: Identity) -> None:
        for member in members:
            await self.authorize(member)
            assert not (await self.ask(member)).error
        await self.settle()
        self.link.sent.clear()

    async def settle(self) -> None:
        """Until pushes that are due have gone out: one more change has been through everything."""
        probe = NetworkId(self.controller.address << 24 | 0xFFFFFF)
        await self.controller.put_network(probe, {})
        await asyncio.sleep(0.05)

    def pushed(self) -> list[Address]:
        return [s.member for s in self.link.sent if s.chunks and s.request_id is None]

    def revocations(self) -> dict[Address, list[list[Address]]]:
        """Per receiver the targets of each packet."""
        found: dict[Address, list[list[Address]]] = {}
        for sent in self.link.sent:
            if sent.revocations:
                targets = [revocation.target for revocation in sent.revocations]
                found.setdefault(sent.member, []).append(targets)
        return found


Play = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def scene(identity: Identity, tmp_path: Path) -> Callable[..., None]:
    """Runs a coroutine function with a scene."""

    def run(play: Play, network: dict[str, object] | None = None, **settings: int) -> None:
        async def main() -> None:
            link, clock = RecordingLink(), Clock()
            async with running(
                identity, tmp_path, link=link, clock=clock, settings=Settings(**settings)
            ) as controller:
                there = Scene(controller, link, clock)
                await controller.put_network(there.nwid, network or {})
                await play(there)

        asyncio.run(main())

    return run


def config(sent: Sent) -> NetworkConfig:
    return NetworkConfig.decode(b"".join(ConfigChunk.decode(c).data for c in sent.chunks))


def test_a_refused_node_is_pushed_its_first_config(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice = node(1)
        assert (await there.ask(alice)).error == ErrorCode.NETWORK_ACCESS_DENIED
        member = there.controller.member(there.nwid, alice.address)
        assert (member.revision, member.fields()["identity"]) == (1, alice.to_text())
        assert (await there.ask(alice)).error == ErrorCode.NETWORK_ACCESS_DENIED
        assert there.controller.member(there.nwid, alice.address).revision == 1
        await there.authorize(alice)
        (pushed,) = await there.link.wait(lambda sent: bool(sent.chunks))
        assert pushed.request_id is None
        assert config(pushed).issued_to == alice.address

    scene(play)


def test_what_a_node_says_of_itself_is_made_harmless(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        metadata = RequestMetadata(platform="li\0nux\n/\x1b[2J" + "x" * 500).encode()
        there.controller.request(there.nwid, node(1), metadata, None, 7)
        await there.link.wait(lambda sent: sent.request_id == 7)
        seen = there.controller.network(there.nwid).sightings[node(1).address]
        assert seen.platform == "linux/[2J" + "x" * 52

    scene(play)


def test_a_poll_changes_nothing_and_gets_one_answer(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice = node(1)
        await there.join(alice)
        before = there.controller.member(there.nwid, alice.address)
        await there.ask(alice)
        await there.settle()
        assert len([sent for sent in there.link.sent if sent.chunks]) == 1
        assert there.controller.member(there.nwid, alice.address) is before

    scene(play)


def test_a_poll_is_decided_anew_only_when_something_is_different(
    scene: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[str] = []
    change = Changes.change

    async def counting(self: Changes, key: Any, make: Any, actor: str, **how: Any) -> None:
        if actor.startswith("node:"):
            decided.append(actor)
        await change(self, key, make, actor, **how)

    monkeypatch.setattr(Changes, "change", counting)

    async def play(there: Scene) -> None:
        alice, thief = node(1), Identity(node(1).address, bytes(64))
        await there.join(alice)
        await there.ask(alice)
        decided.clear()
        first, second = await there.ask(alice), await there.ask(alice)
        assert not decided
        assert config(first).timestamp < config(second).timestamp
        assert (await there.ask(thief)).error == ErrorCode.NETWORK_ACCESS_DENIED
        assert len(decided) == 1
        await there.ask(alice)
        decided.clear()
        await there.controller.put_network(there.nwid, POOL | {"name": "new"})
        await there.settle()
        assert decided  # by the push
        assert len(config(await there.ask(alice)).static_ips) == 1
        member = there.controller.member(there.nwid, alice.address)
        await there.ask(alice)
        decided.clear()
        await there.ask(alice)
        assert not decided
        # Another controller on the database turns out to have given the address away.
        book = there.controller.network(there.nwid).book
        book.claim(member.ips[0], 7)
        book.set_owner(member.ips[0], 7)
        answer = config(await there.ask(alice))
        assert decided
        assert [entry.ip for entry in answer.static_ips] not in ([], [member.ips[0]])
        await there.authorize(alice, False)
        assert (await there.ask(alice)).error == ErrorCode.NETWORK_ACCESS_DENIED

    scene(play)


def test_changes_are_pushed_to_whom_they_concern(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice, bob = node(1), node(2)
        await there.join(alice, bob)
        await there.controller.put_network(there.nwid, {"name": "new"})
        await there.settle()
        assert sorted(there.pushed()) == [alice.address, bob.address]
        there.link.sent.clear()
        await there.controller.put_member(there.nwid, bob.address, {"name": "bob"})
        await there.settle()
        assert there.pushed() == [bob.address]
        there.link.sent.clear()
        await there.controller.put_member(there.nwid, bob.address, {"name": "bob"})
        there.clock.now += 121_000  # both are away by now
        await there.controller.put_network(there.nwid, {"name": "newer"})
        await there.settle()
        assert there.pushed() == []

    scene(play)


def test_de_authorization_is_told_to_everybody_online(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        members = [node(n) for n in range(1, 4)]
        alice, bob, _ = members
        await there.join(*members)
        await there.authorize(alice, False)
        await there.link.wait(lambda sent: bool(sent.revocations), 3)
        everybody = {member.address for member in members}
        assert there.revocations() == {address: [[alice.address]] for address in everybody}
        (revocation,) = there.link.sent[-1].revocations
        assert revocation.fast_propagate
        assert revocation.threshold == there.clock()
        # The second comes within the second in which receivers take no more, so it waits (Q14).
        await there.authorize(bob, False)
        await asyncio.sleep(0.3)
        assert len(there.link.sent) == 3
        there.clock.now += 1100
        await there.link.wait(lambda sent: bool(sent.revocations), 6)
        assert all(packets[1] == [bob.address] for packets in there.revocations().values())
        assert (await there.ask(alice)).error == ErrorCode.NETWORK_ACCESS_DENIED

    scene(play)


def test_revocations_reach_who_was_away_and_outlive_a_restart(
    identity: Identity, tmp_path: Path
) -> None:
    async def main() -> None:
        clock = Clock()
        alice, bob, carol = (node(n) for n in range(1, 4))
        link = RecordingLink()
        async with running(identity, tmp_path, link=link, clock=clock) as controller:
            there = Scene(controller, link, clock)
            await controller.put_network(there.nwid, {})
            await there.join(alice, bob, carol)
            clock.now += 200_000  # all away
            await there.authorize(alice, False)
            assert there.revocations() == {}
            await there.ask(bob)
            await link.wait(lambda sent: bool(sent.revocations))
            assert there.revocations() == {bob.address: [[alice.address]]}
            link.sent.clear()
            clock.now += 60_000
            await there.ask(bob)  # who may have started again and know nothing
            await link.wait(lambda sent: bool(sent.revocations))
            assert there.revocations() == {bob.address: [[alice.address]]}
        link = RecordingLink()
        async with running(identity, tmp_path, link=link, clock=clock) as controller:
            there = Scene(controller, link, clock)
            await there.ask(carol)
            await link.wait(lambda sent: bool(sent.revocations))
            assert there.revocations() == {carol.address: [[alice.address]]}
            clock.now += 2_000_000  # nobody accepts the old certificate any more
            link.sent.clear()
            await there.ask(bob)
            await asyncio.sleep(0.3)
            assert there.revocations() == {}

    asyncio.run(main())


def test_deleted_members_and_networks_are_revoked(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice, bob, carol = (node(n) for n in range(1, 4))
        await there.join(alice, bob)
        await there.ask(carol)  # refused, but a member object
        there.link.sent.clear()
        await there.controller.delete_member(there.nwid, alice.address)
        await there.link.wait(lambda sent: bool(sent.revocations), 3)
        assert set(there.revocations()) == {alice.address, bob.address, carol.address}
        assert (await there.ask(alice)).error == ErrorCode.NETWORK_ACCESS_DENIED
        assert there.controller.member(there.nwid, alice.address).revision == 1
        there.link.sent.clear()
        there.clock.now += 5000
        await there.controller.delete_network(there.nwid)
        await there.link.wait(lambda sent: bool(sent.revocations), 3)
        for packets in there.revocations().values():
            assert sorted(packets[0]) == [alice.address, bob.address, carol.address]
        assert (await there.ask(bob)).error == ErrorCode.OBJECT_NOT_FOUND

    scene(play)


@pytest.mark.parametrize(("spacing_ms", "answered"), [(300, 2), (990, 3), (1010, 6)])
def test_rate_limit(scene: Callable[..., None], spacing_ms: int, answered: int) -> None:
    async def play(there: Scene) -> None:
        alice = node(1)
        await there.join(alice)
        there.clock.now += 5000
        for request_id in range(100, 106):
            there.controller.request(there.nwid, alice, METADATA, None, request_id)
            there.clock.now += spacing_ms
        await there.link.wait(lambda sent: bool(sent.chunks), answered)
        await there.settle()
        assert len(there.link.sent) == answered

    scene(play)


def test_requests_for_other_controllers_are_ignored(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        foreign = NetworkId(0x1122334455000001)
        await there.controller.put_network(foreign, {"private": False})
        there.controller.request(foreign, node(1), METADATA, None, 7)
        there.controller.request(NetworkId(there.nwid + 1), node(1), METADATA, None, 8)
        await there.link.wait(lambda sent: sent.error == ErrorCode.OBJECT_NOT_FOUND)
        assert [sent.request_id for sent in there.link.sent] == [8]

    scene(play)


def test_sessions_end(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice, bob = node(1), node(2)
        network = there.controller.network(there.nwid)
        # Only storage can switch single sign-on on in the classic API.
        network.replace(1, network.document.replace(b'"ssoEnabled":false', b'"ssoEnabled":true'))
        end = there.clock() + 10_000
        for member in (alice, bob):
            body = {"authorized": True, "authenticationExpiryTime": end}
            await there.controller.put_member(there.nwid, member.address, body)
            sso = config(await there.ask(member)).sso
            assert (sso.enabled, sso.expiry_ms) == (True, end)
        there.link.sent.clear()
        there.clock.now = end
        await there.link.wait(lambda sent: bool(sent.revocations), 2)
        (packet,) = there.revocations()[alice.address]
        assert sorted(packet) == [alice.address, bob.address]
        answer = await there.ask(alice)
        assert answer.error == ErrorCode.AUTHENTICATION_REQUIRED
        assert answer.data == b"\x00\x17aV=0000000000000000\naU="

    scene(play)


def test_one_address_for_three_members(scene: Callable[..., None]) -> None:
    """The original gives it to more than one (Q1)."""

    async def play(there: Scene) -> None:
        members = [node(n) for n in range(1, 4)]
        await there.join(*members)
        await there.controller.put_network(there.nwid, {"v4AssignMode": {"zt": True}})
        await there.link.wait(lambda sent: bool(sent.chunks), 3)
        given = [config(sent).static_ips for sent in there.link.sent if sent.chunks]
        assert sorted(map(len, given)) == [0, 0, 1]

    scene(
        play,
        {
            "routes": [{"target": "10.0.0.0/24"}],
            "ipAssignmentPools": [{"ipRangeStart": "10.0.0.9", "ipRangeEnd": "10.0.0.9"}],
        },
    )


def test_an_address_listed_twice_is_given_once(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        alice, bob = node(1), node(2)
        for member in (bob, alice):
            body = {"authorized": True, "ipAssignments": ["10.0.0.5"]}
            await there.controller.put_member(there.nwid, member.address, body)
        assert len(config(await there.ask(bob)).static_ips) == 1
        assert config(await there.ask(alice)).static_ips == ()
        await there.controller.put_member(there.nwid, bob.address, {"ipAssignments": []})
        assert len(config(await there.ask(alice)).static_ips) == 1

    scene(play, {"routes": [{"target": "10.0.0.0/24"}]})


def test_strangers_do_not_fill_the_memory(scene: Callable[..., None]) -> None:
    async def play(there: Scene) -> None:
        network = there.controller.network(there.nwid)
        for number in range(8):
            assert (await there.ask(node(number))).error == ErrorCode.NETWORK_ACCESS_DENIED
        assert len(network.members) == 5
        there.clock.now += 130_000  # those waiting have gone away; newcomers take their places
        for number in range(20, 23):
            await there.ask(node(number))
            await there.settle()
        assert len(network.waiting) <= 6
        assert node(22).address in network.members
        assert node(0).address not in network.members
        for number in range(50):
            await there.ask(node(number), NetworkId(there.nwid + 5))
        assert len(there.controller.state.networks) == 2  # this one and the probe

    scene(play, waiting_limit=5)
