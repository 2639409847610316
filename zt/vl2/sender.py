"""Sending multicasts: to a replicator, or to every listener one by one (chapter 04, 12.4)."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from zt._fast.replicate import replicate
from zt.protocol.address import Address, MulticastGroup
from zt.protocol.messages import MulticastFrame, MulticastGather
from zt.protocol.netconf import NO_MULTICAST_COMPRESSION
from zt.protocol.packet import VERB, Verb, compress, new_packet
from zt.vl1.path import UNKNOWN_LATENCY_MS
from zt.vl2.bridge import shuffled
from zt.vl2.context import Context
from zt.vl2.credentials import Credentials
from zt.vl2.ethernet import Ethernet
from zt.vl2.judge import MAX_MULTICAST_FRAME, Judge
from zt.vl2.multicast import TRANSMIT_MS, Group, Pending
from zt.vl2.network import Network
from zt.vl2.trace import Tracer

GATHER_MS = 60000
LOW_BANDWIDTH_GATHERS = 3
MAX_GATHER_TARGETS = 16
SLICE = 16
"""Copies made here, not by the data plane, in one go: about a millisecond."""
MAX_BACKLOG = 4096


class _Late(NamedTuple):
    """A copy that waits for its turn."""

    since_ms: int
    network: Network
    member: Address
    frame: Ethernet
    packet: bytes


class Sender:
    def __init__(
        self, context: Context, credentials: Credentials, judge: Judge, tracer: Tracer
    ) -> None:
        self._context = context
        self._tracer = tracer
        self._backlog: deque[_Late] = deque()
        self._credentials = credentials
        self._judge = judge

    def send(
        self,
        network: Network,
        group: MulticastGroup,
        frame: Ethernet,
        now_ms: int,
        *,
        origin: Address | None = None,
    ) -> None:
        """Sends a frame that passed the filter to whoever listens. `origin`: who asked us to
        replicate it."""
        config = network.config
        if (
            config is None
            or config.multicast_limit == 0
            or len(frame.payload) > MAX_MULTICAST_FRAME
        ):
            return
        if self._replicate(network, group, frame, now_ms):
            return
        us = self._context.us
        limit = config.multicast_limit
        listeners = self._context.groups.members(network.nwid, group)
        active = network.active_bridges
        gather = 1
        entry: Group | None = None  # if more listeners are wanted
        if len(listeners) < limit:
            gather = limit - len(listeners) + 1
            entry = self._context.groups.make(network.nwid, group)
            factor = LOW_BANDWIDTH_GATHERS if self._context.low_bandwidth else 1
            if not listeners or now_ms - entry.gathered_ms >= factor * GATHER_MS:
                entry.gathered_ms = now_ms
                self._ask(network, group, gather, now_ms)
        packet = MulticastFrame(
            network.nwid,
            group,
            frame.ethertype,
            frame.payload,
            source=None if frame.source == network.mac else frame.source,
            gather_limit=gather,
        ).encode()

        def send(member: Address, at_ms: int) -> None:
            self._copy(network, member, frame, packet, at_ms)

        receivers = [b for b in active if b not in (us, origin)]
        receivers += [m for m in listeners if m not in active and m != origin]
        del receivers[limit:]
        if entry is not None and len(receivers) < limit:
            sent = {*receivers, origin} if origin else set(receivers)
            entry.queue(Pending(now_ms, limit, sent, send))
        self._copies(network, receivers, frame, packet, now_ms, answered=entry is not None)

    def _copies(
        self,
        network: Network,
        receivers: list[Address],
        frame: Ethernet,
        packet: bytes,
        now_ms: int,
        *,
        answered: bool,
    ) -> None:
        """To all receivers: by the data plane at once, where it can. `answered`: their gather
        results are of use."""
        vl1 = self._context.vl1
        left = receivers
        if len(receivers) > 1 and not self._tracer.wants(network, 0):
            body = new_packet(bytes(8), 0, 0, Verb.MULTICAST_FRAME, packet)
            if _compress(network):
                compress(body)
            others, packet_ids = replicate(
                vl1.switch,
                network.nwid,
                receivers,
                frame.dest,
                frame.source,
                frame.ethertype,
                frame.payload,
                bytes(body[VERB:]),
                now_ms,
            )
            left = [Address(address) for address in others]
            vl1.sent_by_switch(Verb.MULTICAST_FRAME, packet_ids, now_ms, answered=answered)
        for member in left[:SLICE]:
            self._copy(network, member, frame, packet, now_ms)
        room = MAX_BACKLOG - len(self._backlog)
        late = left[SLICE:]
        for member in late[:room]:
            self._backlog.append(_Late(now_ms, network, member, frame, packet))
        self._context.counters["drop.tx.too many copies"] += max(0, len(late) - room)

    def timer(self, now_ms: int) -> None:
        """Sends some of the copies that were too many at once."""
        for _ in range(min(len(self._backlog), SLICE)):
            late = self._backlog.popleft()
            if now_ms - late.since_ms <= TRANSMIT_MS and late.network.config is not None:
                self._copy(late.network, late.member, late.frame, late.packet, now_ms)

    def deadline(self) -> int | None:
        """When `timer` has something to do."""
        return self._backlog[0].since_ms if self._backlog else None

    def _copy(
        self, network: Network, member: Address, frame: Ethernet, packet: bytes, now_ms: int
    ) -> None:
        """One copy, if the rules let this member have it."""
        if self._judge.outbound(network, member, frame, now_ms, no_tee=True):
            self._credentials.push_if_due(network, network.member(member, now_ms), now_ms)
            self._context.vl1.send(
                member, Verb.MULTICAST_FRAME, packet, now_ms, compress=_compress(network)
            )

    def _replicate(
        self, network: Network, group: MulticastGroup, frame: Ethernet, now_ms: int
    ) -> bool:
        """Hands the frame to the nearest replicator, if there is one for us."""
        vl1, us = self._context.vl1, self._context.us
        if network.bridge or us in network.replicators:
            return False
        near = [
            (latency_ms, address)
            for address in network.replicators
            if (latency_ms := vl1.latency_ms(address, now_ms)) < UNKNOWN_LATENCY_MS
        ]
        if not near:
            return False
        _, address = min(near)
        path = vl1.path(address, now_ms)
        if path is None:
            return False
        packet = MulticastFrame(
            network.nwid,
            group,
            frame.ethertype,
            frame.payload,
            source=frame.source,
            flags=MulticastFrame.REPLICATE,
        ).encode()
        sent = vl1.send_on(
            path, address, Verb.MULTICAST_FRAME, packet, now_ms, compress=_compress(network)
        )
        return sent is not None

    def _ask(self, network: Network, group: MulticastGroup, limit: int, now_ms: int) -> None:
        """Asks those who may know more listeners."""
        question = MulticastGather(network.nwid, group, limit, com=network.com or None).encode()
        for helper in self._helpers(network):
            self._context.vl1.send(helper, Verb.MULTICAST_GATHER, question, now_ms)

    def _helpers(self, network: Network) -> Iterable[Address]:
        vl1 = self._context.vl1
        helpers = [
            *vl1.upstreams()[:1],
            network.nwid.controller,
            *shuffled(network.anchors, self._context.random),
        ]
        once = dict.fromkeys(helper for helper in helpers if helper != self._context.us)
        return list(once)[:MAX_GATHER_TARGETS]


def _compress(network: Network) -> bool:
    config = network.config
    return config is not None and not config.flags & NO_MULTICAST_COMPRESSION
