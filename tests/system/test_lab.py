"""The laboratory itself: isolated, several at once, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure
from bench.lab import NAMESPACES, Host, Lab, LabError, remove_abandoned, wait_for

pytestmark = pytest.mark.system


def namespaces(lab: Lab) -> list[str]:
    return [path.name for path in NAMESPACES.glob(f"{lab.name}-*")]


def test_hosts_reach_each_other(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    result = measure.ping(a, b.address, count=5, interval_s=0.005)
    assert result["received"] == 5
    assert measure.tcp(a, b, b.address, size=10_000_000, verify=True).intact


def test_separated_hosts_reach_all_but_each_other(lab: Lab) -> None:
    a, b, c = (lab.host(name) for name in "abc")

    def reaches(source: Host, target: Host) -> bool:
        return bool(measure.ping(source, target.address, count=1, interval_s=0.01)["received"])

    lab.separate(a, b)
    assert reaches(a, c)
    assert reaches(b, c)
    assert not reaches(a, b)
    lab.reunite(a, b)
    wait_for("the hosts to meet again", lambda: reaches(a, b), 10)


def test_two_labs_do_not_see_each_other() -> None:
    def listener() -> socket.socket:
        return socket.create_server(("", 9993))

    with Lab() as one, Lab() as other:
        a, twin = one.host("a"), other.host("a")
        assert a.address == twin.address
        with a.inside(listener), twin.inside(listener):
            pass


def test_leaving_ends_everything() -> None:
    with pytest.raises(ZeroDivisionError), Lab() as lab:  # noqa: PT012
        process = lab.host("a").start(["sleep", "1000"])
        assert process.running
        assert len(namespaces(lab)) == 2
        raise ZeroDivisionError
    assert not process.running
    assert namespaces(lab) == []
    assert not lab.directory.exists()


def test_a_killed_owner_takes_its_programs_along() -> None:
    script = (
        "import time; from bench.lab import Lab\n"
        "with Lab() as lab:\n"
        "    print(lab.name, lab.host('a').start(['sleep', '1000']).pid, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        name, pid = owner.stdout.readline().split()
        command = Path("/proc", pid, "comm")
        wait_for("the program to run", lambda: command.read_text() == "sleep\n", 10)
        owner.send_signal(signal.SIGKILL)
    wait_for("the program to end", lambda: not Path("/proc", pid, "exe").exists(), 10)
    assert name in remove_abandoned()
    assert not list(NAMESPACES.glob(f"{name}-*"))


def test_a_program_that_ends_early_is_reported(lab: Lab) -> None:
    process = lab.host("a").start(["sh", "-c", "echo broken; exit 3"], name="thing")
    with pytest.raises(LabError, match=r"thing on a ended while waiting for Godot:\nbroken"):
        wait_for("Godot", lambda: False, 10, [process])


def test_processor_time_and_memory_of_a_program(lab: Lab) -> None:
    process = lab.host("a").start([sys.executable, "-c", "while True: pass"])
    wait_for("it to have worked", lambda: process.cpu_seconds() > 0.05, 10)
    assert process.memory_bytes() > os.sysconf("SC_PAGESIZE")
    assert process.stop() == -signal.SIGTERM
