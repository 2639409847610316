"""HTTP/1.1 as existing clients of the local API know it (ch. 06, 3.2), on uvicorn's parser.

`ApiProtocol` bounds what a stranger can make us read and answers protocol errors with an empty
body; `Envelope` is the outermost ASGI layer and gives every answer its final headers, JSONP
wrapping and byte ranges. Only server-sent events go out as they come.

What monitoring asks all the time takes a short cut (`shortcut`). Everything else, refusals too,
goes the whole way.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from urllib.parse import parse_qsl

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zt._fast.door import Caller
from zt.service.api.shortcut import IDLE_S, KEEP_ALIVE, REQUESTS_PER_CONNECTION, ShortCut
from zt.service.lean import bare

with bare("uvicorn"):
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

log = logging.getLogger("zt.api")

LINE_LIMIT = 8192
"""Bytes of the request line's target and of one header line."""
HEADERS_LIMIT = 100
"""Header lines of one request."""
FORM_LIMIT = 8192
BODY_LIMIT = 16 << 20

# The phrases of RFC 9110, which Python has from 3.13 on; clients of the original have seen these.
STATUS_LINE.update(
    {
        413: b"HTTP/1.1 413 Payload Too Large\r\n",
        414: b"HTTP/1.1 414 URI Too Long\r\n",
        416: b"HTTP/1.1 416 Range Not Satisfiable\r\n",
    }
)

JSON = b"application/json"
EVENTS = b"text/event-stream"
JAVASCRIPT = b"application/javascript"


