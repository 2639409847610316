"""Our own addresses as others see them (ch. 03, 6.4), and what to guess from them."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress, Scope
from zt.vl1.path import Path

MEMORY_MS = 600_000
LIMIT = 512
USELESS = frozenset((Scope.NONE, Scope.MULTICAST, Scope.LOOPBACK))
MAX_STRIDE = 16
"""A NAT that gives each new destination a port this far behind the last one is predictable."""
PREDICTIONS = 4


@dataclass(frozen=True, slots=True)
class Report:
    address: InetAddress
    time_ms: int
    trusted: bool


class Surface:
    """Reports of our external address, by (reporter, socket, reporter's address, scope).

    Bounded to `LIMIT` reports, the oldest goes first.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[Address, int, InetAddress, Scope], Report] = OrderedDict()

    def report(
        self, reporter: Address, path: Path, seen: InetAddress, trusted: bool, now_ms: int
    ) -> bool:
        """Notes what a peer says; true if our address changed, so that paths must be checked.

        :param path: the path on which it was said.
        :param trusted: the reporter is an upstream.
        """
        scope = seen.scope
        if scope in USELESS or scope != path.address.scope:
            return False
        key = (reporter, path.socket, path.address, scope)
        old = self._reports.pop(key, None)
        self._reports[key] = Report(seen, now_ms, trusted)
        if len(self._reports) > LIMIT:
            self._reports.popitem(last=False)
        if not (trusted and old and now_ms - old.time_ms < MEMORY_MS and old.address.ip != seen.ip):
            return False
        stale = [k for k in self._reports if k[3] == scope and k[2] != path.address]
        for k in stale:
            del self._reports[k]
        return True

    def expire(self, now_ms: int) -> None:
        for key in [k for k, r in self._reports.items() if now_ms - r.time_ms >= MEMORY_MS]:
            del self._reports[key]

    def clear(self) -> None:
        """The local addresses changed, so nothing reported before counts."""
        self._reports.clear()

    def addresses(self) -> list[InetAddress]:
        """Distinct external addresses, each seen by an upstream or by two peers."""
        witnesses: dict[InetAddress, set[Address]] = {}
        trusted = set()
        for (reporter, *_), report in self._reports.items():
            witnesses.setdefault(report.address, set()).add(reporter)
            if report.trusted:
                trusted.add(report.address)
        return [a for a, reporters in witnesses.items() if a in trusted or len(reporters) > 1]

    def predictions(self) -> list[InetAddress]:
        """Where a NAT that counts its ports up or down will probably put our next flow.

        Two upstreams that see one socket of ours under one IP but different ports show a NAT with
        a mapping per destination; if the ports are close together, the next ones continue them.
        """
        ports: dict[tuple[int, bytes], list[tuple[int, int]]] = {}
        for (_, socket, _, _), report in self._reports.items():
            if report.trusted:
                seen = ports.setdefault((socket, report.address.ip), [])
                seen.append((report.time_ms, report.address.port))
        guesses: list[InetAddress] = []
        for (_, ip), seen in ports.items():
            guesses += (InetAddress(ip, port) for port in _continued(seen))
        return list(dict.fromkeys(guesses))


def _continued(seen: list[tuple[int, int]]) -> Iterable[int]:
    """The ports that would follow, given (time, port) of those seen."""
    in_order = list(dict.fromkeys(port for _, port in sorted(seen)))
    if len(in_order) < 2:
        return ()
    ports = sorted(in_order)
    strides = [b - a for a, b in pairwise(ports)]
    if max(strides) > MAX_STRIDE:
        return ()
    stride = min(strides)
    start, step = (ports[-1], stride) if in_order[-1] >= in_order[0] else (ports[0], -stride)
    guesses = (start + step * i for i in range(1, PREDICTIONS + 1))
    return (port for port in guesses if 1024 <= port <= 65535)
