"""Ethernet frames as values."""

from typing import NamedTuple, Self

from zt.protocol.address import Mac

HEADER_SIZE = 14
ARP = 0x0806


class Ethernet(NamedTuple):
    """A frame; VLAN tags are part of the payload, as the ethertype 0x8100 says."""

    dest: Mac
    source: Mac
    ethertype: int
    payload: bytes

    def encode(self) -> bytes:
        return self.dest.encode() + self.source.encode() + self.ethertype.to_bytes(2) + self.payload

    @classmethod
    def decode(cls, frame: bytes) -> Self:
        """From more than `HEADER_SIZE` bytes."""
        return cls(
            Mac.decode(frame[:6]),
            Mac.decode(frame[6:12]),
            int.from_bytes(frame[12:14]),
            frame[HEADER_SIZE:],
        )

    @property
    def arp_target(self) -> int | None:
        """The IPv4 address that an ARP request asks for."""
        payload = self.payload
        if self.ethertype != ARP or len(payload) < 28:
            return None
        if payload[2:6] != b"\x08\x00\x06\x04" or payload[7] != 1:
            return None
        return int.from_bytes(payload[24:28])
