"""vl1 and vl2 as one sans-I/O object: events and the time in, actions out."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from zt._fast import switch as kinds
from zt._fast.filter import Trace
from zt._fast.switch import Punt, Switch
from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.protocol.credentials import Revocation
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.packet import ErrorCode
from zt.protocol.world import World
from zt.vl1 import overview
from zt.vl1.actions import Action
from zt.vl1.core import Vl1
from zt.vl1.path import Path
from zt.vl1.status import LocalSocket, MoonStatus, PeerStatus, Settings
from zt.vl2 import NetworkStatus, Vl2


class Node:
    """One node. The driver calls one method per event, passes the time (ms), then carries out
    `actions()` in order and arms a timer for `deadline()`. Nothing here blocks or raises because of
    what others sent."""

    def __init__(
        self,
        identity: Identity,
        switch: Switch,
        *,
        now_ms: int,
        random: Callable[[int], bytes],
        planet: World,
        moons: Iterable[World] = (),
        settings: Settings | None = None,
        platform: str = "",
        controller: bool = False,
    ) -> None:
        """:param random: returns n random bytes.
        :param platform: what controllers are told, like ``linux/x86_64``.
        :param controller: somebody answers `ConfigRequest`.
        """
        self.identity = identity
        self.vl1 = Vl1(
            identity,
            switch,
            now_ms=now_ms,
            random=random,
            planet=planet,
            moons=moons,
            settings=settings,
        )
        self.vl2 = Vl2(
            self.vl1, switch.tables, now_ms=now_ms, platform=platform, controller=controller
        )
        self._punts = {
            kinds.HELLO: self._punt_hello,
            kinds.UNKNOWN: self._punt_unknown,
            kinds.TRUSTED: self._punt_packet,
            kinds.PACKET: self._punt_packet,
            kinds.RELAY: self._punt_relay,
            kinds.FRAME: self._punt_frame,
            kinds.INTRODUCE: self._punt_introduce,
            kinds.RECEIVED: self._punt_received,
        }

    # Events

    def punt(self, punt: Punt, now_ms: int) -> None:
        """Something the data plane leaves to us."""
        handler = self._punts.get(punt.kind)
        if handler is not None:
            handler(punt, now_ms)

    def timer(self, now_ms: int) -> None:
        """To be called at `deadline()`; early calls are harmless."""
        self.vl1.timer(now_ms)
        self.vl2.timer(now_ms)

    def deadline(self) -> int:
        """The next instant at which `timer` has something to do."""
        return min(self.vl1.deadline(), self.vl2.deadline())

    def sockets_changed(self, sockets: Sequence[LocalSocket], now_ms: int) -> None:
        """All bound UDP sockets, whenever one was opened or closed."""
        self.vl1.sockets_changed(sockets, now_ms)

    def mapped_changed(self, addresses: Iterable[InetAddress]) -> None:
        """External addresses that a port mapper obtained for us."""
        self.vl1.mapped_changed(addresses)

    def tap_prefixes_changed(self, prefixes: Iterable[InetAddress], now_ms: int) -> None:
        """Prefixes (port = bits) set on our own TAP devices."""
        self.vl1.tap_prefixes_changed(prefixes, now_ms)

    def settings_changed(self, settings: Settings, now_ms: int) -> None:
        self.vl1.settings_changed(settings, now_ms)

    def stored(self, name: str, data: bytes, now_ms: int) -> None:
        """Answers `Load`; not called for files that do not exist."""
        self.vl1.stored(name, data, now_ms)

    def validated(self, ticket: int, ok: bool, now_ms: int) -> None:
        """Answers `Validate`."""
        self.vl1.hello.validated(ticket, ok, now_ms)
        self.vl1.lookup.validated(ticket, ok, now_ms)

    def awaits(self, ticket: int) -> bool:
        """Whether an answer to `Validate` still matters."""
        return self.vl1.hello.awaits(ticket) or self.vl1.lookup.awaits(ticket)

    def orbit(self, world_id: int, seed: Address | None, now_ms: int) -> None:
        """Wants a moon: its file is loaded, its seed asked."""
        self.vl1.orbit(world_id, seed, now_ms)

    def deorbit(self, world_id: int, now_ms: int) -> None:
        self.vl1.deorbit(world_id, now_ms)

    def join(self, nwid: NetworkId, now_ms: int, cached: bytes | None = None) -> None:
        """Joins a network; `cached`: content of `networks.d/<nwid>.conf`, if it exists."""
        self.vl2.join(nwid, now_ms, cached)

    def leave(self, nwid: NetworkId, now_ms: int) -> None:
        self.vl2.leave(nwid, now_ms)

    def groups_changed(self, nwid: NetworkId, groups: set[MulticastGroup], now_ms: int) -> None:
        """All multicast groups that a network's TAP listens to."""
        self.vl2.groups_changed(nwid, groups, now_ms)

    def send_config(
        self,
        member: Address,
        nwid: NetworkId,
        chunks: Sequence[bytes],
        request_id: int | None,
        now_ms: int,
    ) -> None:
        """As controller: signed chunks, in answer to a `ConfigRequest` or unasked (None)."""
        self.vl2.send_config(member, nwid, chunks, request_id, now_ms)

    def send_config_error(
        self,
        member: Address,
        nwid: NetworkId,
        request_id: int,
        code: ErrorCode,
        data: bytes,
        now_ms: int,
    ) -> None:
        """As controller: refuses a `ConfigRequest`; `data` is what follows the network ID."""
        self.vl2.send_config_error(member, nwid, request_id, code, data, now_ms)

    def send_revocation(
        self, member: Address, revocations: Sequence[Revocation], now_ms: int
    ) -> None:
        """As controller: revocations for one member, paced and repeated."""
        self.vl2.send_revocation(member, revocations, now_ms)

    def rotate_bond(self, peer: Address, now_ms: int) -> bool:
        """Lets another path of an active-backup bond take over; false: no such bond."""
        return self.vl1.bonds.rotate(peer, now_ms)

    def set_bond_mtu(self, mtu: int, device: str, ip: bytes) -> bool:
        """Limits the datagrams (bytes) on the bonded paths over an interface to an IP; false: there
        are none."""
        return self.vl1.bonds.set_mtu(mtu, device, ip)

    def stop(self, now_ms: int) -> None:
        """Leaves a `Store` for every peer."""
        self.vl1.stop(now_ms)

    # Results

    def actions(self) -> list[Action]:
        """What to do now, in order; to be drained after every event."""
        return self.vl1.actions()

    @property
    def planet(self) -> World:
        return self.vl1.roots.planet

    @property
    def online(self) -> bool:
        """An upstream was heard of lately, or we are a root."""
        return self.vl1.online

    def networks(self) -> list[NetworkId]:
        """Joined networks, ascending."""
        return self.vl2.networks()

    def network(self, nwid: NetworkId) -> NetworkStatus | None:
        return self.vl2.network(nwid)

    def packets(self, nwid: NetworkId) -> tuple[int, int, int, int]:
        """Frames that a network's rules accepted and dropped, in both planes: tx yes and no, rx
        yes and no."""
        return self.vl2.packets(nwid)

    def moons(self) -> list[MoonStatus]:
        return self.vl1.roots.statuses()

    def peers(self, now_ms: int) -> list[PeerStatus]:
        """All peers in memory, by address."""
        return overview.statuses(self.vl1, now_ms)

    def peer(self, address: Address, now_ms: int) -> PeerStatus | None:
        """One peer, if it is in memory."""
        peer = self.vl1.peers.get(address)
        return None if peer is None else overview.status(self.vl1, peer, now_ms)

    def peer_addresses(self) -> list[Address]:
        """Those of all peers in memory, in order."""
        return sorted(self.vl1.peers)

    def peer_counts(self, now_ms: int) -> Counter[tuple[bool, str]]:
        """Peers in memory by whether they are reached directly, and by role."""
        return overview.counts(self.vl1, now_ms)

    def surface(self) -> list[InetAddress]:
        """Our own addresses as others see them."""
        return self.vl1.nat.surface.addresses()

    def tell_drops(self, telling: bool) -> None:
        """Whether what the control plane drops leaves actions `Dropped`."""
        self.vl2.tell_drops(telling)

    def judged(
        self, nwid: NetworkId, peer: Address, frame: bytes, *, inbound: bool
    ) -> Trace | None:
        """What the rules of a network say now of an Ethernet frame from or to a member."""
        return self.vl2.judged(nwid, peer, frame, inbound=inbound)

    def counters(self) -> dict[str, int]:
        """Packets and errors of the control plane, `packet.rx.hello` and so on; what became of
        frames and credentials, `vl2.drop.tx.filter blocked` and so on."""
        return self.vl1.counters.as_dict() | self.vl2.counters()

    # Punts

    def _punt_hello(self, punt: Punt, now_ms: int) -> None:
        self.vl1.hello.receive(self._path(punt), punt.data, now_ms)

    def _punt_unknown(self, punt: Punt, now_ms: int) -> None:
        self.vl1.inbound.unknown(self._path(punt), punt.data, now_ms)

    def _punt_packet(self, punt: Punt, now_ms: int) -> None:
        self.vl1.inbound.opened(self._path(punt), punt.data, now_ms)

    def _punt_relay(self, punt: Punt, now_ms: int) -> None:
        self.vl1.relay.forward(self._path(punt), punt.data, now_ms)

    def _punt_frame(self, punt: Punt, now_ms: int) -> None:
        self.vl2.frame(punt.nwid, punt.data, now_ms)

    def _punt_introduce(self, punt: Punt, now_ms: int) -> None:
        self.vl1.nat.introduce(Address(punt.address), Address.decode(punt.data), now_ms)

    def _punt_received(self, punt: Punt, now_ms: int) -> None:
        peer = self.vl1.peers.get(Address(punt.address))
        if peer is not None:
            path = self._path(punt)
            verb = punt.data[0]
            self.vl1.inbound.received(peer, path, punt.hops, verb, now_ms, trusted=True)

    def _path(self, punt: Punt) -> Path:
        return self.vl1.paths.get(punt.socket, InetAddress(punt.ip, punt.port))
