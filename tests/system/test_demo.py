"""``python -m bench.demo`` as a person runs it."""

import re
import signal
import subprocess
import sys

import pytest

from bench.lab import NAMESPACES, PREFIX

pytestmark = [pytest.mark.system, pytest.mark.busy]


def start() -> subprocess.Popen[str]:
    # Jobs of a shell in the background inherit an ignored SIGINT; a person's do not.
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "bench.demo", "--size", "16"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_by(pid: int) -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"{PREFIX}{pid}x*")]


def test_the_demonstration() -> None:
    with start() as demo:
        out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, err
    assert re.search(r"TCP a > b +[0-9.]+ Gbit/s", out)
    assert len(re.findall(r"ping . > . [\w ]+ +[0-9.]+ ms mean, .*, 0% loss", out)) == 6
    assert "zerotier-cli" in out
    assert left_by(demo.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing(number: signal.Signals) -> None:
    with start() as demo:
        assert demo.stdout
        for line in demo.stdout:
            if "starting root" in line:
                break
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode == 128 + number
    assert left_by(demo.pid) == []
