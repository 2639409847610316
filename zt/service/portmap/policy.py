"""When to ask the router for what (chapter 03, 6.7). No I/O, no clock.

    FindGateway ──► AskAddress ──► Map by NAT-PMP ─┐      Map by UPnP ◄── Discover
       ▲   │ UPnP worked last        or by PCP     ├─►──────┘               ▲
       │   └──────────────────────────────┼────────┼────────────────────────┘
       │                                  │        │ any failure of NAT-PMP and PCP
    Sleep ◄── 300 s, or half its lifetime ┴────────┘
          ◄── 0.5 s, doubling up to 30 s: no gateway, or UPnP failed as well

The driver carries out `step` and reports with `done`; that leads to the next step.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from zt.protocol.inet import InetAddress, Scope
from zt.service.portmap.messages import Mapping, Refusal

LIFETIME_S = 600
RENEW_MS = 300_000
MIN_RENEW_MS = 30_000
RETRY_MS = (500, 30_000)
TRIES = 60
TRY_SPACING_MS = 1000
WRAP_TO_PORT = 1025
UNUSABLE = frozenset((Scope.NONE, Scope.MULTICAST, Scope.LOOPBACK, Scope.LINK_LOCAL))


class Method(Enum):
    NAT_PMP = "NAT-PMP"
    PCP = "PCP"
    UPNP = "UPnP"


# --- steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindGateway:
    """Look for the default route. Done: True if there is one."""


@dataclass(frozen=True, slots=True)
class AskAddress:
    """Ask the gateway for its external address by NAT-PMP. Done: the IP, a Refusal or None."""


@dataclass(frozen=True, slots=True)
class Discover:
    """Find an Internet gateway device by UPnP. Done: its external IP or None."""


@dataclass(frozen=True, slots=True)
class Map:
    """Ask for an external port. Done: a Mapping, a Refusal or None."""

    method: Method
    port: int


@dataclass(frozen=True, slots=True)
class Sleep:
    """Nothing before this instant."""

    until_ms: int
    then: "Step"


Step: TypeAlias = FindGateway | AskAddress | Discover | Map | Sleep
Outcome: TypeAlias = bool | bytes | Mapping | Refusal | None
"""None: no answer in time, or one that could not be understood."""


class Policy:
    """Obtains one mapping and keeps it: `external` is it, None while there is none."""

    def __init__(self, port: int) -> None:
        """:param port: our local UDP port."""
        self.port = port
        self.step: Step = FindGateway()
        self.external: InetAddress | None = None
        self.method: Method | None = None  # of `external`
        self.problem = ""
        """Why there is no mapping, in words for an operator."""
        self._upnp = False
        self._retry_ms = RETRY_MS[0]
        self._ip = b""
        self._tries = 0

    def restart(self) -> None:
        """The network changed: begin again, as if nothing was known about the router."""
        self._upnp = False
        self._retry_ms = RETRY_MS[0]
        self.step = FindGateway()

    def done(self, outcome: Outcome, now_ms: int) -> None:
        """The step was carried out; `step` is the next one then."""
        step = self.step
        if isinstance(step, Sleep):
            if now_ms >= step.until_ms:
                self.step = step.then
        elif isinstance(step, FindGateway):
            self._found(bool(outcome), now_ms)
        elif isinstance(step, AskAddress):
            self._address(outcome)
        elif isinstance(step, Discover):
            self._discovered(outcome, now_ms)
        else:
            self._answered(step, outcome, now_ms)

    def _found(self, found: bool, now_ms: int) -> None:
        if not found:
            self._fail("no default route", now_ms)
        else:
            self.step = Discover() if self._upnp else AskAddress()

    def _address(self, outcome: Outcome) -> None:
        self._tries = 0
        if isinstance(outcome, bytes) and _usable(outcome):
            self._ip = outcome
            self.step = Map(Method.NAT_PMP, self._candidate())
        elif outcome is Refusal.UNSUPPORTED_VERSION:
            self.step = Map(Method.PCP, self._candidate())
        else:
            self.step = Discover()

    def _discovered(self, outcome: Outcome, now_ms: int) -> None:
        self._tries = 0
        if isinstance(outcome, bytes) and _usable(outcome):
            self._ip = outcome
            self.step = Map(Method.UPNP, self._candidate())
        else:
            self._fail("the router offers neither NAT-PMP, PCP nor UPnP", now_ms)

    def _answered(self, step: Map, outcome: Outcome, now_ms: int) -> None:
        if isinstance(outcome, Mapping) and outcome.lifetime_s:
            ip, port = outcome.external
            if _usable(ip or self._ip):
                self._succeed(step.method, InetAddress(ip or self._ip, port), outcome, now_ms)
                return
        self._tries += 1
        again = Map(step.method, self._candidate())
        if step.method is Method.UPNP:
            if isinstance(outcome, Refusal) and self._tries < TRIES:
                self.step = Sleep(now_ms + TRY_SPACING_MS, again)
            else:
                self._fail("the router maps no port for us", now_ms)
        elif outcome is Refusal.EXHAUSTED and self._tries < TRIES:
            self.step = again
        else:
            self.step = Discover()

    def _succeed(
        self, method: Method, external: InetAddress, mapping: Mapping, now_ms: int
    ) -> None:
        self.external, self.method, self.problem = external, method, ""
        self._upnp = method is Method.UPNP
        self._retry_ms = RETRY_MS[0]
        # A gateway may grant less than was asked for, and may say anything.
        renew_ms = min(max(mapping.lifetime_s * 500, MIN_RENEW_MS), RENEW_MS)
        self.step = Sleep(now_ms + renew_ms, FindGateway())

    def _fail(self, problem: str, now_ms: int) -> None:
        self.external = self.method = None
        self.problem = problem
        self._upnp = False
        self.step = Sleep(now_ms + self._retry_ms, FindGateway())
        self._retry_ms = min(self._retry_ms * 2, RETRY_MS[1])

    def _candidate(self) -> int:
        """The external port to ask for: the one we have, or the local one; then those above."""
        first = self.external.port if self.external else self.port
        port = first + self._tries
        return port if port <= 65535 else port - 65536 + WRAP_TO_PORT


def _usable(ip: bytes) -> bool:
    return InetAddress(ip).scope not in UNUSABLE
