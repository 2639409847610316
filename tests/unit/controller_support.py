"""What the controller's tests share: a recording link, a controller on SQLite, an HTTP client."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from zt.controller import Controller, Settings, open_store
from zt.controller.api import routes
from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Revocation
from zt.protocol.identity import Identity
from zt.protocol.packet import ErrorCode


class Sent(NamedTuple):
    """Something that went to a member: chunks, an error, or revocations."""

    member: Address
    nwid: NetworkId
    chunks: Sequence[bytes] = ()
    request_id: int | None = None
    error: ErrorCode | None = None
    data: bytes = b""
    revocations: Sequence[Revocation] = ()


class RecordingLink:
    """A `MemberLink` that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._arrived = asyncio.Event()

    def _add(self, sent: Sent) -> None:
        self.sent.append(sent)
        self._arrived.set()

    def send_config(
        self, member: Address, nwid: NetworkId, chunks: Sequence[bytes], request_id: int | None
    ) -> None:
        self._add(Sent(member, nwid, chunks=chunks, request_id=request_id))

    def send_config_error(
        self, member: Address, nwid: NetworkId, request_id: int, code: ErrorCode, data: bytes
    ) -> None:
        self._add(Sent(member, nwid, request_id=request_id, error=code, data=data))

    def send_revocation(
        self, member: Address, nwid: NetworkId, revocations: Sequence[Revocation]
    ) -> None:
        self._add(Sent(member, nwid, revocations=revocations))

    async def wait(self, wanted: Callable[[Sent], bool], count: int = 1) -> list[Sent]:
        """All that match, once there are that many; fails after a minute."""
        async with asyncio.timeout(60):
            while len(found := [sent for sent in self.sent if wanted(sent)]) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return found


class Clock:
    """A clock that tests move."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now = now_ms

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def running(
    identity: Identity,
    home: Path,
    *,
    location: str = "",
    link: RecordingLink | None = None,
    clock: Callable[[], int] | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Controller]:
    """A started controller, by default on a SQLite file in `home`."""
    store = open_store(location, home, str(identity.address))
    options: dict[str, Any] = {"random": random.Random(1).randbytes}
    if clock is not None:
        options["now_ms"] = clock
    if settings is not None:
        options["settings"] = settings
    controller = Controller(identity, store, link or RecordingLink(), **options)
    await controller.start()
    try:
        yield controller
    finally:
        await controller.stop()


async def _no_route(request: Any, error: Exception) -> Response:
    return Response(status_code=404)


def client(controller: Controller) -> httpx.AsyncClient:
    """Speaks to the API of a controller without a network, a server or authentication."""
    app = Starlette(routes=routes(controller), exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://controller")
