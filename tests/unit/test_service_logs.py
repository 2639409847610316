"""Log lines: rate limit, structured form, levels per subsystem."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import zt
from zt.service import logs


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Loggers are the process's own: their levels and handlers are put back."""
    names = ["", "zt", *(f"zt.{name}" for name in logs.SUBSYSTEMS)]
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    for logger, level in before:
        logger.setLevel(level)


def configured(monkeypatch: pytest.MonkeyPatch, **environment: str) -> io.StringIO:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure()
    return stream


def test_repeated_lines_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("zt.service.logs.time.monotonic", lambda: now)
    stream = configured(monkeypatch)
    log = logging.getLogger("zt.networks")
    for number in range(1000):
        log.warning("network %s: it failed", number)
    log.warning("something else")
    lines = stream.getvalue().splitlines()
    assert len(lines) == logs.BURST + 1
    assert lines[-1] == "something else"
    now += logs.WINDOW_S + 1
    log.warning("network %s: it failed", 7)
    last = stream.getvalue().splitlines()[-1]
    assert last == f"network 7: it failed ({1000 - logs.BURST} more like this)"


def test_the_limit_remembers_a_bounded_number_of_texts() -> None:
    limit = logs.RateLimit()
    for number in range(10 * logs.MAX_TEXTS):
        record = logging.LogRecord("zt.api", logging.WARNING, "", 0, f"{number}", None, None)
        assert limit.filter(record)
    assert len(limit._seen) <= logs.MAX_TEXTS


def test_structured_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, ZT_LOG_FORMAT="json")
    logging.getLogger("zt.dns").warning("no answer from %s", "10.0.0.1\nforged line")
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("zt.api").exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["subsystem"]) == ("warning", "dns")
    assert first["message"] == "no answer from 10.0.0.1\nforged line"
    assert "ValueError: reason" in second["trace"]


def test_levels_change_while_running(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = configured(monkeypatch, ZT_LOG="error")
    networks, dns = logging.getLogger("zt.networks"), logging.getLogger("zt.dns")
    networks.warning("silent")
    assert logs.set_level("networks", "debug")
    networks.debug("heard")
    dns.warning("still silent")
    assert stream.getvalue() == "heard\n"
    assert (logs.levels()["networks"], logs.levels()["dns"]) == ("debug", "error")
    assert logs.set_level("*", "info")
    assert set(logs.levels().values()) == {"info"}
    assert not logs.set_level("nonsense", "info")
    assert not logs.set_level("dns", "loud")


def test_every_logger_is_a_subsystem() -> None:
    sources = [path.read_text() for path in Path(zt.__path__[0]).rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'getLogger\("zt\.(\w+)"\)', text)}
    assert named == set(logs.SUBSYSTEMS)
