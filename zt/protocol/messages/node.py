"""Messages between nodes that concern no network (chapter 02, 9.1, 9.4, 9.5, 9.8, 9.15 to 9.21)."""

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, Self

from zt.protocol.address import Address
from zt.protocol.dictionary import TRACE_CAPACITY
from zt.protocol.errors import DecodeError
from zt.protocol.identity import PUBLIC_SIZE, Identity
from zt.protocol.inet import NIL, InetAddress
from zt.protocol.packet import PROTOCOL_VERSION
from zt.protocol.wire import Reader, Value, Writer
from zt.protocol.world import NO_VERSION, World, WorldType, WorldVersion


class Version(NamedTuple):
    """What a node announces of itself."""

    protocol: int
    major: int
    minor: int
    revision: int

    def encode(self) -> bytes:
        return _VERSION.pack(*self)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(*reader.unpack(_VERSION))


_VERSION = Struct(">BBBH")

OWN_VERSION = Version(PROTOCOL_VERSION, 1, 14, 1)
"""The version we are compatible with; it shows in peer lists, and one gate tests it."""


@dataclass(frozen=True, slots=True)
class Nop(Value):
    """Nothing; contents are ignored."""

    data: bytes = b""

    def encode(self) -> bytes:
        return self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


_MOON = Struct(">BQQ")
_PLANET = Struct(">QQ")
_IDENTITY_OFFSET = 13
_HELLO_HEAD = Struct(f">BBBHQ{PUBLIC_SIZE - 1}xB")
"""Version, timestamp, what an identity has in front of its private key, the size of that."""


class HelloHead(NamedTuple):
    """What a HELLO has in front of its masked tail, its identity aside.

    All that a root needs of a peer it knows, and it reads hundreds a second.
    """

    version: Version
    timestamp: int
    sent_to: InetAddress | None
    planet: WorldVersion | None

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The tail is what the reader has left then."""
        *version, timestamp, private_size = reader.unpack(_HELLO_HEAD)
        if private_size:  # somebody is so careless
            reader.skip(private_size)
        sent_to = InetAddress.read(reader) if reader.remaining else None
        planet = WorldVersion(*reader.unpack(_PLANET)) if reader.remaining >= 16 else None
        return cls(Version(*version), timestamp, sent_to, planet)


@dataclass(frozen=True, slots=True)
class Hello(Value):
    """HELLO. It may end early: None stands for what is not there.

    On the wire the moons are masked (chapter 01, 6.5) from `tail_offset` on; encoding and decoding
    are of the clear form.
    """

    version: Version
    timestamp: int
    """Sender's clock in ms, echoed by the OK."""
    identity: Identity
    sent_to: InetAddress | None = NIL
    """The physical address it was sent to; nil if it went wherever the route led."""
    planet: WorldVersion | None = NO_VERSION
    moons: tuple[WorldVersion, ...] | None = ()
    """Moons held, then moons wanted with timestamp 0."""

    def encode(self) -> bytes:
        out = Writer().raw(self.version.encode()).u64(self.timestamp).raw(self.identity.encode())
        if self.sent_to is None:
            return bytes(out)
        out.raw(self.sent_to.encode())
        if self.planet is not None:
            out.u64(self.planet.id).u64(self.planet.timestamp)
        if self.moons is not None:
            out.u16(len(self.moons))
            for moon in self.moons:
                out.raw(_MOON.pack(WorldType.MOON, *moon))
        return bytes(out)

    @staticmethod
    def claimed_identity(payload: bytes | bytearray) -> Identity:
        """The sender's identity, before anything is authenticated: it supplies the key."""
        return Identity.read(Reader(payload, _IDENTITY_OFFSET)).public()

    @staticmethod
    def tail_offset(payload: bytes | bytearray) -> int:
        """Where in the payload the masked tail begins; its end if there is none."""
        reader = Reader(payload)
        HelloHead.read(reader)
        return reader.offset

    @classmethod
    def read(cls, reader: Reader) -> Self:
        identity = Identity.read(Reader(reader.data, reader.offset + _IDENTITY_OFFSET)).public()
        head = HelloHead.read(reader)
        moons = read_moons(reader)
        return cls(head.version, head.timestamp, identity, head.sent_to, head.planet, moons)


def read_moons(reader: Reader) -> tuple[WorldVersion, ...] | None:
    """The tail of a HELLO, unmasked."""
    if reader.remaining < 2:
        return None
    entries = [reader.unpack(_MOON) for _ in range(reader.u16())]
    return tuple(WorldVersion(id, ts) for kind, id, ts in entries if kind == WorldType.MOON)


_OK_HELLO_HEAD = Struct(">QBBBH")


@dataclass(frozen=True, slots=True)
class OkHello(Value):
    """The answer to HELLO."""

    timestamp: int
    """Copied from the HELLO."""
    version: Version
    seen_as: InetAddress = NIL
    """Where the HELLO came from, as the responder sees it."""
    worlds: bytes = b""
    """Worlds newer than the HELLO named, encoded one behind the other."""

    def decode_worlds(self) -> tuple[World, ...]:
        """Kept apart, because only some senders may bring worlds."""
        reader = Reader(self.worlds)
        worlds = []
        while reader.remaining:
            worlds.append(World.read(reader))
        return tuple(worlds)

    def encode(self) -> bytes:
        head = _OK_HELLO_HEAD.pack(self.timestamp, *self.version)
        return head + self.seen_as.encode() + len(self.worlds).to_bytes(2) + self.worlds

    @classmethod
    def read(cls, reader: Reader) -> Self:
        timestamp = reader.u64()
        version = Version.read(reader)
        seen_as = InetAddress.read(reader) if reader.remaining else NIL
        worlds = reader.take(reader.u16()) if reader.remaining >= 2 else b""
        return cls(timestamp, version, seen_as, worlds)


