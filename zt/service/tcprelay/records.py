"""Records of the TCP relay protocol (chapter 03, section 8.1).

A record looks like TLS 1.2 application data: 17 03 03, a 16-bit length, a message. There is no
handshake and no encryption; the datagrams inside are armored as on UDP.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from zt.protocol.errors import DecodeError

HEADER = b"\x17\x03\x03"
HEADER_SIZE = 5
GREETING_SIZE = 4
MIN_DATAGRAM = 16

_IPV4, _IPV6, _NO_ADDRESS = 4, 6, 0
_IP_SIZES = {_IPV4: 4, _IPV6: 16}


class Relayed(NamedTuple):
    """A datagram with the address it goes to (client to relay) or came from (relay to client)."""

    ip: bytes
    port: int
    datagram: bytes


def record(message: bytes) -> bytes:
    """A message as a record; at most 65535 bytes."""
    return HEADER + len(message).to_bytes(2, "big") + message


def greeting(version: tuple[int, int, int]) -> bytes:
    """The first record of a client."""
    return record(struct.pack(">BBH", *version))


def relayed(ip: bytes, port: int, datagram: bytes) -> bytes:
    """The record that carries a datagram; ``ip`` has 4 or 16 bytes."""
    kind = _IPV4 if len(ip) == 4 else _IPV6
    return record(bytes((kind,)) + ip + port.to_bytes(2, "big") + datagram)


def parse(message: bytes) -> Relayed | None:
    """The datagram in a message; None for a greeting and for a message without an address.

    Raises DecodeError for an unknown address type or a message that is too short for its type.
    """
    if len(message) == GREETING_SIZE:
        return None
    if not message:
        raise DecodeError("an empty relay message")
    if message[0] == _NO_ADDRESS:
        return None
    size = _IP_SIZES.get(message[0])
    if size is None:
        raise DecodeError(f"relay address type {message[0]}")
    if len(message) < 3 + size:
        raise DecodeError("a relay message shorter than its address")
    port = int.from_bytes(message[1 + size : 3 + size], "big")
    return Relayed(message[1 : 1 + size], port, message[3 + size :])


class Stream:
    """Bytes of a connection in, whole messages out. Holds at most one unfinished record."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that ``data`` completes. Raises DecodeError where no record begins."""
        self._buffer += data
        offset = 0
        try:
            while len(self._buffer) - offset >= HEADER_SIZE:
                if self._buffer[offset : offset + 3] != HEADER:
                    raise DecodeError("this is no relay record")
                length = int.from_bytes(self._buffer[offset + 3 : offset + 5], "big")
                end = offset + HEADER_SIZE + length
                if end > len(self._buffer):
                    break
                message = bytes(self._buffer[offset + HEADER_SIZE : end])
                offset = end
                yield message
        finally:
            del self._buffer[:offset]
