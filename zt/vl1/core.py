"""The VL1 state machine: peers, sending, timers.

Everything of one concern lives in its own module and is reached from here: `inbound` (packets in),
`hello` (who is who), `whois` (identities), `contact` (path health, routes, roots), `nat` (ways to a
direct path), `roots` (worlds), `overview` (what is shown of peers).
"""

from collections.abc import Callable, Iterable, Sequence

from zt._fast.cipher import PeerKey
from zt._fast.switch import Switch
from zt._fast.tables import Tables, TablesFull
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Version
from zt.protocol.world import World
from zt.vl1 import cache
from zt.vl1.actions import OFFLINE, ONLINE, Action, Event, Load, Store
from zt.vl1.bond.bonds import Bonds
from zt.vl1.contact import Contact
from zt.vl1.counters import Counters
from zt.vl1.gates import Spacing, TokenBucket
from zt.vl1.hello import Hello
from zt.vl1.inbound import Inbound
from zt.vl1.nat import Nat
from zt.vl1.outbound import Outbound
from zt.vl1.packet import ErrorHandler, Handler, OkHandler, Packet
from zt.vl1.path import NOT_IN_TABLES, UNKNOWN_LATENCY_MS, Path, Paths, Policy
from zt.vl1.peer import ACTIVE_MS, MAX_PATHS, TRUST_MS, Peer, PeerPath
from zt.vl1.relay import Relay
from zt.vl1.roots import Roots
from zt.vl1.status import LocalSocket, Settings
from zt.vl1.waiting import Outgoing
from zt.vl1.whois import Lookup

TICK_MS = 5_000
LOW_BANDWIDTH_TICK_MS = 25_000
QUEUE_MS = 500
HOUSEKEEPING_MS = 30_000
WAKE_MS = 10_000
"""A timer this late means that the process was asleep."""
ONLINE_MS = 60_000
NEVER_MS = 1 << 62

MAX_PEERS = 65_536
EVICT_SHARE = 128
"""When memory is full, the 1/128 of the peers that were silent for longest are forgotten."""
CACHED_ADDRESSES = 4


