"""Whole nodes on one network: configurations, ARP, IPv4 and IPv6 between TAPs, in virtual time."""

import pytest

from tests.sim import Network
from tests.unit.vl2_world import ACCEPT, Member, add, mac, make_world, talk, unicast
from zt.protocol.address import Address, Mac, MulticastGroup
from zt.protocol.credentials import revoke_com
from zt.protocol.messages import Frame as FrameMessage
from zt.protocol.packet import Verb
from zt.vl2 import status


@pytest.fixture
def net():
    return Network(seed=3)


@pytest.fixture
def world(net):
    """(network ID, controller, a, b, c), joined and configured; members have not talked yet."""
    return make_world(net)


def ip(last):
    return bytes([10, 0, 0, last])


def arp_request(nwid, host, mine, asked):
    source = mac(nwid, host).encode()
    return (
        b"\xff" * 6 + source + b"\x08\x06" + bytes.fromhex("0001080006040001")
        + source + mine + bytes(6) + asked
    )  # fmt: skip


def test_arp_then_unicast(net, world):
    nwid, _, a, b, c = world
    b.listen(nwid, MulticastGroup.resolving(ip(2)), MulticastGroup(Mac(0xFFFFFFFFFFFF)))
    c.listen(nwid, MulticastGroup.resolving(ip(3)))
    net.run(1_000)
    asked = arp_request(nwid, a, ip(1), ip(2))
    a.write(nwid, asked)
    net.run_until(lambda: b.got(asked), 3_000)
    assert not c.got(asked)
    frame = unicast(nwid, b, a)
    b.write(nwid, frame)
    net.run_until(lambda: a.got(frame), 3_000)


def test_broadcast_reaches_all(net, world):
    nwid, _, a, b, c = world
    net.run(6_000)
    frame = b"\xff" * 6 + mac(nwid, a).encode() + b"\x08\x00" + b"E" + bytes(60)
    a.write(nwid, frame)
    net.run_until(lambda: b.got(frame) and c.got(frame), 3_000)
    assert not a.got(frame)


def test_ipv6_neighbor_discovery(net, world):
    nwid, _, a, b, _ = world
    theirs = mac(nwid, b).link_local_ip
    group = MulticastGroup.resolving(theirs)
    b.listen(nwid, group)
    net.run(1_000)
    header = bytes.fromhex("6000000000203aff") + mac(nwid, a).link_local_ip
    header += bytes.fromhex("ff02000000000000000000 01ff".replace(" ", "")) + theirs[13:]
    body = b"\x87\0\0\0" + bytes(4) + theirs + b"\1\1" + mac(nwid, a).encode()
    frame = group.mac.encode() + mac(nwid, a).encode() + b"\x86\xdd" + header + body
    a.write(nwid, frame)
    net.run_until(lambda: b.got(frame), 3_000)
    answer = unicast(nwid, b, a, header + body, b"\x86\xdd")
    b.write(nwid, answer)
    net.run_until(lambda: a.got(answer), 3_000)


def test_fast_path_takes_over(net, world):
    """Once credentials were exchanged, frames do not pass through Python."""
    nwid, _, a, b, _ = world
    for _ in range(4):
        for source, dest in ((a, b), (b, a)):
            source.write(nwid, unicast(nwid, source, dest))
        net.run(1_500)
    b.frames.clear()
    punts = a.switch.counters()["punts"], b.switch.counters()["punts"]
    for number in range(50):
        a.write(nwid, unicast(nwid, a, b, b"E" + bytes(40) + bytes([number])))
    net.run(100)
    assert len(b.tap) == 50
    grown = a.switch.counters()["punts"] - punts[0] + b.switch.counters()["punts"] - punts[1]
    assert grown <= 2


def test_refused_keeps_its_configuration(net, world):
    nwid, controller, a, b, _ = world
    controller.refused.add(a.address)
    net.run(61_000)
    assert a.node.network(nwid).status == status.ACCESS_DENIED
    assert a.node.network(nwid).config is not None
    controller.refused.clear()
    net.run(10_000)
    assert a.node.network(nwid).status == status.OK
    frame = unicast(nwid, b, a)
    b.write(nwid, frame)
    net.run_until(lambda: a.got(frame), 3_000)


def test_joins_again_from_its_file(net, world):
    nwid, _, a, b, _ = world
    name = f"networks.d/{nwid}.conf"
    cached = a.files[name]
    a.stop()
    a.start()
    a.node.join(nwid, net.now_ms, cached)
    a.settle()
    assert a.node.network(nwid).status == status.OK
    frame = unicast(nwid, a, b)
    net.run(3_000)
    a.write(nwid, frame)
    net.run_until(lambda: b.got(frame), 3_000)
    a.node.leave(nwid, net.now_ms)
    a.settle()
    assert name not in a.files
    assert a.node.networks() == []


