"""Messages of virtual networks (chapter 02, 9.6, 9.7, 9.9 to 9.14; chapter 04, 7.8 and 9).

Configuration chunks are in `zt.protocol.netconf`.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

from zt.protocol.address import Address, Mac, MulticastGroup, NetworkId
from zt.protocol.credentials import Capability, Com, Ownership, Revocation, Tag
from zt.protocol.errors import DecodeError
from zt.protocol.wire import Reader, Value, Writer


@dataclass(frozen=True, slots=True)
class Frame(Value):
    """An Ethernet frame between the MACs of sender and receiver."""

    nwid: NetworkId
    ethertype: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        return bytes(Writer().u64(self.nwid).u16(self.ethertype).raw(self.payload))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        # Without an ethertype it still proves membership.
        nwid = NetworkId.read(reader)
        return cls(nwid, reader.u16(), reader.rest()) if reader.remaining >= 2 else cls(nwid)


@dataclass(frozen=True, slots=True)
class ExtFrame(Value):
    """An Ethernet frame with both MACs, for bridges and for rules that copy or redirect."""

    HAS_COM = 0x01
    ACKNOWLEDGE = 0x10
    TEE_OUT = 0x02
    REDIRECT_OUT = 0x04
    WATCH_OUT = 0x16
    TEE_IN = 0x08
    REDIRECT_IN = 0x0A
    WATCH_IN = 0x1C

    nwid: NetworkId
    destination: Mac
    source: Mac
    ethertype: int
    payload: bytes
    flags: int = 0
    """Without `HAS_COM`, which follows from the next field."""
    com: Com | None = None

    def encode(self) -> bytes:
        out = Writer().u64(self.nwid)
        if self.com is None:
            out.u8(self.flags)
        else:
            out.u8(self.flags | self.HAS_COM).raw(self.com.encode())
        out.u48(self.destination).u48(self.source).u16(self.ethertype)
        return bytes(out.raw(self.payload))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Without a certificate the frame may be cut short, and then is empty."""
        nwid = NetworkId.read(reader)
        flags = reader.u8()
        com = Com.read(reader) if flags & cls.HAS_COM else None
        flags &= ~cls.HAS_COM
        if com is None and reader.remaining < 14:
            return cls(nwid, Mac(0), Mac(0), 0, b"", flags)
        destination, source = Mac.read(reader), Mac.read(reader)
        return cls(nwid, destination, source, reader.u16(), reader.rest(), flags, com)


@dataclass(frozen=True, slots=True)
class ExtFrameReceived(Value):
    """OK to an EXT_FRAME that asked for it."""

    nwid: NetworkId

    def encode(self) -> bytes:
        return self.nwid.encode()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(NetworkId.read(reader))


@dataclass(frozen=True, slots=True)
class MulticastLike(Value):
    """Groups that the sender wants; networks may be mixed."""

    groups: tuple[tuple[NetworkId, MulticastGroup], ...]

    RECORD_SIZE = 18

    def encode(self) -> bytes:
        return b"".join(nwid.encode() + group.encode() for nwid, group in self.groups)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        # An incomplete last record does not undo those before.
        count = reader.remaining // cls.RECORD_SIZE
        return cls(
            tuple((NetworkId.read(reader), MulticastGroup.read(reader)) for _ in range(count))
        )


_T = TypeVar("_T", bound=Value)


def _read_list(reader: Reader, kind: type[_T]) -> tuple[_T, ...]:
    return tuple(kind.read(reader) for _ in range(reader.u16()))


