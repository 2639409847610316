"""The controller's routes through the service's HTTP: the whole recording of the classic API, every
exchange, as bytes; the controller's own tokens; and its event stream."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tests.unit.controller_support import client, running
from tests.unit.test_controller_http import Exchanger, Got, Headers, Replay
from zt.controller import Controller
from zt.controller.api import routes
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import RequestMetadata
from zt.service.api.auth import Authentication
from zt.service.api.http import Envelope
from zt.service.api.server import ApiServer
from zt.service.controller import ControllerHost
from zt.service.home import Home
from zt.service.metrics import CONTROLLER
from zt.vl1.actions import ConfigRequest

OF_THE_SERVICE = ("/status", "/peer")
"""Paths of the recording that the controller does not answer."""


async def no_route(request: Request, error: Exception) -> Response:
    return Response(status_code=404)


def served(controller: Controller, variables: dict[str, str], listener: socket.socket) -> ApiServer:
    app = Starlette(routes=routes(controller), exception_handlers={HTTPException: no_route})
    app.router.redirect_slashes = False
    tokens = variables["token"], variables["mtoken"]
    return ApiServer(
        Envelope(Authentication(app, *tokens, lambda: (), controller.authenticate)), [listener]
    )


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
    async with asyncio.timeout(60):
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


V5 = "/controller/v5"
TOKENS = {"token": "a" * 24, "mtoken": "m" * 24}
OURS = {"X-ZT1-Auth": TOKENS["token"]}


@asynccontextmanager
async def service(identity: Identity, home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a controller behind the service's HTTP; it shows no token by itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    async with running(identity, home) as controller:
        server = served(controller, TOKENS, listener)
        await server.start()
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, timeout=60) as http:
                yield http
        finally:
            await server.stop()


async def token(http: httpx.AsyncClient, **body: Any) -> str:
    made = await http.post(f"{V5}/token", json=body, headers=OURS)
    assert made.status_code == 200, made.text
    return str(made.json()["secret"])


def test_tokens_of_the_controller(identity: Identity, tmp_path: Path) -> None:
    """In each place where a token may stand; with its scope, and for the controller's paths."""

    async def story() -> None:
        async with service(identity, tmp_path) as http:
            created = await http.post("/controller/network", json={}, headers=OURS)
            network = f"/controller/network/{created.json()['id']}"
            reader = await token(http, name="reader", scope="read")
            writer = await token(http, name="writer", scope="network")
            for form in (
                {"headers": {"X-ZT1-Auth": reader}},
                {"headers": {"Authorization": f"Bearer {reader}"}},
                {"params": {"auth": reader}},
            ):
                assert (await http.get(network, **form)).status_code == 200
                assert (await http.post(network, json={}, **form)).status_code == 401
                for path in ("/status", "/network", "/metrics", "/controllers", "/nothing"):
                    assert (await http.get(path, **form)).status_code == 401, path
            changing = {"Authorization": f"bearer {writer}"}
            changed = await http.post(network, json={"name": "x"}, headers=changing)
            assert changed.json()["name"] == "x"
            assert (await http.get(f"{V5}/token", headers=changing)).status_code == 401
            assert (await http.get(f"{V5}/token", headers=OURS)).status_code == 200
            # The first that is present decides.
            both = {"X-ZT1-Auth": "wrong", "Authorization": f"Bearer {writer}"}
            assert (await http.get(network, headers=both)).status_code == 401
            log = (await http.get(f"{V5}/log", headers=OURS)).json()["data"]
            assert log[-1]["actor"] == "token:writer"

    asyncio.run(story())


def test_events_come_as_they_happen(
    identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time to read a request is over while the stream goes on; a second one is too many."""
    monkeypatch.setattr("zt.service.api.http.IDLE_S", 0.1)
    monkeypatch.setattr("zt.controller.api.operations.HEARTBEAT_S", 0.3)
    monkeypatch.setattr("zt.controller.api.operations.STREAMS_LIMIT", 1)

    async def story() -> None:
        async with service(identity, tmp_path) as http:
            events = f"{V5}/events"
            async with http.stream("GET", events, headers=OURS) as answer, asyncio.timeout(60):
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                lines = answer.aiter_lines()
                # After more than `IDLE_S` of silence.
                assert await anext(lines) == ":"
                await http.post("/controller/network", json={"name": "x"}, headers=OURS)
                async for line in lines:
                    if line.startswith("data: "):
                        break
                assert json.loads(line[6:])["actor"] == "local"
                assert (await http.get(events, headers=OURS)).status_code == 503
            # The place is free again once the client has gone.
            async with asyncio.timeout(60):
                while True:
                    async with http.stream("GET", events, headers=OURS) as again:
                        if again.status_code == 200:
                            break

    asyncio.run(story())


def test_what_metrics_tell(identity: Identity, tmp_path: Path) -> None:
    """The controller's families, among them the lookups that originals count (ch. 06, 10.3)."""
    nwid = NetworkId(identity.address << 24 | 1)
    member = Identity(Address(0x1000000001), bytes(64))

    async def play() -> None:
        daemon: Any = SimpleNamespace(
            home=Home(tmp_path),
            conf=SimpleNamespace(controller_db=None, sso_redirect_url=""),
            identity=identity,
            clock=SimpleNamespace(now_ms=lambda: 1_800_000_000_000),
            node=SimpleNamespace(send_config_error=lambda *refusal: refused.set()),
            drain=lambda: None,
        )
        refused = asyncio.Event()
        host = ControllerHost(daemon)
        await host.start()
        http = client(host.controller)
        for method, path, body in (
            ("PUT", f"/{nwid}", {}),
            ("GET", "", None),
            ("GET", f"/{nwid}", None),
            ("GET", f"/{nwid}/member", None),
            ("PUT", f"/{nwid}/member/1122334455", {"authorized": True}),
            ("PUT", f"/{nwid}/member/1122334455", {"authorized": False}),
        ):
            answer = await http.request(method, f"/controller/network{path}", json=body)
            assert answer.status_code == 200
        metadata = RequestMetadata.own("linux/x86_64").encode()
        host.request(ConfigRequest(nwid, member, metadata, None, 7))
        assert host.metrics()["controller_network_config_request_queue"] == 1
        await asyncio.wait_for(refused.wait(), 20)
        values = host.metrics()
        await host.stop()
        assert values.keys() <= {name for name, _, _ in CONTROLLER}
        assert {name: value for name, value in values.items() if "_db_" in name} == {
            "controller_db_get_network": 4,  # a write of either kind looks at the network too
            "controller_db_get_network_and_member": 3,
            "controller_db_get_networK_and_member_summary": 1,
            "controller_db_get_member_list": 1,
            "controller_db_get_network_list": 1,
            "controller_db_member_change": 3,
            "controller_db_network_change": 1,
        }
        assert values["controller_network_config_request"] == 1
        assert values["controller_member_count"] == 2

    asyncio.run(play())
