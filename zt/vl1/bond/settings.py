"""What is configured about bonding (ch. 03, 9.2). Made by the service from `local.conf`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from zt.protocol.address import Address

ACTIVE_BACKUP, BROADCAST, ROUND_ROBIN, XOR, AWARE = range(1, 6)
STANDARD_POLICIES = {
    "active-backup": ACTIVE_BACKUP,
    "broadcast": BROADCAST,
    "balance-rr": ROUND_ROBIN,
    "balance-xor": XOR,
    "balance-aware": AWARE,
}
"""Name -> the code that the API shows as `bondingPolicyCode`; 0 is no bonding."""

ALWAYS, BETTER, FAILURE, OPTIMIZE = range(4)
RESELECT = {"always": ALWAYS, "better": BETTER, "failure": FAILURE, "optimize": OPTIMIZE}
"""When an active-backup bond leaves a path that works."""

QUALITY_DEFAULTS = (500.0, 100.0, 0.001, 0.0001, 0.25, 0.25, 0.25, 0.25)
"""Limits of latency and its deviation (ms), loss and error ratio; then the weights of the four."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface of a policy."""

    name: str
    enabled: bool = True
    capacity: int = 0  # relative weight; 0: unknown
    ip_preference: int = 0  # 0 any; 4, 6 only that; 46, 64 both, the first preferred
    mtu: int = 0  # UDP payload, 0: as without a bond
    failover_to: str = ""
    primary: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A bonding policy: a standard one, or one of `policies` built on it. Times in ms."""

    name: str
    base: str
    failover_interval_ms: int = 5000
    up_delay_ms: int = 0
    down_delay_ms: int = 0
    packets_per_link: int = 64
    reselect: int = ALWAYS
    quality: tuple[float, ...] = QUALITY_DEFAULTS
    links: tuple[Link, ...] = ()

    @property
    def code(self) -> int:
        return STANDARD_POLICIES[self.base]

    def link(self, name: str) -> Link | None:
        """The settings of an interface; None if it takes no part. If no interface is named all take
        part, as primaries."""
        if not self.links:
            return Link(name, primary=True)
        found = next((link for link in self.links if link.name == name), None)
        return found if found is not None and found.enabled else None


@dataclass(frozen=True, slots=True)
class Bonding:
    """What is configured: the default policy and the policy of single peers."""

    default: Policy | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    peers: Mapping[Address, Policy] = field(default_factory=dict)

    @property
    def in_use(self) -> bool:
        return self.default is not None or bool(self.policies) or bool(self.peers)

    def policy_for(self, peer: Address) -> Policy | None:
        return self.peers.get(peer, self.default)
