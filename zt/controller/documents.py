"""Network and member objects: their defaults and what a request body does to them (ch. 05, 5 to 8).

An object is a plain JSON document (a dict). Objects may come from anywhere (an import, another
program), so nothing here relies on a field being present or well-typed, and keys that are not known
stay. Functions never change the document they are given.
"""

import socket
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from zt.controller import rules
from zt.controller.bodies import ARRAY_LIMIT, BodyError, type_name
from zt.protocol.address import Address, NetworkId
from zt.protocol.coerce import boolean, integer, text
from zt.protocol.inet import InetAddress, ip_text
from zt.protocol.netconf import DEFAULT_MTU, MAX_MTU, MIN_MTU

Document = dict[str, Any]

MULTICAST_LIMIT = 32
TRACE_TARGET_LENGTH = 10
IP_TEXT_SIZE = 63

# What storage must not keep: every save removes these.
_NETWORK_TRANSIENT = (
    "clock",
    "authorizedMemberCount",
    "activeMemberCount",
    "totalMemberCount",
    "lastModified",
)
_MEMBER_TRANSIENT = (
    "clock",
    "physicalAddr",
    "recentLog",
    "lastModified",
    "lastRequestMetaData",
    "authenticationURL",
    "authenticationClientID",
)


def default_network(nwid: NetworkId, now_ms: int) -> Document:
    return {
        "authTokens": [None],
        "authorizationEndpoint": "",
        "capabilities": [],
        "clientId": "",
        "creationTime": now_ms,
        "dns": [],
        "enableBroadcast": True,
        "id": str(nwid),
        "ipAssignmentPools": [],
        "mtu": DEFAULT_MTU,
        "multicastLimit": MULTICAST_LIMIT,
        "name": "",
        "nwid": str(nwid),
        "objtype": "network",
        "private": True,
        "remoteTraceLevel": 0,
        "remoteTraceTarget": None,
        "revision": 0,
        "routes": [],
        "rules": [{"not": False, "or": False, "type": "ACTION_ACCEPT"}],
        "rulesSource": "",
        "ssoEnabled": False,
        "tags": [],
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"6plane": False, "rfc4193": False, "zt": False},
    }


def default_member(nwid: NetworkId, address: Address, now_ms: int) -> Document:
    return {
        "activeBridge": False,
        "address": str(address),
        "authenticationExpiryTime": 0,
        "authorized": False,
        "capabilities": [],
        "creationTime": now_ms,
        "id": str(address),
        "ipAssignments": [],
        "lastAuthorizedCredential": None,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedTime": 0,
        "lastDeauthorizedTime": 0,
        "noAutoAssignIps": False,
        "nwid": str(nwid),
        "objtype": "member",
        "remoteTraceLevel": 0,
        "remoteTraceTarget": None,
        "revision": 0,
        "ssoExempt": False,
        "tags": [],
        "vMajor": -1,
        "vMinor": -1,
        "vProto": -1,
        "vRev": -1,
    }


def update_network(current: Document | None, nwid: NetworkId, body: Any, now_ms: int) -> Document:
    """The network after a write of `body`; created from defaults if there is none.

    Raises BodyError.
    """
    network = default_network(nwid, now_ms) | (current or {})
    network |= {"id": str(nwid), "nwid": str(nwid), "objtype": "network"}
    _apply(network, body, _NETWORK_FIELDS)
    if current is not None and current.get("rulesSource"):
        compiled = ("rules", "capabilities", "tags")
        if any(not same(network[key], current.get(key)) for key in compiled):
            network["rulesSource"] = ""  # what it was compiled to has been replaced
    return _without(network, _NETWORK_TRANSIENT)


def update_member(
    current: Document | None, nwid: NetworkId, address: Address, body: Any, now_ms: int
) -> Document:
    """The member after a write of `body`; created from defaults if there is none.

    Raises BodyError.
    """
    member = default_member(nwid, address, now_ms) | (current or {})
    member |= identifiers(nwid, address)
    _apply(member, body, _MEMBER_FIELDS)
    if isinstance(body, dict) and "authorized" in body:
        authorize(member, boolean(body["authorized"], False), now_ms)
    return _without(member, _MEMBER_TRANSIENT)


