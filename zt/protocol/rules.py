"""Rule tables: binary, as values, and as the controller's JSON (chapter 04, 8.1; chapter 05, 7).

A *table* is the canonical binary form, ``bytes``: what configurations and capabilities carry and
what the filter compiles. `Rule` is one entry as a value.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from zt.protocol import coerce
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.protocol.wire import Reader

NOT = 0x80
OR = 0x40
TYPE_MASK = 0x3F
FIRST_MATCH = 16
"""Types below are actions."""


class RuleType(IntEnum):
    """The names are those of the JSON form."""

    ACTION_DROP = 0
    ACTION_ACCEPT = 1
    ACTION_TEE = 2
    ACTION_WATCH = 3
    ACTION_REDIRECT = 4
    ACTION_BREAK = 5
    ACTION_PRIORITY = 6
    MATCH_SOURCE_ZEROTIER_ADDRESS = 24
    MATCH_DEST_ZEROTIER_ADDRESS = 25
    MATCH_VLAN_ID = 26
    MATCH_VLAN_PCP = 27
    MATCH_VLAN_DEI = 28
    MATCH_MAC_SOURCE = 29
    MATCH_MAC_DEST = 30
    MATCH_IPV4_SOURCE = 31
    MATCH_IPV4_DEST = 32
    MATCH_IPV6_SOURCE = 33
    MATCH_IPV6_DEST = 34
    MATCH_IP_TOS = 35
    MATCH_IP_PROTOCOL = 36
    MATCH_ETHERTYPE = 37
    MATCH_ICMP = 38
    MATCH_IP_SOURCE_PORT_RANGE = 39
    MATCH_IP_DEST_PORT_RANGE = 40
    MATCH_CHARACTERISTICS = 41
    MATCH_FRAME_SIZE_RANGE = 42
    MATCH_RANDOM = 43
    MATCH_TAGS_DIFFERENCE = 44
    MATCH_TAGS_BITWISE_AND = 45
    MATCH_TAGS_BITWISE_OR = 46
    MATCH_TAGS_BITWISE_XOR = 47
    MATCH_TAGS_EQUAL = 48
    MATCH_TAG_SENDER = 49
    MATCH_TAG_RECEIVER = 50
    INTEGER_RANGE = 51


class Rule(NamedTuple):
    """One entry. ``values`` are its operands in wire order; numbers, except MACs and IPs: bytes.

    Types without a member in `RuleType` carry no values.
    """

    type: int
    values: tuple[Any, ...] = ()
    not_: bool = False
    or_: bool = False

    @property
    def is_action(self) -> bool:
        return self.type < FIRST_MATCH

    def encode(self) -> bytes:
        form = _FORMS.get(self.type)
        t = self.type | (NOT if self.not_ else 0) | (OR if self.or_ else 0)
        if form is None:
            return bytes((t, 0))
        return bytes((t, form.layout.size)) + form.layout.pack(*self.values)

    def to_json(self) -> dict[str, Any] | None:
        """The controller's JSON object; None for entries that have no JSON form."""
        form = _FORMS.get(self.type)
        if form is None:
            return None
        rule: dict[str, Any] = {"type": RuleType(self.type).name}
        if not self.is_action:
            rule |= {"not": self.not_, "or": self.or_}
        return rule | form.render(*self.values)


def from_json(rule: object) -> Rule | None:
    """A rule from a controller's JSON object; None if the object is no rule that JSON can express.

    :raises DecodeError: a characteristics mask that is neither number nor text.
    """
    if not isinstance(rule, Mapping):
        return None
    name = coerce.text(rule.get("type"))
    if name not in _FROM_JSON:
        return None
    kind = RuleType[name]
    return Rule(
        kind,
        _FORMS[kind].parse(rule),
        coerce.boolean(rule.get("not")),
        coerce.boolean(rule.get("or")),
    )


def encode(rules: Iterable[Rule]) -> bytes:
    """The table of these rules."""
    return b"".join(rule.encode() for rule in rules)


def decode(table: bytes) -> tuple[Rule, ...]:
    """The rules of a table, canonical or not.

    :raises DecodeError: an operand runs past the end.
    """
    rules = []
    reader = Reader(read(Reader(table)))
    while reader.remaining:
        t = reader.u8()
        form = _FORMS.get(t & TYPE_MASK)
        reader.skip(1)
        values = reader.unpack(form.layout) if form else ()
        rules.append(Rule(t & TYPE_MASK, values, bool(t & NOT), bool(t & OR)))
    return tuple(rules)


