"""What is known about one peer, and the health of its direct paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zt._fast.cipher import PeerKey
from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.messages import Version
from zt.protocol.packet import AES_PROTOCOL_VERSION, SUITE_AES, SUITE_SALSA
from zt.vl1.gates import PushGate
from zt.vl1.path import UNKNOWN_LATENCY_MS, Path

if TYPE_CHECKING:
    from zt._fast.tables import Tables
    from zt.vl1.bond.bond import Bond

MAX_PATHS = 64
ALIVE_MS = 19_000
EXPIRED_MS = 243_000
TRUST_MS = 600_000
ACTIVE_MS = 500_000
DOUBT_PROBES = 2
"""Unanswered probes after which a path counts as dead."""

ECHO_PROTOCOL = 5
NO_ECHO_VERSION = (1, 1, 0)


class PeerPath:
    """A direct path of a peer.

    Any authentic packet shows that the peer's datagrams reach us; only an OK to a request of ours
    (`proof_ms`) shows that ours reach the peer. A path whose probes stay unanswered is in doubt.
    """

    __slots__ = (
        "last_in_ms",
        "latency_ms",
        "path",
        "priority",
        "probe_ms",
        "probes",
        "proof_ms",
    )

    def __init__(self, path: Path, now_ms: int) -> None:
        self.path = path
        self.last_in_ms = now_ms
        self.proof_ms = now_ms
        self.probe_ms = 0
        self.probes = 0  # sent since the last proof
        self.latency_ms = UNKNOWN_LATENCY_MS
        self.priority = 1

    @property
    def in_doubt(self) -> bool:
        return self.probes > DOUBT_PROBES

    @property
    def unsure(self) -> bool:
        """At least one probe timed out."""
        return self.probes > 1

    def alive(self, now_ms: int) -> bool:
        return now_ms - self.last_in_ms < ALIVE_MS and not self.in_doubt

    def expired(self, now_ms: int) -> bool:
        return now_ms - self.last_in_ms >= EXPIRED_MS

    def refresh(self, tables: Tables) -> None:
        """What the data plane heard on it counts, too."""
        last_in_ms, _ = tables.path_times(self.path.handle)
        self.last_in_ms = max(self.last_in_ms, last_in_ms)

    def measure(self, round_trip_ms: int) -> None:
        """A latency sample: ms from request to OK."""
        known = self.latency_ms != UNKNOWN_LATENCY_MS
        self.latency_ms = (self.latency_ms + round_trip_ms) // 2 if known else round_trip_ms

    def cost(self, now_ms: int) -> float:
        """Lower is better (ch. 03, 4.5): scope outweighs latency up to a factor."""
        age_ms = now_ms - self.last_in_ms
        cost = max(self.latency_ms, 1)
        if age_ms >= ALIVE_MS or self.unsure:
            cost += UNKNOWN_LATENCY_MS + min(age_ms, 140_000)
        return cost * (8 - self.path.address.scope) / self.priority


class Peer:
    """A peer in memory. Times are in ms, 0 = never."""

    __slots__ = (
        "address",
        "aes",
        "bond",
        "guesses",
        "hello_ms",
        "hint_ms",
        "identity",
        "key",
        "last_active_ms",
        "last_receive_ms",
        "paths",
        "push_gate",
        "push_ms",
        "relay_hello_ms",
        "route",
        "saved",
        "tries",
        "trusted_ms",
        "version",
        "whois_ms",
    )

    def __init__(self, identity: Identity, now_ms: int, *, aes: bool = True) -> None:
        self.identity = identity
        self.aes = aes  # whether we send suite 3 to peers that take it
        self.address: Address = identity.address
        self.key: PeerKey | None = None  # agreed when first needed
        self.version: Version | None = None  # as it announced itself
        self.paths: list[PeerPath] = []
        self.bond: Bond | None = None
        self.route: tuple[Path | None, Path | None] = (None, None)  # as the tables have it
        self.last_receive_ms = now_ms
        self.last_active_ms = 0
        self.trusted_ms = 0
        self.hello_ms = 0  # last full HELLO to its paths or endpoints
        self.relay_hello_ms = 0  # last HELLO through an upstream
        self.push_ms = 0  # last PUSH_DIRECT_PATHS sent
        self.guesses = 0  # rounds of guessed ports told to it
        self.push_gate = PushGate()
        self.whois_ms = 0  # last WHOIS answered
        self.hint_ms = 0
        self.saved = False  # there is a file of it
        self.tries = 0  # HELLOs since it was last reached

    @property
    def protocol(self) -> int:
        """Protocol version, 0 while unknown."""
        return self.version.protocol if self.version else 0

    @property
    def suite(self) -> int:
        version = self.version
        newest = self.aes and version is not None and version.protocol >= AES_PROTOCOL_VERSION
        return SUITE_AES if newest else SUITE_SALSA

    @property
    def takes_echo(self) -> bool:
        version = self.version
        return (
            version is not None and version[0] >= ECHO_PROTOCOL and version[1:] != NO_ECHO_VERSION
        )

    def path_on(self, path: Path) -> PeerPath | None:
        for known in self.paths:
            if known.path is path:
                return known
        return None

    def best(self, now_ms: int) -> PeerPath | None:
        """The best path that is neither expired nor in doubt; of equals the later one."""
        best, best_cost = None, 0.0
        for path in self.paths:
            if path.in_doubt or path.expired(now_ms):
                continue
            cost = path.cost(now_ms)
            if best is None or cost <= best_cost:
                best, best_cost = path, cost
        return best

    def main_path(self, now_ms: int) -> Path | None:
        """The direct path that its packets take, those that a bond spreads aside."""
        best = self.best(now_ms)
        return (self.bond.route if self.bond else None) or (best.path if best else None)

    def last_resort(self) -> PeerPath | None:
        """The path heard from most recently, however dead it looks."""
        return max(self.paths, key=lambda path: path.last_in_ms, default=None)

    def latency_ms(self, now_ms: int) -> int:
        best = self.best(now_ms)
        return best.latency_ms if best else UNKNOWN_LATENCY_MS

    def active(self, now_ms: int) -> bool:
        """Exchanged frames or configurations lately (ch. 03, 3.6)."""
        return now_ms - self.last_active_ms < ACTIVE_MS

    def trusted(self, now_ms: int) -> bool:
        return now_ms - self.trusted_ms < TRUST_MS
