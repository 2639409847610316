"""The switch: frames through two of them and back, relaying, gates and punts.

A slow Python twin (`Twin`) builds and opens the same packets from the description in chapters 02
and 04, so that each direction is also judged alone.
"""

import itertools
import random
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zt._fast import switch as plane
from zt._fast.cipher import PeerKey
from zt._fast.filter import Program
from zt._fast.fragment import Reassembly, split
from zt._fast.switch import Switch
from zt._fast.tables import Tables

NWID = 0x8056C2E21C00ABCD
ALICE, BOB, CAROL, ROOT, STRANGER = (
    0x1122334455,
    0x66778899AA,
    0x0F0E0D0C0B,
    0x0123456789,
    0x4242424242,
)
IP = {ALICE: b"\x0a\0\0\1", BOB: b"\x0a\0\0\2", CAROL: b"\x0a\0\0\3", ROOT: bytes(15) + b"\7"}
PORT = 9993
NOW = 1_700_000_000_000
FOREVER = 1 << 62
FRAGMENTED = 0x40
MTU = 2800


def mac_of(address: int, nwid: int = NWID) -> bytes:
    """Chapter 04, 2.2, octet by octet."""
    first = (nwid & 0xFE) | 2
    octets = [0x32 if first == 0x52 else first]
    for i in range(5):
        octets.append((address >> (32 - 8 * i) & 0xFF) ^ (nwid >> (8 + 8 * i) & 0xFF))
    return bytes(octets)


def key_of(a: int, b: int) -> PeerKey:
    return PeerKey(random.Random(a ^ b).randbytes(48))


def frame_of(source: int, dest: int, payload: bytes, ethertype: int = 0x0800) -> bytes:
    return mac_of(dest) + mac_of(source) + ethertype.to_bytes(2, "big") + payload


class Node:
    """A switch with tables filled as a control plane would fill them."""

    def __init__(
        self, address: int, *, suite: int = 3, rules: Program | None = None, bridge=False
    ) -> None:
        self.address = address
        self.suite = suite
        self.tables = Tables(address)
        self.switch = Switch(self.tables)
        self.tables.network_set(
            NWID,
            mtu=MTU,
            mac=int.from_bytes(mac_of(address), "big"),
            public=False,
            bridge=bridge,
            rules=rules,
        )

    def knows(
        self, peer: int, *, via: int | None = None, member: bool = True, mtu: int = 1432
    ) -> None:
        self.tables.peer_set(peer, key_of(self.address, peer), self.suite)
        path = self.tables.path(0, IP[via or peer], PORT, mtu=mtu)
        self.tables.peer_route(peer, path)
        if via is None:
            self.tables.peer_path_add(peer, path)
        if member:
            self.tables.member_set(NWID, peer, allowed=True, push_due_ms=FOREVER)

    def gets(self, datagrams, source: int, now: int = NOW) -> None:
        for _, _, _, data in datagrams:
            self.switch.datagram(0, IP[source], PORT, data, now)

    def hears(self, *datagrams: bytes, source: int = ALICE, now: int = NOW) -> None:
        for data in datagrams:
            self.switch.datagram(0, IP[source], PORT, data, now)


def pair(**options) -> tuple[Node, Node]:
    a, b = Node(ALICE, **options), Node(BOB, **options)
    a.knows(BOB)
    b.knows(ALICE)
    return a, b


def packet_of(
    source: int,
    dest: int,
    verb: int,
    payload: bytes,
    *,
    suite: int = 3,
    flags: int = 0,
    seed: int = 0,
) -> bytes:
    """An armored packet; under suite 2 a plain one."""
    packet = bytearray(random.Random(seed).randbytes(8))
    packet += dest.to_bytes(5, "big") + source.to_bytes(5, "big") + bytes((flags,)) + bytes(8)
    packet += bytes((verb,)) + payload
    if suite == 2:
        packet[18] |= 2 << 3
    else:
        key_of(source, dest).seal(packet, suite)
    return bytes(packet)


IDS = itertools.count()


def frame_packet(payload: bytes, *, source=ALICE, dest=BOB, nwid: int = NWID, **options) -> bytes:
    """An armored FRAME; each call gives it another packet ID."""
    options.setdefault("seed", next(IDS))
    return packet_of(source, dest, 6, struct.pack(">QH", nwid, 0x0800) + payload, **options)


