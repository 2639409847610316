"""Frames of policy tests: from fields, from hex, from a capture file."""

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zt.protocol.address import Mac
from zt.protocol.errors import DecodeError
from zt.rules import names

ETHERNET_HEADER = 14
_TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
_PORT_PROTOCOLS = {6, 17, 132, 136}
_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
}
_PCAP_ETHERNET = 1

FIELDS = frozenset(
    "ethertype src dst protocol sport dport flags icmp tos size src_mac dst_mac".split()
)


class FrameError(ValueError):
    """A frame cannot be made of what a case says; the message says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame as the filter sees it; ``payload`` is without the 14-byte header."""

    source_mac: int
    dest_mac: int
    ethertype: int
    payload: bytes


def from_bytes(data: bytes) -> Frame:
    """A whole Ethernet frame."""
    if len(data) < ETHERNET_HEADER:
        raise FrameError(f"a frame has at least {ETHERNET_HEADER} bytes, this one {len(data)}")
    ethertype = int.from_bytes(data[12:14], "big")
    dest, source = int.from_bytes(data[:6], "big"), int.from_bytes(data[6:12], "big")
    return Frame(source, dest, ethertype, data[14:])


def from_hex(text: str) -> Frame:
    """A whole Ethernet frame in hex; blanks and colons are ignored."""
    try:
        return from_bytes(bytes.fromhex(text.replace(":", " ")))
    except ValueError as wrong:
        raise FrameError(f"no frame in hex: {wrong}") from None


def from_capture(data: bytes, index: int) -> Frame:
    """Frame number ``index`` (from 0) of a pcap file with Ethernet frames."""
    order = _PCAP_MAGIC.get(data[:4])
    if order is None or len(data) < 24:
        raise FrameError("this is no pcap file (pcapng is not read)")
    if struct.unpack_from(f"{order}I", data, 20)[0] != _PCAP_ETHERNET:
        raise FrameError("the capture does not hold Ethernet frames")
    offset = 24
    for number in range(index + 1):
        if offset + 16 > len(data):
            raise FrameError(f"the capture holds {number} frames, frame {index} was asked for")
        length = struct.unpack_from(f"{order}I", data, offset + 8)[0]
        start, offset = offset + 16, offset + 16 + length
    if offset > len(data):
        raise FrameError("the capture is cut short")
    return from_bytes(data[start:offset])


def from_fields(fields: Mapping[str, Any], source_mac: int, dest_mac: int) -> Frame:
    """A frame described by fields; MACs where the fields name none are those given.

    ``src`` and ``dst`` decide between IPv4 and IPv6; ``size`` pads the payload. Raises FrameError.
    """
    if unknown := set(fields) - FIELDS:
        raise FrameError(f"unknown fields: {', '.join(sorted(unknown))}")
    try:
        source_mac = Mac.parse(fields["src_mac"]) if "src_mac" in fields else source_mac
        dest_mac = Mac.parse(fields["dst_mac"]) if "dst_mac" in fields else dest_mac
        ethertype, payload = _network_layer(fields)
    except (ValueError, TypeError, struct.error, OverflowError, DecodeError) as wrong:
        raise FrameError(f"no frame can be made of these fields: {wrong}") from None
    size = fields.get("size", 0)
    if not isinstance(size, int) or not 0 <= size <= 65535:
        raise FrameError("size is a number of bytes up to 65535")
    return Frame(source_mac, dest_mac, ethertype, payload.ljust(size, b"\0"))


def _number(value: Any, table: Mapping[str, int], what: str) -> int:
    if isinstance(value, str):
        value = table.get(value, value)
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no {what}")
    return value


def _network_layer(fields: Mapping[str, Any]) -> tuple[int, bytes]:
    default = "ipv4" if "src" not in fields else f"ipv{ipaddress.ip_address(fields['src']).version}"
    ethertype = _number(fields.get("ethertype", default), names.ETHERTYPES, "ethertype")
    if ethertype == names.ETHERTYPES["arp"]:
        return ethertype, _arp(fields)
    if ethertype not in (names.ETHERTYPES["ipv4"], names.ETHERTYPES["ipv6"]):
        return ethertype, b""
    protocol = _number(fields.get("protocol", 59), names.IP_PROTOCOLS, "IP protocol")
    transport = _transport(fields, protocol)
    tos = fields.get("tos", 0)
    if ethertype == names.ETHERTYPES["ipv4"]:
        source = ipaddress.IPv4Address(fields.get("src", "0.0.0.0")).packed
        dest = ipaddress.IPv4Address(fields.get("dst", "0.0.0.0")).packed
        length = 20 + len(transport)
        header = struct.pack(">BBHHHBBH", 0x45, tos, length, 0, 0, 64, protocol, 0)
        return ethertype, header + source + dest + transport
    source = ipaddress.IPv6Address(fields.get("src", "::")).packed
    dest = ipaddress.IPv6Address(fields.get("dst", "::")).packed
    header = struct.pack(">IHBB", 6 << 28 | tos << 20, len(transport), protocol, 64)
    return ethertype, header + source + dest + transport


def _arp(fields: Mapping[str, Any]) -> bytes:
    sender = ipaddress.IPv4Address(fields.get("src", "0.0.0.0")).packed
    target = ipaddress.IPv4Address(fields.get("dst", "0.0.0.0")).packed
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(6) + sender + bytes(6) + target


def _transport(fields: Mapping[str, Any], protocol: int) -> bytes:
    if protocol in _PORT_PROTOCOLS:
        ports = struct.pack(">HH", fields.get("sport", 49152), fields.get("dport", 0))
        if protocol != 6:
            return ports + bytes(8)
        unknown = set(fields.get("flags", ())) - set(_TCP_FLAGS)
        if unknown:
            raise ValueError(f"unknown TCP flags: {', '.join(sorted(unknown))}")
        flags = sum(_TCP_FLAGS[flag] for flag in set(fields.get("flags", ())))
        return ports + bytes(8) + bytes((0x50, flags)) + bytes(6)
    if protocol in (1, 58):
        kind, *code = fields.get("icmp", [8 if protocol == 1 else 128, 0])
        return bytes((kind, code[0] if code else 0)) + bytes(6)
    return bytes(8)
