"""What a node that asks for a network's config gets, and what its member object becomes.

Chapter 05, sections 9 to 11. Functions of their arguments: nothing here waits, stores or sends.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from zt.controller.addresses import AddressBook, choose4, choose6
from zt.controller.documents import Document, default_member, identifiers, parse_address
from zt.controller.plan import U32, NetworkPlan
from zt.protocol.address import (
    RFC4193_BITS,
    SIXPLANE_BITS,
    NetworkId,
    rfc4193,
    sixplane,
)
from zt.protocol.coerce import boolean, integer
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress, ip_text
from zt.protocol.netconf import MAX_STATIC_IPS, RequestMetadata

TOKEN_LIMIT = 511
"""Bytes considered of the metadata key ``a``."""
TOKEN_PREFIX = "token:"


def token_of(client: RequestMetadata) -> str:
    """The authorization token that a request presents, if any."""
    presented = client.token.encode()[:TOKEN_LIMIT].decode(errors="ignore")
    return presented.removeprefix(TOKEN_PREFIX) if presented.startswith(TOKEN_PREFIX) else ""


class Outcome(Enum):
    CONFIG = "config"
    DENIED = "access denied"
    LOGIN = "authentication required"


class Decision(NamedTuple):
    """The member object is to be stored if it differs; None: must not be touched."""

    outcome: Outcome
    member: Document | None


def decide(
    nwid: NetworkId,
    plan: NetworkPlan,
    current: Document | None,
    identity: Identity,
    client: RequestMetadata,
    now_ms: int,
) -> Decision:
    """Sections 9.4 to 9.10, addresses excepted."""
    member = default_member(nwid, identity.address, now_ms) | (current or {})
    if not _claim_identity(member, identity):
        return Decision(Outcome.DENIED, None)
    member |= identifiers(nwid, identity.address)
    _authorize(member, plan, token_of(client), now_ms)
    if login_required(member, plan) and login_expiry(member) <= now_ms:
        return Decision(Outcome.LOGIN, member)
    if not boolean(member.get("authorized")):
        return Decision(Outcome.DENIED, member)
    member["vMajor"], member["vMinor"] = client.major, client.minor
    member["vRev"], member["vProto"] = client.revision, client.protocol
    if client.rules_revision:
        _grant_defaults(member, plan, new=current is None)
    return Decision(Outcome.CONFIG, member)


def login_required(member: Document, plan: NetworkPlan) -> bool:
    """Is the member subject to single sign-on?"""
    return plan.sso and not boolean(member.get("ssoExempt"))


def login_expiry(member: Document) -> int:
    """When its session ends, in ms; 0 if it has never logged in."""
    return integer(member.get("authenticationExpiryTime"))


def _claim_identity(member: Document, identity: Identity) -> bool:
    """An address belongs to the identity that was first seen with it."""
    known = member.get("identity")
    text = identity.to_text()
    if known is None:
        member["identity"] = text
    if known is None or known == text:
        return True
    try:
        return isinstance(known, str) and Identity.parse(known) == identity
    except DecodeError:
        return False


def _authorize(member: Document, plan: NetworkPlan, token: str, now_ms: int) -> None:
    if boolean(member.get("authorized")):
        return
    if not plan.private:
        kind, credential = "public", None
    elif token and plan.token_valid(token, now_ms):
        kind, credential = "token", token
    else:
        return
    member["authorized"] = True
    member["lastAuthorizedTime"] = now_ms
    member["lastAuthorizedCredentialType"] = kind
    member["lastAuthorizedCredential"] = credential


def _grant_defaults(member: Document, plan: NetworkPlan, *, new: bool) -> None:
    """Default capabilities to new members; tag defaults to whoever lacks the tag (10.3)."""
    if new and plan.default_capabilities:
        held = capability_ids(member)
        added = [number for number in plan.default_capabilities if number not in held]
        member["capabilities"] = [*_list(member, "capabilities"), *added]
    if plan.default_tags:
        tags = tag_values(member)
        missing = [[number, value] for number, value in plan.default_tags if number not in tags]
        if missing:
            member["tags"] = [*_list(member, "tags"), *missing]


def capability_ids(member: Document) -> list[int]:
    return [integer(number) & U32 for number in _list(member, "capabilities")]


def tag_values(member: Document) -> dict[int, int]:
    return {
        integer(pair[0]) & U32: integer(pair[1]) & U32
        for pair in _list(member, "tags")
        if isinstance(pair, list) and len(pair) == 2
    }


def listed_ips(member: Document) -> list[bytes]:
    """The addresses of `ipAssignments`, as often as they are listed."""
    found = (parse_address(entry) for entry in _list(member, "ipAssignments"))
    return [address.ip for address in found if address is not None]


def _list(member: Document, key: str) -> list[object]:
    value = member.get(key)
    return value if isinstance(value, list) else []


class Assignment(NamedTuple):
    """What a member is given: addresses with their prefix lengths."""

    addresses: list[InetAddress]
    computed: bool
    """An RFC 4193 or 6PLANE address is among them."""


def assign(
    nwid: NetworkId, plan: NetworkPlan, address: int, member: Document, book: AddressBook
) -> Assignment:
    """Section 11, steps 1 to 3. An address that another member listed first is withheld."""
    given: list[InetAddress] = []
    if not boolean(member.get("noAutoAssignIps")):
        if plan.rfc4193:
            given.append(InetAddress(rfc4193(nwid, address), RFC4193_BITS))
        if plan.sixplane:
            given.append(InetAddress(sixplane(nwid, address), SIXPLANE_BITS))
    computed = bool(given)
    for ip in listed_ips(member):
        if book.owner(ip) in (None, address) and (bits := plan.prefix(ip)) is not None:
            given.append(InetAddress(ip, bits))
    return Assignment(given[:MAX_STATIC_IPS], computed)


def sought(plan: NetworkPlan, member: Document, given: Assignment) -> tuple[bool, bool]:
    """Has the member to be given an IPv6, an IPv4 address from the pools?"""
    if boolean(member.get("noAutoAssignIps")):
        return False, False
    families = {len(entry.ip) for entry in given.addresses[plan.rfc4193 + plan.sixplane :]}
    return plan.pools_v6 and 16 not in families, plan.pools_v4 and 4 not in families


def allocate(
    plan: NetworkPlan,
    address: int,
    member: Document,
    given: Assignment,
    book: AddressBook,
    random: Callable[[int], bytes],
) -> list[bytes]:
    """Section 11, steps 4 and 5: what the pools give this member now.

    The addresses are appended to the member's `ipAssignments` and claimed in the book; unless they
    get stored, the caller has to release them.
    """
    v6, v4 = sought(plan, member, given)
    chosen = []
    if v6:
        chosen.append(choose6(plan.pools6, book, address, random))
    if v4:
        chosen.append(choose4(plan.pools4, book, address))
    room = MAX_STATIC_IPS - len(given.addresses)
    taken = [ip for ip in chosen if ip is not None][: max(room, 0)]
    for ip in taken:
        book.claim(ip, address)
    if taken:
        member["ipAssignments"] = [*_list(member, "ipAssignments"), *map(ip_text, taken)]
    return taken
