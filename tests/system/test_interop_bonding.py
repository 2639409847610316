"""Our node bonded with an unmodified original, which bonds or does not, over two links.

``ZT_REFERENCE`` names the folder of the original's ``zerotier-one``; everything here needs it. The
original takes its settings at its start, so that each case is a world of its own.
"""

import os
import time

import pytest

from bench import measure
from bench.demo import MIB
from bench.lab import Lab
from bench.world import by_family
from tests.system.test_bonding import F_MS, bonding, carried, make, shown
from tests.system.test_recovery import longest_silence

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not os.environ.get("ZT_REFERENCE"),
        reason="the original's side needs ZT_REFERENCE=<folder with zerotier-one>",
    ),
]

POLICIES = ("active-backup", "broadcast", "balance-rr", "balance-xor", "balance-aware")
STAY_S = float(os.environ.get("ZT_BONDING_STAY_S", "20"))
"""Longer than the trial of 15 s that new paths have in the original."""


@pytest.mark.parametrize("alone", ["a", "b", ""], ids=["ours bonds", "original bonds", "both"])
@pytest.mark.parametrize("policy", POLICIES)
def test_traffic_both_ways_and_a_cut(lab: Lab, policy: str, alone: str) -> None:
    world = make(lab, bonding(policy), original="b", alone=alone)
    a, b = world.nodes
    time.sleep(STAY_S)
    for source, sink in ((a, b), (b, a)):
        there = by_family(sink.addresses(world.nwid))[0]

        def transfer(source=source, sink=sink, there=there) -> None:  # type: ignore[no-untyped-def]
            tcp = measure.tcp(source.host, sink.host, there, streams=16, size=8 * MIB, verify=True)
            assert tcp.intact

        first, second = carried(source.host, transfer)
        name = source.program.name
        print(f"\n{policy}, {name}: eth0 {first / MIB:.1f} MiB, eth1 {second / MIB:.1f} MiB")
        if source is a and alone in ("", "a") and policy not in ("active-backup",):
            assert min(first, second) > 0.1 * MIB
    for node, other in ((a, b), (b, a)):
        bond = shown(node, other)
        paths = [
            f"{p['ifname']} bonded {p['bonded']} eligible {p['eligible']}"
            f" latency {p['latencyMean']:.2f} quality {p['relativeQuality']:.2f}"
            for p in bond.get("paths", ())
        ]
        print(f"{node.program.name}: {bond.get('bondingPolicyStr', 'no bond')}: {paths}")
    silence = longest_silence(world, lambda: lab.separate(a.host, b.host))
    print(f"{policy}: cut of eth0, F {F_MS} ms: silence {silence:.2f} s")
    assert measure.wait_ping(a.host, by_family(b.addresses(world.nwid))[0]) < 30
