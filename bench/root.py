"""A root under load: thousands of peers that say HELLO, and floods of strangers, while it relays.

    python -m bench root [--peers N] [--runs N] [--seconds S] [--flood RATE] [--pow FILE]

The root, two nodes that only it connects, and the crowd (``bench.crowd``) are processes in network
namespaces. Throughput is that of one TCP stream between the two nodes through the root. Loaded and
unloaded runs take turns, and what counts is the median of their ratios. The crowd's own CPU time,
which is printed, is part of the loaded runs, so each load is compared with the same at a host where
nobody listens, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import crowd, measure
from bench.lab import Host, Lab, LabError, Process, end_on_sigterm, wait_for
from bench.world import PROJECT, Program, Service, World, ours

SIGN_ON = 500
"""HELLOs per second while the peers sign on."""
SETTLE = 1000
"""Then once more each, so that all have a path and the root knows what they say."""
STEADY_S = 60.0
"""Then every peer says HELLO once in so many seconds."""
PROBE_S = 10.0
BESIDES_S = 2.0
"""A transfer and what is around it takes up to so much longer than it is told to."""
METRICS_S = 6.0
"""Metrics are never older than this."""
STRANGERS = 20_000


def trusting() -> Program:
    """Ours, but for the check of proofs of work (bench.trusting)."""
    program = ours()
    one = (sys.executable, "-m", "bench.trusting")
    return Program("ours", one, program.cli, program.idtool, program.env)


class Load:
    """A running crowd."""

    def __init__(self, host: Host, root: Service, target: str, name: str, *options: str) -> None:
        self.control = host.lab.directory / f"control-{name}"
        self.path = host.lab.directory / f"report-{name}"
        self.rate(0, 0)
        words = [root.identity, target, "--control", self.control, "--report", self.path, *options]
        argv = [sys.executable, "-m", "bench.crowd", *map(str, words)]
        self.process: Process = host.start(argv, name=name, env={"PYTHONPATH": str(PROJECT)})
        wait_for(f"{name} to be there", self.path.exists, 300, [self.process])

    def rate(self, peers: float, strangers: float, *, ahead: int = 0) -> None:
        fresh = self.control.with_suffix(".new")
        fresh.write_text(f"{peers} {strangers} {ahead}")
        fresh.rename(self.control)

    def make_ready(self, hellos: int) -> None:
        """Has so many HELLOs made in advance."""
        self.rate(0, 0, ahead=hellos)
        wait_for(
            f"{hellos} HELLOs to be made",
            lambda: self.report()["ready"] >= hellos,
            hellos / 500 + 60,
            [self.process],
        )
        self.rate(0, 0)

    def report(self) -> dict[str, float]:
        """Once more than a tenth of a second after the rate changed it holds what came of it."""
        values: dict[str, float] = json.loads(self.path.read_text())
        return values

    @contextmanager
    def running(self, peers: float, strangers: float) -> Iterator[None]:
        """This much in the block, then nothing."""
        self.rate(peers, strangers)
        time.sleep(0.3)
        try:
            yield
        finally:
            self.rate(0, 0)
            time.sleep(0.3)


@contextmanager
def world(program: Program) -> Iterator[tuple[World, Host, str]]:
    """A world whose nodes reach each other through the root only; the crowd's host; b's address."""
    with Lab() as lab:
        made = World(lab, {"root": program, "a": ours(), "b": ours()})
        a, b = made.nodes
        lab.separate(a.host, b.host)
        made.create()
        made.start()
        nwid = made.create_network()
        made.join(nwid)
        made.wait_joined(nwid)
        host = lab.host("crowd")
        crowd.prepare(host, made.root.host)
        address = next(x for x in b.addresses(nwid) if "." in x)
        measure.wait_ping(a.host, address)
        transfer(made, address, 2.0)  # the first one makes buffers resident
        yield made, host, address


def transfer(made: World, address: str, seconds: float) -> float:
    """Gbit/s from a to b."""
    a, b = made.nodes
    return measure.tcp(a.host, b.host, address, seconds=seconds).gbit_per_s


def metric(root: Service, name: str) -> int:
    status, data = root.request("GET", "/metrics")
    if status != 200:
        raise LabError(f"/metrics: {status}")
    (line,) = [x for x in data.decode().splitlines() if x.startswith(name)]
    return int(float(line.split()[-1]))


def tables_bytes(root: Service) -> int:
    return metric(root, 'zt_tables{table="bytes"}')


def hellos(root: Service) -> tuple[int, int]:
    """Received, and of them answered by the data plane; as of up to five seconds ago."""
    all_of_them = 'zt_packet{direction="rx",packet_type="hello"}'
    return metric(root, all_of_them), metric(root, 'zt_plane{event="greeted"}')


def cpu_per_hello(root: Service, load: Load, rate: float, per: str) -> float:
    """CPU seconds of the root per HELLO, above what it takes anyway."""

    def used() -> tuple[float, float]:
        before, count = root.running.cpu_seconds(), load.report()[per]
        time.sleep(PROBE_S)
        return root.running.cpu_seconds() - before, load.report()[per] - count

    idle, _ = used()
    with load.running(*((rate, 0) if per == "sent" else (0, rate))):
        busy, count = used()
    return (busy - idle) / count


def ratios(
    made: World,
    address: str,
    loads: dict[str, Load],
    peers: float,
    strangers: float,
    args: argparse.Namespace,
) -> Iterator[str]:
    """Transfers alone and beside each of the loads in turn, as lines of text."""
    speeds: dict[str, list[float]] = {name: [] for name in ("alone", *loads)}
    if peers:
        for load in loads.values():
            load.make_ready(int(peers * args.runs * (args.seconds + BESIDES_S)))
    before = {name: load.report() for name, load in loads.items()}
    loaded_s = dict.fromkeys(loads, 0.0)
    for number in range(args.runs):
        names = list(speeds) if number % 2 else list(reversed(speeds))
        for name in names:
            if name == "alone":
                speeds[name].append(transfer(made, address, args.seconds))
                continue
            began = time.monotonic()
            with loads[name].running(peers, strangers):
                speeds[name].append(transfer(made, address, args.seconds))
            loaded_s[name] += time.monotonic() - began
    for name, load in loads.items():
        after = load.report()
        changes = {key: after[key] - value for key, value in before[name].items()}
        rate = (changes["sent"] + changes["strangers_sent"]) / loaded_s[name]
        yield (
            f"{name}: {compared(speeds['alone'], speeds[name])}; {rate:.0f} datagrams/s,"
            f" the crowd itself {100 * changes['cpu_s'] / loaded_s[name]:.0f} % of a core"
        )
    first, *others = loads
    for other in others:
        yield f"{first}, against {other}: {compared(speeds[other], speeds[first])}"


def compared(before: Sequence[float], after: Sequence[float]) -> str:
    shares = sorted(y / x for x, y in zip(before, after, strict=True))
    return (
        f"{statistics.median(before):.2f} -> {statistics.median(after):.2f} Gbit/s,"
        f" median of {len(shares)} ratios {statistics.median(shares):.2f}"
        f" ({', '.join(f'{share:.2f}' for share in shares)})"
    )


def nobody(made: World) -> Host:
    """A host that hears what the crowd sends and does nothing."""
    host = made.lab.host("nobody")
    host.run(["ip", "route", "add", "blackhole", crowd.SUBNET])
    return host


def peers(args: argparse.Namespace) -> None:
    """Many peers: memory, CPU per HELLO, relaying meanwhile."""
    with world(trusting()) as (made, host, address):
        root = made.root
        options = ("--peers", str(args.peers))
        load = Load(host, root, root.host.address, "crowd", *options)
        aside = Load(host, root, nobody(made).address, "aside", *options, "--port", "9994")
        memory, tables = root.running.memory_bytes(), tables_bytes(root)
        cpu = root.running.cpu_seconds()
        load.rate(SIGN_ON, 0)
        wait_for(
            f"{args.peers} peers to be answered",
            lambda: load.report()["answered"] >= args.peers,
            20 * args.peers / SIGN_ON + 60,
            [load.process, root.running],
        )
        load.rate(0, 0)
        time.sleep(1)
        report = load.report()
        cpu = (root.running.cpu_seconds() - cpu) / report["sent"]
        memory = root.running.memory_bytes() - memory
        tables = tables_bytes(root) - tables
        known = len(root.api("GET", "/peer"))
        print(f"{known} peers known, {report['answered']:.0f} answered after {report['sent']:.0f}")
        print(
            f"memory per peer: {memory / args.peers:.0f} bytes resident,"
            f" {tables / args.peers:.0f} of them tables"
        )
        print(f"CPU of the root per HELLO that makes a peer known: {1e6 * cpu:.0f} us")
        settled = load.report()["sent"] + args.peers
        load.rate(SETTLE, 0)
        wait_for(
            "everybody to say HELLO once more",
            lambda: load.report()["sent"] >= settled,
            20 * args.peers / SETTLE + 60,
            [load.process, root.running],
        )
        load.rate(0, 0)
        time.sleep(1)
        heard, greeted = hellos(root)
        rate = args.peers / STEADY_S
        cpu = cpu_per_hello(root, load, rate, "sent")
        print(f"CPU of the root per HELLO of a known peer: {1e6 * cpu:.0f} us")
        loads = {"relaying beside the peers": load, "beside the same at nobody": aside}
        for line in ratios(made, address, loads, rate, 0, args):
            print(line)
        time.sleep(METRICS_S)
        heard, greeted = (
            now - old for now, old in zip(hellos(root), (heard, greeted), strict=True)
        )
        print(f"of {heard} HELLOs the data plane answered {100 * greeted / heard:.0f} %")


def floods(args: argparse.Namespace) -> None:
    """Strangers without and with valid proofs of work, and the same aimed at nobody."""
    kinds = {"no proof of work": str(STRANGERS)}
    if args.pow:
        kinds["valid proofs of work"] = str(Path(args.pow).resolve())
    for name, strangers in kinds.items():
        with world(ours()) as (made, host, address):
            root = made.root
            options = ("--strangers", strangers)
            load = Load(host, root, root.host.address, "flood", *options)
            aside = Load(host, root, nobody(made).address, "aside", *options, "--port", "9994")
            memory = root.running.memory_bytes()
            cpu = cpu_per_hello(root, load, args.flood, "strangers_sent")
            loads = {f"flood, {name}": load, "the same at nobody": aside}
            for line in ratios(made, address, loads, 0, args.flood, args):
                print(line)
            print(f"CPU of the root per HELLO: {1e6 * cpu:.1f} us;", end=" ")
            grown = root.running.memory_bytes() - memory
            known = len(root.api("GET", "/peer"))
            print(f"{known} peers known, resident memory +{grown / 1e6:.1f} MB")


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench root")
    parser.add_argument("--peers", type=int, default=20_000, help="0: floods only")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each transfer")
    parser.add_argument("--flood", type=float, default=5_000.0, help="per second; 0: none")
    parser.add_argument("--pow", help="file of secret identities (bench.identities)")
    args = parser.parse_args(words)
    end_on_sigterm()
    if args.peers:
        peers(args)
    if args.flood:
        floods(args)