@dataclass(frozen=True, slots=True)
class Whois(Value):
    """Asks for identities. Ask for one at a time: not everybody reads more than one answer."""

    addresses: tuple[Address, ...]

    def encode(self) -> bytes:
        return b"".join(address.encode() for address in self.addresses)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        # 1..4 stray bytes are no address.
        return cls(tuple(Address.read(reader) for _ in range(reader.remaining // 5)))


@dataclass(frozen=True, slots=True)
class OkWhois(Value):
    """Those of the identities asked for that the responder knows."""

    identities: tuple[Identity, ...]

    def encode(self) -> bytes:
        return b"".join(identity.encode() for identity in self.identities)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        identities = []
        while reader.remaining:
            identities.append(Identity.read(reader).public())
        return cls(tuple(identities))


@dataclass(frozen=True, slots=True)
class Rendezvous(Value):
    """Tells a node where a peer can be met."""

    peer: Address
    address: InetAddress
    """Nil if it came in a form that is unknown."""
    flags: int = 0

    def encode(self) -> bytes:
        out = Writer().u8(self.flags).u40(self.peer).u16(self.address.port)
        return bytes(out.u8(len(self.address.ip)).raw(self.address.ip))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        flags = reader.u8()
        peer = Address.read(reader)
        port = reader.u16()
        size = reader.u8()
        address = InetAddress(reader.take(size), port) if size in (4, 16) else NIL
        return cls(peer, address, flags)


@dataclass(frozen=True, slots=True)
class Echo(Value):
    """Asks for the same bytes back; the OK's body is the same."""

    data: bytes = b""

    def encode(self) -> bytes:
        return self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class DirectPath:
    """One record of PUSH_DIRECT_PATHS."""

    FORGET = 0x01
    REDIRECT = 0x02

    address: InetAddress
    """Nil if it is of a type that is unknown."""
    flags: int = 0
    extension: bytes = b""

    @property
    def forget(self) -> bool:
        return bool(self.flags & self.FORGET)

    @property
    def redirect(self) -> bool:
        """Sender is to be reached here from now on."""
        return bool(self.flags & self.REDIRECT)

    def encode(self) -> bytes:
        out = Writer().u8(self.flags).u16(len(self.extension)).raw(self.extension)
        address = self.address
        out.u8(address.version)
        if not address:
            return bytes(out.u8(0))
        return bytes(out.u8(len(address.ip) + 2).raw(address.ip).u16(address.port))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        flags = reader.u8()
        extension = reader.take(reader.u16())
        kind = reader.u8()
        size = reader.u8()
        start = reader.offset
        ip_size = {4: 4, 6: 16}.get(kind, 0)
        address = InetAddress(reader.take(ip_size), reader.u16()) if ip_size else NIL
        # What was read and what is passed over need not be the same.
        reader.offset = start
        reader.skip(size)
        return cls(address, flags, extension)


@dataclass(frozen=True, slots=True)
class PushDirectPaths(Value):
    """Where the sender may be reached directly."""

    paths: tuple[DirectPath, ...]

    def encode(self) -> bytes:
        return len(self.paths).to_bytes(2) + b"".join(path.encode() for path in self.paths)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(tuple(DirectPath.read(reader) for _ in range(reader.u16())))


@dataclass(frozen=True, slots=True)
class Ack(Value):
    """Not sent any more."""

    size: int

    def encode(self) -> bytes:
        return self.size.to_bytes(4)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u32())


class QosRecord(NamedTuple):
    """A packet that came from the peer, and how long until this was reported."""

    packet_id: int
    holding_ms: int


# Written in the sender's native byte order, which in practice is this one.
_QOS_RECORD = Struct("<QH")
QOS_MAX_RECORDS = 140
QOS_MAX_SIZE = 1400


@dataclass(frozen=True, slots=True)
class QosMeasurement(Value):
    """Lets the sender of packets measure latency and loss of a bonded path."""

    records: tuple[QosRecord, ...]

    def encode(self) -> bytes:
        return b"".join(_QOS_RECORD.pack(*record) for record in self.records)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if not _QOS_RECORD.size <= reader.remaining <= QOS_MAX_SIZE:
            raise DecodeError(f"QOS_MEASUREMENT of {reader.remaining} bytes")
        # A partial record at the end is none.
        count = reader.remaining // _QOS_RECORD.size
        return cls(tuple(QosRecord(*reader.unpack(_QOS_RECORD)) for _ in range(count)))


@dataclass(frozen=True, slots=True)
class UserMessage(Value):
    """For the application; types up to 65535 are reserved."""

    type: int
    data: bytes

    def encode(self) -> bytes:
        return self.type.to_bytes(8) + self.data

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u64(), reader.rest())


@dataclass(frozen=True, slots=True)
class RemoteTrace(Value):
    """Dictionaries that describe events (chapter 04, 15), none of them empty."""

    dictionaries: tuple[bytes, ...]

    def encode(self) -> bytes:
        return b"".join(dictionary + b"\0" for dictionary in self.dictionaries)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        *whole, _unterminated = reader.rest().split(b"\0")
        return cls(tuple(text for text in whole if 0 < len(text) <= TRACE_CAPACITY))


@dataclass(frozen=True, slots=True)
class PathNegotiationRequest(Value):
    """How much the sender would like the path in use to be the one this came on."""

    utility: int
    """-32768..32767."""

    def encode(self) -> bytes:
        return self.utility.to_bytes(2, signed=True)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if reader.remaining != 2:
            raise DecodeError(f"PATH_NEGOTIATION_REQUEST of {reader.remaining} bytes")
        return cls(int.from_bytes(reader.take(2), signed=True))