class ApiProtocol(HttpToolsProtocol):
    """One connection. A request that is no good HTTP is answered and the connection closed."""

    short_cut: ShortCut | None = None
    caller: Caller | None = None
    """What the door says of the connection, if it comes from there."""
    requests = 0
    """Begun on this connection so far, at the door too."""
    short_url: bytes | None = None
    """Of the request, if all that came so far is one request that the short cut answered."""
    _begun = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal = 400
        self._answered = False  # the current request, by the short cut
        self._served = False  # one in what was just received, likewise
        # A client that never finishes a request head is not waited for.
        self.timeout_keep_alive_task = self.loop.call_later(IDLE_S, self.timeout_keep_alive_handler)
        caller, self.caller = self.caller, None
        if caller is not None:
            self._welcome(caller)

    def _welcome(self, caller: Caller) -> None:
        """What happened at the door comes before whatever the transport reads."""
        self.requests = caller.requests
        if caller.rest:
            self.transport.write(caller.rest)
        if caller.last:
            self.transport.close()
        elif caller.data:
            self.data_received(caller.data)
            if self.short_url is not None and self.short_cut is not None:
                self.short_cut.remember(caller.data, self.short_url)

    def data_received(self, data: bytes) -> None:
        waiting = self.timeout_keep_alive_task
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        served, self._served = self._served, False
        if self.transport.is_closing():
            return
        if served and idle:
            self.timeout_keep_alive_task = self.loop.call_later(
                IDLE_S, self.timeout_keep_alive_handler
            )
        elif idle and waiting is not None:
            # Still inside of a head: the clock goes on, a byte now and then does not reset it.
            self.timeout_keep_alive_task = self.loop.call_at(
                waiting.when(), self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._answered = False
        self.requests += 1
        self._begun += 1
        self.short_url = None
        # Application state of uvicorn's scope; Envelope reads it.
        self.scope["state"]["last"] = self.requests >= REQUESTS_PER_CONNECTION

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > LINE_LIMIT:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) + len(value) + 2 > LINE_LIMIT or len(self.headers) >= HEADERS_LIMIT:
            self._refuse(400)
        super().on_header(name, value.strip())

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(400)
        if self.transport.is_closing():
            self._answered = True  # behind the last request of a connection: never
        if self._answered or self._take_short_cut():
            return
        if not self.url.startswith(b"/") or self.url.startswith(b"//"):
            # Absolute-form targets and double slashes are no path of ours; 404 as any other.
            self.url = b"/" + self.url.replace(b"?", b"/?", 1)
            self.url = re.sub(rb"^/+", b"/-/", self.url)
        super().on_headers_complete()

    def _take_short_cut(self) -> bool:
        """Whether the request is answered already. Earlier ones that wait come first."""
        if (
            self.short_cut is None
            or self.parser.get_method() != b"GET"
            or not (self.cycle is None or self.cycle.response_complete)
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
        ):
            return False
        last = self.scope["state"]["last"]
        answer = self.short_cut.answer(self.url, self.scope, last)
        if answer is None:
            return False
        self.transport.write(answer)
        self._answered = self._served = True
        if last:
            self.transport.close()
        return True

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._answered:
            super().on_message_complete()
        elif self._served and self._begun == 1:
            self.short_url = self.url

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise httptools.HttpParserError(f"refused: {status}")

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for whatever its parser, or a callback above, did not like."""
        self.transport.write(
            STATUS_LINE[self._refusal]
            + b"content-length: 0\r\nkeep-alive: "
            + KEEP_ALIVE
            + b"\r\n\r\n"
        )
        self.transport.close()


class Envelope:
    """Bounds the request body, and gives answers their envelope. `answered` is called when one is
    there, before it is sent."""

    def __init__(self, app: ASGIApp, answered: Callable[[], None] = lambda: None) -> None:
        self.app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        collector = _Collector(send)
        status, headers, body = await self._answer(scope, receive, collector)
        self._answered()
        if collector.streaming:
            return
        query = dict(reversed(parse_qsl(scope["query_string"].decode("latin-1"), True)))
        kind = headers.get(b"content-type")
        if kind is not None and kind.startswith(JSON):
            headers[b"content-type"] = JSON
            if "jsonp" in query:
                callback = query["jsonp"].encode("utf-8", "replace")
                body = callback + b"(" + (body or b"null") + b");"
                headers[b"content-type"] = JAVASCRIPT
            elif not body:
                body = b"{}"
        if scope["method"] == "HEAD":
            if status == 200:
                headers[b"accept-ranges"] = b"bytes"
        elif status == 200:
            wanted = next((v for k, v in scope["headers"] if k == b"range"), None)
            if wanted is not None:
                status, body = _cut(wanted, body, headers)
        headers[b"content-length"] = str(len(body)).encode()
        asked = [v.lower() for k, v in scope["headers"] if k == b"connection"]
        if scope["state"].get("last") or b"close" in asked:
            headers[b"connection"] = b"close"
        else:
            headers[b"keep-alive"] = KEEP_ALIVE
        await send(
            {"type": "http.response.start", "status": status, "headers": sorted(headers.items())}
        )
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, receive: Receive, collector: "_Collector"
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        if scope["method"] == "TRACE":
            return 400, {}, b""
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        kind = next((v for k, v in scope["headers"] if k == b"content-type"), b"")
        form = kind.lower().startswith(b"application/x-www-form-urlencoded")
        if int(length) > (FORM_LIMIT if form else BODY_LIMIT):
            return 413, {}, b""
        received = 0
        complete = False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # the client goes away, whenever that is
            message = await asyncio.wait_for(receive(), IDLE_S)
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                raise BodyTooLarge
            complete = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, bounded, collector)
        except BodyTooLarge:
            return 413, {}, b""
        except TimeoutError:
            return 408, {b"connection": b"close"}, b""
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            return 500, {b"content-type": JSON}, failure("internal error")
        return collector.status, collector.headers, b"".join(collector.chunks)


class _Collector:
    """Keeps an answer until it is complete; one of events is passed on piece by piece.

    Whoever makes event streams bounds their number. A connection ends with its stream.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.streaming = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message.get("headers", []))
            self.streaming = self.headers.get(b"content-type", b"").startswith(EVENTS)
            if self.streaming:
                headers = sorted({**self.headers, b"connection": b"close"}.items())
                await self._send({**message, "headers": headers})
        elif self.streaming:
            await self._send(message)
        else:
            self.chunks.append(bytes(message.get("body", b"")))


def failure(description: str) -> bytes:
    """The body of a 500; spacing as recorded (ch. 06, 3.13)."""
    return json.dumps({"error": 500, "description": description}, ensure_ascii=False).encode()


class BodyTooLarge(Exception):
    """A request body without a declared length grew beyond the limit."""


_RANGE = re.compile(rb"bytes=(\d{0,19})-(\d{0,19})")


def _cut(wanted: bytes, body: bytes, headers: dict[bytes, bytes]) -> tuple[int, bytes]:
    """One byte range of a 200 answer: 206, or 416.

    An answer that has no such bytes keeps its type, and one to a range that makes no sense has
    none, as recorded.
    """
    match = _RANGE.fullmatch(wanted.strip())
    total = len(body)
    if match is not None and any(match.groups()):
        first, last = match.groups()
        begin = int(first) if first else max(total - int(last), 0)
        end = min(int(last) if first and last else total - 1, total - 1)
        if begin <= end:
            headers[b"content-range"] = b"bytes %d-%d/%d" % (begin, end, total)
            return 206, body[begin : end + 1]
        if not (first and last and int(last) < int(first)):
            return 416, b""
    headers.pop(b"content-type", None)
    return 416, b""
