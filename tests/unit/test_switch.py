"""The switch: frames through two of them and back, MACs and rules."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.switch_nodes import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    FRAGMENTED,
    IP,
    MTU,
    NOW,
    NWID,
    PORT,
    Node,
    ext_packet,
    frame_of,
    frame_packet,
    key_of,
    mac_of,
    opened,
    packet_of,
    pair,
)
from zt._fast import switch as plane
from zt._fast.filter import Program
from zt._fast.fragment import split
from zt._fast.switch import Switch

# ---- one direction at a time --------------------------------------------------------------------


@pytest.mark.parametrize("suite", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 46, 1392, 1394, 1395, 2800])
def test_a_frame_becomes_a_frame_packet(suite: int, size: int) -> None:
    a, _ = pair(suite=suite)
    payload = random.Random(size).randbytes(size)
    a.switch.frame(NWID, frame_of(ALICE, BOB, payload), NOW)
    sent = a.switch.take_datagrams()
    assert {(socket, ip, port) for socket, ip, port, _ in sent} == {(0, IP[BOB], PORT)}
    assert all(len(data) <= 1432 for *_, data in sent)
    assert len({len(data) for *_, data in sent[:-1]}) <= 1
    (packet,) = opened(sent, ALICE, BOB)
    assert packet[8:18] == BOB.to_bytes(5, "big") + ALICE.to_bytes(5, "big")
    assert packet[18] & 7 == 0
    assert packet[27:] == b"\x06" + struct.pack(">QH", NWID, 0x0800) + payload
    assert a.tables.path_times(a.tables.path(0, IP[BOB], PORT)) == (0, NOW)
    assert a.tables.peer_packets(BOB) == (0, 1)
    assert not a.switch.take_punts()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([BOB, CAROL, DAVE]), st.integers(1, MTU)), max_size=64))
def test_frames_of_one_batch(frames: list[tuple[int, int]]) -> None:
    """Sealing goes on from frame to frame: under suite 3 to Bob, under suite 1 to Carol, and over a
    trusted path to Dave, which nothing seals."""
    a = Node(ALICE)
    for peer in (BOB, CAROL, DAVE):
        a.knows(peer)
    a.tables.peer_set(CAROL, key_of(ALICE, CAROL), 1)
    a.tables.path(0, IP[DAVE], PORT, trusted_id=77)
    batch, bodies = [], {BOB: [], CAROL: [], DAVE: []}
    for number, (peer, size) in enumerate(frames):
        payload, ethertype = random.Random(number).randbytes(size), 0x9000 + number
        batch.append(frame_of(ALICE, peer, payload, ethertype))
        bodies[peer].append(b"\x06" + struct.pack(">QH", NWID, ethertype) + payload)
    a.switch.frames_in(NWID, batch, NOW)
    sent = a.switch.take_datagrams()
    for peer in (BOB, CAROL, DAVE):
        to_peer = [datagram for datagram in sent if datagram[1] == IP[peer]]
        packets = opened(to_peer, ALICE, peer, clear=peer == DAVE)
        assert [packet[27:] for packet in packets] == bodies[peer]


def test_a_batch_has_a_bound() -> None:
    a, _ = pair()
    with pytest.raises(ValueError, match="64"):
        a.switch.frames_in(NWID, [frame_of(ALICE, BOB, b"x")] * 65, NOW)
    assert not a.switch.take_datagrams()


@pytest.mark.parametrize("suite", [0, 1, 3])
def test_every_suite_is_opened(suite: int) -> None:
    _, b = pair(suite=3)
    b.hears(frame_packet(b"hello", suite=suite))
    assert b.switch.take_frames() == [(NWID, frame_of(ALICE, BOB, b"hello"))]
    assert b.tables.peer_times(ALICE) == (NOW, NOW)
    path = b.tables.path(0, IP[ALICE], PORT)
    assert b.tables.path_times(path) == (NOW, 0)
    assert b.tables.peer_path_time(ALICE, path) == NOW
    assert not b.switch.take_punts()


def test_packet_ids_differ_unless_seeded() -> None:
    def ids(seed: bytes | None) -> list[bytes]:
        a = Node(ALICE)
        a.switch = Switch(a.tables, seed=seed)
        a.knows(BOB)
        for _ in range(100):
            a.switch.frame(NWID, frame_of(ALICE, BOB, b"x"), NOW)
        return [data[:8] for *_, data in a.switch.take_datagrams()]

    assert len(set(ids(None))) == 100
    assert ids(None) != ids(None)
    assert ids(bytes(32)) == ids(bytes(32))


# ---- through and back ---------------------------------------------------------------------------


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=MTU), min_size=1, max_size=12),
    suite=st.sampled_from([0, 1, 3]),
    mtu=st.integers(1400, 1500),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_frames_survive_any_order_of_datagrams(payloads, suite, mtu, order) -> None:
    a, b = Node(ALICE, suite=suite), Node(BOB)
    a.knows(BOB, mtu=mtu)
    b.knows(ALICE)
    frames = [frame_of(ALICE, BOB, p) for p in payloads]
    for frame in frames:
        a.switch.frame(NWID, frame, NOW)
    sent = a.switch.take_datagrams()
    order.shuffle(sent)
    b.gets(sent, ALICE)
    assert sorted(b.switch.take_frames()) == sorted((NWID, frame) for frame in frames)
    assert not b.switch.take_punts()


def test_order_is_kept_when_datagrams_keep_theirs() -> None:
    a, b = pair()
    frames = [
        frame_of(ALICE, BOB, random.Random(i).randbytes(1 + i * 37 % MTU)) for i in range(200)
    ]
    for frame in frames:
        a.switch.frame(NWID, frame, NOW)
    b.gets(a.switch.take_datagrams(), ALICE)
    assert [frame for _, frame in b.switch.take_frames()] == frames


def test_one_flipped_bit_is_noticed_except_in_the_hops() -> None:
    packet = bytearray(frame_packet(b"payload"))
    for bit in range(len(packet) * 8):
        _, b = pair()
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        b.hears(bytes(damaged))
        if bit // 8 == 18 and bit % 8 < 3:
            assert b.switch.take_frames()
        else:
            assert not b.switch.take_frames(), bit
        b.switch.take_punts()


def test_repeats_of_frames_are_dropped() -> None:
    _, b = pair()
    packets = [frame_packet(bytes((i,))) for i in range(64)]
    b.hears(*packets)
    assert len(b.switch.take_frames()) == 64
    b.hears(*packets[::-1], *packets)
    assert not b.switch.take_frames()
    assert b.switch.counters()["drop_repeat"] == 128
    b.tables.member_remove(NWID, ALICE)
    refused = frame_packet(b"x")
    b.hears(refused, refused)
    (punt,) = b.switch.take_punts()
    b.tables.member_set(NWID, ALICE, allowed=True, push_due_ms=0)
    assert b.switch.packet(0, IP[ALICE], PORT, punt.data, NOW)
    # So are those that the control plane handles: compressed ones, and multicasts.
    other = [packet_of(ALICE, BOB, verb, b"x" * 20, seed=verb) for verb in (0x86, 0x87, 0x0E, 0x8E)]
    b.hears(*other, *other)
    assert [punt.data[27] for punt in b.switch.take_punts()] == [0x86, 0x87, 0x0E, 0x8E]
    # Other verbs are the control plane's to judge.
    echo = packet_of(ALICE, BOB, 8, b"x")
    b.hears(echo, echo)
    assert len(b.switch.take_punts()) == 2


def test_a_mirrored_frame_arrives_once() -> None:
    a, b = pair()
    second = a.tables.path(1, IP[BOB], PORT)
    a.tables.peer_route(BOB, a.tables.path(0, IP[BOB], PORT), second)
    frame = frame_of(ALICE, BOB, bytes(2000))
    a.switch.frame(NWID, frame, NOW)
    b.gets(a.switch.take_datagrams(), ALICE)
    assert b.switch.take_frames() == [(NWID, frame)]


# ---- MACs, bridging, sizes ----------------------------------------------------------------------

FOREIGN = b"\x02\xaa\xbb\xcc\xdd\xee"


def test_ext_frames() -> None:
    _, b = pair()
    ours, theirs = mac_of(BOB), mac_of(ALICE)

    def outcome(packet: bytes) -> str:
        b.hears(packet)
        if b.switch.take_frames():
            return "written"
        return {(): "dropped", (plane.PACKET,): "punted"}[
            tuple(p.kind for p in b.switch.take_punts())
        ]

    assert outcome(ext_packet(ours, theirs, b"x")) == "written"
    assert outcome(ext_packet(ours, theirs, b"x", 0x10)) == "punted"
    assert outcome(ext_packet(ours, theirs, b"x", 0x01)) == "punted"
    assert outcome(ext_packet(ours, theirs, b"x", 0x0E)) == "written"
    assert outcome(ext_packet(ours, bytes(6), b"x")) == "dropped"
    assert outcome(ext_packet(ours, ours, b"x")) == "dropped"
    assert outcome(ext_packet(FOREIGN, theirs, b"x")) == "dropped"
    assert outcome(ext_packet(b"\x33\x33\0\0\0\1", theirs, b"x")) == "punted"
    assert outcome(ext_packet(ours, FOREIGN, b"x")) == "punted"
    b.tables.bridge_route(NWID, int.from_bytes(FOREIGN, "big"), ALICE)
    assert outcome(ext_packet(ours, FOREIGN, b"x")) == "written"
    assert outcome(ext_packet(ours, theirs, b"")) == "dropped"
    counters = b.switch.counters()
    assert (counters["drop_source_mac"], counters["drop_bridge_in"]) == (2, 1)


def test_bridged_frames_both_ways() -> None:
    a, b = Node(ALICE, bridge=True), Node(BOB, bridge=True)
    a.knows(BOB)
    b.knows(ALICE)
    other = b"\x02\x01\x02\x03\x04\x05"
    a.tables.bridge_route(NWID, int.from_bytes(FOREIGN, "big"), BOB)
    b.tables.bridge_route(NWID, int.from_bytes(other, "big"), ALICE)
    frame = FOREIGN + other + b"\x08\x00" + bytes(1500)
    a.switch.frame(NWID, frame, NOW)
    sent = a.switch.take_datagrams()
    b.gets(sent, ALICE)
    assert b.switch.take_frames() == [(NWID, frame)]
    (packet,) = opened(sent, ALICE, BOB)
    assert (
        packet[27:51] == b"\x07" + NWID.to_bytes(8, "big") + b"\0" + FOREIGN + other + b"\x08\x00"
    )


def test_only_bridges_send_foreign_macs() -> None:
    a, _ = pair()
    a.switch.frame(NWID, mac_of(BOB) + FOREIGN + b"\x08\x00x", NOW)
    assert not a.switch.take_datagrams()
    assert a.switch.counters()["drop_bridge_out"] == 1


def test_frames_beyond_the_mtu() -> None:
    a, b = pair()
    a.switch.frame(NWID, frame_of(ALICE, BOB, bytes(MTU + 1)), NOW)
    assert not a.switch.take_datagrams()
    assert a.switch.counters()["drop_size_out"] == 1
    b.hears(*split(frame_packet(bytes(MTU + 1), flags=FRAGMENTED), 1432))
    assert not b.switch.take_frames()
    assert b.switch.counters()["drop_size_in"] == 1


def test_a_network_of_the_largest_mtu() -> None:
    a, b = pair()
    for node in (a, b):
        mac = int.from_bytes(mac_of(node.address), "big")
        node.tables.network_set(NWID, mtu=10000, mac=mac, public=False, bridge=False, rules=None)
    for size, fits in ((9890, True), (9986, True), (9987, False)):
        frame = frame_of(ALICE, BOB, random.Random(size).randbytes(size))
        a.switch.frame(NWID, frame, NOW)
        sent = a.switch.take_datagrams()
        assert all(len(data) <= 1500 for *_, data in sent)
        b.gets(sent, ALICE)
        assert b.switch.take_frames() == ([(NWID, frame)] if fits else [])


def test_a_mirror_gets_the_same_datagrams() -> None:
    a, _ = pair()
    IP[CAROL] = b"\x0a\0\0\3"
    second = a.tables.path(1, IP[CAROL], 1, mtu=1400)
    a.tables.peer_route(BOB, a.tables.path(0, IP[BOB], PORT), second)
    a.switch.frame(NWID, frame_of(ALICE, BOB, bytes(2000)), NOW)
    sent = a.switch.take_datagrams()
    first = [data for socket, *_, data in sent if socket == 0]
    assert [data for socket, *_, data in sent if socket == 1] == first
    assert len(first) == 2
    assert len(first[0]) <= 1400


# ---- rules --------------------------------------------------------------------------------------

DROP, ACCEPT = b"\x00\x00", b"\x01\x00"
ETHERTYPE_IS_ARP = b"\x25\x02\x08\x06"


def rules(table: bytes, address: int) -> Program:
    return Program(address, table)


def test_the_filter_judges_both_ways() -> None:
    table = ETHERTYPE_IS_ARP + ACCEPT
    a, b = Node(ALICE, rules=rules(table, ALICE)), Node(BOB)
    a.knows(BOB)
    b.knows(ALICE)
    for ethertype, passes in ((0x0800, False), (0x0806, True)):
        frame = frame_of(ALICE, BOB, b"x", ethertype)
        a.switch.frame(NWID, frame, NOW)
        assert bool(a.switch.take_datagrams()) == passes
        b.switch.frame(NWID, frame_of(BOB, ALICE, b"x", ethertype), NOW)
        a.gets(b.switch.take_datagrams(), BOB)
        assert bool(a.switch.take_frames()) == passes
    assert a.tables.network_frames(NWID) == (1, 1, 1, 1)
    assert not a.switch.take_punts()