def extend(document: Document, extra: Document) -> None:
    """Set fields that only the extended API knows; None takes a field away. They are checked."""
    for key, value in extra.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value


def identifiers(nwid: NetworkId, address: Address) -> Document:
    """The fields that name a member; lower case whatever the path said (Q3)."""
    return {"id": str(address), "address": str(address), "nwid": str(nwid), "objtype": "member"}


def authorize(member: Document, authorized: bool, now_ms: int) -> None:
    """Set `authorized` as the API does; without a difference nothing is touched (ch. 05, 6.1)."""
    if member.get("authorized") is authorized:
        return
    member["authorized"] = authorized
    if authorized:
        member["lastAuthorizedTime"] = now_ms
        member["lastAuthorizedCredentialType"] = "api"
        member["lastAuthorizedCredential"] = None
    else:
        member["lastDeauthorizedTime"] = now_ms


def revise(current: Document | None, new: Document) -> Document | None:
    """`new` with the next revision, or None when nothing but the revision differs (section 8)."""
    if current is not None:
        if same(current | {"revision": 0}, new | {"revision": 0}):
            return None
        return new | {"revision": integer(current.get("revision")) + 1}
    return new | {"revision": 1}


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: numbers by value, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _without(document: Document, keys: Iterable[str]) -> Document:
    for key in keys:
        document.pop(key, None)
    return document


_Keep = object()
"""Returned by a field reader: leave the stored value as it is."""

_FieldReader = Callable[[Any], Any]


def _apply(document: Document, body: Any, fields: dict[str, _FieldReader]) -> None:
    if not isinstance(body, dict):
        return
    for key, reader in fields.items():
        if key in body and (value := reader(body[key])) is not _Keep:
            document[key] = value


def _trace_target(value: Any) -> str | None:
    target = text(value)
    return target if len(target.encode()) == TRACE_TARGET_LENGTH else None


def mtu(value: Any) -> int:
    return min(max(integer(value, DEFAULT_MTU) & 0xFFFF_FFFF, MIN_MTU), MAX_MTU)


def _v4_assign_mode(value: Any) -> Document:
    if isinstance(value, dict):
        return {"zt": boolean(value.get("zt"), False)}
    return {"zt": value == "zt"}


def _v6_assign_mode(value: Any) -> Document:
    modes = ("6plane", "rfc4193", "zt")
    if isinstance(value, dict):
        return {mode: boolean(value[mode], False) for mode in modes if mode in value}
    named = value.split(",") if isinstance(value, str) else []
    return {mode: mode in named for mode in modes}


def _array(entry: Callable[[Any], Any]) -> _FieldReader:
    """A reader of arrays that keeps what `entry` makes of the elements, except None."""

    def read(value: Any) -> Any:
        if not isinstance(value, list):
            return _Keep
        kept = (result for element in value if (result := entry(element)) is not None)
        return list(islice(kept, ARRAY_LIMIT))

    return read


def _keyed(entry: Callable[[Document], Document]) -> _FieldReader:
    """A reader of arrays of objects with an `id`: ascending, the last of equal IDs wins."""

    def read(value: Any) -> Any:
        if not isinstance(value, list):
            return _Keep
        found = {}
        for element in value:
            if isinstance(element, dict):
                kept = entry(element)
                found[kept["id"]] = kept
        return [found[number] for number in sorted(found)[:ARRAY_LIMIT]]

    return read


def _route(value: Any) -> Document | None:
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        return None
    target = parse_address(value["target"])
    if target is None or target.bits > 8 * len(target.ip):
        return None
    via = parse_address(value["via"]) if isinstance(value.get("via"), str) else None
    same_family = via is not None and len(via.ip) == len(target.ip)
    return {"target": str(target), "via": ip_text(via.ip) if via and same_family else None}


