"""Datagrams that no honest node sends, many of them: the service neither stops nor grows."""

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from bench import crowd, measure
from bench.demo import choose
from bench.lab import Host, Lab
from bench.world import PORT, Service, World, by_family
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.world import WorldVersion

pytestmark = [pytest.mark.system, pytest.mark.busy]

RATE = 10_000  # datagrams per second
SECONDS = float(os.environ.get("ZT_HOSTILE_SECONDS", "4"))  # 20 is the full measure
GROWTH = 8 << 20  # bytes of resident memory that a flood may add
LARGEST = 65_507  # what IPv4 lets UDP carry


def header(rng: random.Random, to: int, cipher: int, verb: int) -> bytes:
    """A packet header from a stranger (ch. 02, 2.1) with a random MAC."""
    source = rng.randrange(1, 0xFF00000000)
    flags = cipher << 3 | rng.randrange(8) | rng.choice((0, 0x40))
    addresses = to.to_bytes(5, "big") + source.to_bytes(5, "big")
    return rng.randbytes(8) + addresses + bytes([flags]) + rng.randbytes(8) + bytes([verb])


def strangers(victim: Service, count: int) -> list[bytes]:
    """HELLOs that are authentic, of identities that lack only the proof of work."""
    root = Identity.parse(victim.identity)
    to = InetAddress.parse(f"{victim.host.address}/{PORT}")
    talkers = [crowd.Talker(identity, root, 0) for identity in crowd.made_up(count)]
    return [talker.hello(root.address, to, 1, WorldVersion(0, 0)) for talker in talkers]


def layered(hello: bytes) -> bytes:
    """As if it were under the layer of later versions (ch. 02, 9.1.1): its key is nonsense."""
    return hello[:18] + b"\x80" + hello[19:]


def garbage(rng: random.Random, to: int, honest: bytes, hellos: Sequence[bytes]) -> Iterator[bytes]:
    """Endless hostile datagrams for the node ``to``; ``honest`` is a packet to spoil."""

    def fragment() -> bytes:
        numbers = bytes([0xFF, rng.randrange(256), rng.randrange(8)])
        return (
            rng.randbytes(8) + to.to_bytes(5, "big") + numbers + rng.randbytes(rng.randrange(1400))
        )

    def flipped() -> bytes:
        spoiled = bytearray(honest)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        return bytes(spoiled)

    makers: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(rng.randrange(1500)),
        lambda: rng.randbytes(rng.choice((0, 1, 13, 16, 17, 27, 28, 29))),
        lambda: rng.randbytes(rng.choice((1501, 4000, 10_025, LARGEST))),
        lambda: honest[: rng.randrange(len(honest))],
        lambda: honest + rng.randbytes(rng.randrange(1400)),
        flipped,
        fragment,
        # For us, from strangers: each verb, each cipher; and for others, to be relayed.
        lambda: header(rng, to, rng.randrange(8), rng.randrange(256)) + rng.randbytes(200),
        lambda: header(rng, to, 0, 1) + struct.pack("!B", 12) + rng.randbytes(rng.randrange(300)),
        lambda: header(rng, rng.randrange(1, 1 << 40), 1, 6) + rng.randbytes(100),
        lambda: rng.choice(hellos),
        lambda: layered(rng.choice(hellos)),
        lambda: layered(honest),
    ]
    while True:
        yield rng.choice(makers)()


def flood(target: str, datagrams: list[bytes], seconds: float) -> None:
    """Sends ``seconds`` times ``RATE`` datagrams, at that rate or as fast as it can."""
    sent = 0
    started = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((target, PORT))
        while sent < seconds * RATE:
            due = min(int((time.monotonic() - started) * RATE), int(seconds * RATE))
            for _ in range(due - sent):
                udp.send(datagrams[sent % len(datagrams)])
                sent += 1
            time.sleep(0.001)


def recorded_hello(service: Service, host: Host) -> bytes:
    """A genuine HELLO: what another service of ours sends to its root at ``host``'s address."""

    def receive() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("", PORT))
            udp.settimeout(20)
            return udp.recv(2000)

    service.launch()
    try:
        return host.inside(receive)
    finally:
        service.stop()


def test_garbage_neither_stops_nor_grows_the_service(lab: Lab) -> None:
    world = World(lab, choose(""))
    world.create()
    root, (a, b) = world.root, world.nodes
    hello = recorded_hello(a, root.host)
    world.start()
    nwid = world.create_network()
    world.join(nwid)
    world.wait_joined(nwid)
    target = by_family(b.addresses(nwid))[0]
    measure.wait_ping(a.host, target)

    stranger = lab.host("stranger")
    rng = random.Random(7)
    for victim in (root, b):
        source = garbage(rng, int(victim.address, 16), hello, strangers(victim, 200))
        datagrams = [next(source) for _ in range(RATE)]
        # The first second fills tables and buffers up to their bounds.
        stranger.inside(flood, victim.host.address, datagrams, 1.0)
        before = victim.running.memory_bytes()
        stranger.inside(flood, victim.host.address, datagrams, SECONDS)
        assert victim.running.running
        assert victim.running.memory_bytes() - before < GROWTH
        assert len(victim.api("GET", "/peer")) < 10  # nobody got in
        assert victim.api("GET", "/status")["address"] == victim.address

    result = measure.ping(a.host, target, count=20, interval_s=0.01)
    assert result["received"] == result["sent"]
    for service in world.services.values():
        assert "Traceback" not in service.running.output()
        assert service.stop() == 0
