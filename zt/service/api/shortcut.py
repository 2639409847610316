"""What monitoring asks all the time, answered where it arrives.

The data plane on the same cores has the better use for the CPU that routing, tasks and parsing
take. So an ordinary GET with a good token is answered as `http.Envelope` would, but at once; a
request of a loopback client that repeats such a one byte for byte is not even parsed (`door.Door`);
and an answer serves everybody who asks within `FRESH_S`, unless something was changed meanwhile.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Scope

REQUESTS_PER_CONNECTION = 5
IDLE_S = 5.0
KEEP_ALIVE = b"timeout=5, max=5"
FRESH_S = 0.05
"""How old what an answer says may be: a poller sees no difference, a crowd of them costs less."""
KNOWN_LIMIT = 64
KNOWN_SIZE = 1024
"""Bytes of the longest request that is remembered."""

PLAIN_HEADERS = frozenset(
    (
        b"x-zt1-auth",
        b"authorization",
        b"host",
        b"user-agent",
        b"accept",
        b"accept-encoding",
        b"connection",
    )
)
"""A request with other headers than these is no ordinary one."""


class ShortCut:
    """GET requests that are answered at once: by path what makes the JSON body, or None when that
    would take long, and who may ask."""

    def __init__(
        self, bodies: Mapping[bytes, Callable[[], bytes | None]], allowed: Callable[[Scope], bool]
    ) -> None:
        self._bodies = bodies
        self._allowed = allowed
        self._recent: dict[bytes, tuple[float, bytes]] = {}
        self._known: dict[bytes, bytes] = {}  # paths by request

    def answer(self, url: bytes, scope: Any, last: bool) -> bytes | None:
        """The whole answer to a GET, the `last` of its connection or not; None: the whole way."""
        if url not in self._bodies or any(n not in PLAIN_HEADERS for n, _ in scope["headers"]):
            return None
        scope["path"], scope["query_string"] = url.decode(), b""
        return self._whole(url, last) if self._allowed(scope) else None

    def remember(self, request: bytes, url: bytes) -> None:
        """A request that `answer` had an answer for, when a client on loopback asked."""
        if len(request) > KNOWN_SIZE:
            return
        if len(self._known) >= KNOWN_LIMIT:
            self._known.clear()
        self._known[request] = url

    def answer_known(self, request: bytes, last: bool) -> bytes | None:
        """The whole answer if what a client on loopback sent was remembered.

        That includes its token: who could find another one that is in the table has the token.
        """
        url = self._known.get(request)
        return None if url is None else self._whole(url, last)

    def forget_answers(self) -> None:
        """To be called after whatever may have changed what they say."""
        self._recent.clear()

    def _whole(self, url: bytes, last: bool) -> bytes | None:
        now = time.monotonic()
        until, body = self._recent.get(url, (0.0, b""))
        if now >= until:
            try:
                made = self._bodies[url]()
            except Exception:  # whatever it is, `Envelope` meets it again and says so
                return None
            if made is None:
                return None
            body = made
            self._recent[url] = (now + FRESH_S, body)
        return (LAST if last else ONE_OF_MANY) % (len(body), body)


LAST = (
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n"
    b"content-type: application/json\r\n\r\n%b"
)
ONE_OF_MANY = (
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
    b"keep-alive: " + KEEP_ALIVE + b"\r\n\r\n%b"
)
