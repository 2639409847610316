"""Node addresses, network IDs, MAC addresses, multicast groups and what derives from them.

Chapter 02, 3.1 and 3.2; chapter 04, 2.
"""

from typing import NamedTuple, Self

from zt.protocol.errors import DecodeError
from zt.protocol.text import HEX_DIGITS
from zt.protocol.wire import Reader

RESERVED_PREFIX = 0xFF
"""First byte of addresses that no node has: it marks fragments and ad-hoc networks."""


def _from_hex(text: str, digits: int, what: str) -> int:
    if len(text) != digits or not HEX_DIGITS.issuperset(text):
        raise DecodeError(f"not a {what} of {digits} hex digits: {text!r}")
    return int(text, 16)


class Address(int):
    """A node's 40-bit address; ``str()`` gives its 10 hex digits."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{int(self):010x}"

    def __repr__(self) -> str:
        return f"Address({self})"

    @property
    def reserved(self) -> bool:
        """No identity may have it: 0, and everything beginning with 0xff."""
        return self == 0 or self >> 32 == RESERVED_PREFIX

    def encode(self) -> bytes:
        return self.to_bytes(5)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u40())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) < 5:
            raise DecodeError(f"node address of {len(data)} bytes")
        return cls(int.from_bytes(data[:5]))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From exactly 10 hex digits."""
        return cls(_from_hex(text, 10, "node address"))


NOBODY = Address(0)


class NetworkId(int):
    """A network's 64-bit ID; ``str()`` gives its 16 hex digits."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{int(self):016x}"

    def __repr__(self) -> str:
        return f"NetworkId({self})"

    @property
    def controller(self) -> Address:
        """The only node whose signatures count on this network."""
        return Address(self >> 24)

    @property
    def ad_hoc(self) -> bool:
        """Has no controller: its configuration follows from the ID (chapter 04, 3)."""
        return self >> 56 == RESERVED_PREFIX

    @property
    def first_octet(self) -> int:
        """First octet of every derived MAC of this network (chapter 04, 2.2)."""
        octet = (self & 0xFE) | 0x02
        # 52:54:00 is what virtual machines commonly use.
        return 0x32 if octet == 0x52 else octet

    def encode(self) -> bytes:
        return self.to_bytes(8)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u64())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls.read(Reader(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From exactly 16 hex digits."""
        return cls(_from_hex(text, 16, "network ID"))


def _mac_mask(nwid: int) -> int:
    """The 40 bits that are XORed into an address: bytes 1..5 of the ID, least significant first."""
    return int.from_bytes(((nwid >> 8) & 0xFF_FFFF_FFFF).to_bytes(5), "little")


class Mac(int):
    """A 48-bit Ethernet address; ``str()`` gives ``aa:bb:cc:dd:ee:ff``."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.to_bytes(6).hex(":")

    def __repr__(self) -> str:
        return f"Mac({self})"

    @property
    def multicast(self) -> bool:
        """Group bit set; broadcast included."""
        return bool(self >> 40 & 0x01)

    @property
    def broadcast(self) -> bool:
        return self == BROADCAST

    @property
    def locally_administered(self) -> bool:
        return bool(self >> 40 & 0x02)

    @property
    def link_local_ip(self) -> bytes:
        """The IPv6 link-local address (/64) of an interface with this MAC (chapter 04, 2.4)."""
        m = self.to_bytes(6)
        # Clears the local bit; RFC 4291 would flip it.
        return b"\xfe\x80\0\0\0\0\0\0" + bytes((m[0] & 0xFD,)) + m[1:3] + b"\xff\xfe" + m[3:]

    def address(self, nwid: int) -> Address:
        """Inverse of `of`; meaningful only if `in_network`."""
        return Address((self & 0xFF_FFFF_FFFF) ^ _mac_mask(nwid))

    def in_network(self, nwid: NetworkId) -> bool:
        """Could be the derived MAC of a member of that network."""
        return self >> 40 == nwid.first_octet

    def encode(self) -> bytes:
        return self.to_bytes(6)

    @classmethod
    def of(cls, address: int, nwid: NetworkId) -> Self:
        """The MAC that a node has on a network."""
        return cls(nwid.first_octet << 40 | (address ^ _mac_mask(nwid)))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u48())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls.read(Reader(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 12 hex digits, with or without ``:`` or ``-`` between the octets."""
        return cls(_from_hex(text.replace(":", "").replace("-", ""), 12, "MAC address"))


BROADCAST = Mac(0xFFFF_FFFF_FFFF)


class MulticastGroup(NamedTuple):
    """A multicast MAC and the additional distinguishing information (ADI), 32 bits, mostly 0."""

    mac: Mac
    adi: int = 0

    def encode(self) -> bytes:
        return self.mac.to_bytes(6) + self.adi.to_bytes(4)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(Mac(reader.u48()), reader.u32())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls.read(Reader(data))

    @classmethod
    def resolving(cls, ip: bytes) -> Self:
        """The group that is asked for the MAC of an IP (4 or 16 bytes): ARP or NDP."""
        if len(ip) == 4:
            return cls(BROADCAST, int.from_bytes(ip))
        return cls(Mac(0x3333_FF00_0000 | int.from_bytes(ip[13:])))


RFC4193_BITS = 88
SIXPLANE_BITS = 40


def rfc4193(nwid: int, address: int) -> bytes:
    """The member's private IPv6 address, prefix length `RFC4193_BITS` (chapter 04, 2.4)."""
    return b"\xfd" + nwid.to_bytes(8) + b"\x99\x93" + address.to_bytes(5)


def sixplane(nwid: int, address: int) -> bytes:
    """The first address of the member's own /80, prefix length `SIXPLANE_BITS`."""
    folded = (nwid >> 32) ^ (nwid & 0xFFFF_FFFF)
    return b"\xfc" + folded.to_bytes(4) + address.to_bytes(5) + b"\0\0\0\0\0\x01"
