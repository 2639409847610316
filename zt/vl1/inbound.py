"""From a datagram's punt to the handlers of verbs (ch. 02, 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.packet import BEACON_SIZE, SUITE_TRUSTED, ErrorCode, Header, Verb, decompress
from zt.protocol.wire import Reader
from zt.vl1.actions import RemoteTrace, UserMessage
from zt.vl1.gates import Repeats
from zt.vl1.packet import (
    DROPPED,
    HANDLED,
    TRUSTED,
    WAIT,
    ErrorHandler,
    Handler,
    OkHandler,
    Packet,
    Result,
)
from zt.vl1.path import Path
from zt.vl1.peer import Peer
from zt.vl1.waiting import ParkingLot, Sealed, Waiting

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

ECHO_GATE_MS = 166
BEACON_GATE_MS = 2_500
TRACE_LIMIT = 10_000
SEALED_PER_SOURCE, SEALED_LIMIT, PARKED_LIMIT = 16, 1024, 512
COPIED_VERBS = frozenset((Verb.HELLO, Verb.ECHO))
COPIES_LIMIT = 8
"""How many copies of a packet of these verbs are answered: one may be sent from all sockets."""

ACTIVE_VERBS = frozenset(
    (
        Verb.FRAME,
        Verb.EXT_FRAME,
        Verb.NETWORK_CONFIG_REQUEST,
        Verb.NETWORK_CONFIG,
        Verb.MULTICAST_FRAME,
    )
)
"""Packets that make a peer worth a keep-alive (ch. 02, 4.4)."""


class Inbound:
    """Opens, decompresses, dispatches and parks packets; knows the verbs that need no module."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._handlers: dict[int, Handler] = {}
        self._ok_handlers: dict[int, OkHandler] = {}
        self._error_handlers: list[ErrorHandler] = []
        self._sealed: Waiting[Sealed] = Waiting(SEALED_PER_SOURCE, SEALED_LIMIT)
        self._parked = ParkingLot(PARKED_LIMIT)
        self._seen = Repeats()
        self._beacon_ms = -BEACON_GATE_MS
        self._handlers[Verb.ECHO] = self._on_echo
        self._handlers[Verb.ERROR] = self._on_error
        self._handlers[Verb.USER_MESSAGE] = self._on_user_message
        self._handlers[Verb.REMOTE_TRACE] = self._on_remote_trace
        for verb in (Verb.ACK, Verb.PATH_NEGOTIATION_REQUEST):
            self._handlers[verb] = _ignore

    @property
    def pending(self) -> int:
        """Packets that wait for an identity or a credential."""
        return len(self._sealed) + len(self._parked)

    def register(self, verb: int, handler: Handler) -> None:
        self._handlers[verb] = handler

    def register_ok(self, verb: int, handler: OkHandler) -> None:
        self._ok_handlers[verb] = handler

    def register_error(self, handler: ErrorHandler) -> None:
        self._error_handlers.append(handler)

    # Packets in

    def unknown(self, path: Path, data: bytes, now_ms: int) -> None:
        """A whole armored packet whose source the data plane has no key for, or a beacon."""
        if len(data) == BEACON_SIZE:
            self._beacon(path, Address.decode(data[8:]), now_ms)
            return
        header = Header.decode(data)
        source = header.source
        peer = self._vl1.peers.get(source)
        if header.suite == SUITE_TRUSTED:
            # Not a path in use yet, so the data plane could not tell.
            trusted_id = int.from_bytes(header.mac)
            if trusted_id == 0 or trusted_id != path.trusted_id:
                return
            if peer is not None:
                self.opened(path, data, now_ms)
            else:
                self._vl1.look_up(source, now_ms)
        elif peer is not None:
            self._open(peer, path, data, now_ms)
        elif source != self._vl1.address and self._vl1.look_up(source, now_ms):
            self._sealed.add(source, Sealed(path, data), now_ms)

    def _open(self, peer: Peer, path: Path, data: bytes, now_ms: int) -> None:
        key = self._vl1.key(peer, now_ms)
        packet = bytearray(data)
        if key is not None and key.open(packet):
            self.opened(path, bytes(packet), now_ms)
        elif key is not None:
            self._vl1.tables.peer_error(peer.address)

    def repeated(self, source: Address, verb: int, packet_id: int) -> bool:
        """Whether an authentic packet came before, or too often. It is to be dropped then, so that
        nobody who recorded it gets an answer."""
        copies = COPIES_LIMIT if verb in COPIED_VERBS else 1
        if self._seen.count(source, packet_id) < copies:
            return False
        self._vl1.counters.repeated()
        return True

    def opened(self, path: Path, data: bytes, now_ms: int) -> None:
        """An authentic packet."""
        try:
            header = Header.decode(data)
            # HELLO is counted by its own module, which it also reaches in the clear.
            if header.verb != Verb.HELLO and self.repeated(
                header.source, header.verb, header.packet_id
            ):
                return
            clear = bytearray(data)
            decompress(clear)
        except DecodeError:
            return
        packet = Packet(
            source=header.source,
            verb=header.verb,
            payload=bytes(memoryview(clear)[28:]),
            packet_id=header.packet_id,
            hops=header.hops,
            path=path,
            data=data,
        )
        self._vl1.counters.received(packet.verb)
        self._handle(packet, now_ms, now_ms)

    def peer_learned(self, peer: Peer, now_ms: int) -> None:
        """Packets that waited for the identity can be opened now."""
        for sealed in self._sealed.take(peer.address):
            self._open(peer, sealed.path, sealed.data, now_ms)
        self.retry(now_ms)

    def retry(self, now_ms: int) -> None:
        """Hands all parked packets over again."""
        for parked in self._parked.take(now_ms):
            self._handle(parked.packet, parked.since_ms, now_ms)

    def expire(self, now_ms: int) -> None:
        self._sealed.expire(now_ms)

    def _handle(self, packet: Packet, since_ms: int, now_ms: int) -> None:
        peer = self._vl1.peers.get(packet.source)
        if peer is None:
            return
        round_trip_ms = None
        try:
            if packet.verb == Verb.OK:
                result, round_trip_ms = self._on_ok(packet, now_ms)
            else:
                handler = self._handlers.get(packet.verb)
                result = handler(packet, now_ms) if handler else HANDLED
        except DecodeError:
            return
        if result is WAIT:
            self._parked.add(replace(packet, attempt=packet.attempt + 1), since_ms)
            self._vl1.queue_due(now_ms)
        elif result is not DROPPED:
            trusted = result is TRUSTED
            self.received(peer, packet.path, packet.hops, packet.verb, now_ms, trusted=trusted)
            if round_trip_ms is not None and packet.hops == 0:
                self._vl1.contact.proved(peer, packet.path, round_trip_ms, now_ms)

    def received(
        self,
        peer: Peer,
        path: Path,
        hops: int,
        verb: int,
        now_ms: int,
        *,
        trusted: bool = False,
    ) -> None:
        """What every authentic packet does beside its own effect (ch. 02, 4.4)."""
        contact = self._vl1.contact
        peer.last_receive_ms = now_ms
        if trusted:
            peer.trusted_ms = now_ms
            self._vl1.trust_path(path, now_ms)
        if hops == 0:
            contact.learn(peer, path, verb == Verb.OK, now_ms)
        if verb in ACTIVE_VERBS:
            peer.last_active_ms = now_ms
            contact.watch(peer)
            if hops:
                contact.heard_by_relay(peer, now_ms)
        self._vl1.nat.consider_push(peer, path, hops, now_ms)

    def _beacon(self, path: Path, source: Address, now_ms: int) -> None:
        """The announcement of very old versions on a LAN (ch. 02, 9.24)."""
        peer = self._vl1.peers.get(source)
        if peer is None or now_ms - self._beacon_ms < BEACON_GATE_MS:
            return
        if self._vl1.allows(path.address, source):
            self._beacon_ms = now_ms
            self._vl1.send_on(path, source, Verb.NOP, b"", now_ms)

    # Small verbs

    def _on_ok(self, packet: Packet, now_ms: int) -> tuple[Result, int | None]:
        """The result, and the round trip if it is one worth measuring."""
        reader = Reader(packet.payload)
        in_re, request_id = reader.u8(), reader.u64()
        sent_ms = self._vl1.outbound.replies.sent_ms(request_id, now_ms)
        if sent_ms is None:
            return DROPPED, None
        handler = self._ok_handlers.get(in_re)
        result = handler(packet, request_id, reader.rest(), now_ms) if handler else HANDLED
        return result, now_ms - sent_ms

    def _on_error(self, packet: Packet, now_ms: int) -> Result:
        reader = Reader(packet.payload)
        in_re, request_id, code = reader.u8(), reader.u64(), reader.u8()
        self._vl1.counters.error_received(code)
        if code == ErrorCode.IDENTITY_COLLISION and in_re == Verb.HELLO:
            # Only as an answer: an old one recorded elsewhere must not stop us.
            if self._vl1.expects(request_id, now_ms):
                self._vl1.hello.on_collision(packet)
            return HANDLED
        data = reader.rest()
        for handler in self._error_handlers:
            handler(packet, in_re, request_id, code, data, now_ms)
        return HANDLED

    def _on_echo(self, packet: Packet, now_ms: int) -> Result:
        path = packet.path
        if now_ms - path.echo_ms < ECHO_GATE_MS:
            return DROPPED
        path.echo_ms = now_ms
        self._vl1.send_ok(packet, packet.payload, now_ms)
        return HANDLED

    def _on_user_message(self, packet: Packet, now_ms: int) -> Result:
        if len(packet.payload) >= 8:
            kind = int.from_bytes(packet.payload[:8])
            self._vl1.emit(UserMessage(packet.source, kind, packet.payload[8:]))
        return HANDLED

    def _on_remote_trace(self, packet: Packet, now_ms: int) -> Result:
        for text in packet.payload.split(b"\0")[:-1]:
            if 0 < len(text) <= TRACE_LIMIT:
                self._vl1.emit(RemoteTrace(packet.source, text))
        return HANDLED


def _ignore(packet: Packet, now_ms: int) -> Result:
    return DROPPED
