"""Frames from a TAP that the data plane does not handle by itself (chapter 04, 10)."""

from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.protocol.messages import ExtFrame, Frame
from zt.protocol.netconf import NetworkConfig
from zt.protocol.packet import Verb
from zt.vl1 import actions
from zt.vl2 import ndp
from zt.vl2.bridge import flood
from zt.vl2.context import Context
from zt.vl2.credentials import Credentials
from zt.vl2.ethernet import HEADER_SIZE, Ethernet
from zt.vl2.judge import MAX_EXT_FRAME, MAX_FRAME, MAX_MULTICAST_FRAME, Judge
from zt.vl2.listeners import Listeners
from zt.vl2.network import Network
from zt.vl2.sender import Sender
from zt.vl2.trace import Tracer

MAX_BRIDGED_GROUPS = 1024

NO_CONFIG = "no configuration"
NOT_A_BRIDGE = "not a bridge"
BROADCAST_DISABLED = "broadcast disabled"
MULTICAST_DISABLED = "multicast disabled"
FILTER = "filter blocked"
FILTER_REPLICATION = "filter blocked (bridge replication)"
NO_BRIDGE = "no bridge"
TOO_LARGE = "too large"


class Outbound:
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

    def frame(self, nwid: NetworkId, frame: bytes, now_ms: int) -> None:
        """A whole Ethernet frame from the TAP of a network."""
        network = self._context.networks.get(nwid)
        if network is None or len(frame) <= HEADER_SIZE:
            return
        if network.config is None:
            self._count(NO_CONFIG)
            return
        whole = frame[: network.config.mtu + HEADER_SIZE]
        ethernet = Ethernet.decode(whole)
        if ethernet.source != network.mac and not network.bridge:
            reason = NOT_A_BRIDGE
        elif ethernet.dest.multicast:
            reason = self._multicast(network, network.config, ethernet, now_ms)
        elif ethernet.dest == network.mac:
            self._context.vl1.emit(actions.Frame(nwid, whole))
            return
        elif ethernet.dest.in_network(nwid):
            reason = self._member(network, ethernet, now_ms)
        else:
            reason = self._foreign(network, ethernet, now_ms)
        if reason:
            self._count(reason)
            self._tracer.outgoing_dropped(network, ethernet, reason, now_ms)

    def _multicast(
        self, network: Network, config: NetworkConfig, frame: Ethernet, now_ms: int
    ) -> str:
        """10.1. Returns why the frame was dropped, or nothing."""
        group = MulticastGroup(frame.dest)
        if frame.dest.broadcast:
            if frame.arp_target is not None:
                group = MulticastGroup(frame.dest, frame.arp_target)
            elif not config.broadcast:
                return BROADCAST_DISABLED
        elif config.ndp_emulation:
            answer = ndp.answer(frame, network.nwid, self._context.us, config.static_ips)
            if answer is not None:
                self._context.vl1.emit(actions.Frame(network.nwid, answer.encode()))
                return ""
        if config.multicast_limit == 0:
            return MULTICAST_DISABLED
        if frame.source != network.mac:
            self._behind_us(network, group, now_ms)
        if not self._judge.outbound(network, Address(0), frame, now_ms):
            return FILTER
        if len(frame.payload) > MAX_MULTICAST_FRAME:
            return TOO_LARGE
        self._sender.send(network, group, frame, now_ms)
        return ""

    def _behind_us(self, network: Network, group: MulticastGroup, now_ms: int) -> None:
        """A host behind us uses this group, so it probably listens to it."""
        new = group not in network.bridged
        if new and len(network.bridged) >= MAX_BRIDGED_GROUPS:
            del network.bridged[min(network.bridged, key=network.bridged.__getitem__)]
        network.bridged[group] = now_ms
        if new:
            self._listeners.announce(network, now_ms, group)

    def _member(self, network: Network, frame: Ethernet, now_ms: int) -> str:
        """10.2: the MAC says whose it is."""
        address = frame.dest.address(network.nwid)
        if not self._judge.outbound(network, address, frame, now_ms):
            return FILTER
        bridged = frame.source != network.mac
        if len(frame.payload) > (MAX_EXT_FRAME if bridged else MAX_FRAME):
            return TOO_LARGE
        self._credentials.push_if_due(network, network.member(address, now_ms), now_ms)
        if bridged:
            self._send_ext(network, address, frame, now_ms)
        else:
            packet = Frame(network.nwid, frame.ethertype, frame.payload).encode()
            self._context.vl1.send(address, Verb.FRAME, packet, now_ms)
        return ""

    def _foreign(self, network: Network, frame: Ethernet, now_ms: int) -> str:
        """10.3: somebody behind a bridge."""
        if not self._judge.outbound(network, Address(0), frame, now_ms):
            return FILTER
        if len(frame.payload) > MAX_EXT_FRAME:
            return TOO_LARGE
        us = self._context.us
        route = network.bridges.find(frame.dest)
        if route is not None and route != us and route in network.active_bridges:
            bridges = [route]
        else:
            others = [bridge for bridge in network.active_bridges if bridge != us]
            bridges = list(flood(others, self._context.random))
        if not bridges:
            return NO_BRIDGE
        blocked = ""
        for bridge in bridges:
            if self._judge.outbound(network, bridge, frame, now_ms, no_tee=True):
                self._send_ext(network, bridge, frame, now_ms)
            else:
                blocked = FILTER_REPLICATION
        return blocked

    def _send_ext(self, network: Network, to: Address, frame: Ethernet, now_ms: int) -> None:
        packet = ExtFrame(network.nwid, *frame).encode()
        self._context.vl1.send(to, Verb.EXT_FRAME, packet, now_ms)

    def _count(self, reason: str) -> None:
        self._context.counters[f"drop.tx.{reason}"] += 1
