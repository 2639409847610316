"""The daemon: puts home, sockets, TAP devices, data plane, node, controller and API together.

`Daemon.run` is one life of the service, from an open home folder to a clean stop.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import msgspec

from zt._fast.pump import Pump
from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.node import Node
from zt.protocol.address import Mac, NetworkId
from zt.protocol.inet import InetAddress
from zt.service import localconf
from zt.service.api.app import build
from zt.service.api.server import ApiServer, bind_api
from zt.service.api.static import static_routes
from zt.service.clock import Clock, wall_ms
from zt.service.controller import ControllerHost
from zt.service.dns import Resolver
from zt.service.driver import Driver
from zt.service.errors import ServiceError
from zt.service.home import Home
from zt.service.localconf import LocalConf, LocalConfError
from zt.service.metrics import FILE as METRICS_FILE
from zt.service.metrics import Metrics
from zt.service.netlink import Netlink
from zt.service.networks import Networks
from zt.service.sockets import Sockets, port_free, random_port, wanted_bindings
from zt.vl1.actions import COLLISION, Event
from zt.vl1.status import LocalSocket, PhysicalPath

log = logging.getLogger("zt.service")

DEFAULT_PORT = 9993
PLATFORM = f"{sys.platform}/{os.uname().machine}"
TICK_S = 5.0
CONF_CHECK_MS = 10_000
REFRESH_MS = 30_000
EXPIRE_MS = 3_600_000
WAKE_UP_MS = 10_000
"""A pass this much later than planned means that the machine slept."""
OFFLINE_MS = 120_000
"""Offline for this long, a random secondary port is chosen anew: the NAT may have got stuck."""


class Outcome(Enum):
    STOPPED = "stopped"
    COLLISION = "collision"  # the identity was retired; start over with a new one


@dataclass(slots=True)
class Ports:
    """Local UDP ports; 0 is a port that is not used. The primary one is TCP of the API, too."""

    primary: int
    secondary: int = 0
    tertiary: int = 0

    def __iter__(self) -> Any:
        return iter((self.primary, self.secondary, self.tertiary))


class Daemon:
    """One run of the service. Attributes are read by the API views."""

    tunneled = False
    """A TCP relay connection exists."""

    def __init__(self, home: Home, port: int | None) -> None:
        """Read everything from the home folder and take the ports. Raises ServiceError.

        `port` is what the command line says: None for the default, 0 for a random one.
        """
        self.home = home
        self.clock = Clock()
        self.token = home.token("authtoken.secret")
        self.metrics_token = home.token("metricstoken.secret")
        self.identity = home.identity()
        self.planet = home.planet()
        self.conf = self._read_conf()
        for line in self.conf.warnings:
            log.warning(line)
        self.ports, self._listeners = self._take_ports(port)
        self.home.write_port(self.ports.primary)

    # --- before the loop -----------------------------------------------------------------------

    def _read_conf(self) -> LocalConf:
        self._conf_stamp = self._stamp()
        return self._with_trusted_paths(localconf.parse(self.home.read("local.conf") or b""))

    def _with_trusted_paths(self, conf: LocalConf) -> LocalConf:
        """Adds what the legacy file `trustedpaths` says; `local.conf` wins."""
        data = self.home.read("trustedpaths")
        if data is None:
            return conf
        legacy = {
            network: PhysicalPath(trusted_id=trusted_id)
            for network, trusted_id in localconf.parse_trusted_paths(
                data.decode("utf-8", "replace")
            ).items()
        }
        return replace(
            conf,
            node=replace(conf.node, physical={**legacy, **conf.node.physical}),
            warnings=(
                *conf.warnings,
                "WARNING: 'trustedpaths' flat file format is deprecated"
                " in favor of path definitions in local.conf",
            ),
        )

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            info = (self.home / "local.conf").stat()
        except OSError:
            return None
        return info.st_mtime_ns, info.st_size, info.st_ino

    def _take_ports(self, port: int | None) -> tuple[Ports, list[socket.socket]]:
        wanted = self.conf.primary_port
        if wanted is None:
            wanted = DEFAULT_PORT if port is None else port
        if wanted == 0:
            wanted = random_port(tries=256)
        listeners = bind_api(wanted) if wanted and port_free(wanted) else []
        if not listeners:
            raise ServiceError(f"cannot bind to local control interface port {wanted}")
        ports = Ports(wanted)
        if self.conf.allow_secondary_port:
            ports.secondary = self.conf.secondary_port or random_port((wanted,))
        if self.conf.port_mapping:
            ports.tertiary = self.conf.tertiary_port or random_port((wanted, ports.secondary))
        return ports, listeners

    # --- life ----------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, ready: Any = lambda: None) -> Outcome:
        """Serve until `stop` is set or the identity collides. Calls `ready` when up."""
        self._stop = stop
        self._outcome = Outcome.STOPPED
        self._wake = asyncio.Event()
        now_ms = self.clock.now_ms()
        self._last_refresh_ms = self._last_conf_ms = self._last_expire_ms = 0
        self._online_ms = now_ms

        self.netlink = Netlink()
        self.tables = Tables(int(self.identity.address))
        self.switch = Switch(self.tables)
        self.pump = Pump(self.switch, self.clock.offset_ms)
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
        self.driver = Driver(
            self.node,
            self.pump,
            self.home,
            self.clock,
            network_changed=lambda nwid: self.networks.schedule(nwid),
            config_request=self.controller.request,
            event=self._event,
            remote_trace=self.controller.remote_trace,
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
            drain=self.drain,
        )
        self.metrics = Metrics(self)
        self._exposition = b""
        self.home.write(METRICS_FILE, b"")
        await self.controller.start()
        routes = [*self.controller.routes(), *static_routes(self.home, self.conf.web_server)]
        self.api = ApiServer(build(self, routes), self._listeners)
        try:
            await self.api.start()
            self.pump.start()
            await self._refresh()
            self.driver.start()
            for nwid in self.home.networks():
                await self.networks.join(nwid)
            ready()
            await self._main_loop()
        finally:
            await self._shut_down()
        return self._outcome

    def _moons(self) -> Any:
        for path, world in self.home.moons():
            if world is None:
                log.error("%s is damaged and ignored", path)
            else:
                yield world

    async def _shut_down(self) -> None:
        await self.api.stop()
        self._expose()
        await self.controller.stop()
        self.node.stop(self.clock.now_ms())
        self.driver.drain()
        self.driver.stop()
        await self.networks.close()
        self.pump.stop()
        self.sockets.close()
        await self.netlink.close()

    # --- the main loop ---------------------------------------------------------------------------

    async def _main_loop(self) -> None:
        loop = asyncio.get_running_loop()
        expected_ms = self.clock.now_ms()
        while not self._stop.is_set():
            now_ms = self.clock.now_ms()
            slept = now_ms - expected_ms > WAKE_UP_MS
            await self._pass(now_ms, slept)
            expected_ms = self.clock.now_ms() + int(TICK_S * 1000)
            due = loop.time() + TICK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK_S)
            self.metrics.loop_lag_ms = max(loop.time() - due, 0.0) * 1000

    async def _pass(self, now_ms: int, slept: bool) -> None:
        if self.node.online:
            self._online_ms = now_ms
        self.networks.scan_groups()
        self.metrics.observe(self.node.peers(now_ms))
        self._expose()
        if now_ms - self._last_conf_ms >= CONF_CHECK_MS:
            self._last_conf_ms = now_ms
            self.reload()
        if slept or now_ms - self._last_refresh_ms >= REFRESH_MS:
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
        wanted = wanted_bindings(
            addresses, list(self.ports), self.conf, self.networks.device_names()
        )
        if self.sockets.refresh(wanted):
            bound = [
                LocalSocket(number, InetAddress(binding.ip, binding.port))
                for number, binding in self.sockets.bound()
            ]
            self.node.sockets_changed(bound, self.clock.now_ms())
            self.driver.drain()

    def _change_secondary_port(self) -> None:
        if self.conf.allow_secondary_port and not self.conf.secondary_port:
            self.ports.secondary = random_port(self.ports)

    def _event(self, event: Event) -> None:
        log.info("%s %s", event.kind, event.text)
        if event.kind == COLLISION:
            log.error("another identity owns our address; starting over with a new one")
            self.home.retire_identity()
            self._outcome = Outcome.COLLISION
            self._stop.set()

    # --- what the API asks -----------------------------------------------------------------------

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
        stamp = self._stamp()
        if stamp is None or stamp == self._conf_stamp:
            return
        self._conf_stamp = stamp
        data = self.home.read("local.conf")
        if not data:
            return  # an empty file keeps what was there before (ch. 06, 5.6)
        try:
            conf = self._with_trusted_paths(localconf.parse(data))
        except LocalConfError as error:
            log.error("%s; the previous settings stay", error)
            return
        for line in conf.warnings:
            if line not in self.conf.warnings:
                log.warning(line)
        self.conf = conf
        self.node.settings_changed(conf.node, self.clock.now_ms())
        self.driver.drain()
        self._last_refresh_ms = 0
