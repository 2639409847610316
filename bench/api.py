"""The local API under load: what a request costs the service, and what it costs the data plane.

    python -m bench api [--rate N] [--seconds S] [--runs N]

Two nodes carry one TCP stream as fast as they can, first alone, then while the receiving node
answers `--rate` requests per second; runs alternate, and medians are compared. The requests are
those of monitoring: `/status`, `/network`, `/peer`, `/health` in turn, five per connection as the
API allows, from eight clients. "idle" asks a node that carries nothing. Last, how long
`zerotier-cli` takes from start to exit.

The clients are wrk (Debian's package of that name) with `api.lua`, which sets the pace: they work
on the same cores as the nodes, so they should cost little, and be what anybody can run. What they
take is printed all the same. wrk waits in whole milliseconds, so requests are that far from evenly
spread; its latencies begin when a request is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import measure
from bench.demo import progress
from bench.lab import Lab, LabError, Process, end_on_sigterm
from bench.world import PORT, World, by_family, ours

PATHS = ("/status", "/network", "/peer", "/health")
CONNECTIONS = 8
CLI_RUNS = 20
SCRIPT = Path(__file__).with_name("api.lua")


def load(port: int, token: str, rate: float, seconds: int) -> dict[str, Any]:
    """Runs wrk: `count` answers, of these and of connections `failed` ones, `rate` (1/s), `p50` and
    `p99` (ms from request to answer), `cpu_s` of wrk. LabError if it fails."""
    url = f"http://127.0.0.1:{port}"
    options = ["-t", "1", "-c", str(CONNECTIONS), "-d", str(seconds), "-s", str(SCRIPT)]
    argv = ["wrk", *options, url, "--", str(rate), token, *PATHS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as wrk:
        assert wrk.stdout is not None
        text = wrk.stdout.read()
        _, status, used = os.wait4(wrk.pid, 0)
        wrk.returncode = os.waitstatus_to_exitcode(status)
    if wrk.returncode:
        raise LabError(f"wrk failed:\n{text}")
    seen: dict[str, Any] = json.loads(text.splitlines()[-1])
    seen["rate"] = seen["count"] / seen["seconds"]
    seen["cpu_s"] = used.ru_utime + used.ru_stime
    return seen


# --- the benchmark -----------------------------------------------------------------------------


class Bench:
    """Two nodes that talk directly, and clients of the second one."""

    def __init__(self, lab: Lab, rate: float, seconds: int) -> None:
        self.rate = rate
        self.seconds = seconds
        world = World(lab, {role: ours() for role in ("root", "a", "b")})
        world.create()
        world.start()
        nwid = world.create_network()
        world.join(nwid)
        world.wait_joined(nwid)
        self.a, self.b = world.nodes
        self.address = by_family(self.b.addresses(nwid))[0]
        measure.wait_ping(self.a.host, self.address)
        measure.ping(self.a.host, self.address, count=3, interval_s=0.05)
        world.wait_direct()

    def client(self) -> Process:
        token = (self.b.home / "authtoken.secret").read_text()
        words = ["load", PORT, token, self.rate, self.seconds]
        argv = [sys.executable, "-m", "bench.api", *map(str, words)]
        return self.b.host.start(argv, name="load", env={"PYTHONPATH": str(measure.PROJECT)})

    def throughput(self, loaded: bool) -> tuple[float, dict[str, Any]]:
        """Gbit/s of one TCP stream, and what the client saw meanwhile."""
        client = self.client() if loaded else None
        tcp = measure.tcp(
            self.a.host,
            self.b.host,
            self.address,
            programs=[self.a.running, self.b.running],
            seconds=self.seconds - 1,  # within the client's time
        )
        return tcp.gbit_per_s, measure.finish(client) if client else {}

    def idle(self) -> tuple[float, dict[str, Any]]:
        """CPU of the service per request (microseconds), and what the client saw."""
        before = self.b.running.cpu_seconds()
        seen = measure.finish(self.client())
        return (self.b.running.cpu_seconds() - before) / seen["count"] * 1e6, seen

    def command_line(self) -> list[float]:
        """Milliseconds from start to exit of `zerotier-cli info`, on a node at rest."""
        argv = [*self.b.program.cli, f"-D{self.b.home}", "info"]
        words = [sys.executable, "-m", "bench.api", "time", str(CLI_RUNS), *argv]
        env = {"PYTHONPATH": str(measure.PROJECT)}
        answer: list[float] = json.loads(self.b.host.run(words, env=env).stdout)
        return answer


def time_command(runs: int, argv: list[str]) -> list[float]:
    """Milliseconds that a command takes, per run."""
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        found.append((time.perf_counter() - begin) * 1000)
    return found


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["load"]:
        port, token, rate, seconds = words[1:]
        print(json.dumps(load(int(port), token, float(rate), int(seconds))))
        return
    if words[:1] == ["time"]:
        print(json.dumps(time_command(int(words[1]), words[2:])))
        return
    parser = argparse.ArgumentParser(prog="python -m bench api", description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests/s (1000)")
    parser.add_argument("--seconds", type=int, default=6, help="of one measurement, whole (6)")
    parser.add_argument("--runs", type=int, default=5, help="pairs, alone and loaded (5)")
    args = parser.parse_args(words)
    if shutil.which("wrk") is None:
        sys.exit("bench: wrk is missing: apt-get install -y wrk")
    end_on_sigterm()
    step = progress()
    alone, loaded, seen = [], [], []
    try:
        with Lab() as lab:
            bench = Bench(lab, args.rate, args.seconds)
            cpu_us, quiet = bench.idle()
            step(f"idle: {cpu_us:.0f} us of CPU per request, {quiet['rate']:.0f} requests/s")
            for number in range(1, args.runs + 1):
                alone.append(bench.throughput(loaded=False)[0])
                speed, client = bench.throughput(loaded=True)
                loaded.append(speed)
                seen.append(client)
                text = f"alone {alone[-1]:.2f}, loaded {speed:.2f} Gbit/s"
                step(f"run {number} of {args.runs}: {text}, {client['rate']:.0f} requests/s")
            starts = bench.command_line()
    except LabError as error:
        sys.exit(f"bench: {error}")
    before, after = statistics.median(alone), statistics.median(loaded)
    rate = statistics.median(client["rate"] for client in seen)
    worst = max(client["p99"] for client in seen)
    client_us = quiet["cpu_s"] / quiet["count"] * 1e6
    failed = quiet["failed"] + sum(client["failed"] for client in seen)
    print(f"\nservice, CPU per request, idle     {cpu_us:8.0f} us")
    print(f"client, CPU per request            {client_us:8.0f} us")
    print(f"latency, idle, median / 99%        {quiet['p50']:8.2f} / {quiet['p99']:.2f} ms")
    print(f"requests per second under load     {rate:8.0f}")
    print(f"latency under load, worst 99%      {worst:8.2f} ms")
    print(f"requests that failed               {failed:8}")
    print(f"TCP alone                          {before:8.2f} Gbit/s")
    print(f"TCP while asked                    {after:8.2f} Gbit/s ({after / before - 1:+.1%})")
    print(f"zerotier-cli info, start to exit   {statistics.median(starts):8.0f} ms")


if __name__ == "__main__":
    main()
