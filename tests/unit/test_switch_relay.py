"""The switch: relaying, what goes to the control plane, and what bounds it."""

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.switch_nodes import (
    ALICE,
    BOB,
    CAROL,
    FRAGMENTED,
    IP,
    NOW,
    NWID,
    PORT,
    ROOT,
    STRANGER,
    Node,
    frame_of,
    frame_packet,
    packet_of,
    pair,
)
from zt._fast import switch as plane
from zt._fast.fragment import split

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