def count(table: bytes) -> int:
    """How many rules a canonical table holds."""
    n = offset = 0
    while offset < len(table):
        offset += 2 + table[offset + 1]
        n += 1
    return n


def read(reader: Reader, limit: int | None = None) -> bytes:
    """The canonical table of up to ``limit`` entries, as many as there are before the end.

    Operands are taken from where they belong whatever length an entry declares, the next entry
    begins where the length says.

    :raises DecodeError: an operand runs past the end.
    """
    data = reader.data
    offset = reader.offset
    end = len(data)
    table = bytearray()
    while offset < end and limit != 0:
        if offset + 2 > end:
            raise DecodeError("rule without length")
        t = data[offset]
        kind = t & TYPE_MASK
        size = _SIZES[kind]
        if offset + 2 + size > end:
            raise DecodeError(f"rule of type {kind} runs past the end")
        operands = data[offset + 2 : offset + 2 + size]
        if kind == RuleType.INTEGER_RANGE:
            operands = _canonical_range(operands)
        table += bytes((t, size))
        table += operands
        offset += 2 + data[offset + 1]
        if limit is not None:
            limit -= 1
    reader.offset = min(offset, end)
    return bytes(table)


_INTEGER_RANGE = Struct(">QQHB")


def _canonical_range(operands: bytes) -> bytes:
    """A range is held as start and a 32-bit width; wider or reversed ones lose their upper bits."""
    start, end, index, form = _INTEGER_RANGE.unpack(operands)
    width = (end - start) & 0xFFFF_FFFF
    return _INTEGER_RANGE.pack(start, (start + width) & 0xFFFF_FFFF_FFFF_FFFF, index, form)


# JSON forms: each renders operands to keys, and parses an object to operands.

_Json = Mapping[str, Any]


class _Form(NamedTuple):
    layout: Struct
    render: Callable[..., dict[str, Any]]
    parse: Callable[[_Json], tuple[Any, ...]]


def _numbers(layout: str, *names: str) -> _Form:
    """Plain unsigned numbers under these keys, masked to their width."""
    struct = Struct(">" + layout)
    masks = [(1 << 8 * Struct(">" + code).size) - 1 for code in layout]
    return _Form(
        struct,
        lambda *values: dict(zip(names, values, strict=True)),
        lambda rule: tuple(
            coerce.integer(rule.get(name)) & mask for name, mask in zip(names, masks, strict=True)
        ),
    )


def _range_form() -> _Form:
    def parse(rule: _Json) -> tuple[int, int]:
        start = coerce.integer(rule.get("start")) & 0xFFFF
        return start, coerce.integer(rule.get("end"), start) & 0xFFFF

    return _numbers("HH", "start", "end")._replace(parse=parse)


def _copy_form(has_length: bool) -> _Form:
    """TEE, WATCH, REDIRECT; the last has its length on the wire only."""

    def render(address: int, flags: int, length: int) -> dict[str, Any]:
        rule = {"address": str(Address(address & 0xFF_FFFF_FFFF)), "flags": flags}
        return rule | {"length": length} if has_length else rule

    def parse(rule: _Json) -> tuple[int, int, int]:
        return (
            coerce.hexadecimal(rule.get("address")) & 0xFF_FFFF_FFFF,
            coerce.integer(rule.get("flags")) & 0xFFFF_FFFF,
            coerce.integer(rule.get("length")) & 0xFFFF if has_length else 0,
        )

    return _Form(Struct(">QIH"), render, parse)


def _address_form() -> _Form:
    def parse(rule: _Json) -> tuple[bytes]:
        return ((coerce.hexadecimal(rule.get("zt")) & 0xFF_FFFF_FFFF).to_bytes(5),)

    return _Form(Struct(">5s"), lambda address: {"zt": address.hex()}, parse)


def _mac_form() -> _Form:
    def parse(rule: _Json) -> tuple[bytes]:
        digits = coerce.text(rule.get("mac")).replace(":", "").replace("-", "")
        digits = "".join(c if c in "0123456789abcdefABCDEF" else "0" for c in digits[:12])
        return (bytes.fromhex(digits.ljust(12, "0")),)

    return _Form(Struct(">6s"), lambda mac: {"mac": mac.hex(":")}, parse)


def _ip_form(size: int) -> _Form:
    def render(ip: bytes, bits: int) -> dict[str, Any]:
        return {"ip": str(InetAddress(ip, bits))}

    def parse(rule: _Json) -> tuple[bytes, int]:
        address = coerce.ip(rule.get("ip")) or InetAddress(bytes(size))
        ip = address.ip if len(address.ip) == size else bytes(size)
        return ip, min(address.bits & 0xFF, 8 * size)

    return _Form(Struct(f">{size}sB"), render, parse)


