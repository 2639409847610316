"""What a network's controller signs for its members (chapter 04, 7).

Every credential has ``encode``, ``read``/``decode``, ``sign`` and ``verify``. Signing returns a new
value. Verifying asks a caller's function for identities, because they may have to be fetched first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from struct import Struct
from typing import NamedTuple, Self

from zt.protocol import rules
from zt.protocol.address import NOBODY, Address, NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.keys import SIGNATURE_SIZE
from zt.protocol.wire import Reader, Value, Writer

MAX_QUALIFIERS = 8
MAX_CAPABILITY_RULES = 64
MAX_CUSTODY = 7
MAX_THINGS = 16

FAST_PROPAGATE = 0x01
"""Flag of revocations: whoever learns something new from it passes it on."""

# Largest encoded sizes, as senders count them when they fill packets.
MAX_CAPABILITY_SIZE = 2864
MAX_TAG_SIZE = 136
MAX_OWNERSHIP_SIZE = 416

_UNSIGNED = bytes(SIGNATURE_SIZE)
_ANY = 0xFFFF_FFFF_FFFF_FFFF
_MARK = b"\x7f" * 8


class Kind(IntEnum):
    """Codes of credentials, as revocations name them."""

    NONE = 0
    COM = 1
    CAPABILITY = 2
    TAG = 3
    OWNERSHIP = 4
    REVOCATION = 6


class Verdict(IntEnum):
    """Result of verifying a credential."""

    INVALID = -1
    VALID = 0
    DEFERRED = 1
    """The signer's identity is not known: ask for it, and try again."""


FindIdentity = Callable[[Address], Identity | None]


def _verify(
    find: FindIdentity, signer: Address, expected: Address, message: bytes, signature: bytes
) -> Verdict:
    if signer == 0 or signer != expected:
        return Verdict.INVALID
    identity = find(signer)
    if identity is None:
        return Verdict.DEFERRED
    return Verdict.VALID if identity.verify(message, signature) else Verdict.INVALID


def _marked(fields: bytes) -> bytes:
    """The signed form: no signature, additional fields counted as empty, marks around."""
    return _MARK + fields + b"\0\0" + _MARK


def _signature_block(signature: bytes) -> bytes:
    return b"\x01\0\x60" + signature


def _read_signature(reader: Reader) -> bytes:
    """Signatures of other types are skipped, and stand for one that never verifies."""
    kind = reader.u8()
    size = reader.u16()
    if kind != 1:
        reader.skip(size)
        return _UNSIGNED
    if size != SIGNATURE_SIZE:
        raise DecodeError(f"signature of {size} bytes")
    return reader.take(size)


# Certificate of membership


class Qualifier(NamedTuple):
    """One number that two certificates have to agree on, up to a difference."""

    id: int
    value: int
    max_delta: int


QUALIFIER_TIMESTAMP = 0
QUALIFIER_NETWORK = 1
QUALIFIER_MEMBER = 2
QUALIFIER_HASH = range(3, 7)
"""The first 32 bytes of `Identity.hash`, as four numbers."""

_QUALIFIER = Struct(">QQQ")
_HASH_WORDS = Struct(">QQQQ")


