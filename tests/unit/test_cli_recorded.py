"""zerotier-cli and zerotier-idtool against the recorded command lines (ch. 06, 4 and 6)."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_cases
from zt.cli.idtool import main as idtool
from zt.cli.main import main as cli

RECORDED_PORT = "-p8080"
REFERENCE_HEAD = re.compile(r"(ZeroTier One version [^\n]*\n)Copyright[^\n]*\nLicensed[^\n]*\n")
OUR_HEAD = re.compile(r"(ZeroTier One version [^\n]*\n)An independent[^\n]*\nLicensed[^\n]*\n")
AGES = re.compile(r"(?<=[ ;])-?\d+(?=[ ;])")


class MockService:
    """Answers each connection with the same bytes and keeps the requests."""

    def __init__(self, answer: bytes | Callable[[str], bytes]) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                while length is not None and len(body) < int(length[1]):
                    body += connection.recv(65536)
                request = (head + b"\r\n\r\n" + body).decode()
                self.requests.append(request)
                answer = self.answer
                connection.sendall(answer(request) if callable(answer) else answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def mock() -> Iterator[Callable[[bytes | Callable[[str], bytes]], MockService]]:
    running: list[MockService] = []

    def start(answer: bytes | Callable[[str], bytes]) -> MockService:
        running.append(MockService(answer))
        return running[-1]

    yield start
    for service in running:
        service.close()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No home folder, no token: what a machine without the service has."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZEROTIER_HOME", raising=False)


def same_help(ours: str, recorded: str) -> bool:
    """Equal but for who made it and what we have more."""
    ours, recorded = OUR_HEAD.sub(r"\1", ours), REFERENCE_HEAD.sub(r"\1", recorded)
    return all(line in ours.split("\n") for line in recorded.split("\n"))


def http(status: str, body: str) -> bytes:
    data = body.encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(data)) + data


def is_help(text: str) -> bool:
    return "Usage: " in text


def test_without_a_service(
    vectors: Callable[[str], Any],
    nowhere: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Malformed switches, help, and every command when nobody listens."""
    ran = 0
    for case in vectors("cli.json")["cases"]:
        started = not case.get("state", "").startswith(("service never", "service not running"))
        if started or "argv" not in case or case["argv"][0] != "zerotier-cli":
            continue
        if "-p9993" in case["argv"]:  # somebody may really listen there
            argv = ["-p1" if word == "-p9993" else word for word in case["argv"]]
        else:
            argv = case["argv"]
        with monkeypatch.context() as patch:
            for name, value in (case.get("env") or {}).items():
                patch.setenv(name, value)
            code = cli(argv)
        out, err = capsys.readouterr()
        assert code == case["exit"], case["n"]
        for ours, recorded in ((out, case["stdout"]), (err, case["stderr"])):
            if is_help(recorded):
                assert same_help(ours, recorded), case["n"]
            else:
                assert ours == recorded, case["n"]
        ran += 1
    require_cases(ran, "no command without a service")


def test_against_recorded_answers(
    vectors: Callable[[str], Any],
    nowhere: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mock: Callable[[bytes], MockService],
) -> None:
    """Byte-exact output and requests for everything recorded against a mock server."""
    ran = 0
    for case in vectors("cli.json")["cases"]:
        if "mock_response" not in case:
            continue
        answer = case["mock_response"]
        now = re.search(r"expires in: (\d+)", case["stdout"])
        if "past" in case.get("note", "") or now:
            left_ms = int(now[1]) * 1000 + 500 if now else -1000
            expiry = int(json.loads(answer.partition("\r\n\r\n")[2])[0]["authenticationExpiryTime"])
            monkeypatch.setattr("zt.cli.main.now_ms", lambda at=expiry - left_ms: at)
        service = mock(answer.encode())
        argv = [f"-p{service.port}" if w == RECORDED_PORT else w for w in case["argv"]]
        code = cli(argv)
        out, err = capsys.readouterr()
        ran += 1
        if case["exit"] < 0:  # the original crashed; an error it is all the same
            assert code == 1
            assert err
            continue
        assert (code, out, err) == (case["exit"], case["stdout"], case["stderr"]), case["n"]
        assert service.requests == [case["request_seen"]], case["n"]
    require_cases(ran, "no answer of a mock server")


PATHS = {"listnetworks": "/network", "listpeers": "/peer", "peers": "/peer"}


