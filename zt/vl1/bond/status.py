"""What a node shows of a bond (ch. 03, 9.6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BondPathStatus:
    """One path of a bonded peer. Times in ms; `quality` is its share of all, 0 to 1."""

    device: str
    local_port: int
    latency_mean_ms: float
    latency_deviation_ms: float
    quality: float
    flows: int
    capacity: int
    bonded: bool
    eligible: bool


@dataclass(frozen=True, slots=True)
class BondStatus:
    """The bond of one peer. `policy` is the standard policy's code, 1 to 5."""

    policy: int
    policy_name: str
    alive_links: int
    total_links: int
    failover_interval_ms: int
    up_delay_ms: int
    down_delay_ms: int
    packets_per_link: int