def ext_packet(
    dest_mac: bytes, source_mac: bytes, payload: bytes, flags: int = 0, **options
) -> bytes:
    options.setdefault("seed", next(IDS))
    body = struct.pack(">QB", NWID, flags) + dest_mac + source_mac + b"\x08\x00" + payload
    return packet_of(options.pop("source", ALICE), options.pop("dest", BOB), 7, body, **options)


def opened(datagrams, source: int, dest: int) -> list[bytes]:
    """What a receiver by the book makes of datagrams."""
    ring, packets = Reassembly(), []
    for _, _, _, data in datagrams:
        whole = data if data[13] != 0xFF and not data[18] & FRAGMENTED else ring.add(data)
        if whole is not None:
            packet = bytearray(whole)
            assert key_of(source, dest).open(packet)
            packets.append(bytes(packet))
    assert len(ring) == 0
    return packets


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


# ---- relaying -----------------------------------------------------------------------------------


def relay_node() -> Node:
    root = Node(ROOT)
    root.knows(ALICE, member=False)
    root.knows(BOB, member=False)
    root.tables.relay(True, None)
    return root


def test_a_relay_changes_nothing_but_hops() -> None:
    a, b, root = Node(ALICE), Node(BOB), relay_node()
    a.knows(BOB, via=ROOT)
    b.knows(ALICE, via=ROOT)
    frame = frame_of(ALICE, BOB, random.Random(1).randbytes(2800))
    a.switch.frame(NWID, frame, NOW)
    sent = a.switch.take_datagrams()
    assert {ip for _, ip, _, _ in sent} == {IP[ROOT]}
    root.gets(sent, ALICE)
    forwarded = root.switch.take_datagrams()
    assert {ip for _, ip, _, _ in forwarded} == {IP[BOB]}
    for (*_, before), (*_, after) in zip(sent, forwarded, strict=True):
        at = 15 if before[13] == 0xFF else 18
        assert after == before[:at] + bytes((before[at] + 1,)) + before[at + 1 :]
    b.gets(forwarded, ROOT)
    assert b.switch.take_frames() == [(NWID, frame)]
    (notice,) = b.switch.take_punts()
    assert (notice.kind, notice.address, notice.hops, notice.ip) == (
        plane.RECEIVED,
        ALICE,
        1,
        IP[ROOT],
    )
    assert notice.data == b"\x06"
    (introduce,) = root.switch.take_punts()
    assert (introduce.kind, introduce.address) == (plane.INTRODUCE, ALICE)
    assert introduce.data == BOB.to_bytes(5, "big")


@pytest.mark.parametrize("hops", range(8))
def test_the_hop_limit(hops: int) -> None:
    root = relay_node()
    head = bytearray(frame_packet(b"x"))
    head[18] |= hops
    fragment = head[:13] + bytes((0xFF, 0x21, hops)) + b"data"
    root.hears(bytes(head), bytes(fragment))
    sent = root.switch.take_datagrams()
    assert len(sent) == (2 if hops < 3 else 0)
    assert root.switch.counters()["drop_hops"] == (0 if hops < 3 else 2)


def test_who_is_no_root_forwards_for_trusted_paths_only() -> None:
    node = relay_node()
    node.tables.relay(False, None)
    packet = frame_packet(b"x")
    fragment = packet[:13] + bytes((0xFF, 0x21, 0)) + b"data"
    node.hears(packet, fragment)
    assert node.switch.take_datagrams() == []
    assert node.switch.counters()["drop_relay"] == 2
    path = node.tables.path(0, IP[ALICE], PORT)
    node.tables.path_relay_until(path, NOW + 1)
    node.hears(packet, fragment)
    assert [ip for _, ip, _, _ in node.switch.take_datagrams()] == [IP[BOB]] * 2
    node.tables.path_relay_until(path, NOW)
    node.hears(packet)
    assert node.switch.take_datagrams() == []


