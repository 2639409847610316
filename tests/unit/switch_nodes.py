"""Switches with tables filled as a control plane would fill them, and packets for them.

The packets are built and opened in Python, from the description in chapters 02 and 04, so that each
direction of a switch is also judged alone.
"""

import itertools
import random
import struct

from zt._fast.cipher import PeerKey
from zt._fast.filter import Program
from zt._fast.fragment import Reassembly
from zt._fast.switch import Switch
from zt._fast.tables import Tables

NWID = 0x8056C2E21C00ABCD
ALICE, BOB, CAROL, DAVE, ROOT, STRANGER = (
    0x1122334455,
    0x66778899AA,
    0x0F0E0D0C0B,
    0x0D0D0D0D0D,
    0x0123456789,
    0x4242424242,
)
IP = {
    ALICE: b"\x0a\0\0\1",
    BOB: b"\x0a\0\0\2",
    CAROL: b"\x0a\0\0\3",
    DAVE: b"\x0a\0\0\4",
    ROOT: bytes(15) + b"\7",
}
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


def tables_of(address: int, *, rules: Program | None = None, bridge: bool = False) -> Tables:
    """Of a node that is a member of the network."""
    tables = Tables(address)
    mac = int.from_bytes(mac_of(address), "big")
    tables.network_set(NWID, mtu=MTU, mac=mac, public=False, bridge=bridge, rules=rules)
    return tables


class Node:
    """A switch with tables filled as a control plane would fill them."""

    def __init__(
        self, address: int, *, suite: int = 3, rules: Program | None = None, bridge=False
    ) -> None:
        self.address = address
        self.suite = suite
        self.tables = tables_of(address, rules=rules, bridge=bridge)
        self.switch = Switch(self.tables)

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


def opened(datagrams, source: int, dest: int, *, clear: bool = False) -> list[bytes]:
    """What a receiver by the book makes of datagrams; `clear`: over a trusted path."""
    ring, packets = Reassembly(), []
    for _, _, _, data in datagrams:
        whole = data if data[13] != 0xFF and not data[18] & FRAGMENTED else ring.add(data)
        if whole is not None:
            packet = bytearray(whole)
            assert clear or key_of(source, dest).open(packet)
            packets.append(bytes(packet))
    assert len(ring) == 0
    return packets
