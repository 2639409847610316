"""The bond of one peer: its paths, which of them are used, how new flows are shared out."""

from zt.vl1.bond.backup import Backup
from zt.vl1.bond.measure import relative_qualities
from zt.vl1.bond.member import LOOKS, Member
from zt.vl1.bond.settings import ACTIVE_BACKUP, AWARE, BROADCAST, Link, Policy
from zt.vl1.gates import RunGate
from zt.vl1.path import Path
from zt.vl1.peer import PeerPath

SHARES = 1 << 16
QOS_GATE_DIVISOR, QOS_GATE_LIMIT = 64, 128
RUN_MS, SHORTEST_RUN_MS = 250, 60
PROBE_MS = 200
"""Nodes answer one ECHO per 166 ms and path."""


class Bond:
    """Decides by the state of its members; the caller looks after their times."""

    def __init__(self, policy: Policy, now_ms: int) -> None:
        self.policy = policy
        self.members: list[Member] = []  # in order of nomination
        self.backup = Backup(policy)
        self.due_ms = now_ms  # when `update` wants to be called
        self._estimate_ms = 0
        self._main: Member | None = None  # of a balance policy: takes what has no flow
        self.synced: object = None  # what the tables were told last
        failover_ms = policy.failover_interval_ms
        self.run_ms = min(max(failover_ms // LOOKS, SHORTEST_RUN_MS), RUN_MS)
        self.qos_ms = 2 * failover_ms
        self.sample_lifetime_ms = 6 * failover_ms
        self.qos_gate = RunGate(self.qos_ms // QOS_GATE_DIVISOR, QOS_GATE_LIMIT)

    # Its paths

    def nominate(self, known: PeerPath, link: Link, now_ms: int) -> Member:
        taken = {member.slot for member in self.members}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        member = Member(known, link, slot, now_ms)
        self.members.append(member)
        self._estimate_ms = 0
        return member

    def withdraw(self, path: Path) -> None:
        self.members = [member for member in self.members if member.known.path is not path]
        self._estimate_ms = 0
        if self._main is not None and self._main.known.path is path:
            self._main = None

    def member_on(self, path: Path) -> Member | None:
        return next((m for m in self.members if m.known.path is path), None)

    def asks_on(self, path: Path) -> bool:
        """Is it the bond that looks after the health of this path?"""
        member = self.member_on(path)
        return member is not None and member.allowed

    # State

    def update(self, now_ms: int) -> None:
        """Looks at all members again and chooses (9.3, 9.5)."""
        self.due_ms = now_ms + self.run_ms
        changed = [member.update(self.policy, now_ms) for member in self.members]
        if any(changed) or now_ms - self._estimate_ms >= self.qos_ms:
            self._estimate_ms = now_ms
            self._estimate()
        chosen = self._choose(now_ms)
        for member in self.members:
            member.bonded = member in chosen
        if self._main not in chosen:
            self._main = max(chosen, key=lambda m: m.quality, default=None)

    def _estimate(self) -> None:
        rated = [member for member in self.members if member.eligible]
        qualities = relative_qualities(
            [member.latency for member in rated],
            [member.link.capacity for member in rated],
            self.policy.quality,
        )
        for member in self.members:
            member.quality = 0.0
        for member, quality in zip(rated, qualities, strict=True):
            member.quality = quality
            member.judge(self.policy)

    def _choose(self, now_ms: int) -> list[Member]:
        code = self.policy.code
        if code == ACTIVE_BACKUP:
            self.backup.update(self.members, now_ms)
            return [self.backup.active] if self.backup.active else []
        if code == BROADCAST:
            return [member for member in self.members if member.alive and member.allowed]
        eligible = [member for member in self.members if member.eligible]
        primaries = [member for member in eligible if member.link.primary]
        usable = primaries or eligible
        favoured = {member.link.name for member in usable if member.first_family}
        return [m for m in usable if m.first_family or m.link.name not in favoured]

    # Results

    @property
    def bonded(self) -> list[Member]:
        return [member for member in self.members if member.bonded]

    @property
    def route(self) -> Path | None:
        """Where packets go that the data plane does not share out; None: as without a bond."""
        if self.policy.code == BROADCAST or self._main is None:
            return None
        return self._main.known.path

    def copies(self) -> list[Path]:
        """The paths that each get a copy of every frame."""
        if self.policy.code != BROADCAST:
            return []
        return [member.known.path for member in self.bonded]

    def shares(self) -> list[tuple[int, int]]:
        """(slot, share of new flows) of the bonded paths; what is to be avoided gets none, unless
        all of it is: then the best gets everything."""
        bonded = self.bonded
        if self.policy.code != AWARE:
            return [(member.slot, 1) for member in bonded]
        good = [m for m in bonded if not m.avoid]
        good = good or sorted(bonded, key=lambda m: m.quality)[-1:]
        return [(m.slot, max(round(m.quality * SHARES), 1) if m in good else 0) for m in bonded]

    def crowded(self) -> Member | None:
        """A path to be avoided from which flows should move to others."""
        if self.policy.code != AWARE or all(member.avoid for member in self.bonded):
            return None
        return next((member for member in self.bonded if member.avoid and member.flows), None)

    def paths(self) -> list[int | None]:
        """Handles by slot."""
        handles: list[int | None] = [None] * max((m.slot + 1 for m in self.members), default=0)
        for member in self.members:
            handles[member.slot] = member.known.path.handle
        return handles

    def probe_interval_ms(self, member: Member) -> int:
        """How often a path is asked whether it works."""
        failover_ms = self.policy.failover_interval_ms
        return max(failover_ms // 3, PROBE_MS) if member.alive else failover_ms

    def measured(self, path: Path, round_trip_ms: int) -> None:
        """An answer to a question of ours came on a path."""
        member = self.member_on(path)
        if member is not None:
            member.latency.add(round_trip_ms / 2)

    def rotate(self, now_ms: int) -> bool:
        """Another path becomes active (active-backup); false if the policy has no such."""
        if self.policy.code != ACTIVE_BACKUP:
            return False
        self.backup.rotate(now_ms)
        self.update(now_ms)
        return True
