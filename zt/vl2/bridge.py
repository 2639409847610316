"""Which active bridge a foreign MAC lives behind (chapter 04, 13)."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from zt.protocol.address import Address, Mac

T = TypeVar("T")

MAX_ROUTES = 65536
"""Per network. The original keeps 2^26; a table that one hostile bridge can fill stays small."""

MAX_FLOOD = 32
"""Bridges that one frame without a route is sent to."""


class Bridges:
    """Learned routes of one network. `changed(mac, address | None)` mirrors them elsewhere."""

    def __init__(self, changed: Callable[[Mac, Address | None], None]) -> None:
        self._changed = changed
        self._routes: dict[Mac, Address] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def learn(self, mac: Mac, address: Address) -> None:
        """A frame from that MAC came through that bridge. A full table loses all routes of the
        bridge that has most."""
        if self._routes.get(mac) == address:
            return
        if mac not in self._routes and len(self._routes) >= MAX_ROUTES:
            ((greedy, _),) = Counter(self._routes.values()).most_common(1)
            for stale in [m for m, a in self._routes.items() if a == greedy]:
                del self._routes[stale]
                self._changed(stale, None)
        self._routes[mac] = address
        self._changed(mac, address)

    def find(self, mac: Mac) -> Address | None:
        """Where the MAC was last seen."""
        return self._routes.get(mac)

    def keep(self, active: Sequence[Address]) -> None:
        """Forgets what was learned from nodes that are no active bridges any more."""
        for stale in [m for m, a in self._routes.items() if a not in active]:
            del self._routes[stale]
            self._changed(stale, None)


def flood(bridges: Sequence[Address], random: Callable[[int], bytes]) -> Sequence[Address]:
    """The bridges that a frame without a route goes to: all, or `MAX_FLOOD` picked at random."""
    if len(bridges) <= MAX_FLOOD:
        return bridges
    return shuffled(bridges, random)[:MAX_FLOOD]


def shuffled(items: Sequence[T], random: Callable[[int], bytes]) -> list[T]:
    """In random order."""
    keys = random(4 * len(items))
    order = sorted(range(len(items)), key=lambda i: keys[4 * i : 4 * i + 4])
    return [items[i] for i in order]
