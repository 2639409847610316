"""Listeners, gathering and replication (ch. 04, 12)."""

from random import Random

import pytest

from tests.sim import Network
from tests.unit.vl2_world import ACCEPT, mac, make_world
from zt._fast.replicate import replicate
from zt.protocol.address import Address, Mac, MulticastGroup, NetworkId
from zt.protocol.netconf import ACTIVE_BRIDGE, REPLICATOR
from zt.protocol.packet import Verb
from zt.vl2 import multicast
from zt.vl2.multicast import LIFETIME_MS, MAX_QUEUE, TRANSMIT_MS, Groups, Pending

NWID = NetworkId(0xAAF58859F0C0FFEE)
GROUP = MulticastGroup(Mac(0x3333FF000002))
US = Address(0x1111111111)
BROADCAST = b"\xff" * 6


@pytest.fixture
def groups():
    return Groups(US, Random(1).randbytes)


@pytest.fixture
def net():
    return Network(seed=7)


def broadcast(nwid, host, text=b""):
    return BROADCAST + mac(nwid, host).encode() + b"\x08\x00" + b"E" + bytes(80) + text


# -- the database --------------------------------------------------------------------------------


def test_members_expire(groups):
    groups.add(NWID, GROUP, Address(1), 0)
    groups.add(NWID, GROUP, Address(2), LIFETIME_MS)
    groups.clean(LIFETIME_MS + 1)
    assert groups.members(NWID, GROUP) == [Address(2)]
    groups.clean(3 * LIFETIME_MS)
    assert len(groups) == 0


def test_we_are_never_listed(groups):
    groups.add(NWID, GROUP, US, 0)
    assert groups.members(NWID, GROUP) == []


def test_waiting_frames_go_to_new_listeners_until_old_or_enough(groups):
    got = []
    entry = groups.make(NWID, GROUP)
    entry.queue(Pending(0, 2, {Address(9)}, lambda member, now_ms: got.append(member)))
    groups.add(NWID, GROUP, Address(9), 1)  # has it already
    groups.add(NWID, GROUP, Address(1), 1)
    groups.add(NWID, GROUP, Address(1), 2)  # not twice
    groups.add(NWID, GROUP, Address(2), 3)  # the limit is reached
    assert got == [Address(1)]
    entry.queue(Pending(10, 5, set(), lambda member, now_ms: got.append(member)))
    groups.add(NWID, GROUP, Address(3), 11 + TRANSMIT_MS)  # too late
    assert got == [Address(1)]


def test_queue_is_bounded(groups):
    entry = groups.make(NWID, GROUP)
    for number in range(MAX_QUEUE + 5):
        entry.queue(Pending(number, 1, set(), lambda member, now_ms: None))
    assert len(entry.pending) == MAX_QUEUE
    assert entry.pending[0].created_ms == 5


def test_groups_are_bounded(groups, monkeypatch):
    monkeypatch.setattr(multicast, "MAX_GROUPS", 10)
    for number in range(20):
        groups.add(NWID, MulticastGroup(GROUP.mac, number), Address(1), 0)
    assert len(groups) == 10
    assert groups.members(NWID, MulticastGroup(GROUP.mac, 19))


def test_gather_leaves_out_the_asker(groups):
    for number in range(1, 6):
        groups.add(NWID, GROUP, Address(number), 0)
    total, found = groups.gather(NWID, GROUP, Address(3), 100, listening=True)
    assert total == 6
    assert found[0] == US
    assert sorted(found[1:]) == [1, 2, 4, 5]
    assert groups.gather(NWID, GROUP, Address(3), 2, listening=True)[1][0] == US
    assert len(groups.gather(NWID, GROUP, Address(3), 2, listening=True)[1]) == 2
    assert groups.gather(NWID, GROUP, Address(3), 0, listening=True) == (0, [])


# -- sending -------------------------------------------------------------------------------------


def test_data_plane_sends_the_copies(net):
    nwid, _, *members = make_world(net, 6)
    net.run(7_000)
    first, *others = members
    for number in range(3):
        frame = broadcast(nwid, first, bytes([number]))
        first.write(nwid, frame)
        net.run(3_000)
        assert all(other.got(frame) for other in others)
    sent = first.node.counters()["packet.tx.multicast_frame"]
    before = first.switch.counters()["datagrams_out"]
    first.write(nwid, broadcast(nwid, first, b"again"))
    assert first.switch.counters()["datagrams_out"] - before == len(others)
    assert first.node.counters()["packet.tx.multicast_frame"] - sent == len(others)


