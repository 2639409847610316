"""A network object compiled once per revision: everything of it that member configs are made from.

Network objects may come from an import or another program, so every field is read as leniently as
from a request body.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zt.controller import rules
from zt.controller.addresses import Pool, Range, merge, pool
from zt.controller.documents import (
    MULTICAST_LIMIT,
    TRACE_TARGET_LENGTH,
    Document,
    mtu,
    parse_address,
)
from zt.protocol.coerce import boolean, hexadecimal, integer, text
from zt.protocol.credentials import MAX_CAPABILITY_RULES
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import (
    DEFAULT_PROVIDER,
    DEFAULT_WINDOW,
    DNS_DOMAIN_SIZE,
    DNS_SERVERS,
    MAX_ROUTES,
    MAX_RULES,
    MAX_WINDOW,
    MIN_WINDOW,
    NAME_SIZE,
)

U32 = 0xFFFF_FFFF
DOMAIN_SIZE = DNS_DOMAIN_SIZE - 1


class LoginPlan(NamedTuple):
    """The OpenID Connect client of a network."""

    version: int
    """0: members are sent to a finished URL; 1: they make it from the issuer's own description."""
    client_id: str
    endpoint: str
    """Version 0: the authorization endpoint."""
    issuer: str
    provider: str


class NetworkPlan:
    """See the module. Immutable, so worker threads may use it."""

    def __init__(self, network: Document) -> None:
        self.revision = integer(network.get("revision"))
        self.name = cut(text(network.get("name")), NAME_SIZE)
        self.private = boolean(network.get("private"), True)
        self.broadcast = boolean(network.get("enableBroadcast"), True)
        self.mtu = mtu(network.get("mtu"))
        self.multicast_limit = integer(network.get("multicastLimit"), MULTICAST_LIMIT) & U32
        self.trace_target = trace_target(network.get("remoteTraceTarget")) or 0
        self.trace_level = integer(network.get("remoteTraceLevel"))
        self.window_ms = _window(network.get("certificateTimeoutWindowSize"))
        self.sso = boolean(network.get("ssoEnabled"), False)
        self.login = _login(network)
        self.tokens = network.get("authTokens")

        v6 = network.get("v6AssignMode")
        self.rfc4193, self.sixplane, self.pools_v6 = (
            isinstance(v6, dict) and boolean(v6.get(mode), False)
            for mode in ("rfc4193", "6plane", "zt")
        )
        v4 = network.get("v4AssignMode")
        self.pools_v4 = isinstance(v4, dict) and boolean(v4.get("zt"), False)

        routes = list(_routes(network.get("routes")))
        self.routes = routes[:MAX_ROUTES]
        self._prefixes = _prefixes(target for target, _ in routes)
        self.pools4, self.pools6 = _pools(network.get("ipAssignmentPools"), routes)

        self.domain, self.servers = _dns(network.get("dns"))
        self.rules = _table(network.get("rules"), MAX_RULES)
        self.capabilities: dict[int, bytes] = {}
        self.default_capabilities: list[int] = []
        for number, entry in _entries(network.get("capabilities")):
            self.capabilities[number] = _table(entry.get("rules"), MAX_CAPABILITY_RULES)
            if boolean(entry.get("default"), False):
                self.default_capabilities.append(number)
        self.default_tags = [
            (number, integer(entry["default"]) & U32)
            for number, entry in _entries(network.get("tags"))
            if type(entry.get("default")) in (int, float)
        ]

    def prefix(self, ip: bytes) -> int | None:
        """Length of the longest route prefix that contains an IP; None if none does.

        Default routes do not count (Q12): an address of prefix length 0 would put the whole
        Internet on the link.
        """
        size = 8 * len(ip)
        number = int.from_bytes(ip)
        for bits, networks in self._prefixes[size]:
            if number >> (size - bits) in networks:
                return bits
        return None

    def token_valid(self, token: str, now_ms: int) -> bool:
        """May a node that presents this token join?"""
        expiry = self.tokens.get(token) if isinstance(self.tokens, dict) else None
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return False
        return expiry == 0 or expiry > now_ms


