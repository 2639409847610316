"""Our programs and the unmodified original in every combination of roles.

``ZT_REFERENCE`` names the folder of the original's ``zerotier-one``; without it only the world
that is ours alone is tried.
"""

import itertools

import pytest

from bench import measure
from bench.demo import MIB, ROLES, choose, demonstrate
from bench.lab import Lab, wait_for
from bench.world import World, by_family
from tests.system.networks import needs_reference

pytestmark = pytest.mark.system


def combinations() -> list[object]:
    found: list[object] = []
    for count in range(len(ROLES) + 1):
        for roles in itertools.combinations(ROLES, count):
            marks = [needs_reference] if roles else []
            found.append(pytest.param(",".join(roles), marks=marks, id="+".join(roles) or "ours"))
    return found


@pytest.mark.parametrize("original", combinations())
def test_a_world_joins_and_passes_traffic_both_ways(lab: Lab, original: str) -> None:
    """``original``: the roles that the original plays."""
    world = World(lab, choose(original))
    result = demonstrate(world, 32 * MIB, back=True, verify=True)
    assert result.loss_percent() == 0
    assert len(result.pings) == 6
    assert result.direct
    assert [tcp.intact for tcp in result.tcp.values()] == [True, True]

    nwid = world.nwid
    for node in world.nodes:
        assert f"200 info {node.address} " in node.cli("info")
        assert nwid in node.cli("listnetworks")
        assert world.root.address in node.cli("peers")
        assert node.cli("leave", nwid) == "200 leave OK\n"
    for role, service in world.services.items():
        status = service.stop()
        # The original sometimes aborts on its way out.
        assert status == 0 or role in original


@pytest.mark.parametrize(
    "original",
    ["", *(pytest.param(roles, marks=needs_reference) for roles in ("root", "a", "b"))],
)
def test_traffic_flows_through_the_root_when_nodes_cannot_meet(lab: Lab, original: str) -> None:
    world = World(lab, choose(original))
    world.create()
    a, b = world.nodes
    lab.separate(a.host, b.host)
    world.start()
    nwid = world.create_network()
    world.join(nwid)
    world.wait_joined(nwid)
    target = by_family(b.addresses(nwid))[0]
    measure.wait_ping(a.host, target)
    assert measure.tcp(a.host, b.host, target, size=8 * MIB, verify=True).intact
    assert not a.direct(b)
    # The wall falls: they find each other by themselves.
    lab.reunite(a.host, b.host)
    wait_for("a direct path", lambda: measure.wait_ping(a.host, target) and a.direct(b), 90)
