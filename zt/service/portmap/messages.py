"""NAT-PMP (RFC 6886) and PCP (RFC 6887, MAP only): requests to a gateway and its answers.

Both run over UDP port 5351 of the gateway; the first byte, the version, tells them apart. Times are
seconds, as on the wire. A decoder raises DecodeError for what is not an answer to the question; a
refusal is an answer, and is returned as `Refusal`.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress

PORT = 5351
NONCE_SIZE = 12
MAX_ANSWER = 1100
"""Bytes; PCP allows no longer datagram."""

_NAT_PMP, _PCP = 0, 2
_ADDRESS, _MAP_UDP, _MAP = 0, 1, 1
_UDP = 17
_ANSWER = 0x80
_MAPPED = bytes(10) + b"\xff\xff"


class Refusal(IntEnum):
    """Why a gateway did not do what it was asked, as far as we act on it."""

    UNSUPPORTED_VERSION = 1  # it speaks the other one of the two protocols
    EXHAUSTED = 2  # no room, or this port is not to be had
    OTHER = 3  # switched off, not authorized, broken


class Mapping(NamedTuple):
    """A granted mapping. The IP is nil for NAT-PMP, which tells it apart from the port."""

    external: InetAddress
    lifetime_s: int


# --- NAT-PMP -----------------------------------------------------------------------------------

_NAT_PMP_HEAD = struct.Struct(">BBHI")  # version, operation, result, seconds since its start
_NAT_PMP_REFUSALS = {1: Refusal.UNSUPPORTED_VERSION, 4: Refusal.EXHAUSTED}


def nat_pmp_address() -> bytes:
    """Asks for the external address (RFC 6886, 3.2)."""
    return bytes((_NAT_PMP, _ADDRESS))


def nat_pmp_map(internal: int, external: int, lifetime_s: int) -> bytes:
    """Asks for a UDP mapping; lifetime and external port 0 remove it (RFC 6886, 3.3 and 3.4)."""
    return struct.pack(">BBHHHI", _NAT_PMP, _MAP_UDP, 0, internal, external, lifetime_s)


def read_nat_pmp_address(data: bytes) -> bytes | Refusal:
    """The four bytes of the external address."""
    refusal = _nat_pmp_head(data, _ADDRESS)
    if refusal is not None:
        return refusal
    if len(data) != 12:
        raise DecodeError(f"a NAT-PMP address answer of {len(data)} bytes")
    return data[8:]


def read_nat_pmp_map(data: bytes, internal: int) -> Mapping | Refusal:
    """The mapping of our port; its address is the one that the gateway told before."""
    refusal = _nat_pmp_head(data, _MAP_UDP)
    if refusal is not None:
        return refusal
    if len(data) != 16:
        raise DecodeError(f"a NAT-PMP mapping answer of {len(data)} bytes")
    ours, external, lifetime_s = struct.unpack_from(">HHI", data, 8)
    if ours != internal:
        raise DecodeError(f"a NAT-PMP mapping of port {ours}")
    if lifetime_s and not external:
        raise DecodeError("a NAT-PMP mapping to port 0")
    return Mapping(InetAddress(b"", external), lifetime_s)


def _nat_pmp_head(data: bytes, operation: int) -> Refusal | None:
    if len(data) < _NAT_PMP_HEAD.size:
        raise DecodeError(f"a NAT-PMP answer of {len(data)} bytes")
    version, answered, result, _ = _NAT_PMP_HEAD.unpack_from(data)
    if version == _PCP and answered & _ANSWER and data[3] == 1:
        # How a gateway that speaks PCP only says so (RFC 6887, appendix A).
        return Refusal.UNSUPPORTED_VERSION
    if version != _NAT_PMP or answered != operation | _ANSWER:
        raise DecodeError(f"version {version}, operation {answered} is no answer to {operation}")
    return _NAT_PMP_REFUSALS.get(result, Refusal.OTHER) if result else None


# --- PCP ---------------------------------------------------------------------------------------

_PCP_SIZE = 60
_PCP_REFUSALS = {1: Refusal.UNSUPPORTED_VERSION, 8: Refusal.EXHAUSTED, 11: Refusal.EXHAUSTED}


def pcp_map(client: bytes, nonce: bytes, internal: int, external: int, lifetime_s: int) -> bytes:
    """Asks for a UDP mapping; a lifetime of 0 removes it (RFC 6887, 7.1 and 11.1).

    :param client: our IPv4 address, the source of this datagram.
    :param nonce: 12 random bytes; the same for renewals and the removal.
    """
    head = struct.pack(">BBHI", _PCP, _MAP, 0, lifetime_s) + _MAPPED + client
    ports = struct.pack(">B3xHH", _UDP, internal, external)
    return head + nonce + ports + _MAPPED + bytes(4)


def read_pcp_map(data: bytes, nonce: bytes, internal: int) -> Mapping | Refusal:
    """The mapping of our port (RFC 6887, 7.2 and 11.1)."""
    if len(data) < 4 or len(data) > MAX_ANSWER:
        raise DecodeError(f"a PCP answer of {len(data)} bytes")
    version, operation, _, result = data[:4]
    if version != _PCP:
        # An older gateway answers in its own version that it knows no other (RFC 6887, 9).
        if version < _PCP and operation & _ANSWER:
            return Refusal.UNSUPPORTED_VERSION
        raise DecodeError(f"PCP version {version}")
    if operation != _MAP | _ANSWER:
        raise DecodeError(f"PCP operation {operation}")
    if result == 1:
        return Refusal.UNSUPPORTED_VERSION
    if len(data) < _PCP_SIZE or len(data) % 4:
        raise DecodeError(f"a PCP mapping answer of {len(data)} bytes")
    (lifetime_s,) = struct.unpack_from(">I", data, 4)
    protocol, ours, external = struct.unpack_from(">B3xHH", data, 36)
    if (data[24:36], protocol, ours) != (nonce, _UDP, internal):
        raise DecodeError("a PCP mapping that is not ours")
    if result:
        return _PCP_REFUSALS.get(result, Refusal.OTHER)
    if lifetime_s and (not external or data[44:56] != _MAPPED):
        raise DecodeError("a PCP mapping to no IPv4 address or port")
    return Mapping(InetAddress(data[56:60], external), lifetime_s)
