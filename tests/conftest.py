"""Shared by every test: recorded data, what needs root, what runs side by side."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine fails no test: only the time limit that pytest was given from outside ends one.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        default=str(HERE / "vectors"),
        metavar="DIR",
        help="folder of recorded data (default: tests/vectors)",
    )


MISSING: set[str] = set()
EMPTY: set[str] = set()


class Recording(dict[str, Any]):
    """A recorded file: a list without cases is noted for the summary, a lacking one skips."""

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.name = name

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if value == []:
            EMPTY.add(f"{self.name}: {key}")
        return value

    def __missing__(self, key: str) -> Any:
        pytest.skip(f"no recorded data: {self.name} has no {key!r}")


def vectors_dir(config: pytest.Config) -> Path:
    return Path(config.getoption("--vectors"))


def load_vectors(config: pytest.Config, name: str) -> Recording | None:
    """The parsed JSON file of that name, or None (noted for the summary) when it is not there."""
    path = vectors_dir(config) / name
    if not path.exists():
        MISSING.add(name)
        return None
    return Recording(name, json.loads(path.read_text()))


def require_cases(found: object, what: str) -> None:
    """Skips, and says so, where the recorded data holds no case of the kind that is tested."""
    if not found:
        pytest.skip(f"no recorded data: {what}")


@pytest.fixture(scope="session")
def vectors(pytestconfig: pytest.Config) -> Callable[[str], Any]:
    """``vectors("x.json")`` is that file, parsed; without it the test is skipped and says so."""

    def load(name: str) -> Any:
        data = load_vectors(pytestconfig, name)
        if data is None:
            pytest.skip(f"no recorded data: {vectors_dir(pytestconfig) / name} not found")
        return data

    return load


def schedule(items: list[pytest.Item]) -> None:
    """For pytest-xdist: the tests of a file share their worlds, so they stay together; those that
    keep a core busy form one group, so that never two of them do; what takes longest begins.

    A worker is given its next group while the last two tests of one run, and nobody else takes
    that. So what waits for minutes is not the last of its group: some quick file follows.
    """
    waiting = [item for item in items if "waits" in item.keywords]
    quick = dict.fromkeys(item.path.stem for item in items if "system" not in item.keywords)
    follows = dict(zip(quick, waiting, strict=False))
    for item in items:
        group = item.path.stem
        if item in waiting:
            group = item.name
        elif "busy" in item.keywords:
            group = "busy"
        elif group in follows:
            group = follows[group].name
        item.add_marker(pytest.mark.xdist_group(group))
    ranks = {"waits": 0, "busy": 1, "slow": 2}
    items.sort(key=lambda item: min((ranks[k] for k in ranks if k in item.keywords), default=3))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if getattr(config.option, "loadgroup", False):  # in a worker of pytest-xdist
        schedule(items)
    if os.geteuid() == 0 and Path("/dev/net/tun").exists():
        return
    for item in items:
        if "system" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root and /dev/net/tun"))


def pytest_collection_finish(session: pytest.Session) -> None:
    if getattr(session.config.option, "loadgroup", False):
        lost = [item.nodeid for item in session.items if "@" not in item.nodeid]
        assert not lost, (
            "this pytest-xdist does not hand groups to this pytest: worlds would be many"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that writes the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["missing"], output["empty"] = sorted(MISSING), sorted(EMPTY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    MISSING.update(output.get("missing", ()))
    EMPTY.update(output.get("empty", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name in sorted(MISSING):
        terminalreporter.write_line(f"recorded data not found: {name}")
    for name in sorted(EMPTY):
        terminalreporter.write_line(f"recorded data without cases: {name}")
