"""What a person sees when a service cannot start: one line that names the cause, and a bad exit."""

import copy
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab import Lab, Process
from bench.world import PORT, Service, ours

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def made() -> Iterator[Service]:
    """A service that was never started, with an identity."""
    with Lab() as lab:
        service = Service(lab.host("a"), ours())
        service.generate()
        yield service


@pytest.fixture
def service(made: Service, tmp_path: Path) -> Service:
    """The same with a home of its own."""
    service = copy.copy(made)
    service.home = tmp_path / "home"
    shutil.copytree(made.home, service.home)
    return service


def refusal(process: Process) -> str:
    """The only line of a service that ends by itself with a bad exit status."""
    assert process.wait() not in (0, -signal.SIGABRT)
    (line,) = process.output().strip().splitlines()
    return line


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(text[:10], "0123456789"),
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: "\0" * 300,
    ],
    ids=["empty", "cut", "address", "key", "zeros"],
)
def test_damaged_identity(service: Service, damage: object) -> None:
    path = service.home / "identity.secret"
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    line = refusal(service.launch())
    assert "identity.secret" in line
    assert str(service.home) in line


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 500, b"\x01" + bytes(200)])
def test_damaged_planet(service: Service, content: bytes) -> None:
    (service.home / "planet").write_bytes(content)
    line = refusal(service.launch())
    assert "planet" in line


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"settings": 5}', b"null"])
def test_damaged_local_conf(service: Service, content: bytes) -> None:
    (service.home / "local.conf").write_bytes(content)
    line = refusal(service.launch())
    assert "local.conf" in line


def test_taken_port(service: Service) -> None:
    def take() -> socket.socket:
        return socket.create_server(("", PORT))

    with service.host.inside(take):
        line = refusal(service.launch())
    assert str(PORT) in line


def test_home_that_is_a_file(service: Service, tmp_path: Path) -> None:
    service.home = tmp_path / "file"
    service.home.write_text("")
    assert str(service.home) in refusal(service.launch())


def test_unknown_keys_in_local_conf_are_kept_and_harmless(service: Service) -> None:
    conf = {"settings": {"portMappingEnabled": False, "somethingElse": 1}, "more": []}
    (service.home / "local.conf").write_text(json.dumps(conf))
    service.start()
    status = service.api("GET", "/status")
    assert status["config"]["settings"]["somethingElse"] == 1
    assert status["config"]["more"] == []
    assert service.stop() == 0
