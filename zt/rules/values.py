"""Readers of values (chapter 07, section 5). Those of the reference are lenient: they take the
longest readable beginning. ``strict=True`` refuses what they ignore (D8)."""

import math
import re

UINT32 = 0xFFFFFFFF

_DECIMAL = re.compile(r"\s*([+-]?)([0-9]+)")
_HEX = re.compile(r"\s*([+-]?)(?:0x)?([0-9a-f]*)")
_WHOLE = re.compile(r"[+-]?[0-9]+|0x[0-9a-f]+")
_REAL = re.compile(r"\s*[+-]?(?:Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
# Longer numbers are out of every range; cutting them keeps reading linear.
_DIGITS = 400


class Trailing(ValueError):
    """Strict reading met characters that the reference would have ignored."""


def _number(sign: str, digits: str, base: int) -> int:
    value = int(digits[:_DIGITS], base) if len(digits) <= _DIGITS else base**_DIGITS
    return -value if sign == "-" else value


def _signed_hex(text: str) -> int | None:
    match = _HEX.match(text)
    # "0x" with no digits behind it has none at all, although "0" alone would be one.
    if match is None or not match[2]:
        return None
    return _number(match[1], match[2], 16)


def _decimal(text: str) -> int | None:
    match = _DECIMAL.match(text)
    return _number(match[1], match[2], 10) if match else None


def integer(text: str, *, strict: bool = False) -> int:
    """N1: -1 where nothing can be read. Strict: raises Trailing where something is left over."""
    if len(text) <= _DIGITS and text.isdecimal() and text.isascii():
        return int(text)
    lowered = text.lower()
    hexadecimal = len(lowered) > 2 and lowered.startswith("0x")
    value = _signed_hex(lowered[2:]) if hexadecimal else _decimal(lowered)
    if value is None:
        return -1
    if strict and not _WHOLE.fullmatch(lowered):
        raise Trailing(text)
    return value


def without_junk(text: str) -> str:
    """What the reference reads of a number or range that has more behind it."""
    return "-".join(str(max(integer(part), 0)) for part in text.split("-")[:2] if part)


def span(text: str, *, strict: bool = False) -> tuple[int, int]:
    """N2: both ends of ``80`` or ``80-90``; (-1, -1) where there are not exactly two parts."""
    if "-" not in text[1:]:
        value = integer(text, strict=strict)
        return value, value
    parts = text.split("-")
    if len(parts) != 2:
        return -1, -1
    return integer(parts[0], strict=strict), integer(parts[1], strict=strict)


def real(text: str) -> tuple[float, bool]:
    """N3: the longest leading decimal number (0.0 if there is none); and whether that is all."""
    match = _REAL.match(text)
    if match is None:
        return 0.0, False
    return float(match[0]), match.end() == len(text)


def hex_digits(text: str) -> str:
    """The hex digits of a text in lower case, everything else left out (N4, N5)."""
    return "".join(c for c in text.lower() if c in "0123456789abcdef")


def mac(text: str, *, strict: bool = False) -> str | None:
    """N5: twelve hex digits as ``xx:xx:xx:xx:xx:xx``, None if there are fewer."""
    digits = hex_digits(text)
    if len(digits) < 12:
        return None
    if strict and len(digits) > 12:
        raise Trailing(text)
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def default_integer(text: str) -> int:
    """N7, with the signed 32-bit wrap of the reference (D5)."""
    lowered = text.lower()
    sign = lowered[:1] if lowered[:1] in ("+", "-") else ""
    body = lowered[len(sign) :]
    if body.startswith("0x"):
        value = _signed_hex(body[2:]) if len(body) > 2 else 0
    else:
        value = _decimal(lowered)
    if not value:
        return 0
    try:
        magnitude = int(float(abs(value)))
    except OverflowError:
        return 0
    wrapped = magnitude & UINT32
    return wrapped - (1 << 32) if wrapped > 0x7FFFFFFF else wrapped


def probability(value: float) -> int:
    """A probability, clamped to 0..1, as the 32-bit number of the wire."""
    return math.floor(4294967295 * min(max(value, 0.0), 1.0))
