"""Pages of members: filtered, in the order of addresses, from a cursor on."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from zt.controller.state import Member, Network
from zt.protocol.address import Address


class Wanted(NamedTuple):
    """None and empty fit every member."""

    authorized: bool | None = None
    online: bool | None = None
    search: str = ""
    """Part of the address or, in any case, of the name."""


def matching(
    network: Network, wanted: Wanted, now_ms: int, after: Address | None = None
) -> Iterator[Member]:
    """Members beyond an address that fit."""
    order = network.order
    search = wanted.search.lower()
    for at in range(0 if after is None else bisect_right(order, after), len(order)):
        member = network.members[order[at]]
        if wanted.authorized is not None and member.authorized is not wanted.authorized:
            continue
        if search and search not in member.search:
            continue
        if wanted.online is not None and online(network, member.address, now_ms) != wanted.online:
            continue
        yield member


def online(network: Network, address: Address, now_ms: int) -> bool:
    sighting = network.sightings.get(address)
    return sighting is not None and sighting.online(now_ms)
