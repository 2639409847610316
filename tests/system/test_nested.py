"""Overlays that could carry each other, and themselves: two worlds on the same hosts.

A packet that a network carries must never be sent through that network again, or nothing arrives.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import pytest

from bench import measure
from bench.demo import choose
from bench.lab import SUBNET, Lab, wait_for
from bench.world import LOCAL_CONF, PORT, Service, World, by_family
from tests.system.pings import Echo

pytestmark = pytest.mark.system

OUTER = IPv4Network("10.66.0.0/24")  # the first world's network, as bench.world makes it
INNER = IPv4Network("10.77.0.0/24")  # the second one's
PHYSICAL = ip_network(f"{SUBNET}0/24")
PORT_2 = 9994
ANY_INTERFACE: dict[str, Any] = {"settings": {**LOCAL_CONF["settings"], "bind": ["0.0.0.0"]}}
ETH_P_IP = 0x0800


def join(world: World, network: IPv4Network, *, root: bool = False) -> None:
    """A network for the nodes, and for the root if wanted."""
    pool = {"ipRangeStart": str(network[1]), "ipRangeEnd": str(network[-2])}
    fields = {"ipAssignmentPools": [pool], "routes": [{"target": str(network)}]}
    nwid = world.create_network(**fields)
    if root:
        path = f"/controller/network/{nwid}/member/{world.root.address}"
        world.root.api("POST", path, {"authorized": True})
        world.root.api("POST", f"/network/{nwid}", {})
        wait_for("the root's address", lambda: world.root.addresses(nwid))
    world.join(nwid)
    world.wait_joined(nwid)


def inside(service: Service, world: World) -> str:
    """Its IPv4 address in the world's network."""
    return by_family(service.addresses(world.nwid))[0]


def start(world: World) -> World:
    world.create()
    world.start()
    return world


def path_ips(world: World) -> set[Any]:
    """Where all services of a world send to."""
    return {
        ip_address(path["address"].partition("/")[0])
        for service in world.services.values()
        for peer in service.api("GET", "/peer")
        for path in peer["paths"]
    }


def pinged(echo: Echo, target: str) -> bool:
    echo.ask(target)
    return echo.answer(0.2) is not None


@pytest.fixture(scope="module")
def outer() -> Iterator[World]:
    with Lab() as lab:
        world = start(World(lab, choose("")))
        join(world, OUTER, root=True)
        yield world


def test_worlds_on_the_same_hosts_keep_out_of_each_other(outer: World) -> None:
    """Each could go through the network of the other, and has to when the hosts are separated, if
    not by a root: neither binds to the other's TAP."""
    hosts = {role: service.host for role, service in outer.services.items()}
    second = start(World(outer.lab, choose(""), hosts=hosts, port=PORT_2))
    join(second, INNER)
    a, b = (service.host for service in outer.nodes)
    targets = [inside(world.nodes[1], world) for world in (outer, second)]
    for target in targets:
        measure.wait_ping(a, target)
    for world in (outer, second):
        world.wait_direct()
    outer.lab.separate(a, b)
    try:
        echo = Echo(a)
        for world, target in zip((outer, second), targets, strict=True):
            one, other = world.nodes
            wait_for("a relay", lambda t=target: pinged(echo, t))
            wait_for(
                "the end of the direct path",
                lambda x=one, y=other, t=target: pinged(echo, t) and not x.direct(y),
                60,
            )
            assert pinged(echo, target)
        echo.close()
        for world in (outer, second):
            ips = path_ips(world)
            assert ips
            assert all(ip in PHYSICAL for ip in ips)
    finally:
        outer.lab.reunite(a, b)
        for service in second.services.values():
            assert service.stop() == 0


def test_an_overlay_inside_an_overlay(outer: World) -> None:
    """The second world is told to live in the first one's network; the first stays out of both."""
    hosts = {role: service.host for role, service in outer.services.items()}
    places = {role: inside(service, outer) for role, service in outer.services.items()}
    conf = {
        role: {"settings": {**LOCAL_CONF["settings"], "bind": [place]}}
        for role, place in places.items()
    }
    roles = choose("")
    inner = World(outer.lab, roles, hosts=hosts, places=places, local_conf=conf, port=PORT_2 + 1)
    start(inner)
    join(inner, INNER)
    a, b = inner.nodes
    target = inside(b, inner)
    measure.wait_ping(a.host, target)
    inner.wait_direct()
    assert measure.tcp(a.host, b.host, target, size=1 << 20, verify=True).intact
    assert all(ip in OUTER for ip in path_ips(inner))
    assert all(ip in PHYSICAL for ip in path_ips(outer))
    for service in inner.services.values():
        assert service.stop() == 0


def test_no_path_leads_into_the_own_network(lab: Lab) -> None:
    """Sockets that leave by any interface, and a hint that leads into the network itself."""
    roles = choose("")
    world = World(lab, roles, local_conf=dict.fromkeys(roles, ANY_INTERFACE))
    start(world)
    join(world, OUTER)
    a, b = world.nodes
    target = inside(b, world)
    measure.wait_ping(a.host, target)

    lab.separate(a.host, b.host)
    hint = {b.address: {"try": [f"{target}/{PORT}"]}}
    (a.home / "local.conf").write_text(json.dumps({**ANY_INTERFACE, "virtual": hint}))
    a.stop()
    device = b.network(world.nwid)["portDeviceName"]
    with b.host.inside(capture, device) as raw:
        a.start()
        echo = Echo(a.host)
        # The temptation is real: a HELLO to the hint came through the network.
        wait_for("a HELLO in the tunnel", lambda: pinged(echo, target) and tempted(raw), 60)
    for _ in range(20):
        pinged(echo, target)
    wait_for("traffic by the root", lambda: pinged(echo, target))
    echo.close()
    assert all(ip in PHYSICAL for ip in path_ips(world))
    assert not a.direct(b)


def capture(device: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    raw.bind((device, ETH_P_IP))
    raw.setblocking(False)
    return raw


def tempted(raw: socket.socket) -> bool:
    """Did a UDP datagram for our port come in?"""
    try:
        packet = raw.recv(2000)
    except BlockingIOError:
        return False
    return packet[9] == socket.IPPROTO_UDP and int.from_bytes(packet[22:24]) == PORT