@dataclass(frozen=True, slots=True)
class NetworkCredentials(Value):
    """Credentials of any networks, in five parts. It may end after any of them."""

    coms: tuple[Com, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    ownerships: tuple[Ownership, ...] = ()
    parts: int = 5
    """How many parts there are, 1..5; what is behind is empty."""

    def encode(self) -> bytes:
        out = bytearray(b"".join(com.encode() for com in self.coms) + b"\0")
        lists = (self.capabilities, self.tags, self.revocations, self.ownerships)
        for values in lists[: self.parts - 1]:
            out += len(values).to_bytes(2)
            out += b"".join(value.encode() for value in values)
        return bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        coms = []
        while reader.remaining and reader.data[reader.offset]:
            coms.append(Com.read(reader))
        if reader.remaining:
            reader.skip(1)  # the 0 that ends the certificates
        parts = 1
        capabilities: tuple[Capability, ...] = ()
        tags: tuple[Tag, ...] = ()
        revocations: tuple[Revocation, ...] = ()
        ownerships: tuple[Ownership, ...] = ()
        if reader.remaining:
            parts, capabilities = 2, _read_list(reader, Capability)
        if reader.remaining:
            parts, tags = 3, _read_list(reader, Tag)
        if reader.remaining:
            parts, revocations = 4, _read_list(reader, Revocation)
        if reader.remaining:
            parts, ownerships = 5, _read_list(reader, Ownership)
        return cls(tuple(coms), capabilities, tags, revocations, ownerships, parts)


@dataclass(frozen=True, slots=True)
class NetworkConfigRequest(Value):
    """Asks the controller for a member's configuration."""

    nwid: NetworkId
    metadata: bytes | None = b""
    """A dictionary (`zt.protocol.netconf.RequestMetadata`); None if missing or cut short, which
    controllers ignore and everybody else answers."""
    revision: int = 0
    timestamp: int = 0
    """Of the configuration held; nobody reads them."""

    def encode(self) -> bytes:
        out = Writer().u64(self.nwid)
        if self.metadata is not None:
            out.u16(len(self.metadata)).raw(self.metadata).u64(self.revision).u64(self.timestamp)
        return bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        size = reader.u16() if reader.remaining >= 2 else 0xFFFF
        if size > reader.remaining:
            return cls(nwid, None)
        metadata = reader.take(size)
        if reader.remaining < 16:
            return cls(nwid, metadata)
        return cls(nwid, metadata, reader.u64(), reader.u64())


@dataclass(frozen=True, slots=True)
class ConfigReceived(Value):
    """OK to a NETWORK_CONFIG that completed a configuration."""

    nwid: NetworkId
    update_id: int

    def encode(self) -> bytes:
        return bytes(Writer().u64(self.nwid).u64(self.update_id))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(NetworkId.read(reader), reader.u64())


@dataclass(frozen=True, slots=True)
class MulticastGather(Value):
    """Asks for members that want a group."""

    HAS_COM = 0x01

    nwid: NetworkId
    group: MulticastGroup
    limit: int
    flags: int = 0
    """Without `HAS_COM`, which follows from the next field."""
    com: Com | None = None

    def encode(self) -> bytes:
        flags = self.flags if self.com is None else self.flags | self.HAS_COM
        out = Writer().u64(self.nwid).u8(flags).raw(self.group.encode()).u32(self.limit)
        return bytes(out if self.com is None else out.raw(self.com.encode()))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        flags = reader.u8()
        group = MulticastGroup.read(reader)
        limit = reader.u32()
        com = None
        if flags & cls.HAS_COM:
            try:
                com = Com.read(reader)
            except DecodeError:
                com = None  # the question stands without it
        return cls(nwid, group, limit, flags & ~cls.HAS_COM, com)


@dataclass(frozen=True, slots=True)
class Members(Value):
    """Gather results: some members that want a group."""

    total: int
    """How many the responder knows."""
    addresses: tuple[Address, ...]

    def encode(self) -> bytes:
        out = Writer().u32(self.total).u16(len(self.addresses))
        return bytes(out.raw(b"".join(address.encode() for address in self.addresses)))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        total = reader.u32()
        count = reader.u16()
        if 5 * count > reader.remaining:
            raise DecodeError(f"gather results of {count} members in {reader.remaining} bytes")
        return cls(total, tuple(Address.read(reader) for _ in range(count)))


@dataclass(frozen=True, slots=True)
class GatherResults(Value):
    """OK to MULTICAST_GATHER."""

    nwid: NetworkId
    group: MulticastGroup
    members: Members

    def encode(self) -> bytes:
        return self.nwid.encode() + self.group.encode() + self.members.encode()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(NetworkId.read(reader), MulticastGroup.read(reader), Members.read(reader))


@dataclass(frozen=True, slots=True)
class MulticastFrame(Value):
    """An Ethernet frame to a group; optionally asks for members of it."""

    HAS_COM = 0x01
    HAS_LIMIT = 0x02
    HAS_SOURCE = 0x04
    REPLICATE = 0x08

    nwid: NetworkId
    group: MulticastGroup
    ethertype: int
    payload: bytes
    source: Mac | None = None
    """None: the MAC of the sender."""
    gather_limit: int | None = None
    flags: int = 0
    """Without the bits that follow from other fields."""
    com: Com | None = None

    def encode(self) -> bytes:
        flags = self.flags
        out = Writer()
        if self.com is not None:
            flags |= self.HAS_COM
            out.raw(self.com.encode())
        if self.gather_limit is not None:
            flags |= self.HAS_LIMIT
            out.u32(self.gather_limit)
        if self.source is not None:
            flags |= self.HAS_SOURCE
            out.u48(self.source)
        out.raw(self.group.encode()).u16(self.ethertype).raw(self.payload)
        return self.nwid.encode() + bytes((flags,)) + bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        flags = reader.u8()
        com = Com.read(reader) if flags & cls.HAS_COM else None
        limit = reader.u32() if flags & cls.HAS_LIMIT else None
        source = Mac.read(reader) if flags & cls.HAS_SOURCE else None
        group = MulticastGroup.read(reader)
        flags &= ~(cls.HAS_COM | cls.HAS_LIMIT | cls.HAS_SOURCE)
        return cls(nwid, group, reader.u16(), reader.rest(), source, limit, flags, com)


@dataclass(frozen=True, slots=True)
class MulticastFrameResults(Value):
    """OK to MULTICAST_FRAME."""

    HAS_COM = 0x01
    HAS_MEMBERS = 0x02

    nwid: NetworkId
    group: MulticastGroup
    members: Members | None = None
    flags: int = 0
    """Without the bits that follow from other fields."""
    com: Com | None = None

    def encode(self) -> bytes:
        flags = self.flags
        out = Writer()
        if self.com is not None:
            flags |= self.HAS_COM
            out.raw(self.com.encode())
        if self.members is not None:
            flags |= self.HAS_MEMBERS
            out.raw(self.members.encode())
        return self.nwid.encode() + self.group.encode() + bytes((flags,)) + bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        group = MulticastGroup.read(reader)
        flags = reader.u8()
        com = Com.read(reader) if flags & cls.HAS_COM else None
        members = Members.read(reader) if flags & cls.HAS_MEMBERS else None
        return cls(nwid, group, members, flags & ~(cls.HAS_COM | cls.HAS_MEMBERS), com)
