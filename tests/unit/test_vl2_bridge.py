"""Bridges: learned routes, floods, and a LAN behind a node (ch. 04, 13)."""

from random import Random

import pytest

from tests.sim import Network
from tests.unit.vl2_world import ACCEPT, mac, make_world, unicast
from zt.protocol.address import Address, Mac, MulticastGroup
from zt.protocol.netconf import ACTIVE_BRIDGE
from zt.vl2 import bridge
from zt.vl2.bridge import MAX_FLOOD, Bridges, flood

HOST = Mac.parse("00:1b:21:aa:bb:cc")  # on the LAN behind the bridge


@pytest.fixture
def net():
    return Network(seed=5)


@pytest.fixture
def lan(net):
    """(network ID, controller, bridge, a, b)"""
    nwid, controller, *members = make_world(net, 3)
    controller.options = {"specialists": (members[0].address | ACTIVE_BRIDGE,)}
    net.run(61_000)
    return nwid, controller, *members


def foreign(dest, source, payload=b"E" + bytes(40), ethertype=b"\x08\x00"):
    return dest.encode() + source.encode() + ethertype + payload


def test_lan_behind_a_bridge_both_directions(net, lan):
    nwid, _, bridge_node, a, b = lan
    # DHCP-like: a broadcast from a host on the LAN
    hello = foreign(Mac(0xFFFFFFFFFFFF), HOST)
    bridge_node.write(nwid, hello)
    net.run(8_000)
    assert a.got(hello)
    assert b.got(hello)
    # the answer finds its way by the route that the broadcast taught
    answer = foreign(HOST, mac(nwid, a))
    a.write(nwid, answer)
    net.run(2_000)
    assert bridge_node.got(answer)
    assert not b.got(answer)
    # and further frames of the host reach one member alone
    more = foreign(mac(nwid, a), HOST, b"E" + bytes(40) + b"more")
    bridge_node.write(nwid, more)
    net.run(2_000)
    assert a.got(more)
    assert not b.got(more)


def test_bridged_frames_take_the_fast_path(net, lan):
    nwid, _, bridge_node, a, _ = lan
    for _ in range(3):
        bridge_node.write(nwid, foreign(mac(nwid, a), HOST))
        a.write(nwid, foreign(HOST, mac(nwid, a)))
        net.run(2_000)
    before = [host.switch.counters()["punts"] for host in (bridge_node, a)]
    a.frames.clear()
    bridge_node.frames.clear()
    for number in range(20):
        bridge_node.write(nwid, foreign(mac(nwid, a), HOST, b"E" + bytes(40) + bytes([number])))
        a.write(nwid, foreign(HOST, mac(nwid, a), b"E" + bytes(40) + bytes([number])))
    net.run(100)
    assert len(a.tap) == len(bridge_node.tap) == 20
    after = [host.switch.counters()["punts"] for host in (bridge_node, a)]
    assert sum(after) - sum(before) <= 4


def test_unknown_mac_floods_to_all_bridges(net):
    nwid, controller, first, second, a = make_world(net, 3)
    controller.options = {
        "specialists": (first.address | ACTIVE_BRIDGE, second.address | ACTIVE_BRIDGE)
    }
    net.run(61_000)
    for _ in range(2):
        frame = foreign(HOST, mac(nwid, a))
        a.write(nwid, frame)
        net.run(3_000)
    assert first.got(frame)
    assert second.got(frame)


def test_rules_see_the_bridge_they_send_to(net):
    """First with the destination unknown, then once per bridge (10.3)."""
    nwid, controller, first, second, a = make_world(net, 3)
    drop = b"\x19\x05" + first.address.encode() + b"\0\0"
    controller.options = {
        "specialists": (first.address | ACTIVE_BRIDGE, second.address | ACTIVE_BRIDGE),
        "rules": drop + ACCEPT,
    }
    net.run(61_000)
    second.write(nwid, foreign(mac(nwid, a), HOST))
    net.run(3_000)
    first.write(nwid, foreign(mac(nwid, a), Mac(HOST + 1)))
    net.run(3_000)
    for host, heard in ((HOST, True), (Mac(HOST + 1), False)):
        for _ in range(3):
            frame = foreign(host, mac(nwid, a))
            a.write(nwid, frame)
            net.run(2_000)
        assert (first.got(frame) or second.got(frame)) == heard


