"""One joined network: its configuration, its members, and what the data plane knows of them.

Chapter 04, sections 5, 6.4 and 7.10.
"""

from collections import deque
from typing import Final

from zt._fast.filter import Program, Remote
from zt.protocol.address import (
    BROADCAST,
    RFC4193_BITS,
    SIXPLANE_BITS,
    Address,
    Mac,
    MulticastGroup,
    NetworkId,
    rfc4193,
    sixplane,
)
from zt.protocol.credentials import Com
from zt.protocol.netconf import (
    ACTIVE_BRIDGE,
    ANCHOR,
    DEFAULT_MTU,
    REPLICATOR,
    UNSUPPORTED_MATCHES,
    Assembler,
    NetworkConfig,
    Sso,
)
from zt.vl1.actions import NetworkChanged, Store
from zt.vl2 import status
from zt.vl2.bridge import Bridges
from zt.vl2.context import Context
from zt.vl2.membership import NEVER, Membership

CHECK_MS = 5000
LOW_BANDWIDTH_CHECKS = 5
REFRESH_MS = 60000
LOW_BANDWIDTH_REFRESHES = 64
PUSH_MS = 500000
"""Credentials are sent again to a member after this time."""
MEMBER_LIFETIME_MS = 4 * 3600000
"""An idle member is forgotten. Twice the longest credential window: what was revoked meanwhile is
refused for its age."""
BRIDGED_LIFETIME_MS = 600000
"""How long a group counts that a host behind us used."""
MAX_MEMBERS = 65536
SYNC_SLICE = 128
"""Members looked at in one go: about a millisecond."""


