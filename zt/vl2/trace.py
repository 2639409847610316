"""Remote traces: events reported to an observer that the network's controller names.

Chapter 04, 15. Sending only; received ones go to the application as they are.
"""

from zt._fast.filter import Trace
from zt.protocol.address import Address
from zt.protocol.credentials import Capability, Kind, Ownership, Revocation, Tag
from zt.protocol.dictionary import TRACE_CAPACITY, DictionaryWriter
from zt.protocol.packet import Verb
from zt.vl1 import Packet, actions
from zt.vl2.context import Context
from zt.vl2.ethernet import Ethernet
from zt.vl2.membership import Credential
from zt.vl2.network import Network

LEVEL_VERBOSE = 10
LEVEL_RULES = 15

OUTGOING_DROPPED = "2000"
ACCESS_DENIED = "2001"
INCOMING_DROPPED = "2002"
CREDENTIAL_REJECTED = "2003"
FILTERED = "2006"

NO_CERTIFICATE = "no certificate"

FRAME_SIZE = 256
"""Leading bytes of a frame in a trace."""

TRACES_PER_SECOND = 1000
"""Over all networks: an observer is not to be flooded, nor are we to spend all time on it."""


class Tracer:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._second = 0
        self._count = 0
        self.telling = False
        """Somebody on this host listens: drops are told as actions, too."""

    def wants(self, network: Network, level: int) -> bool:
        config = network.config
        return config is not None and config.trace_target != 0 and config.trace_level >= level

    def outgoing_dropped(
        self,
        network: Network,
        frame: Ethernet,
        reason: str,
        now_ms: int,
    ) -> None:
        self._tell(network, reason, frame=frame)
        if not self.wants(network, LEVEL_VERBOSE):
            return
        out = _event(OUTGOING_DROPPED)
        out.u64("networkId", network.nwid)
        _frame(out, frame)
        out.u64("frameLength", len(frame.payload))
        if reason:
            out.text("reason", reason)
        self._send(network, out, now_ms)

    def access_denied(self, network: Network, packet: Packet, now_ms: int) -> None:
        self._tell(network, NO_CERTIFICATE, packet.source)
        if not self.wants(network, LEVEL_VERBOSE):
            return
        out = _event(ACCESS_DENIED)
        _packet(out, packet)
        out.u64("networkId", network.nwid)
        self._send(network, out, now_ms)

    def incoming_dropped(
        self,
        network: Network,
        packet: Packet,
        frame: Ethernet,
        reason: str,
        now_ms: int,
    ) -> None:
        self._tell(network, reason, packet.source, frame)
        if not self.wants(network, LEVEL_VERBOSE):
            return
        out = _event(INCOMING_DROPPED)
        _packet(out, packet)
        out.u64("networkId", network.nwid)
        out.u64("sourceMac", frame.source)
        out.u64("destMac", frame.dest)
        out.text("reason", reason)
        self._send(network, out, now_ms)

    def credential_rejected(
        self, network: Network, credential: Credential, reason: str, now_ms: int
    ) -> None:
        holder = credential.target if isinstance(credential, Revocation) else credential.issued_to
        name = type(credential).__name__.lower()
        self._tell(network, f"{name} rejected: {reason}", holder)
        if not self.wants(network, 0):
            return
        out = _event(CREDENTIAL_REJECTED)
        out.u64("networkId", network.nwid)
        if isinstance(credential, Revocation):
            out.u64("credType", Kind.REVOCATION)
            out.u64("credId", credential.id)
            out.u64("credRevocationTarget", credential.target)
        else:
            kind = {Tag: Kind.TAG, Capability: Kind.CAPABILITY, Ownership: Kind.OWNERSHIP}.get(
                type(credential), Kind.COM
            )
            out.u64("credType", kind)
            out.u64("credId", getattr(credential, "id", 0))
            out.i64("credTs", credential.timestamp)
            out.u64("credIssuedTo", credential.issued_to)
            if isinstance(credential, Tag):
                out.u64("credInfo", credential.value)
        out.text("reason", reason)
        self._send(network, out, now_ms)

    def filtered(
        self,
        network: Network,
        log: Trace,
        source: Address,
        dest: Address,
        frame: Ethernet,
        now_ms: int,
        *,
        inbound: bool,
        no_tee: bool = False,
    ) -> None:
        out = _event(FILTERED)
        out.u64("networkId", network.nwid)
        out.u64("sourceZtAddr", source)
        out.u64("destZtAddr", dest)
        _frame(out, frame)
        out.boolean("filterNoTee", no_tee)
        out.boolean("filterInbound", inbound)
        out.u64("filterResult", log.verdict.result)
        out.blob("filterBaseRuleLog", log.base)
        if log.capability is not None and log.capability_id is not None:
            out.blob("filterCapRuleLog", log.capability)
            out.u64("filterMatchingCapId", log.capability_id)
        out.u64("frameLength", len(frame.payload))
        out.blob("frameData", frame.payload[:FRAME_SIZE])
        self._send(network, out, now_ms)

    def _tell(
        self,
        network: Network,
        reason: str,
        source: Address | None = None,
        frame: Ethernet | None = None,
    ) -> None:
        """`source`: who sent what was dropped; None: we."""
        if self.telling:
            data = b"" if frame is None else frame.encode()
            peer = source or Address(0)
            self._context.vl1.emit(
                actions.Dropped(network.nwid, source is None, reason, peer, data)
            )

    def _send(self, network: Network, out: DictionaryWriter, now_ms: int) -> None:
        if network.config is None:
            return
        if now_ms // 1000 != self._second:
            self._second, self._count = now_ms // 1000, 0
        self._count += 1
        if self._count > TRACES_PER_SECOND:
            return
        self._context.vl1.send(
            network.config.trace_target,
            Verb.REMOTE_TRACE,
            bytes(out) + b"\0",
            now_ms,
            compress=True,
        )


def _event(code: str) -> DictionaryWriter:
    out = DictionaryWriter(TRACE_CAPACITY)
    out.text("event", code)
    return out


def _frame(out: DictionaryWriter, frame: Ethernet) -> None:
    out.u64("sourceMac", frame.source)
    out.u64("destMac", frame.dest)
    out.u64("etherType", frame.ethertype)
    out.u64("vlanId", 0)


def _packet(out: DictionaryWriter, packet: Packet) -> None:
    out.u64("packetId", packet.packet_id)
    out.u64("packetVerb", packet.verb)
    out.u64("remoteZtAddr", packet.source)
    out.text("remotePhyAddr", str(packet.path.address))
    out.u64("localSocket", packet.path.socket)
