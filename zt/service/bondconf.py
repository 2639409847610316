"""Bonding settings of `local.conf` (ch. 06, 5.4; ch. 03, 9.2)."""

from collections.abc import Mapping
from typing import Any

from zt.protocol.address import Address
from zt.vl1.bond.settings import (
    QUALITY_DEFAULTS,
    RESELECT,
    STANDARD_POLICIES,
    Bonding,
    Link,
    Policy,
)

QUALITY_KEYS = (
    "lat_max", "pdv_max", "plr_max", "per_max",
    "lat_weight", "pdv_weight", "plr_weight", "per_weight",
)  # fmt: skip
IP_PREFERENCES = (0, 4, 6, 46, 64)


def parse_bonding(settings: Mapping[str, Any]) -> tuple[Bonding, list[str]]:
    """The bonding part of `settings`, and messages about what had to be left out."""
    messages: list[str] = []
    policies: dict[str, Policy] = {}
    raw_policies = settings.get("policies")
    for name, raw in sorted(raw_policies.items()) if isinstance(raw_policies, dict) else ():
        policy = _policy(name, raw if isinstance(raw, dict) else {}, messages)
        if policy is not None:
            policies[name] = policy

    def named(name: object) -> Policy | None:
        if not isinstance(name, str):
            return None
        if name in STANDARD_POLICIES:
            return Policy(name, name)
        return policies.get(name)

    default_name = settings.get("defaultBondingPolicy")
    default = named(default_name)
    if default_name and default is None and default_name != "none":
        messages.append(
            f"error: unknown policy ({default_name}) specified by defaultBondingPolicy,"
            " bond disabled."
        )
    peers: dict[Address, Policy] = {}
    raw_peers = settings.get("peerSpecificBonds")
    for text, name in sorted(raw_peers.items()) if isinstance(raw_peers, dict) else ():
        policy = named(name)
        try:
            address = Address(int(text, 16))
        except ValueError:
            messages.append(f"error: peerSpecificBonds: not an address: {text}")
            continue
        if policy is None:
            messages.append(f"error: unknown policy ({name}) specified for {text}, bond disabled.")
        else:
            peers[address] = policy
    return Bonding(default, policies, peers), messages


def _policy(name: str, raw: Mapping[str, Any], messages: list[str]) -> Policy | None:
    base = raw.get("basePolicy", "")
    if name in STANDARD_POLICIES:
        messages.append(
            f"error: custom policy ({name}) will be ignored,"
            " cannot use standard policy names for custom policies."
        )
        return None
    if not base:
        messages.append(f"error: no base policy was specified for custom policy ({name})")
    if base not in STANDARD_POLICIES:
        messages.append(f"error: custom policy ({name}) is invalid, unknown base policy ({base}).")
        return None
    # Public documents call the key linkSelectMethod; the original reads activeReselect (Q17).
    reselect = str(raw.get("activeReselect", raw.get("linkSelectMethod", "always")))
    if reselect not in RESELECT:
        messages.append(
            f"WARNING: local.conf: settings.policies.{name}.activeReselect: unknown word"
            f" {reselect!r}, using always"
        )
    return Policy(
        name=name,
        base=base,
        failover_interval_ms=max(_number(raw, "failoverInterval", 5000), 500),
        up_delay_ms=_number(raw, "upDelay", 0),
        down_delay_ms=_number(raw, "downDelay", 0),
        packets_per_link=max(_number(raw, "packetsPerLink", 64), 1),
        reselect=RESELECT.get(reselect, 0),
        quality=_quality(name, raw.get("linkQuality"), messages),
        links=_links(raw.get("links"), messages),
    )


def _number(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key, default)
    return int(value) if isinstance(value, int | float) and value >= 0 else default


def _quality(name: str, raw: Any, messages: list[str]) -> tuple[float, ...]:
    if not isinstance(raw, dict):
        return QUALITY_DEFAULTS
    values = tuple(float(raw[key]) for key in QUALITY_KEYS if isinstance(raw.get(key), int | float))
    if len(values) < len(QUALITY_KEYS):
        messages.append(f"WARNING: local.conf: settings.policies.{name}.linkQuality: incomplete")
        return QUALITY_DEFAULTS
    if abs(sum(values[4:]) - 1.0) > 0.01:
        messages.append(
            f"WARNING: local.conf: settings.policies.{name}.linkQuality: weights must sum to 1"
        )
        return QUALITY_DEFAULTS
    return values


def _links(raw: Any, messages: list[str]) -> tuple[Link, ...]:
    links = []
    for name, entry in sorted(raw.items()) if isinstance(raw, dict) else ():
        if not isinstance(entry, dict):
            continue
        enabled = bool(entry.get("enabled", 1))
        primary = entry.get("mode", "spare") == "primary"
        failover = str(entry.get("failoverTo", ""))
        preference = _number(entry, "ipvPref", 0)
        if failover and not primary:
            messages.append("error: cannot specify failover links for spares, link disabled.")
            enabled, failover = False, ""
        if preference not in IP_PREFERENCES:
            messages.append(f"error: invalid ipvPref value ({preference}), link disabled.")
            enabled, preference = False, 0
        links.append(
            Link(
                name=name,
                enabled=enabled,
                capacity=_number(entry, "capacity", 0),
                ip_preference=preference,
                mtu=_number(entry, "mtu", 0),
                failover_to=failover,
                primary=primary,
            )
        )
    return tuple(links)