def test_revoked_member_is_cut_off_everywhere(net):
    nwid, controller, *members = make_world(net, 5)
    bad, *good = members
    number = 0
    for round in range(2):
        for one in members:
            for other in members:
                if one is not other:
                    number += 1
                    heard = talk(net, nwid, one, other, number)
                    assert heard or round == 0
    controller.refused.add(bad.address)
    revocation = revoke_com(nwid, bad.address, net.now_ms, 7, controller.identity)
    for member in good:
        controller.node.send_revocation(member.address, [revocation], net.now_ms)
    controller.settle()
    net.run(2_000)
    for other in good:
        number += 1
        assert not talk(net, nwid, bad, other, number)
    for one in good:
        for other in good:
            if one is not other:
                number += 1
                assert talk(net, nwid, one, other, number)


def test_many_revocations_all_arrive(net):
    """A receiver takes one packet of credentials per second."""
    nwid, controller, a, b = make_world(net, 2)
    talk(net, nwid, a, b, 1)
    gone = [Address(0x1000000001 + i) for i in range(5)]
    for i, address in enumerate(gone):
        revocation = revoke_com(nwid, address, net.now_ms, i, controller.identity)
        controller.node.send_revocation(a.address, [revocation], net.now_ms)
    controller.settle()
    net.run(20_000)
    for member in (a, b):  # b heard of them from a
        members = member.node.vl2._networks[nwid].members
        assert all(members[address].com_threshold for address in gone)


def test_strangers_get_nothing(net, world):
    """A node that was never admitted neither sends to nor hears from members."""
    nwid, controller, a, _, _ = world
    stranger = add(net, Member)
    controller.refused.add(stranger.address)
    stranger.join(nwid)
    net.run(6_000)
    assert stranger.node.network(nwid).status == status.ACCESS_DENIED
    message = FrameMessage(nwid, 0x800, b"E" + bytes(40)).encode()
    stranger.node.vl1.send(a.address, Verb.FRAME, message, net.now_ms)
    stranger.settle()
    net.run(3_000)
    assert not a.tap
    assert not stranger.tap


def test_tags_isolate(net):
    """Frames pass between equal tags only."""
    rules = bytes.fromhex("ac080000000500000000" + "0000" + "0100")  # not difference 0: drop
    nwid, controller, a, b, c = make_world(net, 3, rules=rules)
    controller.special = {
        a.address: {"tags": {5: 1}},
        b.address: {"tags": {5: 1}},
        c.address: {"tags": {5: 2}},
    }
    net.run(61_000)
    number = 0
    for _ in range(2):
        results = {}
        for one, other in ((a, b), (b, a), (a, c), (c, a), (b, c), (c, b)):
            number += 1
            results[one, other] = talk(net, nwid, one, other, number)
        net.run(2_000)
    assert results[a, b]
    assert results[b, a]
    assert not any(results[pair] for pair in ((a, c), (c, a), (b, c), (c, b)))


def test_capability_opens(net):
    """Base rules refuse, the sender's capability lets its frames in."""
    nwid, controller, a, b, c = make_world(net, 3, rules=b"\5\0")
    controller.special = {a.address: {"capabilities": {1: ACCEPT}}}
    net.run(61_000)
    number = 0
    for _ in range(2):
        results = []
        for one, other in ((a, b), (a, c), (b, a), (c, b)):
            number += 1
            results.append(talk(net, nwid, one, other, number))
        net.run(2_000)
    assert results == [True, True, False, False]


def test_tee_and_redirect_reach_the_observer(net):
    nwid, controller, a, b, c = make_world(net, 3)
    target = c.address.to_bytes(8, "big") + bytes(4)
    controller.options = {"rules": b"\2\x0e" + target + b"\0\0" + ACCEPT}
    net.run(61_000)
    talk(net, nwid, a, b, 1)
    frame = unicast(nwid, a, b, b"E" + bytes(40) + b"seen")
    a.write(nwid, frame)
    net.run(1_000)
    assert b.got(frame)
    assert c.got(frame)
    controller.options = {"rules": b"\4\x0e" + target + b"\0\0" + ACCEPT}
    net.run(61_000)
    talk(net, nwid, a, b, 2)
    frame = unicast(nwid, a, b, b"E" + bytes(40) + b"diverted")
    a.write(nwid, frame)
    net.run(1_000)
    assert not b.got(frame)
    assert c.got(frame)
