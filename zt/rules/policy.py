"""Policy tests: who may send what to whom, judged by the filter of the data plane itself.

A file of cases is TOML (docs/rules.md, "Testing a policy"). Each case is judged as the network
would: the sender's rules and capabilities first, then the receiver's (chapter 04, 8.9 and 8.10).
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from zt._fast.filter import UNMATCHED, Program, Remote, Verdict
from zt.protocol import rules as tables
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.errors import DecodeError
from zt.rules.compiler import Compiled
from zt.rules.frames import Frame, FrameError, from_capture, from_fields, from_hex
from zt.rules.render import Entry

ReadBytes = Callable[[str], bytes]

_THING_MAC, _THING_IPV4, _THING_IPV6 = 1, 2, 3
_DEFAULT_NETWORK = "8056c2e21c000001"
_DEFAULT_RULE = "no rule decides, so the frame is dropped"


class PolicyError(ValueError):
    """A file of cases that makes no sense; the message names the case or member."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the tested network, with credentials as a controller would give them."""

    name: str
    address: Address
    tags: tuple[tuple[int, int], ...]
    capabilities: tuple[str, ...]
    things: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation: ``expect`` is accept or drop, ``copies`` the observers, None for any."""

    name: str
    sender: Member
    receiver: Member
    frame: Frame
    expect: str
    copies: frozenset[Address] | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one side said and which rule decided; ``line`` is 0 where no rule did."""

    side: str
    passed: bool
    rule: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    verdict: str
    decisions: tuple[Decision, ...]
    copies: frozenset[Address]

    @property
    def ok(self) -> bool:
        copied = self.case.copies is None or self.case.copies == self.copies
        return self.verdict == self.case.expect and copied


