"""Frames from members that the data plane does not handle by itself (chapter 04, 11)."""

from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.messages import (
    ExtFrame,
    ExtFrameReceived,
    Frame,
    MulticastFrame,
    MulticastFrameResults,
)
from zt.protocol.packet import Verb
from zt.vl1 import DROPPED, HANDLED, TRUSTED, Packet, Result, actions
from zt.vl2.context import Context
from zt.vl2.credentials import Credentials
from zt.vl2.ethernet import Ethernet
from zt.vl2.judge import Judge
from zt.vl2.listeners import Listeners
from zt.vl2.network import Network
from zt.vl2.sender import Sender
from zt.vl2.trace import Tracer

SUPER_ACCEPT = 2
MAX_MULTICAST = 10000

NOT_JOINED = "not joined"
NOT_MULTICAST = "not multicast"
BAD_SOURCE = "invalid source MAC"
MULTICAST_DISABLED = "multicast disabled"
NOT_A_BRIDGE_REMOTE = "bridging not allowed (remote)"
NOT_A_BRIDGE_LOCAL = "bridging not allowed (local)"
FILTER = "filter blocked"
TOO_LARGE = "too large"
NO_CERTIFICATE = "no certificate"


class Inbound:
    def __init__(
        self,
        context: Context,
        credentials: Credentials,
        judge: Judge,
        sender: Sender,
        listeners: Listeners,
        tracer: Tracer,
    ) -> None:
        self._context = context
        self._credentials = credentials
        self._judge = judge
        self._sender = sender
        self._listeners = listeners
        self._tracer = tracer
        vl1 = context.vl1
        vl1.register(Verb.FRAME, self._on_frame)
        vl1.register(Verb.EXT_FRAME, self._on_ext_frame)
        vl1.register(Verb.MULTICAST_FRAME, self._on_multicast_frame)

    def _on_frame(self, packet: Packet, now_ms: int) -> Result:
        """11.1."""
        network = self._network(packet)
        if network is None:
            return HANDLED
        if not self._listeners.gate(network, packet.source, now_ms):
            return self._refuse(network, packet, now_ms)
        message = Frame.decode(packet.payload)
        if message.payload:
            source = Mac.of(packet.source, network.nwid)
            frame = Ethernet(network.mac, source, message.ethertype, message.payload)
            if self._judge.inbound(network, packet.source, frame, now_ms):
                self._deliver(network, frame)
            else:
                self._drop(network, packet, frame, FILTER, now_ms)
        return TRUSTED

    def _on_ext_frame(self, packet: Packet, now_ms: int) -> Result:
        """11.2."""
        network = self._network(packet)
        if network is None:
            return HANDLED
        message = ExtFrame.decode(packet.payload)
        self._credentials.attached(network, message.com, packet.source, now_ms)
        if not self._listeners.gate(network, packet.source, now_ms):
            return self._refuse(network, packet, now_ms)
        if message.payload:
            frame = Ethernet(
                message.destination, message.source, message.ethertype, message.payload
            )
            reason = self._ext_frame(network, packet.source, frame, now_ms)
            if reason:
                self._drop(network, packet, frame, reason, now_ms)
                if reason != FILTER:
                    return TRUSTED  # without OK
        if message.flags & ExtFrame.ACKNOWLEDGE:
            reply = ExtFrameReceived(network.nwid).encode()
            self._context.vl1.send_ok(packet, reply, now_ms)
        return TRUSTED

    def _ext_frame(self, network: Network, peer: Address, frame: Ethernet, now_ms: int) -> str:
        """Returns why the frame was dropped, or nothing."""
        if frame.source == 0 or frame.source == network.mac:
            return BAD_SOURCE
        verdict = self._judge.inbound(network, peer, frame, now_ms)
        if not verdict:
            return FILTER
        if verdict != SUPER_ACCEPT:
            if frame.source != Mac.of(peer, network.nwid):
                if peer not in network.active_bridges:
                    return NOT_A_BRIDGE_REMOTE
                network.bridges.learn(frame.source, peer)
            elif frame.dest != network.mac:
                if frame.dest.multicast:
                    if network.config is None or network.config.multicast_limit == 0:
                        return MULTICAST_DISABLED
                elif not network.bridge:
                    return NOT_A_BRIDGE_LOCAL
        self._deliver(network, frame)
        return ""

    def _on_multicast_frame(self, packet: Packet, now_ms: int) -> Result:
        """11.3."""
        network = self._network(packet)
        if network is None:
            self._context.counters[f"drop.rx.{NOT_JOINED}"] += 1
            return DROPPED
        message = MulticastFrame.decode(packet.payload)
        self._credentials.attached(network, message.com, packet.source, now_ms)
        if not self._listeners.gate(network, packet.source, now_ms):
            return self._refuse(network, packet, now_ms)
        frame = Ethernet(
            message.group.mac,
            Mac.of(packet.source, network.nwid) if message.source is None else message.source,
            message.ethertype,
            message.payload,
        )
        reason = self._multicast_frame(network, packet.source, message, frame, now_ms)
        if reason:
            self._drop(network, packet, frame, reason, now_ms)
            if reason != FILTER:
                return TRUSTED  # without results
        if message.gather_limit:
            found = self._listeners.gather(
                network.nwid, message.group, packet.source, message.gather_limit
            )
            if found is not None:
                results = MulticastFrameResults(network.nwid, message.group, found)
                self._context.vl1.send_ok(packet, results.encode(), now_ms)
        return TRUSTED

    def _multicast_frame(
        self,
        network: Network,
        peer: Address,
        message: MulticastFrame,
        frame: Ethernet,
        now_ms: int,
    ) -> str:
        """Returns why the frame was dropped, or nothing."""
        if network.config is None or network.config.multicast_limit == 0:
            return MULTICAST_DISABLED
        if not 0 < len(frame.payload) <= MAX_MULTICAST:
            return ""
        if not frame.dest.multicast:
            return NOT_MULTICAST
        if frame.source == 0 or frame.source.multicast or frame.source == network.mac:
            return BAD_SOURCE
        if message.flags & MulticastFrame.REPLICATE and self._context.us in network.replicators:
            self._sender.send(network, message.group, frame, now_ms, origin=peer)
        if frame.source != Mac.of(peer, network.nwid):
            if peer not in network.active_bridges:
                return NOT_A_BRIDGE_REMOTE
            network.bridges.learn(frame.source, peer)
        if not self._judge.inbound(network, peer, frame, now_ms):
            return FILTER
        self._deliver(network, frame)
        return ""

    def _network(self, packet: Packet) -> Network | None:
        if len(packet.payload) < 8:
            return None
        return self._context.networks.get(NetworkId.decode(packet.payload))

    def _refuse(self, network: Network, packet: Packet, now_ms: int) -> Result:
        self._context.counters[f"drop.rx.{NO_CERTIFICATE}"] += packet.attempt == 0
        self._tracer.access_denied(network, packet, now_ms)
        return self._credentials.need(network, packet, now_ms)

    def _deliver(self, network: Network, frame: Ethernet) -> None:
        if network.config is None or len(frame.payload) > network.config.mtu:
            self._context.counters[f"drop.rx.{TOO_LARGE}"] += 1
            return
        self._context.vl1.emit(actions.Frame(network.nwid, frame.encode()))

    def _drop(
        self, network: Network, packet: Packet, frame: Ethernet, reason: str, now_ms: int
    ) -> None:
        self._context.counters[f"drop.rx.{reason}"] += 1
        self._tracer.incoming_dropped(network, packet, frame, reason, now_ms)
