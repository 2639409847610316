"""Why was this dropped? Live records of drops in both planes, and what others report to us.

Nothing is recorded while nobody listens. The data plane tells of as many drops as it was given
credit for, renewed every `RENEW_S`, so a flood costs no more than a trickle; what it dropped beyond
that is told as a number. For frames that the rules refused the filter is asked once more, with its
log, which rule it was.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zt._fast import filter as verdicts
from zt._fast.filter import Trace
from zt._fast.switch import DROP_REASONS, Punt
from zt.protocol import rules as rule_tables
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.dictionary import Dictionary
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress, ip_text
from zt.service.clock import wall_ms
from zt.vl1.actions import Dropped, RemoteTrace

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

log = logging.getLogger("zt.node")

Record = dict[str, Any]

RENEW_S = 0.25
CREDIT = 100
"""Drops that the data plane tells of per `RENEW_S`."""
REPORT_S = 1.0
BACKLOG = 1000
"""Records that wait for a slow listener; beyond that they are counted only."""
MAX_LISTENERS = 8

OUTBOUND = 0x80
ETHERNET = 14
SIZE = 4  # of the whole, in front of the bytes kept
FRAMES = frozenset(("source_mac", "bridge", "size", "filter"))
"""Inbound reasons whose record holds an Ethernet frame; other ones hold the packet's beginning."""
FILTERED = frozenset(("filter", "filter blocked", "filter blocked (bridge replication)"))


@dataclass(eq=False, slots=True)
class Listener:
    """One stream, and what it asks for: None is everything."""

    nwid: NetworkId | None = None
    peer: Address | None = None
    waiting: asyncio.Queue[Record | None] = field(default_factory=lambda: asyncio.Queue(BACKLOG))

    def wants(self, record: Record) -> bool:
        if self.nwid is not None and record.get("network") != str(self.nwid):
            return False
        return self.peer is None or str(self.peer) in (record.get("peer"), record.get("origin"))