@dataclass(frozen=True, slots=True)
class Com(Value):
    """A certificate of membership; false if it is empty, which stands for none."""

    qualifiers: tuple[Qualifier, ...] = ()
    signer: Address = NOBODY
    signature: bytes = b""
    """96 bytes; none if the signer is 0."""

    def __bool__(self) -> bool:
        return bool(self.qualifiers)

    def _value(self, id: int) -> int:
        return next((q.value for q in self.qualifiers if q.id == id), 0)

    @property
    def timestamp(self) -> int:
        return self._value(QUALIFIER_TIMESTAMP)

    @property
    def nwid(self) -> NetworkId:
        return NetworkId(self._value(QUALIFIER_NETWORK))

    @property
    def issued_to(self) -> Address:
        return Address(self._value(QUALIFIER_MEMBER) & 0xFF_FFFF_FFFF)

    @classmethod
    def issue(cls, nwid: int, member: Identity, timestamp: int, max_delta: int) -> Self:
        """The certificate that controllers give, unsigned; times in ms."""
        words = _HASH_WORDS.unpack_from(member.hash())
        return cls(
            (
                Qualifier(QUALIFIER_TIMESTAMP, timestamp, max_delta),
                Qualifier(QUALIFIER_NETWORK, nwid, 0),
                Qualifier(QUALIFIER_MEMBER, member.address, _ANY),
                *(Qualifier(id, w, _ANY) for id, w in zip(QUALIFIER_HASH, words, strict=True)),
            )
        )

    def signed_bytes(self) -> bytes:
        return b"".join(_QUALIFIER.pack(*qualifier) for qualifier in self.qualifiers)

    def sign(self, signer: Identity) -> Self:
        return replace(self, signer=signer.address, signature=signer.sign(self.signed_bytes()))

    def verify(self, find: FindIdentity) -> Verdict:
        """Signed by the controller of the network it names?"""
        return _verify(find, self.signer, self.nwid.controller, self.signed_bytes(), self.signature)

    def agrees(self, other: "Com", holder: Identity) -> bool:
        """Does ours accept the other, presented by ``holder``? Not symmetric: our deltas count."""
        if not self or not other:
            return False
        theirs = {q.id: q.value for q in other.qualifiers}
        hashed = False
        for id, value, max_delta in self.qualifiers:
            if id not in theirs or abs(value - theirs[id]) > max_delta:
                return False
            hashed = hashed or id in QUALIFIER_HASH
        if hashed:
            words = _HASH_WORDS.unpack_from(holder.hash())
            return all(theirs.get(id) == w for id, w in zip(QUALIFIER_HASH, words, strict=True))
        return True

    def encode(self) -> bytes:
        out = Writer().u8(1).u16(len(self.qualifiers)).raw(self.signed_bytes()).u40(self.signer)
        if self.signer:
            out.raw(self.signature)
        return bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        if (kind := reader.u8()) != 1:
            raise DecodeError(f"unknown type of membership certificate: {kind}")
        if (count := reader.u16()) > MAX_QUALIFIERS:
            raise DecodeError(f"membership certificate of {count} qualifiers")
        qualifiers = tuple(Qualifier(*reader.unpack(_QUALIFIER)) for _ in range(count))
        if any(b.id < a.id for a, b in pairwise(qualifiers)):
            raise DecodeError("membership certificate with qualifiers out of order")
        signer = Address.read(reader)
        return cls(qualifiers, signer, reader.take(SIGNATURE_SIZE) if signer else b"")


# Tag

_TAG = Struct(">QqII5s5s")


@dataclass(frozen=True, slots=True)
class Tag(Value):
    """A number that rules can compare; ``timestamp`` in ms."""

    nwid: NetworkId
    timestamp: int
    id: int
    value: int
    issued_to: Address
    signer: Address = NOBODY
    signature: bytes = _UNSIGNED

    def _fields(self) -> bytes:
        return _TAG.pack(
            self.nwid, self.timestamp, self.id, self.value,
            self.issued_to.encode(), self.signer.encode(),
        )  # fmt: skip

    def signed_bytes(self) -> bytes:
        return _marked(self._fields())

    def sign(self, signer: Identity) -> Self:
        named = replace(self, signer=signer.address)
        return replace(named, signature=signer.sign(named.signed_bytes()))

    def verify(self, find: FindIdentity) -> Verdict:
        """Signed by the controller of its network?"""
        return _verify(find, self.signer, self.nwid.controller, self.signed_bytes(), self.signature)

    def encode(self) -> bytes:
        return self._fields() + _signature_block(self.signature) + b"\0\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid, timestamp, id, value, issued_to, signer = reader.unpack(_TAG)
        signature = _read_signature(reader)
        reader.skip(reader.u16())
        return cls(
            NetworkId(nwid), timestamp, id, value,
            Address.decode(issued_to), Address.decode(signer), signature,
        )  # fmt: skip


# Capability


class Custody(NamedTuple):
    """One link of the chain through which a capability was handed on."""

    to: Address
    from_: Address
    signature: bytes


_CAPABILITY = Struct(">QqIH")


