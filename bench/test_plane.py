"""The data plane in memory: the switch both ways, relaying, fragments, the cutter and the joiner.

    python -m pytest bench/test_plane.py

Each round handles one burst or one receive buffer many times without Python in between; the figures
in "extra" are bytes of Ethernet payload per second of one core.
"""

from typing import Any

import pytest

from tests.unit.switch_nodes import ALICE, BOB, IP, NOW, NWID, PORT, ROOT, Node, frame_of, mac_of
from tests.unit.test_offload import ACK, Flow
from zt._fast.fragment import Reassembly, split
from zt._fast.offload import cut, join

TIMES = 50


def speed(benchmark: Any, size: int, packets: int) -> None:
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["Gbit_per_s"] = round(8 * size * TIMES / seconds / 1e9, 2)
    benchmark.extra_info["ns_per_packet"] = round(seconds / TIMES / packets * 1e9)


def burst(size: int, mtu: int) -> tuple[bytes, bytes, int]:
    """A TCP burst from ALICE to BOB as a TAP hands it over, and the frames it stands for."""
    flow = Flow(flags=ACK, tcp_options=bytes(12))
    segment = mtu - 52
    vnet, frame = flow.burst(bytes(size), segment)
    return vnet, mac_of(BOB) + mac_of(ALICE) + frame[12:], -(-size // segment)


@pytest.mark.parametrize("suite", [1, 3])
@pytest.mark.parametrize("mtu", [1500, 2800])
def test_transmit_burst(benchmark: Any, suite: int, mtu: int) -> None:
    node = Node(ALICE, suite=suite)
    node.knows(BOB)
    vnet, frame, packets = burst(60000, mtu)
    benchmark(node.switch.burst, NWID, vnet, frame, NOW, times=TIMES)
    speed(benchmark, 60000, packets)


@pytest.mark.parametrize("suite", [1, 3])
@pytest.mark.parametrize("size", [50, 1386])
def test_transmit_frame(benchmark: Any, suite: int, size: int) -> None:
    node = Node(ALICE, suite=suite)
    node.knows(BOB)
    frame = frame_of(ALICE, BOB, bytes(size))
    benchmark(node.switch.burst, NWID, bytes(10), frame, NOW, times=TIMES)
    speed(benchmark, size, 1)


def received(suite: int, size: int, mtu: int) -> tuple[bytes, int, int]:
    """What UDP_GRO brings of a burst: the buffer, the datagram size, the packets in it."""
    sender = Node(ALICE, suite=suite)
    sender.knows(BOB)
    vnet, frame, _ = burst(size, mtu)
    sender.switch.burst(NWID, vnet, frame, NOW)
    datagrams = [data for *_, data in sender.switch.take_datagrams()]
    segment = len(datagrams[0])
    run = []
    for datagram in datagrams:
        run.append(datagram)
        if len(datagram) < segment or len(run) == 44:
            break
    return b"".join(run), segment, sum(data[13] != 0xFF for data in run)


@pytest.mark.parametrize("suite", [1, 3])
def test_receive(benchmark: Any, suite: int) -> None:
    """Repeats of a packet are dropped only after they were opened, which is what costs."""
    node = Node(BOB)
    node.knows(ALICE)
    data, segment, packets = received(suite, 60000, 2800)
    benchmark(node.switch.datagrams_in, 0, IP[ALICE], PORT, data, segment, NOW, times=TIMES)
    speed(benchmark, packets * 2800, packets)


def test_relay(benchmark: Any) -> None:
    """Hops count up where a datagram lies, so what is relayed twice is at its limit: a fresh copy
    of the buffer is made for each round, and part of the figure."""
    root = Node(ROOT)
    root.knows(ALICE, member=False)
    root.knows(BOB, member=False)
    root.tables.relay(True, None)
    data, segment, packets = received(3, 60000, 2800)

    def forward() -> None:
        root.switch.datagrams_in(0, IP[ALICE], PORT, data, segment, NOW)
        root.switch.take_datagrams()

    benchmark(forward)
    benchmark.extra_info["us_per_buffer"] = round(benchmark.stats.stats.median * 1e6, 1)
    benchmark.extra_info["packets"] = packets


def test_split_and_reassemble(benchmark: Any) -> None:
    packet = bytearray(2838)
    packet[18] = 0x40

    def both() -> None:
        ring = Reassembly()
        for piece in split(packet, 1432):
            ring.add(piece)

    benchmark(both)


def test_cut(benchmark: Any) -> None:
    vnet, frame, _ = burst(60000, 2800)
    benchmark(cut, vnet, frame)


def test_join(benchmark: Any) -> None:
    vnet, frame, _ = burst(60000, 2800)
    benchmark(join, cut(vnet, frame))
