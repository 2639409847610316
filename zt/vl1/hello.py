"""HELLO and its OK: who we are, who they are, versions, worlds (ch. 02, 9.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zt._fast.cipher import PeerKey
from zt.protocol import hello_layer
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.identity import PUBLIC_SIZE, Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import OWN_VERSION, HelloHead, OkHello, read_moons
from zt.protocol.messages import Hello as Message
from zt.protocol.packet import (
    FLAGS,
    HEADER_SIZE,
    HOPS_MASK,
    MIN_PROTOCOL_VERSION,
    SOURCE,
    SUITE_MAC,
    SUITE_SALSA,
    ErrorCode,
    Verb,
    id_of,
    new_packet,
)
from zt.protocol.wire import Reader
from zt.protocol.world import NO_VERSION, World, WorldType
from zt.vl1.actions import COLLISION, MOON, PLANET, Event, Send, Store, Validate
from zt.vl1.gates import TokenBucket
from zt.vl1.inbound import COPIES_LIMIT
from zt.vl1.packet import DROPPED, HANDLED, Packet, Result
from zt.vl1.path import Path
from zt.vl1.peer import Peer

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

IDENTITY_AT = HEADER_SIZE + 13
"""Where a HELLO has the identity of its sender."""
PORT_PROTOCOL = 5
"""Older peers are not told the port they are seen with."""
IDENTITY_CHECK_MS = 2_000
PREFIXES_LIMIT = 16_384
LAYER_MS, LAYER_BURST = 100, 32
"""Layers removed for one source network: known peers and strangers alike, since only what is under
the layer tells."""
AGREEMENT_MS, AGREEMENT_BURST = 2, 200
"""Key agreements (some 60 us each) that nobody vouches for, whatever network they come from."""
GREETING_MS = 300_000
"""So long the data plane answers a peer that says nothing new: what it says of our own address is
remembered for twice as long (ch. 03, 6.4)."""
PENDING_LIMIT = 48
"""Strangers whose proofs of work are being checked; the driver's pool takes 64 with those of
WHOIS."""


@dataclass(slots=True)
class Stranger:
    """Somebody whose HELLO is authentic under the key he names, but whose proof of work is not
    checked yet."""

    identity: Identity
    key: PeerKey
    copies: list[tuple[Path, bytearray]] = field(default_factory=list)


class Hello:
    """Sends, receives and answers HELLO."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._gate: TokenBucket[tuple[int, int]] = TokenBucket(
            IDENTITY_CHECK_MS, max(vl1.settings.stranger_burst, 1), PREFIXES_LIMIT
        )
        self._layers: TokenBucket[tuple[int, int]] = TokenBucket(
            LAYER_MS, LAYER_BURST, PREFIXES_LIMIT
        )
        self._agreements: TokenBucket[None] = TokenBucket(AGREEMENT_MS, AGREEMENT_BURST, 1)
        self._strangers: dict[int, Stranger] = {}  # by ticket
        self._tickets: dict[bytes, int] = {}  # by identity, as on the wire
        vl1.register(Verb.HELLO, self._on_enclosed)
        vl1.register_ok(Verb.HELLO, self._on_ok)
        self.delegate(True)

    # Sending

    def send(self, peer: Peer, to: InetAddress, socket: int, now_ms: int) -> None:
        """HELLO to a physical address, from one socket or all."""
        packet = self._build(peer, to, now_ms)
        if packet is not None:
            self._vl1.emit(Send(socket, to.ip, to.port, bytes(packet)))

    def _build(self, peer: Peer, to: InetAddress, now_ms: int) -> bytearray | None:
        vl1 = self._vl1
        key = vl1.key(peer, now_ms)
        if key is None:
            return None
        hello = Message(
            OWN_VERSION, now_ms, vl1.me, to, vl1.roots.planet.version, vl1.roots.announced_moons()
        )
        payload = hello.encode()
        packet = new_packet(vl1.random(8), peer.address, vl1.address, Verb.HELLO, payload)
        key.mask_hello(packet, HEADER_SIZE + Message.tail_offset(payload))
        key.seal(packet, SUITE_MAC)
        vl1.outbound.replies.add(id_of(packet), now_ms)
        vl1.counters.sent(Verb.HELLO)
        return packet

    # Receiving

    def receive(self, path: Path, data: bytes, now_ms: int) -> None:
        """A HELLO under suite 0, not authenticated yet, from anybody."""
        source = Address.decode(data[SOURCE:FLAGS])
        peer = self._vl1.peers.get(source)
        layered = hello_layer.is_layered(data)
        if peer is None:
            copy = not layered and data[IDENTITY_AT : IDENTITY_AT + PUBLIC_SIZE] in self._tickets
            if not (copy or self._takes_strangers(path, now_ms)):
                return  # the cheapest way out for a flood
        elif not layered and data.startswith(peer.identity.encode(), IDENTITY_AT):
            # What a root gets all the time: there is nothing to parse before it proves authentic.
            if data[HEADER_SIZE] >= MIN_PROTOCOL_VERSION:
                self._from_known(peer, path, data, now_ms)
            return
        try:
            if layered:
                if not self._may_remove_layer(path, now_ms):
                    return
                data = bytes(hello_layer.remove(data, self._vl1.me.private_key))
            identity = Message.claimed_identity(data[HEADER_SIZE:])
        except DecodeError:
            return
        if data[HEADER_SIZE] < MIN_PROTOCOL_VERSION or source != identity.address:
            return
        if source == self._vl1.address or source.reserved:
            return
        if peer is not None and peer.identity == identity:
            self._from_known(peer, path, data, now_ms)
            return
        self._vl1.counters.received(Verb.HELLO)
        if peer is None:
            self._from_stranger(identity, path, bytearray(data), now_ms)
        else:
            self._from_usurper(identity, path, bytearray(data), now_ms)

    def _from_known(self, peer: Peer, path: Path, data: bytes, now_ms: int) -> None:
        self._vl1.counters.received(Verb.HELLO)
        key = self._vl1.key(peer, now_ms)
        packet = bytearray(data)
        if key is not None and key.open(packet):
            self._process(peer, path, packet, now_ms)
        elif key is not None:
            self._vl1.tables.peer_error(peer.address)

    def _takes_strangers(self, path: Path, now_ms: int) -> bool:
        """Whether one more stranger of this path's source network could be checked now."""
        return (
            len(self._strangers) < PENDING_LIMIT
            and self._agreements.open(None, now_ms)
            and self._gate.open(_prefix(path), now_ms)
        )

    def _may_remove_layer(self, path: Path, now_ms: int) -> bool:
        return self._layers.take(_prefix(path), now_ms) and self._agreements.take(None, now_ms)

    def _from_stranger(
        self, identity: Identity, path: Path, packet: bytearray, now_ms: int
    ) -> None:
        encoded = identity.encode()
        ticket = self._tickets.get(encoded)
        if ticket is not None:
            stranger = self._strangers[ticket]
            if len(stranger.copies) < COPIES_LIMIT and stranger.key.open(packet):
                stranger.copies.append((path, packet))
            return
        key = self._check(identity, path, packet, now_ms)
        if key is None:
            return
        ticket = self._vl1.new_ticket()
        self._strangers[ticket] = Stranger(identity, key, [(path, packet)])
        self._tickets[encoded] = ticket
        self._turn_away()
        self._vl1.recall(identity.address, now_ms)
        self._vl1.emit(Validate(ticket, identity))

    def recalled(self, identity: Identity, now_ms: int) -> None:
        """Somebody came back from disk. If he waits for his check, there is no need of it."""
        ticket = self._tickets.get(identity.encode())
        if ticket is not None:
            self.validated(ticket, True, now_ms)

    def _turn_away(self) -> None:
        """The data plane drops strangers' HELLOs while there is no room for another check."""
        self._vl1.tables.turn_strangers_away(len(self._strangers) >= PENDING_LIMIT)

    def awaits(self, ticket: int) -> bool:
        return ticket in self._strangers

    def validated(self, ticket: int, ok: bool, now_ms: int) -> None:
        """The proof of work of a stranger was checked."""
        stranger = self._strangers.pop(ticket, None)
        if stranger is None:
            return
        del self._tickets[stranger.identity.encode()]
        self._turn_away()
        if not ok:
            return
        peer = self._vl1.peers.get(stranger.identity.address)
        if peer is None:
            peer = self._vl1.add_peer(stranger.identity, now_ms, key=stranger.key)
        elif peer.identity != stranger.identity or self._vl1.key(peer, now_ms) is None:
            return
        for path, packet in stranger.copies:
            self._process(peer, path, packet, now_ms)

    def _from_usurper(self, identity: Identity, path: Path, packet: bytearray, now_ms: int) -> None:
        """Somebody whose address is taken. He cannot read anything sealed for the owner."""
        packet_id = packet[:8]
        key = self._check(identity, path, packet, now_ms)
        if key is None:
            return
        vl1 = self._vl1
        payload = bytes((Verb.HELLO,)) + packet_id + bytes((ErrorCode.IDENTITY_COLLISION,))
        error = new_packet(vl1.random(8), identity.address, vl1.address, Verb.ERROR, payload)
        key.seal(error, SUITE_SALSA)
        vl1.emit(Send(path.socket, path.address.ip, path.address.port, bytes(error)))

    def _check(
        self, identity: Identity, path: Path, packet: bytearray, now_ms: int
    ) -> PeerKey | None:
        """The key with an unknown identity if the packet is authentic under it; rate-gated."""
        if not self._gate.take(_prefix(path), now_ms) or not self._agreements.take(None, now_ms):
            return None
        try:
            key = PeerKey(self._vl1.me.agree(identity))
        except DecodeError:
            return None
        return key if key.open(packet) else None

    def _on_enclosed(self, packet: Packet, now_ms: int) -> Result:
        """HELLO under an encrypting suite, from a peer we know."""
        identity = Message.claimed_identity(packet.payload)
        peer = self._vl1.peers[packet.source]
        if packet.payload[0] < MIN_PROTOCOL_VERSION or identity != peer.identity:
            return DROPPED
        opened = bytearray(packet.data[:HEADER_SIZE]) + packet.payload
        self._process(peer, packet.path, opened, now_ms)
        return DROPPED  # _process did the rest

    def _process(self, peer: Peer, path: Path, packet: bytearray, now_ms: int) -> None:
        """An authentic HELLO, opened but for its masked tail."""
        vl1 = self._vl1
        packet_id, hops = id_of(packet), packet[FLAGS] & HOPS_MASK
        if vl1.inbound.repeated(peer.address, Verb.HELLO, packet_id):
            return
        key = vl1.key(peer, now_ms)
        if key is None:
            return  # came in the clear over a trusted path
        reader = Reader(packet, HEADER_SIZE)
        try:
            hello = HelloHead.read(reader)
            tail = reader.offset
            key.mask_hello(packet, tail)
            moons = read_moons(Reader(packet, tail))
        except DecodeError:
            return
        if hello.sent_to and hops == 0:
            vl1.nat.seen_as(peer, path, hello.sent_to, now_ms)
        where = path.address
        if hello.version.protocol < PORT_PROTOCOL:
            where = InetAddress(where.ip, 0)
        worlds = vl1.roots.newer_than(hello.planet or NO_VERSION, moons or ())
        answer = OkHello(hello.timestamp, OWN_VERSION, where, worlds)
        vl1.outbound.ok(peer, path, Verb.HELLO, packet_id, answer.encode(), now_ms)
        vl1.set_version(peer, hello.version)
        vl1.inbound.received(peer, path, hops, Verb.HELLO, now_ms)
        if hops == 0 and not worlds and where is path.address and peer.path_on(path) is not None:
            until_ms = now_ms + GREETING_MS
            if peer.trusted(now_ms):
                until_ms = min(until_ms, vl1.nat.push_due(peer))
            vl1.tables.greeting(peer.address, path.handle, packet, tail, until_ms)

    def delegate(self, enabled: bool) -> None:
        """Whether the data plane answers HELLOs that say what we answered already."""
        self._vl1.tables.greetings(OWN_VERSION.encode() if enabled else None)

    # The answer

    def _on_ok(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        vl1 = self._vl1
        peer = vl1.peers[packet.source]
        ok = OkHello.decode(body)
        if ok.version.protocol < MIN_PROTOCOL_VERSION:
            return DROPPED
        self._offer_worlds(ok.worlds, packet.source, now_ms)
        vl1.set_version(peer, ok.version)
        if packet.hops == 0 and ok.seen_as:
            vl1.nat.seen_as(peer, packet.path, ok.seen_as, now_ms)
        return HANDLED

    def _offer_worlds(self, data: bytes, sender: Address, now_ms: int) -> None:
        if not self._vl1.roots.may_update(sender):
            return
        reader = Reader(data)
        changed = False
        while reader.remaining:
            world = self._vl1.roots.offer(World.read(reader), sender)
            if world is None:
                continue
            changed = True
            planet = world.type is WorldType.PLANET
            name = "planet" if planet else f"moons.d/{world.id:016x}.moon"
            self._vl1.emit(Store(name, world.encode()))
            kind = PLANET if planet else MOON
            self._vl1.emit(Event(kind, f"{world.id:016x} of {world.timestamp}"))
        if changed:
            self._vl1.roots_changed(now_ms)

    def on_collision(self, packet: Packet) -> None:
        """ERROR(IDENTITY_COLLISION): believed only of an upstream."""
        if self._vl1.is_upstream(packet.source):
            self._vl1.emit(Event(COLLISION, f"{packet.source} knows another identity of ours"))


def _prefix(path: Path) -> tuple[int, int]:
    """The source network that strangers share their limit with."""
    return path.address.version, path.address.source_network
