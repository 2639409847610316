"""Answers of a service with peers, networks and a moon, against the recorded ones (ch. 06, 3).

Values belong to the recorded machines; names, types and states must be the same here.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import measure
from bench.lab import Lab, wait_for
from bench.world import PORT, Service, World, by_family, ours, run

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab() as lab:
        world = World(lab, {"root": ours(), "a": ours(), "b": ours(), "c": ours()})
        world.create()
        world.start()
        nwid = world.create_network(dns={"domain": "corp.example", "servers": ["10.66.0.2"]})
        world.nodes.pop()  # c joins nothing and has met nobody
        world.join(nwid)
        world.wait_joined(nwid)
        target = by_family(world.services["b"].addresses(nwid))[0]
        measure.ping(world.services["a"].host, target, count=3, interval_s=0.05)
        world.wait_direct()
        yield world


def recorded(vectors: Callable[[str], Any], kind: Callable[[dict[str, Any]], bool]) -> list[Any]:
    """Recorded objects of that kind, out of single answers and arrays."""
    found = []
    for exchange in vectors("service_http.json")["exchanges"]:
        value = exchange["response"].get("json")
        found += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)]
    found = [value for value in found if kind(value)]
    assert found
    return found


def types(value: dict[str, Any]) -> dict[str, type]:
    return {key: type(entry) for key, entry in value.items()}


def test_network(world: World, vectors: Callable[[str], Any]) -> None:
    network = world.services["a"].network(world.nwid)
    for other in recorded(
        vectors,
        lambda v: v.get("status") == "OK" and v.get("type") == "PRIVATE" and "ssoEnabled" not in v,
    ):
        assert types(network) == types(other)
        for entry in ("routes", "multicastSubscriptions"):
            if other[entry]:
                assert types(network[entry][0]) == types(other[entry][0])
        assert types(network["dns"]) == types(other["dns"])
    assert network["status"] == "OK"
    assert network["netconfRevision"] > 0
    assert network["dns"] == {"domain": "corp.example", "servers": ["10.66.0.2"]}
    assert {"adi": 0, "mac": "01:00:5e:00:00:01"} in network["multicastSubscriptions"]
    for address in network["assignedAddresses"]:
        assert "/" in address


def test_states_of_networks(world: World, vectors: Callable[[str], Any]) -> None:
    """Refused, not found, without an answer, and self-configured (recorded exchange 112)."""
    a = world.services["a"]
    denied = f"{world.root.address}00dead"
    world.root.api("POST", f"/controller/network/{denied}", {"private": True})
    wanted = {
        denied: "ACCESS_DENIED",
        f"{world.root.address}00beef": "NOT_FOUND",
        "0123456789000001": "REQUESTING_CONFIGURATION",
        "ff00160016000000": "OK",
    }
    for nwid in wanted:
        a.cli("join", nwid)
    for nwid, status in wanted.items():
        wait_for(status, lambda n=nwid, s=status: a.network(n)["status"] == s)  # type: ignore[misc]
    listed = a.api("GET", "/network")
    assert [n["id"] for n in listed] == sorted(n["id"] for n in listed)
    for status in ("ACCESS_DENIED", "NOT_FOUND", "REQUESTING_CONFIGURATION"):
        ours_value = next(n for n in listed if n["status"] == status)
        for other in recorded(vectors, lambda v, s=status: v.get("status") == s):
            assert types(ours_value) == types(other)
            for key in ("name", "type", "mtu", "netconfRevision", "bridge", "portError"):
                assert ours_value[key] == other[key], key
    for nwid in wanted:
        assert json.loads(a.cli("-j", "leave", nwid)) == {"result": True}


def test_peers(world: World, vectors: Callable[[str], Any]) -> None:
    a = world.services["a"]
    peers = a.api("GET", "/peer")
    assert [p["address"] for p in peers] == sorted(p["address"] for p in peers)
    direct = next(p for p in peers if p["address"] == world.services["b"].address)
    root = next(p for p in peers if p["address"] == world.root.address)
    assert root["role"] == "PLANET"
    assert direct["role"] == "LEAF"
    assert direct["version"] == "1.14.1"
    for other in recorded(vectors, lambda v: v.get("isBonded") is False):
        assert types(direct) == types(other)
        for path in other["paths"]:
            assert types(direct["paths"][0]) == types(path)
    for peer in (direct, root):
        assert sum(path["preferred"] for path in peer["paths"]) == 1


def test_moon(world: World, vectors: Callable[[str], Any]) -> None:
    """Orbit through a seed: waiting at first, then the definition, then gone again."""
    a, b = world.services["c"], world.services["b"]
    folder = b.home / "moons.d"
    folder.mkdir()
    text = run(b.program, b.program.idtool, "initmoon", b.home / "identity.public")
    description = json.loads(text)
    description["roots"][0]["stableEndpoints"] = [f"{b.host.address}/{PORT}"]
    (b.home / "moon.json").write_text(json.dumps(description))
    run(b.program, b.program.idtool, "genmoon", b.home / "moon.json", cwd=folder)
    b.stop()
    b.start()
    assert listed(b) == [f"{int(b.address, 16):016x}"]

    answer = a.api("POST", f"/moon/{b.address}", {"seed": b.address})
    (waiting,) = recorded(vectors, lambda v: v.get("waiting") is True)[:1]
    assert types(answer) == types(waiting)
    assert answer["waiting"]
    wait_for("the moon's definition", lambda: listed(a) != [], 45)
    (moon,) = a.api("GET", "/moon")
    for other in recorded(vectors, lambda v: v.get("waiting") is False):
        assert types(moon) == types(other)
        assert types(moon["roots"][0]) == types(other["roots"][0])
    assert a.api("GET", f"/moon/{b.address}") == moon
    assert a.peer(b.address)["role"] == "MOON"
    assert (a.home / "moons.d" / f"{moon['id']}.moon").exists()
    assert a.api("DELETE", f"/moon/{moon['id']}") == {"result": True}  # 16 digits, too (Q12)
    assert listed(a) == []
    wait_for("the old role", lambda: a.peer(b.address)["role"] == "LEAF")


def listed(service: Service) -> list[str]:
    return [moon["id"] for moon in service.api("GET", "/moon")]


def test_metrics_tell_of_traffic(world: World) -> None:
    a = world.services["a"]

    def value(name: str) -> float:
        _, text = a.request("GET", "/metrics")
        lines = [line for line in text.decode().splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    name = f'zt_network_packets{{accepted="yes",direction="tx",network_id="{world.nwid}"}}'
    before = value(name)
    target = by_family(world.services["b"].addresses(world.nwid))[0]
    measure.ping(a.host, target, count=20, interval_s=0.005)
    wait_for("the counters", lambda: value(name) >= before + 20)
    assert value('zt_data{direction="tx",protocol="udp"}') > 0
    assert value("zt_num_networks") >= 1
    assert value(f'zt_peer_path_count{{node_id="{world.root.address}",status="alive"}}') >= 1
