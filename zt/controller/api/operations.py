"""The log and its stream, API tokens, backup, and the description of all endpoints."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from zt.controller.api import models
from zt.controller.api.auth import actor, principal
from zt.controller.api.endpoint import Endpoint, Query
from zt.controller.api.extended import V5, body_of, encoded, number_of
from zt.controller.api.http import BadRequest, answer, empty
from zt.controller.controller import Controller
from zt.controller.documents import Document
from zt.controller.logins import LoginRefused
from zt.controller.storage.interface import Event, StoreUnavailable, TokenRow
from zt.controller.tokens import Scope, TooMany
from zt.protocol.address import Address, NetworkId

LOG_DEFAULT, LOG_MOST = 100, 1000
STREAMS_LIMIT = 100
HEARTBEAT_S = 15.0
RETRY_S = 2.0
I64 = (1 << 63) - 1

AFTER = Query("after", {"type": "integer", "minimum": 0}, "only entries with a greater `seq`")
OF = (
    Query("network", {"type": "string", "pattern": "^[0-9a-fA-F]{16}$"}, "only of this network"),
    Query("member", {"type": "string", "pattern": "^[0-9a-fA-F]{10}$"}, "only of this member"),
)


class Operations:
    """Handlers, bound to one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._streams = 0

    def endpoints(self) -> list[Endpoint]:
        read, admin = Scope.READ, Scope.ADMIN
        limit = {"type": "integer", "minimum": 1, "maximum": LOG_MOST, "default": LOG_DEFAULT}
        return [
            Endpoint(
                path=V5 + "/log",
                methods=("GET",),
                scope=read,
                handler=self.log,
                text="Who changed what, and when.",
                answer=models.LogPage,
                query=(AFTER, Query("limit", limit, "entries of one page"), *OF),
                errors=(400, 503),
            ),
            Endpoint(
                path=V5 + "/events",
                methods=("GET",),
                scope=read,
                handler=self.events,
                text=(
                    "The log as server-sent events, from the header Last-Event-ID or `after` on, "
                    "else from now. A `gap` event tells of entries that have been forgotten."
                ),
                media="text/event-stream",
                query=(AFTER, *OF),
                errors=(400, 503),
            ),
            Endpoint(
                path=V5 + "/token",
                methods=("GET",),
                scope=admin,
                handler=self.tokens,
                text="All API tokens.",
                answer=models.TokenList,
            ),
            Endpoint(
                path=V5 + "/token",
                methods=("POST",),
                scope=admin,
                handler=self.create_token,
                text="Make an API token; its secret is shown this once.",
                body=models.NewToken,
                answer=models.Token,
                errors=(400, 503),
            ),
            Endpoint(
                path=V5 + "/token/{id}",
                methods=("DELETE",),
                scope=admin,
                handler=self.delete_token,
                text="Make an API token invalid; answers what it was.",
                answer=models.Token,
                errors=(404, 503),
            ),
            Endpoint(
                path=V5 + "/login",
                methods=("POST",),
                scope=Scope.NETWORK,
                handler=self.log_in,
                text="Somebody has logged in for the member that was given this nonce.",
                body=models.Login,
                answer=models.LoggedIn,
                errors=(400, 404, 503),
            ),
            Endpoint(
                path=V5 + "/backup",
                methods=("GET",),
                scope=admin,
                handler=self.backup,
                text="A consistent copy of everything, as a SQLite file.",
                media="application/vnd.sqlite3",
                errors=(503,),
            ),
        ]

    # The log

    async def log(self, request: Request) -> Response:
        after = number_of(request, "after", 0, 0, I64)
        limit = number_of(request, "limit", LOG_DEFAULT, 1, LOG_MOST)
        events = await self._controller.store.events(after, limit, *_of(request))
        data = [_entry(event) for event in events if _may_see(request, event)]
        return answer({"data": data, "next": events[-1].seq if events else after})

    async def events(self, request: Request) -> Response:
        if self._streams >= STREAMS_LIMIT:
            raise StoreUnavailable("too many streams")
        last = request.headers.get("last-event-id", "")
        if last.isascii() and last.isdigit():
            after = min(int(last[:19]), I64)
        elif "after" in request.query_params:
            after = number_of(request, "after", 0, 0, I64)
        else:
            after = await self._controller.store.last_seq()
        return StreamingResponse(
            self._stream(request, after, *_of(request)),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    async def _stream(
        self, request: Request, after: int, nwid: str, member: str
    ) -> AsyncIterator[bytes]:
        """Read from the store, not from memory: its order is the one that a cursor counts in."""
        self._streams += 1
        try:
            while True:
                changed = self._controller.log_changed
                try:
                    events = await self._controller.store.events(after, LOG_MOST)
                except StoreUnavailable:
                    yield b": the database is not available\n\n"
                    await asyncio.sleep(RETRY_S)
                    continue
                if events and events[0].seq > after + 1:
                    yield b"event: gap\ndata: {}\n\n"
                for event in events:
                    after = event.seq
                    fits = nwid in ("", event.nwid) and member in ("", event.member)
                    if fits and _may_see(request, event):
                        yield b"id: %d\nevent: %s\ndata: %s\n\n" % (
                            event.seq,
                            event.action.encode(),
                            msgspec.json.encode(_entry(event), order="sorted"),
                        )
                if not events:
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            await changed.wait()
                    except TimeoutError:
                        yield b":\n\n"
        finally:
            self._streams -= 1

    # Tokens

    async def tokens(self, request: Request) -> Response:
        rows = self._controller.tokens.list()
        return encoded(models.TokenList(data=[_token(row) for row in rows]))

    async def create_token(self, request: Request) -> Response:
        wanted = await body_of(request, models.NewToken)
        networks = [NetworkId.parse(nwid) for nwid in wanted.networks]
        try:
            row, secret = await self._controller.tokens.create(
                wanted.name, Scope[wanted.scope.upper()], networks, wanted.expires, actor(request)
            )
        except TooMany:
            raise BadRequest("there are too many tokens") from None
        token = _token(row)
        token.secret = secret
        return encoded(token)

    async def delete_token(self, request: Request) -> Response:
        row = await self._controller.tokens.delete(request.path_params["id"], actor(request))
        return empty(404) if row is None else encoded(_token(row))

    # Single sign-on

    async def log_in(self, request: Request) -> Response:
        login = await body_of(request, models.Login)
        try:
            nwid, address = await self._controller.log_in(
                login.nonce, login.state, login.expires, actor(request)
            )
        except LoginRefused as error:
            raise BadRequest(str(error)) from None
        return encoded(models.LoggedIn(network=str(nwid), member=str(address)))

    # Backup

    async def backup(self, request: Request) -> Response:
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="controller-backup-")
        path = os.path.join(folder, "controller.db")

        try:
            await self._controller.store.backup(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FileResponse(
            path,
            media_type="application/vnd.sqlite3",
            filename="controller.db",
            background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
        )


def _of(request: Request) -> tuple[str, str]:
    """Network and member that are asked for; empty: all. Raises BadRequest."""
    network, member = (request.query_params.get(name) for name in ("network", "member"))
    try:
        return (
            "" if network is None else str(NetworkId.parse(network)),
            "" if member is None else str(Address.parse(member)),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _may_see(request: Request, event: Event) -> bool:
    only = principal(request).networks
    return not only or (bool(event.nwid) and NetworkId.parse(event.nwid) in only)


def _entry(event: Event) -> Document:
    return {
        "seq": event.seq,
        "time": event.time_ms,
        "actor": event.actor,
        "action": event.action,
        "network": event.nwid,
        "member": event.member,
        "detail": msgspec.Raw(event.detail),
    }


def _token(row: TokenRow) -> models.Token:
    scope: models.ScopeName = row.scope  # type: ignore[assignment]  # stored by us
    return models.Token(
        id=row.id,
        name=row.name,
        scope=scope,
        networks=msgspec.json.decode(row.networks, type=list[str]),
        created=row.created_ms,
        expires=row.expires_ms,
    )
