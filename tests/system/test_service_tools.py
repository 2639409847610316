"""The commands that explain: status, ping, netcheck, wait, network show, capture, doctor."""

import io
import json
import re
import socket
import struct
import tarfile
from collections.abc import Iterator

import pytest

from bench import measure
from bench.lab import Lab, wait_for
from bench.world import Service, World, by_family, ours

pytestmark = pytest.mark.system


RULES = [
    {"type": "MATCH_IP_PROTOCOL", "ipProtocol": 17},
    {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 81, "end": 81},
    {"type": "ACTION_DROP"},
    {"type": "ACTION_ACCEPT"},
]
"""Everything but UDP to port 81."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A root with a controller and two nodes on one network, talking directly."""
    with Lab() as lab:
        world = World(lab, {"root": ours(), "a": ours(), "b": ours()})
        world.create()
        world.start()
        nwid = world.create_network(rules=RULES)
        world.join(nwid)
        world.wait_joined(nwid)
        target = by_family(world.services["b"].addresses(nwid))[0]
        measure.ping(world.services["a"].host, target, count=3, interval_s=0.05)
        world.wait_direct()
        yield world


def command(service: Service, *words: str) -> tuple[int, str, str]:
    argv = [*service.program.cli, f"-D{service.home}", *words]
    done = service.host.run(argv, check=False, env=dict(service.program.env))
    return done.returncode, done.stdout, done.stderr


def test_status_explains(world: World) -> None:
    a = world.services["a"]
    code, out, _ = command(a, "status", "explain")
    assert code == 0
    assert out.startswith(f"200 info {a.address} ")
    assert re.search(r"ok +roots: 1 of 1 roots reached directly", out)
    assert re.search(rf"ok +network {world.nwid}: OK on zt", out)
    code, out, _ = command(a, "-j", "status", "explain")
    assert {check["level"] for check in json.loads(out)} == {"ok"}
    # Captured by a script, the command prints what it always did.
    assert command(a, "status")[1].count("\n") == 1


def test_status_names_the_remedy(world: World) -> None:
    b = world.services["b"]
    other = f"{world.root.address}00beef"
    b.cli("join", other)
    wait_for("the refusal", lambda: b.network(other)["status"] == "NOT_FOUND")
    code, out, _ = command(b, "status", "explain")
    assert code == 1
    assert f"ERROR   network {other}: NOT_FOUND" in out
    assert "-> check the network ID" in out
    b.cli("leave", other)


def test_ping(world: World) -> None:
    a, b = world.services["a"], world.services["b"]
    code, out, _ = command(a, "ping", b.address, "2")
    assert code == 0
    assert f"answer from {b.address} directly via {b.host.address}/" in out
    assert "2 of 2 answered" in out
    code, out, _ = command(a, "-j", "ping", world.root.address, "1")
    (reply,) = json.loads(out)
    assert reply["reply"]
    assert reply["hops"] == 0
    assert reply["ms"] > 0.01
    assert command(a, "ping", "nonsense")[0] == 2


def test_netcheck_and_wait(world: World) -> None:
    a = world.services["a"]
    code, out, _ = command(a, "netcheck")
    assert code == 0
    assert "NAT:          none" in out
    assert f"planet {world.root.address}: " in out
    assert command(a, "wait") == (0, "", "")
    assert command(a, "wait", world.nwid)[0] == 0
    code, _, err = command(a, "wait", "ff00000000000000", "1")
    assert code == 1
    assert "NOT JOINED" in err


def test_network_show(world: World) -> None:
    a = world.services["a"]
    code, out, _ = command(a, "network", "show", world.nwid)
    assert code == 0
    assert json.loads(out)["id"] == world.nwid
    code, out, _ = command(a, "network", "show", world.nwid, "--effective")
    assert code == 0
    assert "accept" in out
    code, out, _ = command(a, "-j", "network", "show", world.nwid, "--effective")
    assert json.loads(out)["rules"][0]["type"] == "MATCH_IP_PROTOCOL"


def packets(pcap: bytes) -> Iterator[bytes]:
    magic, *_, kind = struct.unpack_from("=IHHiIII", pcap)
    assert (magic, kind) == (0xA1B2C3D4, 101)
    at = 24
    while at < len(pcap):
        size = struct.unpack_from("=I", pcap, at + 8)[0]
        yield pcap[at + 16 : at + 16 + size]
        at += 16 + size


