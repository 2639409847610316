"""Links, addresses and routes of the host, through pyroute2.

Netlink sockets cannot be driven by uvloop, and a request may have to wait for the kernel's
routing lock; so every request runs on one thread of its own, in order, and is awaited.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from zt.protocol.inet import InetAddress, ip_text, parse_ip
from zt.service.lean import bare
from zt.service.managed import Route

METRIC = 5000
"""Metric of our gateway routes: a route of the system to the same target wins (ch. 06, 8.3)."""

PROTO_STATIC = 4
TABLE_MAIN = 254
IFA_F_TEMPORARY = 0x01
IFF_UP = 0x1
IFF_MULTICAST = 0x1000

T = TypeVar("T")


class HostAddress(NamedTuple):
    """One address of one interface. `address.port` is its prefix length."""

    device: str
    ifindex: int
    address: InetAddress
    temporary: bool


class Gateway(NamedTuple):
    """A default router: its IPv4 address and the interface that leads to it."""

    ip: bytes
    device: str


class Netlink:
    """Asynchronous requests to the kernel. Every method raises OSError when it says no."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._ipr: Any = None

    async def close(self) -> None:
        await self.run(self._close)
        self._thread.shutdown()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run anything that may block in the kernel on the thread of this socket."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def addresses(self) -> list[HostAddress]:
        return await self.run(self._addresses)

    async def link_configure(self, index: int, mac: bytes, mtu: int) -> None:
        """Set MAC and MTU, then bring the link up."""
        text = mac.hex(":")
        await self._request("link", "set", index=index, address=text, mtu=mtu)
        await self._request("link", "set", index=index, state="up")

    async def link_mtu(self, index: int, mtu: int) -> None:
        await self._request("link", "set", index=index, mtu=mtu)

    async def address_add(self, index: int, device: str, address: InetAddress) -> None:
        await self._request("addr", "add", **_address(index, device, address))

    async def address_remove(self, index: int, address: InetAddress) -> None:
        await self._request(
            "addr", "del", index=index, address=ip_text(address.ip), prefixlen=address.bits
        )

    async def route_add(self, index: int, route: Route) -> None:
        """Exclusive create: a route of somebody else is never replaced (FileExistsError)."""
        await self._request("route", "add", **_route(index, route, adding=True))

    async def route_remove(self, index: int, route: Route) -> None:
        await self._request("route", "del", **_route(index, route, adding=False))

    async def routes(self, index: int) -> set[tuple[InetAddress, bytes | None]]:
        """Targets and gateways of the static routes of the main table out of one device."""
        return await self.run(self._routes, index)

    async def gateways(self) -> list[Gateway]:
        """The IPv4 default routers, preferred ones first."""
        return await self.run(self._gateways)

    # --- on the thread -----------------------------------------------------------------------

    async def _request(self, kind: str, command: str, **values: Any) -> None:
        def request() -> None:
            with _os_errors():
                getattr(self._open(), kind)(command, **values)

        await self.run(request)

    def _open(self) -> Any:
        if self._ipr is None:
            # Imported here, on the thread: pyroute2 is slow to import and start-up need not wait.
            with bare("pyroute2"):
                from pyroute2.iproute.linux import IPRoute
            self._ipr = IPRoute()
        return self._ipr

    def _close(self) -> None:
        if self._ipr is not None:
            self._ipr.close()

    def _addresses(self) -> list[HostAddress]:
        with _os_errors():
            ipr = self._open()
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
            found = []
            for message in ipr.get_addr():
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                flags = message.get_attr("IFA_FLAGS") or message["flags"]
                if text is None or message["index"] not in names:
                    continue
                found.append(
                    HostAddress(
                        names[message["index"]],
                        message["index"],
                        InetAddress(parse_ip(text), message["prefixlen"]),
                        bool(flags & IFA_F_TEMPORARY) and ":" in text,
                    )
                )
            return found

    def _gateways(self) -> list[Gateway]:
        with _os_errors():
            ipr = self._open()
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ipr.get_links()}
            found = []
            for message in ipr.get_default_routes(family=socket.AF_INET, table=TABLE_MAIN):
                router = message.get_attr("RTA_GATEWAY")
                device = names.get(message.get_attr("RTA_OIF"))
                if router and device:
                    metric = message.get_attr("RTA_PRIORITY") or 0
                    found.append((metric, Gateway(parse_ip(router), device)))
            return [gateway for _, gateway in sorted(found)]

    def _routes(self, index: int) -> set[tuple[InetAddress, bytes | None]]:
        with _os_errors():
            found = set()
            for family in (socket.AF_INET, socket.AF_INET6):
                zero = bytes(4 if family == socket.AF_INET else 16)
                for message in self._open().get_routes(
                    family=family, table=TABLE_MAIN, proto=PROTO_STATIC, oif=index
                ):
                    if message.get_attr("RTA_OIF") != index or message["proto"] != PROTO_STATIC:
                        continue
                    target = message.get_attr("RTA_DST")
                    gateway = message.get_attr("RTA_GATEWAY")
                    found.add(
                        (
                            InetAddress(parse_ip(target) if target else zero, message["dst_len"]),
                            parse_ip(gateway) if gateway else None,
                        )
                    )
            return found


def _address(index: int, device: str, address: InetAddress) -> dict[str, Any]:
    values: dict[str, Any] = {
        "index": index,
        "address": ip_text(address.ip),
        "prefixlen": address.bits,
    }
    if len(address.ip) == 4:
        hosts = (1 << (32 - min(address.bits, 32))) - 1
        values["broadcast"] = ip_text((int.from_bytes(address.ip) | hosts).to_bytes(4))
        values["label"] = device
    return values


def _route(index: int, route: Route, *, adding: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
        "dst": str(route.target),
        "family": socket.AF_INET if len(route.target.ip) == 4 else socket.AF_INET6,
        "table": TABLE_MAIN,
        "oif": index,
    }
    if route.via is not None:
        values["gateway"] = ip_text(route.via)
    if adding:
        values["proto"] = PROTO_STATIC
        if route.via is not None:
            values["priority"] = METRIC
        elif route.source is not None:
            values["prefsrc"] = ip_text(route.source)
    return values


class _os_errors:
    """Turns pyroute2's errors into OSError with the kernel's errno."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # NetlinkError is no OSError, but it carries an errno as `code`.
        code = getattr(error, "code", None)
        if isinstance(code, int) and not isinstance(error, OSError):
            raise OSError(code, os.strerror(code)) from None
