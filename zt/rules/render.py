"""Pass 3: rule sets to JSON entries (chapter 07, sections 8, 10 and 11)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from zt.rules import names, values
from zt.rules.definitions import Program, position, split_call, trailing
from zt.rules.errors import Diagnostic, RuleError
from zt.rules.lexer import Block, Item, Word

ACTIONS = {
    "drop": "ACTION_DROP",
    "accept": "ACTION_ACCEPT",
    "break": "ACTION_BREAK",
    "tee": "ACTION_TEE",
    "watch": "ACTION_WATCH",
    "redirect": "ACTION_REDIRECT",
}

TAG_MATCHES = {
    "tand": "MATCH_TAGS_BITWISE_AND",
    "tor": "MATCH_TAGS_BITWISE_OR",
    "txor": "MATCH_TAGS_BITWISE_XOR",
    "tdiff": "MATCH_TAGS_DIFFERENCE",
    "teq": "MATCH_TAGS_EQUAL",
    "tseq": "MATCH_TAG_SENDER",
    "treq": "MATCH_TAG_RECEIVER",
}

# More entries than any controller keeps; without a bound, macros that include each other twice
# would grow a text of n lines to 2**n entries.
MAX_ENTRIES = 262_144
# Characters put in for parameters, all together: a long value may stand in many places.
MAX_SUBSTITUTED = 4 << 20

# Not anchored on purpose: the reference searches for an address inside the text (D7).
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[0-9]?[0-9])"
_IPV4_SEARCH = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_IPV6_SEARCH = re.compile(
    r"::|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|fe80:%[0-9a-zA-Z]", re.IGNORECASE
)
_ADDRESS = re.compile(r"[0-9a-f]{10}")


class Entry(NamedTuple):
    """One JSON entry of a rule set, and the word it came from."""

    json: dict[str, Any]
    word: Word

    @property
    def is_action(self) -> bool:
        return bool(self.json["type"].startswith("ACTION_"))


class Argument(NamedTuple):
    """An argument: where it stands, and its text after substitution."""

    word: Word
    text: str

    def error(self, code: str, message: str) -> RuleError:
        return self.word.error(code, message)


@dataclass(slots=True)
class _Frame:
    """A list of items being rendered; ``macro`` is None for the base rules and capabilities."""

    items: list[Item]
    parameters: dict[str, str]
    macro: str | None = None
    at: int = 0


Fields = dict[str, Any]


class Renderer:
    """Renders rule sets of one program. Raises RuleError at the first word that is wrong."""

    def __init__(self, program: Program, *, compatible: bool) -> None:
        self.program = program
        self.compatible = compatible
        self.warnings: list[Diagnostic] = []
        self.rendered = 0
        self.substituted = 0

    # statements

    def rules(self, items: list[Item]) -> list[Entry]:
        """The entries of a rule set, with every include expanded."""
        entries: list[Entry] = []
        stack = [_Frame(items, {})]
        active: set[str] = set()  # the macros in the stack
        while stack:
            frame = stack[-1]
            include = self._statements(frame, entries)
            if include is None:
                stack.pop()
                active.discard(frame.macro or "")
            else:
                stack.append(self._include(*include, stack, active))
        return entries

    def _statements(self, frame: _Frame, entries: list[Entry]) -> tuple[Word, Word] | None:
        """Renders up to the next include, and gives its name and keyword; None at the end."""
        items, at, end = frame.items, frame.at, len(frame.items)
        while at < end:
            word = position(items[at])
            keyword = word.text.lower() if word is items[at] else ""
            at += 1
            if keyword in ACTIONS:
                self._count(word)
                body: list[Item] = []
                if at < end and isinstance(block := items[at], Block):
                    body = block.items
                    at += 1
                self._action(word, keyword, body, frame.parameters, entries)
            elif keyword == "include":
                self._count(word)
                if at == end:
                    raise word.error("E20", "include needs the name of a macro")
                frame.at = at + 1
                return position(items[at]), word
            else:
                raise word.error("E28", f'"{word.text}" is no action and no include')
        return None

    def _count(self, word: Word) -> None:
        self.rendered += 1
        if self.rendered > MAX_ENTRIES:
            raise word.error(
                "E90", f"more than {MAX_ENTRIES} entries; do macros include each other?"
            )

    def _include(self, word: Word, include: Word, stack: list[_Frame], active: set[str]) -> _Frame:
        name, pieces = split_call(word.text)
        if self.compatible and name in names.JAVASCRIPT_MEMBERS:
            raise RuleError("E90", 0, 0, f'"{name}" is no macro')
        macro = self.program.macros.get(name)
        if macro is None:
            raise word.error("E21", f'there is no macro "{name}"')
        if name in active:
            if self.compatible:
                raise RuleError("E90", 0, 0, f'macro "{name}" includes itself')
            open_macros = [frame.macro for frame in stack if frame.macro]
            chain = " -> ".join([*open_macros[open_macros.index(name) :], name])
            raise include.error(
                "D13", f"a macro includes itself: {chain}; leave one of these includes out"
            )
        active.add(name)
        parameters: dict[str, str] = {}
        if macro.parameters:
            given = [piece for piece in pieces if piece]
            if max(macro.parameters.values()) >= len(given):
                raise word.error(
                    "E22",
                    f'macro "{name}" needs {len(macro.parameters)} values, {len(given)} are given',
                )
            parameters = {
                parameter: given[number] for parameter, number in macro.parameters.items()
            }
        return _Frame(macro.body, parameters, name)

    def _action(
        self,
        action: Word,
        kind: str,
        body: list[Item],
        parameters: dict[str, str],
        entries: list[Entry],
    ) -> None:
        entry: dict[str, Any] = {"type": ACTIONS[kind]}
        if kind in ("tee", "watch"):
            length, address = self._copy_arguments(action, body, parameters)
            entry |= {"address": address, "length": length}
            body = body[2:]
        elif kind == "redirect":
            if not body:
                raise action.error("E27", "redirect needs a node address")
            entry["address"] = self._target(body[0], parameters, "E26", "redirect")
            body = body[1:]
        if body:
            self._matches(body, parameters, entries)
        entries.append(Entry(entry, action))

    def _copy_arguments(
        self, action: Word, body: list[Item], parameters: dict[str, str]
    ) -> tuple[int, str]:
        """The length and target of tee and watch."""
        if not body:
            raise action.error(
                "E25", f"{action.folded} needs a length (0 for all) and a node address"
            )
        first = position(body[0])
        if len(body) < 2:
            if self.compatible:
                raise RuleError("E90", 0, 0, f"{action.folded} with one argument")
            raise first.error("E24", f"{action.folded} needs a node address behind the length")
        argument = self._substitute(first, parameters)
        length = self._integer(argument)
        if not self.compatible and length == -1 and argument.text != "-1":
            raise first.error(
                "D9",
                f'"{argument.text}" is no length: write a number of bytes, or 0 for whole frames',
            )
        if not -1 <= length <= 0xFFFF:
            # The reference takes the line of one word and the column of the other (D15).
            column = position(body[1]).column if self.compatible else first.column
            raise RuleError("E23", first.line, column, f"length {length} is outside -1 to 65535")
        return length, self._target(body[1], parameters, "E24", action.folded)

    def _target(self, item: Item, parameters: dict[str, str], code: str, action: str) -> str:
        """A node address of an action: ten characters, in safe mode hex digits (D10)."""
        word = position(item)
        text = word.text if isinstance(item, Word) else ""
        if self.compatible:
            if len(text.encode("utf-16-le", "surrogatepass")) != 20:
                raise word.error(code, f'"{text}" is no node address for {action} (10 hex digits)')
            return text
        address = self._substitute(word, parameters).text.lower() if text else ""
        if not _ADDRESS.fullmatch(address):
            defect = "D10" if len(address) == 10 else code
            raise word.error(
                defect, f'"{address}" is no node address for {action}: write its 10 hex digits'
            )
        if text.startswith("$"):
            self._warn("D11", word, f"the reference does not fill in {text}: write its value")
        elif text != address:
            self._warn("D10", word, f'the reference would keep the capitals: write "{address}"')
        return address

    # matches

    def _matches(self, body: list[Item], parameters: dict[str, str], entries: list[Entry]) -> None:
        negated = alternative = False
        at = 0
        while at < len(body):
            word = position(body[at])
            keyword = word.text.lower() if word is body[at] else ""
            at += 1
            if keyword in ("and", "or", "not"):
                negated |= keyword == "not"
                alternative |= keyword == "or"
                continue
            if self.compatible and keyword in names.JAVASCRIPT_MEMBERS:
                return  # the reference takes it for a match of unlimited arguments (D18)
            if keyword not in _MATCHES:
                raise word.error("E01", f'"{keyword or word.text}" is no match')
            count, render = _MATCHES[keyword]
            arguments = []
            for before in range(at - 1, at - 1 + count):
                if before + 1 >= len(body):
                    raise position(body[-1]).error("E02", f"{keyword} needs {count} argument(s)")
                arguments.append(
                    self._argument(keyword, position(body[before]), body[before + 1], parameters)
                )
            at += count
            self._count(word)
            fields = render(self, keyword, arguments)
            kind = fields.pop("type")
            entries.append(Entry({"type": kind, "not": negated, "or": alternative, **fields}, word))
            negated = alternative = False

    def _argument(
        self, keyword: str, before: Word, item: Item, parameters: dict[str, str]
    ) -> Argument:
        word = position(item)
        allowed = not self.compatible and keyword == "ipprotocol" and word.text == "icmp"
        if allowed:
            self._warn("D12", word, 'the reference refuses "icmp" here: write "icmp4" for both')
        elif names.reserved(word.text, compatible=self.compatible):
            raise before.error("E03", f'"{word.text}" is a reserved word and cannot be an argument')
        return self._substitute(word, parameters)

    def _substitute(self, word: Word, parameters: dict[str, str]) -> Argument:
        if not word.text.startswith("$"):
            return Argument(word, word.text)
        # In compatible mode only matches come here with a "$" that means something (D11).
        if word.text not in parameters:
            raise word.error("E04", f'"{word.text}" is no parameter here')
        value = parameters[word.text]
        self.substituted += len(value)
        if self.substituted > MAX_SUBSTITUTED:
            raise word.error("E90", "the values of macros add up to too much text")
        return Argument(word, value)

    def _warn(self, code: str, word: Word, message: str) -> None:
        self.warnings.append(word.warning(code, message))

    # values

    def _integer(self, argument: Argument) -> int:
        try:
            return values.integer(argument.text, strict=not self.compatible)
        except values.Trailing:
            raise trailing(argument.word, argument.text) from None

    def _bounded(self, argument: Argument, code: str, limit: int, what: str) -> int:
        value = self._integer(argument)
        if not 0 <= value <= limit:
            raise argument.error(code, f'"{argument.text}" is no {what} (0 to {limit})')
        return value

    def _span(self, argument: Argument, code: str, limit: int) -> Fields:
        try:
            start, end = values.span(argument.text, strict=not self.compatible)
        except values.Trailing:
            raise trailing(argument.word, argument.text) from None
        if not 0 <= start <= end <= limit:
            raise argument.error(
                code, f'"{argument.text}" is no number or range (0 to {limit}, low-high)'
            )
        return {"start": start, "end": end}

    def node_address(self, keyword: str, arguments: list[Argument]) -> Fields:
        digits = values.hex_digits(arguments[0].text)
        if len(digits) != 10:
            raise arguments[0].error(
                "E05", f'"{arguments[0].text}" is no node address (10 hex digits)'
            )
        side = "SOURCE" if keyword == "ztsrc" else "DEST"
        return {"type": f"MATCH_{side}_ZEROTIER_ADDRESS", "zt": digits}

    def number(self, keyword: str, arguments: list[Argument]) -> Fields:
        kind, field_name, table = _NUMBERS[keyword]
        value = table.get(arguments[0].text)
        if value is None:
            value = self._bounded(arguments[0], "E06", values.UINT32, "value")
        return {"type": kind, field_name: value}

    def mac(self, keyword: str, arguments: list[Argument]) -> Fields:
        try:
            address = values.mac(arguments[0].text, strict=not self.compatible)
        except values.Trailing:
            raise arguments[0].error(
                "D8",
                f'"{arguments[0].text}" has more than 12 hex digits: '
                f'write "{values.mac(arguments[0].text)}"',
            ) from None
        if address is None:
            raise arguments[0].error(
                "E07", f'"{arguments[0].text}" is no MAC address (12 hex digits)'
            )
        return {
            "type": "MATCH_MAC_SOURCE" if keyword == "macsrc" else "MATCH_MAC_DEST",
            "mac": address,
        }

    def network(self, keyword: str, arguments: list[Argument]) -> Fields:
        argument = arguments[0]
        address, slash, _ = argument.text.partition("/")
        if not slash or not address:
            raise argument.error(
                "E08", f'"{argument.text}" needs a prefix length, as in 10.0.0.0/8'
            )
        if _IPV6_SEARCH.search(address):
            family = 6
        elif _IPV4_SEARCH.search(address):
            family = 4
        else:
            raise argument.error("E09", f'"{argument.text}" is no IPv4 or IPv6 network')
        if not self.compatible:
            self._strict_network(argument, family)
        side = "SOURCE" if keyword == "ipsrc" else "DEST"
        return {"type": f"MATCH_IPV{family}_{side}", "ip": argument.text}

    def _strict_network(self, argument: Argument, family: int) -> None:
        address, _, prefix = argument.text.rpartition("/")
        bits = 128 if family == 6 else 32
        try:
            _ = IPv6Address(address) if family == 6 else IPv4Address(address)
            good = prefix.isascii() and prefix.isdigit() and int(prefix) <= bits
        except ValueError:
            good = False
        if not good or "%" in address:
            raise argument.error(
                "D7",
                f'"{argument.text}" is no network: '
                f"write {'fd00::/8' if family == 6 else '10.0.0.0/8'} or the like",
            )

    def tos(self, keyword: str, arguments: list[Argument]) -> Fields:
        mask = self._bounded(arguments[0], "E13", 255, "TOS mask")
        return {"type": "MATCH_IP_TOS", "mask": mask, **self._span(arguments[1], "E14", 255)}

    def icmp(self, keyword: str, arguments: list[Argument]) -> Fields:
        kind = self._bounded(arguments[0], "E10", 255, "ICMP type")
        code = self._integer(arguments[1])
        if code == -1 and not self.compatible and arguments[1].text != "-1":
            raise arguments[1].error(
                "D8", f'"{arguments[1].text}" is no ICMP code: write -1 for any code'
            )
        if code > 255:
            raise arguments[1].error("E11", f'"{arguments[1].text}" is no ICMP code (-1 for any)')
        return {"type": "MATCH_ICMP", "icmpType": kind, "icmpCode": code if code >= 0 else None}

    def port_range(self, keyword: str, arguments: list[Argument]) -> Fields:
        return {"type": _RANGES[keyword], **self._span(arguments[0], "E12", 0xFFFF)}

    def characteristics(self, keyword: str, arguments: list[Argument]) -> Fields:
        argument = arguments[0]
        mask = 0
        for piece in argument.text.split(","):
            if not piece:
                continue
            bit = names.CHARACTERISTICS.get(piece)
            if bit is None:
                bit = self._integer(Argument(argument.word, piece))
            if not 0 <= bit <= 63:
                raise argument.error("E15", f'"{piece}" is no characteristic and no bit (0 to 63)')
            mask |= 1 << bit
        written = _reference_mask(mask)
        if written != mask:
            if self.compatible:
                mask = written
            else:
                self._warn(
                    "D3",
                    argument.word,
                    f"the reference would write {written:016x}: write one chr match a bit, "
                    "joined by or, for both",
                )
        return {"type": "MATCH_CHARACTERISTICS", "mask": f"{mask:016x}"}

    def random(self, keyword: str, arguments: list[Argument]) -> Fields:
        value, whole = values.real(arguments[0].text)
        if not whole or not 0 <= value <= 1:
            # Never an error, in either mode (section 11).
            self._warn(
                "L7",
                arguments[0].word,
                f'"{arguments[0].text}" is read as {value:g}: write a number from 0 to 1',
            )
        return {"type": "MATCH_RANDOM", "probability": values.probability(value)}

    def tag(self, keyword: str, arguments: list[Argument]) -> Fields:
        first, second = arguments
        tag = self.program.tags.get(first.text)
        if tag:
            tag_id = tag.id
        else:
            tag_id = self._integer(first)
            if not 0 <= tag_id <= values.UINT32:
                raise first.error("E16", f'"{first.text}" is no tag and no tag id')
        value = tag.value(second.text) if tag else None
        if value is None:
            value = self._integer(second)
        if not 0 <= value <= values.UINT32:
            where = f'tag "{tag.name}"' if tag else "a tag given by number"
            raise second.error("E17", f'"{second.text}" is no value, flag or enum of {where}')
        return {"type": TAG_MATCHES[keyword], "id": tag_id, "value": value}


def _reference_mask(mask: int) -> int:
    """The mask as the reference writes it: halves with their top bit set come out negated (D3)."""

    def half(value: int) -> int:
        return (1 << 32) - value if value & 0x80000000 else value

    return half(mask >> 32) << 32 | half(mask & values.UINT32)


_NUMBERS: dict[str, tuple[str, str, dict[str, int]]] = {
    "vlan": ("MATCH_VLAN_ID", "vlanId", {}),
    "vlanpcp": ("MATCH_VLAN_PCP", "vlanPcp", {}),
    "vlandei": ("MATCH_VLAN_DEI", "vlanDei", {}),
    "ethertype": ("MATCH_ETHERTYPE", "etherType", names.ETHERTYPES),
    "ipprotocol": ("MATCH_IP_PROTOCOL", "ipProtocol", names.IP_PROTOCOLS),
}

_RANGES = {
    "sport": "MATCH_IP_SOURCE_PORT_RANGE",
    "dport": "MATCH_IP_DEST_PORT_RANGE",
    "framesize": "MATCH_FRAME_SIZE_RANGE",
}

_Render = Callable[[Renderer, str, list[Argument]], Fields]

# Match word: number of arguments, and what renders its fields.
_MATCHES: dict[str, tuple[int, _Render]] = {
    "ztsrc": (1, Renderer.node_address),
    "ztdest": (1, Renderer.node_address),
    **dict.fromkeys(_NUMBERS, (1, Renderer.number)),
    "macsrc": (1, Renderer.mac),
    "macdest": (1, Renderer.mac),
    "ipsrc": (1, Renderer.network),
    "ipdest": (1, Renderer.network),
    "iptos": (2, Renderer.tos),
    "icmp": (2, Renderer.icmp),
    **dict.fromkeys(_RANGES, (1, Renderer.port_range)),
    "chr": (1, Renderer.characteristics),
    "random": (1, Renderer.random),
    **dict.fromkeys(TAG_MATCHES, (2, Renderer.tag)),
}


def argument_count(keyword: str) -> int:
    """How many arguments a match word takes; -1 for a word that is no match."""
    return _MATCHES[keyword][0] if keyword in _MATCHES else -1
