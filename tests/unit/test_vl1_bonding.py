"""Whole nodes with bonds, in the simulator: two hosts with two uplinks each, and a root.

Every uplink reaches every address, so a bond has four paths, two on each of the own links.
"""

from collections import Counter

import pytest

from tests.sim import Host, Network
from zt.protocol.address import NetworkId
from zt.protocol.inet import InetAddress
from zt.protocol.messages import QosMeasurement, QosRecord
from zt.protocol.packet import Verb
from zt.vl1.bond.measure import Latency
from zt.vl1.bond.settings import Bonding, Link, Policy
from zt.vl1.peer import Peer
from zt.vl1.status import PeerStatus, Settings

STEP_MS = 100
F_MS = 2_000


def bonding(base: str, **options: object) -> Settings:
    options.setdefault("failover_interval_ms", F_MS)
    return Settings(bonding=Bonding(default=Policy("mine", base, **options)))  # type: ignore[arg-type]


class World:
    """Two hosts on a network with each other; frames flow both ways while time runs."""

    def __init__(self, one: Settings, other: Settings | None = None) -> None:
        self.net = Network(seed=8)
        (self.root,) = self.net.add_roots(1)
        self.a = self.net.add_host(settings=one)
        self.b = self.net.add_host(settings=other)
        self.nwid: NetworkId = self.net.add_network(self.root)
        for host in (self.a, self.b):
            self.net.add_address(host)
            host.join(self.nwid)
        self.links: Counter[bytes] = Counter()  # datagrams that a sent, by the address of its link
        self.net.trace = self._count
        self.sent = 0
        self.run(20_000)

    def _count(self, host: Host, source: InetAddress, to: InetAddress, data: bytes) -> None:
        if host is self.a and len(data) > 1000:
            self.links[source.ip] += 1

    def run(self, duration_ms: int) -> None:
        for _ in range(duration_ms // STEP_MS):
            self.sent += 1
            payload = self.sent.to_bytes(4) + bytes(1100)
            self.a.send_frame(self.nwid, self.b, payload)
            self.b.send_frame(self.nwid, self.a, payload)
            self.net.run(STEP_MS)

    def lost(self, duration_ms: int) -> int:
        """Frames of that time that did not arrive at b."""
        first = self.sent + 1
        self.run(duration_ms)
        self.net.run(500)
        got = {frame[14:18] for _, frame in self.b.frames}
        return sum(number.to_bytes(4) not in got for number in range(first, self.sent + 1))

    def doubled(self) -> int:
        """Frames that b's TAP got more than once."""
        counts = Counter(frame[14:18] for _, frame in self.b.frames if len(frame) > 1000)
        return sum(count > 1 for count in counts.values())

    def uplink(self, number: int) -> bytes:
        return list(dict.fromkeys(place.ip for place in self.a.sockets.values()))[number]

    def cut(self, ip: bytes) -> None:
        self.net.block(lambda source, to: ip in (source.ip, to.ip))

    @property
    def peer(self) -> Peer:
        """b, as a knows it."""
        return self.a.node.vl1.peers[self.b.address]

    @property
    def status(self) -> PeerStatus:
        statuses = self.a.node.peers(self.net.now_ms)
        return next(status for status in statuses if status.address == self.b.address)


def test_active_backup_goes_on_when_its_link_dies() -> None:
    world = World(bonding("active-backup"))
    status = world.status
    assert status.bond is not None
    assert (status.bond.policy, status.bond.policy_name) == (1, "active-backup")
    assert (status.bond.alive_links, status.bond.total_links) == (2, 2)
    (active,) = [path for path in status.paths if path.bond and path.bond.bonded]
    assert active.preferred
    device = active.bond.device if active.bond else ""
    uplink = world.uplink(int(device.removeprefix("eth")))
    world.links.clear()
    world.run(2_000)
    assert set(world.links) == {uplink}

    world.cut(uplink)
    lost = world.lost(10_000)
    assert 0 < lost <= F_MS // STEP_MS + 3
    assert world.peer.route[1] is None  # no help of the relay
    status = world.status
    assert status.bond is not None
    assert (status.bond.alive_links, status.bond.total_links) == (1, 2)
    assert any("eth" in event.text for _, event in world.a.events if event.kind == "bond")

    world.net.block(None)
    world.run(5_000)
    status = world.status
    assert status.bond is not None
    assert status.bond.alive_links == 2
    assert world.lost(2_000) == 0


def test_the_failover_interval_is_the_operators() -> None:
    """A long one is not cut short by what paths without a bond go through."""
    world = World(bonding("active-backup", failover_interval_ms=20_000))
    active = world.peer.route[0]
    assert active is not None
    world.cut(world.a.sockets[active.socket].ip)
    world.run(6_000)
    assert world.peer.route == (active, None)
    world.run(16_000)
    assert world.peer.route[0] is not active
    assert world.lost(2_000) == 0


def test_rotation() -> None:
    world = World(bonding("active-backup"))
    before = world.peer.route[0]
    assert world.a.node.rotate_bond(world.b.address, world.net.now_ms)
    assert world.peer.route[0] is not before
    assert world.lost(2_000) == 0
    assert not world.a.node.rotate_bond(world.root.address, world.net.now_ms)


def test_broadcast_survives_a_cut_without_loss_and_delivers_once() -> None:
    world = World(bonding("broadcast"))
    world.links.clear()
    assert world.lost(3_000) == 0
    assert len(world.links) == 2
    assert world.links.total() == 4 * 30
    # Frames that the control plane sends, and packets that are no frames.
    for verb, copies in ((Verb.FRAME, 4), (Verb.USER_MESSAGE, 1)):
        world.links.clear()
        world.a.node.vl1.send(world.b.address, verb, bytes(1100), world.net.now_ms)
        world.net.run(100)
        assert world.links.total() == copies
    world.cut(world.uplink(0))
    assert world.lost(10_000) == 0
    assert world.doubled() == 0


def test_round_robin_uses_both_links() -> None:
    world = World(bonding("balance-rr", packets_per_link=1))
    world.links.clear()
    assert world.lost(4_000) == 0
    assert sorted(world.links.values()) == [20, 20]
    world.cut(world.uplink(0))
    world.run(2 * F_MS)
    assert world.lost(4_000) == 0
    assert world.b.got_frame(world.sent.to_bytes(4) + bytes(1100))


@pytest.mark.parametrize("base", ["balance-xor", "balance-aware"])
def test_flows_leave_a_dead_link(base: str) -> None:
    world = World(bonding(base))
    (before,) = _used(world)
    world.cut(before)
    assert world.lost(10_000) <= F_MS // STEP_MS + 3
    (after,) = _used(world)
    assert after != before


def _used(world: World) -> list[bytes]:
    world.links.clear()
    world.run(1_000)
    return list(world.links)


def test_all_links_dead_means_the_relay_and_back() -> None:
    world = World(bonding("active-backup"))
    of_b = {place.ip for place in world.b.sockets.values()}
    of_a = {place.ip for place in world.a.sockets.values()}
    world.net.block(
        lambda source, to: {source.ip, to.ip} & of_a != set() and {source.ip, to.ip} & of_b != set()
    )
    world.run(2 * F_MS)
    assert world.lost(5_000) == 0
    assert not world.a.direct(world.b)
    world.net.block(None)
    world.run(30_000)
    assert world.a.direct(world.b)
    assert world.lost(2_000) == 0


def test_reports_measure_the_paths() -> None:
    """Both ends bond: latency is known from QOS_MEASUREMENT, one way."""
    world = World(bonding("balance-rr", packets_per_link=1), bonding("balance-rr"))
    world.run(20_000)
    counters = world.a.node.vl1.counters.as_dict()
    assert counters["packet.rx.qos"] >= 4
    assert counters["packet.tx.qos"] >= 4
    paths = [path.bond for path in world.status.paths if path.bond]
    assert len(paths) == 4
    one_way_ms = 2 * world.net.link.delay_ms
    for path in paths:
        assert abs(path.latency_mean_ms - one_way_ms) < 2
        assert path.quality == pytest.approx(1 / 4, abs=0.05)
    assert world.status.latency_ms == 2 * one_way_ms  # Q15


def test_a_report_measures_one_way() -> None:
    world = World(bonding("balance-rr"))
    member = world.peer.bond.members[0]  # type: ignore[union-attr]
    to = member.known.path
    back = next(
        known.path
        for known in world.b.node.vl1.peers[world.a.address].paths
        if known.path.address == world.a.sockets[to.socket]
        and world.b.sockets[known.path.socket] == to.address
    )
    member.latency = Latency()
    member.sent.add((number, world.net.now_ms - 100) for number in (1, 3, 5, 7))
    records = tuple(QosRecord(number, 40) for number in (1, 3, 5, 7, 9))
    payload = QosMeasurement(records).encode()
    world.b.node.vl1.send_on(back, world.a.address, Verb.QOS_MEASUREMENT, payload, world.net.now_ms)
    world.b.send(world.a, b"and everything before it")
    world.net.run(2 * world.net.link.delay_ms)
    assert abs(member.latency.mean_ms - (100 - 40 + 2 * world.net.link.delay_ms) / 2) < 10
    assert member.sent.take(1) is None


def test_a_flood_of_reports_is_bounded_and_bad_ones_are_nothing() -> None:
    world = World(bonding("balance-rr"))
    bond = world.peer.bond
    assert bond is not None
    path = world.b.node.vl1.peers[world.a.address].paths[0].path
    member = next(m for m in bond.members if m.known.path.address in world.b.sockets.values())
    member.sent.add((number, world.net.now_ms - 40) for number in range(400))
    for payload in (b"", b"123", bytes(1401), QosMeasurement((QosRecord(7, 0),)).encode() + b"12"):
        world.b.node.vl1.send_on(
            path, world.a.address, Verb.QOS_MEASUREMENT, payload, world.net.now_ms
        )
    for number in range(300):
        report = QosMeasurement((QosRecord(number, 10),)).encode()
        world.b.node.vl1.send_on(
            path, world.a.address, Verb.QOS_MEASUREMENT, report, world.net.now_ms
        )
    world.net.run(1_000)
    assert all(len(m.sent) <= 420 for m in bond.members)
    assert world.lost(1_000) == 0


def test_only_listed_links_and_chosen_peers() -> None:
    links = (Link("eth1", primary=True),)
    world = World(bonding("balance-rr", links=links))
    assert {m.link.name for m in world.peer.bond.members} == {"eth1"}  # type: ignore[union-attr]
    assert _used(world) == [world.uplink(1)]
    mine = Policy("mine", "broadcast")
    other = Settings(bonding=Bonding(policies={"mine": mine}, peers={world.root.address: mine}))
    world.a.node.settings_changed(other, world.net.now_ms)
    world.run(3_000)
    assert world.peer.bond is None  # no default policy
    assert world.a.node.vl1.peers[world.root.address].bond is None  # upstreams never
    chosen = Settings(bonding=Bonding(policies={"mine": mine}, peers={world.b.address: mine}))
    world.a.node.settings_changed(chosen, world.net.now_ms)
    world.run(3_000)
    assert world.status.bond is not None
    assert world.status.bond.policy_name == "broadcast"
    world.a.node.settings_changed(Settings(), world.net.now_ms)
    assert world.status.bond is None
    assert all(path.bond is None for path in world.status.paths)
    assert world.lost(3_000) == 0


def test_mtu_of_a_link() -> None:
    world = World(bonding("balance-rr", packets_per_link=1))
    to = next(path.address.ip for path in world.status.paths)
    assert not world.a.node.set_bond_mtu(600, "eth7", to)
    for path in world.status.paths:
        assert world.a.node.set_bond_mtu(600, "eth0", path.address.ip)
    world.links.clear()
    world.run(4_000)
    assert set(world.links) == {world.uplink(1)}  # in one piece; over eth0 in two
    assert world.lost(1_000) == 0
    world.a.node.settings_changed(world.a.settings, world.net.now_ms)
    assert {p.path.mtu for p in world.peer.paths} == {600, 1432}


def test_an_uplink_that_vanishes_leaves_the_bond() -> None:
    world = World(bonding("active-backup"))
    active = world.peer.route[0]
    assert active is not None
    gone = world.a.sockets[active.socket]
    world.a.sockets = {n: place for n, place in world.a.sockets.items() if place.ip != gone.ip}
    world.a.rebind([], keep=True)
    assert world.lost(5_000) <= 5
    assert world.status.bond is not None
    assert world.status.bond.total_links == 1


def test_bonding_off_means_none_of_it() -> None:
    world = World(Settings())
    assert world.status.bond is None
    assert world.a.node.vl1.bonds.deadline() > world.net.now_ms + 1_000_000
    assert world.a.node.vl1.counters.as_dict()["packet.tx.qos"] == 0


def test_an_idle_peer_is_no_longer_bonded() -> None:
    world = World(bonding("active-backup"))
    world.net.run(600_000)
    peer = world.a.node.vl1.peers.get(world.b.address)
    assert peer is None or peer.bond is None
    world.run(20_000)
    assert world.status.bond is not None
