"""The cache file of one peer, `peers.d/<address>.peer` (ch. 03, 3.5)."""

from typing import NamedTuple, Self

from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Version
from zt.protocol.wire import Reader, Writer
from zt.vl1.peer import Peer

FORMAT = 2


def file_name(address: int) -> str:
    return f"peers.d/{address:010x}.peer"


class CachedPeer(NamedTuple):
    """Identity, version (all 0 when unknown) and where the peer was last seen."""

    identity: Identity
    version: Version
    addresses: tuple[InetAddress, ...]

    @classmethod
    def of(cls, peer: Peer) -> Self:
        addresses = tuple(path.path.address for path in peer.paths)
        return cls(peer.identity, peer.version or Version(0, 0, 0, 0), addresses)

    def encode(self) -> bytes:
        writer = Writer().u8(FORMAT).raw(self.identity.encode())
        for number in (*self.version, len(self.addresses)):
            writer.u16(number)
        for address in self.addresses:
            writer.raw(address.encode())
        return bytes(writer)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """:raises DecodeError: not such a file."""
        reader = Reader(data)
        if reader.u8() != FORMAT:
            raise DecodeError("unknown format of a cached peer")
        identity = Identity.read(reader).public()
        version = Version(reader.u16(), reader.u16(), reader.u16(), reader.u16())
        addresses = tuple(InetAddress.read(reader) for _ in range(reader.u16()))
        return cls(identity, version, addresses)
