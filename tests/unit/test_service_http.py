"""The local API against the recorded exchanges, on a daemon with nothing behind it (ch. 06, 3)."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.routing import BaseRoute

from tests.conftest import require_cases
from zt._fast.door import Door
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.identity import Identity
from zt.service import localconf
from zt.service.api.app import PEERS_AT_ONCE, build
from zt.service.api.server import ApiServer
from zt.service.api.static import static_routes
from zt.service.clock import Clock
from zt.service.home import Home
from zt.service.managed import NetworkSettings
from zt.service.networks import Joined
from zt.service.sockets import bind_api
from zt.vl1.status import PeerStatus

AUTH, METRICS = "a" * 24, "m" * 24
PROTOCOL_HEADERS = ("accept-ranges", "connection", "content-range", "content-type", "keep-alive")


class FakeNode:
    """A node that knows nobody and does what it is told."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.planet = SimpleNamespace(id=149604618, timestamp=1795347212059)
        self.online = True
        self.orbits: dict[int, int] = {}
        self.known: dict[Address, PeerStatus] = {}

    def network(self, nwid: NetworkId) -> None:
        return None

    def peer(self, address: Address, now_ms: int) -> PeerStatus | None:
        return self.known.get(address)

    def peer_addresses(self) -> list[Address]:
        return sorted(self.known)

    def moons(self) -> list[Any]:
        return []

    def surface(self) -> list[Any]:
        return []

    def rotate_bond(self, peer: int, now_ms: int) -> bool:
        return False

    def orbit(self, world_id: int, seed: int, now_ms: int) -> None:
        self.orbits[world_id] = seed

    def deorbit(self, world_id: int, now_ms: int) -> None:
        self.orbits.pop(world_id, None)


class FakeNetworks(dict[NetworkId, Joined]):
    """Joined networks without TAP devices."""

    def __iter__(self) -> Any:
        return iter([self[nwid] for nwid in sorted(self.keys())])

    async def join(self, nwid: NetworkId) -> Joined:
        return self.setdefault(nwid, Joined(nwid, NetworkSettings()))

    async def configure(self, nwid: NetworkId, settings: NetworkSettings) -> None:
        self[nwid].settings = settings

    async def leave(self, nwid: NetworkId) -> bool:
        return self.pop(nwid, None) is not None


class FakeDaemon:
    """What the API needs of a daemon."""

    tunneled = False
    token = AUTH
    metrics_token = METRICS
    door: Door  # once it is served

    def __init__(self, home: Path, identity: Identity) -> None:
        self.home = Home(home)
        self.identity = identity
        self.node = FakeNode(identity)
        self.networks = FakeNetworks()
        self.sockets = SimpleNamespace(bound=list)
        self.ports = SimpleNamespace(primary=9993, secondary=1, tertiary=2)
        self.clock = Clock()
        self.conf = localconf.parse(b"")
        self.edited: dict[str, Any] = {}

    def drain(self) -> None: ...

    def mac(self, nwid: NetworkId) -> Mac:
        return Mac.of(self.identity.address, nwid)

    def metrics_text(self) -> bytes:
        return b""

    def edit_settings(self, changes: dict[str, Any]) -> None:
        self.edited.update(changes)


@pytest.fixture
def daemon(tmp_path: Path, identity: Identity) -> FakeDaemon:
    return FakeDaemon(tmp_path, identity)


def serve(
    daemon: FakeDaemon,
    talk: Callable[[int], Coroutine[Any, Any, None]],
    routes: Sequence[BaseRoute] = (),
) -> None:
    """Run `talk(port)` against the API of `daemon`."""

    async def run() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app, short_cut = build(daemon, list(routes))  # type: ignore[arg-type]
        daemon.door = short_cut.door
        server = ApiServer(app, bind_api(port), short_cut)
        await server.start()
        try:
            await talk(port)
        finally:
            await server.stop()

    asyncio.run(run())


