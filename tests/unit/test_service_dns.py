"""DNS of networks through the host's tools, which here only write down what they are told."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from zt.protocol.inet import parse_ip
from zt.service.dns import Resolver

SERVERS = [parse_ip("10.66.0.2"), parse_ip("fd00::53")]
Tool = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """`tool(name)` puts a recording program of that name where programs are looked for; what it
    returns gives the lines recorded so far: arguments, then input."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr("zt.service.dns.RESOLVED", tmp_path / "resolved")
    monkeypatch.setattr(
        "zt.service.dns.shutil.which",
        lambda name: str(folder / name) if (folder / name).exists() else None,
    )

    def make(name: str, code: int = 0) -> Callable[[], list[str]]:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$@" >>{log}\ncat >>{log}\nexit {code}\n')
        program.chmod(0o755)
        if name == "resolvectl":
            (tmp_path / "resolved").mkdir()
        return lambda: log.read_text().splitlines() if log.exists() else []

    return make


def test_resolved(tool: Tool) -> None:
    """Servers and domain for the link alone, never for everything; reverted on the way out."""
    said = tool("resolvectl")

    async def talk() -> None:
        resolver = Resolver()
        await resolver.recover("zt1")  # the link is new, so it has nothing to forget
        await resolver.set("zt1", 7, "corp.example", SERVERS)
        await resolver.set("zt1", 7, "corp.example", SERVERS)  # once is enough
        await resolver.remove("zt1")
        await resolver.remove("zt1")

    asyncio.run(talk())
    assert said() == [
        "dns zt1 10.66.0.2 fd00::53",
        "default-route zt1 false",
        "domain zt1 corp.example",
        "revert zt1",
    ]


def test_resolvconf(tool: Tool) -> None:
    said = tool("resolvconf")

    async def talk() -> None:
        resolver = Resolver()
        await resolver.recover("zt1")  # what a killed run left
        await resolver.set("zt1", 7, "corp.example", SERVERS)
        await resolver.set("zt1", 7, "", [])  # the network has no servers any more

    asyncio.run(talk())
    assert said() == [
        "-d zt1.zerotier",
        "-a zt1.zerotier",
        "search corp.example",
        "nameserver 10.66.0.2",
        "nameserver fd00::53",
        "-d zt1.zerotier",
    ]


def test_failures_are_told_and_tried_again(tool: Tool, caplog: pytest.LogCaptureFixture) -> None:
    said = tool("resolvconf", code=1)

    async def talk() -> None:
        resolver = Resolver()
        await resolver.set("zt1", 7, "", SERVERS)
        await resolver.set("zt1", 7, "", SERVERS)

    asyncio.run(talk())
    assert said().count("-a zt1.zerotier") == 2
    assert "exit code 1" in caplog.text


def test_without_any_resolver(tool: Tool, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        resolver = Resolver()
        await resolver.recover("zt1")
        await resolver.set("zt1", 7, "", SERVERS)
        await resolver.set("zt2", 8, "", SERVERS)

    asyncio.run(talk())
    assert caplog.text.count("DNS of a network is not applied") == 1
