"""Bonds in the data plane: which path each packet of a peer takes, per policy (ch. 03, 9.5)."""

import random
import struct
import threading
from collections import Counter

import pytest

from tests.unit.switch_nodes import (
    ALICE,
    BOB,
    NOW,
    NWID,
    PORT,
    Node,
    frame_of,
    frame_packet,
    opened,
    pair,
)
from zt._fast.bond import bond_clear, bond_flows, bond_samples, bond_set, flow_of
from zt.vl1.bond.settings import ACTIVE_BACKUP, AWARE, BROADCAST, ROUND_ROBIN, XOR

PLACES = [bytes((10, 0, number, 2)) for number in range(1, 5)]
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP, ICMP = 6, 17, 1
IDLE_MS = 243_000


def ipv4(
    protocol: int, source_port: int, dest_port: int, size: int = 20, *, fragment: int = 0
) -> bytes:
    body = struct.pack(">HH", source_port, dest_port) + bytes(size)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0)
    return head + bytes((10, 1, 1, 1)) + bytes((10, 1, 1, 2)) + body


def ipv6(protocol: int, body: bytes, *extensions: tuple[int, bytes]) -> bytes:
    """Extension headers are (their own number, everything behind the next-header octet)."""
    numbers = [number for number, _ in extensions] + [protocol]
    chain = b"".join(
        bytes((follows,)) + rest for follows, (_, rest) in zip(numbers[1:], extensions, strict=True)
    )
    head = struct.pack(">IHBB", 6 << 28, len(chain + body), numbers[0], 64)
    return head + bytes(15) + b"\1" + bytes(15) + b"\2" + chain + body


def bonded(policy: int, count: int = 2, *, shares: list[int] | None = None, **options: int) -> Node:
    """Alice, with that many paths to Bob; the route is the first of them."""
    alice = Node(ALICE)
    alice.knows(BOB)
    handles = [alice.tables.path(0, ip, PORT) for ip in PLACES[:count]]
    for handle in handles:
        alice.tables.peer_path_add(BOB, handle)
    alice.tables.peer_route(BOB, handles[0])
    members = list(enumerate(shares or [1] * count))
    bond_set(alice.tables, BOB, policy, handles, members, **options)
    return alice


def sends(node: Node, payload: bytes, ethertype: int = IPV4, now: int = NOW) -> list[int]:
    """The numbers of the paths that one frame leaves on."""
    node.switch.frame(NWID, frame_of(ALICE, BOB, payload, ethertype), now)
    return [PLACES.index(ip) for _, ip, _, _ in node.switch.take_datagrams()]


def hears(node: Node, place: int, payload: bytes, now: int = NOW) -> None:
    """A frame from Bob over that path."""
    packet = frame_packet(payload, source=BOB, dest=ALICE)
    node.switch.datagram(0, PLACES[place], PORT, packet, now)


# ---- flows ----


def test_flow_of_ports_is_that_of_the_description() -> None:
    assert flow_of(ipv4(TCP, 40_000, 443), IPV4) == 40_000 ^ 443 ^ TCP
    assert flow_of(ipv4(UDP, 53, 5353), IPV4) == 53 ^ 5353 ^ UDP
    assert flow_of(ipv4(TCP, 443, 40_000), IPV4) == flow_of(ipv4(TCP, 40_000, 443), IPV4)
    ports = struct.pack(">HH", 40_000, 443)
    options = (0, bytes((0,)) + bytes(6))  # hop-by-hop, 8 bytes
    authentication = (51, bytes((4,)) + bytes(22))  # 24 bytes
    assert flow_of(ipv6(TCP, ports), IPV6) == 40_000 ^ 443 ^ TCP
    assert flow_of(ipv6(TCP, ports, options, authentication), IPV6) == 40_000 ^ 443 ^ TCP


def test_frames_without_ports_are_a_flow_by_their_addresses() -> None:
    """In both directions the same one, and all fragments of a datagram in one."""
    here, there = bytes((10, 1, 1, 1)), bytes((10, 1, 1, 2))
    echo = ipv4(ICMP, 1, 2)
    assert flow_of(echo, IPV4) == flow_of(echo.replace(here + there, there + here), IPV4)
    first, later = ipv4(UDP, 1, 2, fragment=0x2000), ipv4(UDP, 3, 4, fragment=0x00B9)
    assert flow_of(first, IPV4) == flow_of(later, IPV4)
    fragment = (44, bytes((0,)) + struct.pack(">H", 1) + bytes(4))
    pieces = [ipv6(UDP, struct.pack(">HH", port, port + 1), fragment) for port in (7, 9)]
    assert flow_of(pieces[0], IPV6) == flow_of(pieces[1], IPV6)
    assert flow_of(b"anything", 0x88B5) == 0x88B5