def _icmp_form() -> _Form:
    def render(icmp_type: int, code: int, flags: int) -> dict[str, Any]:
        return {"icmpType": icmp_type, "icmpCode": code if flags & 1 else None}

    def parse(rule: _Json) -> tuple[int, int, int]:
        icmp_type = coerce.integer(rule.get("icmpType")) & 0xFF
        code = rule.get("icmpCode")
        return (icmp_type, 0, 0) if code is None else (icmp_type, coerce.integer(code) & 0xFF, 1)

    return _Form(Struct(">BBB"), render, parse)


def _characteristics_form() -> _Form:
    def parse(rule: _Json) -> tuple[int]:
        mask = rule.get("mask", 0)
        if isinstance(mask, str):
            return (coerce.hexadecimal(mask),)
        if isinstance(mask, bool) or not isinstance(mask, (int, float)):
            raise DecodeError("characteristics mask is neither number nor text")
        return (coerce.integer(mask),)

    return _Form(Struct(">Q"), lambda mask: {"mask": f"{mask:016x}"}, parse)


def _integer_range_form() -> _Form:
    def render(start: int, end: int, index: int, form: int) -> dict[str, Any]:
        return {
            "start": f"{start:016x}",
            "end": f"{end:016x}",
            "idx": index,
            "bits": (form & 0x3F) + 1,
            "little": bool(form & 0x80),
        }

    def parse(rule: _Json) -> tuple[int, int, int, int]:
        raise NotImplementedError("the JSON form is rendered only")

    return _Form(_INTEGER_RANGE, render, parse)


_NO_OPERANDS = _numbers("")
_TAG = _numbers("II", "id", "value")

_FORMS: dict[int, _Form] = {
    RuleType.ACTION_DROP: _NO_OPERANDS,
    RuleType.ACTION_ACCEPT: _NO_OPERANDS,
    RuleType.ACTION_TEE: _copy_form(has_length=True),
    RuleType.ACTION_WATCH: _copy_form(has_length=True),
    RuleType.ACTION_REDIRECT: _copy_form(has_length=False),
    RuleType.ACTION_BREAK: _NO_OPERANDS,
    RuleType.MATCH_SOURCE_ZEROTIER_ADDRESS: _address_form(),
    RuleType.MATCH_DEST_ZEROTIER_ADDRESS: _address_form(),
    RuleType.MATCH_VLAN_ID: _numbers("H", "vlanId"),
    RuleType.MATCH_VLAN_PCP: _numbers("B", "vlanPcp"),
    RuleType.MATCH_VLAN_DEI: _numbers("B", "vlanDei"),
    RuleType.MATCH_MAC_SOURCE: _mac_form(),
    RuleType.MATCH_MAC_DEST: _mac_form(),
    RuleType.MATCH_IPV4_SOURCE: _ip_form(4),
    RuleType.MATCH_IPV4_DEST: _ip_form(4),
    RuleType.MATCH_IPV6_SOURCE: _ip_form(16),
    RuleType.MATCH_IPV6_DEST: _ip_form(16),
    RuleType.MATCH_IP_TOS: _numbers("BBB", "mask", "start", "end"),
    RuleType.MATCH_IP_PROTOCOL: _numbers("B", "ipProtocol"),
    RuleType.MATCH_ETHERTYPE: _numbers("H", "etherType"),
    RuleType.MATCH_ICMP: _icmp_form(),
    RuleType.MATCH_IP_SOURCE_PORT_RANGE: _range_form(),
    RuleType.MATCH_IP_DEST_PORT_RANGE: _range_form(),
    RuleType.MATCH_CHARACTERISTICS: _characteristics_form(),
    RuleType.MATCH_FRAME_SIZE_RANGE: _range_form(),
    RuleType.MATCH_RANDOM: _numbers("I", "probability"),
    **dict.fromkeys(range(RuleType.MATCH_TAGS_DIFFERENCE, RuleType.MATCH_TAG_RECEIVER + 1), _TAG),
    RuleType.INTEGER_RANGE: _integer_range_form(),
}

_SIZES = [_FORMS[t].layout.size if t in _FORMS else 0 for t in range(TYPE_MASK + 1)]

# A priority has no JSON form; an integer range is rendered and never accepted.
_FROM_JSON = frozenset(RuleType(t).name for t in _FORMS) - {RuleType.INTEGER_RANGE.name}
