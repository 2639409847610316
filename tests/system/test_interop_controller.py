"""Networks of our controller with unmodified originals as members, and the other way round.

``ZT_REFERENCE`` names the folder of the original's ``zerotier-one``.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from bench import measure
from bench.lab import Lab, wait_for
from bench.world import Service, World, by_family, ours, reference
from zt.protocol.address import Address, NetworkId, rfc4193, sixplane
from zt.protocol.inet import ip_text

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not os.environ.get("ZT_REFERENCE"),
        reason="needs ZT_REFERENCE=<folder with the original's zerotier-one>",
    ),
]

ACCEPT = {"type": "ACTION_ACCEPT"}
DROP = {"type": "ACTION_DROP"}
ARP = {"type": "MATCH_ETHERTYPE", "etherType": 0x0806}
IPV4 = {"type": "MATCH_ETHERTYPE", "etherType": 0x0800}
ICMP = {"type": "MATCH_IP_PROTOCOL", "ipProtocol": 1}
OTHER_TAG = {"type": "MATCH_TAGS_DIFFERENCE", "id": 1, "value": 0, "not": True}
PATIENCE_S = 120.0
"""A member polls once a minute."""


@pytest.fixture(
    scope="module",
    params=["originals join ours", "ours join an original", "one of each joins ours"],
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    original = reference()
    assert original is not None
    players = {
        "originals join ours": (ours(), original, original),
        "ours join an original": (original, ours(), ours()),
        "one of each joins ours": (ours(), original, ours()),
    }
    with Lab() as lab:
        world = World(lab, dict(zip(("root", "a", "b"), players[request.param], strict=True)))
        world.create()
        world.start()
        yield world


class Net:
    """A network that the nodes have joined; they leave it at the end."""

    def __init__(self, world: World, number: int, *, admit: bool = True, **fields: Any) -> None:
        self.world = world
        self.a, self.b = world.nodes
        self.nwid = f"{world.root.address}{number:06x}"
        base = {
            "v4AssignMode": {"zt": True},
            "ipAssignmentPools": [
                {"ipRangeStart": f"10.{number}.0.1", "ipRangeEnd": f"10.{number}.0.254"}
            ],
            "routes": [{"target": f"10.{number}.0.0/24"}],
        }
        self.set(**base | fields)
        for node in world.nodes if admit else ():
            self.member(node, authorized=True)
        world.join(self.nwid)

    def __enter__(self) -> "Net":
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.world.nodes:
            node.cli("leave", self.nwid)

    def set(self, **fields: Any) -> None:
        self.world.root.api("POST", f"/controller/network/{self.nwid}", fields)

    def member(self, node: Service, **fields: Any) -> None:
        self.world.root.api(
            "POST", f"/controller/network/{self.nwid}/member/{node.address}", fields
        )

    def shows(self, what: str, node: Service, **fields: Any) -> None:
        """Wait until the node itself says so."""

        def check() -> bool:
            network = node.network(self.nwid)
            return all(network[name] == value for name, value in fields.items())

        wait_for(f"{node.host.name}: {what}", check, PATIENCE_S, [node.running])

    def settled(self) -> None:
        for node in self.world.nodes:
            self.shows("is a member", node, status="OK")
            wait_for("its addresses", lambda node=node: node.addresses(self.nwid), PATIENCE_S)

    def ip(self, node: Service) -> str:
        return node.addresses(self.nwid)[0]

    def pings(self, source: Service, address: str) -> bool:
        options = ["--count", 1, "--patience", 1]
        return bool(
            measure.finish(measure.start(source.host, "ping", address, *options))["received"]
        )

    def meet(self, reason: str) -> None:
        """Wait until each reaches the other."""
        for one, other in ((self.a, self.b), (self.b, self.a)):
            address = self.ip(other)
            what = f"{one.host.name} to reach {other.host.name}: {reason}"
            wait_for(what, lambda one=one, address=address: self.pings(one, address), PATIENCE_S)

    def part(self, reason: str) -> None:
        """Wait until neither reaches the other, three times in a row."""
        ways = [(self.a, self.ip(self.b)), (self.b, self.ip(self.a))]

        def apart() -> bool:
            return not any(self.pings(one, address) for one, address in ways * 3)

        wait_for(f"them to be apart: {reason}", apart, PATIENCE_S)


def test_a_public_network_admits_everybody(world: World) -> None:
    with Net(world, 1, admit=False, private=False) as net:
        net.settled()
        net.meet("public")
        assert {node.network(net.nwid)["type"] for node in world.nodes} == {"PUBLIC"}
        members = world.root.api("GET", f"/controller/network/{net.nwid}/member")
        assert set(members) == {node.address for node in world.nodes}
        member = world.root.api("GET", f"/controller/network/{net.nwid}/member/{net.a.address}")
        assert (member["authorized"], member["lastAuthorizedCredentialType"]) == (True, "public")
        assert member["identity"].startswith(net.a.identity.rsplit(":", 1)[0][:20])


def test_a_private_network_lets_in_and_puts_out(world: World) -> None:
    with Net(world, 2, admit=False) as net:
        for node in world.nodes:
            net.shows("is refused", node, status="ACCESS_DENIED")
            net.member(node, authorized=True)
        net.settled()
        net.meet("authorized")
        addresses = {node.address: net.ip(node) for node in world.nodes}
        b = net.ip(net.b)
        net.member(net.b, authorized=False)
        gone = wait_for(
            "the others to be told",
            lambda: not any(net.pings(net.a, b) for _ in range(3)),
            30,
        )
        assert gone
        net.shows("is put out", net.b, status="ACCESS_DENIED")
        assert net.a.network(net.nwid)["status"] == "OK"
        net.member(net.b, authorized=True)
        net.settled()
        net.meet("authorized again")
        assert {node.address: net.ip(node) for node in world.nodes} == addresses


def test_computed_addresses(world: World) -> None:
    modes = {"v6AssignMode": {"rfc4193": True, "6plane": True, "zt": False}}
    with Net(world, 3, **modes) as net:
        net.settled()
        nwid = NetworkId.parse(net.nwid)
        for node in world.nodes:
            address = Address.parse(node.address)
            _, private, plane = by_family(node.addresses(net.nwid))
            assert private == ip_text(rfc4193(nwid, address))
            assert plane == ip_text(sixplane(nwid, address))
        for family in (1, 2):
            target = by_family(net.b.addresses(net.nwid))[family]
            wait_for(f"a to reach {target}", lambda t=target: net.pings(net.a, t), PATIENCE_S)


def test_a_change_reaches_members(world: World) -> None:
    """Name, MTU, a managed route, DNS, and rules that come and go."""
    with Net(world, 4) as net:
        net.settled()
        net.meet("at first")
        net.set(
            name="renamed",
            mtu=1400,
            routes=[{"target": "10.4.0.0/24"}, {"target": "10.99.0.0/16", "via": net.ip(net.b)}],
            dns={"domain": "lab.example", "servers": ["10.4.0.9"]},
        )
        net.shows("has the change", net.a, name="renamed", mtu=1400)
        network = net.a.network(net.nwid)
        routes = {(route["target"], route["via"]) for route in network["routes"]}
        assert routes == {("10.4.0.0/24", None), ("10.99.0.0/16", net.ip(net.b))}
        assert network["dns"] == {"domain": "lab.example", "servers": ["10.4.0.9"]}
        device = network["portDeviceName"]
        for what, words in (
            ("10.99.0.0/16 via ", ["route", "show", "dev"]),
            ("mtu 1400 ", ["link", "show"]),
        ):
            wait_for(
                f"the kernel to have {what}",
                lambda what=what, words=words: (
                    what in net.a.host.run(["ip", *words, device]).stdout
                ),
            )
        net.set(rules=[ICMP, DROP, ACCEPT])
        net.part("ICMP is dropped")
        net.set(rules=[ACCEPT])
        net.meet("the rule is gone")


def test_tags(world: World) -> None:
    rules = [ARP, ACCEPT, OTHER_TAG, DROP, ACCEPT]
    with Net(world, 5, rules=rules, tags=[{"id": 1, "default": 7}]) as net:
        net.settled()
        net.meet("both have the default tag")
        stored = world.root.api("GET", f"/controller/network/{net.nwid}/member/{net.a.address}")
        assert stored["tags"] == [[1, 7]]
        net.member(net.b, tags=[[1, 8]])
        net.part("tags differ")
        net.member(net.b, tags=[[1, 7]])
        net.meet("tags agree again")


def test_capabilities(world: World) -> None:
    capability = {"id": 3, "default": False, "rules": [IPV4, ACCEPT]}
    with Net(world, 6, rules=[ARP, ACCEPT], capabilities=[capability]) as net:
        net.settled()
        net.part("nobody has the capability")
        for node in world.nodes:
            net.member(node, capabilities=[3])
        net.meet("both have the capability")
        net.member(net.a, capabilities=[])
        net.part("one has lost it")
