"""What a service needs before it runs: settings, identity, worlds, tokens and ports.

Light to import, so that everything wrong with a home folder or a port is said at once.
"""

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

from zt.protocol.identity import Identity
from zt.protocol.world import World
from zt.service import localconf
from zt.service.errors import ServiceError
from zt.service.home import Home
from zt.service.localconf import LocalConf
from zt.service.sockets import bind_api, port_free, random_port
from zt.vl1.status import PhysicalPath

log = logging.getLogger("zt.service")

DEFAULT_PORT = 9993
PRIMARY_TRIES = 256


class ConfFile:
    """`local.conf` on disk: read at start, and again whenever it changed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> LocalConf:
        """At start. Raises ServiceError."""
        self._stamp = self._current()
        return self._parse(self._home.read("local.conf") or b"")

    def changed(self) -> LocalConf | None:
        """The new content if there is one. A file that was removed or emptied changes nothing
        (ch. 06, 5.6). Raises ServiceError for one that cannot be used, once per edit."""
        stamp = self._current()
        if stamp is None or stamp == self._stamp:
            return None
        self._stamp = stamp
        data = self._home.read("local.conf")
        return self._parse(data) if data else None

    def _current(self) -> tuple[int, int, int] | None:
        try:
            info = (self._home / "local.conf").stat()
        except OSError:
            return None
        return info.st_mtime_ns, info.st_size, info.st_ino

    def _parse(self, data: bytes) -> LocalConf:
        """With what the legacy file `trustedpaths` says; `local.conf` wins."""
        conf = localconf.parse(data)
        legacy = self._home.read("trustedpaths")
        if legacy is None:
            return conf
        paths = localconf.parse_trusted_paths(legacy.decode("utf-8", "replace"))
        trusted = {network: PhysicalPath(trusted_id=number) for network, number in paths.items()}
        warning = (
            "WARNING: 'trustedpaths' flat file format is deprecated"
            " in favor of path definitions in local.conf"
        )
        return replace(
            conf,
            node=replace(conf.node, physical={**trusted, **conf.node.physical}),
            warnings=(*conf.warnings, warning),
        )


@dataclass(slots=True)
class Ports:
    """Local UDP ports; 0 is a port that is not used. The primary one is TCP of the API, too."""

    primary: int
    secondary: int = 0
    tertiary: int = 0

    def __iter__(self) -> Iterator[int]:
        return iter((self.primary, self.secondary, self.tertiary))


@dataclass(slots=True)
class Prepared:
    """Everything that can go wrong before the event loop has not."""

    home: Home
    token: str
    metrics_token: str
    identity: Identity
    planet: World
    conf_file: ConfFile
    conf: LocalConf
    ports: Ports
    listeners: list[socket.socket]
    """TCP, for the API."""


def prepare(home: Home, port: int | None) -> Prepared:
    """Read the home folder, making what is missing, and take the ports.

    :param port: what the command line says: None for the default, 0 for a random one.
    :raises ServiceError: with the line to print.
    """
    token = home.token("authtoken.secret")
    metrics_token = home.token("metricstoken.secret")
    identity = home.identity()
    planet = home.planet()
    conf_file = ConfFile(home)
    conf = conf_file.read()
    for line in conf.warnings:
        log.warning(line)
    ports, listeners = _take_ports(conf, port)
    home.write_port(ports.primary)
    return Prepared(home, token, metrics_token, identity, planet, conf_file, conf, ports, listeners)


def _take_ports(conf: LocalConf, port: int | None) -> tuple[Ports, list[socket.socket]]:
    wanted = conf.primary_port
    if wanted is None:
        wanted = DEFAULT_PORT if port is None else port
    if wanted == 0:
        wanted = random_port(tries=PRIMARY_TRIES)
    listeners = bind_api(wanted) if wanted and port_free(wanted) else []
    if not listeners:
        raise ServiceError(f"cannot bind to local control interface port {wanted}")
    ports = Ports(wanted)
    if conf.allow_secondary_port:
        ports.secondary = conf.secondary_port or random_port((wanted,))
    if conf.port_mapping:
        ports.tertiary = conf.tertiary_port or random_port((wanted, ports.secondary))
    return ports, listeners
