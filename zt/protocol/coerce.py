"""What the controller's JSON accepts for numbers, booleans and texts (chapter 05, 4).

Values are whatever a JSON parser yields. Nothing here raises: what has no meaning is the default.
"""

import re

from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress, parse_ip
from zt.protocol.text import hex_u64

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_DECIMAL = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)", re.ASCII)


def integer(value: object, default: int = 0) -> int:
    """INT: an unsigned 64-bit number; negative ones wrap around."""
    if isinstance(value, (bool, int)):
        return int(value) & _U64
    if isinstance(value, float):
        return int(value) & _U64 if value - value == 0 else default  # not finite: no JSON has it
    if isinstance(value, str):
        match = _DECIMAL.match(value)
        if match is None:
            return 0
        sign, digits = match.groups()
        # No more digits than saturate; int() of very long texts is slow, and refused.
        number = int(digits.lstrip("0")[:21] or "0")
        if number > _U64:
            return _U64
        return -number & _U64 if sign == "-" else number
    return default


def boolean(value: object, default: bool = False) -> bool:
    """BOOL."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return integer(value) > 0
    if isinstance(value, str):
        return value[:1] in ("t", "T", "1")
    return default


def text(value: object, default: str = "") -> str:
    """STR."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return str(integer(value))
    return default


def hexadecimal(value: object, default: int = 0) -> int:
    """HEX: `text`, then its leading hex digits."""
    return hex_u64(text(value)) if isinstance(value, (str, bool, int, float)) else default


def ip(value: object) -> InetAddress | None:
    """IP text ``address[/n]`` with n in the port field; None if it is no address at all.

    An address part that does not parse is the all-zero address of its family.
    """
    written = text(value)
    if not written or len(written.encode(errors="replace")) > 63:
        return None
    host, _, bits = written.partition("/")
    size = 16 if ":" in host else 4 if "." in host else 0
    if size == 0:
        return None
    try:
        address = parse_ip(host)
    except DecodeError:
        address = bytes(size)
    return InetAddress(address, integer(bits) & 0xFFFF)
