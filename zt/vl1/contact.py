"""Keeping in contact: roots, path health, routes.

The original keeps using a dead direct path for up to 243 s and needs a minute to change roots
(ch. 03, 14: Q1, Q3, Q9). Here every path in use must prove itself: while datagrams leave on it, an
OK to a request of ours must arrive on it every few seconds. A late answer makes the relay carry a
copy of everything, a second one makes the relay carry it alone, until the path answers again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.protocol.packet import Verb
from zt.vl1.actions import ALL_SOCKETS
from zt.vl1.packet import Packet
from zt.vl1.path import UNKNOWN_LATENCY_MS, Path
from zt.vl1.peer import ALIVE_MS, DOUBT_PROBES, Peer, PeerPath
from zt.vl1.status import MOON
from zt.vl1.waiting import Outgoing

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

CHECK_MS, CHECK_SENDING_MS, CHECK_WAITING_MS = 1_000, 500, 250
"""How often paths are looked at: idle, while something is sent, while an answer is awaited."""
SILENT_MS = 1_500
"""Something was sent and nothing came back for this long: ask."""
PROOF_MS = 3_000
"""While we send, ask at least this often, even if the other direction works."""
SENDING_MS = 2_000
HEARTBEAT_MS = 14_000
FULL_HELLO_MS = 60_000
ROOT_HELLO_MS = 120_000
CONTACT_HELLO_MS = 28_000
CONFIRM_MS = 1_000
HINT_MS = 30_000
RELAY_HELLO_MS = 20_000
MIN_ANSWER_MS, MAX_ANSWER_MS = 500, 2_000
DOUBT_MS, PATIENT_PROBES = 1_000, 10
"""A dead path is asked each second at first, then ever more rarely."""
MIRROR_PROBES = DOUBT_PROBES + 5
"""It still gets copies until so many probes failed."""
ROOT_RETRIES_MS = (1_000, 1_000, 2_000, 2_000, 5_000)
ROOT_BACKOFF_AFTER, ROOT_BACKOFF_MS = 14, 20_000
"""Roots that do not answer: HELLO every 5 s for a minute, then up to every 20 s, with jitter."""


class Contact:
    """Decides when to probe whom, and which route the packets to each peer take."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._watched: dict[Address, Peer] = {}
        self._relayed: dict[Address, Peer] = {}  # need the relay: no direct path, or an unsure one
        self._relay: tuple[Peer, Path] | None = None  # best upstream and its path
        self._second: tuple[Peer, Path] | None = None
        self._wanted: frozenset[Address] = frozenset()  # anchors, replicators

    # What a peer's packets tell

    def watch(self, peer: Peer) -> None:
        """Look after the paths of this peer from now on."""
        self._watched[peer.address] = peer

    def forget(self, peer: Peer) -> None:
        self._watched.pop(peer.address, None)
        self._relayed.pop(peer.address, None)

    def proved(self, peer: Peer, path: Path, round_trip_ms: int, now_ms: int) -> None:
        """An OK to a request of ours arrived directly on a path."""
        known = peer.path_on(path)
        if known is None:
            return
        known.measure(round_trip_ms)
        if peer.bond is not None:
            peer.bond.measured(path, round_trip_ms)
        known.proof_ms = known.last_in_ms = now_ms
        known.probes = 0
        peer.tries = 0
        self.reroute(peer, now_ms)
        if self._vl1.is_upstream(peer.address):
            self.choose_relay(now_ms)
            self._vl1.update_online(now_ms)

    def learn(self, peer: Peer, path: Path, is_ok: bool, now_ms: int) -> None:
        """An authentic packet came directly from a peer (ch. 03, 4.3)."""
        known = peer.path_on(path)
        if known is not None:
            known.last_in_ms = now_ms
            return
        vl1 = self._vl1
        for other in peer.paths:
            other.refresh(vl1.tables)
            if not self._same_way(other.path, path) or not other.alive(now_ms) or other.unsure:
                continue
            if other.path.address == path.address:
                other.last_in_ms = now_ms
            elif now_ms - other.last_in_ms > SILENT_MS and not other.probes:
                self.probe(peer, other, now_ms)
            return
        if not vl1.allows(path.address, peer.address):
            return
        if is_ok:
            self._add_path(peer, path, now_ms)
        elif now_ms - path.confirm_ms > CONFIRM_MS:
            path.confirm_ms = now_ms
            self.attempt(peer, path.address, path.socket, now_ms, full=True)

    def _same_way(self, one: Path, other: Path) -> bool:
        """Between the same two IPs. Nodes have several ports; one of each is enough while it
        works."""
        if one.address.ip != other.address.ip:
            return False
        return one.socket == other.socket or self._vl1.nat.same_local_ip(one.socket, other.socket)

    def _add_path(self, peer: Peer, path: Path, now_ms: int) -> None:
        others = self._silent_paths(peer, now_ms)
        self._vl1.add_path(peer, path, now_ms)
        peer.tries = 0
        if others or not self._vl1.am_root or self._vl1.is_upstream(peer.address):
            self.watch(peer)
        for other in others:
            # Perhaps the peer moved: prefer the new path until the old one answers.
            if other in peer.paths:
                self._doubt(peer, other, now_ms)
        self.reroute(peer, now_ms)

    def _silent_paths(self, peer: Peer, now_ms: int) -> list[PeerPath]:
        return [
            known
            for known in peer.paths
            if not known.unsure and now_ms - max(known.last_in_ms, known.proof_ms) >= SILENT_MS
        ]

    def _doubt(self, peer: Peer, known: PeerPath, now_ms: int) -> None:
        """There is reason to think that a path is dead: act as if one probe had failed already."""
        known.probes = 1
        self.probe(peer, known, now_ms)

    # Contact attempts

    def attempt(
        self, peer: Peer, to: InetAddress, socket: int, now_ms: int, *, full: bool = False
    ) -> None:
        """ECHO, or HELLO if the peer may not know it, to an address (ch. 03, 4.4)."""
        if full or not peer.takes_echo:
            self._vl1.hello.send(peer, to, socket, now_ms)
        else:
            echo = Outgoing(Verb.ECHO, b"", compress=False)
            self._vl1.outbound.send_to(to, socket, peer, echo, now_ms)

    def probe(self, peer: Peer, known: PeerPath, now_ms: int, *, full: bool = False) -> None:
        """Asks on a path for a sign that our datagrams reach the peer."""
        known.probes += 1
        known.probe_ms = known.path.last_out_ms = now_ms
        # A restarted peer does not know us any more and answers nothing but HELLO.
        full = full or known.probes > 1
        self.attempt(peer, known.path.address, known.path.socket, now_ms, full=full)

    def redirect(self, peer: Peer, to: InetAddress, packet: Packet, now_ms: int) -> None:
        """A push asks us to use this address instead (4.6); obeyed once it answers."""
        current = peer.path_on(packet.path)
        path = self._vl1.paths.get(packet.path.socket, to)
        known = peer.path_on(path)
        if known is not None and current is not None:
            known.priority = current.priority + 2
            for other in [p for p in peer.paths if p.priority < known.priority]:
                self._vl1.remove_path(peer, other)
            self.reroute(peer, now_ms)
        else:
            self.attempt(peer, to, ALL_SOCKETS, now_ms, full=True)

    # Periodic work

    def check(self, now_ms: int) -> int:
        """Looks after all watched paths; returns when to do it again."""
        vl1 = self._vl1
        wait_ms = CHECK_MS
        for peer in list(self._watched.values()):
            upstream = vl1.is_upstream(peer.address)
            self._note_frames(peer, now_ms)
            keep = upstream or peer.active(now_ms)
            if keep:
                vl1.bonds.begin(peer, now_ms)
            full = self._full_hello_due(peer, upstream, keep, now_ms)
            for known in list(peer.paths):
                wait_ms = min(wait_ms, self._check_path(peer, known, keep, full, now_ms))
            if full:
                peer.hello_ms = now_ms
            if upstream:
                self._seek(peer, now_ms)
            elif not keep and (vl1.am_root or not peer.paths) and not _awaits(peer):
                del self._watched[peer.address]
            self.reroute(peer, now_ms)
        self.choose_relay(now_ms)
        vl1.nat.retry(now_ms)
        return now_ms + wait_ms

    def _note_frames(self, peer: Peer, now_ms: int) -> None:
        """Frames pass through the data plane alone; it keeps the time."""
        if peer.key is None:
            return
        last_in_ms, last_frame_ms = self._vl1.tables.peer_times(peer.address)
        peer.last_receive_ms = max(peer.last_receive_ms, last_in_ms)
        if last_frame_ms > peer.last_active_ms:
            peer.last_active_ms = last_frame_ms
            peer.trusted_ms = max(peer.trusted_ms, last_frame_ms)
            best = peer.best(now_ms)
            if best is not None:
                self._vl1.trust_path(best.path, last_frame_ms)
                self._vl1.nat.consider_push(peer, best.path, 0, now_ms)

    def _full_hello_due(self, peer: Peer, upstream: bool, keep: bool, now_ms: int) -> bool:
        if not keep or not peer.paths:
            return False
        return now_ms - peer.hello_ms >= (ROOT_HELLO_MS if upstream else FULL_HELLO_MS)

    def _check_path(self, peer: Peer, known: PeerPath, keep: bool, full: bool, now_ms: int) -> int:
        """Probes a path if there is reason to; returns how soon to look again (ms).

        :param keep: the path must not fall asleep.
        :param full: a HELLO is due.
        """
        vl1, path = self._vl1, known.path
        last_in_ms, last_out_ms = vl1.tables.path_times(path.handle)
        last_out_ms = max(last_out_ms, path.routed_ms)
        known.last_in_ms = max(known.last_in_ms, last_in_ms)
        if known.expired(now_ms):
            vl1.remove_path(peer, known)
            return CHECK_MS
        if peer.bond is not None and peer.bond.asks_on(path):
            if full:
                self.attempt(peer, path.address, path.socket, now_ms, full=True)
            return CHECK_MS
        if known.probes:
            if now_ms - known.probe_ms >= self._answer_time(known):
                if keep or not known.in_doubt:
                    self.probe(peer, known, now_ms)
                if known.unsure:
                    self._check_upstreams(now_ms)
            return CHECK_MS if known.in_doubt else CHECK_WAITING_MS
        silent = last_out_ms > known.last_in_ms and now_ms - known.last_in_ms >= SILENT_MS
        sending = now_ms - last_out_ms < SENDING_MS
        thrifty = vl1.settings.low_bandwidth
        unproved = sending and not thrifty and now_ms - known.proof_ms >= PROOF_MS
        idle_ms = now_ms - max(last_out_ms, path.last_out_ms)
        if silent or unproved or (keep and (full or idle_ms >= HEARTBEAT_MS)):
            self.probe(peer, known, now_ms, full=full)
            return CHECK_WAITING_MS if silent or unproved else CHECK_MS
        return CHECK_SENDING_MS if sending else CHECK_MS

    def _check_upstreams(self, now_ms: int) -> None:
        """A direct path fails. If the cause is at our end the upstreams have to learn of it, or
        what others send through them gets lost too."""
        for address in self._vl1.roots.upstreams:
            root = self._vl1.peers[address]
            for known in self._silent_paths(root, now_ms):
                if not known.probes:
                    self.probe(root, known, now_ms)

    def _answer_time(self, known: PeerPath) -> int:
        """How long to wait for the answer to the last probe before the next one."""
        if known.in_doubt:
            rare = max(known.probes - DOUBT_PROBES - PATIENT_PROBES, 0)
            return int(min(DOUBT_MS << min(rare, 4), HEARTBEAT_MS))
        if known.latency_ms == UNKNOWN_LATENCY_MS:
            return MIN_ANSWER_MS * 2
        return min(max(2 * known.latency_ms + 250, MIN_ANSWER_MS), MAX_ANSWER_MS)

    def _seek(self, root: Peer, now_ms: int) -> None:
        """HELLO to the endpoints of a root that has no working path."""
        if root.best(now_ms) is not None:
            return
        vl1 = self._vl1
        if root.tries < ROOT_BACKOFF_AFTER:
            wait_ms = ROOT_RETRIES_MS[min(root.tries, len(ROOT_RETRIES_MS)) - 1]
        else:
            wait_ms = ROOT_BACKOFF_MS // 2 + vl1.random(1)[0] * ROOT_BACKOFF_MS // 512
        if root.tries and now_ms - root.hello_ms < wait_ms:
            return
        root.tries += 1
        root.hello_ms = now_ms
        endpoints = vl1.roots.endpoints(root.address)
        for version in (4, 6):
            of_family = [e for e in endpoints if e.version == version]
            if of_family:
                to = of_family[vl1.random(1)[0] % len(of_family)]
                vl1.hello.send(root, to, ALL_SOCKETS, now_ms)
        if not endpoints:
            self._through_relay(root, now_ms)

    def tick(self, now_ms: int) -> None:
        """The slower work, every 5 s (ch. 03, 1.3)."""
        vl1 = self._vl1
        seeds = vl1.roots.seeds()
        for address in self._wanted | seeds:
            peer = vl1.peers.get(address)
            if peer is None:
                vl1.whois(address, now_ms)
                continue
            best = peer.best(now_ms)
            if best is None:
                if not peer.relay_hello_ms or now_ms - peer.relay_hello_ms >= CONTACT_HELLO_MS:
                    self._through_relay(peer, now_ms)
                continue
            self.watch(peer)
            peer.last_active_ms = now_ms  # keeps its paths alive
            if address in seeds and now_ms - peer.hello_ms >= CONTACT_HELLO_MS:
                # Asked again until it answers with the moon that is wanted from it.
                peer.hello_ms = now_ms
                self.probe(peer, best, now_ms, full=True)
        for peer in list(self._relayed.values()):
            if peer.active(now_ms):
                self._approach(peer, now_ms)

    def _approach(self, peer: Peer, now_ms: int) -> None:
        """A peer in use is reached by relay only: exchange versions, try what we know of it."""
        if peer.protocol == 0 and now_ms - peer.relay_hello_ms >= RELAY_HELLO_MS:
            self._through_relay(peer, now_ms)
        self.try_hints(peer, now_ms)

    def try_hints(self, peer: Peer, now_ms: int) -> None:
        """HELLO to one of the operator's hints for a peer without direct path (ch. 03, 4.8)."""
        hints = self._vl1.settings.hints.get(peer.address, ())
        if not hints or (peer.hint_ms and now_ms - peer.hint_ms < HINT_MS):
            return
        peer.hint_ms = now_ms
        hint = hints[self._vl1.random(1)[0] % len(hints)]
        self._vl1.hello.send(peer, hint, ALL_SOCKETS, now_ms)

    def _through_relay(self, peer: Peer, now_ms: int) -> None:
        """HELLO that the relay forwards, for peers without endpoint or version (Q13)."""
        relay = self.relay_for(peer)
        if relay is not None:
            peer.relay_hello_ms = now_ms
            self._vl1.hello.send(peer, relay.address, relay.socket, now_ms)

    def heard_by_relay(self, peer: Peer, now_ms: int) -> None:
        """Frames or configurations of a peer came through a relay."""
        self._approach(peer, now_ms)
        best = peer.best(now_ms)
        if best is not None and not best.probes and now_ms - best.proof_ms >= SILENT_MS:
            # Perhaps the peer found our direct path dead before we did.
            self.probe(peer, best, now_ms)

    def revisit(self, peer: Peer, addresses: Iterable[InetAddress], now_ms: int) -> None:
        """HELLO to where a peer was seen in the past."""
        for address in addresses:
            if self._vl1.allows(address, peer.address):
                self._vl1.hello.send(peer, address, ALL_SOCKETS, now_ms)

    # When the world around us changes

    def roots_changed(self, now_ms: int) -> None:
        """Other roots, or new endpoints of the same: contact those without path at once."""
        for address in self._vl1.roots.upstreams:
            root = self._vl1.peers[address]
            root.tries = 0
            self.watch(root)
            self._seek(root, now_ms)
        self.choose_relay(now_ms)

    def resumed(self, now_ms: int, lost: Iterable[tuple[Peer, InetAddress]] = ()) -> None:
        """We slept, or our sockets changed: nothing known about paths can be relied upon.

        :param lost: peers and addresses whose paths went with their sockets.
        """
        for peer, address in lost:
            if peer.active(now_ms):
                self.attempt(peer, address, ALL_SOCKETS, now_ms, full=True)
        for peer in list(self._watched.values()):
            for known in peer.paths:
                self._doubt(peer, known, now_ms)
            peer.push_ms = 0
            if self._vl1.is_upstream(peer.address):
                peer.tries = 0
                for endpoint in self._vl1.roots.endpoints(peer.address):
                    self._vl1.hello.send(peer, endpoint, ALL_SOCKETS, now_ms)
                peer.hello_ms = now_ms
        for peer in list(self._watched.values()):
            self.reroute(peer, now_ms)

    def address_changed(self, seen: InetAddress, now_ms: int) -> None:
        """An upstream sees us under another IP: mappings of that scope and family are gone."""
        for peer in list(self._watched.values()):
            peer.push_ms = 0  # it should know the new one
            for known in peer.paths:
                address = known.path.address
                same = address.scope == seen.scope and address.version == seen.version
                if same and not known.unsure:
                    self._doubt(peer, known, now_ms)
            self.reroute(peer, now_ms)

    def set_wanted(self, contacts: Iterable[Address]) -> None:
        self._wanted = frozenset(contacts) - {self._vl1.address}

    # Routes

    def path_gone(self, path: Path) -> None:
        """A path is no longer used by anybody; its handle ends with this call."""
        if any(relay is not None and relay[1] is path for relay in (self._relay, self._second)):
            self._relay = self._second = None
            self.set_relaying()
            for peer in [p for p in self._vl1.peers.values() if path in p.route]:
                peer.route = (None, None)
                self._vl1.tables.peer_route(peer.address, None)

    def relay_for(self, peer: Peer | None) -> Path | None:
        """The path to the upstream that relays to this peer, or to anybody."""
        for relay in (self._relay, self._second):
            if relay is not None and relay[0] is not peer:
                return relay[1]
        return None

    def best_upstreams(self) -> list[Address]:
        """All upstreams, the relay in use first."""
        upstreams = list(self._vl1.roots.upstreams)
        if self._relay is not None:
            upstreams.sort(key=lambda address: address != self._relay[0].address)  # type: ignore[index]
        return upstreams

    def choose_relay(self, now_ms: int) -> None:
        """The best upstream: one that answers, an own moon's first, then the nearest (Q9)."""
        ranked = []
        for address in self._vl1.roots.upstreams:
            peer = self._vl1.peers[address]
            best = peer.best(now_ms)
            known = best or peer.last_resort()
            if known is not None:
                ranked.append(
                    (*self._rank(peer, known, best is not None, now_ms), peer, known.path)
                )
        ranked.sort(key=lambda entry: entry[:4])
        chosen = [(peer, path) for *_, peer, path in ranked[:2]]
        relay = chosen[0] if chosen else None
        second = chosen[1] if len(chosen) > 1 else None
        if (relay, second) == (self._relay, self._second):
            return
        self._relay, self._second = relay, second
        self.set_relaying()
        for peer in [*self._relayed.values(), *self._watched.values()]:
            self.reroute(peer, now_ms)

    def set_relaying(self) -> None:
        """Tells the data plane whether to forward for others, and where to as a last resort."""
        relay = self._relay
        self._vl1.tables.relay(self._vl1.am_root, relay[1].handle if relay else None)

    def _rank(
        self, peer: Peer, known: PeerPath, works: bool, now_ms: int
    ) -> tuple[bool, bool, int, int]:
        moon = self._vl1.roots.role(peer.address) == MOON
        latency = max(known.latency_ms, 1)
        # Steps of a factor of 1.5 and a bonus for the one in use: no change for small differences.
        grade = latency.bit_length() * 2 + (latency * 2 >= 3 << latency.bit_length() - 1)
        if self._relay is not None and self._relay[0] is peer:
            grade -= 1
        return (not works, not moon, grade, -peer.address)

    def reroute(self, peer: Peer, now_ms: int) -> None:
        """Computes where packets to a peer go, and tells the data plane if it changed."""
        bonded = peer.bond.route if peer.bond is not None else None
        direct = peer.best(now_ms)
        relay = self.relay_for(peer)
        path: Path | None
        mirror: Path | None = None
        if bonded is not None:
            path = bonded
        elif direct is not None:
            path = direct.path
            stale = now_ms - direct.last_in_ms >= ALIVE_MS and not self._vl1.am_root
            mirror = relay if direct.unsure or stale else None
        else:
            doubtful = peer.last_resort()
            path = relay or (doubtful.path if doubtful else None)
            if relay is not None and doubtful is not None and doubtful.probes <= MIRROR_PROBES:
                mirror = doubtful.path
        if bonded is None and (direct is None or mirror is not None):
            self._relayed[peer.address] = peer
        else:
            self._relayed.pop(peer.address, None)
        if (path, mirror) == peer.route or peer.key is None:
            return
        peer.route = (path, mirror)
        self._vl1.tables.peer_route(
            peer.address, path.handle if path else None, mirror.handle if mirror else None
        )
        if path is not None:
            self._vl1.outbound.flush(peer, now_ms)


def _awaits(peer: Peer) -> bool:
    """Is there a path whose fate is open?"""
    return any(known.probes and not known.in_doubt for known in peer.paths)
