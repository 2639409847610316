"""The main job in one command: three services form a private world and pass traffic.

    python -m bench.demo [--reference root,a,b] [--size MIB] [--mtu BYTES]

A root with its controller and two nodes, a and b, run as separate processes in network namespaces.
KEEP=1 in the environment leaves them running. With ``ZT_REFERENCE`` naming the folder of an
original ``zerotier-one``, ``--reference`` says which of them it plays.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import measure
from bench.lab import Lab, LabError, end_on_sigterm
from bench.world import Program, World, by_family, ours, reference

ROLES = ("root", "a", "b")
MIB = 1 << 20


@dataclass
class Result:
    """What one run showed. Times are seconds, round trips microseconds."""

    join_s: float = 0.0
    pings: dict[str, dict[str, float]] = field(default_factory=dict)  # "a > b IPv4" and so on
    direct: bool = False
    tcp: dict[str, measure.Tcp] = field(default_factory=dict)  # "a > b", "b > a"
    memory_mb: dict[str, float] = field(default_factory=dict)

    def loss_percent(self) -> float:
        """The worst loss of all pings."""
        return max(map(measure.loss_percent, self.pings.values()), default=100.0)


def demonstrate(
    world: World, size: int, *, back: bool = False, verify: bool = False, mtu: int = 2800
) -> Result:
    """Builds the world, joins, pings both ways over IPv4 and IPv6, sends ``size`` bytes by TCP.

    ``back`` sends them the other way too, ``verify`` compares what arrived with what was sent.
    """
    result = Result()
    world.create()
    world.start()
    nwid = world.create_network(mtu=mtu)
    started = time.monotonic()
    world.join(nwid)
    world.wait_joined(nwid)
    result.join_s = time.monotonic() - started
    a, b = world.nodes
    for source, target in ((a, b), (b, a)):
        addresses = by_family(target.addresses(nwid))
        for kind, address in zip(("IPv4", "RFC 4193", "6PLANE"), addresses, strict=True):
            words = f"{source.host.name} > {target.host.name} {kind}"
            world.step(f"ping {words} ({address})")
            world.commands.append(f"{source.host.prompt} ping -c 20 -i 0.02 {address}")
            measure.wait_ping(source.host, address)
            result.pings[words] = measure.ping(source.host, address, count=20, interval_s=0.02)
    world.wait_direct()
    result.direct = True
    for source, target in ((a, b), (b, a)) if back else ((a, b),):
        words = f"{source.host.name} > {target.host.name}"
        v4 = by_family(target.addresses(nwid))[0]
        world.step(f"TCP {words}, {size // MIB} MiB through the tunnel")
        sender = f"python -m bench.traffic tcp-source {v4} 5201 --bytes {size}"
        world.commands.append(f"{target.host.prompt} python -m bench.traffic tcp-sink 5201")
        world.commands.append(f"{source.host.prompt} {sender}")
        carriers = [a.running, b.running]
        result.tcp[words] = measure.tcp(
            source.host, target.host, v4, programs=carriers, size=size, verify=verify
        )
    for role, service in world.services.items():
        result.memory_mb[role] = service.running.memory_bytes() / 1e6
    return result


def table(result: Result) -> str:
    """The result as aligned lines."""
    rows = [("both nodes configured", f"{result.join_s:.2f} s after zerotier-cli join")]
    for words, ping in result.pings.items():
        mean, p99 = ping["mean"] / 1000, ping["p99"] / 1000
        loss = measure.loss_percent(ping)
        rows.append((f"ping {words}", f"{mean:.2f} ms mean, {p99:.2f} ms p99, {loss:.0f}% loss"))
    for words, tcp in result.tcp.items():
        rows.append((f"TCP {words}", f"{tcp.gbit_per_s:.2f} Gbit/s ({tcp.seconds:.1f} s)"))
        rows.append(("CPU, a and b together", f"{tcp.cpu_s_per_gb:.2f} s per GB"))
    memory = ", ".join(f"{role} {size:.0f} MB" for role, size in result.memory_mb.items())
    rows.append(("resident memory", memory))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def progress() -> Callable[[str], None]:
    """Prints one line per step, with the seconds since the start."""
    started = time.monotonic()

    def step(text: str) -> None:
        print(f"[{time.monotonic() - started:6.2f} s] {text}", flush=True)

    return step


def choose(words: str) -> dict[str, Program]:
    """Who plays each role; ``words`` names those that the original plays, with commas."""
    wanted = {word for word in words.split(",") if word}
    if unknown := wanted - set(ROLES):
        raise LabError(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(ROLES)}")
    original = reference()
    if wanted and original is None:
        raise LabError("--reference needs ZT_REFERENCE=<folder with zerotier-one>")
    return {role: original if original and role in wanted else ours() for role in ROLES}


def last_words(world: World) -> str:
    """The end of what each service printed, for a failure."""
    texts = []
    for role, service in world.services.items():
        if service.process:
            lines = service.process.output().splitlines()[-15:]
            texts.append("\n".join([f"--- {role} ---", *lines]))
    return "\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.demo")
    parser.add_argument("--reference", default="", help="roles of the original: root,a,b")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="TCP (1024)")
    parser.add_argument("--mtu", type=int, default=2800, help="of the network (2800)")
    args = parser.parse_args()
    keep = os.environ.get("KEEP", "0") not in ("", "0")
    step = progress()
    end_on_sigterm()
    try:
        with Lab(keep=keep) as lab:
            world = World(lab, choose(args.reference), step=step)
            try:
                result = demonstrate(world, args.size * MIB, mtu=args.mtu)
            except LabError:
                print(last_words(world), file=sys.stderr)
                raise
            print("\nCommands used:")
            for command in world.commands:
                print(f"  {command}")
            print(f"\nResults:\n{table(result)}\n")
            if keep:
                print(f"Left running: namespaces {lab.name}-*, files in {lab.directory}.")
                print("Remove them with: python -m bench.lab clean")
            else:
                step("removing everything")
    except LabError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        print("interrupted; everything was removed", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
