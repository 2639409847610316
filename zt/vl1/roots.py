"""Planet, moons and who our roots are (ch. 03, 2). Worlds in, decisions out; it sends nothing."""

from collections.abc import Iterable

from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.world import World, WorldType, WorldVersion
from zt.vl1.status import LEAF, MOON, PLANET, MoonStatus

WANTED_LIMIT = 64
"""Moons that are remembered as wanted while no definition is known."""


class Roots:
    """The worlds we believe in, and the upstreams that follow from them."""

    def __init__(self, me: Identity, planet: World, moons: Iterable[World]) -> None:
        self._me = me
        self.planet = planet
        self.moons: dict[int, World] = {moon.id: moon for moon in moons}
        self.wanted: dict[int, set[Address]] = {}  # moon ID -> seeds to ask
        self.upstreams: dict[Address, Identity] = {}
        self.am_root = False
        self._endpoints: dict[Address, tuple[InetAddress, ...]] = {}
        self._planet_roots: frozenset[Address] = frozenset()
        self._recompute()

    def role(self, address: Address) -> str:
        if address not in self.upstreams:
            return LEAF
        return PLANET if address in self._planet_roots else MOON

    def endpoints(self, address: Address) -> tuple[InetAddress, ...]:
        """Stable endpoints of a root; empty for anybody else."""
        return self._endpoints.get(address, ())

    def endpoint_ips(self, address: Address) -> frozenset[bytes] | None:
        """The only IPs that may lead to a root (2.8); None where any may."""
        endpoints = self._endpoints.get(address)
        return frozenset(endpoint.ip for endpoint in endpoints) if endpoints else None

    def seeds(self) -> set[Address]:
        """Nodes to ask for the definitions of wanted moons."""
        return {seed for seeds in self.wanted.values() for seed in seeds} - {self._me.address}

    def may_update(self, sender: Address) -> bool:
        """Worlds are taken from upstreams and seeds only."""
        return sender in self.upstreams or sender in self.seeds()

    # Updates

    def offer(self, world: World, sender: Address) -> World | None:
        """A world received in OK(HELLO): the installed one if it was accepted (ch. 02, 6.3)."""
        if world.type is WorldType.PLANET:
            if not world.replaces(self.planet):
                return None
            self.planet = world
        elif world.type is WorldType.MOON:
            known = self.moons.get(world.id)
            if known is None and not self._wanted_from(world, sender):
                return None
            if known is not None and not world.replaces(known):
                return None
            self.moons[world.id] = world
            self.wanted.pop(world.id, None)
        else:
            return None
        self._recompute()
        return world

    def _wanted_from(self, moon: World, sender: Address) -> bool:
        """First versions are trusted on first use: from a seed that is one of the moon's roots."""
        seeds = self.wanted.get(moon.id, set())
        return sender in seeds and any(root.identity.address == sender for root in moon.roots)

    def add_moon(self, moon: World) -> None:
        """From the local moon folder: trusted as it is."""
        self.moons[moon.id] = moon
        self.wanted.pop(moon.id, None)
        self._recompute()

    def want(self, moon_id: int, seed: Address) -> None:
        if moon_id not in self.moons and len(self.wanted) < WANTED_LIMIT:
            self.wanted.setdefault(moon_id, set()).add(seed)

    def forget(self, moon_id: int) -> bool:
        """Deorbits; true if anything was known of that moon."""
        wanted = self.wanted.pop(moon_id, None)
        moon = self.moons.pop(moon_id, None)
        if moon is not None:
            self._recompute()
        return moon is not None or wanted is not None

    def newer_than(self, planet: WorldVersion, moons: Iterable[WorldVersion]) -> bytes:
        """Encoded worlds that are newer than what a HELLO announced (ch. 02, 9.1)."""
        newer = b""
        if planet.id and planet.id == self.planet.id and planet.timestamp < self.planet.timestamp:
            newer = self.planet.encode()
        if self.moons:
            held = {moon.id: moon.timestamp for moon in moons}
            for moon in self.moons.values():
                if held.get(moon.id, moon.timestamp) < moon.timestamp:
                    newer += moon.encode()
        return newer

    def announced_moons(self) -> tuple[WorldVersion, ...]:
        """The versions of the moons held, then of those wanted (timestamp 0)."""
        wanted = (WorldVersion(moon_id, 0) for moon_id in self.wanted)
        return (*(moon.version for moon in self.moons.values()), *wanted)

    def statuses(self) -> list[MoonStatus]:
        held = [MoonStatus(moon.id, moon) for moon in self.moons.values()]
        return held + [MoonStatus(moon_id, None) for moon_id in self.wanted]

    def _recompute(self) -> None:
        worlds = [self.planet, *self.moons.values()]
        self.upstreams = {}
        endpoints: dict[Address, tuple[InetAddress, ...]] = {}
        self.am_root = False
        for world in worlds:
            for root in world.roots:
                address = root.identity.address
                if address == self._me.address:
                    self.am_root |= root.identity == self._me
                    continue
                self.upstreams.setdefault(address, root.identity)
                merged = dict.fromkeys((*endpoints.get(address, ()), *root.endpoints))
                endpoints[address] = tuple(merged)
        self._endpoints = endpoints
        self._planet_roots = frozenset(root.identity.address for root in self.planet.roots)
