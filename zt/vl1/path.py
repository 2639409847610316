"""Physical paths: (local socket, remote IP, remote port), and which of them are allowed."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress, Scope
from zt.protocol.packet import DEFAULT_MTU, MAX_MTU, MIN_MTU
from zt.vl1.status import PhysicalPath, Settings

UNKNOWN_LATENCY_MS = 65535
NOT_IN_TABLES = -1

USABLE_SCOPES = frozenset((Scope.PSEUDO_PRIVATE, Scope.GLOBAL, Scope.SHARED, Scope.PRIVATE))
TUNNEL_BROKER = InetAddress(bytes.fromhex("20010470") + bytes(12), 32)


@dataclass(slots=True, eq=False)
class Path:
    """One physical path, shared by all peers seen on it (ch. 03, 4). Times in ms, 0 = never."""

    socket: int
    address: InetAddress
    mtu: int = DEFAULT_MTU
    trusted_id: int = 0
    handle: int = NOT_IN_TABLES
    users: int = 0
    last_out_ms: int = 0  # anything that the control plane sent; the tables know of frames
    routed_ms: int = 0  # what it sent there because it was the route to somebody
    trusted_ms: int = 0
    confirm_ms: int = 0  # last HELLO sent because of a packet from an unknown path
    echo_ms: int = 0  # last ECHO answered
    bond_mtu: int = 0  # set for this path alone, beside what `physical` says; 0: not


class Paths:
    """Finds or makes paths. Those that no peer uses are bounded; the oldest goes first."""

    def __init__(self, unused_limit: int = 4096) -> None:
        self._used: dict[tuple[int, InetAddress], Path] = {}
        self._unused: OrderedDict[tuple[int, InetAddress], Path] = OrderedDict()
        self._unused_limit = unused_limit
        self._physical: list[tuple[InetAddress, PhysicalPath]] = []

    def __len__(self) -> int:
        return len(self._used) + len(self._unused)

    def configure(self, physical: Mapping[InetAddress, PhysicalPath]) -> None:
        """Takes over the `physical` settings. The entry with the longest prefix counts."""
        self._physical = sorted(physical.items(), key=lambda item: -item[0].bits)
        for path in (*self._used.values(), *self._unused.values()):
            self._apply(path)

    def get(self, socket: int, address: InetAddress) -> Path:
        key = (socket, address)
        path = self._used.get(key) or self._unused.get(key)
        if path is None:
            path = self._unused[key] = Path(socket, address)
            self._apply(path)
            if len(self._unused) > self._unused_limit:
                self._unused.popitem(last=False)
        return path

    def hold(self, path: Path) -> None:
        """A peer begins to use a path."""
        key = (path.socket, path.address)
        path.users += 1
        self._unused.pop(key, None)
        self._used[key] = path

    def release(self, path: Path) -> bool:
        """A peer stops using a path; true if it was the last one."""
        path.users -= 1
        if path.users:
            return False
        del self._used[path.socket, path.address]
        return True

    def used(self) -> Iterable[Path]:
        return self._used.values()

    def blacklisted(self, ip: bytes) -> bool:
        entry = self._entry(ip)
        return entry is not None and entry.blacklist

    def _entry(self, ip: bytes) -> PhysicalPath | None:
        return next((entry for network, entry in self._physical if network.contains(ip)), None)

    def _apply(self, path: Path) -> None:
        entry = self._entry(path.address.ip) or PhysicalPath()
        path.mtu = min(max(entry.mtu, MIN_MTU), MAX_MTU) if entry.mtu > 0 else DEFAULT_MTU
        path.mtu = path.bond_mtu or path.mtu
        path.trusted_id = entry.trusted_id


class Policy:
    """Whether a physical address may become a path to a peer (ch. 03, 4.2)."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._paths = paths
        self.settings = settings
        self.own_networks: tuple[InetAddress, ...] = ()  # of joined networks' configurations
        self.tap_networks: tuple[InetAddress, ...] = ()  # set on our own TAP devices

    def allows(
        self, address: InetAddress, peer: Address, endpoints: frozenset[bytes] | None = None
    ) -> bool:
        """:param endpoints: the only IPs that lead to this peer, for roots that have such (2.8)."""
        ip = address.ip
        if address.scope not in USABLE_SCOPES or TUNNEL_BROKER.contains(ip) or not address.port:
            return False
        if endpoints and ip not in endpoints:
            return False
        if any(network.contains(ip) for network in (*self.own_networks, *self.tap_networks)):
            return False
        refused = self.settings.blacklist.get(peer, ())
        if any(network.contains(ip) for network in refused):
            return False
        return not self._paths.blacklisted(ip)