class Answer:
    def __init__(self, status: str, headers: list[list[str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body


async def read_answer(reader: asyncio.StreamReader, head: bool = False) -> Answer:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [list(line.split(": ", 1)) for line in lines[1:] if line]
    answer = Answer(lines[0], headers, b"")
    if not head and "100 Continue" not in answer.status:
        answer.body = await reader.readexactly(int(answer.headers["content-length"]))
    return answer


async def exchange(port: int, raw: bytes, head: bool = False) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await asyncio.wait_for(read_answer(reader, head), 60)
    finally:
        writer.close()


def secret(text: str) -> str:
    return text.replace("$AUTH", AUTH).replace("$METRICS", METRICS)


def raw_request(request: dict[str, Any]) -> bytes:
    if request.get("raw"):
        return secret(request["raw"]).encode()
    target = re.sub(
        r" followed by (\d+) (\w) characters", lambda m: m[2] * int(m[1]), request["target"]
    )
    body = request.get("body") or ""
    body = re.sub(
        r"(.*) followed by (\d+) (\w) characters", lambda m: m[1] + m[3] * int(m[2]), body
    )
    lines = [f"{request['method']} {secret(target)} HTTP/1.1", "Host: localhost"]
    for name, value in request["headers"]:
        value = re.sub(r"(\d+) (\w) characters", lambda m: m[2] * int(m[1]), value)
        if value.startswith("(upper-cased"):
            value = AUTH.upper() + "X"
        lines.append(f"{name}: {secret(value)}")
    return "\r\n".join([*lines, "", ""]).encode() + body.encode()


def shape(value: Any) -> Any:
    """Keys and types, all the way down; of arrays the first element."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


REPLAYABLE = (
    "fresh service, no networks; authentication",
    "fresh service, no networks; methods and protocol",
    "fresh service, no networks; every endpoint",
    "body handling",
    "misc",
)
VALUES = {"/peer", "/network", "/metrics"}  # empty on a node that knows nobody


def replayable(exchange: dict[str, Any]) -> bool:
    request = exchange["request"]
    target = request.get("target") or request.get("raw")
    return (
        exchange["state"] in REPLAYABLE
        and isinstance(target, str)
        and "raw_status_line" in exchange["response"]
        and "/controller" not in target
        and "/moon/0000000" not in target  # Q12: we take 16-digit ids
    )


def test_recorded_exchanges(vectors: Callable[[str], Any], daemon: FakeDaemon) -> None:
    """Status, headers and body of every exchange that needs no peers."""
    exchanges = [e for e in vectors("service_http.json")["exchanges"] if replayable(e)]
    require_cases(exchanges, "no exchange of a fresh service")

    async def talk(port: int) -> None:
        for recorded in exchanges:
            request, response = recorded["request"], recorded["response"]
            n = recorded["n"]
            head = request.get("method") == "HEAD"
            answer = await exchange(port, raw_request(request), head)
            assert answer.status == response["raw_status_line"], n
            if "100 Continue" in answer.status:
                continue
            expected = {name.lower(): value for name, value in response["headers"]}
            for name in PROTOCOL_HEADERS:
                assert answer.headers.get(name) == expected.get(name), (n, name)
            compare_bodies(n, request, answer.body, response.get("body") or "")

    serve(daemon, talk)


def compare_bodies(n: int, request: dict[str, Any], ours: bytes, recorded: str) -> None:
    if "Range" in str(request.get("headers")) or request.get("method") == "HEAD":
        return
    wrapped = re.fullmatch(r"([\w.]+)\((.*)\);", recorded, re.DOTALL)
    if wrapped is not None:
        inner = re.fullmatch(rb"([\w.]+)\((.*)\);", ours, re.DOTALL)
        assert inner is not None, n
        assert inner[1].decode() == wrapped[1], n
        ours, recorded = inner[2], wrapped[2]
    if not recorded.startswith(("{", "[")):
        if not str(request.get("target")).startswith("/metrics"):
            assert ours.decode() == recorded, n
        return
    ours_value, recorded_value = json.loads(ours), json.loads(recorded)
    if isinstance(recorded_value, list):
        return  # of a node that knew somebody
    if "paths" in recorded_value:
        assert ours_value == {}, n  # a peer that our node does not have
        return
    if "multicastSubscriptions" in recorded_value:
        recorded_value["multicastSubscriptions"] = ours_value["multicastSubscriptions"] = []
        for value in (ours_value, recorded_value):
            value.update({"assignedAddresses": [], "routes": [], "dns": {}})
    if "config" in recorded_value:
        for value in (ours_value, recorded_value):
            value["config"] = sorted(value["config"]["settings"].keys() - {"allowManagementFrom"})
    assert shape(ours_value) == shape(recorded_value), n
    # The order of keys in the text is part of what was recorded.
    keys = [key for key, _ in json.loads(ours, object_pairs_hook=list)]
    assert keys == sorted(keys), n


@pytest.mark.parametrize(
    "body", [b'"\xff"', b'{"\xff": 1}', b"[" * 100_000, b"\0"], ids=["text", "key", "deep", "zero"]
)
def test_what_is_no_json_is_said_to_be_none(daemon: FakeDaemon, body: bytes) -> None:
    """Nothing changes, and it is no error of ours."""

    async def talk(port: int) -> None:
        for target in ("/config/settings", "/network/8056c2e21c000001"):
            head = (
                f"POST {target} HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\ncontent-length: {len(body)}\r\n"
            )
            answer = await exchange(port, head.encode() + b"\r\n" + body)
            assert b"internal" not in answer.body
        assert daemon.edited == {}

    serve(daemon, talk)


def test_keep_alive(daemon: FakeDaemon) -> None:
    """Five requests per connection; the fifth answer closes it."""

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /health HTTP/1.1\r\n\r\n"
        writer.write(request * 2)  # pipelined: both are answered (Q4)
        answers = [await read_answer(reader), await read_answer(reader)]
        for _ in range(3):
            writer.write(request)
            answers.append(await read_answer(reader))
        assert [a.headers.get("connection") for a in answers] == [None] * 4 + ["close"]
        assert answers[0].headers["keep-alive"] == "timeout=5, max=5"
        assert await reader.read() == b""
        writer.close()

    serve(daemon, talk)


@pytest.mark.parametrize("path", ["/status", "/health", "/network", "/peer"])
def test_the_short_cut_answers_as_the_whole_way(daemon: FakeDaemon, path: str) -> None:
    """A header that monitoring does not send takes the request through all layers."""

    async def talk(port: int) -> None:
        await daemon.networks.join(NetworkId(0x8056C2E21C000001))
        ordinary = f"GET {path} HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n"
        asked: dict[str, Answer] = {}
        for way, more in (("short", ""), ("whole", "X-Other: 1\r\n")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(5):
                writer.write(f"{ordinary}{more}\r\n".encode())
                asked[f"{way} {number}"] = await read_answer(reader)
            assert await reader.read() == b""
            writer.close()
        for number in range(5):
            short, whole = asked[f"short {number}"], asked[f"whole {number}"]
            assert (short.status, short.headers) == (whole.status, whole.headers)
            values = [re.sub(rb'"clock":\d+', b"", answer.body) for answer in (short, whole)]
            assert values[0] == values[1]

    serve(daemon, talk)


@pytest.mark.parametrize("count", [PEERS_AT_ONCE, PEERS_AT_ONCE + 1, 3 * PEERS_AT_ONCE])
def test_many_peers_are_shown_like_few(daemon: FakeDaemon, count: int) -> None:
    """All of them, in order."""
    for number in range(count, 0, -1):
        address = Address(number)
        daemon.node.known[address] = PeerStatus(address, (1, 14, 1), None, "LEAF", (), None)

    async def talk(port: int) -> None:
        head = f"HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n"
        answer = await exchange(port, f"GET /peer {head}".encode())
        shown = json.loads(answer.body)
        assert answer.headers["content-type"] == "application/json"
        assert [int(peer["address"], 16) for peer in shown] == list(range(1, count + 1))
        one = await exchange(port, f"GET /peer/{count:010x} {head}".encode())
        assert json.loads(one.body) == shown[-1]

    serve(daemon, talk)


def test_mixed_pipelines_keep_their_order(daemon: FakeDaemon) -> None:
    """Short and long ways on one connection; nothing behind its last request is carried out."""

    async def talk(port: int) -> None:
        head = f"HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n"
        join = f"POST /network/8056c2e21c000001 {head}\r\n"
        listed, health = f"GET /network {head}\r\n", f"GET /health {head}\r\n"
        leave = f"DELETE /network/8056c2e21c000001 {head}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{listed}{join}{listed}{health}{health}{leave}".encode())
        bodies = [json.loads((await read_answer(reader)).body) for _ in range(5)]
        assert await reader.read() == b""
        writer.close()
        assert bodies[0] == []
        assert bodies[1]["id"] == bodies[2][0]["id"] == "8056c2e21c000001"
        assert bodies[3]["version"] == bodies[4]["version"]
        assert list(daemon.networks) != []

    serve(daemon, talk)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /network/0000000000000000 HTTP/1.1\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /health HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health\r\n\r\n",
    ],
)
def test_no_good_http(daemon: FakeDaemon, raw: bytes) -> None:
    """Smuggling, floods of headers, other protocols: 400 and the connection is closed."""

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        data = await asyncio.wait_for(reader.read(), 60)
        assert data.startswith(b"HTTP/1.1 400 "), data
        assert data.count(b"HTTP/1.1") == 1
        writer.close()

    serve(daemon, talk)


def test_unfinished_head_is_not_waited_for(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zt.service.api.http.IDLE_S", 0.3)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"GET /health HTTP/1.1\r\n":
            if reader.at_eof():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):  # a byte came after the end
            assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()

    serve(daemon, talk)


def test_guessing_tokens_is_slow(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is answered at once, then every wrong token waits; the right one never does."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("zt.service.api.auth.asyncio.sleep", sleep)

    async def talk(port: int) -> None:
        for _ in range(30):
            answer = await exchange(port, b"GET /status HTTP/1.1\r\nX-ZT1-Auth: no\r\n\r\n")
            assert answer.status == "HTTP/1.1 401 Unauthorized"
        assert len(slept) >= 15
        before = len(slept)
        good = f"GET /status HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()
        assert (await exchange(port, good)).status == "HTTP/1.1 200 OK"
        assert len(slept) == before

    serve(daemon, talk)


def test_a_failing_handler_shows_nothing(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bytes:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(daemon, "metrics_text", fail)

    async def talk(port: int) -> None:
        raw = f"GET /metrics HTTP/1.1\r\nX-ZT1-Auth: {METRICS}\r\n\r\n".encode()
        answer = await exchange(port, raw)
        assert answer.status == "HTTP/1.1 500 Internal Server Error"
        assert b"secret" not in answer.body

    serve(daemon, talk)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:9993\r\nOrigin: http://localhost:9993", 200),
        ("Host: [::1]:9993\r\nOrigin: http://[::1]:9993", 200),
        ("Host: zerotier:9993", 200),  # a program, by a name of its own
        ("Host: localhost:9993\r\nOrigin: http://evil.test", 401),
        ("Host: localhost:9993\r\nOrigin: http://localhost:3000", 401),
        ("Host: localhost:9993\r\nOrigin: null", 401),
        ("Host: evil.test:9993\r\nOrigin: http://evil.test:9993", 401),  # DNS rebinding
        ("Host: [:9993\r\nOrigin: http://[:9993", 401),
        ("Origin: http://localhost:9993", 401),
    ],
)
def test_pages_of_other_sites_are_refused(daemon: FakeDaemon, headers: str, status: int) -> None:
    """What a browser asks for a page of another site, even with the right token."""

    async def talk(port: int) -> None:
        for target in ("/status", "/health", "/metrics"):
            raw = f"GET {target} HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n{headers}\r\n\r\n".encode()
            assert int((await exchange(port, raw)).status.split()[1]) == status, target

    serve(daemon, talk)


def test_static_files(vectors: Callable[[str], Any], daemon: FakeDaemon) -> None:
    """The recorded exchanges with a web server enabled, over the files they name."""
    exchanges = [
        e
        for e in vectors("service_http.json")["exchanges"]
        if e["state"].startswith("web server enabled") and "/app" in e["request"]["target"]
    ]
    require_cases(exchanges, "no exchange of a web server")
    app = daemon.home / "app"
    routes = static_routes(daemon.home, True)
    assert app.stat().st_mode & 0o777 == 0o755
    (app / "app1").mkdir()
    (app / "empty").mkdir()
    (app / "index.html").write_text("root index\n")
    (app / "page.html").write_text("<p>page</p>\n")
    (app / "app1/index.html").write_text("<h1>hello 1</h1>\n")
    (app / "app1/x.js").write_text("1;\n")
    (daemon.home / "identity.secret").write_text("secret")
    (app / "link").symlink_to(daemon.home / "identity.secret")

    async def talk(port: int) -> None:
        for recorded in exchanges:
            answer = await exchange(port, raw_request(recorded["request"]))
            n = recorded["n"]
            assert answer.status == recorded["response"]["raw_status_line"], n
            expected = {k.lower(): v for k, v in recorded["response"]["headers"]}
            for name in ("content-type", "location"):
                assert answer.headers.get(name) == expected.get(name), n
            assert answer.body.decode() == recorded["response"]["body"], n
        link = await exchange(port, b"GET /app/link HTTP/1.1\r\n\r\n")
        assert b"secret" not in link.body

    serve(daemon, talk, routes)
    assert static_routes(daemon.home, False) == []
