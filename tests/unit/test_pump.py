"""The pump with real sockets on loopback. A pair of packet sockets stands in for a TAP: it keeps
frame boundaries as a TAP does, and needs no privileges. Real TAPs: tests/system/test_plane.py."""

import itertools
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.switch_nodes import (
    ALICE,
    BOB,
    CAROL,
    FOREVER,
    MTU,
    NWID,
    ROOT,
    STRANGER,
    frame_of,
    key_of,
    mac_of,
    packet_of,
    tables_of,
)
from tests.unit.test_offload import ACK, PSH, Flow
from zt._fast import switch as plane
from zt._fast.pump import OPTIONS, Pump
from zt._fast.switch import Switch
from zt._fast.tables import Tables

LOOPBACK = bytes((127, 0, 0, 1))
OFFSET_MS = 1_000_000


def eventually(check: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.001)


def at_rest() -> bool:
    """Did no other thread of this process run for a while?"""

    def run_times() -> dict[str, str]:
        tasks = Path("/proc/self/task")
        return {
            task.name: (task / "schedstat").read_text().split()[0]
            for task in tasks.iterdir()
            if int(task.name) != threading.get_native_id()
        }

    before = run_times()
    time.sleep(0.2)
    return run_times() == before


class Node:
    """A pump with one loopback socket and one stand-in TAP."""

    def __init__(self, address: int, *, vnet: bool = False, **options: bool | int) -> None:
        self.address = address
        self.tables = tables_of(address)
        self.pump = Pump(Switch(self.tables), OFFSET_MS, **options)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.port = self.udp.getsockname()[1]
        self.tap, self.tap_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tap.settimeout(5)
        for end in (self.tap, self.tap_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.pump.udp_add(0, self.udp.fileno())
        self.pump.tap_add(NWID, [self.tap_end.fileno()], vnet_hdr=vnet)

    def knows(self, other: "Node", address: int | None = None) -> None:
        peer = address or other.address
        self.tables.peer_set(peer, key_of(self.address, peer), 3)
        path = self.tables.path(0, LOOPBACK, other.port)
        self.tables.peer_route(peer, path)
        self.tables.peer_path_add(peer, path)
        self.tables.member_set(NWID, peer, allowed=True, push_due_ms=FOREVER)

    def close(self) -> None:
        self.pump.stop()
        for one in (self.udp, self.tap, self.tap_end):
            one.close()


@pytest.fixture
def nodes() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(address: int, **options: bool | int) -> Node:
        made.append(Node(address, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


def pair(nodes: Callable[..., Node], **options: bool | int) -> tuple[Node, Node]:
    a, b = nodes(ALICE, **options), nodes(BOB, **options)
    a.knows(b)
    b.knows(a)
    for node in (a, b):
        node.pump.start()
    return a, b


FRAMES = [
    frame_of(ALICE, BOB, random.Random(i).randbytes(size))
    for i, size in enumerate([1, 46, 1400, 1500, 2800, 2800, 2800, 100] * 5)
]


@pytest.mark.parametrize(
    ("gso", "gro", "threads"), list(itertools.product([True, False], [True, False], [1, 2]))
)
def test_frames_arrive_in_order(nodes, gso: bool, gro: bool, threads: int) -> None:
    a, b = pair(nodes, udp_gso=gso, udp_gro=gro, udp_threads=threads, tap_threads=threads)
    for frame in FRAMES:
        a.tap.send(frame)
    assert [b.tap.recv(65536) for _ in FRAMES] == FRAMES
    b.tap.send(frame_of(BOB, ALICE, b"back"))
    assert a.tap.recv(65536) == frame_of(BOB, ALICE, b"back")
    counters = a.pump.counters()
    assert counters["frames_in"] == len(FRAMES)
    assert bool(a.pump.features()["udp_gso"]) != gso


def test_bursts_are_cut_and_sent_together(nodes) -> None:
    a, b = pair(nodes, vnet=True)
    flow, payload = Flow(flags=ACK | PSH), random.Random(3).randbytes(50000)
    vnet, burst = flow.burst(payload, 2748)
    a.tap.send(vnet + mac_of(BOB) + mac_of(ALICE) + burst[12:])
    expected = [mac_of(BOB) + mac_of(ALICE) + frame[12:] for frame in flow.cut(payload, 2748)]
    received = [b.tap.recv(65536) for _ in expected]
    assert received == [bytes(10) + frame for frame in expected]
    counters = a.pump.counters()
    assert counters["tap_reads"] == 1
    assert counters["frames_in"] == len(expected)
    assert counters["udp_sends"] <= 2
    assert counters["datagrams_out"] == 2 * len(expected) - 1  # the last one is short
    assert b.pump.counters()["udp_merged"] > 0
    assert "TUNSETVNETHDRSZ" in a.pump.features()["tap_tso"]  # it is no TAP


def test_punts_wake_the_control_plane(nodes) -> None:
    a, _ = pair(nodes)
    assert not select.select([a.pump.event_fd], [], [], 0)[0]
    a.tap.send(b"\xff" * 6 + mac_of(ALICE) + b"\x08\x06" + bytes(28))
    assert select.select([a.pump.event_fd], [], [], 5)[0]
    (punt,) = a.pump.punts()
    assert (punt.kind, punt.nwid) == (plane.FRAME, NWID)
    assert not select.select([a.pump.event_fd], [], [], 0)[0]
    assert a.pump.punts() == []
    # An unknown sender, whose place is told.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        hello = packet_of(STRANGER, ALICE, 1, bytes(100), suite=0)
        stranger.sendto(hello, ("127.0.0.1", a.port))
        assert select.select([a.pump.event_fd], [], [], 5)[0]
        (punt,) = a.pump.punts()
        assert (punt.kind, punt.ip, punt.port) == (plane.HELLO, LOOPBACK, stranger.getsockname()[1])
        assert punt.data == hello


def test_the_control_plane_sends(nodes) -> None:
    a, b = pair(nodes)
    assert a.pump.send(0, LOOPBACK, b.port, b"1234")
    assert a.pump.send(-1, LOOPBACK, b.port, b"1234", ttl=2)
    assert not a.pump.send(5, LOOPBACK, b.port, b"1234")
    assert not a.pump.send(0, bytes(16), b.port, b"1234")
    eventually(lambda: b.pump.counters()["drop_malformed"] == 2)
    frame = frame_of(BOB, ALICE, b"x")
    assert a.pump.write_frame(NWID, frame)
    assert a.tap.recv(65536) == frame
    assert not a.pump.write_frame(NWID + 1, frame)


def test_a_relay_forwards(nodes) -> None:
    a, b, root = nodes(ALICE), nodes(BOB), nodes(ROOT)
    a.knows(root, BOB)
    b.knows(root, ALICE)
    root.knows(a)
    root.knows(b)
    root.tables.relay(True, None)
    for node in (a, b, root):
        node.pump.start()
    for frame in FRAMES:
        a.tap.send(frame)
    assert [b.tap.recv(65536) for _ in FRAMES] == FRAMES
    assert root.pump.counters()["relayed"] == a.pump.counters()["datagrams_out"]
    assert root.pump.counters()["datagrams_in"] == root.pump.counters()["relayed"]


TUNNEL = -2
BEHIND_TUNNEL = (TUNNEL, bytes((44, 66, 0, 1)), 9993)


def test_what_goes_to_no_descriptor_is_the_control_planes(nodes) -> None:
    """Frames for a peer behind the tunnel, and a relayed datagram."""
    a, root = nodes(ALICE), nodes(ROOT)
    for node in (a, root):
        node.tables.peer_set(BOB, key_of(node.address, BOB), 3)
        node.tables.peer_route(BOB, node.tables.path(*BEHIND_TUNNEL))
        node.tables.member_set(NWID, BOB, allowed=True, push_due_ms=FOREVER)
    root.tables.relay(True, None)
    for node in (a, root):
        node.pump.start()

    bob = Tables(BOB)
    bob.network_set(
        NWID,
        mtu=MTU,
        mac=int.from_bytes(mac_of(BOB), "big"),
        public=False,
        bridge=False,
        rules=None,
    )
    bob.peer_set(ALICE, key_of(ALICE, BOB), 3)
    bob.member_set(NWID, ALICE, allowed=True, push_due_ms=FOREVER)
    receiver = Switch(bob)
    received: list[bytes] = []
    last = b""

    def arrived() -> bool:
        nonlocal last
        for punt in a.pump.punts():
            assert (punt.kind, punt.socket, punt.ip, punt.port) == (plane.SEND, *BEHIND_TUNNEL)
            receiver.datagram(*BEHIND_TUNNEL, punt.data, 1)
            last = punt.data
        received.extend(frame for _, frame in receiver.take_frames())
        return len(received) >= len(FRAMES)

    for frame in FRAMES:
        a.tap.send(frame)
    eventually(arrived)
    assert received == FRAMES
    assert not a.pump.counters()["udp_failed"]

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(last, ("127.0.0.1", root.port))
        # The notice of the introduction is queued first and wakes us by itself.
        sends: list[plane.Punt] = []

        def forwarded() -> bool:
            sends.extend(punt for punt in root.pump.punts() if punt.kind == plane.SEND)
            return bool(sends)

        eventually(forwarded)
    (relayed,) = sends
    assert relayed[1:4] == BEHIND_TUNNEL
    assert relayed.data[19:] == last[19:]


def test_the_clock_of_the_tables(nodes) -> None:
    a, b = pair(nodes)
    a.tap.send(frame_of(ALICE, BOB, b"x"))
    b.tap.recv(100)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 + OFFSET_MS
    last, last_frame = b.tables.peer_times(ALICE)
    assert last == last_frame
    assert now - 5000 < last <= now


def test_a_full_tap_does_not_hold_up_the_other_direction(nodes) -> None:
    a, b = pair(nodes)
    frame = frame_of(ALICE, BOB, bytes(2800))
    # Nobody reads b's TAP: writes to it fail sooner or later, and b goes on reading and sending.
    while not b.pump.counters()["tap_failed"]:
        a.tap.send(frame)
    b.tap.send(frame_of(BOB, ALICE, b"through"))
    assert a.tap.recv(100) == frame_of(BOB, ALICE, b"through")


def test_sockets_and_taps_come_and_go_under_traffic(nodes) -> None:
    a, b = pair(nodes)
    extra = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    other, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for number, one in enumerate(extra, 1):
        one.bind(("127.0.0.1", 0))
        a.pump.udp_add(number, one.fileno())
        a.pump.tap_add(7, [other_end.fileno()], vnet_hdr=False)
        a.tap.send(FRAMES[0])
        assert b.tap.recv(100) == FRAMES[0]
        a.pump.udp_remove(number)
        a.pump.tap_remove(7)
        one.close()
    assert not a.pump.send(1, LOOPBACK, b.port, b"1234")
    other.close()
    other_end.close()
    a.pump.udp_remove(0)
    b.pump.send(0, LOOPBACK, a.port, b"1234")
    a.pump.udp_add(3, a.udp.fileno())
    eventually(lambda: a.pump.counters()["drop_malformed"] == 1)


def test_changes_in_quick_succession_do_not_hang(nodes) -> None:
    """A thread that is still busy with one wake-up must not swallow the next."""
    a = nodes(ALICE, udp_threads=2, tap_threads=2)
    a.pump.start()
    changes = threading.Thread(target=lambda: change(20_000), daemon=True)

    def change(times: int) -> None:
        for _ in range(times):
            a.pump.udp_remove(0)
            a.pump.udp_add(0, a.udp.fileno())

    changes.start()
    changes.join(60)
    assert not changes.is_alive()


def test_tables_change_under_traffic(nodes) -> None:
    """Every table is rewritten while four threads look things up; ThreadSanitizer builds
    (ZT_SANITIZE=thread) run this as well."""
    a, b = pair(nodes, udp_threads=2, tap_threads=2)
    key = key_of(1, 2)
    for i in range(400):
        frame = FRAMES[i % len(FRAMES)]
        a.tap.send(frame)
        peer = 1000 + i % 50
        for tables in (a.tables, b.tables):
            path = tables.path(0, LOOPBACK, 1000 + i % 70)
            tables.peer_set(peer, key, 3)
            tables.peer_route(peer, path)
            tables.peer_path_add(peer, path)
            tables.member_set(NWID, peer, allowed=True, push_due_ms=0)
            tables.bridge_route(NWID, i % 30, 7)
            if i % 3 == 0:
                tables.peer_remove(peer)
                tables.member_remove(NWID, peer)
                tables.path_remove(path)
                tables.bridge_route(NWID, i % 30, None)
        a.pump.counters()
        b.tables.peer_times(ALICE)
        assert b.tap.recv(65536) == frame


def test_a_device_that_is_gone_is_left_alone(nodes) -> None:
    a, b = pair(nodes)
    a.tap.close()
    eventually(at_rest)
    b.tap.send(frame_of(BOB, ALICE, b"x"))
    eventually(lambda: a.pump.counters()["tap_failed"] == 1)
    a.tap = socket.socket()


def test_stop_and_start_again(nodes) -> None:
    a, b = pair(nodes)
    a.pump.stop()
    a.pump.stop()
    a.tap.send(FRAMES[0])
    a.pump.start()
    assert b.tap.recv(100) == FRAMES[0]


def test_no_descriptor_stays_open() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Pump(Switch(Tables(CAROL)), 0, udp_threads=3).start()
        with pytest.raises(TypeError):
            Pump(Switch(Tables(CAROL)), 0, speed=11)
        with pytest.raises(TypeError):
            Pump(None, 0)
        with pytest.raises(ValueError):
            Pump(Switch(Tables(CAROL)), 0, tap_threads=17)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    "options", [{"udp_threads": 0}, {"tap_threads": 17}], ids=["no thread", "too many"]
)
def test_refused_options(options) -> None:
    with pytest.raises(ValueError):
        Pump(Switch(Tables(1)), 0, **options)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="speed"):
        Pump(Switch(Tables(1)), 0, speed=11)
    assert {name for name, value in OPTIONS.items() if value is True} == set(
        Pump(Switch(Tables(1)), 0).features()
    )


def test_a_bad_descriptor() -> None:
    pump = Pump(Switch(Tables(1)), 0)
    with pytest.raises(OSError):
        pump.udp_add(0, 9999)
    with pytest.raises(OSError):
        pump.tap_add(NWID, [9999], vnet_hdr=False)
