"""Traffic goes on after whatever happens to a path, in the simulator.

Every case has two hosts that exchange data, something that breaks, and the longest gap in what
either of them receives from then on. The original needs up to 243 s for a dead direct path and a
minute for a dead root (chapter 03, 14).
"""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.sim import PORT_RESTRICTED, SYMMETRIC, Host, NatKind, Network

LIMIT_MS = 5_000
STEP_MS = 100
OBSERVED_MS = 12_000

Pair = tuple[Network, Host, Host]


def meet(nat: NatKind | None = None, roots: int = 2) -> Pair:
    net = Network(seed=21)
    net.add_roots(roots)
    a, b = (net.add_host(net.add_nat(nat) if nat else None) for _ in range(2))
    net.run(2_000)
    exchange(net, a, b, 2_000)
    assert a.direct(b) == b.direct(a) == (nat is not SYMMETRIC)
    return net, a, b


def exchange(net: Network, a: Host, b: Host, duration_ms: int) -> None:
    for number in range(duration_ms // STEP_MS):
        a.send(b, b"%d" % number)
        b.send(a, b"%d" % number)
        net.run(STEP_MS)


def longest_gap(net: Network, a: Host, b: Host, duration_ms: int = OBSERVED_MS) -> int:
    """The longest time in which one of the two received nothing."""
    start_ms = net.now_ms
    a.received.clear()
    b.received.clear()
    exchange(net, a, b, duration_ms)
    gap_ms = 0
    for host in (a, b):
        times = [start_ms, *(time_ms for time_ms, *_ in host.received), net.now_ms]
        gap_ms = max(gap_ms, *(t - s for s, t in pairwise(times)))
    return gap_ms


def until_direct(net: Network, a: Host, b: Host, limit_ms: int) -> None:
    """Goes on exchanging until both send directly."""
    end_ms = net.now_ms + limit_ms
    while not (a.direct(b) and b.direct(a)):
        assert net.now_ms < end_ms, f"not direct within {limit_ms} ms"
        exchange(net, a, b, 500)


def ips(a: Host, b: Host) -> tuple[bytes, bytes]:
    return a.sockets[1].ip, b.sockets[1].ip


def test_dead_direct_path() -> None:
    net, a, b = meet()
    pair = set(ips(a, b))
    net.block(lambda source, to: {source.ip, to.ip} == pair)
    assert longest_gap(net, a, b) < LIMIT_MS
    assert not a.direct(b)
    net.block(None)
    until_direct(net, a, b, 60_000)


def test_path_dead_in_one_direction() -> None:
    net, a, b = meet()
    of_a, of_b = ips(a, b)
    net.block(lambda source, to: (source.ip, to.ip) == (of_a, of_b))
    assert longest_gap(net, a, b) < LIMIT_MS


def test_another_path_of_the_peer_takes_over() -> None:
    """Without any root in reach: two addresses each, one of them dies."""
    net, a, b = meet()
    for host in (a, b):
        net.add_address(host)
    net.run(1_000)
    exchange(net, a, b, 20_000)
    path = a.node.vl1.path(b.address, net.now_ms)
    assert path is not None
    dead = path.address.ip
    for root in net.roots:
        root.stop()
    net.block(lambda source, to: dead in (source.ip, to.ip))
    assert longest_gap(net, a, b) < LIMIT_MS


def test_host_with_a_new_address() -> None:
    net, a, b = meet()
    net.move_host(a)
    assert longest_gap(net, a, b) < LIMIT_MS
    assert a.direct(b)
    assert b.direct(a)


def test_late_address() -> None:
    """A host that starts without any address gets one later, as by DHCP."""
    net, _, b = meet()
    a = net.add_host()
    places = list(a.sockets.values())
    a.rebind([])
    net.run(60_000)
    assert not a.node.online
    a.rebind(places)
    assert longest_gap(net, a, b) < LIMIT_MS


def test_two_minutes_asleep() -> None:
    net, a, b = meet(PORT_RESTRICTED)
    a.sleep()
    for number in range(1_200):
        b.send(a, b"%d" % number)
        net.run(100)
    a.wake()
    assert longest_gap(net, a, b) < LIMIT_MS
    assert a.direct(b)


@pytest.mark.parametrize("files", [True, False], ids=["with cache", "without"])
def test_restarted_peer(files: bool) -> None:
    net, a, b = meet()
    a.stop()
    if not files:
        a.files.clear()
    net.run(1_000)
    a.start()
    assert longest_gap(net, a, b) < LIMIT_MS
    assert a.direct(b)
    assert b.direct(a)


def move(net: Network, a: Host) -> None:
    assert a.nat is not None
    net.move_nat(a.nat)


def forget(net: Network, a: Host) -> None:
    assert a.nat is not None
    a.nat.reset()


@pytest.mark.parametrize("change", [move, forget], ids=["new external address", "restarted"])
def test_translator_changes(change: Callable[[Network, Host], None]) -> None:
    net, a, b = meet(PORT_RESTRICTED)
    change(net, a)
    assert longest_gap(net, a, b) < LIMIT_MS
    until_direct(net, a, b, 30_000)


def test_dead_root_under_relayed_traffic() -> None:
    net, a, b = meet(SYMMETRIC)
    used = a.node.vl1.upstreams()[0]
    next(root for root in net.roots if root.address == used).down = True
    assert longest_gap(net, a, b) < LIMIT_MS
    assert a.node.vl1.upstreams()[0] != used


def test_restarted_root() -> None:
    """Its memory is gone, and nobody says HELLO on his own for minutes."""
    net, a, b = meet(SYMMETRIC, roots=1)
    (root,) = net.roots
    root.stop()
    root.files.clear()
    root.start()
    assert longest_gap(net, a, b) < LIMIT_MS


def test_partition_heals() -> None:
    net, a, b = meet(roots=1)
    of_a = ips(a, b)[0]
    net.block(lambda source, to: of_a in (source.ip, to.ip))
    exchange(net, a, b, 120_000)
    net.block(None)
    # The longest wait between two attempts after a long silence.
    until_direct(net, a, b, 20_000)


def test_clock_jump_alone_breaks_nothing() -> None:
    net, a, b = meet()
    net.run(400_000)  # idle: paths stay alive by keep-alives
    assert a.direct(b)
    assert longest_gap(net, a, b) < LIMIT_MS