def test_any_bytes_have_a_flow() -> None:
    generator = random.Random(5)
    for _ in range(2_000):
        payload = generator.randbytes(generator.randrange(90))
        if payload and generator.random() < 0.7:
            payload = bytes((generator.choice((0x45, 0x4F, 0x60)),)) + payload[1:]
        for ethertype in (IPV4, IPV6, 0x0806):
            assert 0 <= flow_of(payload, ethertype) <= 0xFFFF


# ---- policies ----


def test_active_backup_takes_the_route() -> None:
    alice = bonded(ACTIVE_BACKUP)
    assert {tuple(sends(alice, ipv4(TCP, port, 80))) for port in range(50)} == {(0,)}


def test_broadcast_sends_identical_copies_over_every_member() -> None:
    alice = bonded(BROADCAST, 4)
    alice.switch.frame(NWID, frame_of(ALICE, BOB, ipv4(UDP, 1, 2, 1000)), NOW)
    sent = alice.switch.take_datagrams()
    assert [PLACES.index(ip) for _, ip, _, _ in sent] == [0, 1, 2, 3]
    assert len({data for *_, data in sent}) == 1
    _, bob = pair()
    bob.gets(sent, ALICE)
    assert len(bob.switch.take_frames()) == 1
    assert bob.switch.counters()["drop_repeat"] == 3


def test_broadcast_of_a_large_burst_stays_within_the_lane() -> None:
    """64 KiB of TCP over 64 paths are more datagrams than the lane holds: every frame leaves at
    least once and copies are left out, never anything else."""
    alice = Node(ALICE)
    alice.knows(BOB)
    handles = [alice.tables.path(0, bytes((10, 1, n, 2)), PORT, mtu=576) for n in range(64)]
    alice.tables.peer_route(BOB, handles[0])
    bond_set(alice.tables, BOB, BROADCAST, handles, [(n, 1) for n in range(64)])
    mss, segments = 1000, 60
    head = struct.pack(">BBHHHBBH", 0x45, 0, 40 + mss * segments, 0, 0x4000, 64, TCP, 0)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 65535, 0, 0)
    payload = head + bytes((10, 1, 1, 1, 10, 1, 1, 2)) + tcp + bytes(mss * segments)
    vnet = struct.pack("<BBHHHH", 1, 1, 54, mss, 34, 16)  # TSO of TCP over IPv4
    alice.switch.burst(NWID, vnet, frame_of(ALICE, BOB, payload), NOW)
    sent = alice.switch.take_datagrams()
    first = [d for d in sent if d[1] == bytes((10, 1, 0, 2))]
    assert len(opened(first, ALICE, BOB)) == segments
    for n in range(1, 64):
        assert (
            len(opened([d for d in sent if d[1] == bytes((10, 1, n, 2))], ALICE, BOB)) <= segments
        )


