"""Announcing our multicast groups, and helping others to find listeners.

Chapter 04, 11.5, 12.2 and 12.3.
"""

from collections.abc import Iterable

from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.messages import (
    GatherResults,
    Members,
    MulticastFrameResults,
    MulticastGather,
    MulticastLike,
    UnwantedMulticast,
)
from zt.protocol.packet import HEADER_SIZE, MAX_PACKET, Verb
from zt.vl1 import DROPPED, HANDLED, TRUSTED, Packet, Result
from zt.vl2.context import Context
from zt.vl2.credentials import Credentials
from zt.vl2.network import Network

ANNOUNCE_MS = 60000
AUTHORIZED_MS = 180000
"""How long a node may use us as helper for a network after our controller configured it."""
MAX_CONFIGURED = 65536

RESULTS_SIZE = HEADER_SIZE + 9 + 8 + 10 + 6
"""Of a reply with gather results, without the addresses."""
MAX_RESULTS = (MAX_PACKET - RESULTS_SIZE) // 5


class Listeners:
    """Both sides of MULTICAST_LIKE and MULTICAST_GATHER."""

    def __init__(self, context: Context, credentials: Credentials) -> None:
        self._context = context
        self._credentials = credentials
        self._configured: dict[tuple[NetworkId, Address], int] = {}
        """Whom our own controller sent a configuration, and when."""
        vl1 = context.vl1
        vl1.register(Verb.MULTICAST_LIKE, self._on_like)
        vl1.register(Verb.MULTICAST_GATHER, self._on_gather)
        vl1.register_ok(Verb.MULTICAST_GATHER, self._on_gathered)
        vl1.register_ok(Verb.MULTICAST_FRAME, self._on_frame_results)

    # -- announcing --------------------------------------------------------------------------

    def announce(self, network: Network, now_ms: int, group: MulticastGroup | None = None) -> None:
        """To everybody who should know: all groups, each receiver at most once a minute; or one new
        group, at once."""
        groups = network.groups() if group is None else [group]
        if network.config is None or not groups:
            return
        helpers = sorted(
            {*network.anchors, network.nwid.controller, *self._context.vl1.upstreams()}
            - {self._context.us}
        )
        if group is not None or now_ms - network.announced_ms >= ANNOUNCE_MS:
            if group is None:
                network.announced_ms = now_ms
            for helper in helpers:
                self._send(network, helper, groups, now_ms)
        for member in list(network.members.values()):
            if member.address in helpers or self._context.vl1.identity(member.address) is None:
                continue
            due = now_ms - member.liked_ms >= ANNOUNCE_MS
            if due:
                member.liked_ms = now_ms
            if (due or group is not None) and network.is_member(member.address):
                self._send(network, member.address, groups, now_ms)

    def gate(self, network: Network, peer: Address, now_ms: int) -> bool:
        """Whether a peer may take part (7.10). One that does hears about our groups."""
        if not network.is_member(peer):
            return False
        member = network.member(peer, now_ms)
        if now_ms - member.liked_ms >= ANNOUNCE_MS:
            member.liked_ms = now_ms
            self._send(network, peer, network.groups(), now_ms)
        return True

    def _send(
        self, network: Network, to: Address, groups: Iterable[MulticastGroup], now_ms: int
    ) -> None:
        records = [(network.nwid, group) for group in groups]
        size = (MAX_PACKET - HEADER_SIZE - 24) // MulticastLike.RECORD_SIZE
        for at in range(0, len(records), size):
            payload = MulticastLike(tuple(records[at : at + size])).encode()
            self._context.vl1.send(to, Verb.MULTICAST_LIKE, payload, now_ms, compress=True)

    # -- helping -----------------------------------------------------------------------------

    def configured(self, nwid: NetworkId, member: Address, now_ms: int) -> None:
        """Our controller sent the member a configuration."""
        if len(self._configured) >= MAX_CONFIGURED:
            self.clean(now_ms)
        self._configured.pop((nwid, member), None)
        self._configured[nwid, member] = now_ms

    def _may_ask(self, nwid: NetworkId, peer: Address, now_ms: int) -> tuple[bool, bool]:
        """(may the peer use us for this network, did it pass the gate)."""
        network = self._context.networks.get(nwid)
        if network is not None and self.gate(network, peer, now_ms):
            return True, True
        configured_ms = self._configured.get((nwid, peer))
        if configured_ms is not None and now_ms - configured_ms < AUTHORIZED_MS:
            return True, False
        return self._context.vl1.am_root, False

    def gather(
        self, nwid: NetworkId, group: MulticastGroup, asker: Address, limit: int
    ) -> Members | None:
        """Listeners for an answer; None if there are none."""
        network = self._context.networks.get(nwid)
        total, found = self._context.groups.gather(
            nwid,
            group,
            asker,
            min(limit, MAX_RESULTS),
            listening=network is not None and network.listens(group),
        )
        return Members(total, tuple(found)) if found else None

    def clean(self, now_ms: int) -> None:
        for key, at_ms in list(self._configured.items()):
            if now_ms - at_ms >= AUTHORIZED_MS or len(self._configured) > MAX_CONFIGURED:
                del self._configured[key]

    # -- packets -----------------------------------------------------------------------------

    def _on_like(self, packet: Packet, now_ms: int) -> Result:
        """Authorization is decided for each network by itself (Q10)."""
        verdicts: dict[NetworkId, tuple[bool, bool]] = {}
        for nwid, group in MulticastLike.decode(packet.payload).groups:
            if nwid not in verdicts:
                verdicts[nwid] = self._may_ask(nwid, packet.source, now_ms)
            if verdicts[nwid][0]:
                self._context.groups.add(nwid, group, packet.source, now_ms)
        if len(packet.payload) % MulticastLike.RECORD_SIZE:
            return DROPPED
        return HANDLED

    def _on_gather(self, packet: Packet, now_ms: int) -> Result:
        question = MulticastGather.decode(packet.payload)
        network = self._context.networks.get(question.nwid)
        if network is not None:
            self._credentials.attached(network, question.com, packet.source, now_ms)
        if not question.limit:
            return HANDLED
        may_ask, member = self._may_ask(question.nwid, packet.source, now_ms)
        if may_ask:
            found = self.gather(question.nwid, question.group, packet.source, question.limit)
            if found:
                reply = GatherResults(question.nwid, question.group, found)
                self._context.vl1.send_ok(packet, reply.encode(), now_ms)
        return TRUSTED if member else HANDLED

    def _on_gathered(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        results = GatherResults.decode(body)
        self._add(results.nwid, results.group, results.members, now_ms)
        return HANDLED

    def _on_frame_results(
        self, packet: Packet, request_id: int, body: bytes, now_ms: int
    ) -> Result:
        results = MulticastFrameResults.decode(body)
        network = self._context.networks.get(results.nwid)
        if network is not None:
            self._credentials.attached(network, results.com, packet.source, now_ms)
        if results.members is not None:
            self._add(results.nwid, results.group, results.members, now_ms)
        return HANDLED

    def _add(self, nwid: NetworkId, group: MulticastGroup, members: Members, now_ms: int) -> None:
        if nwid in self._context.networks:
            for address in members.addresses:
                self._context.groups.add(nwid, group, address, now_ms)

    def unwanted(self, packet: Packet, data: bytes, now_ms: int) -> None:
        """A peer wants no more frames of a group (ERROR 8, 11.5)."""
        try:
            error = UnwantedMulticast.decode(data)
        except DecodeError:
            return
        network = self._context.networks.get(error.nwid)
        if network is not None and self.gate(network, packet.source, now_ms):
            self._context.groups.remove(error.nwid, error.group, packet.source)
