"""Our programs and the original in all eight combinations of roles, as a Markdown table.

    ZT_REFERENCE=<folder with zerotier-one> python -m bench.interop [--size MIB]

docs/interop.md holds the table of the last run.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from bench.demo import MIB, ROLES, Result, choose, demonstrate, progress
from bench.lab import Lab, LabError, end_on_sigterm
from bench.measure import loss_percent
from bench.world import World

HEADER = (
    "root, controller",
    "a",
    "b",
    "joined after",
    "ping a > b",
    "ping b > a",
    "TCP a > b",
    "TCP b > a",
)


def row(roles: dict[str, str], result: Result) -> str:
    """One combination as a line of the table."""
    cells = [roles[role] for role in ROLES]
    cells.append(f"{result.join_s:.1f} s")
    for way in ("a > b", "b > a"):
        pings = [ping for words, ping in result.pings.items() if words.startswith(way)]
        mean = sum(ping["mean"] for ping in pings) / len(pings) / 1000
        lost = max(map(loss_percent, pings))
        cells.append(f"{len(pings)} of 3 kinds, {mean:.2f} ms, {lost:.0f}% lost")
    for way in ("a > b", "b > a"):
        tcp = result.tcp[way]
        cells.append(f"{tcp.gbit_per_s:.2f} Gbit/s, {'intact' if tcp.intact else 'DAMAGED'}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.interop")
    parser.add_argument("--size", type=int, default=128, metavar="MIB", help="TCP each way (128)")
    args = parser.parse_args()
    step = progress()
    end_on_sigterm()
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    try:
        for players in itertools.product(("ours", "original"), repeat=len(ROLES)):
            roles = dict(zip(ROLES, players, strict=True))
            step(", ".join(f"{role}: {player}" for role, player in roles.items()))
            original = ",".join(role for role, player in roles.items() if player == "original")
            with Lab() as lab:
                world = World(lab, choose(original))
                lines.append(
                    row(roles, demonstrate(world, args.size * MIB, back=True, verify=True))
                )
    except LabError as error:
        sys.exit(f"interop: {error}")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