def cut(value: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, never half a character (Q9)."""
    encoded = value.encode("utf-8", "replace")
    return encoded[:limit].decode("utf-8", "ignore")


def trace_target(value: Any) -> int | None:
    """A trace target is text of 10 characters; what is not hexadecimal in it counts as 0."""
    if isinstance(value, str) and len(value) == TRACE_TARGET_LENGTH:
        return hexadecimal(value) & 0xFF_FFFF_FFFF
    return None


def _window(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DEFAULT_WINDOW
    return min(max(int(value), MIN_WINDOW), MAX_WINDOW)


def _login(network: Document) -> LoginPlan | None:
    """None: not enough is known to send anybody to a login."""
    version = 1 if integer(network.get("ssoVersion")) == 1 else 0
    login = LoginPlan(
        version,
        text(network.get("clientId")),
        text(network.get("authorizationEndpoint")),
        text(network.get("ssoIssuer")),
        text(network.get("ssoProvider")) or DEFAULT_PROVIDER,
    )
    known = login.issuer if version else login.endpoint
    return login if known and login.client_id else None


def _routes(value: Any) -> Iterable[tuple[InetAddress, InetAddress]]:
    for route in value if isinstance(value, list) else ():
        if not isinstance(route, dict):
            continue
        target = parse_address(route.get("target"))
        if target is None or target.bits > 8 * len(target.ip):
            continue
        via = parse_address(route.get("via")) if isinstance(route.get("via"), str) else None
        if via is None or len(via.ip) != len(target.ip):
            yield target, InetAddress()
        else:
            yield target, InetAddress(via.ip, 0)


def _prefixes(targets: Iterable[InetAddress]) -> Mapping[int, Sequence[tuple[int, frozenset[int]]]]:
    """Per address size in bits: (prefix length, network numbers), longest first."""
    found: dict[int, dict[int, set[int]]] = {32: {}, 128: {}}
    for target in targets:
        size = 8 * len(target.ip)
        number = int.from_bytes(target.ip)
        # Original controllers compare IPv6 targets with their host bits, IPv4 ones without.
        if target.bits and not (size == 128 and _host_bits(target)):
            found[size].setdefault(target.bits, set()).add(number >> (size - target.bits))
    return {
        size: [(bits, frozenset(lengths[bits])) for bits in sorted(lengths, reverse=True)]
        for size, lengths in found.items()
    }


def _host_bits(target: InetAddress) -> int:
    return int.from_bytes(target.ip) & ((1 << (8 * len(target.ip) - target.bits)) - 1)


def _pools(
    value: Any, routes: Iterable[tuple[InetAddress, InetAddress]]
) -> tuple[list[Pool], list[Pool]]:
    routed: dict[int, list[Range]] = {4: [], 16: []}
    for target, via in routes:
        size = len(target.ip)
        # IPv4 pools also live in routes with a gateway, IPv6 pools only in local ones.
        if target.bits and not _host_bits(target) and (size == 4 or not via):
            first = int.from_bytes(target.ip)
            routed[size].append((first, first | ((1 << (8 * size - target.bits)) - 1)))
    inside = {size: merge(ranges) for size, ranges in routed.items()}
    pools: dict[int, list[Pool]] = {4: [], 16: []}
    for entry in value if isinstance(value, list) else ():
        if not isinstance(entry, dict):
            continue
        start = parse_address(entry.get("ipRangeStart"))
        end = parse_address(entry.get("ipRangeEnd"))
        if start is not None and end is not None and len(start.ip) == len(end.ip):
            size = len(start.ip)
            first, last = int.from_bytes(start.ip), int.from_bytes(end.ip)
            pools[size].append(pool(first, last, inside[size]))
    return pools[4], pools[16]


def _dns(value: Any) -> tuple[str, list[InetAddress]]:
    """Domain and server slots; slots whose text is no address stay, empty. Long domains: Q6."""
    if not isinstance(value, dict):
        return "", []
    servers = value.get("servers")
    slots = servers[:DNS_SERVERS] if isinstance(servers, list) else []
    domain = cut(text(value.get("domain")), DOMAIN_SIZE).partition("\0")[0]
    return domain, [parse_address(slot) or InetAddress() for slot in slots]


def _entries(value: Any) -> Iterable[tuple[int, Document]]:
    """The objects of an array with their `id`, as nodes know it: modulo 2^32."""
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict) and entry:
            yield integer(entry.get("id")) & U32, entry


def _table(value: Any, limit: int) -> bytes:
    try:
        return rules.table(value, limit)
    except DecodeError:
        return b""  # drops every frame: the safe answer to rules that nobody can read
