"""Packets out: armor, fragments, the route of the moment, and a queue for what has none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zt._fast.fragment import split
from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Error, Ok
from zt.protocol.packet import (
    DEFAULT_MTU,
    FLAG_FRAGMENTED,
    FLAGS,
    SUITE_MAC,
    Verb,
    compress,
    id_of,
    new_packet,
)
from zt.vl1.actions import Send
from zt.vl1.packet import Packet
from zt.vl1.path import Path
from zt.vl1.peer import Peer
from zt.vl1.replies import ExpectedReplies
from zt.vl1.waiting import Outgoing, Waiting

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

QUEUED_PER_PEER, QUEUED_LIMIT = 16, 4096
UNANSWERED = frozenset((Verb.OK, Verb.ERROR, Verb.QOS_MEASUREMENT))
FRAMES = frozenset((Verb.FRAME, Verb.EXT_FRAME))


class Outbound:
    """Every packet of the control plane but HELLO leaves here.

    Control packets are always armored, also on trusted paths: receivers accept it, and an answer
    under armor proves more.
    """

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._queue: Waiting[Outgoing] = Waiting(QUEUED_PER_PEER, QUEUED_LIMIT)
        self.replies = ExpectedReplies()

    @property
    def pending(self) -> int:
        """Packets that wait for a peer's identity or a route."""
        return len(self._queue)

    def send(self, to: Address, packet: Outgoing, now_ms: int) -> int | None:
        """Over the best route, or queued; the packet ID if it left now."""
        vl1 = self._vl1
        packet_id = self.send_now(to, packet, now_ms)
        if packet_id is None and (to in vl1.peers or vl1.look_up(to, now_ms)):
            self._queue.add(to, packet, now_ms)
            vl1.queue_due(now_ms)
        return packet_id

    def send_now(self, to: Address, packet: Outgoing, now_ms: int) -> int | None:
        """Over the best route if there is one; the packet ID if it left."""
        peer = self._vl1.peers.get(to)
        if peer is None or self._vl1.key(peer, now_ms) is None:
            return None
        path, mirror = peer.route
        if path is None:
            self._vl1.contact.try_hints(peer, now_ms)
            return None
        ways = [path, mirror] if mirror else [path]
        if peer.bond is not None and packet.verb in FRAMES:
            ways = peer.bond.copies() or ways
        mtu = min(way.mtu for way in ways)
        sealed = self._seal(peer, packet, mtu, now_ms)
        if sealed is None:
            return None
        for way in ways:
            way.routed_ms = now_ms
            self._transmit(way, sealed, mtu, now_ms)
        return id_of(sealed)

    def send_on(self, path: Path, peer: Peer, packet: Outgoing, now_ms: int) -> int | None:
        """Over exactly this path."""
        sealed = self._seal(peer, packet, path.mtu, now_ms)
        if sealed is None:
            return None
        self._transmit(path, sealed, path.mtu, now_ms)
        return id_of(sealed)

    def send_to(
        self, to: InetAddress, socket: int, peer: Peer, packet: Outgoing, now_ms: int
    ) -> None:
        """To a physical address that need not be a path, from one socket or all."""
        sealed = self._seal(peer, packet, DEFAULT_MTU, now_ms)
        if sealed is not None:
            for piece in split(sealed, DEFAULT_MTU):
                self._vl1.emit(Send(socket, to.ip, to.port, piece))

    def ok(
        self, peer: Peer, path: Path, in_re: int, request_id: int, body: bytes, now_ms: int
    ) -> None:
        """Answers a request on the path that it came on."""
        ok = Ok(in_re, request_id, body)
        self.send_on(path, peer, Outgoing(Verb.OK, ok.encode()), now_ms)

    def error(self, packet: Packet, code: int, body: bytes, now_ms: int) -> None:
        """Refuses a packet on the path that it came on."""
        peer = self._vl1.peers[packet.source]
        error = Error(packet.verb, packet.packet_id, code, body)
        self.send_on(packet.path, peer, Outgoing(Verb.ERROR, error.encode()), now_ms)

    def flush(self, peer: Peer, now_ms: int) -> None:
        """Sends what waits for a peer or for a route to it."""
        for packet in self._queue.take(peer.address):
            self.send(peer.address, packet, now_ms)

    def check_queue(self, now_ms: int) -> None:
        """Drops what waited too long, tries the rest again."""
        vl1 = self._vl1
        self._queue.expire(now_ms)
        for address in self._queue.addresses():
            peer = vl1.peers.get(address)
            if peer is not None:
                self.flush(peer, now_ms)
            else:
                vl1.whois(address, now_ms)

    def _seal(self, peer: Peer, packet: Outgoing, mtu: int, now_ms: int) -> bytearray | None:
        """The armored packet, registered as a request unless it is a reply."""
        vl1 = self._vl1
        key = peer.key or vl1.key(peer, now_ms)
        if key is None:
            return None
        data = new_packet(vl1.random(8), peer.address, vl1.address, packet.verb, packet.payload)
        if packet.compress:
            compress(data)
        if len(data) > mtu:
            data[FLAGS] |= FLAG_FRAGMENTED
        key.seal(data, SUITE_MAC if packet.verb == Verb.QOS_MEASUREMENT else peer.suite)
        if packet.verb not in UNANSWERED:
            self.replies.add(id_of(data), now_ms)
        vl1.counters.sent(packet.verb)
        if packet.verb == Verb.ERROR:
            vl1.counters.error_sent(packet.payload[9])
        return data

    def _transmit(self, path: Path, packet: bytearray, mtu: int, now_ms: int) -> None:
        path.last_out_ms = now_ms
        ip, port = path.address
        for piece in split(packet, mtu) if len(packet) > mtu else (bytes(packet),):
            self._vl1.emit(Send(path.socket, ip, port, piece))