def test_rules_are_asked_for_each_copy(net):
    nwid, controller, a, b, c, d = make_world(net, 4)
    controller.options = {"rules": b"\x19\x05" + c.address.encode() + b"\0\0" + ACCEPT}
    net.run(67_000)
    for number in range(3):
        frame = broadcast(nwid, a, bytes([number]))
        a.write(nwid, frame)
        net.run(2_000)
    assert b.got(frame)
    assert d.got(frame)
    assert not c.tap


def test_limit_holds(net):
    nwid, _, *members = make_world(net, 6, multicast_limit=2)
    net.run(7_000)
    first, *others = members
    heard = []
    for number in range(4):
        frame = broadcast(nwid, first, bytes([number]))
        first.write(nwid, frame)
        net.run(7_000)
        heard.append(sum(other.got(frame) for other in others))
    assert max(heard) == 2
    assert heard[-1] == 2


def test_large_multicasts_are_fragmented(net):
    nwid, _, *members = make_world(net, 4, mtu=9000)
    net.run(7_000)
    first, *others = members
    for number in range(3):
        frame = broadcast(nwid, first, Random(number).randbytes(8000))
        first.write(nwid, frame)
        net.run(3_000)
    assert all(other.got(frame) for other in others)


def test_replicator_serves_a_node_that_hands_over(net):
    nwid, controller, a, replicator, *others = make_world(net, 5)
    role = replicator.address | REPLICATOR | ACTIVE_BRIDGE
    controller.options = {"specialists": (role,)}
    net.run(80_000)
    a.write(nwid, broadcast(nwid, a))
    net.run(5_000)
    sent = a.node.counters()["packet.tx.multicast_frame"]
    frame = broadcast(nwid, a, b"by the replicator")
    a.write(nwid, frame)
    net.run(5_000)
    assert a.node.counters()["packet.tx.multicast_frame"] - sent == 1
    assert replicator.got(frame)
    assert all(other.got(frame) for other in others)


def test_replicate_hands_back_what_it_cannot_do(net):
    nwid, _, a, b, c = make_world(net, 3)
    net.run(7_000)
    for _ in range(2):
        a.write(nwid, broadcast(nwid, a))
        net.run(3_000)
    stranger = 0x1234567890
    frame = (Mac(0xFFFFFFFFFFFF), mac(nwid, a), 0x800, bytes(40))
    body = bytes([Verb.NOP])
    left, ids = replicate(
        a.switch, nwid, [b.address, stranger, c.address], *frame, body, net.now_ms
    )
    assert left == [stranger]
    assert len(set(ids)) == 2
    assert len(a.switch.take_datagrams()) == 2
    assert replicate(a.switch, nwid, [], *frame, body, net.now_ms) == ([], [])
    left, ids = replicate(a.switch, nwid + 1, [b.address], *frame, body, net.now_ms)
    assert left == [b.address]
    # credentials are due again
    left, ids = replicate(a.switch, nwid, [b.address], *frame, body, net.now_ms + 600_000)
    assert left == [b.address]
    for bad in (b"", bytes(10000)):
        with pytest.raises(ValueError):
            replicate(a.switch, nwid, [b.address], *frame, bad, net.now_ms)


def test_many_first_copies_are_spread_over_time(net):
    """Members that need credentials first are the control plane's, a bounded number at a time."""
    nwid, _, a, _ = make_world(net, 2, multicast_limit=1000)
    network = a.node.vl2._networks[nwid]
    for _ in range(200):
        identity = net.identity()
        a.node.vl1.add_peer(identity, net.now_ms)
        network.member(identity.address, net.now_ms)
        a.node.vl2._context.groups.add(
            nwid, MulticastGroup(Mac(0xFFFFFFFFFFFF)), identity.address, net.now_ms
        )
    sent = a.node.counters()["packet.tx.multicast_frame"]
    waiting = a.node.vl1.outbound.pending
    a.node.vl2.frame(nwid, broadcast(nwid, a), net.now_ms)
    assert a.node.deadline() <= net.now_ms
    rounds = 0
    while a.node.vl2._sender.deadline() is not None:
        a.node.vl2.timer(net.now_ms)
        rounds += 1
    assert rounds > 5
    done = a.node.counters()["packet.tx.multicast_frame"] - sent
    assert done + (a.node.vl1.outbound.pending - waiting) >= 200
