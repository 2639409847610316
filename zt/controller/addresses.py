"""Which IPs of a network are taken, and the next free one of a pool (ch. 05, section 11).

Finding, taking and giving back an address costs O(log n) of the number of taken runs, however full
the pool is.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sortedcontainers import SortedDict

RANDOM_TRIES = 16
"""Random candidates of an IPv6 pool before its free addresses are searched in order."""

Range = tuple[int, int]
"""First and last address, both included."""


class Runs:
    """A set of integers that stores runs of neighbours as one entry."""

    def __init__(self) -> None:
        self._ends: SortedDict[int, int] = SortedDict()  # first of a run -> last

    def _run_at(self, number: int) -> Range | None:
        at = self._ends.bisect_right(number) - 1
        if at < 0:
            return None
        first, last = self._ends.peekitem(at)
        return (first, last) if number <= last else None

    def __contains__(self, number: int) -> bool:
        return self._run_at(number) is not None

    def add(self, number: int) -> None:
        if number in self:
            return
        first, last = number, number
        if (before := self._run_at(number - 1)) is not None:
            first = before[0]
        if (end := self._ends.pop(number + 1, None)) is not None:
            last = end
        self._ends[first] = last

    def add_run(self, first: int, last: int) -> None:
        """All of [first, last]; none of them may be in the set."""
        self._ends[first] = last

    def discard(self, number: int) -> None:
        run = self._run_at(number)
        if run is None:
            return
        first, last = run
        if first < number:
            self._ends[first] = number - 1
        else:
            del self._ends[first]
        if number < last:
            self._ends[number + 1] = last

    def next_free(self, number: int) -> int:
        """The least integer >= `number` that is not in the set."""
        run = self._run_at(number)
        return number if run is None else run[1] + 1


class AddressBook:
    """Who lists which IP (4 or 16 bytes). The first member that lists an IP owns it.

    Others may list it too (the API allows that), but only the owner is given it.
    """

    def __init__(self) -> None:
        self._listed: dict[bytes, int | list[int]] = {}
        self.shared = 0
        """How many IPs several members list."""
        self.moves = 0
        """How often an IP was taken from a member that goes on listing it."""
        self._taken4, self._taken6 = Runs(), Runs()

    def claim(self, ip: bytes, member: int) -> None:
        claimants = self._listed.get(ip)
        if claimants is None:
            self._listed[ip] = member
            self._mark(ip, True)
        elif isinstance(claimants, list):
            if member not in claimants:
                claimants.append(member)
        elif claimants != member:
            self._listed[ip] = [claimants, member]
            self.shared += 1

    def release(self, ip: bytes, member: int) -> None:
        claimants = self._listed.get(ip)
        if isinstance(claimants, list):
            if member in claimants:
                claimants.remove(member)
            if len(claimants) == 1:
                self._listed[ip] = claimants[0]
                self.shared -= 1
        elif claimants == member:
            del self._listed[ip]
            self._mark(ip, False)

    def owner(self, ip: bytes) -> int | None:
        claimants = self._listed.get(ip)
        return claimants[0] if isinstance(claimants, list) else claimants

    def heir(self, ip: bytes, member: int) -> int | None:
        """Who owns it once that member has released it."""
        claimants = self._listed.get(ip)
        if isinstance(claimants, list):
            return next((other for other in claimants if other != member), None)
        return None if claimants == member else claimants

    def set_owner(self, ip: bytes, member: int) -> None:
        """Put a member that lists the IP first; no effect for any other."""
        claimants = self._listed.get(ip)
        if isinstance(claimants, list) and member in claimants:
            claimants.remove(member)
            claimants.insert(0, member)
            self.moves += 1

    def _mark(self, ip: bytes, taken: bool) -> None:
        number = int.from_bytes(ip)
        if len(ip) == 16:
            runs = self._taken6
        else:
            if number & 0xFF == 0xFF:
                return
            number = _rank(number)
            runs = self._taken4
        if taken:
            runs.add(number)
        else:
            runs.discard(number)

    def free4(self, first: int, last: int) -> int | None:
        """The lowest free IPv4 address in a range that does not end in .255."""
        if first & 0xFF == 0xFF:
            first += 1
        if last & 0xFF == 0xFF:
            last -= 1
        if first > last:
            return None
        rank = self._taken4.next_free(_rank(first))
        return _unrank(rank) if rank <= _rank(last) else None

    def free6(self, first: int, last: int) -> int | None:
        """The lowest free IPv6 address in a range."""
        number = self._taken6.next_free(first)
        return number if number <= last else None


def _rank(address: int) -> int:
    """Position among the IPv4 addresses that do not end in .255: those are never handed out."""
    return (address >> 8) * 255 + (address & 0xFF)


def _unrank(rank: int) -> int:
    block, offset = divmod(rank, 255)
    return block << 8 | offset


class Pool(NamedTuple):
    """A pool and the parts of it that lie inside the network's routes, ascending."""

    first: int
    last: int
    inside: Sequence[Range]


