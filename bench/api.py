"""The local API under load: what a request costs the service, and what it costs the data plane.

    python -m bench api [--rate N] [--seconds S] [--runs N]

Two nodes carry one TCP stream as fast as they can, first alone, then while the receiving node
answers `--rate` requests per second; runs alternate, and medians are compared. The requests are
those of monitoring: `/status`, `/network`, `/peer`, `/health` in turn, five per connection as the
API allows, from eight clients. The load generator works on the same cores, so what it takes itself
is printed, too; "idle" asks a node that carries nothing. Last, how long `zerotier-cli` takes from
start to exit.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import statistics
import sys
import time
from typing import Any

from bench import measure
from bench.demo import progress
from bench.lab import Lab, LabError, Process, end_on_sigterm
from bench.world import PORT, World, by_family, ours

PATHS = ("/status", "/network", "/peer", "/health")
PER_CONNECTION = 5
CONNECTIONS = 8
CLI_RUNS = 20


# --- the load generator, a process of its own --------------------------------------------------


def load(port: int, token: str, rate: float, seconds: float) -> dict[str, Any]:
    """Asks at a steady rate, late requests at once; what came back and how long it took (ms)."""
    requests = [f"GET {path} HTTP/1.1\r\nX-ZT1-Auth: {token}\r\n\r\n".encode() for path in PATHS]
    poll = select.epoll()
    connections = [Connection(poll, port) for _ in range(CONNECTIONS)]
    by_descriptor: dict[int, Connection] = {}
    latencies: list[float] = []
    failed = count = 0
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        while connections and begin + count / rate <= now:
            connection = connections.pop()
            by_descriptor[connection.ask(requests[count % len(requests)])] = connection
            count += 1
        due = begin + count / rate if connections else begin + seconds
        for descriptor, _ in poll.poll(max(due - time.perf_counter(), 0.0)):
            connection = by_descriptor[descriptor]
            good = connection.read()
            if good is None:
                continue
            failed += not good
            latencies.append((time.perf_counter() - connection.asked) * 1000)
            connections.append(connection)
    latencies.sort()
    return {
        "rate": len(latencies) / (time.perf_counter() - begin),
        "count": count,
        "failed": failed,
        "p50": latencies[len(latencies) // 2] if latencies else 0.0,
        "p99": latencies[len(latencies) * 99 // 100] if latencies else 0.0,
        "cpu_s": time.process_time(),
    }


class Connection:
    """One client connection, opened again when its requests are used up."""

    def __init__(self, poll: select.epoll, port: int) -> None:
        self._poll = poll
        self._port = port
        self._left = 0
        self._socket: socket.socket | None = None
        self._data = b""
        self.asked = 0.0

    def ask(self, request: bytes) -> int:
        """Sends a request; the descriptor on which its answer comes."""
        self.asked = time.perf_counter()
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.connect(("127.0.0.1", self._port))
            self._poll.register(self._socket, select.EPOLLIN)
            self._left = PER_CONNECTION
        self._left -= 1
        self._socket.sendall(request)
        return self._socket.fileno()

    def read(self) -> bool | None:
        """Whether the answer is a 200; None while it is not whole."""
        assert self._socket is not None
        chunk = self._socket.recv(1 << 18)
        self._data += chunk
        head, blank, body = self._data.partition(b"\r\n\r\n")
        at = head.find(b"content-length: ")
        if chunk and (not blank or len(body) < int(head[at + 16 :].split(b"\r\n", 1)[0])):
            return None
        self._data = b""
        if not chunk or self._left == 0:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
        return bool(chunk) and head.startswith(b"HTTP/1.1 200 ")


# --- the benchmark -----------------------------------------------------------------------------


class Bench:
    """Two nodes that talk directly, and clients of the second one."""

    def __init__(self, lab: Lab, rate: float, seconds: float) -> None:
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
    import subprocess

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
        print(json.dumps(load(int(port), token, float(rate), float(seconds))))
        return
    if words[:1] == ["time"]:
        print(json.dumps(time_command(int(words[1]), words[2:])))
        return
    parser = argparse.ArgumentParser(prog="python -m bench api", description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests/s (1000)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one measurement (6)")
    parser.add_argument("--runs", type=int, default=5, help="pairs, alone and loaded (5)")
    args = parser.parse_args(words)
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
