"""One measurement at a time: starts the two ends of ``bench.traffic`` on hosts and reads them."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lab import Host, LabError, Process, machine_cpu_seconds, wait_for

PROJECT = Path(__file__).resolve().parent.parent
GB = 1e9
_ports = itertools.count(5201)


def start(host: Host, *words: object) -> Process:
    """Starts a ``bench.traffic`` command on a host."""
    # It needs nothing that is installed (-S), and many are started.
    argv = [sys.executable, "-S", "-m", "bench.traffic", *map(str, words)]
    return host.start(argv, name=str(words[0]), env={"PYTHONPATH": str(PROJECT)})


def finish(process: Process, timeout_s: float = 120.0) -> dict[str, Any]:
    """Waits for a ``bench.traffic`` command; what it measured."""
    if process.wait(timeout_s):
        raise LabError(f"{process.name} failed:\n{process.output()}")
    result: dict[str, Any] = json.loads(process.output())
    return result


@contextmanager
def sink(host: Host, command: str, *options: object) -> Iterator[tuple[Process, int]]:
    """A sink that listens on a port of its own; ended at the end of the block."""
    port = next(_ports)
    ready = host.lab.directory / f"ready-{port}"
    process = start(host, command, port, "--ready", ready, *options)
    try:
        wait_for(f"{process.name} to listen", ready.exists, 20, [process])
        yield process, port
    finally:
        process.stop()


@dataclass(frozen=True)
class Tcp:
    """A TCP transfer. CPU seconds are those of the programs that carried it, and of all."""

    gbit_per_s: float
    cpu_s_per_gb: float
    machine_cpu_s_per_gb: float
    seconds: float
    intact: bool  # True also when nothing was summed up


def tcp(
    source: Host,
    target: Host,
    address: str,
    *,
    programs: Sequence[Process] = (),
    streams: int = 1,
    seconds: float = 5.0,
    size: int = 0,
    verify: bool = False,
    timeout_s: float = 120.0,
) -> Tcp:
    """Sends for ``seconds``, or ``size`` bytes when given, to ``address`` of ``target``."""
    hashing = ["--verify"] if verify else []
    with sink(target, "tcp-sink", "--streams", streams, *hashing) as (receiver, port):
        busy, machine = sum(p.cpu_seconds() for p in programs), machine_cpu_seconds()
        options = ["--streams", streams, "--seconds", seconds, "--bytes", size, *hashing]
        sent = finish(start(source, "tcp-source", address, port, *options), timeout_s)
        got = finish(receiver)
        busy = sum(p.cpu_seconds() for p in programs) - busy
        machine = machine_cpu_seconds() - machine
    gigabytes = got["bytes"] / GB
    return Tcp(
        gbit_per_s=8 * gigabytes / got["seconds"],
        cpu_s_per_gb=busy / gigabytes,
        machine_cpu_s_per_gb=machine / gigabytes,
        seconds=got["seconds"],
        intact=sent["checksums"] == got["checksums"],
    )


@dataclass(frozen=True)
class Udp:
    """Frames per second: the most that arrived, and the most offered of which 99% arrived."""

    delivered: float
    lossless: float


def udp(
    source: Host,
    target: Host,
    address: str,
    size: int,
    *,
    step_s: float = 0.4,
    trains: bool = False,
) -> Udp:
    """Frames of ``size`` bytes at rising rates; ``trains``: given to the kernel many at once."""
    wait_ping(source, address)  # so that its neighbour is known
    (route,) = json.loads(source.run(["ip", "-json", "route", "get", address]).stdout)
    neighbours = json.loads(source.run(["ip", "-json", "neighbour", "show", address]).stdout)
    counter = source.lab.directory / f"counter-{next(_ports)}"
    with sink(target, "udp-sink", "--counter", counter) as (_, port):
        options = ["--counter", counter, "--size", size, "--step", step_s]
        options += ["--device", route["dev"], "--source", route["prefsrc"]]
        options += ["--mac", neighbours[0]["lladdr"]] if neighbours else []
        options += ["--trains"] if trains else []
        result = finish(start(source, "udp-source", address, port, *options))
    return Udp(result["delivered_per_s"], result["lossless_per_s"])


def flows(source: Host, target: Host, address: str, *, seconds: float = 3.0) -> float:
    """Short TCP connections finished per second, 64 at once."""
    with sink(target, "flow-sink") as (_, port):
        options = ["--streams", 64, "--seconds", seconds]
        result = finish(start(source, "flow-source", address, port, *options))
    return float(result["flows_per_s"])


def wait_ping(source: Host, address: str, timeout_s: float = 60.0) -> float:
    """Pings until an answer comes; seconds that took, address resolution included."""

    def answered() -> bool:
        options = ["--count", 1, "--patience", 0.3]
        return bool(finish(start(source, "ping", address, *options))["received"])

    started = time.monotonic()
    wait_for(f"{source.name} to reach {address}", answered, timeout_s)
    return time.monotonic() - started


def ping(source: Host, address: str, *, count: int, interval_s: float) -> dict[str, Any]:
    """Round trips in microseconds: mean, p50, p90, p99, min, max; sent and received."""
    return finish(start(source, "ping", address, "--count", count, "--interval", interval_s))


def loss_percent(result: dict[str, Any]) -> float:
    """The share of a ``ping`` that was not answered."""
    return 100.0 * (1 - float(result["received"]) / float(result["sent"]))
