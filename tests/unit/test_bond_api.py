"""Bonds in the local API and the command line, as recorded (ch. 06, 3.7, 3.9, 4.9)."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import require_cases
from tests.unit.test_service_http import (
    PROTOCOL_HEADERS,
    FakeDaemon,
    FakeNode,
    exchange,
    raw_request,
    serve,
)
from zt.cli import tables
from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.service import localconf
from zt.vl1.bond.status import BondPathStatus, BondStatus
from zt.vl1.status import PathStatus, PeerStatus

STATE = "bonding in use"
CONF = b'{"settings": {"defaultBondingPolicy": "active-backup"}}'


def status_of(peer: dict[str, Any]) -> PeerStatus:
    """The status that the recorded object must come from."""
    return PeerStatus(
        address=Address(int(peer["address"], 16)),
        version=(peer["versionMajor"], peer["versionMinor"], peer["versionRev"]),
        latency_ms=peer["latency"],
        role=peer["role"],
        paths=tuple(
            PathStatus(
                address=InetAddress.parse(path["address"]),
                socket=path["localSocket"],
                last_send_ms=path["lastSend"],
                last_receive_ms=path["lastReceive"],
                trusted_id=path["trustedPathId"],
                preferred=path["preferred"],
                bond=BondPathStatus(
                    device=path["ifname"],
                    local_port=path["localPort"],
                    latency_mean_ms=path["latencyMean"],
                    latency_deviation_ms=path["latencyVariance"],
                    quality=path["relativeQuality"],
                    flows=path["assignedFlowCount"],
                    capacity=path["givenLinkSpeed"],
                    bonded=bool(path["bonded"]),
                    eligible=bool(path["eligible"]),
                ),
            )
            for path in peer["paths"]
        ),
        bond=BondStatus(
            policy=peer["bondingPolicyCode"],
            policy_name=peer["bondingPolicyStr"],
            alive_links=peer["numAliveLinks"],
            total_links=peer["numTotalLinks"],
            failover_interval_ms=peer["failoverInterval"],
            up_delay_ms=peer["upDelay"],
            down_delay_ms=peer["downDelay"],
            packets_per_link=peer["packetsPerLink"],
        ),
    )


class BondedNode(FakeNode):
    """A node with the one recorded bond."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.mtus: list[int] = []

    def rotate_bond(self, peer: int, now_ms: int) -> bool:
        return peer in self.known

    def set_bond_mtu(self, mtu: int, device: str, ip: bytes) -> bool:
        paths = [path for status in self.known.values() for path in status.paths if path.bond]
        found = any(p.bond.device == device and p.address.ip == ip for p in paths)  # type: ignore[union-attr]
        self.mtus += [mtu] if found else []
        return found


@pytest.fixture
def daemon(tmp_path: Path, identity: Identity) -> FakeDaemon:
    daemon = FakeDaemon(tmp_path, identity)
    daemon.conf = localconf.parse(CONF)
    daemon.node = BondedNode(identity)
    return daemon


def test_recorded_exchanges(vectors: Callable[[str], Any], daemon: FakeDaemon) -> None:
    """Status, headers and body, byte for byte, of all that was recorded with a bond."""
    exchanges = [
        entry
        for entry in vectors("service_http.json")["exchanges"]
        if entry["state"] == STATE and entry["request"]["target"].startswith(("/bond", "/peer/"))
    ]
    require_cases(exchanges, "service_http.json, with a bond")
    node = daemon.node
    assert isinstance(node, BondedNode)

    async def talk(port: int) -> None:
        for recorded in exchanges:
            peer = recorded["response"].get("json")
            if isinstance(peer, dict) and "paths" in peer:
                status = status_of(peer)
                node.known = {status.address: status}
                path = peer["paths"][0]
                now_ms = path["lastReceive"] + path["lastInAge"]
                daemon.clock = SimpleNamespace(now_ms=lambda now_ms=now_ms: now_ms)  # type: ignore[assignment]
            answer = await exchange(port, raw_request(recorded["request"]))
            assert answer.status == recorded["response"]["raw_status_line"], recorded["n"]
            expected = {name.lower(): value for name, value in recorded["response"]["headers"]}
            for name in PROTOCOL_HEADERS:
                assert answer.headers.get(name) == expected.get(name), recorded["n"]
            assert answer.body.decode() == recorded["response"]["body"], recorded["n"]

    serve(daemon, talk)
    targets = "".join(recorded["request"]["target"] for recorded in exchanges)
    assert all(f"/setmtu/{mtu}/" in targets for mtu in node.mtus)


@pytest.mark.parametrize("ip", ["1.2.3", "::::", "44.66.0.999", "."])
def test_no_address(daemon: FakeDaemon, ip: str) -> None:
    async def talk(port: int) -> None:
        request = {"method": "POST", "target": f"/bond/setmtu/1400/eth0/{ip}"}
        request |= {"headers": [["X-ZT1-Auth", "$AUTH"]]}  # type: ignore[dict-item]
        answer = await exchange(port, raw_request(request))
        assert answer.status == "HTTP/1.1 400 Bad Request"
        assert answer.body == b"Unable to find specified link"

    serve(daemon, talk)


def recorded_cli(vectors: Callable[[str], Any], *words: str) -> str:
    """stdout of the first such command that was recorded while a bond carried traffic."""
    for case in vectors("cli.json")["cases"]:
        if case["state"].startswith("bonding in use, traffic") and case["argv"][1:] == list(words):
            return str(case["stdout"])
    require_cases(False, f"cli.json, {' '.join(words)} with a bond")
    raise AssertionError("unreachable")


def test_recorded_tables(vectors: Callable[[str], Any]) -> None:
    """The recorded JSON, shown as the tables recorded beside it; ages had moved on meanwhile."""
    peers = json.loads(recorded_cli(vectors, "-j", "bond", "list"))
    expected = recorded_cli(vectors, "bond", "list")
    assert "\n".join(tables.list_bonds(peers)) + "\n" == expected

    (bonded,) = [peer for peer in peers if peer["isBonded"]]
    shown = json.loads(recorded_cli(vectors, "-j", "bond", bonded["address"], "show"))
    lines = recorded_cli(vectors, "bond", bonded["address"], "show").splitlines()
    ours = list(tables.show_bond(shown))
    count = len(shown["paths"])
    assert ours[:-count] == lines[:-count]
    for own, other in zip(ours[-count:], lines[-count:], strict=True):
        assert len(own) == len(other)
        fields, expected_fields = own.split(), other.split()
        assert fields[:5] == expected_fields[:5]
        assert fields[7:8] + fields[9:] == expected_fields[7:8] + expected_fields[9:]
