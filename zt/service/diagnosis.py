"""Why it works or does not: checks of a running node, each with what to do about it.

Read-only views on node, sockets, networks and host settings; the CLI's `status` shows them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zt.protocol.inet import InetAddress, Scope
from zt.service.clock import wall_ms
from zt.service.managed import is_default
from zt.service.networks import Joined
from zt.vl1.status import LEAF

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

CLOCK_DRIFT_MS = 60_000
"""Wall clock against ours: beyond this, certificates look too old or too new to others."""
RP_FILTER = Path("/proc/sys/net/ipv4/conf")
STRICT = "1"

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `remedy` is empty where nothing needs to be done."""

    name: str
    level: str
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "level": self.level, "text": self.text, "remedy": self.remedy}


def diagnose(daemon: "Daemon") -> list[Check]:
    """All checks, in the order in which to look at them."""
    return [
        _sockets(daemon),
        _roots(daemon),
        _clock(daemon),
        _relayed(daemon),
        *(check for joined in daemon.networks for check in _network(daemon, joined)),
    ]


def _sockets(daemon: "Daemon") -> Check:
    bound = daemon.sockets.bound()
    if bound:
        return Check("sockets", OK, f"{len(bound)} UDP sockets bound")
    if daemon.conf.force_tcp_relay:
        return Check("sockets", WARNING, "no UDP socket: forceTcpRelay is set")
    return Check(
        "sockets",
        ERROR,
        "no UDP socket could be bound",
        "check that an interface is up and has an address, and that bind,"
        " interfacePrefixBlacklist and physical blacklists in local.conf leave one",
    )


def _roots(daemon: "Daemon") -> Check:
    roots = [p for p in daemon.node.peers(daemon.clock.now_ms()) if p.role != LEAF]
    live = [p for p in roots if p.paths]
    if live:
        latencies = [p.latency_ms for p in live if p.latency_ms is not None]
        best = f", best latency {min(latencies)} ms" if latencies else ""
        return Check("roots", OK, f"{len(live)} of {len(roots)} roots reached directly{best}")
    if daemon.tunneled:
        return Check(
            "roots",
            WARNING,
            "roots are reached through the TCP relay only",
            f"allow outgoing UDP, best from local port {daemon.ports.primary}",
        )
    if daemon.node.online:
        return Check("roots", OK, "this node is a root, or heard one lately")
    return Check(
        "roots",
        ERROR,
        "no root answers",
        f"allow outgoing UDP from port {daemon.ports.primary} (and its answers) in the firewall;"
        " check the Internet connection; with a private planet, its endpoints",
    )


def _clock(daemon: "Daemon") -> Check:
    drift_ms = wall_ms() - daemon.clock.now_ms()
    if abs(drift_ms) <= CLOCK_DRIFT_MS:
        return Check("clock", OK, "the wall clock is steady")
    return Check(
        "clock",
        WARNING,
        f"the wall clock was changed by {drift_ms // 1000} s since the start",
        "restart the service if networks refuse certificates; keep time with NTP",
    )


def _relayed(daemon: "Daemon") -> Check:
    leaves = [p for p in daemon.node.peers(daemon.clock.now_ms()) if p.role == LEAF]
    relayed = [p for p in leaves if not p.paths]
    text = f"{len(leaves) - len(relayed)} of {len(leaves)} peers are reached directly"
    if not relayed:
        return Check("peers", OK, text)
    names = ", ".join(str(p.address) for p in relayed[:5])
    return Check(
        "peers",
        WARNING,
        f"{text}; relayed: {names}{' ...' if len(relayed) > 5 else ''}",
        "a symmetric NAT or a firewall on either side: open or forward UDP"
        f" port {daemon.ports.primary}, or allow UPnP",
    )


# --- networks ----------------------------------------------------------------------------------


def _network(daemon: "Daemon", joined: Joined) -> Iterator[Check]:
    name = f"network {joined.nwid}"
    if joined.port_error:
        yield Check(
            name,
            ERROR,
            f"its TAP device could not be opened (error {-joined.port_error})",
            "run the service as root or with CAP_NET_ADMIN, with /dev/net/tun present;"
            " then leave and join",
        )
        return
    view = daemon.node.network(joined.nwid)
    status = view.status if view is not None else "REQUESTING_CONFIGURATION"
    config = view.config if view is not None else None
    address = daemon.identity.address
    if status != "OK":
        text, remedy = {
            "ACCESS_DENIED": (
                "the controller does not admit this node",
                f"authorize member {address} on the controller",
            ),
            "NOT_FOUND": (
                "the controller knows no such network",
                "check the network ID",
            ),
            "AUTHENTICATION_REQUIRED": (
                "a login is needed",
                f"open {view.authentication_url if view else ''}",
            ),
        }.get(
            status,
            (
                f"its controller {joined.nwid.controller} has not answered",
                "check that the controller runs and that both sides reach the same roots",
            ),
        )
        yield Check(name, ERROR, f"{status}: {text}", remedy)
        if config is None:
            return
    else:
        count = len(joined.addresses)
        yield Check(name, OK, f"OK on {joined.tap.name if joined.tap else '-'}, {count} addresses")
    if config is None:
        return
    refused = [a for a in config.static_ips if a and not joined.settings.allows(a)]
    if refused:
        yield Check(
            name,
            WARNING,
            f"assigned but not allowed here: {', '.join(map(str, refused))}",
            _setting_for(refused[0]),
        )
    targets = [r.target for r in config.routes if not joined.settings.allows(r.target)]
    if targets:
        yield Check(
            name,
            WARNING,
            f"routes not allowed here: {', '.join(map(str, targets))}",
            _setting_for(targets[0]),
        )
    if joined.settings.allow_default and any(is_default(r.target) for r in config.routes):
        yield from _reverse_path(name, daemon)


def _setting_for(target: InetAddress) -> str:
    if is_default(target):
        return "set allowDefault=1 to route everything through this network"
    if target.scope is Scope.GLOBAL:
        return "set allowGlobal=1 to allow public addresses"
    return "set allowManaged=1, or widen its list"


def _reverse_path(name: str, daemon: "Daemon") -> Iterator[Check]:
    """A full tunnel starves when the kernel drops answers on the physical device (ch. 06, 8.3)."""
    devices = {binding.device for _, binding in daemon.sockets.bound() if binding.device}
    strict = [
        device for device in sorted(devices) if max(_rp_filter(device), _rp_filter("all")) == STRICT
    ]
    if strict:
        yield Check(
            name,
            ERROR,
            f"strict reverse-path filtering on {', '.join(strict)} breaks the default route",
            "sysctl -w " + " ".join(f"net.ipv4.conf.{device}.rp_filter=2" for device in strict),
        )


def _rp_filter(device: str) -> str:
    try:
        return (RP_FILTER / device / "rp_filter").read_text().strip()
    except OSError:
        return "0"
