"""Network configurations: the value, its dictionary, and the signed chunks it travels in.

Chapter 04, 5.5, 5.6 and 6.
"""

from dataclasses import dataclass, field, replace
from struct import Struct
from typing import NamedTuple, Self, TypeVar

from zt.protocol import rules
from zt.protocol.address import NOBODY, Address, NetworkId
from zt.protocol.credentials import Capability, Com, Ownership, Tag
from zt.protocol.dictionary import (
    CONFIG_CAPACITY,
    ERROR_CAPACITY,
    METADATA_CAPACITY,
    Dictionary,
    DictionaryWriter,
)
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import NIL, InetAddress
from zt.protocol.keys import SIGNATURE_SIZE
from zt.protocol.packet import PROTOCOL_VERSION
from zt.protocol.wire import Reader, Value, Writer

CONFIG_VERSION = 7
MIN_CONFIG_VERSION = 6
RULES_REVISION = 1

DEFAULT_MTU = 2800
MIN_MTU = 1280
MAX_MTU = 10000
NAME_SIZE = 127
DNS_DOMAIN_SIZE = 128
DNS_SERVERS = 4
MAX_ROUTES = 128
MAX_STATIC_IPS = 32
MAX_SPECIALISTS = 256
MAX_RULES = 1024
MAX_CAPABILITIES = 128
MAX_TAGS = 128
MAX_OWNERSHIPS = 4

# Credential windows in ms: how far apart the times of two members' certificates may be.
DEFAULT_WINDOW = 1_800_000
MIN_WINDOW = 300_000
MAX_WINDOW = 7_200_000

# Flags of a configuration.
BROADCAST = 0x02
NDP_EMULATION = 0x04
UNSUPPORTED_MATCHES = 0x08
"""Rules that a node does not know match."""
NO_MULTICAST_COMPRESSION = 0x10

# Roles of specialists, above the 40 bits of the address.
ACTIVE_BRIDGE = 0x020000000000
ANCHOR = 0x040000000000
REPLICATOR = 0x080000000000

_ADDRESS_MASK = 0xFF_FFFF_FFFF


class Route(NamedTuple):
    """A managed route; without ``via`` the target is on the virtual link itself."""

    target: InetAddress
    via: InetAddress = NIL
    flags: int = 0
    metric: int = 0

    def encode(self) -> bytes:
        return self.target.encode() + self.via.encode() + _ROUTE_TAIL.pack(self.flags, self.metric)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        target, via = InetAddress.read(reader), InetAddress.read(reader)
        return cls(target, via, *reader.unpack(_ROUTE_TAIL))


_ROUTE_TAIL = Struct(">HH")


class Dns(NamedTuple):
    """A search domain and its servers; always four slots, nil where there is none."""

    domain: str = ""
    servers: tuple[InetAddress, ...] = (NIL,) * DNS_SERVERS

    def encode(self) -> bytes:
        domain = self.domain.encode(errors="replace")[: DNS_DOMAIN_SIZE - 1]
        servers = (*self.servers, *(NIL,) * DNS_SERVERS)[:DNS_SERVERS]
        return domain.ljust(DNS_DOMAIN_SIZE, b"\0") + b"".join(s.encode() for s in servers)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        domain = reader.take(DNS_DOMAIN_SIZE)[:-1].partition(b"\0")[0]
        servers = tuple(InetAddress.read(reader) for _ in range(DNS_SERVERS))
        return cls(domain.decode(errors="replace"), servers)


NO_DNS = Dns()

