"""TCP listeners of the API, served by uvicorn's connection handling on our own event loop."""

import asyncio
import errno
import socket

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from zt.service.api.http import IDLE_S, ApiProtocol

BACKLOG = 64
MAX_CONNECTIONS = 512
STOP_S = 1.0


def bind_api(port: int) -> list[socket.socket]:
    """Listening sockets on the IPv4 and the IPv6 wildcard; one of them is enough.

    Access is decided per request (ch. 06, 3.3), so that `allowManagementFrom` can change live.
    """
    listeners: list[socket.socket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            continue  # a kernel without that family
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("", port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                for other in listeners:
                    other.close()
                return []
            continue
        listeners.append(listener)
    return listeners


class ApiServer:
    """Serves an ASGI application on sockets that are already bound."""

    def __init__(self, app: ASGIApp, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
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

    async def start(self) -> None:
        self._config.load()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            server = await loop.create_server(
                lambda: ApiProtocol(self._config, self._state, {}), sock=listener, backlog=BACKLOG
            )
            self._servers.append(server)

    async def stop(self) -> None:
        """No new connections; requests that are being answered get a moment to finish."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=STOP_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