@dataclass(frozen=True, slots=True)
class Capability(Value):
    """Rules that the holder may use in addition to those of the network.

    ``rules`` is a canonical table of at most 64 entries (`zt.protocol.rules`).
    """

    nwid: NetworkId
    timestamp: int
    id: int
    rules: bytes
    max_custody: int = 1
    """1..7, the longest chain allowed."""
    custody: tuple[Custody, ...] = ()

    @property
    def issued_to(self) -> Address:
        """The holder: last of the chain."""
        return self.custody[-1].to if self.custody else NOBODY

    def _fields(self) -> bytes:
        count = rules.count(self.rules)
        head = _CAPABILITY.pack(self.nwid, self.timestamp, self.id, count)
        return head + self.rules + bytes((self.max_custody,))

    def signed_bytes(self) -> bytes:
        """The same for every link: the chain itself is not covered."""
        return _marked(self._fields())

    def grant(self, giver: Identity, to: Address) -> Self:
        """Hand it on (the first time: issue it): one more link, signed by the giver.

        :raises ValueError: the chain is as long as it may get.
        """
        if len(self.custody) >= self.max_custody:
            raise ValueError(f"capability {self.id}: chain of custody is full")
        link = Custody(to, giver.address, giver.sign(self.signed_bytes()))
        return replace(self, custody=(*self.custody, link))

    def verify(self, find: FindIdentity) -> Verdict:
        """Is every link signed by the holder before it, the first by the controller?"""
        if not self.custody:
            return Verdict.INVALID
        message = self.signed_bytes()
        giver = self.nwid.controller
        for link in self.custody:
            verdict = _verify(find, link.from_, giver, message, link.signature)
            if verdict is not Verdict.VALID:
                return verdict
            giver = link.to
        return Verdict.VALID

    def encode(self) -> bytes:
        out = Writer().raw(self._fields())
        for link in self.custody:
            out.u40(link.to).u40(link.from_).raw(_signature_block(link.signature))
        return bytes(out.u40(0).u16(0))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid, timestamp, id, count = reader.unpack(_CAPABILITY)
        if count > MAX_CAPABILITY_RULES:
            raise DecodeError(f"capability of {count} rules")
        table = rules.read(reader, count)
        max_custody = reader.u8()
        if not 1 <= max_custody <= MAX_CUSTODY:
            raise DecodeError(f"capability with a chain of {max_custody}")
        custody: list[Custody] = []
        while to := Address.read(reader):
            if len(custody) == max_custody:
                raise DecodeError(f"capability with more than {max_custody} links")
            custody.append(Custody(to, Address.read(reader), _read_signature(reader)))
        reader.skip(reader.u16())
        return cls(NetworkId(nwid), timestamp, id, table, max_custody, tuple(custody))


# Certificate of ownership


class ThingType(IntEnum):
    NONE = 0
    MAC = 1
    IPV4 = 2
    IPV6 = 3


_THING_SIZES: dict[int, int] = {ThingType.MAC: 6, ThingType.IPV4: 4, ThingType.IPV6: 16}
_THING = Struct(">B16s")


class Thing(NamedTuple):
    """What can be owned: a MAC or an IP, padded with zeros to 16 bytes."""

    type: int
    value: bytes

    @classmethod
    def ip(cls, ip: bytes) -> Self:
        """From 4 or 16 bytes."""
        return cls(ThingType.IPV4 if len(ip) == 4 else ThingType.IPV6, ip.ljust(16, b"\0"))

    @classmethod
    def mac(cls, mac: bytes) -> Self:
        """From 6 bytes."""
        return cls(ThingType.MAC, mac.ljust(16, b"\0"))


_OWNERSHIP = Struct(">QqQIH")