class Network:
    """State machine of one network. Methods that take frames and packets are elsewhere."""

    def __init__(self, context: Context, nwid: NetworkId, now_ms: int) -> None:
        self._context = context
        self.nwid: Final = nwid
        self.mac: Final = Mac.of(context.us, nwid)
        self.config: NetworkConfig | None = None
        self.program: Program | None = None
        self.packed: list[bytes] | None = None
        """Our credentials in packets, once they were needed."""
        self.failure: str | None = None
        """Status after a refusal by the controller, until the next new configuration."""
        self.sso: Sso | None = None
        self.updated_ms = 0
        """When the configuration last changed; 0: it is stale."""
        self.check_ms = now_ms
        """When the background check is due."""
        self.announced_ms = NEVER
        self.updates = Assembler()
        self.members: dict[Address, Membership] = {}
        self.own = Membership(context.us, now_ms)
        """What others' packets said about ourselves, so that nothing is new twice."""
        self._stale: deque[Address] = deque()
        """Members to look at again under the new configuration."""
        self.remotes: dict[Address, Remote | None] = {}
        self.allowed: set[Address] = set()
        """Who passes the gate, as last computed."""
        self.subscriptions: set[MulticastGroup] = set()
        self.bridged: dict[MulticastGroup, int] = {}
        """Groups that hosts behind us use, and when they last did."""
        self.bridges = Bridges(self._route_changed)
        self.active_bridges: tuple[Address, ...] = ()
        self.replicators: tuple[Address, ...] = ()
        self.anchors: tuple[Address, ...] = ()
        """Anchors and replicators."""
        self.accepted = {"tx": 0, "rx": 0}
        self.dropped = {"tx": 0, "rx": 0}
        # Known to the data plane from now on, so that frames reach us before the configuration.
        self._enter(DEFAULT_MTU, Program(context.us, b""), public=False)

    # -- as others see it --------------------------------------------------------------------

    def status(self) -> status.NetworkStatus:
        config, sso = self.config, self.sso
        if sso is None and config is not None:
            sso = config.sso
        return status.NetworkStatus(
            nwid=self.nwid,
            mac=self.mac,
            status=self.failure
            or (status.OK if config is not None else status.REQUESTING_CONFIGURATION),
            config=config,
            subscriptions=frozenset(self.subscriptions),
            authentication_url=sso.authentication_url if sso else "",
            authentication_expiry_ms=sso.expiry_ms if sso else 0,
            sso=sso,
        )

    def fail(self, failure: str, sso: Sso | None = None) -> None:
        """The controller refused us. A configuration held stays in force (5.1)."""
        self.failure = failure
        self.sso = sso
        self._context.vl1.emit(NetworkChanged(self.nwid))

    @property
    def bridge(self) -> bool:
        """We are an active bridge."""
        return self._context.us in self.active_bridges

    @property
    def com(self) -> Com | None:
        return self.config.com if self.config else None

    def groups(self) -> list[MulticastGroup]:
        """All groups that we want frames of, ascending (12.1)."""
        wanted = self.subscriptions | self.bridged.keys()
        if self.config is not None and self.config.broadcast:
            wanted.add(MulticastGroup(BROADCAST))
        return sorted(wanted)

    def listens(self, group: MulticastGroup) -> bool:
        """Subscribed, or somebody behind us is."""
        return group in self.subscriptions or group in self.bridged

    # -- configuration -----------------------------------------------------------------------

    def install(self, config: NetworkConfig, now_ms: int, *, save: bool = True) -> bool:
        """Takes a configuration (6.4). False if it is not for us, or unusable; one that equals the
        present one has no effect."""
        if config.nwid != self.nwid or config.issued_to != self._context.us:
            return False
        if config == self.config:
            return True
        try:
            program = self._compile(config)
        except ValueError:
            return False
        first = self.config is None
        self.config, self.program, self.packed = config, program, None
        self.updated_ms = now_ms
        self.failure = self.sso = None
        self.active_bridges = config.specialists_with(ACTIVE_BRIDGE)
        self.replicators = config.specialists_with(REPLICATOR)
        self.anchors = config.specialists_with(ANCHOR | REPLICATOR)
        if first:
            self.check_ms = now_ms  # announce our groups at once
        self._enter(config.mtu, program, public=config.public)
        self.bridges.keep(self.active_bridges)
        self._stale = deque(self.members)
        self.catch_up()
        if save:
            self._context.vl1.emit(Store(cache_file(self.nwid), config.encode()))
        self._context.vl1.emit(NetworkChanged(self.nwid))
        return True

    def _enter(self, mtu: int, program: Program, *, public: bool) -> None:
        self._context.tables.network_set(
            self.nwid, mtu=mtu, mac=self.mac, public=public, bridge=self.bridge, rules=program
        )

    def _compile(self, config: NetworkConfig) -> Program:
        exempt = []
        if config.ndp_emulation:
            for ip, size in (
                (sixplane(self.nwid, self._context.us), SIXPLANE_BITS // 8),
                (rfc4193(self.nwid, self._context.us), RFC4193_BITS // 8),
            ):
                if any(held.ip == ip for held in config.static_ips):
                    exempt.append(ip[:size])
        return Program(
            self._context.us,
            config.rules,
            capabilities=[(c.id, c.rules) for c in config.capabilities],
            tags=[(t.id, t.value) for t in config.tags],
            things=[thing for o in config.ownerships for thing in o.things],
            exempt=exempt,
            unsupported=bool(config.flags & UNSUPPORTED_MATCHES),
        )

    def stale(self, now_ms: int) -> bool:
        """Time to ask the controller."""
        factor = LOW_BANDWIDTH_REFRESHES if self._context.low_bandwidth else 1
        return self.config is None or now_ms - self.updated_ms >= factor * REFRESH_MS

    # -- members -----------------------------------------------------------------------------

    def member(self, address: Address, now_ms: int) -> Membership:
        """The member, new if need be."""
        found = self.known(address, now_ms)
        if address not in self.members:
            self.admit(found)
        found.used_ms = now_ms
        return found

    def known(self, address: Address, now_ms: int) -> Membership:
        """The member, or a blank one that is not counted as a member until `admit`."""
        if address == self._context.us:
            return self.own
        return self.members.get(address) or Membership(address, now_ms)

    def admit(self, member: Membership) -> None:
        """Keeps a member that `known` gave, or that changed."""
        if member is self.own:
            return
        if member.address not in self.members:
            if len(self.members) >= MAX_MEMBERS:
                self._forget(min(self.members.values(), key=lambda m: m.used_ms))
            self.members[member.address] = member
        self.sync(member)

    @property
    def behind(self) -> bool:
        """`catch_up` has more to do."""
        return bool(self._stale)

    def catch_up(self) -> None:
        """Applies a new configuration to members, a bounded number at a time; until its turn comes
        what the one before allowed holds."""
        for _ in range(min(len(self._stale), SYNC_SLICE)):
            member = self.members.get(self._stale.popleft())
            if member is not None:
                self.sync(member)

    def sync(self, member: Membership) -> None:
        """Works out what a member may do, and tells the data plane. To be called when its
        credentials or our configuration changed."""
        if self.config is None:
            return
        address = member.address
        self.remotes[address] = member.usable(self.config.timestamp, self.config.window)
        if self._is_allowed(member):
            self.allowed.add(address)
        else:
            self.allowed.discard(address)
        self.enter(member)

    def enter(self, member: Membership) -> None:
        """Tells the data plane about a member."""
        if self.config is None:
            return
        address = member.address
        # A traced network is all the control plane's.
        traced = self.config.trace_target != 0
        self._context.tables.member_set(
            self.nwid,
            address,
            allowed=address in self.allowed and not traced,
            push_due_ms=0 if traced else self.push_due_ms(member),
            credentials=self.remotes.get(address),
        )

    def _is_allowed(self, member: Membership) -> bool:
        config = self.config
        if config is None:
            return False
        if config.public:
            return True
        if config.com is None or not member.com:
            return False
        identity = self._context.vl1.identity(member.address)
        return identity is not None and member.agrees(config.com, identity)

    def is_member(self, address: Address) -> bool:
        """Whether the address passes the gate (7.7). A stranger does only on a public network."""
        if address in self.allowed:
            return True
        member = self.members.get(address)
        if member is None:
            return self.config is not None and self.config.public
        if member.com and self._is_allowed(member):
            self.sync(member)  # its identity was not known before
            return True
        return False

    def push_due_ms(self, member: Membership) -> int:
        """From when on our credentials have to go ahead of the next frame to it (7.8)."""
        return 0 if member.pushed_ms < self.updated_ms else max(member.pushed_ms, 0) + PUSH_MS + 1

    def clean(self, now_ms: int) -> None:
        """Forgets members and groups that were idle for long."""
        for member in list(self.members.values()):
            try:
                heard_ms, _ = self._context.tables.peer_times(member.address)
            except KeyError:
                heard_ms = 0
            if now_ms - max(heard_ms, member.used_ms) > MEMBER_LIFETIME_MS:
                self._forget(member)
        for group in [g for g, at in self.bridged.items() if now_ms - at > BRIDGED_LIFETIME_MS]:
            del self.bridged[group]

    def _forget(self, member: Membership) -> None:
        del self.members[member.address]
        self.remotes.pop(member.address, None)
        self.allowed.discard(member.address)
        self._context.tables.member_remove(self.nwid, member.address)

    def _route_changed(self, mac: Mac, address: Address | None) -> None:
        self._context.tables.bridge_route(self.nwid, mac, address)


def cache_file(nwid: NetworkId) -> str:
    """Where a configuration is kept, relative to the home folder."""
    return f"networks.d/{nwid}.conf"
