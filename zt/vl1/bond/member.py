"""One path of a bond and its state (ch. 03, 9.3)."""

from zt.vl1.bond.measure import Latency, Pending
from zt.vl1.bond.settings import Link, Policy
from zt.vl1.peer import DOUBT_PROBES, PeerPath

TRIAL_MS = 15_000
LOOKS = 20
"""Looks at a path within one failover interval; it is given up one look before the end."""
PATIENT_PROBES = 2 * DOUBT_PROBES + 1
"""Unanswered questions that a path survives while other packets still come in on it."""


class Member:
    """A path that was offered to a bond.

    Beside the original a path is alive only while our questions on it are answered: a path that
    carries nothing but the other direction is none. And a path on trial may skip `upDelay`, but
    it has to be alive (the original uses a fresh path that died for 15 s).
    """

    def __init__(self, known: PeerPath, link: Link, slot: int, now_ms: int) -> None:
        self.known = known
        self.link = link
        self.slot = slot  # its place in the tables
        self.nominated_ms = now_ms
        self.alive = True
        self.changed_ms = now_ms  # when `alive` became what it is
        self.eligible = self.allowed
        self.bonded = False
        self.avoid = False
        self.quality = 0.0
        self.flows = 0
        self.latency = Latency()
        self.sent = Pending()
        self.received = Pending()
        self.report_ms = now_ms  # last QOS_MEASUREMENT sent

    @property
    def version(self) -> int:
        return self.known.path.address.version

    @property
    def allowed(self) -> bool:
        """The family is one that the link may use."""
        return self.link.ip_preference in (0, self.version) or self.link.ip_preference > 6

    @property
    def first_family(self) -> bool:
        """The family is the one that the link prefers; false if it has no preference."""
        return self.link.ip_preference // 10 == self.version

    def on_trial(self, now_ms: int) -> bool:
        return now_ms - self.nominated_ms < TRIAL_MS

    def update(self, policy: Policy, now_ms: int) -> bool:
        """Looks at the path again; true if it became eligible or stopped being it."""
        alive = self._works(policy.failover_interval_ms, now_ms)
        if alive != self.alive:
            self.alive, self.changed_ms = alive, now_ms
        since_ms = now_ms - self.changed_ms
        if not self.allowed:
            eligible = False
        elif alive:
            eligible = self.eligible or since_ms >= policy.up_delay_ms or self.on_trial(now_ms)
        else:
            eligible = self.eligible and since_ms < policy.down_delay_ms
        changed = eligible != self.eligible
        self.eligible = eligible
        return changed

    def _works(self, failover_ms: int, now_ms: int) -> bool:
        known = self.known
        silent_ms = now_ms - known.last_in_ms
        limit = DOUBT_PROBES if silent_ms >= failover_ms // 3 else PATIENT_PROBES
        return silent_ms < failover_ms - failover_ms // LOOKS and known.probes <= limit

    def judge(self, policy: Policy) -> None:
        """Is it to be avoided, by its limits?"""
        latency_max, deviation_max, *_ = policy.quality
        too_slow = self.latency.mean_ms > latency_max
        self.avoid = too_slow or self.latency.deviation_ms > deviation_max
