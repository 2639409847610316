"""Requests that are known byte for byte, and answers that serve several."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_service_http import (
    AUTH,
    FakeDaemon,
    exchange,
    read_answer,
    serve,
)
from zt.protocol.identity import Identity
from zt.service.api import shortcut
from zt.service.api.http import ApiProtocol
from zt.service.api.shortcut import FRESH_S, KNOWN_LIMIT, ShortCut


@pytest.fixture
def daemon(tmp_path: Path, identity: Identity) -> FakeDaemon:
    return FakeDaemon(tmp_path, identity)


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
    short_cut.remember(b"a request", b"/status")

    def asked() -> bytes:
        answer = short_cut.answer_known(b"a request", last=False)
        assert answer is not None
        return answer.rpartition(b"\r\n\r\n")[2]

    assert [asked(), asked()] == [b"1", b"1"]
    now += FRESH_S
    assert asked() == b"2"
    short_cut.forget_answers()
    assert asked() == b"3"
    assert short_cut.answer_known(b"another", last=False) is None


def test_what_is_remembered_is_bounded() -> None:
    short_cut = ShortCut({b"/health": lambda: b"{}"}, lambda scope: True)
    requests = [b"%d" % number for number in range(3 * KNOWN_LIMIT)]
    for request in (*requests, bytes(1 << 20)):
        short_cut.remember(request, b"/health")
    known = [request for request in requests if short_cut.answer_known(request, last=False)]
    assert 0 < len(known) <= KNOWN_LIMIT
    assert requests[-1] in known
    assert short_cut.answer_known(bytes(1 << 20), last=False) is None


def test_what_was_asked_before_is_known_at_the_door(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request known byte for byte is answered as the first time, and shows what was changed."""
    request = f"GET /network HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()
    join = f"POST /network/8056c2e21c000001 HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()

    async def talk(port: int) -> None:
        handed_over = count_calls(monkeypatch, ApiProtocol, "connection_made")
        first = await exchange(port, request)
        assert len(handed_over) == 1
        again = await exchange(port, request)
        assert len(handed_over) == 1, "not parsed again"
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
    request = f"GET /status HTTP/1.1\r\nX-ZT1-Auth: {AUTH}\r\n\r\n".encode()
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

    serve(daemon, talk)
