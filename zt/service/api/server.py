"""TCP listeners of the API, served by uvicorn's connection handling on our own event loop."""

import asyncio
import socket

from starlette.types import ASGIApp

from zt.service.api.door import Door
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
    """Serves an ASGI application on sockets that are already bound."""

    def __init__(
        self, app: ASGIApp, listeners: list[socket.socket], short_cut: ShortCut | None = None
    ) -> None:
        self._listeners = listeners
        self._short_cut = short_cut
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
        self._servers: list[asyncio.Server] = []
        self._doors: set[Door] = set()

    async def start(self) -> None:
        self._config.load()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            server = await loop.create_server(
                self._connection,
                sock=listener,
                backlog=API_BACKLOG,
            )
            self._servers.append(server)

    def _connection(self) -> asyncio.Protocol:
        if self._short_cut is None:
            return self._inside()
        return Door(self._short_cut, self._doors, self._inside)

    def _inside(self) -> ApiProtocol:
        protocol = ApiProtocol(self._config, self._state, {})
        protocol.short_cut = self._short_cut
        return protocol

    async def stop(self) -> None:
        """No new connections; requests that are being answered get a moment to finish."""
        for server in self._servers:
            server.close()
        for door in list(self._doors):
            door.transport.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=STOP_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
