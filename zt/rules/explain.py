"""JSON rules back to text: compiled again, the text gives the same JSON.

Source: docs/protocol/07, sections 10 to 13. What the language has no words for (QoS priorities,
integer ranges, matches without an action behind them, action flags) is refused by name.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from zt.rules import names, values
from zt.rules.errors import RuleError
from zt.rules.names import well_formed
from zt.rules.render import ACTIONS, TAG_MATCHES

_ACTION_WORDS = {kind: word for word, kind in ACTIONS.items()}
_TAG_WORDS = {kind: word for word, kind in TAG_MATCHES.items()}
_ETHERTYPE_NAMES = {value: name for name, value in names.ETHERTYPES.items()}
# Of several names for one number the first that is no reserved word.
_PROTOCOL_NAMES = {
    value: name for name, value in reversed(names.IP_PROTOCOLS.items()) if name != "icmp"
}
_CHARACTERISTIC_NAMES = {bit: name for name, bit in names.CHARACTERISTICS.items()}

Json = Mapping[str, Any]


def _refuse(message: str) -> RuleError:
    return RuleError("E92", 0, 0, message)


def _span(entry: Json) -> str:
    start, end = entry["start"], entry.get("end", entry["start"])
    return f"{start}" if start == end else f"{start}-{end}"


def _probability(entry: Json) -> str:
    number = int(entry["probability"])
    for digits in range(1, 18):
        text = (
            f"{(number + 0.5) / 4294967295:.{digits}g}"
            if 0 < number < values.UINT32
            else str(number // values.UINT32)
        )
        if values.probability(float(text)) == number:
            return text
    raise _refuse(f"no text gives probability {number}")


def _characteristics(entry: Json) -> str:
    mask = entry["mask"]
    mask = int(mask, 16) if isinstance(mask, str) else int(mask)
    bits = [_CHARACTERISTIC_NAMES.get(bit, str(bit)) for bit in range(64) if mask >> bit & 1]
    return ",".join(bits) or ","


def _icmp(entry: Json) -> str:
    code = entry.get("icmpCode")
    return f"{entry['icmpType']} {-1 if code is None else code}"


def _named(field: str, table: Mapping[int, str]) -> Callable[[Json], str]:
    return lambda entry: str(table.get(entry[field], entry[field]))


def _plain(field: str) -> Callable[[Json], str]:
    return lambda entry: str(entry[field])


_MATCH_TEXTS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "MATCH_SOURCE_ZEROTIER_ADDRESS": ("ztsrc", _plain("zt")),
    "MATCH_DEST_ZEROTIER_ADDRESS": ("ztdest", _plain("zt")),
    "MATCH_VLAN_ID": ("vlan", _plain("vlanId")),
    "MATCH_VLAN_PCP": ("vlanpcp", _plain("vlanPcp")),
    "MATCH_VLAN_DEI": ("vlandei", _plain("vlanDei")),
    "MATCH_ETHERTYPE": ("ethertype", _named("etherType", _ETHERTYPE_NAMES)),
    "MATCH_MAC_SOURCE": ("macsrc", _plain("mac")),
    "MATCH_MAC_DEST": ("macdest", _plain("mac")),
    "MATCH_IPV4_SOURCE": ("ipsrc", _plain("ip")),
    "MATCH_IPV6_SOURCE": ("ipsrc", _plain("ip")),
    "MATCH_IPV4_DEST": ("ipdest", _plain("ip")),
    "MATCH_IPV6_DEST": ("ipdest", _plain("ip")),
    "MATCH_IP_TOS": ("iptos", lambda entry: f"{entry['mask']} {_span(entry)}"),
    "MATCH_IP_PROTOCOL": ("ipprotocol", _named("ipProtocol", _PROTOCOL_NAMES)),
    "MATCH_ICMP": ("icmp", _icmp),
    "MATCH_IP_SOURCE_PORT_RANGE": ("sport", _span),
    "MATCH_IP_DEST_PORT_RANGE": ("dport", _span),
    "MATCH_FRAME_SIZE_RANGE": ("framesize", _span),
    "MATCH_CHARACTERISTICS": ("chr", _characteristics),
    "MATCH_RANDOM": ("random", _probability),
}


class _Names:
    """Names for tags, their values, and capabilities: those given, else made from the ids."""

    def __init__(self, source: Json, config: Json) -> None:
        self.tags: dict[str, Json] = dict(source.get("tagsByName") or {})
        self.tag_names: dict[int, str] = {tag["id"]: name for name, tag in self.tags.items()}
        for tag in config.get("tags") or []:
            if tag["id"] not in self.tag_names:
                name = self._unused(f"tag_{tag['id']}", self.tags)
                self.tags[name] = tag
                self.tag_names[tag["id"]] = name
        given: dict[str, int] = dict(source.get("capabilitiesByName") or {})
        self.capabilities: dict[int, str] = {number: name for name, number in given.items()}
        for cap in config.get("capabilities") or []:
            self.capabilities.setdefault(cap["id"], self._unused(f"cap_{cap['id']}", given))
        for name in (*self.tags, *given):
            if not well_formed(name):
                raise _refuse(f"{name!r} cannot be a name")

    @staticmethod
    def _unused(name: str, taken: Container[str]) -> str:
        while name in taken:
            name += "_"
        return name

    def tag_arguments(self, entry: Json) -> str:
        """The two arguments of a tag match, by name where there is one that means the same."""
        number, value = entry["id"], entry["value"]
        name = self.tag_names.get(number)
        if name is None:
            return f"{number} {value}"
        tag = self.tags[name]
        # A flag hides an enum of the same name (section 7).
        members: Json = {**(tag.get("enums") or {}), **(tag.get("flags") or {})}
        for member, member_value in members.items():
            if member_value == value and member not in names.RESERVED and well_formed(member):
                return f"{name} {member}"
        return f"{name} {value}"


def _match(entry: Json, known: _Names, first: bool) -> str:
    kind = entry["type"]
    if kind in _TAG_WORDS:
        text = f"{_TAG_WORDS[kind]} {known.tag_arguments(entry)}"
    elif kind in _MATCH_TEXTS:
        word, arguments = _MATCH_TEXTS[kind]
        text = f"{word} {arguments(entry)}"
    else:
        raise _refuse(f"the language has no word for {kind}")
    negated = "not " if entry.get("not") else ""
    joint = "or " if entry.get("or") else "" if first else "and "
    return f"{joint}{negated}{text}"


def _action(entry: Json) -> str:
    kind = entry["type"]
    word = _ACTION_WORDS.get(kind)
    if word is None:
        raise _refuse(f"the language has no word for {kind}")
    if entry.get("flags"):
        raise _refuse(f"the language has no words for the flags of {kind}")
    if entry.get("not") or entry.get("or"):
        raise _refuse(f"the language cannot negate {kind}")
    if word in ("tee", "watch"):
        return f"{word} {entry['length']} {entry['address']}"
    return f"{word} {entry['address']}" if word == "redirect" else word


def _rules(entries: Sequence[Json], known: _Names, indent: str) -> list[str]:
    lines: list[str] = []
    pending: list[str] = []
    for entry in entries:
        if not str(entry["type"]).startswith("ACTION_"):
            pending.append(_match(entry, known, first=not pending))
            continue
        action = _action(entry)
        if len(pending) <= 1:
            lines.append(f"{indent}{' '.join([action, *pending])};")
        else:
            lines.append(f"{indent}{action}")
            lines += [f"{indent}  {match}" for match in pending]
            lines.append(f"{indent};")
        pending = []
    if pending:
        raise _refuse("matches without an action behind them cannot be written")
    return lines


def _tag(name: str, tag: Json) -> list[str]:
    lines = [f"tag {name}", f"  id {tag['id']}"]
    for member, value in (tag.get("enums") or {}).items():
        lines.append(f"  enum {value} {member}")
    for member, mask in (tag.get("flags") or {}).items():
        bits = ",".join(str(bit) for bit in range(32) if mask >> bit & 1)
        if not bits:
            raise _refuse(f'flag "{member}" has no bits')
        lines.append(f"  flag {bits} {member}")
    if tag.get("default") is not None:
        lines.append(f"  default {int(tag['default']) & values.UINT32}")
    return [*lines, ";", ""]


def explain(source: Json) -> str:
    """The text of compiled rules.

    ``source`` is the compiler's output object, or a network object of a controller (``rules``,
    ``capabilities``, ``tags``); names are taken from ``tagsByName`` and ``capabilitiesByName``
    where present. Raises RuleError (E92) for what the language cannot express.
    """
    config = source.get("config", source)
    try:
        known = _Names(source, config)
        lines: list[str] = []
        for name, tag in known.tags.items():
            lines += _tag(name, tag)
        for cap in config.get("capabilities") or []:
            lines += [f"cap {known.capabilities[cap['id']]}", f"  id {cap['id']}"]
            lines += ["  default"] if cap.get("default") else []
            lines += [*_rules(cap.get("rules") or [], known, "  "), ";", ""]
        lines += _rules(config.get("rules") or [], known, "")
    except (KeyError, TypeError, AttributeError, ValueError) as wrong:
        if isinstance(wrong, RuleError):
            raise
        raise _refuse(f"these are no rules of a controller: {wrong!r}") from None
    return "\n".join(lines).rstrip("\n") + "\n" if lines else ""
