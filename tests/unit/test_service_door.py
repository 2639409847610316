"""The API behind its door; the door alone: test_door.py."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_door import ended, own_address
from tests.unit.test_service_http import (
    AUTH,
    FakeDaemon,
    exchange,
    read_answer,
    serve,
)
from zt._fast.door import LIMIT
from zt.protocol.identity import Identity
from zt.service import localconf
from zt.service.api import shortcut
from zt.service.api.app import Api
from zt.service.api.http import ApiProtocol
from zt.service.api.shortcut import FRESH_S, ShortCut


@pytest.fixture
def daemon(tmp_path: Path, identity: Identity) -> FakeDaemon:
    return FakeDaemon(tmp_path, identity)


def known(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()


def count_calls(monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> list[object]:
    """A list that grows with each call of a method from now on."""
    called: list[object] = []
    method = getattr(where, name)

    def counted(self: Any, *args: Any) -> Any:
        called.append(self)
        return method(self, *args)

    monkeypatch.setattr(where, name, counted)
    return called


def test_an_answer_serves_for_a_moment_and_until_something_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, made = 100.0, 0

    def body() -> bytes:
        nonlocal made
        made += 1
        return b"%d" % made

    monkeypatch.setattr(shortcut.time, "monotonic", lambda: now)
    short_cut = ShortCut({b"/status": body}, lambda scope: True)

    def asked() -> bytes:
        answer = short_cut.answer(b"/status", {"headers": []}, last=False)
        assert answer is not None
        return answer.rpartition(b"\r\n\r\n")[2]

    assert [asked(), asked()] == [b"1", b"1"]
    now += FRESH_S
    assert asked() == b"2"
    short_cut.forget_answers()
    assert asked() == b"3"


def test_what_was_asked_before_is_known_at_the_door(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request known byte for byte is answered as the first time, and shows what was changed."""
    request = known("/network")
    join = f"POST /network/8056c2e21c000001 HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()

    async def talk(port: int) -> None:
        handed_over = count_calls(monkeypatch, ApiProtocol, "connection_made")
        first = await exchange(port, request)
        assert len(handed_over) == 1
        again = await exchange(port, request)
        assert len(handed_over) == 1, "not parsed again"
        assert daemon.door.counters()["answered"] == 1
        assert (again.status, again.headers, again.body) == (
            first.status,
            first.headers,
            first.body,
        )
        assert json.loads(first.body) == []
        await exchange(port, join)
        assert len(json.loads((await exchange(port, request)).body)) == 1
        # From the door to the whole way: requests count on, what is pipelined is answered.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(request)
            assert (await read_answer(reader)).headers["keep-alive"]
        writer.write(join + request + request)
        assert (await read_answer(reader)).headers["keep-alive"]
        assert (await read_answer(reader)).headers["connection"] == "close"
        assert await reader.read() == b""
        writer.close()

    serve(daemon, talk)


def test_nobody_else_gets_what_is_known_at_the_door(daemon: FakeDaemon) -> None:
    """Neither with a wrong token, nor in parts, nor with a request of somebody else in front."""
    request = known("/status")
    wrong = request.replace(AUTH.encode(), AUTH.swapcase().encode())

    async def talk(port: int) -> None:
        for _ in range(3):
            assert (await exchange(port, request)).status == "HTTP/1.1 200 OK"
            assert (await exchange(port, wrong)).status.startswith("HTTP/1.1 401")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(wrong + request)
        assert (await read_answer(reader)).status.startswith("HTTP/1.1 401")
        assert (await read_answer(reader)).status == "HTTP/1.1 200 OK"
        writer.write(request[:40])
        await writer.drain()
        await exchange(port, request)  # the first part is there by now
        writer.write(request[40:])
        assert (await read_answer(reader)).status == "HTTP/1.1 200 OK"
        writer.close()
        assert daemon.door.counters()["answered"] == 3

    serve(daemon, talk)


def test_clients_elsewhere_teach_the_door_nothing(daemon: FakeDaemon) -> None:
    """Nor are they answered there: who may ask can change."""
    host, request = own_address(), known("/status")
    allowed = {"settings": {"allowManagementFrom": [f"{host}/32"]}}

    async def ask(host: str, port: int) -> str:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        answer = await read_answer(reader)
        writer.close()
        return answer.status

    async def talk(port: int) -> None:
        daemon.conf = localconf.parse(json.dumps(allowed).encode())
        for where in (host, "127.0.0.1", host, "127.0.0.1"):
            assert await ask(where, port) == "HTTP/1.1 200 OK"
        assert daemon.door.counters()["answered"] == 1
        daemon.conf = localconf.parse(b"")
        assert (await ask(host, port)).startswith("HTTP/1.1 401")

    serve(daemon, talk)


