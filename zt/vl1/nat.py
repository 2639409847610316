"""Getting through NATs: introductions, RENDEZVOUS, pushed addresses, external addresses.

Chapter 03, 5.6 and 6; chapter 02, 9.5 and 9.15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress, Scope
from zt.protocol.messages import DirectPath, PushDirectPaths, Rendezvous
from zt.protocol.packet import Verb
from zt.vl1.actions import ALL_SOCKETS, Send
from zt.vl1.gates import Spacing
from zt.vl1.packet import HANDLED, Packet, Result
from zt.vl1.path import USABLE_SCOPES, Path
from zt.vl1.peer import Peer
from zt.vl1.status import LocalSocket
from zt.vl1.surface import Surface

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

INTRODUCE_MS = 30_000
PUSH_RELAYED_MS = 15_000
PUSH_DIRECT_MS = 120_000
LOW_BANDWIDTH_FACTOR = 16
PUSH_LIMIT = 8
"""Addresses of one scope and family that are tried per push."""
PUSH_BYTES = 1200
PROBE_TTL = 2
RETRY_AFTER_MS = (1_000, 3_000)
RETRIES_LIMIT = 1_024
"""Attempts that failed are repeated, because one datagram may get lost; relays repeat theirs only
every 15 to 30 s."""
REMEMBER_MS = 5_000
REMEMBER_LIMIT = 256
PAIRS_LIMIT = 65_536


class Attempt(NamedTuple):
    """To be repeated unless the peer can be reached directly by then."""

    due_ms: int
    peer: Address
    to: InetAddress
    socket: int


class Nat:
    """Finds direct paths: what we tell others about us, and what we do with what we are told."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self.surface = Surface()
        self.sockets: tuple[LocalSocket, ...] = ()
        self.mapped: tuple[InetAddress, ...] = ()  # by UPnP and the like
        self._pairs: Spacing[tuple[int, int]] = Spacing(INTRODUCE_MS, PAIRS_LIMIT)
        # RENDEZVOUS for peers whose identity is not known yet: address -> (until, path, where)
        self._remembered: dict[Address, tuple[int, Path, InetAddress]] = {}
        self._retries: list[Attempt] = []
        vl1.register(Verb.RENDEZVOUS, self._on_rendezvous)
        vl1.register(Verb.PUSH_DIRECT_PATHS, self._on_push)

    # As a relay: introduce two peers to each other

    def introduce(self, source: Address, destination: Address, now_ms: int) -> None:
        """A packet from one to the other was forwarded (5.6)."""
        a, b = self._vl1.peers.get(source), self._vl1.peers.get(destination)
        if a is None or b is None or a is b:
            return
        if not self._pairs.take((min(source, destination), max(source, destination)), now_ms):
            return
        common = _common(a, b, now_ms)
        if common is None:
            return
        notes = [(a, common[0], b.address, common[1]), (b, common[1], a.address, common[0])]
        if self._vl1.random(1)[0] & 1:
            notes.reverse()
        for peer, path, other, where in notes:
            message = Rendezvous(other, where.address)
            self._vl1.send_on(path, peer.address, Verb.RENDEZVOUS, message.encode(), now_ms)

    # As one of the two

    def _on_rendezvous(self, packet: Packet, now_ms: int) -> Result:
        message = Rendezvous.decode(packet.payload)
        vl1 = self._vl1
        if not vl1.is_upstream(packet.source) or message.peer == vl1.address:
            return HANDLED
        peer = vl1.peers.get(message.peer)
        if peer is not None:
            self._meet(peer, packet.path, message.address, now_ms)
        elif len(self._remembered) < REMEMBER_LIMIT or message.peer in self._remembered:
            # The first packet of a stranger usually comes right behind; WHOIS will tell who it is.
            until_ms = now_ms + REMEMBER_MS
            self._remembered[message.peer] = (until_ms, packet.path, message.address)
        return HANDLED

    def peer_learned(self, peer: Peer, now_ms: int) -> None:
        """Acts on a RENDEZVOUS that came before the identity."""
        until_ms, path, where = self._remembered.pop(peer.address, (0, None, None))
        if path is not None and where is not None and now_ms <= until_ms:
            self._meet(peer, path, where, now_ms)

    def expire(self, now_ms: int) -> None:
        self.surface.expire(now_ms)
        for address in [a for a, (until, *_) in self._remembered.items() if now_ms > until]:
            del self._remembered[address]

    def _meet(self, peer: Peer, path: Path, where: InetAddress, now_ms: int) -> None:
        vl1 = self._vl1
        if not vl1.allows(where, peer.address):
            return
        # Opens our own NAT for the peer's packets, and dies before it reaches the peer's.
        vl1.emit(Send(path.socket, where.ip, where.port, vl1.random(4), PROBE_TTL))
        self._attempt(peer, where, path.socket, now_ms)

    def _attempt(
        self, peer: Peer, to: InetAddress, socket: int, now_ms: int, *, again: bool = True
    ) -> None:
        self._vl1.contact.attempt(peer, to, socket, now_ms)
        if not again or peer.best(now_ms) is not None:
            return
        if len(self._retries) < RETRIES_LIMIT:
            self._retries += (
                Attempt(now_ms + wait_ms, peer.address, to, socket) for wait_ms in RETRY_AFTER_MS
            )

    def retry(self, now_ms: int) -> None:
        """Repeats what is due of the attempts that brought no path."""
        if not self._retries:
            return
        due = [attempt for attempt in self._retries if attempt.due_ms <= now_ms]
        self._retries = [attempt for attempt in self._retries if attempt.due_ms > now_ms]
        for attempt in due:
            peer = self._vl1.peers.get(attempt.peer)
            if peer is not None and peer.best(now_ms) is None:
                self._vl1.contact.attempt(peer, attempt.to, attempt.socket, now_ms)

    # Pushed addresses

    def consider_push(self, peer: Peer, path: Path, hops: int, now_ms: int) -> None:
        """Tells a trusted peer where it may reach us, along the way its packet came (6.3)."""
        if not peer.trusted(now_ms):
            return
        if now_ms - peer.push_ms < self._push_spacing(hops):
            return
        peer.push_ms = now_ms
        messages = [*_pushes(self.own_addresses()), *_pushes(self._guesses(peer, hops))]
        for message in messages:
            self._vl1.send_on(
                path,
                peer.address,
                Verb.PUSH_DIRECT_PATHS,
                message.encode(),
                now_ms,
                compress=True,
            )

    def push_due(self, peer: Peer) -> int:
        """From when on (ms) a packet that comes directly has a trusted peer told."""
        return peer.push_ms + self._push_spacing(0)

    def _push_spacing(self, hops: int) -> int:
        if hops:
            return PUSH_RELAYED_MS
        return PUSH_DIRECT_MS * (LOW_BANDWIDTH_FACTOR if self._vl1.settings.low_bandwidth else 1)

    def same_local_ip(self, one: int, other: int) -> bool:
        """Are two sockets bound to the same address, with different ports?"""
        ips = {s.address.ip for s in self.sockets if s.socket in (one, other)}
        return len(ips) == 1

    def own_addresses(self) -> list[InetAddress]:
        """Where others may reach us, without duplicates: mapped, bound, external."""
        bound = [s.address for s in self.sockets if s.address.scope in USABLE_SCOPES]
        return list(dict.fromkeys((*self.mapped, *bound, *self.surface.addresses())))

    def _guesses(self, peer: Peer, hops: int) -> list[InetAddress]:
        """Where a peer that is reached by relay only might reach us, other ones each time. In a
        push of their own, because only so many addresses of each are tried."""
        if not hops or not self._vl1.settings.port_prediction:
            return []
        guesses = self.surface.predictions(peer.guesses)
        if guesses:
            peer.guesses += 1
        return guesses

    def _on_push(self, packet: Packet, now_ms: int) -> Result:
        vl1 = self._vl1
        peer = vl1.peers[packet.source]
        if not peer.push_gate.take(now_ms):
            return HANDLED
        taken: Counter[tuple[Scope, int]] = Counter()
        for record in PushDirectPaths.decode(packet.payload).paths:
            address = record.address
            if record.forget or not address or not vl1.allows(address, peer.address):
                continue
            if record.redirect:
                vl1.contact.redirect(peer, address, packet, now_ms)
                continue
            kind = (address.scope, address.version)
            known = any(p.path.address == address and p.alive(now_ms) for p in peer.paths)
            if known or taken[kind] >= PUSH_LIMIT:
                continue
            taken[kind] += 1
            again = peer.trusted(now_ms)
            self._attempt(peer, address, ALL_SOCKETS, now_ms, again=again)
        return HANDLED

    # What others say about us

    def seen_as(self, peer: Peer, path: Path, seen: InetAddress, now_ms: int) -> None:
        """A peer reported our address as it sees it (6.4)."""
        trusted = self._vl1.is_upstream(peer.address)
        if self.surface.report(peer.address, path, seen, trusted, now_ms):
            self._vl1.tables.greetings_end()
            self._vl1.contact.address_changed(seen, now_ms)


def _common(a: Peer, b: Peer, now_ms: int) -> tuple[Path, Path] | None:
    """The best paths of both in the most local scope that both have, IPv6 first."""
    of_a, of_b = _best_by_kind(a, now_ms), _best_by_kind(b, now_ms)
    kinds = sorted(of_a.keys() & of_b.keys(), reverse=True)
    return (of_a[kinds[0]], of_b[kinds[0]]) if kinds else None


def _best_by_kind(peer: Peer, now_ms: int) -> dict[tuple[Scope, int], Path]:
    best = {}
    for known in sorted(peer.paths, key=lambda p: p.cost(now_ms), reverse=True):
        address = known.path.address
        best[address.scope, address.version] = known.path
    return best


def _pushes(addresses: Iterable[InetAddress]) -> Iterable[PushDirectPaths]:
    """Messages of moderate size that carry the addresses."""
    records: list[DirectPath] = []
    size = 0
    for address in addresses:
        record = DirectPath(address)
        if size + 24 >= PUSH_BYTES:
            yield PushDirectPaths(tuple(records))
            records, size = [], 0
        records.append(record)
        size += 5 + len(address.ip) + 2
    if records:
        yield PushDirectPaths(tuple(records))