def test_recorded_relaying(vectors) -> None:
    data = vectors("fragments.json")
    address = {
        name: int(data[f"{name}_identity"][:10], 16) for name in ("sender", "receiver", "root")
    }
    root = Node(address["root"])
    IP[address["sender"]], IP[address["receiver"]] = bytes((10, 8, 1, 1)), bytes((10, 9, 1, 1))
    root.knows(address["sender"], member=False)
    root.knows(address["receiver"], member=False)
    root.tables.relay(True, None)
    for case in data["relay_at_root"]:
        root.hears(bytes.fromhex(case["in"]), source=address["sender"])
        relayed = [bytes.fromhex(out["relayed"]) for out in case["out"] if "relayed" in out]
        assert [d for *_, d in root.switch.take_datagrams()] == relayed, case["description"]


def test_introductions_are_rare() -> None:
    root = relay_node()
    for now in (NOW, NOW + 9_999):
        root.hears(frame_packet(b"x"), now=now)
        root.hears(frame_packet(b"x", source=BOB, dest=ALICE), source=BOB, now=now)
    assert [p.kind for p in root.switch.take_punts()] == [plane.INTRODUCE]
    root.hears(frame_packet(b"x"), now=NOW + 10_000)
    assert [p.kind for p in root.switch.take_punts()] == [plane.INTRODUCE]


def test_an_upstream_takes_what_has_no_route() -> None:
    node = Node(CAROL)
    upstream = node.tables.path(0, IP[ROOT], PORT)
    packet = frame_packet(b"x")
    node.hears(packet)
    assert node.switch.counters()["drop_relay"] == 1
    node.tables.relay(True, None)
    node.hears(packet)
    (punt,) = node.switch.take_punts()
    assert (punt.kind, punt.data) == (plane.RELAY, packet)
    node.tables.relay(True, upstream)
    node.hears(packet)
    assert [ip for _, ip, _, _ in node.switch.take_datagrams()] == [IP[ROOT]]
    node.hears(packet, source=ROOT)
    assert not node.switch.take_datagrams()


# ---- what goes to the control plane -------------------------------------------------------------


def test_unauthenticated_packets_are_punted_as_they_came() -> None:
    b = Node(BOB)
    hello = packet_of(STRANGER, BOB, 1, bytes(100), suite=0)
    other = packet_of(STRANGER, BOB, 8, bytes(100))
    large = packet_of(STRANGER, BOB, 8, bytes(3000), flags=FRAGMENTED)
    b.hears(hello, other, *split(large, 1432))
    punts = b.switch.take_punts()
    assert [(p.kind, p.address, p.data) for p in punts] == [
        (plane.HELLO, STRANGER, hello),
        (plane.UNKNOWN, STRANGER, other),
        (plane.UNKNOWN, STRANGER, large),
    ]
    assert {(p.socket, p.ip, p.port) for p in punts} == {(0, IP[ALICE], PORT)}


def test_other_verbs_are_punted_open() -> None:
    _, b = pair()
    for verb in (2, 3, 8, 14, 0x1F, 0x86, 0x28):
        b.hears(packet_of(ALICE, BOB, verb, b"contents"))
        (punt,) = b.switch.take_punts()
        assert (punt.kind, punt.address) == (plane.PACKET, ALICE)
        assert punt.data[27:] == bytes((verb,)) + b"contents"
        assert b.tables.peer_times(ALICE) == (NOW, 0)


def test_the_gate() -> None:
    _, b = pair()
    for allowed in (False, True):
        b.tables.member_set(NWID, ALICE, allowed=allowed, push_due_ms=0)
        b.hears(frame_packet(b"x"))
        assert bool(b.switch.take_frames()) == allowed
        assert [p.kind for p in b.switch.take_punts()] == ([] if allowed else [plane.PACKET])
    b.tables.member_remove(NWID, ALICE)
    b.hears(frame_packet(b"x"))
    (punt,) = b.switch.take_punts()
    assert not b.switch.packet(0, IP[ALICE], PORT, punt.data, NOW)
    b.tables.member_set(NWID, ALICE, allowed=True, push_due_ms=0)
    assert b.switch.packet(0, IP[ALICE], PORT, punt.data, NOW)
    assert b.switch.take_frames() == [(NWID, frame_of(ALICE, BOB, b"x"))]


