"""Suites and offloads chosen in local.conf: data arrives intact whatever is chosen."""

import socket
from typing import Any

import pytest

from bench import measure
from bench.demo import MIB, choose
from bench.lab import Lab
from bench.world import World, by_family
from zt._fast.pump import OPTIONS

pytestmark = [pytest.mark.system, pytest.mark.busy]

ETH_P_IP = 0x0800
FEATURES = [name for name, value in OPTIONS.items() if isinstance(value, bool)]
NONE = dict.fromkeys(FEATURES, False)
CHOICES = [(1, {}), (3, NONE)]  # suite 3 with everything on is what other tests run


def suites(raw: socket.socket, wanted: int) -> set[int]:
    """The cipher suites of so many large heads to our port (ch. 02, 2.1), as they are captured."""
    found = []
    while len(found) < wanted:
        datagram = raw.recv(65536)[28:]  # after an IPv4 and a UDP header
        if len(datagram) > 500 and datagram[13] != 0xFF:
            found.append(datagram[18] >> 3 & 7)
    return set(found)


@pytest.mark.parametrize(("suite", "features"), CHOICES, ids=["suite 1", "no offloads"])
def test_data_arrives_intact(lab: Lab, suite: int, features: dict[str, bool]) -> None:
    settings: dict[str, Any] = {"portMappingEnabled": False, "allowSecondaryPort": False}
    settings |= {"cipherSuite": suite, "dataPlane": features}
    roles = choose("")
    world = World(lab, roles, local_conf={role: {"settings": settings} for role in roles})
    world.create()
    world.start()
    nwid = world.create_network()
    world.join(nwid)
    world.wait_joined(nwid)
    a, b = world.nodes
    target = by_family(b.addresses(nwid))[0]
    measure.wait_ping(a.host, target)
    world.wait_direct()

    def capture() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        raw.bind(("eth0", ETH_P_IP))
        raw.settimeout(10)
        return raw

    with b.host.inside(capture) as raw:
        assert measure.tcp(a.host, b.host, target, size=16 * MIB, verify=True).intact
        assert suites(raw, 5) == {suite}
    assert measure.tcp(
        b.host, a.host, by_family(a.addresses(nwid))[0], size=16 * MIB, verify=True
    ).intact