# Room for texts in configurations and errors, in bytes.
_URL, _NONCE, _STATE, _CLIENT_ID, _PROVIDER = 2047, 63, 127, 255, 63
DEFAULT_PROVIDER = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sso:
    """Single sign-on. Version 0 sends the user to a URL, version 1 is OpenID Connect."""

    version: int = 0
    enabled: bool = False
    authentication_url: str = ""
    expiry_ms: int = 0
    """When the member has to authenticate again; version 0."""
    issuer_url: str = ""
    central_url: str = ""
    nonce: str = ""
    state: str = ""
    client_id: str = ""
    provider: str = DEFAULT_PROVIDER

    def write(self, out: DictionaryWriter) -> bool:
        """The keys of a configuration; False if they do not all fit."""
        fits = [out.u64("ssov", self.version), out.boolean("ssoe", self.enabled)]
        if self.version == 0 and self.enabled:
            if self.authentication_url:
                fits.append(out.text("aurl", self.authentication_url))
            fits.append(out.u64("aexpt", self.expiry_ms))
        elif self.version == 1:
            fits += (
                out.text("iurl", self.issuer_url),
                out.text("ssoce", self.central_url),
                out.text("sson", self.nonce),
                out.text("ssos", self.state),
                out.text("ssocid", self.client_id),
                out.text("ssop", self.provider),
            )
        return all(fits)

    @classmethod
    def of_config(cls, keys: Dictionary) -> Self:
        version, enabled = keys.u64("ssov"), keys.boolean("ssoe")
        if not enabled:
            return cls(version=version)
        if version == 0:
            return cls(
                enabled=True,
                authentication_url=keys.text("aurl", _URL),
                expiry_ms=keys.i64("aexpt"),
            )
        if version != 1:
            return cls(version=version, enabled=True)
        return cls(
            version=1,
            enabled=True,
            issuer_url=keys.text("iurl", _URL),
            central_url=keys.text("ssoce", _URL),
            nonce=keys.text("sson", _NONCE),
            state=keys.text("ssos", _STATE),
            client_id=keys.text("ssocid", _CLIENT_ID),
            provider=keys.text("ssop", _PROVIDER) or DEFAULT_PROVIDER,
        )

    @classmethod
    def of_error(cls, data: bytes | None) -> Self | None:
        """What an AUTHENTICATION_REQUIRED tells; None if it is of no use (chapter 04, 5.6)."""
        if data is None:
            return cls(enabled=True)
        keys = Dictionary.decode(data, ERROR_CAPACITY)
        version = keys.u64("aV")
        if version == 0:
            url = keys.text("aU", _URL)
            return cls(enabled=True, authentication_url=url) if url else None
        if version != 1:
            return None
        return cls(
            version=1,
            enabled=True,
            issuer_url=keys.text("iU", _URL),
            central_url=keys.text("aCU", _URL),
            nonce=keys.text("aN", _NONCE),
            state=keys.text("aS", _STATE),
            client_id=keys.text("aCID", _CLIENT_ID),
            provider=keys.text("aSSOp", _PROVIDER) or DEFAULT_PROVIDER,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """What a controller tells one member about its network. Times in ms.

    ``rules`` is a canonical table (`zt.protocol.rules`). Decoding verifies no signature.
    """

    nwid: NetworkId
    issued_to: Address
    timestamp: int
    window: int = DEFAULT_WINDOW
    revision: int = 0
    trace_target: Address = NOBODY
    trace_level: int = 0
    flags: int = 0
    multicast_limit: int = 0
    public: bool = False
    name: str = ""
    mtu: int = DEFAULT_MTU
    com: Com | None = None
    capabilities: tuple[Capability, ...] = ()
    """Ascending by ID, as are the tags."""
    tags: tuple[Tag, ...] = ()
    ownerships: tuple[Ownership, ...] = ()
    specialists: tuple[int, ...] = ()
    """An address with roles in the bits above it."""
    routes: tuple[Route, ...] = ()
    static_ips: tuple[InetAddress, ...] = ()
    """With the prefix length of the on-link network; may hold nil entries."""
    rules: bytes = b""
    dns: Dns = NO_DNS
    sso: Sso = field(default_factory=Sso)

    def specialists_with(self, role: int) -> tuple[Address, ...]:
        """Who has this role (`ACTIVE_BRIDGE`, `ANCHOR`, `REPLICATOR`, or any of several)."""
        return tuple(Address(s & _ADDRESS_MASK) for s in self.specialists if s & role)

    @property
    def broadcast(self) -> bool:
        return bool(self.flags & BROADCAST)

    @property
    def ndp_emulation(self) -> bool:
        return bool(self.flags & NDP_EMULATION)

    def encode(self) -> bytes:
        """The dictionary.

        :raises ValueError: it exceeds the 484519 bytes that receivers accept.
        """
        out = DictionaryWriter(CONFIG_CAPACITY)
        out.u64("v", CONFIG_VERSION)
        out.u64("nwid", self.nwid)
        out.i64("ts", self.timestamp)
        out.i64("ctmd", self.window)
        out.u64("r", self.revision)
        out.address("id", self.issued_to)
        out.address("tt", self.trace_target)
        out.u64("tl", self.trace_level)
        out.u64("f", self.flags)
        out.u64("ml", self.multicast_limit)
        out.u64("t", self.public)
        out.blob("n", self.name.encode(errors="replace")[:NAME_SIZE])
        out.u64("mtu", self.mtu)
        blobs = (
            ("C", self.com.encode() if self.com else b""),
            ("CAP", b"".join(capability.encode() for capability in self.capabilities)),
            ("TAG", b"".join(tag.encode() for tag in self.tags)),
            ("COO", b"".join(ownership.encode() for ownership in self.ownerships)),
            ("S", b"".join(specialist.to_bytes(8) for specialist in self.specialists)),
            ("RT", b"".join(route.encode() for route in self.routes)),
            ("I", b"".join(ip.encode() for ip in self.static_ips)),
            ("R", self.rules),
            ("DNS", self.dns.encode()),
        )
        fits = all(out.blob(key, blob) for key, blob in blobs if blob)
        if not (self.sso.write(out) and fits):
            raise ValueError(f"configuration of {self.nwid} for {self.issued_to} is too large")
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From a dictionary, leniently where the protocol is (6.2).

        :raises DecodeError: an essential key is missing, or a list is damaged that must not be.
        """
        if len(data) >= CONFIG_CAPACITY:
            raise DecodeError(f"configuration of {len(data)} bytes")
        keys = Dictionary.decode(data)
        nwid, issued_to = NetworkId(keys.u64("nwid")), keys.address("id")
        if nwid == 0 or issued_to == 0:
            raise DecodeError("configuration without network or member")
        if keys.u64("v") < MIN_CONFIG_VERSION:
            raise DecodeError(f"configuration of version {keys.u64('v')}")
        com = keys.blob("C")
        dns = keys.blob("DNS")
        specialists = Reader(keys.blob("S"))
        return cls(
            nwid=nwid,
            issued_to=issued_to,
            timestamp=keys.i64("ts"),
            window=keys.i64("ctmd"),
            revision=keys.u64("r"),
            trace_target=keys.address("tt"),
            trace_level=keys.u64("tl"),
            flags=keys.u64("f"),
            multicast_limit=keys.u64("ml") & 0xFFFF_FFFF,
            public=keys.u64("t") == 1,
            name=keys.text("n", NAME_SIZE),
            mtu=min(max(keys.u64("mtu", DEFAULT_MTU), MIN_MTU), MAX_MTU),
            com=(Com.decode(com) or None) if com else None,
            capabilities=_readable(keys.blob("CAP"), Capability, MAX_CAPABILITIES),
            tags=_readable(keys.blob("TAG"), Tag, MAX_TAGS),
            # Those in excess are decoded all the same: damage anywhere counts.
            ownerships=tuple(_all(keys.blob("COO"), Ownership))[:MAX_OWNERSHIPS],
            specialists=tuple(
                specialists.u64() for _ in range(min(specialists.remaining // 8, MAX_SPECIALISTS))
            ),
            routes=tuple(_all(keys.blob("RT"), Route, MAX_ROUTES)),
            static_ips=tuple(_all(keys.blob("I"), InetAddress, MAX_STATIC_IPS)),
            rules=rules.read(Reader(keys.blob("R")), MAX_RULES),
            dns=Dns.read(Reader(dns)) if dns else NO_DNS,
            sso=Sso.of_config(keys),
        )


_T = TypeVar("_T", Ownership, Route, InetAddress)
_Identified = TypeVar("_Identified", Capability, Tag)


def _all(blob: bytes, kind: type[_T], limit: int | None = None) -> list[_T]:
    """The values in a blob, one behind the other."""
    reader = Reader(blob)
    values: list[_T] = []
    while reader.remaining and len(values) != limit:
        values.append(kind.read(reader))
    return values


def _readable(blob: bytes, kind: type[_Identified], limit: int) -> tuple[_Identified, ...]:
    """Those before the first damaged one, by ID."""
    reader = Reader(blob)
    values: list[_Identified] = []
    try:
        while reader.remaining and len(values) < limit:
            values.append(kind.read(reader))
    except DecodeError:
        pass
    return tuple(sorted(values, key=lambda value: value.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetadata:
    """What a node tells the controller about itself when it asks for a configuration (5.5).

    A key that is missing is 0 or empty.
    """

    version: int = 0
    vendor: int = 0
    protocol: int = 0
    major: int = 0
    minor: int = 0
    revision: int = 0
    max_rules: int = 0
    max_capabilities: int = 0
    max_capability_rules: int = 0
    max_tags: int = 0
    flags: int = 0
    rules_revision: int = 0
    """0: knows no rules, and gets a single ACCEPT."""
    platform: str = ""
    token: str = ""
    """An authorization token."""

    @classmethod
    def own(cls, platform: str) -> Self:
        """What we say; ``platform`` is like ``linux/x86_64``."""
        return cls(
            version=CONFIG_VERSION, vendor=1, protocol=PROTOCOL_VERSION, major=1, minor=14,
            revision=1, max_rules=MAX_RULES, max_capabilities=MAX_CAPABILITIES,
            max_capability_rules=64, max_tags=MAX_TAGS, rules_revision=RULES_REVISION,
            platform=platform,
        )  # fmt: skip

    def encode(self) -> bytes:
        """The dictionary; texts that do not fit its 1023 bytes are left out."""
        out = DictionaryWriter(METADATA_CAPACITY)
        for key, name in _METADATA_NUMBERS.items():
            out.u64(key, getattr(self, name))
        out.text("o", self.platform)
        if self.token:
            out.text("a", self.token)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        keys = Dictionary.decode(data, METADATA_CAPACITY)
        numbers = {name: keys.u64(key) for key, name in _METADATA_NUMBERS.items()}
        return cls(platform=keys.text("o"), token=keys.text("a"), **numbers)


_METADATA_NUMBERS = {
    "v": "version",
    "vend": "vendor",
    "pv": "protocol",
    "majv": "major",
    "minv": "minor",
    "revv": "revision",
    "mr": "max_rules",
    "mc": "max_capabilities",
    "mcr": "max_capability_rules",
    "mt": "max_tags",
    "f": "flags",
    "revr": "rules_revision",
}


# Chunks

CHUNK_SIZE = 9740
"""Bytes of the dictionary in one chunk, at most."""
MAX_CHUNKS = 474
"""Of one configuration."""
CHUNK_FAST_PROPAGATE = 0x01
"""Receivers pass the chunk on to other members."""

_CHUNK_TAIL = Struct(">BQII")


@dataclass(frozen=True, slots=True)
class ConfigChunk(Value):
    """Part of a configuration: body of NETWORK_CONFIG and of OK(NETWORK_CONFIG_REQUEST)."""

    nwid: NetworkId
    data: bytes
    flags: int
    update_id: int
    """Random and not 0, the same in all chunks of one configuration."""
    total: int
    """Size of the whole dictionary."""
    offset: int
    signature: bytes | None
    """By the controller. None: the old form, a whole configuration that ends after ``data``, which
    counts only if it comes from the controller itself."""

    @property
    def id(self) -> int:
        """Tells chunks of one update apart."""
        signature = self.signature or bytes(16)
        return int.from_bytes(signature[:8]) ^ int.from_bytes(signature[8:16])

    @property
    def fast_propagate(self) -> bool:
        return bool(self.flags & CHUNK_FAST_PROPAGATE)

    def signed_bytes(self) -> bytes:
        out = Writer().u64(self.nwid).u16(len(self.data)).raw(self.data)
        return bytes(out.raw(_CHUNK_TAIL.pack(self.flags, self.update_id, self.total, self.offset)))

    def sign(self, controller: Identity) -> Self:
        return replace(self, signature=controller.sign(self.signed_bytes()))

    def verify(self, controller: Identity) -> bool:
        """Signed by this identity? The caller knows that it is the controller's."""
        return self.signature is not None and controller.verify(self.signed_bytes(), self.signature)

    def encode(self) -> bytes:
        if self.signature is None:
            return bytes(Writer().u64(self.nwid).u16(len(self.data)).raw(self.data))
        return self.signed_bytes() + b"\x01\0\x60" + self.signature

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid = NetworkId.read(reader)
        data = reader.take(reader.u16())
        if not reader.remaining:
            return cls(nwid, data, 0, 0, len(data), 0, None)
        flags, update_id, total, offset = reader.unpack(_CHUNK_TAIL)
        if total >= CONFIG_CAPACITY or offset + len(data) > total:
            raise DecodeError(f"chunk at {offset} of a configuration of {total} bytes")
        if reader.u8() != 1 or reader.u16() != SIGNATURE_SIZE:
            raise DecodeError("chunk with an unknown kind of signature")
        return cls(nwid, data, flags, update_id, total, offset, reader.take(SIGNATURE_SIZE))


def split(
    nwid: NetworkId, dictionary: bytes, update_id: int, signer: Identity
) -> list[ConfigChunk]:
    """The signed chunks of a configuration; ``update_id`` is 64 random bits, not 0."""
    total = len(dictionary)
    return [
        ConfigChunk(
            nwid, dictionary[offset : offset + CHUNK_SIZE], 0, update_id, total, offset, None
        ).sign(signer)
        for offset in range(0, total, CHUNK_SIZE)
    ]


class _Update:
    """A configuration that is coming in."""

    __slots__ = ("chunk_ids", "data", "received", "update_id", "uses")

    def __init__(self) -> None:
        self.uses = 0
        self.restart(None)

    def restart(self, update_id: int | None) -> None:
        self.update_id = update_id
        self.chunk_ids: set[int] = set()
        self.received = 0
        self.data = bytearray()


class Assembler:
    """Joins the chunks of one network's configurations; holds three updates at a time (6.3).

    Chunks must have been verified: what is in them is trusted.
    """

    UPDATES = 3

    def __init__(self) -> None:
        self._updates = [_Update() for _ in range(self.UPDATES)]

    def has(self, chunk: ConfigChunk) -> bool:
        """Was this very chunk added already? Asked before the costly verification."""
        return any(
            u.update_id == chunk.update_id and chunk.id in u.chunk_ids for u in self._updates
        )

    def add(self, chunk: ConfigChunk) -> bytes | None:
        """The whole dictionary, if this chunk completes it.

        The caller gives a chunk of the old form the packet ID for its update ID.
        """
        update = self._find(chunk.update_id)
        update.uses += 1
        if update.update_id != chunk.update_id:
            update.restart(chunk.update_id)
        if chunk.id in update.chunk_ids or len(update.chunk_ids) >= MAX_CHUNKS:
            return None
        update.chunk_ids.add(chunk.id)
        end = chunk.offset + len(chunk.data)
        if len(update.data) < end:
            update.data.extend(bytes(end - len(update.data)))
        update.data[chunk.offset : end] = chunk.data
        update.received += len(chunk.data)
        if update.received != chunk.total:
            return None
        whole = bytes(update.data[: chunk.total])
        update.data = bytearray()
        return whole

    def _find(self, update_id: int) -> _Update:
        for update in self._updates:
            if update.update_id == update_id:
                return update
        return min(self._updates, key=lambda update: update.uses)