def test_a_network_that_we_are_not_in() -> None:
    _, b = pair()
    b.hears(frame_packet(b"x", nwid=NWID + 1))
    assert not b.switch.take_frames()
    assert not b.switch.take_punts()
    assert b.switch.counters()["drop_network"] == 1
    b.tables.network_remove(NWID)
    b.hears(frame_packet(b"x"))
    assert b.switch.counters()["drop_network"] == 2


def test_our_own_address_as_source() -> None:
    _, b = pair()
    b.tables.relay(True, None)
    b.hears(frame_packet(b"x", source=BOB, dest=BOB), frame_packet(b"x", source=BOB, dest=ALICE))
    assert b.switch.counters()["drop_self"] == 2
    assert not b.switch.take_punts()


def test_trusted_paths() -> None:
    _, b = pair()
    packet = bytearray(packet_of(ALICE, BOB, 6, b"x", suite=2))

    def hears(trusted: int) -> list[int]:
        packet[19:27] = trusted.to_bytes(8, "big")
        b.hears(bytes(packet))
        return [p.kind for p in b.switch.take_punts()]

    assert hears(0) == []  # the path is not trusted: 0 must not match 0
    b.tables.path(0, IP[ALICE], PORT, trusted_id=77)
    assert hears(78) == []
    assert hears(77) == [plane.TRUSTED]
    b.tables.path_remove(b.tables.path(0, IP[ALICE], PORT))
    assert hears(77) == [plane.UNKNOWN]  # a path nobody told us about: the control plane decides


def test_sending_over_a_trusted_path() -> None:
    a, _ = pair()
    a.tables.path(0, IP[BOB], PORT, trusted_id=77)
    a.switch.frame(NWID, frame_of(ALICE, BOB, b"in the clear"), NOW)
    ((_, _, _, data),) = a.switch.take_datagrams()
    assert data[18:27] == b"\x10" + (77).to_bytes(8, "big")
    assert data.endswith(b"in the clear")


@pytest.mark.parametrize(
    "case", ["multicast", "no member", "due", "no route", "route removed", "foreign"]
)
def test_frames_that_need_the_control_plane(case: str) -> None:
    a, _ = pair()
    frame = frame_of(ALICE, BOB, b"x")
    match case:
        case "multicast":
            frame = b"\xff" * 6 + frame[6:]
        case "no member":
            a.tables.member_remove(NWID, BOB)
        case "due":
            a.tables.member_set(NWID, BOB, allowed=True, push_due_ms=NOW)
        case "no route":
            a.tables.peer_route(BOB, None)
        case "route removed":
            a.tables.path_remove(a.tables.path(0, IP[BOB], PORT))
        case "foreign":
            frame = b"\x02\0\0\0\0\1" + frame[6:]
    a.switch.frame(NWID, frame, NOW)
    (punt,) = a.switch.take_punts()
    assert (punt.kind, punt.nwid, punt.data) == (plane.FRAME, NWID, frame)
    assert not a.switch.take_datagrams()


def test_notices_are_rare() -> None:
    _, b = pair()
    b.tables.peer_path_remove(ALICE, b.tables.path(0, IP[ALICE], PORT))
    for now in (NOW, NOW + 999, NOW + 1000):
        b.hears(frame_packet(b"x"), now=now)
    assert [p.kind for p in b.switch.take_punts()] == [plane.RECEIVED] * 2


def test_the_punt_queue_is_bounded_and_strangers_get_half() -> None:
    _, b = pair()
    stranger = packet_of(STRANGER, BOB, 8, bytes(9000))
    friend = packet_of(ALICE, BOB, 8, bytes(9000))
    for _ in range(600):
        b.hears(stranger)
    lost = b.switch.counters()["punts_lost"]
    assert lost > 0
    b.hears(friend)
    assert b.switch.counters()["punts_lost"] == lost
    assert b.switch.take_punts()[-1].kind == plane.PACKET


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


