"""The JSON of the extended endpoints as types: bodies are checked against them, and the OpenAPI
document is made from them."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Address = Annotated[str, Meta(pattern="^[0-9a-fA-F]{10}$", description="node address")]
NetworkId = Annotated[str, Meta(pattern="^[0-9a-fA-F]{16}$", description="network ID")]
Name = Annotated[str, Meta(max_length=1024)]
Description = Annotated[str, Meta(max_length=4096)]
Metadata = Annotated[dict[str, Any], Meta(description="anything; up to 64 KiB of JSON")]
Milliseconds = Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="ms since 1970")]
U32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
IpText = Annotated[str, Meta(max_length=63)]
Url = Annotated[str, Meta(max_length=1024)]
ScopeName = Literal["read", "network", "admin"]


class Base(Struct, rename="camel"):
    """Objects that are answered."""


class Strict(Base, forbid_unknown_fields=True, omit_defaults=True):
    """Objects that are sent."""


class Route(Strict):
    target: IpText
    via: IpText | None = None


class Pool(Strict):
    ip_range_start: IpText
    ip_range_end: IpText


class Dns(Strict):
    domain: Annotated[str, Meta(max_length=127)] = ""
    servers: Annotated[list[IpText], Meta(max_length=4)] = []


class NetworkPatch(Strict):
    """Fields of a network to change; those left out stay."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    private: bool | UnsetType = UNSET
    enable_broadcast: bool | UnsetType = UNSET
    mtu: Annotated[int, Meta(ge=1280, le=10000)] | UnsetType = UNSET
    multicast_limit: U32 | UnsetType = UNSET
    v4_assign_mode: dict[Literal["zt"], bool] | UnsetType = UNSET
    v6_assign_mode: dict[Literal["6plane", "rfc4193", "zt"], bool] | UnsetType = UNSET
    routes: list[Route] | UnsetType = UNSET
    ip_assignment_pools: list[Pool] | UnsetType = UNSET
    dns: Dns | UnsetType = UNSET
    rules: list[dict[str, Any]] | UnsetType = UNSET
    capabilities: list[dict[str, Any]] | UnsetType = UNSET
    tags: list[dict[str, Any]] | UnsetType = UNSET
    rules_source: str | UnsetType = UNSET
    """Text of the rules language; sets rules, capabilities and tags."""
    auth_tokens: dict[str, Milliseconds] | UnsetType = UNSET
    remote_trace_target: Address | UnsetType | None = UNSET
    remote_trace_level: U32 | UnsetType = UNSET
    certificate_timeout_window_size: (
        Annotated[int, Meta(ge=300000, le=7200000)] | UnsetType | None
    ) = UNSET
    """How long certificates are accepted, in ms; null: the default."""
    sso_enabled: bool | UnsetType = UNSET
    sso_version: Literal[0, 1] | UnsetType = UNSET
    """How members log in. 0: at a finished URL; 1: OpenID Connect by the member's own program."""
    client_id: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    """Of this network at the identity provider."""
    authorization_endpoint: Url | UnsetType = UNSET
    """Version 0: the identity provider's."""
    sso_issuer: Url | UnsetType = UNSET
    """Version 1: the identity provider."""
    sso_provider: Annotated[str, Meta(max_length=63)] | UnsetType = UNSET
    """Version 1: what kind of identity provider it is, for the scopes that are asked for."""


class MemberPatch(Strict):
    """Fields of a member to change; those left out stay."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    authorized: bool | UnsetType = UNSET
    active_bridge: bool | UnsetType = UNSET
    no_auto_assign_ips: bool | UnsetType = UNSET
    ip_assignments: list[IpText] | UnsetType = UNSET
    tags: list[tuple[U32, U32]] | UnsetType = UNSET
    capabilities: list[U32] | UnsetType = UNSET
    authentication_expiry_time: Milliseconds | UnsetType = UNSET
    remote_trace_target: Address | UnsetType | None = UNSET
    remote_trace_level: U32 | UnsetType = UNSET
    sso_exempt: bool | UnsetType = UNSET


class Filter(Strict):
    """Members that fit all that is given."""

    authorized: bool | None = None
    online: bool | None = None
    search: Annotated[str, Meta(max_length=256)] = ""
    """Part of the address or, in any case, of the name."""


class BulkChange(Strict):
    """A change of many members, listed or filtered."""

    members: Annotated[list[Address], Meta(max_length=10_000)] | None = None
    where: Filter | None = None
    set: MemberPatch | None = None
    delete: bool = False


class BulkResult(Base):
    changed: int
    unchanged: int
    missing: list[str]
    """Listed addresses that are no members."""


class NetworkMeta(Base):
    authorized_member_count: int
    total_member_count: int
    online_member_count: int


class NetworkEntry(Base):
    network: dict[str, Any]
    """The object, as ``/controller/network/<nwid>`` shows it."""
    meta: NetworkMeta


class NetworkPage(Base):
    data: list[NetworkEntry]
    next: str | None
    """For `after` of the next page; null on the last one."""


class Seen(Base):
    """What the controller itself noted about a member."""

    online: bool
    last_seen: int
    """ms since 1970; 0: never."""
    physical_address: str | None
    """``ip/port`` of its last direct request."""
    version: str | None
    platform: str | None


class MemberEntry(Base):
    member: dict[str, Any]
    """The object, as ``/controller/network/<nwid>/member/<address>`` shows it."""
    seen: Seen


class MemberPage(Base):
    data: list[MemberEntry]
    next: str | None
    meta: NetworkMeta


class RulesText(Strict):
    source: Annotated[str, Meta(max_length=1 << 20)]


class RulesRemark(Base):
    code: str
    line: int
    column: int
    message: str


class RulesResult(Base):
    """Rules, compiled."""

    source: str
    config: dict[str, Any]
    capabilities_by_name: dict[str, int]
    tags_by_name: dict[str, Any]
    warnings: list[RulesRemark]


class LogEntry(Base):
    seq: int
    time: int
    actor: str
    action: str
    network: str
    member: str
    detail: dict[str, Any]
    """The fields that changed, each with ``old`` and ``new``."""


class LogPage(Base):
    data: list[LogEntry]
    next: int
    """For `after` of the next page."""


class Login(Strict):
    """A login that the sender has checked: signature, issuer, audience of the ID token."""

    nonce: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="of the ID token")]
    expires: Milliseconds
    """When the session ends."""
    state: Annotated[str, Meta(max_length=128)] | None = None
    """As the browser or the member brought it; null: the session of this nonce goes on."""


class LoggedIn(Base):
    network: str
    member: str


class NewToken(Strict):
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scope: ScopeName = "read"
    networks: Annotated[list[NetworkId], Meta(max_length=1000)] = []
    """The only networks it is good for; empty: all."""
    expires: Milliseconds = 0
    """0: never."""


class Token(Base):
    id: str
    name: str
    scope: ScopeName
    networks: list[str]
    created: int
    expires: int
    secret: str | UnsetType = UNSET
    """Only in the answer that made it."""


class TokenList(Base):
    data: list[Token]


class Status(Base):
    networks: int
    members: int
    database: str | None
    """Why the database is not available; null: it is."""
    log: int
    """Number of the newest log entry."""


class Problem(Base):
    """Every error of the extended endpoints."""

    error: int
    description: str
    line: int | UnsetType = UNSET
    column: int | UnsetType = UNSET
    code: str | UnsetType = UNSET
