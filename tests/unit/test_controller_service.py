"""The whole recording of the classic API, through the service's HTTP: every exchange, as bytes."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tests.unit.controller_support import running
from tests.unit.test_controller_http import Exchanger, Got, Headers, Replay
from zt.controller import Controller
from zt.controller.api import routes
from zt.protocol.identity import Identity
from zt.service.api.auth import Authentication
from zt.service.api.http import Envelope
from zt.service.api.server import ApiServer

OF_THE_SERVICE = ("/status", "/peer")
"""Paths of the recording that the controller does not answer."""


async def no_route(request: Request, error: Exception) -> Response:
    return Response(status_code=404)


def served(controller: Controller, variables: dict[str, str], listener: socket.socket) -> ApiServer:
    app = Starlette(routes=routes(controller), exception_handlers={HTTPException: no_route})
    app.router.redirect_slashes = False
    tokens = variables["token"], variables["mtoken"]
    return ApiServer(Envelope(Authentication(app, *tokens, lambda: ())), [listener])


def over(address: tuple[str, int]) -> Exchanger:
    """One connection per exchange, with nothing between the recording and the wire."""

    async def send(request: dict[str, Any], path: str, headers: Headers, body: bytes) -> Got:
        reader, writer = await asyncio.open_connection(*address)
        names = {name.lower() for name, _ in headers}
        lines = [f"{request['method']} {path} {request['http_version']}", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers]
        if request.get("chunked"):
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif body or request["method"] in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if "expect" in names:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(body)
        try:
            return await answer(reader, request["method"])
        finally:
            writer.close()

    return send


async def answer(reader: asyncio.StreamReader, method: str) -> Got:
    async with asyncio.timeout(20):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines if line)
        }
        size = 0 if method == "HEAD" else int(headers["content-length"])
        return Got(int(status.split()[1]), headers, await reader.readexactly(size))


def test_every_recorded_exchange(vectors: Callable[[str], Any], tmp_path: Path) -> None:
    recording = vectors("controller_http.json")
    meta = recording["meta"]

    async def play() -> None:
        identity = Identity.parse(meta["controller_identity_secret"])
        listener = socket.create_server(("127.0.0.1", 0))
        async with running(identity, tmp_path) as controller:
            server = served(controller, meta["variables"], listener)
            await server.start()
            try:
                session = Replay(recording, over(listener.getsockname()))
                for entry in recording["entries"]:
                    if not entry["request"]["path"].startswith(OF_THE_SERVICE):
                        await session.exchange(entry)
            finally:
                await server.stop()

    asyncio.run(play())