@dataclass(frozen=True, slots=True)
class Ownership(Value):
    """A certificate that addresses belong to a member; ``timestamp`` in ms."""

    nwid: NetworkId
    timestamp: int
    id: int
    things: tuple[Thing, ...]
    issued_to: Address
    flags: int = 0
    signer: Address = NOBODY
    signature: bytes = _UNSIGNED

    def owns(self, thing: Thing) -> bool:
        size = _THING_SIZES.get(thing.type, 16)
        return any(
            t.type == thing.type and t.value[:size] == thing.value[:size] for t in self.things
        )

    def _fields(self) -> bytes:
        head = _OWNERSHIP.pack(self.nwid, self.timestamp, self.flags, self.id, len(self.things))
        things = b"".join(_THING.pack(*thing) for thing in self.things)
        return head + things + self.issued_to.encode() + self.signer.encode()

    def signed_bytes(self) -> bytes:
        return _marked(self._fields())

    def sign(self, signer: Identity) -> Self:
        """:raises ValueError: more things than a certificate holds."""
        if len(self.things) > MAX_THINGS:
            raise ValueError(f"{len(self.things)} things, at most {MAX_THINGS}")
        named = replace(self, signer=signer.address)
        return replace(named, signature=signer.sign(named.signed_bytes()))

    def verify(self, find: FindIdentity) -> Verdict:
        """Signed by the controller of its network?"""
        return _verify(find, self.signer, self.nwid.controller, self.signed_bytes(), self.signature)

    def encode(self) -> bytes:
        return self._fields() + _signature_block(self.signature) + b"\0\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        nwid, timestamp, flags, id, count = reader.unpack(_OWNERSHIP)
        if count > MAX_THINGS:
            raise DecodeError(f"certificate of ownership of {count} things")
        things = tuple(Thing(*reader.unpack(_THING)) for _ in range(count))
        issued_to = Address.read(reader)
        signer = Address.read(reader)
        signature = _read_signature(reader)
        reader.skip(reader.u16())
        return cls(NetworkId(nwid), timestamp, id, things, issued_to, flags, signer, signature)


# Revocation

_REVOCATION = Struct(">IIQIIqQ5s5sB")


@dataclass(frozen=True, slots=True)
class Revocation(Value):
    """Nothing of that type and ID, issued to the target up to the threshold (ms), counts any more.

    ``id`` is arbitrary. For certificates of membership ``credential_id`` is 0.
    """

    nwid: NetworkId
    id: int
    credential_type: int
    credential_id: int
    threshold: int
    target: Address
    flags: int = 0
    signer: Address = NOBODY
    signature: bytes = _UNSIGNED

    @property
    def fast_propagate(self) -> bool:
        return bool(self.flags & FAST_PROPAGATE)

    def _fields(self) -> bytes:
        return _REVOCATION.pack(
            0, self.id, self.nwid, 0, self.credential_id, self.threshold, self.flags,
            self.target.encode(), self.signer.encode(), self.credential_type,
        )  # fmt: skip

    def signed_bytes(self) -> bytes:
        return _marked(self._fields())

    def sign(self, signer: Identity) -> Self:
        named = replace(self, signer=signer.address)
        return replace(named, signature=signer.sign(named.signed_bytes()))

    def verify(self, find: FindIdentity) -> Verdict:
        """Signed by the controller of its network?"""
        return _verify(find, self.signer, self.nwid.controller, self.signed_bytes(), self.signature)

    def encode(self) -> bytes:
        return self._fields() + _signature_block(self.signature) + b"\0\0"

    @classmethod
    def read(cls, reader: Reader) -> Self:
        _, id, nwid, _, credential_id, threshold, flags, target, signer, credential_type = (
            reader.unpack(_REVOCATION)
        )
        signature = _read_signature(reader)
        reader.skip(reader.u16())
        return cls(
            NetworkId(nwid), id, credential_type, credential_id, threshold,
            Address.decode(target), flags, Address.decode(signer), signature,
        )  # fmt: skip


def revoke_com(nwid: int, member: Address, now_ms: int, id: int, signer: Identity) -> Revocation:
    """What a controller sends everybody when it de-authorizes a member; ``id``: 32 random bits."""
    revocation = Revocation(NetworkId(nwid), id, Kind.COM, 0, now_ms, member, FAST_PROPAGATE)
    return revocation.sign(signer)


def things_of(ips: Iterable[bytes]) -> tuple[Thing, ...]:
    """The things of a certificate over a member's IPs: the first 16."""
    return tuple(Thing.ip(ip) for ip in ips)[:MAX_THINGS]
