"""The packet around the messages: header, fragment header, verbs, error codes, compression.

Chapter 02, sections 1, 2, 8 and 10.2; chapter 01, sections 6.1 and 7. Armor is `zt._fast.cipher`,
reassembly `zt._fast.fragment`.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Self

import lz4.block

from zt.protocol.address import Address
from zt.protocol.errors import DecodeError

PROTOCOL_VERSION = 12
MIN_PROTOCOL_VERSION = 4
AES_PROTOCOL_VERSION = 12
"""From here on a peer is sent suite 3."""

# Offsets into a packet; `VERB` is where the armor begins.
PACKET_ID = 0
DESTINATION = 8
SOURCE = 13
FLAGS = 18
MAC = 19
VERB = 27
PAYLOAD = 28

HEADER_SIZE = 28
FRAGMENT_HEADER_SIZE = 16
MAX_PACKET = 10024
MAX_PAYLOAD = MAX_PACKET - HEADER_SIZE
MAX_PIECES = 7
BEACON_SIZE = 13
DEFAULT_MTU = 1432
"""Largest datagram that every path carries, by default; the range for configuring it follows."""
MIN_MTU = 1400
MAX_MTU = 10324
RELAY_MAX_HOPS = 3

FRAGMENT_INDICATOR = 0xFF
"""At `SOURCE` it makes a datagram a fragment: no address begins so."""

# Bits of the flags byte.
FLAG_ENCRYPTED = 0x80
FLAG_FRAGMENTED = 0x40
SUITE_MASK = 0x38
HOPS_MASK = 0x07

# Bits of the verb byte.
FLAG_COMPRESSED = 0x80
VERB_MASK = 0x1F

# Cipher suites.
SUITE_MAC = 0
SUITE_SALSA = 1
SUITE_TRUSTED = 2
SUITE_AES = 3

COMPRESS_ABOVE = 64
"""Payloads of this size or less are not worth compressing."""


class Verb(IntEnum):
    """Values 0x0f, 0x11 and 0x17..0x1f are unassigned."""

    NOP = 0x00
    HELLO = 0x01
    ERROR = 0x02
    OK = 0x03
    WHOIS = 0x04
    RENDEZVOUS = 0x05
    FRAME = 0x06
    EXT_FRAME = 0x07
    ECHO = 0x08
    MULTICAST_LIKE = 0x09
    NETWORK_CREDENTIALS = 0x0A
    NETWORK_CONFIG_REQUEST = 0x0B
    NETWORK_CONFIG = 0x0C
    MULTICAST_GATHER = 0x0D
    MULTICAST_FRAME = 0x0E
    PUSH_DIRECT_PATHS = 0x10
    ACK = 0x12
    QOS_MEASUREMENT = 0x13
    USER_MESSAGE = 0x14
    REMOTE_TRACE = 0x15
    PATH_NEGOTIATION_REQUEST = 0x16


class ErrorCode(IntEnum):
    """What an ERROR says (chapter 02, 10.2)."""

    NONE = 0
    INVALID_REQUEST = 1
    BAD_PROTOCOL_VERSION = 2
    OBJECT_NOT_FOUND = 3
    IDENTITY_COLLISION = 4
    UNSUPPORTED_OPERATION = 5
    NEED_MEMBERSHIP_CERTIFICATE = 6
    NETWORK_ACCESS_DENIED = 7
    UNWANTED_MULTICAST = 8
    AUTHENTICATION_REQUIRED = 9


class Kind(IntEnum):
    """What a datagram is by its size and byte 13, before anything else is known."""

    BEACON = 0
    FRAGMENT = 1
    HEAD = 2
    """A whole packet, or the first piece of one if `FLAG_FRAGMENTED` is set."""


def classify(datagram: bytes | bytearray) -> Kind | None:
    """The kind of a received datagram; None is to be dropped (chapter 02, 1)."""
    size = len(datagram)
    if size == BEACON_SIZE:
        return Kind.BEACON
    if size <= FRAGMENT_HEADER_SIZE:
        return None
    if datagram[SOURCE] == FRAGMENT_INDICATOR:
        return Kind.FRAGMENT
    return Kind.HEAD if size >= HEADER_SIZE else None


_HEADER = Struct(">Q5s5sB8sB")


class Header(NamedTuple):
    """The 28 bytes before the payload, verb byte included."""

    packet_id: int
    """As it is on the wire; suite 3 changes it when the packet is sealed."""
    destination: Address
    source: Address
    flags: int
    mac: bytes
    """8 bytes; under suite 2 the trusted path ID."""
    verb_byte: int
    """Encrypted until the packet has been opened, if the suite encrypts."""

    @property
    def fragmented(self) -> bool:
        return bool(self.flags & FLAG_FRAGMENTED)

    @property
    def suite(self) -> int:
        return (self.flags & SUITE_MASK) >> 3

    @property
    def hops(self) -> int:
        return self.flags & HOPS_MASK

    @property
    def verb(self) -> int:
        return self.verb_byte & VERB_MASK

    @property
    def compressed(self) -> bool:
        return bool(self.verb_byte & FLAG_COMPRESSED)

    @classmethod
    def decode(cls, packet: bytes | bytearray) -> Self:
        if len(packet) < HEADER_SIZE:
            raise DecodeError(f"packet of {len(packet)} bytes")
        packet_id, destination, source, flags, mac, verb_byte = _HEADER.unpack_from(packet)
        return cls(
            packet_id, Address.decode(destination), Address.decode(source), flags, mac, verb_byte
        )


_FRAGMENT_HEADER = Struct(">Q5sBBB")


class FragmentHeader(NamedTuple):
    """The 16 bytes before the data of piece 1, 2, ... of a packet (chapter 02, 2.3)."""

    packet_id: int
    destination: Address
    total: int
    """Number of pieces, the head included. Not checked."""
    number: int
    """Of this piece. Not checked."""
    hops: int

    @classmethod
    def decode(cls, datagram: bytes | bytearray) -> Self:
        if len(datagram) <= FRAGMENT_HEADER_SIZE or datagram[SOURCE] != FRAGMENT_INDICATOR:
            raise DecodeError("not a fragment")
        packet_id, destination, _, pieces, hops = _FRAGMENT_HEADER.unpack_from(datagram)
        return cls(packet_id, Address.decode(destination), pieces >> 4, pieces & 0x0F, hops)


def new_packet(
    packet_id: bytes, destination: int, source: int, verb: int, payload: bytes = b""
) -> bytearray:
    """An unarmored packet; ``packet_id`` is 8 random bytes."""
    packet = bytearray(packet_id)
    packet += destination.to_bytes(5)
    packet += source.to_bytes(5)
    packet += bytes(9)
    packet.append(verb)
    packet += payload
    return packet


def verb_of(packet: bytes | bytearray) -> int:
    """The verb of an opened packet, whether assigned or not."""
    return packet[VERB] & VERB_MASK


def id_of(packet: bytes | bytearray) -> int:
    """The packet ID."""
    return int.from_bytes(packet[:8])


def compress(packet: bytearray) -> bool:
    """Compress the payload in place if that makes it smaller; before sealing."""
    if packet[VERB] & FLAG_COMPRESSED:
        return True
    if len(packet) - PAYLOAD <= COMPRESS_ABOVE:
        return False
    block = lz4.block.compress(memoryview(packet)[PAYLOAD:], store_size=False)
    if len(block) >= len(packet) - PAYLOAD:
        return False
    packet[PAYLOAD:] = block
    packet[VERB] |= FLAG_COMPRESSED
    return True


def decompress(packet: bytearray) -> None:
    """Undo `compress` in place, if it was done; after opening.

    :raises DecodeError: the payload is not one LZ4 block of 1..9996 bytes; the packet is unchanged.
    """
    if not packet[VERB] & FLAG_COMPRESSED:
        return
    if len(packet) > PAYLOAD:
        try:
            payload = lz4.block.decompress(
                memoryview(packet)[PAYLOAD:], uncompressed_size=MAX_PAYLOAD
            )
        except lz4.block.LZ4BlockError:
            raise DecodeError("damaged compressed payload") from None
        if not payload:
            raise DecodeError("empty compressed payload")
        packet[PAYLOAD:] = payload
    packet[VERB] &= ~FLAG_COMPRESSED
