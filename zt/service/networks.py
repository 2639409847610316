"""Joined networks on the host: TAP devices, addresses, routes, multicast groups, local settings.

The node decides what a network is (`node.network`), `managed` what it may do here; this module
makes the host agree, again and again: everything is compared with what the kernel really has, so a
change by hand is undone by the next pass (ch. 06, section 8, and Q20).
"""

import asyncio
import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from socket import if_nametoindex
from typing import TYPE_CHECKING, Any

from zt.protocol.address import Mac, MulticastGroup, NetworkId
from zt.protocol.inet import InetAddress
from zt.service.clock import Clock
from zt.service.dns import Resolver
from zt.service.home import Home
from zt.service.journal import Changes, Journal
from zt.service.managed import (
    ConfiguredRoute,
    NetworkSettings,
    Route,
    wanted_addresses,
    wanted_routes,
)
from zt.service.netlink import HostAddress, Netlink
from zt.service.tap import (
    Tap,
    device_name,
    interface_exists,
    link_layer_groups,
    open_tap,
    parse_device_map,
)

if TYPE_CHECKING:
    from zt.node import Node

log = logging.getLogger("zt.networks")

DEFAULT_MTU = 2800


@dataclass(slots=True)
class Joined:
    """One joined network and what has been done for it on this host."""

    nwid: NetworkId
    settings: NetworkSettings
    tap: Tap | None = None
    port_error: int = 0
    """0, or the negative errno of the TAP that could not be opened."""
    mtu: int = DEFAULT_MTU
    addresses: set[InetAddress] = field(default_factory=set)
    """Managed addresses that we added."""
    routes: set[Route] = field(default_factory=set)
    """Routes that we added."""
    prefixes: tuple[InetAddress, ...] = ()
    """All addresses of the TAP, managed or not."""
    groups: frozenset[MulticastGroup] = frozenset()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: bool = False
    """A synchronisation waits for the lock; it will see whatever changed meanwhile."""


