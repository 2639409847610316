"""What a network may do to the host: allow rules, managed addresses and routes (ch. 06, section 8).

Pure decisions: settings and a configuration in, the wanted state out. `netlink` applies it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress, Scope, ip_text

UNMANAGEABLE = frozenset((Scope.NONE, Scope.MULTICAST, Scope.LOOPBACK, Scope.LINK_LOCAL))


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Local settings of one joined network: `networks.d/<nwid>.local.conf` (ch. 06, 3.6)."""

    allow_managed: bool = True
    allow_global: bool = False
    allow_default: bool = False
    allow_dns: bool = False
    allow_list: tuple[InetAddress, ...] = ()
    """If not empty, only targets inside one of these networks are managed."""

    @classmethod
    def parse(cls, text: str) -> "NetworkSettings":
        """From the lines `key=value` of the file; unknown lines are skipped."""
        values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
        managed = values.get("allowManaged", "")
        allow_list: tuple[InetAddress, ...] = ()
        if len(managed) > 5:
            allow_list = tuple(_networks(managed.split(",")))
            allow_managed = True
        else:
            allow_managed = not managed or _true(managed)
        return cls(
            allow_managed=allow_managed,
            allow_global=_true(values.get("allowGlobal", "")),
            allow_default=_true(values.get("allowDefault", "")),
            allow_dns=_true(values.get("allowDNS", "")),
            allow_list=allow_list,
        )

    def __str__(self) -> str:
        managed = str(int(self.allow_managed))
        if self.allow_managed and self.allow_list:
            managed = ",".join(map(str, self.allow_list))
        return (
            f"allowManaged={managed}\n"
            f"allowGlobal={self.allow_global:d}\n"
            f"allowDefault={self.allow_default:d}\n"
            f"allowDNS={self.allow_dns:d}\n"
        )

    def allows(self, target: InetAddress) -> bool:
        """May this address or route target, a network, be configured (ch. 06, 8.1)?"""
        if not self.allow_managed:
            return False
        if self.allow_list and not any(
            network.contains(target.ip) and network.bits <= target.bits
            for network in self.allow_list
        ):
            return False
        if is_default(target):
            return self.allow_default
        scope = target.scope
        if scope in UNMANAGEABLE:
            return False
        return scope is not Scope.GLOBAL or self.allow_global


class Route(NamedTuple):
    """A route as the kernel shall have it, out of a network's TAP."""

    target: InetAddress
    via: bytes | None
    source: bytes | None
    """Preferred source, of routes without a gateway only."""

    def __str__(self) -> str:
        return f"{self.target} via {ip_text(self.via)}" if self.via else str(self.target)


class ConfiguredRoute(NamedTuple):
    """A route as the network's configuration has it."""

    target: InetAddress
    via: bytes | None


def is_default(target: InetAddress) -> bool:
    return target.bits == 0 and not any(target.ip)


def wanted_addresses(
    assigned: Iterable[InetAddress], settings: NetworkSettings
) -> list[InetAddress]:
    """The assigned addresses that may be configured; sorted, each once."""
    return sorted({address for address in assigned if settings.allows(address)})


def wanted_routes(
    configured: Sequence[ConfiguredRoute],
    addresses: Iterable[InetAddress],
    device_addresses: Iterable[InetAddress],
    settings: NetworkSettings,
    *,
    online: bool,
) -> list[Route]:
    """The routes a network shall have now, in the order to add them (ch. 06, 8.3).

    `addresses` are those we manage on the network, `device_addresses` all that its TAP has.
    Default routes appear only while `online`; once set they are kept by the caller.
    """
    addresses = set(addresses)
    own = addresses | set(device_addresses)
    own_ips = {address.ip for address in own}
    routes: list[Route] = []
    for target, via in configured:
        if not settings.allows(target) or via in own_ips:
            continue
        if via is not None and len(via) != len(target.ip):
            continue
        source = nearest(target, own)
        if source is None:
            continue
        if any(a.bits == target.bits and target.contains(a.ip) for a in addresses):
            continue  # the kernel made that one when the address was added
        if is_default(target):
            if online:
                routes += [Route(half, via, None if via else source.ip) for half in halves(target)]
        else:
            routes.append(Route(_masked(target), via, None if via else source.ip))
    # Gateways must be reachable before the kernel takes a route through them.
    return sorted(dict.fromkeys(routes), key=lambda route: route.via is not None)


def nearest(target: InetAddress, own: Iterable[InetAddress]) -> InetAddress | None:
    """The own address of the target's family with the most leading bits in common."""
    candidates = [address for address in own if len(address.ip) == len(target.ip)]
    return max(
        candidates,
        key=lambda address: (common_bits(address.ip, target.ip), address.ip),
        default=None,
    )


def common_bits(a: bytes, b: bytes) -> int:
    return 8 * len(a) - (int.from_bytes(a) ^ int.from_bytes(b)).bit_length()


def halves(target: InetAddress) -> tuple[InetAddress, InetAddress]:
    """A default route as two: they win over the system's by prefix length, and leave it alone."""
    zero = bytes(len(target.ip))
    return InetAddress(zero, 1), InetAddress(b"\x80" + zero[1:], 1)


def _masked(target: InetAddress) -> InetAddress:
    """The kernel refuses a route target with host bits set."""
    size = len(target.ip)
    host_bits = max(8 * size - target.bits, 0)
    value = int.from_bytes(target.ip) >> host_bits << host_bits
    return InetAddress(value.to_bytes(size), target.bits)


def _true(value: str) -> bool:
    return value[:1] in ("1", "t", "T")


def _networks(texts: Iterable[str]) -> Iterable[InetAddress]:
    for text in texts:
        try:
            if network := InetAddress.parse(text.strip()):
                yield network
        except DecodeError:
            continue
