"""Packets that wait: outgoing ones for a peer or a route, incoming ones for an identity."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from zt.protocol.address import Address
from zt.vl1.packet import Packet
from zt.vl1.path import Path

LIFETIME_MS = 5_000

T = TypeVar("T")


class Waiting(Generic[T]):
    """Items that wait for something about an address, in order of arrival, for `LIFETIME_MS`.

    Bounded per address and in all: a full address loses its own oldest item, a full table the
    oldest item of the address that has waited longest, so that one cannot starve the others.
    """

    def __init__(self, per_address: int, limit: int) -> None:
        self._per_address = per_address
        self._limit = limit
        self._size = 0
        # A plain dict looks for its first entry past all that were taken from its front.
        self._items: OrderedDict[Address, deque[tuple[int, T]]] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def addresses(self) -> list[Address]:
        return list(self._items)

    def add(self, address: Address, item: T, now_ms: int) -> None:
        items = self._items.setdefault(address, deque())
        items.append((now_ms, item))
        self._size += 1
        if len(items) > self._per_address:
            items.popleft()
            self._size -= 1
        elif self._size > self._limit:
            self._drop_oldest()

    def take(self, address: Address) -> list[T]:
        """Removes and returns everything that waits for an address."""
        items = self._items.pop(address, ())
        self._size -= len(items)
        return [item for _, item in items]

    def expire(self, now_ms: int) -> None:
        """Drops what has waited longer than `LIFETIME_MS`."""
        for address in self.addresses():
            items = self._items[address]
            while items and now_ms - items[0][0] > LIFETIME_MS:
                items.popleft()
                self._size -= 1
            if not items:
                del self._items[address]

    def _drop_oldest(self) -> None:
        address = next(iter(self._items))
        items = self._items[address]
        items.popleft()
        self._size -= 1
        if not items:
            del self._items[address]


class Outgoing(NamedTuple):
    """A packet not yet built, because its armor needs the peer's key."""

    verb: int
    payload: bytes
    compress: bool = False


class Sealed(NamedTuple):
    """A whole packet, still armored, from a source whose identity is not known yet."""

    path: Path
    data: bytes


@dataclass(slots=True)
class Parked:
    """An opened packet whose handler asked to `WAIT`."""

    packet: Packet
    since_ms: int


class ParkingLot:
    """Opened packets that are handed to their handlers again; the oldest is lost when full."""

    def __init__(self, limit: int) -> None:
        self._parked: deque[Parked] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._parked)

    def add(self, packet: Packet, since_ms: int) -> None:
        self._parked.append(Parked(packet, since_ms))

    def take(self, now_ms: int) -> Iterator[Parked]:
        """Removes everything; what is still young enough is returned, to be handed over again."""
        taken = list(self._parked)
        self._parked.clear()
        return (parked for parked in taken if now_ms - parked.since_ms <= LIFETIME_MS)