def test_round_robin_stays_for_its_number_of_packets() -> None:
    alice = bonded(ROUND_ROBIN, 3)
    order = [sends(alice, ipv4(TCP, 1, 2))[0] for _ in range(64 * 4)]
    assert order == [0] * 64 + [1] * 64 + [2] * 64 + [0] * 64
    alice = bonded(ROUND_ROBIN, 2, packets=1)
    assert [sends(alice, ipv4(TCP, 1, 2))[0] for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_xor_keeps_a_flow_on_a_path_that_follows_from_it(count: int) -> None:
    """Also ports of one parity, as Linux gives them out, spread over all paths."""
    alice, again = bonded(XOR, count), bonded(XOR, count)
    ways: Counter[int] = Counter()
    for port in range(40_000, 40_400, 2):
        payload = ipv4(TCP, port, 443)
        first = sends(alice, payload)
        assert sends(alice, payload) == sends(again, payload) == first
        ways.update(first)
    assert min(ways[way] for way in range(count)) > 200 // count * 0.7


def test_xor_moves_the_flows_of_a_lost_path_only() -> None:
    alice = bonded(XOR, 3)
    before = {port: sends(alice, ipv4(TCP, port, 443))[0] for port in range(1, 100)}
    handles = [alice.tables.path(0, ip, PORT) for ip in PLACES[:3]]
    bond_set(alice.tables, BOB, XOR, handles, [(0, 1), (2, 1)])
    after = {port: sends(alice, ipv4(TCP, port, 443))[0] for port in before}
    assert all(after[port] == way for port, way in before.items() if way != 1)
    assert {after[port] for port, way in before.items() if way == 1} == {0, 2}


def test_aware_shares_new_flows_by_weight() -> None:
    alice = bonded(AWARE, 3, shares=[1, 3, 0])
    ways = Counter(sends(alice, ipv4(TCP, port, 443))[0] for port in range(2_000))
    assert ways[2] == 0
    assert 350 < ways[0] < 650
    assert ways[0] + ways[1] == 2_000
    again = Counter(sends(alice, ipv4(TCP, port, 443))[0] for port in range(2_000))
    assert again == ways  # flows stay


def test_equal_shares_when_none_is_given() -> None:
    alice = bonded(AWARE, 2, shares=[0, 0])
    ways = Counter(sends(alice, ipv4(TCP, port, 443))[0] for port in range(1_000))
    assert min(ways[0], ways[1]) > 400


def test_one_flow_moves_away_per_call() -> None:
    alice = bonded(AWARE, 2)
    for port in range(100):
        sends(alice, ipv4(TCP, port, 443))
    counts = bond_flows(alice.tables, BOB, NOW, idle_ms=IDLE_MS)
    assert sum(counts) == 100
    after = bond_flows(alice.tables, BOB, NOW, idle_ms=IDLE_MS, away=0)
    assert after == [counts[0] - 1, counts[1]]


def test_flows_are_forgotten_when_idle() -> None:
    alice = bonded(XOR)
    sends(alice, ipv4(TCP, 1, 443))
    sends(alice, ipv4(TCP, 2, 443), now=NOW + 200_000)
    assert sum(bond_flows(alice.tables, BOB, NOW + IDLE_MS - 2_000, idle_ms=IDLE_MS)) == 2
    assert sum(bond_flows(alice.tables, BOB, NOW + IDLE_MS + 2_000, idle_ms=IDLE_MS)) == 1


def test_a_flow_first_seen_inbound_is_answered_on_its_path() -> None:
    alice = bonded(XOR)
    for port in range(1, 30):
        hears(alice, 1, ipv4(TCP, port, 443))
        assert sends(alice, ipv4(TCP, 443, port)) == [1]
    sends(alice, ipv4(TCP, 443, 50))
    before = sends(alice, ipv4(TCP, 443, 50))
    hears(alice, 1 - before[0], ipv4(TCP, 50, 443))
    assert sends(alice, ipv4(TCP, 443, 50)) == before  # ours was first


def test_a_burst_stays_together() -> None:
    alice = bonded(ROUND_ROBIN, 2, packets=10)
    mss = 1000
    ways = []
    for segments in (8, 8, 8):
        head = struct.pack(">BBHHHBBH", 0x45, 0, 40 + mss * segments, 0, 0x4000, 64, TCP, 0)
        tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 65535, 0, 0)
        payload = head + bytes((10, 1, 1, 1, 10, 1, 1, 2)) + tcp + bytes(mss * segments)
        vnet = struct.pack("<BBHHHH", 1, 1, 54, mss, 34, 16)
        alice.switch.burst(NWID, vnet, frame_of(ALICE, BOB, payload), NOW)
        sent = alice.switch.take_datagrams()
        assert len(sent) == segments
        ways.append({PLACES.index(ip) for _, ip, _, _ in sent})
    assert ways == [{0}, {0}, {1}]


def test_without_members_and_after_the_end_packets_take_the_route() -> None:
    alice = bonded(XOR, 2)
    handles = [alice.tables.path(0, ip, PORT) for ip in PLACES[:2]]
    bond_set(alice.tables, BOB, XOR, handles, [])
    assert {tuple(sends(alice, ipv4(TCP, port, 2))) for port in range(20)} == {(0,)}
    bond_set(alice.tables, BOB, XOR, handles, [(1, 1)])
    assert {tuple(sends(alice, ipv4(TCP, port, 2))) for port in range(20)} == {(1,)}
    alice.tables.path_remove(handles[1])  # the bond still names it
    assert {tuple(sends(alice, ipv4(TCP, port, 2))) for port in range(20)} == {(0,)}
    bond_clear(alice.tables, BOB)
    assert sends(alice, ipv4(TCP, 1, 2)) == [0]
    alice.tables.peer_remove(BOB)
    with pytest.raises(KeyError):
        bond_clear(alice.tables, BOB)


# ---- samples ----


