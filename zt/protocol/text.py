"""Numbers in text, read as leniently as the C library reads them.

Files and dictionaries have always been read with ``strtoull`` and ``strtoll`` in base 16: leading
blanks, a sign, ``0x``, then digits up to the first other character; too large a number saturates.
"""

import re

HEX_DIGITS = frozenset("0123456789abcdefABCDEF")

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]*)")
_MAX_U64 = 0xFFFF_FFFF_FFFF_FFFF
_MAX_I64 = 0x7FFF_FFFF_FFFF_FFFF


def _parse(text: str) -> tuple[int, bool]:
    """Magnitude, and whether a minus stands before it."""
    match = _NUMBER.match(text)
    assert match is not None, "the pattern matches an empty text"
    sign, digits = match.groups()
    return int(digits or "0", 16), sign == "-"


def hex_u64(text: str) -> int:
    """As ``strtoull(text, NULL, 16)``: a negative number wraps around."""
    value, negative = _parse(text)
    if value > _MAX_U64:
        return _MAX_U64
    return -value & _MAX_U64 if negative else value


def hex_i64(text: str) -> int:
    """As ``strtoll(text, NULL, 16)``."""
    value, negative = _parse(text)
    return max(-value, -_MAX_I64 - 1) if negative else min(value, _MAX_I64)
