"""Physical addresses: an IP with a port, or with a prefix length (chapter 02, 3.3)."""

from enum import IntEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple, Self

from zt.protocol.errors import DecodeError
from zt.protocol.wire import Reader


class Scope(IntEnum):
    """What an IP is good for; of two usable scopes the higher value is preferred."""

    NONE = 0
    MULTICAST = 1
    LOOPBACK = 2
    PSEUDO_PRIVATE = 3
    GLOBAL = 4
    LINK_LOCAL = 5
    SHARED = 6
    PRIVATE = 7


_IP4, _IP6 = Struct(">4sH"), Struct(">16sH")


class InetAddress(NamedTuple):
    """An IP (4, 16 or, for the nil address, 0 bytes) and a port; ``str()`` gives ``ip/port``.

    Networks and interface addresses have the same form with the prefix length in place of the port.
    Nil is ``InetAddress()``, is false, and its text form is empty.
    """

    ip: bytes = b""
    port: int = 0

    def __str__(self) -> str:
        return f"{ip_text(self.ip)}/{self.port}" if self.ip else ""

    def __bool__(self) -> bool:
        return bool(self.ip)

    @property
    def version(self) -> int:
        """4, 6, or 0 for nil."""
        return {4: 4, 16: 6}.get(len(self.ip), 0)

    @property
    def bits(self) -> int:
        """The prefix length, when this is a network."""
        return self.port

    @property
    def scope(self) -> Scope:
        if len(self.ip) == 4:
            return _scope4(self.ip)
        if len(self.ip) == 16:
            return _scope6(self.ip)
        return Scope.NONE

    @property
    def source_network(self) -> int:
        """14-bit hash of the network it belongs to: the bucket of rate gates (chapter 02, 11)."""
        if len(self.ip) == 4:
            h = int.from_bytes(self.ip[:3])
            return (h ^ h >> 14) & 0x3FFF
        h = 0
        for byte in self.ip[:6]:
            h = 2 * h + byte
        return h & 0x3FFF

    def contains(self, ip: bytes) -> bool:
        """As a network: does it hold this IP? Other families and lengths are never inside."""
        size = len(self.ip)
        if size == 0 or len(ip) != size:
            return False
        host_bits = max(8 * size - self.port, 0)
        return int.from_bytes(self.ip) >> host_bits == int.from_bytes(ip) >> host_bits

    def encode(self) -> bytes:
        size = len(self.ip)
        if size == 4:
            return b"\x04" + self.ip + self.port.to_bytes(2)
        if size == 16:
            return b"\x06" + self.ip + self.port.to_bytes(2)
        return b"\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Reserved types 1..3 are skipped and read as nil; an overrun is an error."""
        kind = reader.u8()
        if kind == 4:
            return cls(*reader.unpack(_IP4))
        if kind == 6:
            return cls(*reader.unpack(_IP6))
        if kind in (1, 2):
            reader.skip(6)
        elif kind == 3:
            reader.skip(reader.u16())
        elif kind != 0:
            raise DecodeError(f"unknown kind of physical address: {kind}")
        return cls()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls.read(Reader(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``ip/port``, a bare ``ip`` (port 0), or nothing (nil)."""
        if not text:
            return cls()
        host, _, port = text.partition("/")
        if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
            raise DecodeError(f"not a physical address: {text!r}")
        number = int(port or 0)
        if number > 0xFFFF:
            raise DecodeError(f"not a physical address: {text!r}")
        return cls(parse_ip(host), number)


NIL = InetAddress()


def ip_text(ip: bytes) -> str:
    """Text form of 4 or 16 bytes as ``inet_ntop`` writes it: embedded IPv4 addresses are dotted."""
    if len(ip) == 4:
        return "{}.{}.{}.{}".format(*ip)
    if ip[:12] == _MAPPED:
        return "::ffff:{}.{}.{}.{}".format(*ip[12:])
    if not any(ip[:12]) and any(ip[12:14]):
        return "::{}.{}.{}.{}".format(*ip[12:])
    return str(IPv6Address(ip))


def parse_ip(text: str) -> bytes:
    """The 4 or 16 bytes of an IP in text form."""
    try:
        if ":" not in text:
            return IPv4Address(text).packed
        if "%" in text:
            raise DecodeError(f"not an IP address: {text!r}")
        return IPv6Address(text).packed
    except AddressValueError:
        raise DecodeError(f"not an IP address: {text!r}") from None


_MAPPED = bytes(10) + b"\xff\xff"
_PSEUDO_PRIVATE = frozenset((6, 11, 21, 22, 25, 26, 28, 29, 30, 51, 55, 56))
_PRIVATE_24 = frozenset((b"\xc0\x00\x02", b"\xc6\x33\x64", b"\xcb\x00\x71"))  # documentation nets


def _scope4(ip: bytes) -> Scope:
    scope = _SCOPES4[ip[0]]
    return _mixed_scope4(ip) if scope is None else scope


def _first_octet_scope(first: int) -> Scope | None:
    """None: what follows decides."""
    if first in (0, 255):
        return Scope.NONE
    if first == 127:
        return Scope.LOOPBACK
    if first in _PSEUDO_PRIVATE or first >= 240:
        return Scope.PSEUDO_PRIVATE
    if first >= 224:
        return Scope.MULTICAST
    if first == 10:
        return Scope.PRIVATE
    return None if first in (100, 169, 172, 192, 198, 203) else Scope.GLOBAL


_SCOPES4 = tuple(map(_first_octet_scope, range(256)))


def _mixed_scope4(ip: bytes) -> Scope:
    first, second = ip[0], ip[1]
    if first == 169 and second == 254:
        return Scope.LINK_LOCAL
    if (
        (first == 172 and second & 0xF0 == 16)
        or (first == 192 and second == 168)
        or (first == 100 and second & 0xC0 == 64)
        or (first == 198 and second & 0xFE == 18)
        or ip[:3] in _PRIVATE_24
    ):
        return Scope.PRIVATE
    return Scope.GLOBAL


def _scope6(ip: bytes) -> Scope:
    first = ip[0]
    if first == 0xFF:
        return Scope.MULTICAST
    if first == 0xFE and ip[1] & 0xC0 == 0x80:
        # fe80::1 is what some systems give their loopback interface.
        return Scope.LOOPBACK if ip[1:] == b"\x80" + bytes(13) + b"\x01" else Scope.LINK_LOCAL
    if first & 0xFE == 0xFC:
        return Scope.PRIVATE
    if first == 0:
        if not any(ip[:15]):
            return {0: Scope.NONE, 1: Scope.LOOPBACK}.get(ip[15], Scope.GLOBAL)
        if ip[:13] == _MAPPED + b"\x7f":
            return Scope.LOOPBACK
    return Scope.GLOBAL
