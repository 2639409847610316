"""active-backup: which path carries everything, and who is next (ch. 03, 9.5)."""

from collections.abc import Sequence

from zt.vl1.bond.member import Member
from zt.vl1.bond.settings import ALWAYS, BETTER, OPTIMIZE, Policy

OPTIMIZE_MS = 15_000
OPTIMIZE_GAIN = 0.1
PRIMARY_SCORE, PREFERRED_SCORE, QUALITY_SCORE = 1000, 500, 100
INHERITANCE_LOSS = 10


class Backup:
    """The active path and the queue of the others that could take over.

    Beside the original the queue's best score takes over, not its head: `failoverTo` and qualities
    would mean nothing else. `rotate` goes through the queue in order.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.active: Member | None = None
        self.queue: list[Member] = []
        self._changed_ms = 0

    def update(self, members: Sequence[Member], now_ms: int) -> None:
        """Takes over which paths are eligible, and switches if there is reason to."""
        eligible = [member for member in members if member.eligible]
        self.queue = [m for m in self.queue if m in eligible]
        self.queue += [m for m in eligible if m not in self.queue and m is not self.active]
        active = self.active
        if active is None:
            if eligible:
                self._switch(self._first(eligible), now_ms)
        elif active not in eligible:
            self.active = None
            if self.queue:
                self._switch(self._best(members), now_ms)
        elif self.queue and self._should_leave(active, self._best(members), members, now_ms):
            self._switch(self._best(members), now_ms)

    def rotate(self, now_ms: int) -> bool:
        """The next of the queue becomes active; false if there is none."""
        if not self.queue:
            return False
        self._switch(self.queue[0], now_ms)
        return True

    def _switch(self, to: Member, now_ms: int) -> None:
        if to in self.queue:
            self.queue.remove(to)
        if self.active is not None:
            self.queue.append(self.active)
        self.active = to
        self._changed_ms = now_ms

    def _first(self, eligible: Sequence[Member]) -> Member:
        """An eligible preferred path on a primary link, else any on a primary link, else any."""
        primaries = [member for member in eligible if member.link.primary]
        if not self._policy.links or not primaries:
            return eligible[0]
        return next((m for m in primaries if preferred(m, eligible)), primaries[0])

    def _best(self, members: Sequence[Member]) -> Member:
        return max(self.queue, key=lambda member: self.score(member, members))

    def _should_leave(
        self, active: Member, best: Member, members: Sequence[Member], now_ms: int
    ) -> bool:
        reselect = self._policy.reselect
        if reselect == OPTIMIZE:
            settled = now_ms - self._changed_ms >= OPTIMIZE_MS
            return settled and best.quality - active.quality > OPTIMIZE_GAIN
        if reselect not in (ALWAYS, BETTER) or active.link.primary or not best.link.primary:
            return False
        better = self.score(best, members) > self.score(active, members)
        return reselect == ALWAYS or better

    def score(self, member: Member, members: Sequence[Member]) -> float:
        """The higher, the rather it takes over."""
        score = PREFERRED_SCORE if preferred(member, members) else 0
        if any(link.failover_to for link in self._policy.links):
            return score + self._standing(member.link.name, ())
        if member.link.primary and self._policy.reselect != OPTIMIZE:
            score += PRIMARY_SCORE
        return score + member.quality * QUALITY_SCORE

    def _standing(self, name: str, seen: tuple[str, ...]) -> int:
        """Of a link: its own, or a little less than that of one which fails over to it."""
        if name in seen:
            return 0
        own = [PRIMARY_SCORE for link in self._policy.links if link.name == name and link.primary]
        inherited = [
            self._standing(link.name, (*seen, name)) - INHERITANCE_LOSS
            for link in self._policy.links
            if link.failover_to == name
        ]
        return max([0, *own, *inherited])


def preferred(member: Member, members: Sequence[Member]) -> bool:
    """It is the only path on its link, or of the family that the link prefers."""
    alone = sum(other.link.name == member.link.name for other in members) == 1
    return alone or member.first_family
