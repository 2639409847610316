"""One home folder, used by the original and by us in turn: nothing is lost on the way."""

import json
import os
from typing import Any

import pytest

from bench import measure
from bench.lab import Lab, wait_for
from bench.world import PORT, Program, Service, World, by_family, ours, reference, run

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not os.environ.get("ZT_REFERENCE"),
        reason="the original's side needs ZT_REFERENCE=<folder with zerotier-one>",
    ),
]


def make_moon(root: Service) -> str:
    """A moon of this node alone, in its home; its ID, 16 digits."""
    folder = root.host.lab.directory / "moon"
    folder.mkdir()
    world = json.loads(
        run(root.program, root.program.idtool, "initmoon", root.home / "identity.public")
    )
    world["roots"][0]["stableEndpoints"] = [f"{root.host.address}/{PORT}"]
    (folder / "moon.json").write_text(json.dumps(world))
    run(root.program, root.program.idtool, "genmoon", "moon.json", cwd=folder)
    (made,) = folder.glob("*.moon")
    (root.home / "moons.d").mkdir()
    (root.home / "moons.d" / made.name).write_bytes(made.read_bytes())
    return made.stem


def seen(node: Service, nwid: str) -> dict[str, Any]:
    """What must be the same under either program."""
    network = node.network(nwid)
    moons = node.api("GET", "/moon")
    return {
        "identity": node.api("GET", "/status")["publicIdentity"],
        "network": {
            key: network[key]
            for key in ("id", "mac", "name", "assignedAddresses", "portDeviceName", "allowGlobal")
        },
        "moons": [(moon["id"], moon["timestamp"], moon["signature"]) for moon in moons],
        "token": (node.home / "authtoken.secret").read_text(),
    }


def configured(node: Service, nwid: str) -> bool:
    """Whether the network is OK; the API may answer before the networks of the home are joined."""
    status, body = node.request("GET", f"/network/{nwid}")
    return status == 200 and json.loads(body)["status"] == "OK"


def peers(node: Service) -> set[str]:
    return {peer["address"] for peer in node.api("GET", "/peer")}


@pytest.mark.parametrize("first", ["original", "ours"])
def test_a_home_goes_from_one_to_the_other_and_back(lab: Lab, first: str) -> None:
    original = reference()
    assert original is not None
    programs: list[Program] = [original, ours()] if first == "original" else [ours(), original]
    world = World(lab, {"root": ours(), "a": programs[0], "b": ours()})
    world.create()
    a, b = world.nodes
    moon = make_moon(b)
    world.start()
    nwid = world.create_network()
    world.join(nwid)
    world.wait_joined(nwid)
    a.cli("set", nwid, "allowGlobal=1")
    a.cli("orbit", moon[6:], b.address)
    wait_for("the moon", lambda: a.api("GET", "/moon") and not a.api("GET", "/moon")[0]["waiting"])
    measure.wait_ping(a.host, by_family(b.addresses(nwid))[0])
    wait_for("both peers", lambda: peers(a) >= {world.root.address, b.address})
    before = seen(a, nwid)
    for program in (programs[1], programs[0]):
        a.stop()
        cached = {path.stem for path in (a.home / "peers.d").glob("*.peer")}
        assert cached >= {world.root.address, b.address}
        world.root.stop()  # what the next one knows, it knows from its home
        a.program = program
        a.start()
        wait_for("the network", lambda: configured(a, nwid))
        assert seen(a, nwid) == before
        world.root.start()
        wait_for("the addresses", lambda: a.addresses(nwid))
        measure.wait_ping(a.host, by_family(b.addresses(nwid))[0])
        wait_for("both peers again", lambda: peers(a) >= {world.root.address, b.address})
