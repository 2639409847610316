"""Pages of members: filtered, in the order of addresses, from a cursor on."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from zt.controller.state import ONLINE_MS, Member, Network
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
    order = online(network, now_ms) if wanted.online else network.order
    start = 0 if after is None else bisect_right(order, after)
    members = network.members
    found = (members[order[at]] for at in range(start, len(order)))
    if wanted.authorized is not None:
        found = (member for member in found if member.authorized is wanted.authorized)
    if search := wanted.search.lower():
        found = (member for member in found if search in member.search)
    if wanted.online is False:
        here = set(online(network, now_ms))
        found = (member for member in found if member.address not in here)
    return found


def online(network: Network, now_ms: int) -> list[Address]:
    """The members that asked lately, ascending."""
    since_ms = now_ms - ONLINE_MS
    lately = (a for a, sighting in network.sightings.items() if sighting.last_ms > since_ms)
    return sorted(address for address in lately if address in network.members)
