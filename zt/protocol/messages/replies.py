"""OK and ERROR, and what follows the codes of an ERROR (chapter 02, 9.2, 9.3 and 10.2)."""

from dataclasses import dataclass
from struct import Struct
from typing import Self

from zt.protocol.address import MulticastGroup, NetworkId
from zt.protocol.wire import Reader, Value, Writer

_OK = Struct(">BQ")


@dataclass(frozen=True, slots=True)
class Ok(Value):
    """Answers a packet. The body is one of `zt.protocol.messages.OK_BODIES`."""

    verb: int
    packet_id: int
    """Of the packet answered, as it was on the wire."""
    body: bytes = b""

    def encode(self) -> bytes:
        return _OK.pack(self.verb, self.packet_id) + self.body

    @classmethod
    def read(cls, reader: Reader) -> Self:
        verb, packet_id = reader.unpack(_OK)
        return cls(verb, packet_id, reader.rest())


@dataclass(frozen=True, slots=True)
class Error(Value):
    """Refuses a packet. The body is one of `zt.protocol.messages.ERROR_BODIES`, or empty."""

    verb: int
    packet_id: int
    """Of the packet refused, as it was on the wire."""
    code: int
    """An `ErrorCode`, or what later versions may have."""
    body: bytes = b""

    def encode(self) -> bytes:
        return bytes(Writer().u8(self.verb).u64(self.packet_id).u8(self.code).raw(self.body))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u8(), reader.u64(), reader.u8(), reader.rest())


@dataclass(frozen=True, slots=True)
class NetworkError(Value):
    """The network that an error concerns."""

    nwid: NetworkId

    def encode(self) -> bytes:
        return self.nwid.encode()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(NetworkId.read(reader))


@dataclass(frozen=True, slots=True)
class UnwantedMulticast(Value):
    """The group that the sender wants no more of. Never sent by current nodes."""

    nwid: NetworkId
    group: MulticastGroup

    def encode(self) -> bytes:
        return self.nwid.encode() + self.group.encode()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(NetworkId.read(reader), MulticastGroup.read(reader))


@dataclass(frozen=True, slots=True)
class AuthenticationRequired(Value):
    """Where to authenticate before a network lets one in."""

    nwid: NetworkId
    data: bytes | None = None
    """A dictionary (chapter 04, 5.6), at most 8191 bytes are of use."""

    def encode(self) -> bytes:
        out = Writer().u64(self.nwid)
        if self.data is not None:
            out.u16(len(self.data)).raw(self.data)
        return bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        # Up to 2 bytes behind the network mean that there is no dictionary.
        data = reader.take(reader.u16()) if reader.remaining > 2 else b""
        return cls(nwid, data or None)
