"""When datagrams go through a TCP relay (chapter 03, 8.2). No I/O, no clock.

The chapter's rule for opening a connection, "the previous such send was between 2.5 and 60 s ago",
never holds for a node that sends something every second. Here a connection is tried when it is
not the first such send in a minute, at most every 2.5 s, doubling up to 60 s while it fails.
"""

from typing import NamedTuple

from zt.protocol.inet import InetAddress, Scope
from zt.service.tcprelay.records import MIN_DATAGRAM

SILENCE_MS = 60_000
"""Nothing by UDP from a global address for this long, and as long since start or wake-up."""
RETRY_MS = (2_500, 60_000)
NEVER_MS = -(1 << 62)


class Way(NamedTuple):
    """How a datagram leaves."""

    relay: bool  # through the relay if there is a connection
    connect: bool  # and if there is none, now is the time to open one
    udp: bool


UDP_ONLY = Way(relay=False, connect=False, udp=True)
NOWHERE = Way(relay=False, connect=False, udp=False)


class Fallback:
    """Decides from what was sent and heard. Times are the node's `now_ms`."""

    def __init__(self, now_ms: int, *, allowed: bool, forced: bool) -> None:
        self.allowed = allowed
        self.forced = forced
        """No UDP at all; without `allowed` nothing is sent then."""
        self._started_ms = now_ms
        self._heard_ms = NEVER_MS
        self._wanted_ms = NEVER_MS  # the last datagram that wanted the relay
        self._tried_ms = NEVER_MS
        self._retry_ms = RETRY_MS[0]

    def restarted(self, now_ms: int) -> None:
        """The machine slept, or its network changed: UDP gets another chance."""
        self._started_ms = now_ms

    def heard(self, now_ms: int) -> None:
        """An authentic datagram came by UDP from an address of global scope."""
        self._heard_ms = now_ms

    def connecting(self, now_ms: int) -> None:
        """A connection is being opened."""
        self._tried_ms = now_ms

    def failed(self) -> None:
        """A connection could not be opened, or ended before it carried anything."""
        self._retry_ms = min(self._retry_ms * 2, RETRY_MS[1])

    def succeeded(self) -> None:
        """The relay passed something on to us."""
        self._retry_ms = RETRY_MS[0]

    def way(self, ip: bytes, size: int, now_ms: int) -> Way:
        """The way of a datagram that is about to be sent."""
        if now_ms - self._heard_ms <= SILENCE_MS and not self.forced:
            return UDP_ONLY  # as nearly always
        if (
            not self.engaged(now_ms)
            or len(ip) != 4
            or size < MIN_DATAGRAM
            or InetAddress(ip).scope is not Scope.GLOBAL
        ):
            return NOWHERE if self.forced else UDP_ONLY
        lone = now_ms - self._wanted_ms > SILENCE_MS and not self.forced
        self._wanted_ms = now_ms
        connect = not lone and now_ms - self._tried_ms >= self._retry_ms
        return Way(relay=True, connect=connect, udp=not self.forced)

    def engaged(self, now_ms: int) -> bool:
        """Whether the relay is wanted; a connection that is not wanted any more is to be closed."""
        if not self.allowed:
            return False
        return self.forced or (
            now_ms - self._heard_ms > SILENCE_MS and now_ms - self._started_ms > SILENCE_MS
        )