class Vl1:
    """Peers, paths, roots and queues; dispatches verbs through a table."""

    def __init__(
        self,
        me: Identity,
        switch: Switch,
        *,
        now_ms: int,
        random: Callable[[int], bytes],
        planet: World,
        moons: Iterable[World] = (),
        settings: Settings | None = None,
    ) -> None:
        self.me = me
        self.address = me.address
        self.switch = switch
        self.tables: Tables = switch.tables
        self.random = random
        self.settings = settings or Settings()
        self.roots = Roots(me, planet, moons)
        self.peers: dict[Address, Peer] = {}
        self.paths = Paths()
        self.paths.configure(self.settings.physical)
        self.policy = Policy(self.paths, self.settings)
        self.counters = Counters()
        self.online = self.roots.am_root

        self._actions: list[Action] = []
        self._next_ticket = 0
        # What strangers can make us ask for or read from disk.
        self._stranger_gate: TokenBucket[None] = TokenBucket(20, 200, 1)
        self._load_gate: TokenBucket[None] = TokenBucket(2, 1000, 1)
        self._loads: Spacing[Address] = Spacing(HOUSEKEEPING_MS, 4096)

        self.outbound = Outbound(self)
        self.inbound = Inbound(self)
        self.contact = Contact(self)
        self.hello = Hello(self)
        self.lookup = Lookup(self)
        self.nat = Nat(self)
        self.relay = Relay(self)
        self.bonds = Bonds(self)

        self._started_ms = now_ms
        self._tick_ms = self._check_ms = now_ms
        self._queue_ms = NEVER_MS
        self._housekeeping_ms = now_ms + HOUSEKEEPING_MS
        self._adopt_roots(now_ms)

    # For vl2 and node

    @property
    def am_root(self) -> bool:
        """Our identity is listed in the planet or a moon."""
        return self.roots.am_root

    def emit(self, action: Action) -> None:
        """Hands an action to the driver."""
        self._actions.append(action)

    def actions(self) -> list[Action]:
        """Drains the actions, in order."""
        actions, self._actions = self._actions, []
        return actions

    def register(self, verb: int, handler: Handler) -> None:
        """Sets the handler of a verb. Verbs without one are ignored, but count as received."""
        self.inbound.register(verb, handler)

    def register_ok(self, verb: int, handler: OkHandler) -> None:
        """Sets the handler of expected OKs whose in-re verb is `verb`."""
        self.inbound.register_ok(verb, handler)

    def register_error(self, handler: ErrorHandler) -> None:
        """Adds a handler that sees every ERROR but collisions."""
        self.inbound.register_error(handler)

    def send(
        self, to: Address, verb: int, payload: bytes, now_ms: int, *, compress: bool = False
    ) -> int | None:
        """Sends over the best route. Unknown peers and peers without any route are queued (bounded,
        5 s) and asked for. Returns the packet ID on the wire if it left now, else None."""
        if to == self.address:
            return None
        return self.outbound.send(to, Outgoing(verb, payload, compress), now_ms)

    def send_now(
        self, to: Address, verb: int, payload: bytes, now_ms: int, *, compress: bool = False
    ) -> int | None:
        """As `send`, but a packet that cannot leave at once is not queued."""
        return self.outbound.send_now(to, Outgoing(verb, payload, compress), now_ms)

    def send_on(
        self,
        path: Path,
        to: Address,
        verb: int,
        payload: bytes,
        now_ms: int,
        *,
        compress: bool = False,
    ) -> int | None:
        """Sends over exactly this path; None if no key with the peer is known."""
        peer = self.peers.get(to)
        if peer is None:
            return None
        return self.outbound.send_on(path, peer, Outgoing(verb, payload, compress), now_ms)

    def sent_by_switch(
        self, verb: int, packet_ids: Sequence[int], now_ms: int, *, answered: bool
    ) -> None:
        """Counts packets that the switch made by itself; `answered`: OKs to them are expected."""
        self.counters.sent(verb, len(packet_ids))
        if answered:
            for packet_id in packet_ids:
                self.outbound.replies.add(packet_id, now_ms)

    def send_ok(
        self, packet: Packet, payload: bytes, now_ms: int, *, verb: int | None = None
    ) -> None:
        """Answers OK on the arrival path; `verb` overrides the in-re verb (ch. 02, 9.12)."""
        in_re = packet.verb if verb is None else verb
        peer = self.peers[packet.source]
        self.outbound.ok(peer, packet.path, in_re, packet.packet_id, payload, now_ms)

    def send_error(self, packet: Packet, code: int, data: bytes, now_ms: int) -> None:
        """Answers ERROR on the arrival path."""
        self.outbound.error(packet, code, data, now_ms)

    def identity(self, address: Address) -> Identity | None:
        """The identity of ourselves or of a peer in memory."""
        if address == self.address:
            return self.me
        peer = self.peers.get(address)
        return peer.identity if peer else None

    def whois(self, address: Address, now_ms: int) -> None:
        """Asks an upstream for an identity (at most every 500 ms per address) until it is known or
        5 s have passed; parked packets are retried when it arrives."""
        if address != self.address and address not in self.peers and not address.reserved:
            self.lookup.ask(address, now_ms)
            self.queue_due(now_ms)

    def look_up(self, address: Address, now_ms: int) -> bool:
        """Tries to learn an identity that somebody else named: from disk and by WHOIS, at a
        bounded rate. False if the rate is exceeded, so that nothing should wait for it."""
        if address.reserved or not self._stranger_gate.take(None, now_ms):
            return False
        self.recall(address, now_ms)
        self.whois(address, now_ms)
        return True

    def recall(self, address: Address, now_ms: int) -> None:
        """Looks for a peer on disk, at a bounded rate."""
        if self._loads.take(address, now_ms) and self._load_gate.take(None, now_ms):
            self.emit(Load(cache.file_name(address)))

    def upstreams(self) -> Sequence[Address]:
        """The roots of planet and moons except ourselves, the best one first."""
        return self.contact.best_upstreams()

    def is_upstream(self, address: Address) -> bool:
        return address in self.roots.upstreams

    def expects(self, packet_id: int, now_ms: int) -> bool:
        """Whether an OK for this packet ID would be accepted."""
        return self.outbound.replies.sent_ms(packet_id, now_ms) is not None

    def new_ticket(self) -> int:
        """A number for a `Validate` action, used once."""
        self._next_ticket += 1
        return self._next_ticket

    def retry_parked(self, now_ms: int) -> None:
        """Hands all parked packets over again at once (a credential or configuration arrived)."""
        self.inbound.retry(now_ms)

    def path(self, address: Address, now_ms: int) -> Path | None:
        """The live direct path that packets to a peer take now, if any."""
        peer = self.peers.get(address)
        return peer.main_path(now_ms) if peer else None

    def latency_ms(self, address: Address, now_ms: int) -> int:
        """Latency of the peer's best path, 65535 if unknown."""
        peer = self.peers.get(address)
        return peer.latency_ms(now_ms) if peer else UNKNOWN_LATENCY_MS

    def set_contacts(self, contacts: Iterable[Address]) -> None:
        """Peers to be kept in contact like roots are (anchors, replicators of joined networks)."""
        self.contact.set_wanted(contacts)

    def set_own_networks(self, networks: Iterable[InetAddress], now_ms: int) -> None:
        """Prefixes (ip/bits) of our own virtual networks: no path may lead into them."""
        self.policy.own_networks = tuple(networks)
        self._drop_refused_paths(now_ms)

    # Commands of the service

    def sockets_changed(self, sockets: Sequence[LocalSocket], now_ms: int) -> None:
        """Other local sockets: paths of closed ones are gone, all others must prove themselves."""
        old = {socket.socket for socket in self.nat.sockets}
        new = {socket.socket for socket in sockets}
        self.nat.sockets = tuple(sockets)
        if old == new:
            return
        lost = []
        for peer in self.peers.values():
            for known in [p for p in peer.paths if p.path.socket not in new]:
                lost.append((peer, known.path.address))
                self.remove_path(peer, known)
                self.contact.reroute(peer, now_ms)
        if old - new:
            self.nat.surface.clear()
            self.tables.greetings_end()
        self.contact.resumed(now_ms, lost)

    def mapped_changed(self, addresses: Iterable[InetAddress]) -> None:
        """External addresses that a port mapper obtained for us."""
        self.nat.mapped = tuple(addresses)

    def tap_prefixes_changed(self, prefixes: Iterable[InetAddress], now_ms: int) -> None:
        """Prefixes (ip/bits) set on our own TAP devices: no path may lead into them."""
        self.policy.tap_networks = tuple(prefixes)
        self._drop_refused_paths(now_ms)

    def settings_changed(self, settings: Settings, now_ms: int) -> None:
        bonding = self.settings.bonding
        self.settings = self.policy.settings = settings
        self.tables.greetings_end()
        self.paths.configure(settings.physical)
        for path in self.paths.used():
            self.enter_path(path)
        if settings.bonding != bonding:
            self.bonds.configured(now_ms)
        self._drop_refused_paths(now_ms)
        self._tick_ms = min(self._tick_ms, now_ms + self._tick_period_ms)

    def orbit(self, world_id: int, seed: Address | None, now_ms: int) -> None:
        """Wants a moon; the seed is asked for its definition. Files of moons are `Load`ed."""
        if world_id in self.roots.moons:
            return
        self.emit(Load(_moon_file(world_id)))
        if seed:
            self.roots.want(world_id, seed)
            known = self.peers.get(seed)
            if known is not None:
                known.hello_ms = 0  # due at once: only the answer to a HELLO carries a moon
            self.contact.tick(now_ms)

    def deorbit(self, world_id: int, now_ms: int) -> None:
        if self.roots.forget(world_id):
            self.emit(Store(_moon_file(world_id), None))
            self.roots_changed(now_ms)

    def stored(self, name: str, data: bytes, now_ms: int) -> None:
        """Answers `Load`: a cached peer or a moon. Damaged files are ignored."""
        try:
            if name.startswith("moons.d/"):
                self.roots.add_moon(World.decode(data))
                self.roots_changed(now_ms)
            elif name.startswith("peers.d/"):
                self._recalled(cache.CachedPeer.decode(data), now_ms)
        except DecodeError:
            return

    def stop(self, now_ms: int) -> None:
        """Saves every peer."""
        for peer in self.peers.values():
            self._save(peer)

    # Peers and paths

    def key(self, peer: Peer, now_ms: int) -> PeerKey | None:
        """The key with a peer, agreed when first needed; None if its public key is unusable."""
        if peer.key is None:
            try:
                self._set_key(peer, PeerKey(self.me.agree(peer.identity)), now_ms)
            except DecodeError:
                return None
        return peer.key

    def _set_key(self, peer: Peer, key: PeerKey, now_ms: int) -> None:
        peer.key = key
        try:
            self.tables.peer_set(peer.address, key, peer.suite)
        except TablesFull:
            self._evict(now_ms, peer)
            self.tables.peer_set(peer.address, key, peer.suite)
        self.contact.reroute(peer, now_ms)

    def add_peer(self, identity: Identity, now_ms: int, *, key: PeerKey | None = None) -> Peer:
        """A peer whose identity was just learned; packets that waited for it go their way."""
        if len(self.peers) >= MAX_PEERS:
            self._evict(now_ms)
        peer = self.peers[identity.address] = Peer(identity, now_ms, aes=self.settings.aes)
        if key is not None:
            self._set_key(peer, key, now_ms)
        else:
            self.contact.reroute(peer, now_ms)
        self.lookup.known(peer.address)
        self.nat.peer_learned(peer, now_ms)
        self.inbound.peer_learned(peer, now_ms)
        self.outbound.flush(peer, now_ms)
        return peer

    def remove_peer(self, peer: Peer, *, save: bool = True) -> None:
        if save:
            self._save(peer)
        self.bonds.end(peer)
        for known in list(peer.paths):
            self.remove_path(peer, known)
        self.contact.forget(peer)
        if peer.key is not None:
            self.tables.peer_remove(peer.address)
        del self.peers[peer.address]

    def set_version(self, peer: Peer, version: Version) -> None:
        """What a peer announced in HELLO or OK(HELLO); decides the suite."""
        if version == peer.version:
            return
        suite = peer.suite
        peer.version = version
        if peer.suite != suite and peer.key is not None:
            self.tables.peer_set(peer.address, peer.key, peer.suite)

    def allows(self, address: InetAddress, peer: Address) -> bool:
        """May this physical address become a path to the peer?"""
        return self.policy.allows(address, peer, self.roots.endpoint_ips(peer))

    def add_path(self, peer: Peer, path: Path, now_ms: int) -> PeerPath:
        """A confirmed direct path. A peer with `MAX_PATHS` loses the one silent for longest."""
        replaced = [p for p in peer.paths if _same_ip(p.path, path) and not p.alive(now_ms)]
        if not replaced and len(peer.paths) >= MAX_PATHS:
            replaced = [min(peer.paths, key=lambda p: p.last_in_ms)]
        for known in replaced:
            self.remove_path(peer, known)
        try:
            self.enter_path(path)
        except TablesFull:
            self._evict(now_ms, peer)
            self.enter_path(path)
        self.paths.hold(path)
        self.tables.peer_path_add(peer.address, path.handle)
        known = PeerPath(path, now_ms)
        peer.paths.append(known)
        self.bonds.path_added(peer, known, now_ms)
        if not peer.saved:
            self._save(peer)  # so that even after a crash we know whom we knew
        return known

    def enter_path(self, path: Path) -> None:
        """Writes a path and its MTU into the tables. TablesFull."""
        ip, port = path.address
        path.handle = self.tables.path(
            path.socket, ip, port, mtu=path.mtu, trusted_id=path.trusted_id
        )
        if path.trusted_ms:
            self.trust_path(path, path.trusted_ms)

    def trust_path(self, path: Path, time_ms: int) -> None:
        """A packet that proved a common network came over it: for a while we forward what comes
        from there, root or not (ch. 03, 5.5)."""
        path.trusted_ms = time_ms
        if path.handle != NOT_IN_TABLES:
            self.tables.path_relay_until(path.handle, time_ms + TRUST_MS)

    def remove_path(self, peer: Peer, known: PeerPath) -> None:
        peer.paths.remove(known)
        self.bonds.path_removed(peer, known)
        if known.path in peer.route:
            peer.route = (None, None)
            self.tables.peer_route(peer.address, None)
        self.tables.peer_path_remove(peer.address, known.path.handle)
        if self.paths.release(known.path):
            self.contact.path_gone(known.path)
            self.tables.path_remove(known.path.handle)

    def _evict(self, now_ms: int, spare: Peer | None = None) -> None:
        """Makes room: forgets the peers that were silent for longest, those in use last."""
        silent = sorted(
            (p for p in self.peers.values() if p is not spare and not self.is_upstream(p.address)),
            key=lambda p: (p.active(now_ms), p.last_receive_ms),
        )
        for peer in silent[: max(len(silent) // EVICT_SHARE, 1)]:
            self.remove_peer(peer)

    def _save(self, peer: Peer) -> None:
        peer.saved = True
        data = cache.CachedPeer.of(peer).encode()
        self.emit(Store(cache.file_name(peer.address), data))

    def _recalled(self, cached: cache.CachedPeer, now_ms: int) -> None:
        """A peer came back from disk: it may still be where it was (ch. 03, 3.5)."""
        address = cached.identity.address
        if address in self.peers or address == self.address or address.reserved:
            return
        peer = self.add_peer(cached.identity, now_ms)
        if cached.version.protocol:
            self.set_version(peer, cached.version)
        peer.saved = True
        self.contact.revisit(peer, cached.addresses[:CACHED_ADDRESSES], now_ms)
        self.hello.recalled(peer.identity, now_ms)

    def _drop_refused_paths(self, now_ms: int) -> None:
        for peer in list(self.peers.values()):
            for known in list(peer.paths):
                if not self.allows(known.path.address, peer.address):
                    self.remove_path(peer, known)
                    self.contact.reroute(peer, now_ms)

    # Roots

    def _adopt_roots(self, now_ms: int) -> None:
        for address, identity in self.roots.upstreams.items():
            known = self.peers.get(address)
            if known is not None and known.identity != identity:
                self.remove_peer(known, save=False)  # the signed world is right
            if address not in self.peers:
                self.add_peer(identity, now_ms)
            self.contact.watch(self.peers[address])
        self.contact.set_relaying()

    def roots_changed(self, now_ms: int) -> None:
        """Planet or moons changed."""
        self.tables.greetings_end()
        self._adopt_roots(now_ms)
        self._drop_refused_paths(now_ms)
        self.contact.roots_changed(now_ms)

    # Time

    @property
    def _tick_period_ms(self) -> int:
        return LOW_BANDWIDTH_TICK_MS if self.settings.low_bandwidth else TICK_MS

    def queue_due(self, now_ms: int) -> None:
        """Something waits: look after it soon."""
        self._queue_ms = min(self._queue_ms, now_ms + QUEUE_MS)

    def deadline(self) -> int:
        return min(
            self._tick_ms,
            self._check_ms,
            self._queue_ms,
            self._housekeeping_ms,
            self.bonds.deadline(),
        )

    def timer(self, now_ms: int) -> bool:
        """Does what is due; true if this was a tick (ch. 03, 1.3)."""
        if now_ms - self.deadline() > WAKE_MS:
            self.contact.resumed(now_ms)
        if now_ms >= self._queue_ms:
            self._check_queues(now_ms)
        if now_ms >= self._check_ms:
            self._check_ms = self.contact.check(now_ms)
        self.bonds.run(now_ms)
        if now_ms >= self._housekeeping_ms:
            self._housekeeping_ms = now_ms + HOUSEKEEPING_MS
            self._clean_up(now_ms)
        if now_ms < self._tick_ms:
            return False
        self._tick_ms = now_ms + self._tick_period_ms
        self.contact.tick(now_ms)
        self.update_online(now_ms)
        return True

    def _check_queues(self, now_ms: int) -> None:
        self._queue_ms = NEVER_MS
        self.outbound.check_queue(now_ms)
        self.inbound.expire(now_ms)
        self.lookup.put_questions(now_ms)
        self.inbound.retry(now_ms)
        if self.outbound.pending or self.inbound.pending or self.lookup.pending:
            self.queue_due(now_ms)

    def _clean_up(self, now_ms: int) -> None:
        self.nat.expire(now_ms)
        for peer in list(self.peers.values()):
            if peer.key is not None:
                heard_ms, _ = self.tables.peer_times(peer.address)
                peer.last_receive_ms = max(peer.last_receive_ms, heard_ms)
            for known in list(peer.paths):
                known.refresh(self.tables)
                if known.expired(now_ms):
                    self.remove_path(peer, known)
                    self.contact.reroute(peer, now_ms)
            if not self.is_upstream(peer.address) and now_ms - peer.last_receive_ms > ACTIVE_MS:
                self.remove_peer(peer)

    def update_online(self, now_ms: int) -> None:
        """Online is who heard of an upstream within `ONLINE_MS`, or is a root (ch. 03, 1.3)."""
        heard_ms = max(
            (
                self.peers[address].last_receive_ms
                for address in self.roots.upstreams
                if self.peers[address].paths
            ),
            default=0,
        )
        online = self.am_root or now_ms - heard_ms < ONLINE_MS
        if online != self.online:
            self.online = online
            self.emit(Event(ONLINE if online else OFFLINE))


def _moon_file(world_id: int) -> str:
    return f"moons.d/{world_id:016x}.moon"


def _same_ip(a: Path, b: Path) -> bool:
    return a.socket == b.socket and a.address.ip == b.address.ip