class Policy:
    """The cases of one file, for one compiled set of rules."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.base = tuple(_table(entry) for entry in compiled.entries)
        self.capabilities = {
            name: tuple(_table(entry) for entry in entries)
            for name, entries in compiled.capability_entries.items()
        }

    # reading

    def cases(self, document: Mapping[str, Any], read: ReadBytes) -> list[Case]:
        """The cases of a parsed file; ``read`` opens captures. Raises PolicyError."""
        try:
            network = NetworkId.parse(str(document.get("network", _DEFAULT_NETWORK)))
        except DecodeError:
            raise PolicyError("network is 16 hex digits") from None
        members = {
            name: self._member(name, fields)
            for name, fields in _table_of(document, "members").items()
        }
        listed = document.get("case", [])
        if not isinstance(listed, list) or not listed:
            raise PolicyError("there is no [[case]]")
        return [
            self._case(number, fields, members, network, read)
            for number, fields in enumerate(listed, 1)
        ]

    def _member(self, name: str, fields: Any) -> Member:
        if not isinstance(fields, dict):
            raise PolicyError(f"members.{name} is a table with address, tags, capabilities, owns")
        try:
            address = Address.parse(str(fields.get("address", "")))
        except DecodeError:
            raise PolicyError(f"members.{name}: address is 10 hex digits") from None
        capabilities = fields.get("capabilities")
        if capabilities is None:
            defaults = {cap["id"] for cap in self.compiled.config["capabilities"] if cap["default"]}
            by_name = self.compiled.capabilities_by_name
            capabilities = [cap for cap, number in by_name.items() if number in defaults]
        for cap in capabilities:
            if cap not in self.capabilities:
                raise PolicyError(f'members.{name}: there is no capability "{cap}"')
        tags = tuple(sorted(self._tags(name, fields.get("tags", {})).items()))
        things = tuple(_thing(name, thing) for thing in fields.get("owns", []))
        ordered = sorted(capabilities, key=self.compiled.capabilities_by_name.__getitem__)
        return Member(name, address, tags, tuple(ordered), things)

    def _tags(self, member: str, given: Mapping[str, Any]) -> dict[int, int]:
        """Tag values by id: the defaults of the rules, then what the member is given."""
        defined = self.compiled.tags_by_name
        values = {t["id"]: t["default"] for t in defined.values() if t["default"] is not None}
        for name, value in given.items():
            tag = defined.get(name)
            if tag is None:
                raise PolicyError(f'members.{member}: there is no tag "{name}"')
            if isinstance(value, str):
                value = tag["enums"].get(value, tag["flags"].get(value))
            if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
                raise PolicyError(f'members.{member}: no such value of tag "{name}"')
            values[tag["id"]] = value
        return values

    def _case(
        self,
        number: int,
        fields: Any,
        members: Mapping[str, Member],
        network: NetworkId,
        read: ReadBytes,
    ) -> Case:
        name = str(fields.get("name", f"case {number}")) if isinstance(fields, dict) else ""
        if not name:
            raise PolicyError(f"case {number} is no table")
        for side in ("from", "to"):
            if fields.get(side) not in members:
                raise PolicyError(f'"{name}": {side} names no member')
        if fields.get("expect") not in ("accept", "drop"):
            raise PolicyError(f'"{name}": expect is "accept" or "drop"')
        sender, receiver = members[fields["from"]], members[fields["to"]]
        try:
            frame = _frame(fields, sender, receiver, network, read)
            copies = fields.get("copies")
            watched = None if copies is None else frozenset(Address.parse(a) for a in copies)
        except (FrameError, DecodeError, OSError) as wrong:
            raise PolicyError(f'"{name}": {wrong}') from None
        return Case(name, sender, receiver, frame, fields["expect"], watched)

    # judging

    def judge(self, case: Case) -> Result:
        """Runs one case through the filters of both members."""
        sender, receiver = case.sender, case.receiver
        decisions = []
        passes: list[tuple[int, Remote | None, bool]]
        passes = [(int(receiver.address), self._remote(receiver), False)]
        if Mac(case.frame.dest_mac).multicast:
            # A multicast meets the rules once for itself and once for each receiver (12.4).
            passes = [(0, None, False), (passes[0][0], passes[0][1], True)]
        copies: set[Address] = set()
        for dest, remote, no_tee in passes:
            decision, verdict = self._outbound(sender, case.frame, dest, remote, no_tee)
            decisions.append(decision)
            copies |= {Address(copy.address) for copy in verdict.copies}
            if not decision.passed:
                return Result(case, "drop", tuple(decisions), frozenset(copies))
        decision, verdict = self._inbound(receiver, sender, case.frame)
        decisions.append(decision)
        copies |= {Address(copy.address) for copy in verdict.copies}
        outcome = "accept" if decision.passed else "drop"
        return Result(case, outcome, tuple(decisions), frozenset(copies))

    def _outbound(
        self, sender: Member, frame: Frame, dest: int, remote: Remote | None, no_tee: bool
    ) -> tuple[Decision, Verdict]:
        macs = (frame.source_mac, frame.dest_mac, frame.ethertype, frame.payload)

        def run(base: int, capability: tuple[str, int] | None) -> tuple[Verdict, int | None]:
            program = self._program(sender, base, capability)
            traced = program.outbound(dest, *macs, remote, no_tee=no_tee, trace=True)
            return traced.verdict, traced.capability_id

        return self._decide("sender", run, sender)

    def _inbound(self, receiver: Member, sender: Member, frame: Frame) -> tuple[Decision, Verdict]:
        macs = (frame.source_mac, frame.dest_mac, frame.ethertype, frame.payload)

        def run(base: int, capability: tuple[str, int] | None) -> tuple[Verdict, int | None]:
            program = self._program(receiver, base, None)
            remote = self._remote(sender, capability)
            traced = program.inbound(sender.address, *macs, remote, trace=True)
            return traced.verdict, traced.capability_id

        return self._decide("receiver", run, sender)

    def _decide(
        self,
        side: str,
        run: Callable[[int, tuple[str, int] | None], tuple[Verdict, int | None]],
        holder: Member,
    ) -> tuple[Decision, Verdict]:
        """The verdict, and the rule that made it: the first whose presence gives that verdict."""
        whole = len(self.base)
        verdict, capability_id = run(whole, None)
        passed = verdict.result > 0
        if capability_id is not None and passed:
            name = next(
                cap
                for cap in holder.capabilities
                if self.compiled.capabilities_by_name[cap] == capability_id
            )
            entries = self.compiled.capability_entries[name]
            for kept in range(1, len(entries) + 1):
                if entries[kept - 1].is_action and run(whole, (name, kept))[0].result > 0:
                    return _decided(
                        side, passed, entries[kept - 1], f'capability "{name}": '
                    ), verdict
        for kept in range(1, whole + 1):
            if self.compiled.entries[kept - 1].is_action:
                found = run(kept, None)[0]
                if (found.result, found.reason) == (verdict.result, verdict.reason):
                    if verdict.reason == UNMATCHED:
                        break
                    return _decided(side, passed, self.compiled.entries[kept - 1], ""), verdict
        return Decision(side, passed, _DEFAULT_RULE, 0, 0), verdict

    def _program(self, member: Member, base: int, capability: tuple[str, int] | None) -> Program:
        return Program(
            member.address,
            b"".join(self.base[:base]),
            capabilities=self._capabilities(member, capability),
            tags=member.tags,
            things=member.things,
        )

    def _remote(self, member: Member, capability: tuple[str, int] | None = None) -> Remote:
        return Remote(
            capabilities=self._capabilities(member, capability),
            tags=member.tags,
            things=member.things,
        )

    def _capabilities(
        self, member: Member, capability: tuple[str, int] | None
    ) -> list[tuple[int, bytes]]:
        """A member's capabilities; of the one named only its first so many entries."""
        by_name = self.compiled.capabilities_by_name
        if capability:
            name, kept = capability
            return [(by_name[name], b"".join(self.capabilities[name][:kept]))]
        return [(by_name[name], b"".join(self.capabilities[name])) for name in member.capabilities]