def test_capture_of_control_packets(world: World) -> None:
    """Plaintext of both directions: our ECHO and its OK."""
    a, b = world.services["a"], world.services["b"]
    capture = a.host.start(
        [*a.program.cli, f"-D{a.home}", "capture", "control", str(a.home / "control.pcap")],
        env=dict(a.program.env),
    )
    while capture.running:
        command(a, "ping", b.address, "1")
    assert capture.wait() == 0
    verbs = set()
    for packet in packets((a.home / "control.pcap").read_bytes()):
        zerotier = packet[28 if packet[0] >> 4 == 4 else 48 :]
        direction = "out" if zerotier[13:18].hex() == a.address else "in"
        verbs.add((direction, zerotier[27] & 0x1F))
    assert {("out", 0x08), ("in", 0x03)} <= verbs


def test_capture_of_frames(world: World) -> None:
    a, b = world.services["a"], world.services["b"]
    target = a.home / "frames.pcap"
    capture = a.host.start(
        [*a.program.cli, f"-D{a.home}", "capture", world.nwid, str(target)],
        env=dict(a.program.env),
    )
    wait_for("the file", lambda: target.exists() and target.stat().st_size >= 24)
    address = by_family(b.addresses(world.nwid))[0]

    def captured() -> bool:
        measure.ping(a.host, address, count=1, interval_s=0.01)
        return target.stat().st_size > 200

    wait_for("a frame", captured)
    capture.stop()


def test_trace(world: World) -> None:
    """A frame that the rules refuse is shown with the rule, for people and as JSON lines."""
    a, b = world.services["a"], world.services["b"]
    argv = [*a.program.cli, f"-D{a.home}"]
    address = by_family(b.addresses(world.nwid))[0]
    people = a.host.start([*argv, "trace", world.nwid], env=dict(a.program.env))
    machines = a.host.start([*argv, "-j", "trace", b.address], env=dict(a.program.env))

    def send() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(b"refused", (address, 81))
        # Each begins to listen when it has started: what is sent before is not for it.
        return (
            "rule 2: drop ipprotocol udp and dport 81 ;" in people.output()
            and '"reason":"filter"' in machines.output()
        )

    wait_for("the drop in both streams", lambda: a.host.inside(send), 20, [people, machines])
    assert f"sending on {world.nwid} to {b.address}: refused by the rules; udp " in people.output()
    records = [json.loads(line) for line in machines.output().splitlines()]
    assert records[0]["event"] == "listening"
    drop = next(record for record in records if record["event"] == "drop")
    assert (drop["rule"], drop["peer"], drop["direction"]) == (2, b.address, "tx")
    assert drop["flow"].endswith(f" > {address}/81")
    people.stop()
    machines.stop()
    assert command(a, "trace", "nonsense")[0] == 2


def test_doctor(world: World) -> None:
    """The archive has everything but secrets."""
    a = world.services["a"]
    conf = json.loads((a.home / "local.conf").read_text())
    (a.home / "local.conf").write_text(json.dumps({**conf, "vault": {"vaultToken": "hush"}}))
    argv = [*a.program.cli, f"-D{a.home}", "doctor", "--bundle"]
    done = a.host.run(["sh", "-c", f"cd {a.home} && {' '.join(argv)}"], env=dict(a.program.env))
    name = re.search(r"Writing bundle to: (\S+)", done.stdout)
    assert name is not None
    with open(name[1], "rb") as file:
        data = file.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        texts = {
            entry.name: archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in archive
        }
    assert {"zerotier-doctor/status.json", "zerotier-doctor/metrics.prom"} <= texts.keys()
    everything = "".join(texts.values())
    secret = (a.home / "identity.secret").read_text().rpartition(":")[2]
    token = (a.home / "authtoken.secret").read_text()
    assert secret not in everything
    assert token not in everything
    assert "hush" not in everything
    assert '"vaultToken": "(secret)"' in texts["zerotier-doctor/local.conf"]


def test_watch(world: World) -> None:
    a = world.services["a"]
    process = a.host.start(
        [*a.program.cli, f"-D{a.home}", "peers", "--watch"], env=dict(a.program.env)
    )
    wait_for("two refreshes", lambda: process.output().count("address ") >= 2)
    assert f"direct {world.services['b'].host.address}/" in process.output()
    process.stop()
