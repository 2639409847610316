"""Our own addresses as others see them (ch. 03, 6.4), and what to guess from them."""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress, Scope
from zt.vl1.path import Path

MEMORY_MS = 600_000
LIMIT = 512
USELESS = frozenset((Scope.NONE, Scope.MULTICAST, Scope.LOOPBACK))
MAX_GAP = 64
"""A NAT that counts its ports gives out some between two that we see: to others behind it, and to
destinations of ours that cannot tell us. A random one keeps further away."""
REACH = 256
"""How far from what upstreams see an ordinary peer's report is believed to belong to the count."""
GUESSES = 8
"""Ports named at once: as many as a receiver tries per push (ch. 03, 6.3)."""
ROUNDS = 4


class Report(NamedTuple):
    address: InetAddress
    time_ms: int
    since_ms: int  # when this address was reported first
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
        same = old is not None and old.address == seen
        since_ms = old.since_ms if old is not None and same else now_ms
        self._reports[key] = Report(seen, now_ms, since_ms, trusted)
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

    def predictions(self, turn: int = 0) -> list[InetAddress]:
        """Ports that a counting NAT may have given to a flow which its destination cannot confirm.

        Two upstreams that see one socket of ours under one IP but different ports show a NAT with
        a mapping per destination; if all the ports seen are close together, it counts. The mapping
        in question follows them, or lies among them if it was made before the last one seen: even
        turns look ahead, odd ones back (and beyond, where a NAT that counts down would be), each
        further than the one before.
        """
        guesses: list[InetAddress] = []
        for ip in self._translating():
            seen = self._count(ip)
            chunks = _candidates(seen)
            if chunks:
                guesses += (InetAddress(ip, port) for port in chunks[turn % len(chunks)])
        return guesses

    def _translating(self) -> list[bytes]:
        """Our external IPs with a mapping per destination."""
        ports: dict[tuple[int, bytes], set[int]] = {}
        for (_, socket, _, _), report in self._reports.items():
            if report.trusted:
                ports.setdefault((socket, report.address.ip), set()).add(report.address.port)
        return list(dict.fromkeys(ip for (_, ip), seen in ports.items() if len(seen) > 1))

    def _count(self, ip: bytes) -> list[int]:
        """Distinct ports of ours under an IP, in the order in which they were first seen."""
        reports = [r for r in self._reports.values() if r.address.ip == ip]
        trusted = [r.address.port for r in reports if r.trusted]
        low, high = min(trusted) - REACH, max(trusted) + REACH
        reports = [r for r in reports if r.trusted or low <= r.address.port <= high]
        reports.sort(key=lambda r: (r.since_ms, r.address.port))
        return list(dict.fromkeys(r.address.port for r in reports))


def _candidates(seen: list[int]) -> list[list[int]]:
    """Likely ports by turn, given those seen in order; nothing if they do not look counted."""
    ports = sorted(seen)
    gaps = [b - a for a, b in pairwise(ports)]
    if max(gaps) > MAX_GAP:
        return []
    # Flows that began together are reported in any order, so only a clear case counts down.
    down = seen == ports[::-1]
    step = -min(gaps) if down else min(gaps)
    first, last = (ports[-1], ports[0]) if down else (ports[0], ports[-1])
    far = step * GUESSES * ROUNDS
    ahead = range(last + step, last + far + step, step)
    behind = [port for port in range(last, first - far, -step) if port not in ports]
    chunks = []
    for start in range(0, GUESSES * ROUNDS, GUESSES):
        for side in (ahead, behind):
            chunks.append([p for p in side[start : start + GUESSES] if 1024 <= p <= 65535])
    return [chunk for chunk in chunks if chunk]