def _table(entry: Entry) -> bytes:
    rule = tables.from_json(entry.json)
    return rule.encode() if rule else b""


def _decided(side: str, passed: bool, entry: Entry, where: str) -> Decision:
    return Decision(side, passed, f"{where}{entry.word.text}", entry.word.line, entry.word.column)


def _table_of(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise PolicyError(f"{key} is a table")
    return value


def _thing(member: str, text: Any) -> tuple[int, bytes]:
    """A certified IP or MAC address as (type, bytes) of a certificate of ownership."""
    try:
        ip = ip_address(str(text))
        return (_THING_IPV4 if ip.version == 4 else _THING_IPV6), ip.packed
    except ValueError:
        pass
    try:
        return _THING_MAC, Mac.parse(str(text)).encode()
    except DecodeError:
        raise PolicyError(f"members.{member}: {text!r} is no IP and no MAC address") from None


def _frame(
    fields: Mapping[str, Any],
    sender: Member,
    receiver: Member,
    network: NetworkId,
    read: ReadBytes,
) -> Frame:
    if "hex" in fields:
        return from_hex(str(fields["hex"]))
    if "pcap" in fields:
        index = fields.get("index", 0)
        if not isinstance(index, int) or index < 0:
            raise FrameError("index is the number of a frame, from 0")
        return from_capture(read(str(fields["pcap"])), index)
    described = fields.get("frame", {})
    if not isinstance(described, dict):
        raise FrameError("frame is a table of fields")
    return from_fields(
        described, Mac.of(sender.address, network), Mac.of(receiver.address, network)
    )


def parse(text: str) -> dict[str, Any]:
    """A file of cases as a TOML document. Raises PolicyError with the place of the mistake."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as wrong:
        raise PolicyError(f"this is no TOML: {wrong}") from None
