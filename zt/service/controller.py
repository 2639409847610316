"""The controller inside of the service: started with it, asked by the node, mounted in the API."""

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from zt.vl1.actions import ConfigRequest, RemoteTrace

if TYPE_CHECKING:
    from zt.service.daemon import Daemon


class ControllerHost:
    """Gives the controller its identity, its storage and a way to send, and takes its routes."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def routes(self) -> list[BaseRoute]:
        return []

    def request(self, request: ConfigRequest) -> None: ...

    def remote_trace(self, trace: RemoteTrace) -> None: ...
