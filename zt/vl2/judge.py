"""Asking the filter, and sending the copies that a verdict calls for (chapter 04, 8.9 and 8.10)."""

from zt._fast import filter as rules
from zt._fast.filter import Verdict
from zt.protocol.address import Address
from zt.protocol.messages import ExtFrame
from zt.protocol.packet import Verb
from zt.vl2.context import Context
from zt.vl2.ethernet import Ethernet
from zt.vl2.network import Network
from zt.vl2.trace import LEVEL_RULES, Tracer

MAX_FRAME = 9986
MAX_EXT_FRAME = 9973
MAX_MULTICAST_FRAME = 9965
"""Largest payload that fits a packet of each kind (Q1)."""

_REASONS = {
    rules.ACCEPTED: "accepted",
    rules.DROPPED: "dropped",
    rules.UNMATCHED: "unmatched",
    rules.REDIRECTED: "redirected",
}


class Judge:
    """The rules of all networks, for frames that Python handles."""

    def __init__(self, context: Context, tracer: Tracer) -> None:
        self._context = context
        self._tracer = tracer

    def outbound(
        self,
        network: Network,
        dest: Address,
        frame: Ethernet,
        now_ms: int,
        *,
        no_tee: bool = False,
    ) -> bool:
        """May this frame go to the member (0: not known yet)?"""
        if network.program is None:
            return False
        log = network.program.outbound(
            dest,
            frame.source,
            frame.dest,
            frame.ethertype,
            frame.payload,
            network.remotes.get(dest),
            no_tee=no_tee,
            random=self._context.random_word(),
            trace=True,
        )
        self._finish(network, "tx", log.verdict, frame, now_ms)
        if self._tracer.wants(network, LEVEL_RULES):
            self._tracer.filtered(
                network, log, self._context.us, dest, frame, now_ms, inbound=False, no_tee=no_tee
            )
        return bool(log.verdict.result)

    def inbound(self, network: Network, source: Address, frame: Ethernet, now_ms: int) -> int:
        """0 drop, 1 accept, 2 accept past the MAC checks."""
        if network.program is None:
            return 0
        log = network.program.inbound(
            source,
            frame.source,
            frame.dest,
            frame.ethertype,
            frame.payload,
            network.remotes.get(source),
            random=self._context.random_word(),
            trace=True,
        )
        self._finish(network, "rx", log.verdict, frame, now_ms)
        if self._tracer.wants(network, LEVEL_RULES):
            self._tracer.filtered(
                network, log, source, self._context.us, frame, now_ms, inbound=True
            )
        return log.verdict.result

    def _finish(
        self, network: Network, direction: str, verdict: Verdict, frame: Ethernet, now_ms: int
    ) -> None:
        if verdict.reason in (rules.ACCEPTED, rules.REDIRECTED):
            network.accepted[direction] += 1
        elif verdict.reason == rules.UNMATCHED:
            network.dropped[direction] += 1
        self._context.counters[f"filter.{direction}.{_REASONS[verdict.reason]}"] += 1
        for copy in verdict.copies:
            payload = frame.payload[: min(copy.length, MAX_EXT_FRAME)]
            packet = ExtFrame(
                network.nwid, frame.dest, frame.source, frame.ethertype, payload, copy.flags
            )
            self._context.vl1.send(
                Address(copy.address), Verb.EXT_FRAME, packet.encode(), now_ms, compress=True
            )