def test_the_door_says_after_a_change_what_is_so(daemon: FakeDaemon) -> None:
    """On connections that stay, as fast as they go: never what was before."""
    head = f"/network/8056c2e21c000001 HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n"
    request, rounds = known("/network"), 200

    async def talk(port: int) -> None:
        await exchange(port, request)
        for number in range(rounds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                writer.write(request)
                assert len(json.loads((await read_answer(reader)).body)) == number % 2
            await exchange(port, (("DELETE " if number % 2 else "POST ") + head).encode())
            writer.write(request)
            assert len(json.loads((await read_answer(reader)).body)) == (number + 1) % 2
            writer.close()
        assert daemon.door.counters()["answered"] == 3 * rounds

    serve(daemon, talk)


def test_large_answers_come_whole_from_the_door(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the socket does not take at once is sent by the loop, which goes on from there."""
    body, request = b'"%b"' % bytes(1 << 24), known("/status")
    monkeypatch.setattr(Api, "bodies", lambda self: {b"/status": lambda: body})

    async def talk(port: int) -> None:
        await exchange(port, request)
        for parts in (1, 4):  # the first of a connection, or the last: the others are pipelined
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 25)
            for count in (parts, 5 - parts):
                writer.write(request * count)
                answers = [await read_answer(reader) for _ in range(count)]
                assert all(answer.body == body for answer in answers)
            assert answers[-1].headers["connection"] == "close"
            assert await reader.read() == b""
            writer.close()
        assert daemon.door.counters()["answered"] == 1

    serve(daemon, talk)


def test_the_last_answer_of_a_connection_may_be_large(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop closes the connection when the rest is sent, without waiting for more."""
    body, request = b"{}", known("/status")
    monkeypatch.setattr(Api, "bodies", lambda self: {b"/status": lambda: body})
    monkeypatch.setattr("zt.service.api.http.IDLE_S", 3600.0)

    async def talk(port: int) -> None:
        nonlocal body
        await exchange(port, request)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 25)
        for _ in range(4):
            writer.write(request)
            assert (await read_answer(reader)).body == b"{}"
        body = b'"%b"' % bytes(1 << 24)
        await exchange(port, b"PUT /nothing HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        writer.write(request)
        answer = await read_answer(reader)
        assert (answer.headers["connection"], answer.body) == ("close", body)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
        assert daemon.door.counters()["answered"] == 5

    serve(daemon, talk)


def test_a_server_that_stopped_closes_the_door(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "IDLE_S", 3600.0)
    address: list[Any] = []
    client = socket.socket()
    client.settimeout(60)

    async def talk(port: int) -> None:
        address[:] = "127.0.0.1", port
        await exchange(port, known("/status"))
        client.connect(("127.0.0.1", port))
        client.sendall(known("/status"))
        await asyncio.to_thread(client.recv, 1 << 16)
        assert daemon.door.counters()["answered"] == 1

    serve(daemon, talk)
    with client:
        assert ended(client)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(tuple(address), timeout=60)


def test_what_fails_or_takes_long_goes_the_whole_way(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {"/status": b"{}", "/health": b"{}"}

    def body(path: str) -> bytes | None:
        if path not in bodies:
            raise KeyError(path)
        return bodies[path] or None

    of = {path.encode(): lambda path=path: body(path) for path in bodies}
    monkeypatch.setattr(Api, "bodies", lambda self: of)

    async def talk(port: int) -> None:
        for path in bodies:
            assert (await exchange(port, known(path))).body == b"{}"
        del bodies["/status"]
        bodies["/health"] = b""
        await exchange(port, b"PUT /nothing HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        for path in ("/status", "/health"):
            assert "version" in json.loads((await exchange(port, known(path))).body)

    serve(daemon, talk)


@pytest.mark.usefixtures("many_descriptors")
def test_six_hundred_at_once(daemon: FakeDaemon) -> None:
    """The door keeps as many as it may, and the loop answers the others."""

    async def talk(port: int) -> None:
        request = known("/status")
        await exchange(port, request)
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
        for _ in range(5):
            for _, writer in clients:
                writer.write(request)
            answers = [await read_answer(reader) for reader, _ in clients]
            assert {answer.status for answer in answers} == {"HTTP/1.1 200 OK"}
        for reader, writer in clients:
            assert await reader.read() == b""
            writer.close()
        assert daemon.door.counters()["answered"] == 5 * LIMIT

    serve(daemon, talk)


def test_the_door_closes_silent_clients(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "IDLE_S", 0.1)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()

    serve(daemon, talk)