class Tracing:
    """All listeners of one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._listeners: set[Listener] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        return len(self._listeners) >= MAX_LISTENERS

    async def records(self, listener: Listener) -> AsyncIterator[Record]:
        """Records as they come; once a second also how many drops there were besides them."""
        self._listeners.add(listener)
        if len(self._listeners) == 1:
            self._daemon.node.tell_drops(True)
            self._renew()
        before = self._drops()
        due = asyncio.get_running_loop().time() + REPORT_S
        try:
            yield {"event": "listening", "time": wall_ms()}
            while True:
                left = due - asyncio.get_running_loop().time()
                with contextlib.suppress(TimeoutError):
                    record = await asyncio.wait_for(listener.waiting.get(), max(left, 0))
                    if record is None:
                        return
                    yield record
                    continue
                due += REPORT_S
                now = self._drops()
                if counted := now - before:  # those that rose
                    yield {"event": "counted", "time": wall_ms(), "drops": dict(counted)}
                before = now
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._cease()

    def stop(self) -> None:
        """Ends every stream."""
        for listener in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                listener.waiting.put_nowait(None)

    def _cease(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._daemon.switch.tell_drops(0)
        self._daemon.node.tell_drops(False)

    def _renew(self) -> None:
        self._daemon.switch.tell_drops(CREDIT)
        self._timer = asyncio.get_running_loop().call_later(RENEW_S, self._renew)

    def _drops(self) -> Counter[str]:
        """All drops of the data plane so far, by reason."""
        found: Counter[str] = Counter()
        for counters in (self._daemon.switch.counters(), self._daemon.pump.counters()):
            for name, count in counters.items():
                if name.startswith("drop_"):
                    found[name[5:].removesuffix("_in").removesuffix("_out")] += count
        return found

    def _tell(self, record: Record) -> None:
        for listener in self._listeners:
            if listener.wants(record):
                with contextlib.suppress(asyncio.QueueFull):
                    listener.waiting.put_nowait(record)

    # --- what happened ---------------------------------------------------------------------------

    def dropped_by_plane(self, punt: Punt) -> None:
        reason = DROP_REASONS[punt.hops & ~OUTBOUND]
        outbound = bool(punt.hops & OUTBOUND)
        size = int.from_bytes(punt.data[:SIZE], "little")
        data = punt.data[SIZE:]
        record: Record = {"event": "drop", "plane": "data", "reason": reason}
        record |= _head(punt.nwid, punt.address, outbound)
        if punt.ip:
            record["path"] = str(InetAddress(punt.ip, punt.port))
        if outbound or reason in FRAMES:
            # The bytes that were left out count for nothing but the frame's size.
            self._with_frame(record, data.ljust(size, b"\0"), outbound)
        else:
            record["size"] = size
        self._tell(record)

    def dropped_by_node(self, action: Dropped) -> None:
        record: Record = {"event": "drop", "plane": "control", "reason": action.reason}
        record |= _head(action.nwid, action.peer, action.outbound)
        self._with_frame(record, action.frame, action.outbound)
        self._tell(record)

    def remote(self, trace: RemoteTrace) -> None:
        """What a member of a network of ours reports, because the network asks it to."""
        log.debug("trace of %s: %r", trace.origin, trace.data)
        if not self._listeners:
            return
        record: Record = {"event": "remote", "time": wall_ms(), "origin": str(trace.origin)}
        with contextlib.suppress(DecodeError):
            fields = Dictionary.decode(trace.data)
            record["fields"] = {
                name: value.decode("ascii") if value.isascii() else value.hex()
                for name, value in fields.items()
            }
            network = record["fields"].get("networkId")
            if network is not None:
                record["network"] = network
        self._tell(record)

    # --- frames and rules ------------------------------------------------------------------------

    def _with_frame(self, record: Record, frame: bytes, outbound: bool) -> None:
        """Adds what an Ethernet frame tells, and the rule that refused it."""
        if len(frame) < ETHERNET:
            return
        dest, source = Mac.decode(frame[:6]), Mac.decode(frame[6:12])
        ethertype = int.from_bytes(frame[12:14])
        nwid = NetworkId(int(record["network"], 16))
        record |= {"sourceMac": str(source), "destMac": str(dest)}
        record |= {"etherType": f"{ethertype:04x}", "size": len(frame) - ETHERNET}
        record |= _flow(ethertype, frame[ETHERNET:])
        if outbound and "peer" not in record and dest.in_network(nwid):
            record["peer"] = str(dest.address(nwid))
        if record["reason"] in FILTERED:
            self._with_rule(record, nwid, frame, outbound)

    def _with_rule(self, record: Record, nwid: NetworkId, frame: bytes, outbound: bool) -> None:
        node = self._daemon.node
        view = node.network(nwid)
        peer = Address(int(record.get("peer", "0"), 16))
        found = node.judged(nwid, peer, frame, inbound=not outbound)
        if found is None or view is None or view.config is None:
            return
        if found.verdict.reason == verdicts.DROPPED:
            record |= deciding_rule(view.config.rules, found)
        elif found.verdict.reason == verdicts.UNMATCHED:
            record["why"] = "no rule and no capability accepts it"
        else:
            record["why"] = "it would pass now: credentials changed, or the rules are random"


def _head(nwid: int, peer: int, outbound: bool) -> Record:
    record: Record = {"time": wall_ms(), "direction": "tx" if outbound else "rx"}
    if nwid:
        record["network"] = str(NetworkId(nwid))
    if peer:
        record["peer"] = str(Address(peer))
    return record


def _flow(ethertype: int, payload: bytes) -> Record:
    """Addresses, protocol and ports of an IP packet without options or extension headers."""
    if ethertype == 0x0800 and len(payload) >= 24:
        addresses, protocol, rest = payload[12:20], payload[9], payload[(payload[0] & 15) * 4 :]
    elif ethertype == 0x86DD and len(payload) >= 44:
        addresses, protocol, rest = payload[8:40], payload[6], payload[40:]
    else:
        return {}
    half = len(addresses) // 2
    source, dest = ip_text(addresses[:half]), ip_text(addresses[half:])
    if protocol in (6, 17) and len(rest) >= 4:
        name = "tcp" if protocol == 6 else "udp"
        ports = int.from_bytes(rest[:2]), int.from_bytes(rest[2:4])
        return {"flow": f"{name} {source}/{ports[0]} > {dest}/{ports[1]}"}
    return {"flow": f"ip-{protocol} {source} > {dest}"}


# --- the rule log --------------------------------------------------------------------------------


def deciding_rule(table: bytes, found: Trace) -> Record:
    """Which DROP of the base rules a frame met: its index, and its text in the rules language."""
    rules = rule_tables.decode(table)
    begin = 0
    for index, met in enumerate(_met(rules, found.base)):
        if not rules[index].is_action:
            continue
        if met and rules[index].type == rule_tables.RuleType.ACTION_DROP:
            return {"rule": index, "why": _text(rules[begin : index + 1])}
        begin = index + 1
    return {}


def _met(rules: tuple[rule_tables.Rule, ...], log: bytes) -> Iterator[bool]:
    """For each rule whether the matches before it, and itself, hold (ch. 04, 8.2 and 15)."""
    held = True
    for index, rule in enumerate(rules):
        if rule.is_action:
            yield held
            held = True
            continue
        nibble = log[index // 2] >> (index % 2 * 4) & 15 if index // 2 < len(log) else 0
        if nibble >> 2:  # evaluated; skipped ones leave the set as it is
            matched = (nibble >> 2 == 2) != rule.not_
            held = held or matched if rule.or_ else held and matched
        yield held


def _text(rules: tuple[rule_tables.Rule, ...]) -> str:
    # Imported when asked for: the rules language is not needed to run.
    from zt.rules.errors import RuleError
    from zt.rules.explain import explain

    entries = [rule.to_json() for rule in rules]
    try:
        return " ".join(explain({"rules": entries}).split())
    except RuleError:
        return ", ".join(str(entry and entry["type"]) for entry in entries)
