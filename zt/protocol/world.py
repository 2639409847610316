"""Worlds: signed lists of roots. A planet is everybody's, a moon is opted into (chapter 02, 6)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple, Self

from zt.protocol import keys
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KEY_SIZE, SIGNATURE_SIZE, KeyPair
from zt.protocol.wire import Reader, Value, Writer

MAX_ROOTS = 4
MAX_ENDPOINTS = 32
"""Per root."""

DEFAULT_PLANET_ID = 0x08EAC90A
"""The built-in planet; it never replaces a planet of another ID."""


class WorldType(IntEnum):
    NULL = 0
    """Decodes, and is never used."""
    PLANET = 1
    MOON = 127


class WorldVersion(NamedTuple):
    """Which version of a world somebody has: timestamp 0 is none."""

    id: int
    timestamp: int


NO_VERSION = WorldVersion(0, 0)


@dataclass(frozen=True, slots=True)
class Root:
    """A root and where to reach it; none of the endpoints need be reachable from everywhere."""

    identity: Identity
    endpoints: tuple[InetAddress, ...]


@dataclass(frozen=True, slots=True)
class World(Value):
    """A planet or moon. ``timestamp`` (ms) is its revision.

    ``update_key`` (64 bytes) is whose signature the *next* version needs; ``signature`` is of this
    version, by the key that the previous one named.
    """

    type: WorldType
    id: int
    timestamp: int
    update_key: bytes
    roots: tuple[Root, ...]
    signature: bytes = bytes(SIGNATURE_SIZE)

    @property
    def version(self) -> WorldVersion:
        return WorldVersion(self.id, self.timestamp)

    @property
    def is_planet(self) -> bool:
        return self.type is WorldType.PLANET

    @property
    def is_moon(self) -> bool:
        return self.type is WorldType.MOON

    def signed_bytes(self) -> bytes:
        """What the signature covers; an attached dictionary counts as empty."""
        # The mark behind differs from the mark in front; other signed objects use 0x7f for both.
        return b"\x7f" * 8 + self._head() + self._roots() + b"\xf7" * 8

    def sign(self, signer: KeyPair) -> Self:
        """The same world, signed."""
        return replace(self, signature=signer.sign(self.signed_bytes()))

    def verify(self, key: bytes) -> bool:
        """Is the signature by this 64-byte public key?"""
        return keys.verify(key, self.signed_bytes(), self.signature)

    def replaces(self, current: "World | None") -> bool:
        """May this world take the place of the current one?

        The first of its kind always may, unverified. After that only a newer version signed with
        the key that the current one names.
        """
        if current is None or current.id == 0 or current.type is WorldType.NULL:
            return True
        return (
            self.id == current.id
            and self.type is current.type
            and self.timestamp > current.timestamp
            and self.verify(current.update_key)
        )

    def encode(self) -> bytes:
        return self._head() + self.signature + self._roots()

    def _head(self) -> bytes:
        head = Writer().u8(self.type).u64(self.id).u64(self.timestamp).raw(self.update_key)
        return bytes(head)

    def _roots(self) -> bytes:
        if len(self.roots) > MAX_ROOTS:
            raise ValueError(f"{len(self.roots)} roots, at most {MAX_ROOTS}")
        out = Writer().u8(len(self.roots))
        for root in self.roots:
            if len(root.endpoints) > MAX_ENDPOINTS:
                raise ValueError(f"{len(root.endpoints)} endpoints, at most {MAX_ENDPOINTS}")
            out.raw(root.identity.encode()).u8(len(root.endpoints))
            for endpoint in root.endpoints:
                out.raw(endpoint.encode())
        if self.is_moon:
            out.u16(0)
        return bytes(out)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind = reader.u8()
        if kind not in _TYPES:
            raise DecodeError(f"unknown type of world: {kind}")
        world_id = reader.u64()
        timestamp = reader.u64()
        update_key = reader.take(KEY_SIZE)
        signature = reader.take(SIGNATURE_SIZE)
        root_count = reader.u8()
        if root_count > MAX_ROOTS:
            raise DecodeError(f"world of {root_count} roots")
        roots = tuple(_read_root(reader) for _ in range(root_count))
        if kind == WorldType.MOON:
            reader.skip(reader.u16())  # an attached dictionary
        return cls(WorldType(kind), world_id, timestamp, update_key, roots, signature)


_TYPES = frozenset(WorldType)


def _read_root(reader: Reader) -> Root:
    identity = Identity.read(reader)
    count = reader.u8()
    if count > MAX_ENDPOINTS:
        raise DecodeError(f"root of {count} endpoints")
    return Root(identity.public(), tuple(InetAddress.read(reader) for _ in range(count)))


def make(
    kind: WorldType,
    world_id: int,
    timestamp_ms: int,
    roots: Sequence[Root],
    signer: KeyPair,
    update_key: bytes | None = None,
) -> World:
    """A signed world whose next version the same key signs, or the owner of ``update_key``.

    :raises ValueError: more roots or endpoints than a world holds.
    """
    world = World(kind, world_id, timestamp_ms, update_key or signer.public, tuple(roots))
    return world.sign(signer)


def private_planet(
    roots: Sequence[Root],
    timestamp_ms: int,
    random: Callable[[int], bytes],
    previous: tuple[World, KeyPair] | None = None,
) -> tuple[World, KeyPair]:
    """A planet of one's own, and the key that its next version has to be signed with.

    Every node that knows the ``previous`` version accepts the new one. ``random(n)`` must return n
    bytes fit for keys; it is used for the first version only.

    :raises ValueError: more roots or endpoints than a world holds.
    """
    if previous is None:
        signer = KeyPair.generate(random)
        # The top bit keeps clear of every ID that means something.
        world_id = int.from_bytes(random(8)) | 1 << 63
    else:
        planet, signer = previous
        world_id = planet.id
        timestamp_ms = max(timestamp_ms, planet.timestamp + 1)
    ordered = sorted(roots, key=lambda root: root.identity)
    return make(WorldType.PLANET, world_id, timestamp_ms, ordered, signer), signer