def _pool(value: Any) -> Document | None:
    if not isinstance(value, dict):
        return None
    start, end = parse_address(value.get("ipRangeStart")), parse_address(value.get("ipRangeEnd"))
    if start is None or end is None or len(start.ip) != len(end.ip):
        return None
    return {"ipRangeStart": ip_text(start.ip), "ipRangeEnd": ip_text(end.ip)}


def _capability(value: Document) -> Document:
    rules = value.get("rules")
    return {
        "default": boolean(value.get("default"), False),
        "id": integer(value.get("id")),
        "rules": _rules(rules) if isinstance(rules, list) else [],
    }


def _tag(value: Document) -> Document:
    default = value.get("default")
    return {
        "default": None if default is None else integer(default),
        "id": integer(value.get("id")),
    }


def parse_address(value: Any) -> InetAddress | None:
    """IP text ``address[/n]``, n in the port field; None where there is no valid address.

    Original controllers take 0.0.0.0 or :: for one that does not parse (Q4).
    """
    written = text(value)
    if not written or len(written.encode(errors="replace")) > IP_TEXT_SIZE:
        return None
    host, _, bits = written.partition("/")
    if "." not in host and ":" not in host:
        return None
    try:
        # The C library's reader: a tenth of the time of ipaddress, and there are many addresses.
        packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        return None
    return InetAddress(packed, integer(bits) & 0xFFFF if bits else 0)


def _rules(value: Any) -> Any:
    return rules.normalise(value) if isinstance(value, list) else _Keep


def _dns(value: Any) -> Any:
    if not isinstance(value, dict):
        return _Keep
    kept = {"domain": value.get("domain")}
    if isinstance(value.get("servers"), list):
        kept["servers"] = value["servers"]
    return kept


def _auth_tokens(value: Any) -> Any:
    if not isinstance(value, dict):
        return [None]
    kept = {
        token: expiry
        for token, expiry in value.items()
        if isinstance(expiry, int | float) and not isinstance(expiry, bool) and expiry >= 0
    }
    return kept or None


def _ip_assignments(value: Any) -> Any:
    if not isinstance(value, list):
        return _Keep
    for element in value:
        if not isinstance(element, str):
            raise BodyError(f"type must be string, but is {type_name(element)}")
    found = map(parse_address, value)
    return [ip_text(address.ip) for address in found if address is not None][:ARRAY_LIMIT]


def _member_tags(value: Any) -> Any:
    if not isinstance(value, list):
        return _Keep
    pairs = {
        integer(pair[0]) & 0xFFFF_FFFF: integer(pair[1]) & 0xFFFF_FFFF
        for pair in value
        if isinstance(pair, list) and len(pair) == 2
    }
    return [[number, pairs[number]] for number in sorted(pairs)[:ARRAY_LIMIT]]


def _member_capabilities(value: Any) -> Any:
    if not isinstance(value, list):
        return _Keep
    return sorted({integer(element) for element in value})[:ARRAY_LIMIT]


_NETWORK_FIELDS: dict[str, _FieldReader] = {
    "name": text,
    "private": lambda value: boolean(value, True),
    "enableBroadcast": lambda value: boolean(value, False),
    "multicastLimit": lambda value: integer(value, MULTICAST_LIMIT),
    "mtu": mtu,
    "remoteTraceTarget": _trace_target,
    "remoteTraceLevel": integer,
    "v4AssignMode": _v4_assign_mode,
    "v6AssignMode": _v6_assign_mode,
    "routes": _array(_route),
    "ipAssignmentPools": _array(_pool),
    "rules": _rules,
    "capabilities": _keyed(_capability),
    "tags": _keyed(_tag),
    "dns": _dns,
    "authTokens": _auth_tokens,
}
_MEMBER_FIELDS: dict[str, _FieldReader] = {
    "name": text,
    "activeBridge": lambda value: boolean(value, False),
    "noAutoAssignIps": lambda value: boolean(value, False),
    "ipAssignments": _ip_assignments,
    "tags": _member_tags,
    "capabilities": _member_capabilities,
    "authenticationExpiryTime": integer,
    "remoteTraceTarget": _trace_target,
    "remoteTraceLevel": integer,
}
