"""Many nodes at once: everybody reaches everybody, and what it costs."""

import os

from tests.sim import (
    FULL_CONE,
    PORT_RESTRICTED,
    RESTRICTED,
    SYMMETRIC,
    Host,
    Link,
    Network,
)

NODES = int(os.environ.get("ZT_SIM_NODES", "120"))
"""The long form has 5000."""

KINDS = (None, FULL_CONE, RESTRICTED, PORT_RESTRICTED, SYMMETRIC)


def crowd(net: Network) -> list[Host]:
    net.add_roots(3)
    hosts = []
    for number in range(NODES):
        kind = KINDS[number % len(KINDS)]
        hosts.append(net.add_host(net.add_nat(kind) if kind else None))
        net.run(2)
    net.run(5_000)
    return hosts


def test_everybody_reaches_a_random_partner() -> None:
    net = Network(seed=61, link=Link(delay_ms=10, jitter_ms=10, loss=0.01))
    hosts = crowd(net)
    assert all(host.node.online for host in hosts)
    pairs = [(host, net.random.choice(hosts)) for host in hosts]
    pairs = [(a, b) for a, b in pairs if a is not b]
    for round_ in range(6):
        for a, b in pairs:
            a.send(b, b"%d" % round_)
            b.send(a, b"%d" % round_)
        net.run(1_000)
    for a, b in pairs:
        assert any(source == a.address for _, source, _ in b.received)
    # Whoever lost a decisive datagram is introduced again within half a minute.
    late = [(a, b) for a, b in pairs if direct_way(a, b) and not a.direct(b)]
    assert len(late) < len(pairs) / 20
    for _ in range(35):
        for a, b in late:
            a.send(b, b"again")
            b.send(a, b"again")
        net.run(1_000)
    for a, b in pairs:
        way = direct_way(a, b)
        assert way is None or a.direct(b) == way


def direct_way(a: Host, b: Host) -> bool | None:
    """Is there one? None if that depends on what others do behind the translators."""
    kinds = [host.nat.kind if host.nat is not None else None for host in (a, b)]
    if SYMMETRIC not in kinds:
        return True
    return False if kinds.count(SYMMETRIC) == 2 or PORT_RESTRICTED in kinds else None


def test_idle_traffic_of_a_crowd() -> None:
    net = Network(seed=62)
    crowd(net)
    before = net.datagrams
    net.run(120_000)
    per_minute = (net.datagrams - before) / NODES / 2
    print(f"\n{NODES} idle nodes, 3 roots: {per_minute:.1f} datagrams per node and minute")
    # To each of 3 roots: an ECHO in 14 s and a HELLO in 120 s, and their answers.
    assert per_minute < 35


def test_partition_heals_for_everybody() -> None:
    net = Network(seed=63)
    hosts = crowd(net)[:40]
    pairs = list(zip(hosts[::2], hosts[1::2], strict=True))
    cut = {socket.ip for host in hosts for socket in host.sockets.values()}
    cut |= {host.nat.ip for host in hosts if host.nat is not None}
    for a, b in pairs:
        a.send(b, b"before")
    net.run(2_000)
    net.block(lambda source, to: source.ip in cut or to.ip in cut)
    net.run(300_000)
    net.block(None)
    net.run(25_000)
    for a, b in pairs:
        a.send(b, b"after")
    net.run(3_000)
    assert [b.got(b"after") for _, b in pairs] == [True] * len(pairs)
