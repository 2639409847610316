"""The daemon: puts home, sockets, TAP devices, data plane, node, controller and API together.

`Daemon.run` is one life of the service, from an open home folder to a clean stop.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from zt._fast.pump import Pump
from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.node import Node
from zt.protocol.address import Mac, NetworkId
from zt.protocol.inet import InetAddress
from zt.protocol.world import World
from zt.service.api.app import build
from zt.service.api.extra import ExtraApi
from zt.service.api.server import ApiServer
from zt.service.api.static import static_routes
from zt.service.capture import Capture
from zt.service.clock import Clock, wall_ms
from zt.service.controller import ControllerHost
from zt.service.dns import Resolver
from zt.service.driver import Driver
from zt.service.errors import ServiceError
from zt.service.metrics import FILE as METRICS_FILE
from zt.service.metrics import Metrics
from zt.service.netlink import Gateway, Netlink
from zt.service.netwatch import NetWatch
from zt.service.networks import Networks
from zt.service.ping import Pinger
from zt.service.portmap.mapper import PortMapper
from zt.service.prepare import Prepared
from zt.service.sockets import Sockets, random_port, wanted_bindings
from zt.service.tcprelay.client import Tunnel
from zt.service.tcprelay.fallback import Fallback
from zt.service.trace import Tracing
from zt.version import VERSION
from zt.vl1.actions import COLLISION, TUNNEL, Event
from zt.vl1.status import LocalSocket

log = logging.getLogger("zt.service")

PLATFORM = f"{sys.platform}/{os.uname().machine}"
TICK_S = 5.0
CONF_CHECK_MS = 10_000
REFRESH_MS, BONDED_REFRESH_MS = 30_000, 7_500
EXPIRE_MS = 3_600_000
MAX_THREADS = 16
"""Of each kind, what the pump takes."""
WAKE_UP_MS = 10_000
"""A pass this much later than planned means that the machine slept."""
OFFLINE_MS = 120_000
"""Offline for this long, a random secondary port is chosen anew: the NAT may have got stuck."""


class Outcome(Enum):
    STOPPED = "stopped"
    COLLISION = "collision"  # the identity was retired; start over with a new one


class Daemon:
    """One run of the service. Attributes are read by the API views."""

    portmap: PortMapper | None = None
    mapped: Sequence[InetAddress] = ()
    """External addresses that a port mapper obtained."""

    def __init__(self, prepared: Prepared) -> None:
        self.home = prepared.home
        self.clock = Clock()
        self.token = prepared.token
        self.metrics_token = prepared.metrics_token
        self.identity = prepared.identity
        self.planet = prepared.planet
        self.conf = prepared.conf
        self.ports = prepared.ports
        self._conf_file = prepared.conf_file
        self._listeners = prepared.listeners

    # --- life ----------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], object]) -> Outcome:
        """Serve until `stop` or until the identity collides. Calls `ready` when up."""
        self._outcome: Outcome | None = None
        self._wake = asyncio.Event()
        now_ms = self.clock.now_ms()
        self._last_refresh_ms = self._last_conf_ms = self._last_expire_ms = 0
        self._online_ms = now_ms

        self._devices: dict[bytes, str] = {}
        self.netlink = Netlink()
        self._watch: NetWatch | None = None
        self.tables = Tables(int(self.identity.address))
        self.switch = Switch(self.tables)
        threads = min(self.conf.threads(os.cpu_count() or 1), MAX_THREADS)
        self.pump = Pump(
            self.switch,
            self.clock.offset_ms,
            udp_threads=threads,
            tap_threads=threads,
            **self.conf.data_plane,
        )
        self.node = Node(
            self.identity,
            self.switch,
            now_ms=now_ms,
            random=os.urandom,
            planet=self.planet,
            moons=self._moons(),
            settings=self.conf.node,
            platform=PLATFORM,
            controller=True,
        )
        self.sockets = Sockets(self.pump.udp_add, self.pump.udp_remove)
        self.controller = ControllerHost(self)
        self.capture = Capture(self.node)
        self.tracing = Tracing(self)
        self.tunnel = Tunnel(
            self.conf.tcp_relay,
            Fallback(now_ms, allowed=self.conf.allow_tcp_relay, forced=self.conf.force_tcp_relay),
            version=VERSION,
            received=lambda packets: self.driver.tunneled(packets),
            changed=self._tunnel_changed,
            now_ms=self.clock.now_ms,
        )
        self.driver = Driver(
            self.node,
            self.switch,
            self.pump,
            self.home,
            self.clock,
            network_changed=lambda nwid: self.networks.schedule(nwid),
            config_request=self.controller.request,
            event=self._event,
            capture=self.capture,
            tunnel=self.tunnel,
            tracing=self.tracing,
        )
        self.drain = self.driver.drain
        self.networks = Networks(
            self.home,
            self.node,
            self.pump,
            self.netlink,
            Resolver(),
            self.clock,
            vnet_hdr=True,
            queues=threads,
            drain=self.drain,
        )
        self.metrics = Metrics(self)
        self.pinger = Pinger(self)
        self._exposition = b""
        self.home.write(METRICS_FILE, b"")
        await self.controller.start()
        routes = [
            *ExtraApi(self).routes(),
            *self.controller.routes(),
            *static_routes(self.home, self.conf.web_server),
        ]
        app, short_cut = build(self, routes)
        self.api = ApiServer(app, self._listeners, short_cut)
        try:
            self.pump.start()
            await self._refresh()
            self._watch = NetWatch(self._host_changed, self._wake.set)
            self.driver.start()
            self._map_port()
            await self.networks.recover()
            for nwid in self.home.networks():
                await self.networks.join(nwid)
            # Only now: a command must find the networks of the home joined.
            await self.api.start()
            ready()
            await self._main_loop()
        finally:
            await self._shut_down()
        return self._outcome or Outcome.STOPPED

    def stop(self, outcome: Outcome = Outcome.STOPPED) -> None:
        """Ask `run` to come to an end."""
        self._outcome = outcome
        self._wake.set()

    def _moons(self) -> Iterator[World]:
        for path, world in self.home.moons():
            if world is None:
                log.error("%s is damaged and ignored", path)
            else:
                yield world

    def _host_changed(self) -> None:
        """An address or link came or went: bind anew without waiting for the next refresh."""
        self._last_refresh_ms = 0
        self._wake.set()

    async def _shut_down(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self.tracing.stop()
        await self.api.stop()
        self._expose()
        await self.controller.stop()
        if self.portmap is not None:
            await self.portmap.stop()
        self.node.stop(self.clock.now_ms())
        self.driver.drain()
        self.driver.stop()
        self.tunnel.close()
        await self.networks.close()
        self.pump.stop()
        self.sockets.close()
        await self.netlink.close()

    # --- the main loop ---------------------------------------------------------------------------

    async def _main_loop(self) -> None:
        loop = asyncio.get_running_loop()
        expected_ms = self.clock.now_ms()
        while self._outcome is None:
            now_ms = self.clock.now_ms()
            slept = now_ms - expected_ms > WAKE_UP_MS
            await self._pass(now_ms, slept)
            expected_ms = self.clock.now_ms() + int(TICK_S * 1000)
            due = loop.time() + TICK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_S)
            self._wake.clear()
            self.metrics.loop_lag_ms = max(loop.time() - due, 0.0) * 1000

    async def _pass(self, now_ms: int, slept: bool) -> None:
        if self.node.online:
            self._online_ms = now_ms
        self.networks.scan_groups()
        self.metrics.observe(self.metrics.listed())
        self._expose()
        if now_ms - self._last_conf_ms >= CONF_CHECK_MS:
            self._last_conf_ms = now_ms
            self.reload()
        if slept:
            self.tunnel.restarted()
        refresh_ms = BONDED_REFRESH_MS if self.conf.bonding.in_use else REFRESH_MS
        if slept or now_ms - self._last_refresh_ms >= refresh_ms:
            if slept or now_ms - self._online_ms > OFFLINE_MS:
                self._change_secondary_port()
                self._online_ms = now_ms
            await self._refresh()
            self.networks.schedule_all()
        if now_ms - self._last_expire_ms >= EXPIRE_MS:
            self._last_expire_ms = now_ms
            self.home.expire_peers(wall_ms() / 1000)

    def _expose(self) -> None:
        """Metrics for the file and for `/metrics` until the next pass."""
        self._exposition = self.metrics.render()
        try:
            self.home.write(METRICS_FILE, self._exposition)
        except OSError as error:
            log.warning("%s cannot be written: %s", self.home / METRICS_FILE, error.strerror)

    async def _refresh(self) -> None:
        """Bind what is there now, and tell the node."""
        self._last_refresh_ms = self.clock.now_ms()
        try:
            addresses = await self.netlink.addresses()
        except OSError as error:
            log.warning("interfaces cannot be listed: %s", error)
            return
        self._devices = {entry.address.ip: entry.device for entry in addresses}
        wanted = wanted_bindings(
            addresses, list(self.ports), self.conf, self.networks.device_names()
        )
        if self.sockets.refresh(wanted):
            self._sockets_changed()
            if self.portmap is not None:
                self.portmap.network_changed()

    def _sockets_changed(self) -> None:
        bound = [
            LocalSocket(
                number, InetAddress(binding.ip, binding.port), self._devices.get(binding.ip, "")
            )
            for number, binding in self.sockets.bound()
        ]
        if self.tunnel.active:
            bound.append(LocalSocket(TUNNEL, InetAddress()))
        self.node.sockets_changed(bound, self.clock.now_ms())
        self.driver.drain()

    def _tunnel_changed(self, active: bool) -> None:
        if self._outcome is None:
            self._sockets_changed()

    def _map_port(self) -> None:
        """Asks the router for a public port, for as long as we run (ch. 03, 6.7)."""
        if self.ports.tertiary:
            self.portmap = PortMapper(
                self.identity.address,
                self.ports.tertiary,
                gateways=self._gateways,
                changed=self._mapped,
                now_ms=self.clock.now_ms,
            )
            self.portmap.start()

    async def _gateways(self) -> list[Gateway]:
        """The default routers of interfaces on which the mapped port is bound."""
        port = self.ports.tertiary
        devices = {binding.device for _, binding in self.sockets.bound() if binding.port == port}
        return [
            gateway
            for gateway in await self.netlink.gateways()
            if gateway.device in devices or "" in devices
        ]

    def _mapped(self, external: InetAddress | None) -> None:
        self.mapped = (external,) if external else ()
        self.node.mapped_changed(self.mapped)

    def _change_secondary_port(self) -> None:
        if self.conf.allow_secondary_port and not self.conf.secondary_port:
            self.ports.secondary = random_port(self.ports)

    def _event(self, event: Event) -> None:
        log.info("%s %s", event.kind, event.text)
        if event.kind == COLLISION:
            log.error("another identity owns our address; starting over with a new one")
            self.home.retire_identity()
            self.stop(Outcome.COLLISION)

    # --- what the API asks -----------------------------------------------------------------------

    @property
    def tunneled(self) -> bool:
        """A TCP relay connection exists."""
        return self.tunnel.active

    def mac(self, nwid: NetworkId) -> Mac:
        return Mac.of(self.identity.address, nwid)

    def metrics_text(self) -> bytes:
        """The exposition of the last pass; empty for the first seconds."""
        return self._exposition

    def edit_settings(self, changes: Mapping[str, Any]) -> None:
        """`POST /config/settings`: write to `local.conf`; effects come with the next check."""
        raw = {**self.conf.raw, "settings": {**self.conf.settings, **changes}}
        data = msgspec.json.format(msgspec.json.encode(raw, order="sorted"), indent=4)
        self.home.write("local.conf", data)
        self.reload()

    def reload(self) -> None:
        """Read `local.conf` again if it changed; a bad one leaves the settings as they are."""
        try:
            conf = self._conf_file.changed()
        except ServiceError as error:
            log.error("%s; the previous settings stay", error)
            return
        if conf is None:
            return
        for line in conf.warnings:
            if line not in self.conf.warnings:
                log.warning(line)
        self.conf = conf
        self.node.settings_changed(conf.node, self.clock.now_ms())
        self.driver.drain()
        self.tunnel.configure(
            conf.tcp_relay, allowed=conf.allow_tcp_relay, forced=conf.force_tcp_relay
        )
        self._last_refresh_ms = 0
        self._wake.set()
