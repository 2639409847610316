"""UDP sockets: which addresses and ports, and binding them (ch. 06, 9; ch. 03, 7)."""

import errno
import logging
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from zt.protocol.inet import Scope, ip_text
from zt.service.localconf import LocalConf
from zt.service.netlink import HostAddress

log = logging.getLogger("zt.sockets")

BUFFER_SIZE = 1 << 20
MAX_BINDINGS = 256
USABLE = frozenset((Scope.PSEUDO_PRIVATE, Scope.GLOBAL, Scope.SHARED, Scope.PRIVATE))
EXCLUDED_DEVICES = ("lo", "zt", "tun", "tap")
API_BACKLOG = 128
RANDOM_PORTS = (20000, 65500)

IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33


class Binding(NamedTuple):
    """What a socket is bound to. `device` is empty when any will do."""

    ip: bytes
    port: int
    device: str

    def __str__(self) -> str:
        return f"{ip_text(self.ip)}/{self.port}"


def wanted_bindings(
    addresses: Iterable[HostAddress],
    ports: Sequence[int],
    conf: LocalConf,
    taps: frozenset[str],
) -> list[Binding]:
    """One binding per suitable address and port; none with `forceTcpRelay`."""
    if conf.force_tcp_relay:
        return []
    if conf.bind:
        places = [(ip, "") for ip in conf.bind]
    else:
        excluded = (*EXCLUDED_DEVICES, *conf.interface_prefix_blacklist)
        blacklist = [network for network, entry in conf.node.physical.items() if entry.blacklist]
        own = {entry.address.ip for entry in addresses if entry.device in taps}
        places = [
            (entry.address.ip, entry.device)
            for entry in addresses
            if not entry.device.startswith(excluded)
            and not entry.temporary
            and entry.address.scope in USABLE
            and entry.address.ip not in own
            and not any(network.contains(entry.address.ip) for network in blacklist)
        ]
    bindings = [Binding(ip, port, device) for ip, device in places for port in ports if port]
    return list(dict.fromkeys(bindings))[:MAX_BINDINGS]


class Sockets:
    """The bound UDP sockets, each under a small number that is never used twice."""

    def __init__(self, added: Callable[[int, int], None], removed: Callable[[int], None]) -> None:
        """`added(id, fd)` and `removed(id)` tell the data plane; a socket is closed after it."""
        self._added = added
        self._removed = removed
        self._open: dict[Binding, tuple[int, socket.socket]] = {}
        self._next_id = 1

    def bound(self) -> list[tuple[int, Binding]]:
        return [(number, binding) for binding, (number, _) in self._open.items()]

    def refresh(self, wanted: Sequence[Binding]) -> bool:
        """Close what is not wanted any more, open what is new. True if anything changed."""
        changed = False
        for binding in self._open.keys() - set(wanted):
            self._close(binding)
            changed = True
        for binding in wanted:
            if binding in self._open:
                continue
            try:
                opened = open_udp(binding)
            except OSError as error:
                # Tentative or vanished addresses are common; the next refresh tries again.
                log.debug("%s cannot be bound: %s", binding, error)
                continue
            number = self._next_id
            self._next_id += 1
            self._open[binding] = (number, opened)
            self._added(number, opened.fileno())
            changed = True
        return changed

    def close(self) -> None:
        for binding in list(self._open):
            self._close(binding)

    def _close(self, binding: Binding) -> None:
        number, opened = self._open.pop(binding)
        self._removed(number)
        opened.close()


def open_udp(binding: Binding) -> socket.socket:
    """A bound, non-blocking UDP socket with the options of ch. 06, 9.2. Raises OSError."""
    family = socket.AF_INET if len(binding.ip) == 4 else socket.AF_INET6
    udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        for option, forced in (
            (socket.SO_RCVBUF, SO_RCVBUFFORCE),
            (socket.SO_SNDBUF, SO_SNDBUFFORCE),
        ):
            _set_buffer(udp, option, forced)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            udp.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
        else:
            udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        if binding.device:
            udp.setsockopt(
                socket.SOL_SOCKET, socket.SO_BINDTODEVICE, binding.device.encode() + b"\0"
            )
        udp.bind((ip_text(binding.ip), binding.port))
    except BaseException:
        udp.close()
        raise
    return udp


def _set_buffer(udp: socket.socket, option: int, forced: int) -> None:
    try:
        udp.setsockopt(socket.SOL_SOCKET, forced, BUFFER_SIZE)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)


# --- ports -----------------------------------------------------------------------------------


def port_free(port: int) -> bool:
    """Can UDP and TCP both be bound on the IPv4 wildcard, or else on the IPv6 one?"""
    return any(_wildcard_free(family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _wildcard_free(family: socket.AddressFamily, port: int) -> bool:
    try:
        with (
            socket.socket(family, socket.SOCK_DGRAM) as udp,
            socket.socket(family, socket.SOCK_STREAM) as tcp,
        ):
            for opened in (udp, tcp):
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # As the servers do: a connection of an earlier run in TIME_WAIT is no obstacle.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind(("", port))
            tcp.bind(("", port))
            tcp.listen(1)
    except OSError:
        return False
    return True


def random_port(avoid: Iterable[int] = (), tries: int = 1000) -> int:
    """A free port of 20000..65499, counting upward from a random one; 0 if there is none."""
    low, high = RANDOM_PORTS
    taken = set(avoid)
    start = random.randrange(low, high)
    for step in range(tries):
        port = low + (start - low + step) % (high - low)
        if port not in taken and port_free(port):
            return port
    return 0


def bind_api(port: int) -> list[socket.socket]:
    """Listening sockets on the IPv4 and the IPv6 wildcard; one of them is enough.

    Access is decided per request (ch. 06, 3.3), so that `allowManagementFrom` can change live.
    """
    listeners: list[socket.socket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            continue  # a kernel without that family
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("", port))
            listener.listen(API_BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                for other in listeners:
                    other.close()
                return []
            continue
        listeners.append(listener)
    return listeners
