"""Numbers in text, read as leniently as the C library reads them.

Files and dictionaries have always been read with ``strtoull`` and ``strtoll`` in base 16: leading
blanks, a sign, ``0x``, then digits up to the first other character; too large a number saturates.
"""

HEX_DIGITS = frozenset("0123456789abcdefABCDEF")

_BLANKS = " \t\n\v\f\r"
_MAX_U64 = 0xFFFF_FFFF_FFFF_FFFF
_MAX_I64 = 0x7FFF_FFFF_FFFF_FFFF


def _magnitude(text: str) -> tuple[int, bool]:
    text = text.lstrip(_BLANKS)
    negative = text.startswith("-")
    if text[:1] in ("-", "+"):
        text = text[1:]
    if text[:2] in ("0x", "0X") and text[2:3] in HEX_DIGITS:
        text = text[2:]
    end = 0
    while end < len(text) and text[end] in HEX_DIGITS:
        end += 1
    return int(text[:end] or "0", 16), negative


def hex_u64(text: str) -> int:
    """As ``strtoull(text, NULL, 16)``: a negative number wraps around."""
    value, negative = _magnitude(text)
    if value > _MAX_U64:
        return _MAX_U64
    return -value & _MAX_U64 if negative else value


def hex_i64(text: str) -> int:
    """As ``strtoll(text, NULL, 16)``."""
    value, negative = _magnitude(text)
    return max(-value, -_MAX_I64 - 1) if negative else min(value, _MAX_I64)
