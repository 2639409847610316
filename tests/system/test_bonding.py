"""Two nodes joined by two links, bonded: real programs, the second link a cable of its own.

::

    root ── switch ── eth0 a eth1 ────── eth1 b eth0 ── switch
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import measure
from bench.demo import MIB, choose
from bench.lab import Host, Lab, ip, wait_for
from bench.world import LOCAL_CONF, Service, World, by_family
from tests.system.test_recovery import longest_silence

pytestmark = pytest.mark.system

F_MS = 2_000
LIMIT_S = 30.0  # a busy machine takes longer than the interval, never this long
CABLE = "44.67.0."
LINKS = {"eth0": {"mode": "primary"}, "eth1": {"mode": "spare"}}


def bonding(base: str, **more: Any) -> dict[str, Any]:
    policy = {"basePolicy": base, "failoverInterval": F_MS, **more}
    return {"defaultBondingPolicy": "mine", "policies": {"mine": policy}}


def make(lab: Lab, settings: dict[str, Any], *, original: str = "", alone: str = "") -> World:
    """``original``: roles that the original plays; ``alone``: the only node that bonds."""
    conf = {
        role: {"settings": {**LOCAL_CONF["settings"], "allowSecondaryPort": False, **more}}
        for role in ("a", "b")
        for more in ([settings] if alone in ("", role) else [{}])
    }
    world = World(lab, choose(original), local_conf=conf)
    a, b = (node.host for node in world.nodes)
    plug(a, b)
    world.create()
    world.start()
    nwid = world.create_network()
    world.join(nwid)
    world.wait_joined(nwid)
    meet(world, alone)
    return world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab() as lab:
        yield make(lab, bonding("active-backup", links=LINKS))


def plug(a: Host, b: Host) -> None:
    """A cable between the two hosts."""
    ip(
        *("-n", a.namespace, "link", "add", "eth1", "type", "veth"),
        *("peer", "name", "eth1", "netns", b.namespace),
    )
    for number, host in enumerate((a, b), 1):
        commands = f"addr add {CABLE}{number}/24 dev eth1\nlink set eth1 up\n"
        ip("-n", host.namespace, "-batch", "-", batch=commands)


def target(world: World) -> str:
    return by_family(world.nodes[1].addresses(world.nwid))[0]


def shown(node: Service, other: Service) -> dict[str, Any]:
    """The bond, or {} while there is none."""
    status, data = node.request("GET", f"/bond/show/{other.address}")
    return json.loads(data) if status == 200 else {}


def meet(world: World, alone: str = "") -> None:
    """Both links are known to be alive, at those ends that bond."""
    a, b = world.nodes
    there = target(world)

    def both() -> bool:
        measure.wait_ping(a.host, there)
        return all(
            len({path["ifname"] for path in shown(one, other).get("paths", ())}) == 2
            for one, other in ((a, b), (b, a))
            if alone in ("", one.host.name)
        )

    wait_for("both links", both, 120)


def use(world: World, settings: dict[str, Any]) -> None:
    """Other bonding settings, while the programs run."""
    a, b = world.nodes
    for node, other in ((a, b), (b, a)):
        node.api("POST", "/config/settings", settings)
        base = settings["policies"]["mine"]["basePolicy"]
        wait_for(base, lambda n=node, o=other, p=base: shown(n, o).get("bondingPolicyStr") == p, 30)
    meet(world)


def sent(host: Host) -> dict[str, int]:
    """Bytes that each link carried out."""
    counters = json.loads(ip("-n", host.namespace, "-s", "-j", "link", "show"))
    return {
        link["ifname"]: link["stats64"]["tx"]["bytes"]
        for link in counters
        if link["ifname"] in ("eth0", "eth1")
    }


def carried(host: Host, action: Callable[[], object]) -> tuple[int, int]:
    """Bytes that a host sent over eth0 and eth1 meanwhile."""
    before = sent(host)
    action()
    after = sent(host)
    return after["eth0"] - before["eth0"], after["eth1"] - before["eth1"]


def test_the_view_of_a_bond(world: World, vectors: Callable[[str], Any]) -> None:
    a, b = world.nodes
    bond = shown(a, b)
    recorded = [e["response"].get("json") for e in vectors("service_http.json")["exchanges"]]
    recorded = [v for v in recorded if isinstance(v, dict) and v.get("isBonded") is True]
    assert recorded
    for other in recorded:
        assert {k: type(v) for k, v in bond.items()} == {k: type(v) for k, v in other.items()}
        kinds = {k: type(v) for k, v in bond["paths"][0].items()}
        assert kinds == {k: type(v) for k, v in other["paths"][0].items()}
    assert bond["numTotalLinks"] == 2
    assert {path["ifname"] for path in bond["paths"]} == {"eth0", "eth1"}
    assert [path["ifname"] for path in bond["paths"] if path["bonded"]] == ["eth0"]
    assert f"{b.address}                     active-backup         2/2\n" in a.cli("bond", "list")
    assert "eth1" in a.cli("bond", b.address, "show")
    root = json.loads(a.cli("-j", "bond", "list"))
    assert [peer["isBonded"] for peer in root if peer["role"] == "PLANET"] == [False]


def test_active_backup_goes_on_over_the_other_link(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    a, b = world.nodes
    silence = longest_silence(world, lambda: world.lab.separate(a.host, b.host))
    record_property("silence_s", round(silence, 2))
    print(f"\nbonding: link cut, failover interval {F_MS / 1000:g} s: silence {silence:.2f} s")
    try:
        assert silence < LIMIT_S
        assert [p["ifname"] for p in shown(a, b)["paths"] if p["bonded"]] == ["eth1"]
    finally:
        world.lab.reunite(a.host, b.host)
    # The primary link is used again when it is back.
    wait_for("eth0", lambda: [p["ifname"] for p in shown(a, b)["paths"] if p["bonded"]] == ["eth0"])


def test_rotation_and_mtu_by_command(world: World) -> None:
    a, b = world.nodes
    use(world, bonding("active-backup"))
    (before,) = [p["ifname"] for p in shown(a, b)["paths"] if p["bonded"]]
    assert a.cli("bond", b.address, "rotate") == "200 rotate OK\n"
    (after,) = [p["ifname"] for p in shown(a, b)["paths"] if p["bonded"]]
    assert {before, after} == {"eth0", "eth1"}
    assert a.cli("bond", "setmtu", "1300", "eth1", f"{CABLE}2") == "200 setmtu OK\n"
    assert measure.wait_ping(a.host, target(world)) < LIMIT_S


@pytest.mark.parametrize("base", ["balance-rr", "balance-xor", "balance-aware"])
def test_both_links_carry(world: World, base: str) -> None:
    a, b = world.nodes
    use(world, bonding(base))

    def many() -> None:
        tcp = measure.tcp(a.host, b.host, target(world), streams=16, size=16 * MIB, verify=True)
        assert tcp.intact

    first, second = carried(a.host, many)
    print(f"\nbonding: {base}: eth0 {first / MIB:.1f} MiB, eth1 {second / MIB:.1f} MiB")
    # Not everything twice, as by broadcast below. The sum tells less: 17 to 18 MiB at rest, and
    # what TCP sends again when a busy machine delays one link.
    assert MIB < min(first, second) < 16 * MIB


def test_broadcast_carries_everything_twice(world: World) -> None:
    a, b = world.nodes
    use(world, bonding("broadcast"))

    def transfer() -> None:
        assert measure.tcp(a.host, b.host, target(world), size=8 * MIB, verify=True).intact

    first, second = carried(a.host, transfer)
    print(f"\nbonding: broadcast: eth0 {first / MIB:.1f} MiB, eth1 {second / MIB:.1f} MiB")
    assert min(first, second) > 8 * MIB
    result = measure.ping(a.host, target(world), count=50, interval_s=0.01)
    assert result["received"] == result["sent"]