# ---- robustness ---------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=120), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_garbage_and_mutations(blobs: list[bytes], order: random.Random) -> None:
    _, b = pair()
    b.tables.relay(True, None)
    good = [frame_packet(b"x" * 50), *split(frame_packet(bytes(2000), flags=FRAGMENTED), 1432)]
    for blob in blobs:
        base = bytearray(order.choice(good))
        for byte in blob:
            base[order.randrange(len(base))] ^= byte
        b.hears(
            blob,
            BOB.to_bytes(5, "big").join((blob[:8], blob[8:])),
            bytes(base[: order.randrange(len(base) + 1)]),
        )
    for punt in b.switch.take_punts():
        assert punt.kind in (plane.HELLO, plane.UNKNOWN, plane.RELAY, plane.PACKET, plane.INTRODUCE)
    b.switch.take_frames()
    b.hears(frame_packet(b"still here"))
    assert b.switch.take_frames() == [(NWID, frame_of(ALICE, BOB, b"still here"))]


def test_nothing_grows_under_garbage() -> None:
    _, b = pair()
    rng = random.Random(5)
    head = ALICE.to_bytes(5, "big")

    def flood() -> None:
        for i in range(3000):
            data = (
                rng.randbytes(8)
                + BOB.to_bytes(5, "big")
                + head
                + bytes((FRAGMENTED if i % 2 else 0x18,))
            )
            b.hears(data + rng.randbytes(60))
            b.hears(data[:13] + b"\xff\x21\x00" + rng.randbytes(60))
        b.switch.take_punts()

    flood()
    before = sys.getallocatedblocks()
    flood()
    assert sys.getallocatedblocks() - before < 50


@pytest.mark.parametrize("size", [0, 1, 13, 14])
def test_stub_frames(size: int) -> None:
    a, _ = pair()
    a.switch.frame(NWID, frame_of(ALICE, BOB, b"")[:size], NOW)
    assert not a.switch.take_datagrams()
    assert not a.switch.take_punts()


def test_strangers_have_an_allowance_and_peers_do_not_need_it() -> None:
    """A flood of HELLOs and of packets that nobody has a key for stays in the data plane."""
    _, b = pair()
    stranger = random.Random(1)

    def kinds(*datagrams: bytes, now: int = NOW) -> list[int]:
        b.hears(*datagrams, now=now)
        return [punt.kind for punt in b.switch.take_punts()]

    def from_nobody(flags: int, verb: int) -> bytes:
        addresses = BOB.to_bytes(5, "big") + b"\1" + stranger.randbytes(4)
        return stranger.randbytes(8) + addresses + bytes((flags,)) + bytes(8) + bytes((verb, 9))

    forged = bytearray(packet_of(ALICE, BOB, 1, b"hello", suite=0))
    forged[-1] ^= 1
    # In the clear, under the layer, and in the name of a peer.
    floods = {
        plane.HELLO: lambda: (from_nobody(0, 1), from_nobody(0x80, 77), bytes(forged)),
        plane.UNKNOWN: lambda: (from_nobody(8, 77), from_nobody(24, 77), from_nobody(0, 8)),
    }
    for kind, flood in floods.items():
        got = kinds(*(datagram for _ in range(2_000) for datagram in flood()))
        assert set(got) == {kind}
        assert len(got) == 4_096
        assert kinds(*flood()) == []
    assert b.switch.counters()["drop_stranger"] == 2 * (6_000 - 4_096 + 3)
    # A peer's own HELLO is authentic.
    assert kinds(packet_of(ALICE, BOB, 1, b"hello", suite=0)) == [plane.HELLO]
    assert kinds(packet_of(ALICE, BOB, 8, b"echo")) == [plane.PACKET]
    # A second later there is room for 500 more.
    flood = [from_nobody(0, 1) for _ in range(1_000)]
    assert len(kinds(*flood, now=NOW + 1_000)) == 500
    # Nobody new is looked at while there is no room for it; what may be of a peer is.
    b.tables.turn_strangers_away(True)
    before = b.switch.counters()["drop_stranger"]
    hellos = (from_nobody(0, 1), from_nobody(0x80, 77), bytes(forged))
    assert kinds(*hellos, now=NOW + 2_000) == [plane.HELLO] * 2
    assert b.switch.counters()["drop_stranger"] == before + 1
    assert kinds(packet_of(ALICE, BOB, 1, b"hello", suite=0)) == [plane.HELLO]
    b.tables.turn_strangers_away(False)
    assert kinds(*hellos, now=NOW + 2_000) == [plane.HELLO] * 3
