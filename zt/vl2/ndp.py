"""Neighbor discovery answered locally for derived IPv6 addresses (chapter 04, 2.5).

The MAC of a 6PLANE or RFC 4193 address follows from the address itself, so asking for it needs no
multicast: the advertisement is made here.
"""

from collections.abc import Iterable

from zt.protocol.address import (
    RFC4193_BITS,
    SIXPLANE_BITS,
    Address,
    Mac,
    NetworkId,
    sixplane,
)
from zt.protocol.inet import InetAddress
from zt.vl2.ethernet import Ethernet

IPV6 = 0x86DD
_HEADER = bytes.fromhex("6000000000203aff")
_SOLICITED_OVERRIDE = bytes.fromhex("60000000")


def answer(
    frame: Ethernet, nwid: NetworkId, us: Address, ips: Iterable[InetAddress]
) -> Ethernet | None:
    """The advertisement to hand to the TAP for this solicitation; None if it is none of ours."""
    payload = frame.payload
    if frame.ethertype != IPV6 or len(payload) < 64 or payload[6] != 0x3A or payload[40] != 0x87:
        return None
    asked = payload[48:64]
    for mine in ips:
        target = _target(asked, mine, nwid)
        if target is None:
            continue
        if target == 0 or target == us:
            return None
        mac = Mac.of(target, nwid)
        body = b"\x88\0\0\0" + _SOLICITED_OVERRIDE + asked + b"\x02\x01" + mac.encode()
        total = checksum(asked + mine.ip + bytes([0, 0, 0, 32, 0, 0, 0, 0x3A]) + body)
        body = body[:2] + total.to_bytes(2) + body[4:]
        return Ethernet(frame.source, mac, IPV6, _HEADER + asked + mine.ip + body)
    return None


def _target(asked: bytes, mine: InetAddress, nwid: NetworkId) -> Address | None:
    """The node that the asked address belongs to, if it lies in the same derived prefix as mine."""
    ip = mine.ip
    if len(ip) != 16:
        return None
    if mine.bits == RFC4193_BITS and ip[0] == 0xFD and ip[9:11] == b"\x99\x93":
        return Address.decode(asked[11:16]) if asked[:11] == ip[:11] else None
    if mine.bits == SIXPLANE_BITS and ip[:5] == sixplane(nwid, 0)[:5]:
        return Address.decode(asked[5:10]) if asked[:5] == ip[:5] else None
    return None


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes."""
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
