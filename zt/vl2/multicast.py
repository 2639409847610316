"""Who listens to which multicast group: the database that gathering and sending draw from.

Chapter 04, 12.3. Roots keep it for everybody, members for their own networks.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.vl2.bridge import shuffled
from zt.vl2.membership import NEVER

LIFETIME_MS = 600000
"""How long an announcement counts."""
TRANSMIT_MS = 5000
"""How long a frame waits for more listeners."""
MAX_QUEUE = 32
"""Frames waiting per group."""
MAX_GATHER = 65535

MAX_GROUPS = 65536
"""Over all networks."""
MAX_MEMBERS = 65536
"""Per group."""


@dataclass(slots=True, eq=False)
class Pending:
    """A multicast that new listeners still get: until it went to `limit` nodes or is too old."""

    created_ms: int
    limit: int
    sent: set[Address]
    """Who got it, or was left out by the filter."""
    send: Callable[[Address, int], None]
    """send(member, now_ms)"""

    def offer(self, member: Address, now_ms: int) -> None:
        """Sends it to a node that did not get it yet."""
        if member not in self.sent and len(self.sent) < self.limit:
            self.sent.add(member)
            self.send(member, now_ms)

    def done(self, now_ms: int) -> bool:
        return len(self.sent) >= self.limit or now_ms - self.created_ms > TRANSMIT_MS


@dataclass(slots=True)
class Group:
    members: dict[Address, int] = field(default_factory=dict)
    """When each was last announced."""
    pending: list[Pending] = field(default_factory=list)
    gathered_ms: int = NEVER
    """When we last asked others for members."""

    def queue(self, pending: Pending) -> None:
        """The oldest makes room."""
        if len(self.pending) >= MAX_QUEUE:
            del self.pending[0]
        self.pending.append(pending)


class Groups:
    """All groups of all networks; bounded, the ones longest without news go first."""

    def __init__(self, us: Address, random: Callable[[int], bytes]) -> None:
        self._us = us
        self._random = random
        self._groups: OrderedDict[tuple[NetworkId, MulticastGroup], Group] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, nwid: NetworkId, group: MulticastGroup) -> Group | None:
        return self._groups.get((nwid, group))

    def make(self, nwid: NetworkId, group: MulticastGroup) -> Group:
        """The group, new if need be."""
        key = (nwid, group)
        found = self._groups.get(key)
        if found is None:
            if len(self._groups) >= MAX_GROUPS:
                self._groups.popitem(last=False)
            found = self._groups[key] = Group()
        else:
            self._groups.move_to_end(key)
        return found

    def add(self, nwid: NetworkId, group: MulticastGroup, member: Address, now_ms: int) -> None:
        """A node listens. What waits in the group goes to it if it is new; we are never listed."""
        if member == self._us:
            return
        entry = self.make(nwid, group)
        known = member in entry.members
        if not known and len(entry.members) >= MAX_MEMBERS:
            return
        entry.members[member] = now_ms
        if not known:
            for pending in entry.pending:
                if not pending.done(now_ms):
                    pending.offer(member, now_ms)
            entry.pending = [p for p in entry.pending if not p.done(now_ms)]

    def remove(self, nwid: NetworkId, group: MulticastGroup, member: Address) -> None:
        entry = self._groups.get((nwid, group))
        if entry is not None:
            entry.members.pop(member, None)

    def members(self, nwid: NetworkId, group: MulticastGroup) -> list[Address]:
        """Known listeners, in random order."""
        entry = self._groups.get((nwid, group))
        return shuffled(list(entry.members), self._random) if entry else []

    def gather(
        self, nwid: NetworkId, group: MulticastGroup, asker: Address, limit: int, *, listening: bool
    ) -> tuple[int, list[Address]]:
        """Total known and at most `limit` listeners for an answer; `listening`: we are one."""
        limit = min(limit, MAX_GATHER)
        if limit <= 0:
            return 0, []
        known = self.members(nwid, group)
        found = [self._us] if listening else []
        found += [member for member in known if member != asker]
        return len(known) + listening, found[:limit]

    def forget(self, nwid: NetworkId) -> None:
        """Frames waiting in a network that was left."""
        for (there, _), group in self._groups.items():
            if there == nwid:
                group.pending.clear()

    def clean(self, now_ms: int) -> None:
        """Drops what has become too old."""
        for key in list(self._groups):
            group = self._groups[key]
            old = [m for m, at_ms in group.members.items() if now_ms - at_ms > LIFETIME_MS]
            for member in old:
                del group.members[member]
            group.pending = [p for p in group.pending if not p.done(now_ms)]
            if not group.members and not group.pending and now_ms - group.gathered_ms > LIFETIME_MS:
                del self._groups[key]

    def __iter__(self) -> Iterator[tuple[NetworkId, MulticastGroup]]:
        return iter(self._groups)
