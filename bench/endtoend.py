"""The end-to-end suite: whole programs in namespaces on this machine, side by side in one run.

    python -m bench.endtoend [--quick] [--runs N] [--only NAME,...] [--measures tcp_one,udp,...]

Every run measures each program in turn, so that a busy moment of the machine meets all of them;
what is reported is the median over the runs. Beside ours stand, when they are there: the original
(``ZT_REFERENCE=<folder with zerotier-one>``), wireguard-go and nebula. "bare" is the cable without
a tunnel: the limit of the machine and of the traffic generator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench import measure, report
from bench.contenders import Bare, Contender, Nebula, Tunnel, WireGuard, ZeroTier
from bench.demo import progress
from bench.lab import Lab, LabError, end_on_sigterm
from bench.world import ours, reference

Values = dict[str, float]
OUTPUT = Path("build/bench")


@dataclass(frozen=True)
class Effort:
    """How long one measurement takes."""

    runs: int
    tcp_s: float
    udp_step_s: float
    pings: int
    flows_s: float


FULL = Effort(runs=5, tcp_s=4.0, udp_step_s=0.4, pings=500, flows_s=3.0)
QUICK = Effort(runs=1, tcp_s=1.0, udp_step_s=0.1, pings=100, flows_s=0.7)


def tcp_one(tunnel: Tunnel, effort: Effort) -> Values:
    one = measure.tcp(
        tunnel.a,
        tunnel.b,
        tunnel.address_b,
        programs=tunnel.programs,
        seconds=effort.tcp_s,
    )
    return {
        "tcp_1": one.gbit_per_s,
        "cpu_per_gb": one.cpu_s_per_gb,
        "machine_cpu_per_gb": one.machine_cpu_s_per_gb,
    }


def tcp_back(tunnel: Tunnel, effort: Effort) -> Values:
    back = measure.tcp(tunnel.b, tunnel.a, tunnel.address_a, seconds=effort.tcp_s)
    return {"tcp_1_back": back.gbit_per_s}


def tcp_four(tunnel: Tunnel, effort: Effort) -> Values:
    there = measure.tcp(tunnel.a, tunnel.b, tunnel.address_b, seconds=effort.tcp_s, streams=4)
    back = measure.tcp(tunnel.b, tunnel.a, tunnel.address_a, seconds=effort.tcp_s, streams=4)
    return {"tcp_4": there.gbit_per_s, "tcp_4_back": back.gbit_per_s}


def udp(tunnel: Tunnel, effort: Effort) -> Values:
    values: Values = {}
    for size in (64, 512, 1400):
        got = measure.udp(tunnel.a, tunnel.b, tunnel.address_b, size, step_s=effort.udp_step_s)
        values |= {f"udp_{size}": got.delivered, f"udp_{size}_lossless": got.lossless}
    step_s = effort.udp_step_s
    got = measure.udp(tunnel.a, tunnel.b, tunnel.address_b, 1400, step_s=step_s, trains=True)
    return {**values, "udp_trains": got.delivered, "udp_trains_lossless": got.lossless}


def ping_idle(tunnel: Tunnel, effort: Effort) -> Values:
    got = measure.ping(tunnel.a, tunnel.address_b, count=effort.pings, interval_s=0.005)
    return {f"ping_{key}": got[key] for key in ("mean", "p50", "p99")}


def ping_load(tunnel: Tunnel, effort: Effort) -> Values:
    """Pings while one TCP stream runs as fast as it can."""
    interval_s = effort.tcp_s / effort.pings
    with measure.sink(tunnel.b, "tcp-sink") as (_, port):
        # It outlives the pings: the load must not end before they do.
        options = ["--seconds", effort.tcp_s + 2]
        load = measure.start(tunnel.a, "tcp-source", tunnel.address_b, port, *options)
        got = measure.ping(tunnel.a, tunnel.address_b, count=effort.pings, interval_s=interval_s)
        load.stop()
    values = {f"ping_load_{key}": got[key] for key in ("mean", "p50", "p99")}
    return {**values, "ping_load_loss": measure.loss_percent(got)}


def flows(tunnel: Tunnel, effort: Effort) -> Values:
    return {
        "flows": measure.flows(tunnel.a, tunnel.b, tunnel.address_b, seconds=effort.flows_s),
        "memory": max((p.memory_bytes() / 1e6 for p in tunnel.programs), default=0.0),
    }


Measurement = Callable[[Tunnel, Effort], Values]
EVERYTHING: tuple[Measurement, ...] = (
    ping_idle,
    tcp_one,
    tcp_back,
    tcp_four,
    udp,
    ping_load,
    flows,
)


@dataclass(frozen=True)
class Entry:
    """A program in one setting; what it measures is filed under ``name`` with ``prefix``."""

    name: str
    contender: Contender
    measurements: tuple[Measurement, ...] = EVERYTHING
    prefix: str = ""


def entries(quick: bool) -> list[Entry]:
    """Everything that can be compared on this machine; ``quick`` leaves out what is context."""
    we, original = ours(), reference()
    suite_1 = ZeroTier(we, we, settings={"cipherSuite": 1})
    found = [
        Entry("ours", ZeroTier(we, we)),
        Entry("ours", ZeroTier(we, we, relayed=True), (tcp_one, ping_idle), "relay_"),
        Entry("ours", ZeroTier(we, we, mtu=1500), (tcp_one,), "mtu_1500_"),
        Entry("ours", suite_1, (tcp_one,), "suite_1_"),
    ]
    if original:
        found += [
            Entry("original", ZeroTier(original, original)),
            Entry(
                "original",
                ZeroTier(original, original, relayed=True),
                (tcp_one, ping_idle),
                "relay_",
            ),
            Entry("original", ZeroTier(original, original, mtu=1500), (tcp_one,), "mtu_1500_"),
            Entry("ours to original", ZeroTier(we, original), (tcp_one,)),
            Entry("original to ours", ZeroTier(original, we), (tcp_one,)),
        ]
    context = (ping_idle, tcp_one) if quick else (ping_idle, tcp_one, udp, ping_load)
    if WireGuard.installed():
        found.append(Entry("wireguard-go", WireGuard(), context))
    if Nebula.installed():
        found.append(Entry("nebula", Nebula(), context))
    found.append(Entry("bare", Bare(), context))
    return found


def narrow(entry: Entry, names: set[str]) -> Entry:
    kept = tuple(m for m in entry.measurements if m.__name__ in names)
    return replace(entry, measurements=kept)


@contextlib.contextmanager
def tunnels(
    chosen: list[Entry], step: Callable[[str], None]
) -> Iterator[list[tuple[Entry, Tunnel]]]:
    """Starts every entry in a lab of its own, all at once."""
    with contextlib.ExitStack() as stack:
        for entry in chosen:
            step(f"starting {entry.name} {entry.prefix.strip('_')}")
            entry.contender.begin(stack.enter_context(Lab()))
        step("waiting until all of them carry traffic")
        yield [(entry, entry.contender.tunnel()) for entry in chosen]


def measure_all(chosen: list[Entry], effort: Effort, step: Callable[[str], None]) -> report.Results:
    """Every value of every run, by program and measure."""
    results: report.Results = {}
    with tunnels(chosen, step) as ready:
        for number in range(1, effort.runs + 1):
            for entry, tunnel in ready:
                values: Values = {}
                for measurement in entry.measurements:
                    values |= measurement(tunnel, effort)
                filed = results.setdefault(entry.name, {})
                for key, value in values.items():
                    filed.setdefault(entry.prefix + key, []).append(value)
                words = f"{entry.name} {entry.prefix.strip('_')}".strip()
                step(f"run {number} of {effort.runs}: {words}: {report.brief(values)}")
        step("removing everything")
    return results


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.endtoend")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--runs", type=int, help="how many; medians are reported (5)")
    parser.add_argument("--only", default="", help="names of programs, with commas")
    names = ", ".join(measurement.__name__ for measurement in EVERYTHING)
    parser.add_argument("--measures", default="", help=f"with commas, of {names}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder ({OUTPUT})")
    args = parser.parse_args(argv)
    effort = QUICK if args.quick else FULL
    if args.runs:
        effort = replace(effort, runs=args.runs)
    end_on_sigterm()
    only = {word for word in args.only.split(",") if word}
    try:
        chosen = [entry for entry in entries(args.quick) if not only or entry.name in only]
        if args.measures:
            chosen = [narrow(entry, set(args.measures.split(","))) for entry in chosen]
            chosen = [entry for entry in chosen if entry.measurements]
        if not chosen:
            raise LabError(f"nothing is called {args.only} {args.measures}".rstrip())
        results = measure_all(chosen, effort, progress())
    except LabError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        print("interrupted; everything was removed", file=sys.stderr)
        sys.exit(130)
    args.output.mkdir(parents=True, exist_ok=True)
    where = {"machine": machine(), "runs": effort.runs, "values": results}
    (args.output / "endtoend.json").write_text(json.dumps(where, indent=1) + "\n")
    medians = {
        name: {key: statistics.median(values) for key, values in filed.items()}
        for name, filed in results.items()
    }
    text = report.markdown(medians)
    (args.output / "endtoend.md").write_text(text)
    (args.output / "endtoend.svg").write_text(report.svg(medians))
    print(f"\n{text}\nwritten: {args.output}/endtoend.json, .md and .svg")


if __name__ == "__main__":
    main()
