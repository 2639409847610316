"""Who may ask what (ch. 06, 3.3): client address, then token, before any routing.

Two things are ours: tokens of the controller, which open its paths alone and bring a principal
whose scope the routes check; and the refusal of what a web page of some other site asks for.
"""

import asyncio
import hmac
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from zt.controller.api.auth import PRINCIPAL
from zt.controller.tokens import Principal
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress, parse_ip
from zt.protocol.inet import Scope as InetScope

BURST = 10
"""Wrong tokens answered at once; after that each waits its turn, one per `DELAY_S`."""
DELAY_S = 0.5
CONTROLLER = "/controller"
MAPPED = bytes(10) + b"\xff\xff"

UNAUTHORIZED = (
    {
        "type": "http.response.start",
        "status": 401,
        "headers": [(b"content-type", b"application/json")],
    },
    {"type": "http.response.body", "body": b"{}"},
)


class Authentication:
    """ASGI middleware. `management` gives the networks that may ask besides loopback, `principal`
    who holds a token of the controller."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        metrics_token: str,
        management: Callable[[], Sequence[InetAddress]],
        principal: Callable[[str], Principal | None] = lambda token: None,
    ) -> None:
        self.app = app
        self._token = token.encode()
        self._metrics_token = metrics_token.encode()
        self._management = management
        self._principal = principal
        self._next_failure = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.allowed(scope):
            await self.app(scope, receive, send)
            return
        await self._pause()
        for message in UNAUTHORIZED:
            await send(message)

    def allowed(self, scope: Scope) -> bool:
        """A token of the controller leaves its principal in the scope."""
        path = scope["path"]
        if not _same_site(scope):
            return False
        if path == "/metrics":
            # From any address: scrapers are elsewhere (Q6).
            presented = _presented(scope)
            good = self._is(presented, self._token)
            return self._is(presented, self._metrics_token) or good
        if not self._address_allowed(scope["client"]):
            return False
        if path in ("/health", "/sso") or path.startswith("/app"):
            return True
        presented = _presented(scope)
        if self._is(presented, self._token):
            return True
        if presented is None or not f"{path}/".startswith(f"{CONTROLLER}/"):
            return False
        principal = self._principal(presented.decode("latin-1"))
        if principal is not None:
            scope[PRINCIPAL] = principal
        return principal is not None

    def _address_allowed(self, client: tuple[str, int] | None) -> bool:
        if client is None:
            return False
        ip, loopback = _client(client[0])
        return loopback or any(network.contains(ip) for network in self._management())

    @staticmethod
    def _is(presented: bytes | None, token: bytes) -> bool:
        return presented is not None and hmac.compare_digest(presented, token)

    async def _pause(self) -> None:
        """Slow down guessing without ever delaying somebody with the right token."""
        now = time.monotonic()
        self._next_failure = max(self._next_failure, now - BURST * DELAY_S) + DELAY_S
        if self._next_failure > now:
            await asyncio.sleep(min(self._next_failure - now, 5.0))


@lru_cache(256)
def _client(host: str) -> tuple[bytes, bool]:
    """The IP of a client, and whether it is this host's loopback."""
    try:
        ip = parse_ip(host.partition("%")[0])
    except DecodeError:
        return b"", False
    if ip[:12] == MAPPED:
        ip = ip[12:]
    return ip, InetAddress(ip).scope is InetScope.LOOPBACK


def _presented(scope: Scope) -> bytes | None:
    """The token a request shows; of three places the first that is present decides."""
    headers = scope["headers"]
    header = next((value for name, value in headers if name == b"x-zt1-auth"), None)
    if header is not None:
        return bytes(header)
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), True):
        if name == "auth":
            return str(value).encode("utf-8", "surrogateescape")
    authorization = next((value for name, value in headers if name == b"authorization"), None)
    if authorization is not None:
        words = bytes(authorization).split()
        if len(words) == 2 and words[0].lower() == b"bearer":
            return bytes(words[1])
        return b""
    return None


def _same_site(scope: Scope) -> bool:
    """False for what a browser sends for a page that is not from here.

    Only browsers send `Origin`, and pages cannot change it. It has to be the host that is asked,
    and that an address or `localhost`: any other name may have been pointed here by the page's
    owner (DNS rebinding). Without an origin every host is good, as recorded: programs use names of
    their own.
    """
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if not origins:
        return True
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").lower()
    if [origin.lower() for origin in origins] != [b"http://" + host]:
        return False
    try:
        name = urlsplit("//" + host.decode("latin-1")).hostname or ""
        if name != "localhost":
            parse_ip(name)
    except (DecodeError, ValueError):
        return False
    return True