def test_who_is_no_bridge_speaks_for_nobody(net):
    nwid, _, a, b, _ = make_world(net, 3)
    a.write(nwid, foreign(mac(nwid, b), HOST))
    net.run(2_000)
    assert not b.tap


def test_lost_role_loses_its_routes(net, lan):
    nwid, controller, bridge_node, a, _ = lan
    bridge_node.write(nwid, foreign(mac(nwid, a), HOST))
    net.run(3_000)
    assert a.node.vl2._networks[nwid].bridges.find(HOST) == bridge_node.address
    controller.options = {}
    net.run(61_000)
    assert a.node.vl2._networks[nwid].bridges.find(HOST) is None
    frame = foreign(HOST, mac(nwid, a))
    a.write(nwid, frame)
    net.run(2_000)
    assert not bridge_node.got(frame)


def test_vlan_tags_and_jumbo_frames_pass_untouched(net):
    nwid, controller, a, b, _ = make_world(net, 3)
    controller.options = {"mtu": 9000}
    net.run(61_000)
    for size in (60, 1500, 8996):
        tagged = unicast(nwid, a, b, b"\0\x64\x08\x00" + bytes(size), b"\x81\x00")
        a.write(nwid, tagged)
        net.run(2_000)
        assert b.got(tagged)


def test_mtu_change_is_applied_live(net):
    nwid, controller, a, b, _ = make_world(net, 3)
    small, large = unicast(nwid, a, b, bytes(1400)), unicast(nwid, a, b, bytes(2800))
    for frame in (small, large):
        a.write(nwid, frame)
        net.run(2_000)
        assert b.got(frame)
    changes = a.changes
    controller.options = {"mtu": 1400}
    net.run(61_000)
    assert a.changes > changes
    b.frames.clear()
    for frame in (small, large):
        a.write(nwid, frame)
        net.run(2_000)
    assert b.tap == [small] or b.tap == [small, large[:1414]]


def test_group_of_a_bridged_host_is_announced_and_expires(net, lan):
    nwid, _, bridge_node, a, _ = lan
    group = Mac.parse("33:33:00:00:00:fb")
    bridge_node.write(nwid, foreign(group, HOST, ethertype=b"\x86\xdd"))
    net.run(2_000)
    frame = foreign(group, mac(nwid, a), ethertype=b"\x86\xdd")
    a.write(nwid, frame)
    net.run(2_000)
    assert bridge_node.got(frame)
    network = bridge_node.node.vl2._networks[nwid]
    assert network.listens(MulticastGroup(group))
    net.run(700_000)
    assert not network.listens(MulticastGroup(group))


# -- the parts by themselves ---------------------------------------------------------------------


def test_full_table_loses_the_greediest(monkeypatch):
    monkeypatch.setattr(bridge, "MAX_ROUTES", 10)
    known = {}

    def changed(mac, address):
        if address is None:
            del known[mac]
        else:
            known[mac] = address

    routes = Bridges(changed)
    routes.learn(Mac(1), Address(7))
    for number in range(2, 11):
        routes.learn(Mac(number), Address(8))
    routes.learn(Mac(99), Address(7))
    assert known == {Mac(1): Address(7), Mac(99): Address(7)}
    assert len(routes) == 2


def test_flood_is_bounded():
    many = [Address(i) for i in range(1, 100)]
    chosen = flood(many, Random(1).randbytes)
    assert len(chosen) == len(set(chosen)) == MAX_FLOOD
    assert set(chosen) <= set(many)
    assert flood(many[:5], Random(1).randbytes) == many[:5]
