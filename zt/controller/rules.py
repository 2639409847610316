"""Rules as the controller keeps them: normalised JSON (ch. 05, 7) and binary tables (ch. 04, 8.1).

Integer ranges are the one thing that `zt.protocol.rules` only renders: original controllers drop
them from what clients write, although nodes evaluate them. Here they are kept (Q7).
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from zt.controller.bodies import BodyError
from zt.protocol import coerce
from zt.protocol.errors import DecodeError
from zt.protocol.rules import Rule, RuleType, encode, from_json

_RANGE_NAMES = ("INTEGER_RANGE", "MATCH_INTEGER_RANGE")
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def normalise(rules: Iterable[Any]) -> list[dict[str, Any]]:
    """Every element that is a rule, in its stored form; others are left out.

    Raises BodyError where an operand's type cannot be read.
    """
    try:
        rendered = (rule.to_json() for entry in rules if (rule := _parse(entry)) is not None)
        return [form for form in rendered if form is not None]
    except DecodeError as error:
        raise BodyError(str(error)) from None


def table(rules: Any, limit: int) -> bytes:
    """The binary table of the first `limit` elements that are rules; empty for what is no array.

    Raises DecodeError, which only objects that did not come through `normalise` can cause.
    """
    if not isinstance(rules, list):
        return b""
    parsed = (rule for entry in rules if (rule := _parse(entry)) is not None)
    return encode(islice(parsed, limit))


def _parse(entry: Any) -> Rule | None:
    if isinstance(entry, dict) and entry.get("type") in _RANGE_NAMES:
        return _integer_range(entry)
    return from_json(entry)


def _integer_range(entry: dict[str, Any]) -> Rule:
    start, end = (_number(entry.get(name)) for name in ("start", "end"))
    width = (end - start) & 0xFFFF_FFFF  # all that travels of it
    form = (coerce.integer(entry.get("bits")) - 1) & 0x3F
    if coerce.boolean(entry.get("little")):
        form |= 0x80
    index = coerce.integer(entry.get("idx")) & 0xFFFF
    return Rule(
        RuleType.INTEGER_RANGE,
        (start, (start + width) & _U64, index, form),
        coerce.boolean(entry.get("not")),
        coerce.boolean(entry.get("or")),
    )


def _number(value: Any) -> int:
    """A number, or hexadecimal text."""
    return coerce.hexadecimal(value) if isinstance(value, str) else coerce.integer(value)
