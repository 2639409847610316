"""Address translators by the terms of RFC 4787: mapping, filtering, port assignment."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from zt.protocol.inet import InetAddress

if TYPE_CHECKING:
    from tests.sim.host import Host


class Dependence(Enum):
    """What a mapping, or what may come in through it, depends on beside the inner endpoint."""

    NOTHING = auto()
    ADDRESS = auto()
    ADDRESS_AND_PORT = auto()

    def key(self, remote: InetAddress) -> tuple[object, ...]:
        if self is Dependence.NOTHING:
            return ()
        return (remote.ip,) if self is Dependence.ADDRESS else tuple(remote)


class Ports(Enum):
    PRESERVED = auto()
    SEQUENTIAL = auto()
    RANDOM = auto()


class NatKind(NamedTuple):
    name: str
    mapping: Dependence
    filtering: Dependence
    ports: Ports
    timeout_ms: int = 60_000


_NOTHING, _ADDRESS, _BOTH = Dependence
FULL_CONE = NatKind("full cone", _NOTHING, _NOTHING, Ports.PRESERVED)
RESTRICTED = NatKind("address restricted", _NOTHING, _ADDRESS, Ports.PRESERVED)
PORT_RESTRICTED = NatKind("port restricted", _NOTHING, _BOTH, Ports.PRESERVED)
SEQUENTIAL = NatKind("symmetric, sequential", _BOTH, _BOTH, Ports.SEQUENTIAL)
SYMMETRIC = NatKind("symmetric, random", _BOTH, _BOTH, Ports.RANDOM)


@dataclass(slots=True)
class Mapping:
    inside: InetAddress
    port: int
    key: tuple[object, ...]
    used_ms: int
    allowed: dict[tuple[object, ...], int] = field(default_factory=dict)


class Nat:
    """One translator with one external IP. Inside it is one LAN."""

    def __init__(self, kind: NatKind, ip: bytes, random: Random) -> None:
        self.kind = kind
        self.ip = ip
        self.inside: dict[bytes, Host] = {}
        self._random = random
        self._by_key: dict[tuple[object, ...], Mapping] = {}
        self._by_port: dict[int, Mapping] = {}
        self._next_port = 20_000

    def outbound(self, inside: InetAddress, remote: InetAddress, now_ms: int) -> InetAddress:
        """The external source of a datagram to `remote`."""
        key = (inside, *self.kind.mapping.key(remote))
        mapping = self._by_key.get(key)
        if mapping is not None and now_ms - mapping.used_ms > self.kind.timeout_ms:
            self._drop(mapping)
            mapping = None
        if mapping is None:
            mapping = Mapping(inside, self._pick_port(inside, now_ms), key, now_ms)
            self._by_key[key] = self._by_port[mapping.port] = mapping
        mapping.used_ms = now_ms
        mapping.allowed[self.kind.filtering.key(remote)] = now_ms
        return InetAddress(self.ip, mapping.port)

    def inbound(self, port: int, remote: InetAddress, now_ms: int) -> InetAddress | None:
        """Where a datagram to our external port goes, if it is let in."""
        mapping = self._by_port.get(port)
        if mapping is None or now_ms - mapping.used_ms > self.kind.timeout_ms:
            return None
        allowed_ms = mapping.allowed.get(self.kind.filtering.key(remote))
        if allowed_ms is None or now_ms - allowed_ms > self.kind.timeout_ms:
            return None
        return mapping.inside

    def reset(self, ip: bytes | None = None) -> None:
        """Forgets everything, as after a restart; perhaps with another external IP."""
        self._by_key.clear()
        self._by_port.clear()
        self.ip = ip or self.ip

    def _drop(self, mapping: Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.port]

    def _pick_port(self, inside: InetAddress, now_ms: int) -> int:
        if self.kind.ports is Ports.PRESERVED:
            port = inside.port
        elif self.kind.ports is Ports.SEQUENTIAL:
            self._next_port += 1
            port = self._next_port
        else:
            port = self._random.randrange(1024, 65536)
        while port in self._by_port:
            held = self._by_port[port]
            if now_ms - held.used_ms > self.kind.timeout_ms:
                self._drop(held)
                break
            port = 1024 + (port - 1023) % (65536 - 1024)
        return port
