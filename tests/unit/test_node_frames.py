"""Whole nodes with their data planes: frames between TAPs, and their way when paths break."""

from itertools import pairwise

import pytest

from tests.sim import PORT_RESTRICTED, SYMMETRIC, Host, NatKind, Network
from zt.protocol.address import NetworkId
from zt.protocol.inet import InetAddress
from zt.protocol.packet import FLAGS, SUITE_TRUSTED, Verb, new_packet
from zt.vl1.status import PhysicalPath, Settings
from zt.vl2 import status

STEP_MS = 50
LIMIT_MS = 5_000

World = tuple[Network, NetworkId, Host, Host]


def members(nat: NatKind | None = None, roots: int = 2) -> World:
    """Two members of one network that exchange frames directly (or by relay, as the NAT has it)."""
    net = Network(seed=51)
    net.add_roots(roots)
    controller = net.add_host()
    a, b = (net.add_host(net.add_nat(nat) if nat else None) for _ in range(2))
    net.run(1_000)
    nwid = net.add_network(controller)
    for host in (a, b):
        host.join(nwid)
    net.run_until(lambda: all(is_member(host, nwid) for host in (a, b)), 5_000)
    exchange(net, nwid, a, b, 3_000)
    assert a.direct(b) == b.direct(a) == (nat is not SYMMETRIC)
    return net, nwid, a, b


def is_member(host: Host, nwid: NetworkId) -> bool:
    network = host.node.network(nwid)
    return network is not None and network.status == status.OK


def exchange(
    net: Network, nwid: NetworkId, a: Host, b: Host, duration_ms: int, *, back: bool = True
) -> None:
    for number in range(duration_ms // STEP_MS):
        a.send_frame(nwid, b, b"a%d" % number)
        if back:
            b.send_frame(nwid, a, b"b%d" % number)
        net.run(STEP_MS)


def longest_gap(
    net: Network, nwid: NetworkId, a: Host, b: Host, duration_ms: int = 10_000, *, back: bool = True
) -> int:
    """The longest time in which one of the two received no frame."""
    start_ms = net.now_ms
    a.frames.clear()
    b.frames.clear()
    exchange(net, nwid, a, b, duration_ms, back=back)
    gap_ms = 0
    for host in (a, b) if back else (b,):
        times = [start_ms, *(time_ms for time_ms, _ in host.frames), net.now_ms]
        gap_ms = max(gap_ms, *(t - s for s, t in pairwise(times)))
    return gap_ms


def test_frames_take_the_direct_path_in_the_data_plane() -> None:
    net, nwid, a, b = members()
    before = a.switch.counters()
    a.send_frame(nwid, b, b"payload")
    assert a.switch.counters()["datagrams_out"] == before["datagrams_out"] + 1
    net.run(100)
    assert b.got_frame(b"payload")


def test_first_frames_are_not_lost() -> None:
    """They wait for the configuration's certificates and the peer's identity."""
    net = Network(seed=52)
    net.add_roots()
    controller, a, b = net.add_host(), net.add_host(), net.add_host()
    net.run(1_000)
    nwid = net.add_network(controller)
    for host in (a, b):
        host.join(nwid)
    net.run_until(lambda: all(is_member(host, nwid) for host in (a, b)), 5_000)
    a.send_frame(nwid, b, b"first")
    assert net.run_until(lambda: b.got_frame(b"first"), 3_000) < 1_000


def test_dead_direct_path() -> None:
    net, nwid, a, b = members()
    pair = {a.sockets[1].ip, b.sockets[1].ip}
    net.block(lambda source, to: {source.ip, to.ip} == pair)
    assert longest_gap(net, nwid, a, b) < LIMIT_MS


def test_dead_direct_path_of_a_silent_receiver() -> None:
    """Frames in one direction only: nothing but our own questions can tell."""
    net, nwid, a, b = members()
    pair = {a.sockets[1].ip, b.sockets[1].ip}
    exchange(net, nwid, a, b, 10_000, back=False)
    assert a.direct(b)
    net.block(lambda source, to: {source.ip, to.ip} == pair)
    assert longest_gap(net, nwid, a, b, back=False) < LIMIT_MS


def test_idle_path_that_died_meanwhile() -> None:
    net, nwid, a, b = members()
    pair = {a.sockets[1].ip, b.sockets[1].ip}
    net.block(lambda source, to: {source.ip, to.ip} == pair)
    net.run(60_000)
    a.send_frame(nwid, b, b"after a minute")
    net.run(200)
    assert b.got_frame(b"after a minute")


def test_dead_root_under_relayed_frames() -> None:
    net, nwid, a, b = members(SYMMETRIC)
    used = a.node.vl1.upstreams()[0]
    next(root for root in net.roots if root.address == used).down = True
    assert longest_gap(net, nwid, a, b) < LIMIT_MS


@pytest.mark.parametrize("nat", [None, PORT_RESTRICTED, SYMMETRIC])
def test_two_minutes_asleep(nat: NatKind | None) -> None:
    net, nwid, a, b = members(nat)
    a.sleep()
    for number in range(1_200):
        b.send_frame(nwid, a, b"%d" % number)
        net.run(100)
    a.wake()
    assert longest_gap(net, nwid, a, b) < LIMIT_MS


def test_restarted_member() -> None:
    net, nwid, a, b = members()
    a.stop()
    net.run(1_000)
    a.start()
    assert longest_gap(net, nwid, a, b) < LIMIT_MS


def test_new_address() -> None:
    net, nwid, a, b = members()
    net.move_host(a)
    assert longest_gap(net, nwid, a, b) < LIMIT_MS
    assert a.direct(b)


def test_no_root_is_needed_between_members() -> None:
    net, nwid, a, b = members(PORT_RESTRICTED)
    for root in net.roots:
        root.stop()
    assert longest_gap(net, nwid, a, b, 120_000) < 200
    assert a.direct(b)


def test_trusted_path_carries_frames_in_the_clear() -> None:
    everywhere = {InetAddress.parse("0.0.0.0/0"): PhysicalPath(trusted_id=7)}
    net, nwid, a, b = members()
    for host in (a, b):
        host.node.settings_changed(Settings(physical=everywhere), net.now_ms)
    seen: list[bytes] = []
    net.trace = lambda host, source, to, data: seen.append(data)
    a.send_frame(nwid, b, b"anybody may read this")
    net.run(200)
    assert b.got_frame(b"anybody may read this")
    assert any(b"anybody may read this" in data for data in seen)


def test_trusted_path_id_0_is_nobody() -> None:
    """The original takes it for trusted if any physical network is configured (ch. 03, Q5)."""
    net, _, a, b = members()
    entry = {InetAddress.parse("0.0.0.0/0"): PhysicalPath(mtu=1400)}
    b.node.settings_changed(Settings(physical=entry), net.now_ms)
    forged = new_packet(bytes(8), b.address, a.address, Verb.USER_MESSAGE, bytes(8) + b"forged")
    forged[FLAGS] |= SUITE_TRUSTED << 3
    for source in (a.sockets[1], InetAddress.parse("45.0.0.1/1")):
        b.receive(b.sockets[1], source, bytes(forged))
    assert b.messages == []
