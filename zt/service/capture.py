"""Control packets, decrypted, as a pcap file: what this node says and hears besides frames.

Each packet is written as a UDP datagram between this node and the other end (link type: raw IP)
that holds the plaintext ZeroTier packet. Nothing is kept unless somebody asked.
"""

import asyncio
import contextlib
import struct
import time

from zt._fast import switch as kinds
from zt._fast.switch import Punt
from zt.node import Node
from zt.protocol.address import Address
from zt.vl1.actions import Send

MAX_PACKETS = 10_000
LINKTYPE_RAW = 101
SNAP_LENGTH = 65535
HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_LENGTH, LINKTYPE_RAW)
HEAD_SIZE = 27
FRAGMENTED = 0x40
FRAGMENT_MARK = 0xFF


class Capture:
    """Collects while at least one request is open."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._requests: set[_Request] = set()

    @property
    def active(self) -> bool:
        return bool(self._requests)

    async def collect(self, seconds: float) -> bytes:
        """A pcap file of what passes in the next seconds, at most `MAX_PACKETS` of it."""
        request = _Request()
        self._requests.add(request)
        self._node.vl1.hello.delegate(False)  # those answered by the data plane do not come by
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(request.full.wait(), seconds)
        finally:
            self._requests.discard(request)
            self._node.vl1.hello.delegate(not self._requests)
        return HEADER + b"".join(request.records)

    def received(self, punt: Punt) -> None:
        """A packet that the data plane opened, or a HELLO, which is not encrypted."""
        if punt.kind in (kinds.PACKET, kinds.TRUSTED, kinds.HELLO):
            self._add(punt.ip, punt.port, punt.data, outgoing=False)

    def sent(self, action: Send) -> None:
        """An armored datagram on its way out; fragments of a packet are left out."""
        data = bytearray(action.data)
        if len(data) <= HEAD_SIZE or data[13] == FRAGMENT_MARK or data[18] & FRAGMENTED:
            return
        peer = self._node.vl1.peers.get(Address.decode(bytes(data[8:13])))
        if peer is not None and peer.key is not None:
            peer.key.open(data)
        self._add(action.ip, action.port, bytes(data), outgoing=True)

    def _add(self, ip: bytes, port: int, packet: bytes, *, outgoing: bool) -> None:
        entry = _record(_datagram(ip, port, packet, outgoing))
        for request in self._requests:
            if len(request.records) < MAX_PACKETS:
                request.records.append(entry)
            else:
                request.full.set()


class _Request:
    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.full = asyncio.Event()


def _record(data: bytes) -> bytes:
    now = time.time_ns()
    head = struct.pack(
        "=IIII", now // 10**9, now % 10**9 // 1000, len(data[:SNAP_LENGTH]), len(data)
    )
    return head + data[:SNAP_LENGTH]


def _datagram(ip: bytes, port: int, packet: bytes, outgoing: bool) -> bytes:
    """IP and UDP headers around a packet; our own address is left zero, we have many."""
    own = (bytes(len(ip)), 0)
    (source, source_port), (target, target_port) = (
        (own, (ip, port)) if outgoing else ((ip, port), own)
    )
    udp = struct.pack(">HHHH", source_port, target_port, 8 + len(packet), 0) + packet
    if len(ip) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        return head + source + target + udp
    return struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + source + target + udp
