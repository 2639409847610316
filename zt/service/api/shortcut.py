"""What monitoring asks all the time, answered where it arrives.

The data plane on the same cores has the better use for the CPU that routing, tasks and parsing
take. So an ordinary GET with a good token is answered as `http.Envelope` would, but at once; a
request of a loopback client that repeats such a one byte for byte is answered by the door's thread
(`zt._fast.door`), without being parsed and without the interpreter; and an answer serves everybody
who asks within `FRESH_S`, unless something was changed meanwhile. It is made when somebody asks
for it: a node that is not asked does nothing.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Scope

from zt._fast.door import Door

REQUESTS_PER_CONNECTION = 5
IDLE_S = 5.0
KEEP_ALIVE = b"timeout=5, max=5"
FRESH_S = 0.05
"""How old what an answer says may be: a poller sees no difference, a crowd of them costs less."""

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
        self._recent: dict[bytes, tuple[float, tuple[bytes, bytes] | None]] = {}
        self._paths = list(bodies)  # as the door counts them
        self.door = Door(len(bodies), idle_s=IDLE_S, requests=REQUESTS_PER_CONNECTION)

    def answer(self, url: bytes, scope: Any, last: bool) -> bytes | None:
        """The whole answer to a GET, the `last` of its connection or not; None: the whole way."""
        if url not in self._bodies or any(n not in PLAIN_HEADERS for n, _ in scope["headers"]):
            return None
        scope["path"], scope["query_string"] = url.decode(), b""
        if not self._allowed(scope):
            return None
        until, answers = self._recent.get(url, (0.0, None))
        if answers is None or time.monotonic() >= until:
            answers = self._make(url)
        return None if answers is None else answers[last]

    def remember(self, request: bytes, url: bytes) -> None:
        """A request that `answer` had an answer for, when a client on loopback asked.

        That includes its token: who could find another one that the door knows has the token.
        """
        self.door.remember(request, self._paths.index(url))

    def refresh(self) -> None:
        """Makes what somebody at the door waits for."""
        for path in self.door.wanted():
            self._make(self._paths[path])

    def forget_answers(self) -> None:
        """To be called after whatever may have changed what they say."""
        self._recent.clear()
        self.door.forget()

    def _make(self, url: bytes) -> tuple[bytes, bytes] | None:
        """The ordinary answer and the last of a connection, for the door too."""
        until = time.monotonic() + FRESH_S
        try:
            body = self._bodies[url]()
        except Exception:  # whatever it is, `Envelope` meets it again and says so
            body = None
        answers = None
        if body is not None:
            answers = ONE_OF_MANY % (len(body), body), LAST % (len(body), body)
        self._recent[url] = until, answers
        self.door.publish(self._paths.index(url), answers, until)
        return answers


LAST = (
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n"
    b"content-type: application/json\r\n\r\n%b"
)
ONE_OF_MANY = (
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
    b"keep-alive: " + KEEP_ALIVE + b"\r\n\r\n%b"
)
