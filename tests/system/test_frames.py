"""Frames of every kind leave the tunnel byte for byte as they went in, in their order.

They are given to one TAP device and taken from the other through packet sockets, below the IP
stack, so bad checksums and nonsense reach the tunnel too. TCP streams, where the kernel's own
offloads cut and join, are checked by content in test_interop.
"""

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable

import pytest

from bench import measure
from bench.demo import choose
from bench.lab import Host, Lab
from bench.traffic import checksum
from bench.world import Service, World, by_family
from tests.system.raw import capture, receive

pytestmark = pytest.mark.system

COUNT = 1500
MTU = 2800
MARK = b"frame-test"  # the kernel's own traffic has no such bytes


def ipv4(rng: random.Random, protocol: int, body: bytes) -> bytes:
    """A packet with random options and, now and then, a wrong checksum or length."""
    options = rng.randbytes(4 * rng.randrange(0, 11, 5))
    length = 20 + len(options) + len(body)
    header = struct.pack(
        "!BBHHHBBH", 0x45 + len(options) // 4, 0, length, 7, 0x4000, 64, protocol, 0
    )
    header += rng.randbytes(8) + options
    good = struct.pack("!H", checksum(header))
    header = header[:10] + rng.choice((good, good, b"\xde\xad")) + header[12:]
    return b"\x08\x00" + header + body


def ipv6(rng: random.Random, protocol: int, body: bytes) -> bytes:
    """A packet with random extension headers."""
    chain = b""
    first = protocol
    for kind in rng.sample((0, 43, 60), rng.randrange(3)):
        chain = bytes([first, 0]) + rng.randbytes(6) + chain
        first = kind
    header = struct.pack("!IHBB", 6 << 28, len(chain) + len(body), first, 64) + rng.randbytes(32)
    return b"\x86\xdd" + header + chain + body


def tcp(rng: random.Random, body: bytes) -> bytes:
    options = rng.randbytes(4 * rng.randrange(4))
    offset = (5 + len(options) // 4) << 4
    return (
        rng.randbytes(12) + bytes([offset, rng.randrange(256)]) + rng.randbytes(6) + options + body
    )


def udp(rng: random.Random, body: bytes) -> bytes:
    return struct.pack("!HHHH", 4000, 4001, 8 + len(body), rng.randrange(65536)) + body


def frame(rng: random.Random, target: bytes, source: bytes) -> bytes:
    """A random frame of at most the MTU with a random tail that tells it from all others."""
    body = MARK + rng.randbytes(rng.choice((0, 1, 7, rng.randrange(1400), rng.randrange(2600))))
    makers: list[Callable[[], bytes]] = [
        lambda: ipv4(rng, 6, tcp(rng, body)),
        lambda: ipv4(rng, 17, udp(rng, body)),
        lambda: ipv6(rng, 6, tcp(rng, body)),
        lambda: ipv6(rng, 17, udp(rng, body)),
        lambda: ipv4(rng, rng.randrange(256), body),
        lambda: (
            b"\x81\x00" + struct.pack("!H", rng.randrange(1, 4095)) + ipv4(rng, 17, udp(rng, body))
        ),
        lambda: struct.pack("!H", rng.randrange(0x0900, 0x7FFF)) + body,
        lambda: b"\x08\x00" + body,  # no IP header at all
        lambda: b"\x86\xdd" + body,
        lambda: b"\x08\x00\x4f" + body[:12],
    ]
    return (target + source + rng.choice(makers)())[: 14 + MTU]


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def exchange(
    source: Host, target: Host, devices: tuple[str, str], frames: list[bytes]
) -> list[bytes]:
    """Sends the frames slowly enough for every queue; those of ours that arrive."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((devices[0], 0))
            for number, data in enumerate(frames):
                raw.send(data)
                if number % 20 == 19:
                    time.sleep(0.002)

    got: list[bytes] = []
    with capture(target, devices[1]) as raw:
        source.inside(send)
        while len(got) < len(frames) and select.select([raw], [], [], 2.0)[0]:
            data = receive(raw)
            if data[:12] == frames[0][:12] and MARK[:5] in data:
                got.append(data)
    return got


def device(node: Service, nwid: str) -> tuple[str, bytes]:
    network = node.network(nwid)
    return network["portDeviceName"], mac(network["mac"])


def test_frames_arrive_unchanged(lab: Lab) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    rng = random.Random(seed)
    world = World(lab, choose(os.environ.get("ZT_FRAMES_REFERENCE", "")))
    world.create()
    world.start()
    nwid = world.create_network(mtu=MTU)
    world.join(nwid)
    world.wait_joined(nwid)
    a, b = world.nodes
    measure.wait_ping(a.host, by_family(b.addresses(nwid))[0])
    world.wait_direct()
    (device_a, mac_a), (device_b, mac_b) = device(a, nwid), device(b, nwid)
    frames = [frame(rng, mac_b, mac_a) for _ in range(COUNT)]
    got = exchange(a.host, b.host, (device_a, device_b), frames)
    missing = [data.hex() for data in frames if data not in set(got)]
    assert not missing, f"seed {seed}: {len(missing)} frames missing, the first: {missing[0]}"
    assert got == frames, f"seed {seed}"