class Networks:
    """All joined networks. Methods run on the event loop; nothing here blocks it."""

    def __init__(
        self,
        home: Home,
        node: "Node",
        pump: Any,
        netlink: Netlink,
        resolver: Resolver,
        clock: Clock,
        *,
        vnet_hdr: bool,
        queues: int,
        drain: Any,
    ) -> None:
        """
        :param queues: of each TAP, one per thread.
        :param drain: carries out the node's actions after each event handed to it from here.
        """
        self._home = home
        self._journal = Journal(home)
        self._node = node
        self._pump = pump
        self._netlink = netlink
        self._resolver = resolver
        self._clock = clock
        self._vnet_hdr = vnet_hdr
        self._queues = queues
        self._drain = drain
        self._joined: dict[NetworkId, Joined] = {}
        self._opening = asyncio.Lock()  # device names are chosen one at a time
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Joined]:
        return iter(sorted(self._joined.values(), key=lambda joined: joined.nwid))

    def get(self, nwid: NetworkId) -> Joined | None:
        return self._joined.get(nwid)

    def device_names(self) -> frozenset[str]:
        return frozenset(j.tap.name for j in self._joined.values() if j.tap is not None)

    async def recover(self) -> None:
        """Before anything is joined: undo what a run left that came to no clean end."""
        for device, changes in self._journal.left().items():
            if changes.dns:
                await self._resolver.recover(device)
            with suppress(OSError):  # no such device: the rest went with it
                await self._roll_back(if_nametoindex(device), changes)
            self._journal.forget(device)

    async def _roll_back(self, index: int, changes: Changes) -> None:
        for route in changes.routes:
            with suppress(OSError):
                await self._netlink.route_remove(index, route)
        for address in changes.addresses:
            with suppress(OSError):
                await self._netlink.address_remove(index, address)

    # --- join and leave ----------------------------------------------------------------------

    async def join(self, nwid: NetworkId) -> Joined:
        """Join if needed; on return the TAP exists, or `port_error` says why not."""
        joined = self._joined.get(nwid)
        if joined is not None:
            async with joined.lock:
                return joined
        joined = Joined(nwid, self._read_settings(nwid))
        self._joined[nwid] = joined
        async with joined.lock:
            await self._open(joined)
            cached = self._home.load(f"networks.d/{nwid}.conf") or b""
            if not cached:
                # Remembers the network over a restart even if no controller ever answers.
                self._home.write(f"networks.d/{nwid}.conf", b"\n")
            self._node.join(nwid, self._clock.now_ms(), cached if cached.strip() else None)
        self._drain()
        self.schedule(nwid)
        return joined

    async def leave(self, nwid: NetworkId) -> bool:
        """Leave for good: the TAP and both files are gone on return. False if not a member."""
        joined = self._joined.pop(nwid, None)
        if joined is None:
            return False
        async with joined.lock:
            self._node.leave(nwid, self._clock.now_ms())
            self._drain()
            await self._close(joined)
            self._home.delete(f"networks.d/{nwid}.conf")
            self._home.delete(f"networks.d/{nwid}.local.conf")
        self._prefixes_changed()
        return True

    async def close(self) -> None:
        """Take every network down, files kept."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for joined in list(self._joined.values()):
            await self._close(joined)
        self._joined.clear()

    async def configure(self, nwid: NetworkId, settings: NetworkSettings) -> None:
        """Replace the local settings of a joined network, on disk too, and apply them."""
        joined = self._joined[nwid]
        joined.settings = settings
        self._home.write(f"networks.d/{nwid}.local.conf", str(settings).encode())
        await self.synchronize(nwid)

    def _read_settings(self, nwid: NetworkId) -> NetworkSettings:
        try:
            data = (self._home / f"networks.d/{nwid}.local.conf").read_bytes()
        except OSError:
            return NetworkSettings()
        return NetworkSettings.parse(data.decode("utf-8", "replace"))

    # --- the TAP -----------------------------------------------------------------------------

    async def _open(self, joined: Joined) -> None:
        """A network whose TAP fails stays joined, with a port error; the others are unharmed."""
        mac = Mac.of(self._node.identity.address, joined.nwid)
        try:
            async with self._opening:
                device_map = parse_device_map(
                    (self._home.read("devicemap") or b"").decode("utf-8", "replace")
                )
                name = device_name(joined.nwid, interface_exists, device_map)
                tap = await self._netlink.run(
                    lambda: open_tap(name, vnet_hdr=self._vnet_hdr, queues=self._queues)
                )
            joined.tap = tap
            await self._netlink.link_configure(tap.index, mac.to_bytes(6), joined.mtu)
            self._pump.tap_add(int(joined.nwid), tap.fds, vnet_hdr=self._vnet_hdr)
        except OSError as error:
            joined.port_error = -(error.errno or errno.EIO)
            if joined.tap is not None:
                joined.tap.close()
                joined.tap = None
            log.error("network %s: TAP device: %s", joined.nwid, error.strerror or error)

    async def _close(self, joined: Joined) -> None:
        if joined.tap is None:
            return
        await self._resolver.remove(joined.tap.name)
        self._pump.tap_remove(int(joined.nwid))
        await self._netlink.run(joined.tap.close)
        self._journal.forget(joined.tap.name)
        joined.tap = None

    # --- addresses, routes, DNS, MTU -----------------------------------------------------------

    def schedule(self, nwid: NetworkId) -> None:
        """Synchronise soon; a pass that is already waiting covers this one."""
        joined = self._joined.get(nwid)
        if joined is None or joined.pending:
            return
        joined.pending = True
        task = asyncio.get_running_loop().create_task(self.synchronize(nwid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def schedule_all(self) -> None:
        for nwid in list(self._joined):
            self.schedule(nwid)

    async def synchronize(self, nwid: NetworkId) -> None:
        """Make addresses, routes, DNS and MTU of one network what they shall be now."""
        joined = self._joined.get(nwid)
        if joined is None:
            return
        async with joined.lock:
            joined.pending = False
            if joined.tap is None or self._joined.get(nwid) is not joined:
                return
            try:
                await self._synchronize(joined, joined.tap)
            except OSError as error:
                # The device was removed under us, or the kernel is short of something: said
                # once per pass, tried again at the next.
                log.warning("network %s: %s: %s", nwid, joined.tap.name, error.strerror or error)
        # At once, not at the next pass: others find a new address through its group.
        self.scan_groups()
        self._prefixes_changed()
        # A new address means new groups: until others know of them, nobody resolves the address.
        self.scan_groups()

    async def _synchronize(self, joined: Joined, tap: Tap) -> None:
        status = self._node.network(joined.nwid)
        config = status.config if status is not None else None
        mtu = config.mtu if config is not None else DEFAULT_MTU
        if mtu != joined.mtu:
            await self._netlink.link_mtu(tap.index, mtu)
            joined.mtu = mtu
        assigned = [address for address in config.static_ips if address] if config else []
        await self._sync_addresses(joined, tap, assigned)
        routes = config.routes if config is not None else ()
        await self._sync_routes(
            joined, tap, [ConfiguredRoute(r.target, r.via.ip or None) for r in routes]
        )
        dns = config.dns if config is not None and joined.settings.allow_dns else None
        if dns is not None and dns.servers:
            self._journal.add(tap.name, Changes(dns=True))
            servers = [server.ip for server in dns.servers if server]
            await self._resolver.set(tap.name, tap.index, dns.domain, servers)
        else:
            await self._resolver.remove(tap.name)
        applied = Changes(
            frozenset(joined.addresses),
            frozenset(joined.routes),
            dns=self._resolver.applied(tap.name),
        )
        self._journal.set(tap.name, applied)

    async def _sync_addresses(
        self, joined: Joined, tap: Tap, assigned: Iterable[InetAddress]
    ) -> None:
        wanted = set(wanted_addresses(assigned, joined.settings))
        self._journal.add(tap.name, Changes(frozenset(wanted)))
        present = await self._present(tap)
        for address in sorted(joined.addresses - wanted):
            if address in present:
                await self._netlink.address_remove(tap.index, address)
                present.discard(address)
            else:
                log.debug("network %s: %s was gone already", joined.nwid, address)
            joined.addresses.discard(address)
        for address in sorted(wanted - present):
            for other in [other for other in present if other.ip == address.ip]:
                # The same address with another prefix length.
                await self._netlink.address_remove(tap.index, other)
            with suppress(FileExistsError):
                await self._netlink.address_add(tap.index, tap.name, address)
        joined.addresses = wanted
        joined.prefixes = tuple(sorted(await self._present(tap)))

    async def _present(self, tap: Tap) -> set[InetAddress]:
        addresses: list[HostAddress] = await self._netlink.addresses()
        return {entry.address for entry in addresses if entry.ifindex == tap.index}

    async def _sync_routes(
        self, joined: Joined, tap: Tap, configured: list[ConfiguredRoute]
    ) -> None:
        # A default route waits until the node is online, but stays when it goes offline.
        has_default = any(route.target.bits == 1 for route in joined.routes)
        wanted = wanted_routes(
            configured,
            joined.addresses,
            joined.prefixes,
            joined.settings,
            online=self._node.online or has_default,
        )
        self._journal.add(tap.name, Changes(routes=frozenset(wanted)))
        present = await self._netlink.routes(tap.index)
        for route in joined.routes - set(wanted):
            if (route.target, route.via) in present:
                with suppress(ProcessLookupError):  # ESRCH: somebody was faster
                    await self._netlink.route_remove(tap.index, route)
        joined.routes &= set(wanted)
        for route in wanted:
            if (route.target, route.via) in present:
                joined.routes.add(route)
                continue
            try:
                await self._netlink.route_add(tap.index, route)
            except OSError as error:
                # A route of the system in its place, or a gateway that is not reachable (yet).
                joined.routes.discard(route)
                log.debug("network %s: route %s: %s", joined.nwid, route, error)
            else:
                joined.routes.add(route)

    def _prefixes_changed(self) -> None:
        prefixes = [prefix for joined in self._joined.values() for prefix in joined.prefixes]
        self._node.tap_prefixes_changed(prefixes, self._clock.now_ms())
        self._drain()

    # --- multicast ---------------------------------------------------------------------------

    def scan_groups(self) -> None:
        """Tell the node which multicast groups the host listens to (ch. 06, 7.3)."""
        listening = link_layer_groups(self.device_names())
        changed = False
        for joined in self._joined.values():
            if joined.tap is None:
                continue
            groups = {MulticastGroup(Mac(mac), 0) for mac in listening[joined.tap.name]}
            groups |= {MulticastGroup.resolving(prefix.ip) for prefix in joined.prefixes}
            if groups != joined.groups:
                joined.groups = frozenset(groups)
                self._node.groups_changed(joined.nwid, groups, self._clock.now_ms())
                changed = True
        if changed:
            self._drain()