def pool(first: int, last: int, routed: Iterable[Range]) -> Pool:
    """`routed` is ascending and without overlaps."""
    inside = [
        (max(low, first), min(high, last)) for low, high in routed if low <= last and high >= first
    ]
    return Pool(first, last, inside)


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers as ascending ranges that neither overlap nor touch."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def choose4(pools: Iterable[Pool], book: AddressBook, member: int) -> bytes | None:
    """An IPv4 address for a member.

    The first candidate follows from the member's address, so that members keep their addresses when
    a network is made anew; from there upwards, around, and the pool's last address at the very end.
    """
    for first, last, inside in pools:
        if not 0 < first <= last:
            continue
        length = last - first
        start = first + (member & 0xFFFF_FFFF) % length if length else first
        for low, high in ((start, max(last - 1, start)), (first, start - 1), (last, last)):
            found = _search(inside, low, high, book.free4)
            if found is not None:
                return found.to_bytes(4)
    return None


def choose6(
    pools: Iterable[Pool], book: AddressBook, member: int, random: Callable[[int], bytes]
) -> bytes | None:
    """An IPv6 address for a member: the pool's start plus its address, else a random one."""
    for first, last, inside in pools:
        if first > last or not inside:
            continue
        for candidate in _candidates6(first, last, member, random):
            if _search(inside, candidate, candidate, book.free6) is not None:
                return candidate.to_bytes(16)
        start = _random6(first, last, random)
        for low, high in ((start, last), (first, start - 1)):
            found = _search(inside, low, high, book.free6)
            if found is not None:
                return found.to_bytes(16)
    return None


_LOW64 = (1 << 64) - 1


def _candidates6(
    first: int, last: int, member: int, random: Callable[[int], bytes]
) -> Iterable[int]:
    if (last & _LOW64) - (first & _LOW64) >= (1 << 40) - 1:
        yield (first & ~_LOW64) | (first + member & _LOW64)
    for _ in range(RANDOM_TRIES):
        yield _random6(first, last, random)


def _random6(first: int, last: int, random: Callable[[int], bytes]) -> int:
    """Each half at random between those of the pool's ends, the last one excluded."""
    halves = []
    for low, high in ((first >> 64, last >> 64), (first & _LOW64, last & _LOW64)):
        span = high - low
        halves.append(low + int.from_bytes(random(8)) % span if span > 0 else low)
    return halves[0] << 64 | halves[1]


def _search(
    inside: Sequence[Range], low: int, high: int, free: Callable[[int, int], int | None]
) -> int | None:
    """The lowest free address of [low, high] that is inside."""
    at = max(bisect_right(inside, (low, 1 << 128)) - 1, 0)
    for first, last in inside[at : bisect_left(inside, (high + 1, 0))]:
        if first <= high and last >= low:
            found = free(max(first, low), min(last, high))
            if found is not None:
                return found
    return None
