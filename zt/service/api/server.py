"""TCP listeners of the API: a thread answers what it knows (`zt._fast.door`), and uvicorn's
connection handling on our own event loop everything else."""

import asyncio
import socket

from starlette.types import ASGIApp

from zt._fast.door import Caller
from zt.service.api.http import ApiProtocol
from zt.service.api.shortcut import IDLE_S, ShortCut
from zt.service.lean import bare
from zt.service.sockets import API_BACKLOG

with bare("uvicorn"):
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_CONNECTIONS = 512
STOP_S = 1.0


class ApiServer:
    """Serves an ASGI application on sockets that are already bound; it closes them."""

    def __init__(
        self, app: ASGIApp, listeners: list[socket.socket], short_cut: ShortCut | None = None
    ) -> None:
        self._listeners = listeners
        self._short_cut = short_cut or ShortCut({}, lambda scope: False)
        self._door = self._short_cut.door
        self._config = Config(
            app,
            http=ApiProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=int(IDLE_S),
            limit_concurrency=MAX_CONNECTIONS,
        )
        self._state = ServerState()
        self._coming_in: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._config.load()
        for listener in self._listeners:
            listener.setblocking(False)
            # Connections inherit it: the end of an answer does not wait for the client.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.listen(API_BACKLOG)
        asyncio.get_running_loop().add_reader(self._door.event_fd, self._called)
        self._door.start([listener.fileno() for listener in self._listeners])

    def _called(self) -> None:
        """The door wants answers, or hands over callers."""
        self._short_cut.refresh()
        for caller in self._door.callers():
            task = asyncio.ensure_future(self._let_in(caller))
            self._coming_in.add(task)
            task.add_done_callback(self._coming_in.discard)

    async def _let_in(self, caller: Caller) -> None:
        protocol = ApiProtocol(self._config, self._state, {})
        protocol.short_cut = self._short_cut
        protocol.caller = caller
        connection = socket.socket(fileno=caller.fd)
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:  # it is gone
            connection.close()

    async def stop(self) -> None:
        """No new connections; requests that are being answered get a moment to finish."""
        asyncio.get_running_loop().remove_reader(self._door.event_fd)
        self._door.stop()
        for listener in self._listeners:
            listener.close()
        if self._coming_in:
            await asyncio.wait(self._coming_in, timeout=STOP_S)
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=STOP_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
