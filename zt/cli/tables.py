"""The tables of zerotier-cli (ch. 06, 4.6 to 4.9): API values in, lines out."""

from collections.abc import Iterator
from typing import Any

POLICIES = ("none", "active-backup", "broadcast", "balance-rr", "balance-xor", "balance-aware")
TUNNEL_NOTE = "NOTE: Currently tunneling through a TCP relay. Ensure that UDP is not blocked."
RULE = "-" * 120


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of an array; anything else counts as none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def text(value: Any, missing: str = "-") -> str:
    """A value in a column: strings as they are, numbers in decimal, booleans as 1 and 0."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(int(value))
    return missing


def number(value: Any, default: int = 0) -> int:
    return int(value) if isinstance(value, int | float) else default


def version(peer: dict[str, Any]) -> str:
    parts = [number(peer.get(f"version{part}"), -1) for part in ("Major", "Minor", "Rev")]
    return ".".join(map(str, parts)) if min(parts) >= 0 else "-"


def preferred(peer: dict[str, Any]) -> dict[str, Any] | None:
    """The path in use, if there is one."""
    return next(
        (path for path in objects(peer.get("paths")) if path.get("preferred") is True), None
    )


def age(path: dict[str, Any], key: str, now_ms: int) -> int:
    """Milliseconds since, -1 for never."""
    then = number(path.get(key))
    return max(now_ms - then, 0) if then > 0 else -1


def list_peers(value: Any, now_ms: int) -> Iterator[str]:
    yield "200 listpeers <ztaddr> <path> <latency> <version> <role>"
    for peer in objects(value):
        path = preferred(peer)
        where = "-"
        if path is not None:
            ages = [age(path, key, now_ms) for key in ("lastSend", "lastReceive")]
            where = f"{text(path.get('address'))};{ages[0]};{ages[1]}"
        yield (
            f"200 listpeers {text(peer.get('address'))} {where}"
            f" {number(peer.get('latency'))} {version(peer)} {text(peer.get('role'))}"
        )


def peers(value: Any, now_ms: int) -> Iterator[str]:
    yield "200 peers"
    yield "<ztaddr>   <ver>  <role> <lat> <link>   <lastTX> <lastRX> <path>"
    tunneled = False
    for peer in objects(value):
        tunneled |= peer.get("tunneled") is True
        path = preferred(peer)
        link = "RELAY"
        if path is not None:
            kind = "RELAY" if peer.get("tunneled") is True else "DIRECT  "
            sent, received = (age(path, key, now_ms) for key in ("lastSend", "lastReceive"))
            link = f"{kind} {sent:<8} {received:<8} {text(path.get('address'))}"
        yield (
            f"{text(peer.get('address'))} {version(peer):<6} {text(peer.get('role')):<6}"
            f" {number(peer.get('latency')):>5} {link}"
        )
    if tunneled:
        yield TUNNEL_NOTE


def list_networks(value: Any, now_ms: int) -> Iterator[str]:
    yield "200 listnetworks <nwid> <name> <mac> <status> <type> <dev> <ZT assigned ips>"
    for network in objects(value):
        addresses = network.get("assignedAddresses")
        texts = [a for a in addresses if isinstance(a, str)] if isinstance(addresses, list) else []
        columns = [
            text(network.get(key))
            for key in ("nwid", "name", "mac", "status", "type", "portDeviceName")
        ]
        yield " ".join(["200 listnetworks", *columns, ",".join(texts) or "-"])
        if network.get("ssoEnabled") is True:
            yield from _sso(network, now_ms)


def _sso(network: dict[str, Any], now_ms: int) -> Iterator[str]:
    if network.get("status") == "AUTHENTICATION_REQUIRED":
        url = network.get("authenticationURL")
        yield f"    AUTH EXPIRED, URL: {url if isinstance(url, str) else '(null)'}"
    elif network.get("status") == "OK":
        left_ms = number(network.get("authenticationExpiryTime")) - now_ms
        if left_ms >= 0:
            yield f"    AUTH OK, expires in: {left_ms // 1000} seconds"


def list_bonds(value: Any) -> Iterator[str]:
    yield "    <peer>                        <bondtype>     <links>"
    bonded = [peer for peer in objects(value) if peer.get("isBonded") is True]
    for peer in bonded:
        code = number(peer.get("bondingPolicyCode"))
        policy = POLICIES[code] if 0 <= code < len(POLICIES) else POLICIES[0]
        links = f"{number(peer.get('numAliveLinks'))}/{number(peer.get('numTotalLinks'))}"
        yield f"{text(peer.get('address')):>10}  {policy:>32}         {links}"
    if not bonded:
        yield "      NONE\t\t\t\tNONE\t    NONE       NONE"


def show_bond(bond: dict[str, Any]) -> Iterator[str]:
    links = f"{number(bond.get('numAliveLinks'))}/{number(bond.get('numTotalLinks'))}"
    for label, shown in (
        ("Peer", text(bond.get("address"))),
        ("Bond", text(bond.get("bondingPolicyStr"))),
        ("Link Select Method", number(bond.get("linkSelectMethod"))),
        ("Links", links),
        ("Failover Interval (ms)", number(bond.get("failoverInterval"))),
        ("Up Delay (ms)", number(bond.get("upDelay"))),
        ("Down Delay (ms)", number(bond.get("downDelay"))),
        ("Packets Per Link", number(bond.get("packetsPerLink"))),
    ):
        yield f"{label:<23}: {shown}"
    paths = list(enumerate(objects(bond.get("paths"))))
    yield ""
    yield (
        "idx                  interface                                  path"
        "               socket             local port"
    )
    yield RULE
    for index, path in paths:
        yield (
            f"{index:2d}: {text(path.get('ifname')):>26} {text(path.get('address')):>51}"
            f" {number(path.get('localSocket')):016x} {number(path.get('localPort')):12d}"
        )
    yield ""
    yield (
        "idx     lat      pdv    capacity    qual      rx_age      tx_age  eligible  bonded   flows"
    )
    yield RULE
    for index, path in paths:
        mean, variance, quality = (
            float(path.get(key) or 0)
            for key in ("latencyMean", "latencyVariance", "relativeQuality")
        )
        yield (
            f"{index:2d}: {mean:8.2f} {variance:8.2f} {number(path.get('givenLinkSpeed')):10d}"
            f" {quality:7.4f} {number(path.get('lastInAge')):11d}"
            f" {number(path.get('lastOutAge')):11d} {number(path.get('eligible')):9d}"
            f" {number(path.get('bonded')):7d} {number(path.get('assignedFlowCount')):7d}"
        )


def get_property(network: dict[str, Any], key: str) -> str:
    """What `get` prints, without the final newline (ch. 06, 4.8)."""
    if key in ("ip", "ip4", "ip6", "ip6plane", "ip6prefix"):
        return _addresses(network, key)
    value = network.get(key)
    if isinstance(value, str | bool | int):
        return text(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "error, unknown property name"


def _addresses(network: dict[str, Any], key: str) -> str:
    addresses = network.get("assignedAddresses")
    all_texts = [
        a.partition("/")[0]
        for a in (addresses if isinstance(addresses, list) else [])
        if isinstance(a, str)
    ]
    mark = {"ip": "", "ip4": "."}.get(key, ":")
    candidates = [a for a in all_texts if mark in a]
    out = ""
    for at, address in enumerate(candidates):
        if key in ("ip6plane", "ip6prefix") and not address.startswith("fc"):
            continue
        out += _prefix(address) if key == "ip6prefix" else address
        # The separator depends on the candidates, not on the matches: a blank line may follow.
        out += "\n" if at + 1 < len(candidates) else ""
    return out


def _prefix(address: str) -> str:
    """The first 24 characters of the text: right for the uncompressed groups of a 6PLANE prefix."""
    return address[:24]
