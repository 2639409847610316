"""Values that the service hands to a node and reads from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.protocol.world import World
from zt.vl1.bond.settings import Bonding
from zt.vl1.bond.status import BondPathStatus, BondStatus

LEAF, MOON, PLANET = "LEAF", "MOON", "PLANET"


class LocalSocket(NamedTuple):
    """A bound UDP socket: the driver's number for it, the address it is bound to and the interface
    that has this address, if known."""

    socket: int
    address: InetAddress
    device: str = ""


@dataclass(frozen=True, slots=True)
class PhysicalPath:
    """One entry of `physical` in local.conf (ch. 03, 4.7). 0 means unset."""

    blacklist: bool = False
    trusted_id: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What local.conf says about paths and peers. Networks have their prefix length as port."""

    physical: Mapping[InetAddress, PhysicalPath] = field(default_factory=dict)
    hints: Mapping[Address, tuple[InetAddress, ...]] = field(default_factory=dict)
    blacklist: Mapping[Address, tuple[InetAddress, ...]] = field(default_factory=dict)
    low_bandwidth: bool = False
    aes: bool = True  # False: suite 1 to everybody, also to those that take suite 3
    port_prediction: bool = True
    # Identity checks granted to strangers of one source network at once; one more every 2 s.
    stranger_burst: int = 8
    bonding: Bonding = field(default_factory=Bonding)


@dataclass(frozen=True, slots=True)
class PathStatus:
    """A live path of a peer; times in ms, 0 = never."""

    address: InetAddress
    socket: int
    last_send_ms: int
    last_receive_ms: int
    trusted_id: int
    preferred: bool
    bond: BondPathStatus | None = None


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer in memory. `version` and `latency_ms` are None while unknown."""

    address: Address
    version: tuple[int, int, int] | None
    latency_ms: int | None
    role: str
    paths: tuple[PathStatus, ...]
    bond: BondStatus | None = None


@dataclass(frozen=True, slots=True)
class MoonStatus:
    """A moon we orbit; `world` is None while waiting for its definition."""

    id: int
    world: World | None
