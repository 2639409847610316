"""A member's network config, signed, as the chunks that are sent (ch. 05, 10; ch. 04, 6)."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from zt.controller.decisions import (
    Assignment,
    capability_ids,
    tag_values,
)
from zt.controller.documents import Document
from zt.controller.plan import NetworkPlan, trace_target
from zt.protocol.address import Address, NetworkId
from zt.protocol.coerce import integer
from zt.protocol.credentials import MAX_THINGS, Capability, Com, Ownership, Tag, things_of
from zt.protocol.dictionary import ERROR_CAPACITY, DictionaryWriter
from zt.protocol.identity import Identity
from zt.protocol.netconf import (
    ACTIVE_BRIDGE,
    BROADCAST,
    DEFAULT_PROVIDER,
    MAX_CAPABILITIES,
    MAX_SPECIALISTS,
    MAX_TAGS,
    NDP_EMULATION,
    Dns,
    NetworkConfig,
    Route,
    Sso,
    split,
)
from zt.protocol.rules import Rule, RuleType, encode

ACCEPT = encode([Rule(RuleType.ACTION_ACCEPT)])


class Recipe(NamedTuple):
    """All that a config is made of. Immutable: a worker thread builds from it."""

    nwid: NetworkId
    plan: NetworkPlan
    identity: Identity
    """Of the member."""
    member: Document
    assignment: Assignment
    bridges: Sequence[Address]
    """Every active bridge, ascending."""
    rules_engine: int
    sso: Sso
    now_ms: int


def build(recipe: Recipe, signer: Identity, random: Callable[[int], bytes]) -> list[bytes]:
    """The chunks of a config; 3 signatures and one per tag and capability."""
    nwid, plan, member = recipe.nwid, recipe.plan, recipe.member
    address, now_ms = recipe.identity.address, recipe.now_ms
    target, level = plan.trace_target, plan.trace_level
    if (own := trace_target(member.get("remoteTraceTarget"))) is not None:
        target, level = own, integer(member.get("remoteTraceLevel"))
    rules = ACCEPT
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    if recipe.rules_engine:
        rules = plan.rules
        capabilities = tuple(
            Capability(nwid, now_ms, number, plan.capabilities[number]).grant(signer, address)
            for number in _granted(member, plan)
        )
        tags = tuple(
            Tag(nwid, now_ms, number, value, address).sign(signer)
            for number, value in sorted(tag_values(member).items())[:MAX_TAGS]
        )
    config = NetworkConfig(
        nwid=nwid,
        issued_to=address,
        timestamp=now_ms,
        window=plan.window_ms,
        revision=plan.revision,
        trace_target=Address(target),
        trace_level=level,
        flags=BROADCAST * plan.broadcast | NDP_EMULATION * recipe.assignment.computed,
        multicast_limit=plan.multicast_limit,
        public=not plan.private,
        name=plan.name,
        mtu=plan.mtu,
        com=Com.issue(nwid, recipe.identity, now_ms, plan.window_ms).sign(signer),
        capabilities=capabilities,
        tags=tags,
        ownerships=_ownerships(recipe, signer),
        specialists=tuple(
            bridge | ACTIVE_BRIDGE for bridge in islice(recipe.bridges, MAX_SPECIALISTS)
        ),
        routes=tuple(Route(route, via) for route, via in plan.routes),
        static_ips=tuple(recipe.assignment.addresses),
        rules=rules,
        dns=Dns(plan.domain, tuple(plan.servers)),
        sso=recipe.sso,
    )
    update_id = int.from_bytes(random(8)) or 1
    chunks = split(nwid, config.encode(), update_id, signer)
    return [chunk.encode() for chunk in chunks]


def _granted(member: Document, plan: NetworkPlan) -> list[int]:
    """Capabilities of the member that the network knows, each once, in their order."""
    known = (number for number in capability_ids(member) if number in plan.capabilities)
    return list(dict.fromkeys(known))[:MAX_CAPABILITIES]


def _ownerships(recipe: Recipe, signer: Identity) -> tuple[Ownership, ...]:
    """Certificates over all addresses, 16 in each (Q11), numbered from 1."""
    ips = [entry.ip for entry in recipe.assignment.addresses]
    address = recipe.identity.address
    return tuple(
        Ownership(
            recipe.nwid,
            recipe.now_ms,
            at // MAX_THINGS + 1,
            things_of(ips[at : at + MAX_THINGS]),
            address,
        ).sign(signer)
        for at in range(0, len(ips), MAX_THINGS)
    )


def login_error(sso: Sso) -> bytes:
    """Data of an AUTHENTICATION_REQUIRED error: where to log in (ch. 05, 13)."""
    out = DictionaryWriter(ERROR_CAPACITY)
    out.u64("aV", sso.version)
    if sso.version == 0:
        out.text("aU", sso.authentication_url)
    else:
        out.text("iU", sso.issuer_url)
        out.text("aCU", sso.central_url)
        out.text("aN", sso.nonce)
        out.text("aS", sso.state)
        out.text("aCID", sso.client_id)
        if sso.provider != DEFAULT_PROVIDER:
            out.text("aSSOp", sso.provider)
    data = bytes(out)
    return len(data).to_bytes(2) + data