def test_odd_packet_ids_are_remembered_in_both_directions() -> None:
    alice = bonded(XOR, 1)
    sent = []
    for port in range(40):
        alice.switch.frame(NWID, frame_of(ALICE, BOB, ipv4(TCP, port, 443)), NOW + port)
        ((_, _, _, data),) = alice.switch.take_datagrams()
        sent.append((int.from_bytes(data[:8]), NOW + port))
    received = []
    for number in range(40):
        packet = frame_packet(ipv4(UDP, number, 1), source=BOB, dest=ALICE)
        alice.switch.datagram(0, PLACES[0], PORT, packet, NOW + number)
        received.append((int.from_bytes(packet[:8]), NOW + number))
    ((ours, theirs),) = bond_samples(alice.tables, BOB)
    assert ours == [sample for sample in sent if sample[0] & 1]
    assert theirs == [sample for sample in received if sample[0] & 1]
    assert len(ours) > 8
    assert len(theirs) > 8
    assert bond_samples(alice.tables, BOB) == [([], [])]


def test_busy_paths_are_sampled_ever_more_rarely() -> None:
    """And by the same bits at both ends."""
    alice = bonded(XOR, 1)
    count = 20_000
    vnet = bytes(10)
    ids = []
    for _ in range(count):
        alice.switch.burst(NWID, vnet, frame_of(ALICE, BOB, ipv4(UDP, 1, 2, 0)), NOW)
        ids.append(int.from_bytes(alice.switch.take_datagrams()[0][3][:8]))
    ((ours, _),) = bond_samples(alice.tables, BOB)
    kept = [packet_id for packet_id, _ in ours]
    assert 64 < len(kept) <= 192
    assert all(packet_id & 1 for packet_id in kept[:64])
    assert all(packet_id & 0x3F == 1 for packet_id in kept[64:128])
    assert all(packet_id & 0xFFF == 1 for packet_id in kept[128:])
    assert kept == [packet_id for packet_id in ids if packet_id in set(kept)]


def test_changes_keep_what_belongs_to_paths_that_stay() -> None:
    alice = bonded(XOR, 2)
    for port in range(20):
        sends(alice, ipv4(TCP, port, 443))
    counts = bond_flows(alice.tables, BOB, NOW, idle_ms=IDLE_MS)
    handles = [alice.tables.path(0, ip, PORT) for ip in (PLACES[0], PLACES[2], PLACES[3])]
    bond_set(alice.tables, BOB, XOR, handles, [(0, 1), (1, 1), (2, 1)])
    assert bond_flows(alice.tables, BOB, NOW, idle_ms=IDLE_MS)[0] == counts[0]
    first, second, third = bond_samples(alice.tables, BOB)
    assert first[0]
    assert (second, third) == (([], []), ([], []))
    assert alice.tables.counters()["bytes"] > 4 << 16


@pytest.mark.parametrize(
    ("policy", "slots", "members", "packets"),
    [
        (0, 1, [], 64),
        (6, 1, [], 64),
        (XOR, 1, [(1, 1)], 64),
        (XOR, 1, [(-1, 1)], 64),
        (XOR, 2, [(0, 1), (0, 1)], 64),
        (XOR, 1, [(0, 1), (0, 1)], 64),
        (XOR, 1, [(0, 65537)], 64),
        (XOR, 65, [], 64),
        (ROUND_ROBIN, 1, [(0, 1)], 0),
    ],
)
def test_what_is_no_bond(
    policy: int, slots: int, members: list[tuple[int, int]], packets: int
) -> None:
    alice = Node(ALICE)
    alice.knows(BOB)
    handle = alice.tables.path(0, PLACES[0], PORT)
    with pytest.raises(ValueError, match=r"bond|share|slot"):
        bond_set(alice.tables, BOB, policy, [handle] * slots, members, packets=packets)
    assert bond_flows(alice.tables, BOB, NOW, idle_ms=1) == []
    with pytest.raises(KeyError):
        bond_set(alice.tables, 0x1234567890, XOR, [], [])


def test_bonds_change_under_traffic() -> None:
    alice = bonded(XOR, 3)
    handles = [alice.tables.path(0, ip, PORT) for ip in PLACES[:3]]
    done = threading.Event()

    def change() -> None:
        generator = random.Random(3)
        while not done.is_set():
            members = [(n, 1) for n in range(3) if generator.random() < 0.6]
            bond_set(alice.tables, BOB, generator.randint(1, 5), handles, members)
            bond_samples(alice.tables, BOB)
            bond_flows(alice.tables, BOB, NOW, idle_ms=IDLE_MS)
            if generator.random() < 0.1:
                bond_clear(alice.tables, BOB)

    other = threading.Thread(target=change)
    other.start()
    try:
        for port in range(3_000):
            assert sends(alice, ipv4(TCP, port, 443))
    finally:
        done.set()
        other.join()
