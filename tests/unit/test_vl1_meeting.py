"""Nodes that find their root and each other, in the simulator."""

import pytest

from tests.sim import (
    FULL_CONE,
    PORT_RESTRICTED,
    RESTRICTED,
    SEQUENTIAL,
    SYMMETRIC,
    Host,
    Link,
    Nat,
    NatKind,
    Network,
)
from zt.protocol.inet import InetAddress
from zt.protocol.packet import FLAGS, SUITE_AES
from zt.vl1.actions import OFFLINE, ONLINE
from zt.vl1.peer import TRUST_MS
from zt.vl1.status import PLANET, PhysicalPath, Settings


def exchange(net: Network, a: Host, b: Host, duration_ms: int, step_ms: int = 100) -> None:
    """Both send something every step."""
    for number in range(duration_ms // step_ms):
        a.send(b, b"%d" % number)
        b.send(a, b"%d" % number)
        net.run(step_ms)


def test_first_contact_with_the_root() -> None:
    net = Network(seed=1)
    (root,) = net.add_roots()
    host = net.add_host()
    net.run(200)
    (status,) = host.node.peers(net.now_ms)
    assert (status.address, status.role) == (root.address, PLANET)
    assert status.latency_ms == 2 * 2 * net.link.delay_ms
    assert [path.address for path in status.paths] == list(root.sockets.values())
    assert host.node.online
    assert [event.kind for _, event in host.events] == [ONLINE]
    (status,) = root.node.peers(net.now_ms)
    assert [path.address for path in status.paths] == list(host.sockets.values())


def test_online_state_follows_the_roots() -> None:
    net = Network(seed=1)
    (root,) = net.add_roots()
    host = net.add_host()
    net.run(6_000)
    root.stop()
    net.run(90_000)
    assert not host.node.online
    root.start()
    net.run(30_000)
    assert [event.kind for _, event in host.events] == [ONLINE, OFFLINE, ONLINE]


def test_strangers_meet_through_the_root() -> None:
    net = Network(seed=2)
    net.add_roots()
    a, b = net.add_host(), net.add_host()
    net.run(1_000)
    a.send(b, b"first")
    assert net.run_until(lambda: b.got(b"first"), 1_000) < 200
    net.run_until(lambda: a.direct(b) and b.direct(a), 2_000)
    for one, other in ((a, b), (b, a)):
        peer = one.node.vl1.peers[other.address]
        assert peer.suite == SUITE_AES


def test_relayed_pairs_learn_their_versions() -> None:
    """The original leaves them on the old cipher for ever (chapter 03, Q13)."""
    net = Network(seed=3)
    net.add_roots()
    a, b = (net.add_host(net.add_nat(SYMMETRIC)) for _ in range(2))
    net.run(1_000)
    exchange(net, a, b, 3_000)
    assert not a.direct(b)
    assert not b.direct(a)
    assert a.node.vl1.peers[b.address].suite == SUITE_AES
    assert b.node.vl1.peers[a.address].suite == SUITE_AES


KINDS = [None, FULL_CONE, RESTRICTED, PORT_RESTRICTED, SEQUENTIAL, SYMMETRIC]
SYMMETRIC_KINDS = {SEQUENTIAL, SYMMETRIC}


def meets_directly(a: NatKind | None, b: NatKind | None) -> bool:
    """Two translators that map by destination cannot meet; a random one and one that filters by
    port neither, while a counting one is foreseen."""
    if a in SYMMETRIC_KINDS and b in SYMMETRIC_KINDS:
        return False
    return {a, b} != {PORT_RESTRICTED, SYMMETRIC}


@pytest.mark.parametrize(
    ("a_kind", "b_kind"),
    [(a, b) for i, a in enumerate(KINDS) for b in KINDS[i:]],
    ids=lambda kind: kind.name if kind else "none",
)
def test_pairs_of_nats(a_kind: NatKind | None, b_kind: NatKind | None) -> None:
    net = Network(seed=4)
    net.add_roots(2)  # port prediction needs two views
    a, b = (net.add_host(net.add_nat(k) if k else None) for k in (a_kind, b_kind))
    net.run(2_000)
    exchange(net, a, b, 3_000)
    assert len(a.received) == len(b.received) == 30
    expected = meets_directly(a_kind, b_kind)
    assert (a.direct(b), b.direct(a)) == (expected, expected)


def test_two_hosts_behind_one_nat_use_the_lan() -> None:
    net = Network(seed=5)
    net.add_roots()
    nat = net.add_nat(PORT_RESTRICTED)
    a, b = net.add_host(nat), net.add_host(nat)
    net.run(2_000)
    exchange(net, a, b, 1_000)
    path = a.node.vl1.path(b.address, net.now_ms)
    assert path is not None
    assert path.address == b.sockets[1]


def test_a_count_is_foreseen_among_other_traffic() -> None:
    """Two sockets, and others that are contacted meanwhile: their mappings lie between the last
    port that somebody could tell us and the one in question."""
    net = Network(seed=16)
    net.add_roots(2)
    a = net.add_host(net.add_nat(SEQUENTIAL), ports=(9993, 20_001))
    b = net.add_host(net.add_nat(PORT_RESTRICTED), ports=(9993, 20_002))
    others = [net.add_host(), *(net.add_host(net.add_nat(SYMMETRIC)) for _ in range(3))]
    net.run(2_000)
    for other in others:
        exchange(net, a, other, 500)
    exchange(net, a, b, 40_000)
    assert a.direct(b)
    assert b.direct(a)


def test_prediction_can_be_switched_off() -> None:
    net = Network(seed=4)
    net.add_roots(2)
    a, b = net.add_host(net.add_nat(SEQUENTIAL)), net.add_host(net.add_nat(PORT_RESTRICTED))
    for host in (a, b):
        host.node.settings_changed(Settings(port_prediction=False), net.now_ms)
    net.run(2_000)
    exchange(net, a, b, 3_000)
    assert not a.direct(b)


def test_bad_links_do_not_keep_nodes_apart() -> None:
    link = Link(delay_ms=20, jitter_ms=30, loss=0.2, duplication=0.1, reorder=0.1)
    net = Network(seed=6, link=link)
    net.add_roots()
    a, b = (net.add_host(net.add_nat(PORT_RESTRICTED)) for _ in range(2))
    net.run(5_000)
    exchange(net, a, b, 60_000)
    assert a.direct(b)
    assert b.direct(a)


def test_packets_wait_for_a_peer_that_is_looked_up() -> None:
    net = Network(seed=7)
    (root,) = net.add_roots()
    a, b = net.add_host(), net.add_host()
    for number in range(10):
        a.send(b, b"%d" % number)  # nobody knows anybody yet
    net.run(3_000)
    assert sorted(data for _, _, data in b.received) == [b"%d" % n for n in range(10)]
    assert root.address in a.node.vl1.peers


def test_hints_work_without_any_root() -> None:
    net = Network(seed=8)
    (root,) = net.add_roots()
    a, b = net.add_host(), net.add_host()
    net.run(1_000)
    exchange(net, a, b, 1_000)
    a.stop()
    root.stop()
    a.settings = Settings(hints={b.address: (b.sockets[1],)})
    a.start()
    a.send(b, b"again")
    net.run_until(lambda: b.got(b"again"), 6_000)


def test_no_path_leads_into_a_network_of_our_own() -> None:
    """The overlay must not carry itself: here the peer is also seen at an address that lies in a
    network of ours."""
    net = Network(seed=9)
    net.add_roots()
    nat: Nat = net.add_nat(PORT_RESTRICTED)
    a, b = net.add_host(nat), net.add_host(nat)
    lan = InetAddress.parse("10.0.0.0/8")
    a.node.tap_prefixes_changed([lan], net.now_ms)
    net.run(2_000)
    exchange(net, a, b, 3_000)
    known = a.node.vl1.peers[b.address]
    assert not [path for path in known.paths if lan.contains(path.path.address.ip)]
    assert len(a.received) == len(b.received) == 30


def test_a_path_goes_when_its_address_becomes_our_own() -> None:
    net = Network(seed=10)
    net.add_roots()
    a, b = net.add_host(), net.add_host()
    net.run(1_000)
    exchange(net, a, b, 1_000)
    assert a.direct(b)
    a.node.vl1.set_own_networks([InetAddress(b.sockets[1].ip, 32)], net.now_ms)
    assert not a.direct(b)
    exchange(net, a, b, 1_000)
    assert not a.direct(b)


def test_a_node_that_is_no_root_forwards_for_those_it_shares_a_network_with() -> None:
    """Chapter 03, 5.5: what came over a path that proved a common network lately is forwarded."""
    net = Network(seed=17)
    net.add_roots()
    a, b, c, stranger = (net.add_host() for _ in range(4))
    net.run(1_000)
    for one, other in ((a, b), (b, c), (a, c)):
        exchange(net, one, other, 1_000)
    sent: list[bytes] = []
    forwarded: list[bytes] = []
    to_c = c.sockets[1]

    def note(who: Host, source: InetAddress, to: InetAddress, data: bytes) -> None:
        if to == to_c and who is a:
            sent.append(data)
        elif to == to_c and who is b and data[:FLAGS] == sent[-1][:FLAGS]:
            forwarded.append(data)

    net.trace = note
    a.send(c, b"once more")
    b.receive(b.sockets[1], stranger.sockets[1], sent[-1])
    assert forwarded == []
    b.receive(b.sockets[1], a.sockets[1], sent[-1])
    (packet,) = forwarded
    assert packet[FLAGS] == sent[-1][FLAGS] + 1  # a hop
    net.run(TRUST_MS + 60_000)
    forwarded.clear()
    b.receive(b.sockets[1], a.sockets[1], sent[-1])
    assert forwarded == []


def test_nodes_started_together_behind_one_nat_are_all_served() -> None:
    """The original checks one stranger per source network each 2 s and ignores the others, who
    come back after 5 s (chapter 03, Q11)."""
    net = Network(seed=18)
    net.add_roots()
    nat = net.add_nat(PORT_RESTRICTED)
    hosts = [net.add_host(nat) for _ in range(Settings().stranger_burst)]
    net.run(500)
    assert [host.node.online for host in hosts] == [True] * len(hosts)


def test_everything_works_where_all_paths_are_trusted() -> None:
    """Requests are armored and their answers expected all the same; in the original no WHOIS would
    ever be answered (chapter 03, Q6)."""
    net = Network(seed=19)
    net.add_roots()
    everywhere = {InetAddress.parse("0.0.0.0/0"): PhysicalPath(trusted_id=7)}
    a, b = (net.add_host(settings=Settings(physical=everywhere)) for _ in range(2))
    for root in net.roots:
        root.node.settings_changed(Settings(physical=everywhere), net.now_ms)
    net.run(1_000)
    exchange(net, a, b, 2_000)
    assert a.direct(b)
    assert len(b.received) == 20


def test_idle_nodes_are_quiet() -> None:
    net = Network(seed=11)
    net.add_roots()
    host = net.add_host()
    net.run(10_000)
    before = net.datagrams
    net.run(10 * 60_000)
    per_minute = (net.datagrams - before) / 10
    # One ECHO each 14 s with its answer, and a HELLO in two minutes; a WHOIS each 5 s with its
    # answer is what the original spends.
    assert per_minute <= 12
    assert host.node.online


def test_a_seed_repeats_exactly() -> None:
    def run() -> list[tuple[int, bytes]]:
        log: list[tuple[int, bytes]] = []
        net = Network(seed=12, link=Link(jitter_ms=20, loss=0.1))
        net.trace = lambda host, source, to, data: log.append((net.now_ms, data))
        net.add_roots(2)
        hosts = [net.add_host(net.add_nat(PORT_RESTRICTED)) for _ in range(3)]
        net.run(2_000)
        exchange(net, hosts[0], hosts[1], 1_000)
        exchange(net, hosts[1], hosts[2], 1_000)
        return log

    assert run() == run()


def test_ipv6_when_ipv4_is_blocked() -> None:
    net = Network(seed=13)
    net.add_roots(ipv6=True)
    a, b = net.add_host(net.add_nat(SYMMETRIC), ipv6=True), net.add_host(ipv6=True)
    net.block(lambda source, to: len(to.ip) == 4)
    net.run(3_000)
    exchange(net, a, b, 3_000)
    path = a.node.vl1.path(b.address, net.now_ms)
    assert path is not None
    assert path.address.version == 6


def test_families_do_not_meet_but_by_relay() -> None:
    net = Network(seed=14)
    net.add_roots(ipv6=True)
    a, b = net.add_host(), net.add_host(ipv4=False, ipv6=True)
    net.run(2_000)
    exchange(net, a, b, 3_000)
    assert len(a.received) == len(b.received) == 30
    assert not a.direct(b)


def test_one_socket_of_several_is_enough() -> None:
    """Three ports each: nine ways between two hosts, one of them is kept."""
    net = Network(seed=15)
    (root,) = net.add_roots()
    a, b = (net.add_host(ports=(9993, 20_001, 30_001)) for _ in range(2))
    net.run(30_000)
    exchange(net, a, b, 30_000)
    assert len(a.node.vl1.peers[root.address].paths) == 1
    assert len(a.node.vl1.peers[b.address].paths) == 1
    assert a.direct(b)
    assert b.direct(a)
    before = net.datagrams
    exchange(net, a, b, 10_000)
    assert net.datagrams - before < 1.3 * 200