def test_tables_of_recorded_json(
    vectors: Callable[[str], Any],
    nowhere: None,
    capsys: pytest.CaptureFixture[str],
    mock: Callable[[Callable[[str], bytes]], MockService],
) -> None:
    """What the recorded service said as JSON, shown as the tables recorded beside it."""
    answers: dict[tuple[str, str], list[tuple[int, str]]] = {}
    cases = [c for c in vectors("cli.json")["cases"] if c.get("stdout") and "argv" in c]
    for case in cases:
        argv = case["argv"]
        if (
            argv[:2] == ["zerotier-cli", "-j"]
            and argv[2:3]
            and argv[2] in PATHS
            and not case["exit"]
        ):
            key = (case["state"], PATHS[argv[2]])
            answers.setdefault(key, []).append((case["n"], case["stdout"]))
    ran = 0
    for case in cases:
        command = case["argv"][1:2]
        if case["argv"][0] != "zerotier-cli" or case["exit"] or "-j" in case["argv"]:
            continue
        if command == ["get"]:
            key = (case["state"], "/network")
        elif command and command[0] in PATHS:
            key = (case["state"], PATHS[command[0]])
        else:
            continue
        if key not in answers:
            continue
        body = min(answers[key], key=lambda answer: abs(answer[0] - case["n"]))[1]
        if key[1] == "/peer" and not all(p["address"] in case["stdout"] for p in json.loads(body)):
            continue  # peers came and went between the two recordings
        if command == ["get"] and case["stderr"] == "" and case["argv"][2] not in body:
            continue  # another network had been joined by then
        service = mock(lambda request, body=body: http("200 OK", body))
        assert cli([case["argv"][0], f"-p{service.port}", "-Tx", *case["argv"][1:]]) == 0
        out, err = capsys.readouterr()
        assert err == case["stderr"]
        if PATHS.get(command[0]) == "/peer":
            # Ages and latencies move on between two recordings; the table must not.
            shape = [AGES.sub("N", re.sub(" +", " ", line)) for line in out.splitlines()]
            recorded = re.sub(" +", " ", case["stdout"]).splitlines()
            assert len(shape) == len(recorded), case["n"]
            assert shape[:2] == [AGES.sub("N", line) for line in recorded[:2]]
            assert [s[:10] for s in shape] == [r[:10] for r in recorded]
        elif command != ["listnetworks"] or len(out) == len(case["stdout"]):
            assert out == case["stdout"], case["n"]
        ran += 1
    require_cases(ran, "no table beside its JSON")


# --- idtool ----------------------------------------------------------------------------------

RANDOM = re.compile(r"[0-9a-f]{10}:0:[0-9a-f]{128}(:[0-9a-f]{128})?|[0-9a-f]{128}|[0-9]{13}")


def test_idtool(
    vectors: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for case in vectors("idtool.json")["cases"]:
        argv = case["argv"]
        if argv[0] != "zerotier-idtool":
            continue
        for name, content in (case.get("files_in") or {}).items():
            (tmp_path / name).write_text(content)
        random = "random" in case.get("note", "") or argv[1:2] in (["generate"], ["genmoon"])
        code = idtool(argv)
        out, err = capsys.readouterr()
        if case["exit"] < 0:  # the original crashed
            assert code == 1, case["n"]
            assert err
            assert not out
            continue
        assert code == case["exit"], (case["n"], err)
        if is_help(case["stdout"]):
            assert same_help(out, case["stdout"])
        elif "vanity" in case.get("note", "") and case["stderr"]:
            assert "vanity address: found" in err
        elif random:
            assert RANDOM.sub("*", out) == RANDOM.sub("*", case["stdout"]), case["n"]
            assert err == case["stderr"]
        else:
            assert (out, err) == (case["stdout"], case["stderr"]), case["n"]
        for name, content in (case.get("files_out") or {}).items():
            written = (tmp_path / name).read_bytes()
            if isinstance(content, dict):
                assert len(written) == len(bytes.fromhex(content["hex"])), case["n"]
            else:
                assert RANDOM.sub("*", written.decode()) == RANDOM.sub("*", content)
            if argv[1] == "generate":
                # Later cases use the recorded files of this name.
                (tmp_path / name).write_text(content)
        ran += 1
    require_cases(ran, "no call of zerotier-idtool")


def test_private_planet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Keys, roots and endpoints become a planet in one step; a second run makes its update."""
    from zt.protocol.world import World, WorldType

    monkeypatch.chdir(tmp_path)
    argv = ["zerotier-idtool", "planet", "root.secret=192.0.2.1/9993,2001:db8::1/9993"]
    assert idtool(argv) == 0
    first = World.decode((tmp_path / "planet").read_bytes())
    assert first.type is WorldType.PLANET
    assert first.verify(first.update_key)
    assert [str(e) for e in first.roots[0].endpoints] == ["192.0.2.1/9993", "2001:db8::1/9993"]
    assert (tmp_path / "planet.secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "root.secret").stat().st_mode & 0o777 == 0o600
    assert idtool(["zerotier-idtool", "validate", "root.public"]) == 0

    assert idtool([*argv, "second.secret=192.0.2.2/9993"]) == 0
    second = World.decode((tmp_path / "planet").read_bytes())
    assert second.replaces(first)
    assert len(second.roots) == 2
    capsys.readouterr()

    assert idtool(["zerotier-idtool", "planet", "root.secret=somewhere"]) == 1
    assert "somewhere" in capsys.readouterr().err
