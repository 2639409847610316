"""Whole nodes on one network: configurations, ARP, IPv4 and IPv6 between TAPs, in virtual time."""

import pytest

from tests.sim import Host, Network
from zt.protocol import netconf
from zt.protocol.address import Address, Mac, MulticastGroup, NetworkId
from zt.protocol.credentials import Capability, Com, Tag, revoke_com
from zt.protocol.messages import Frame as FrameMessage
from zt.protocol.netconf import BROADCAST, NetworkConfig
from zt.protocol.packet import ErrorCode, Verb
from zt.vl1.actions import ConfigRequest, Frame, NetworkChanged
from zt.vl2 import status

ACCEPT = b"\1\0"
WINDOW_MS = 1800000


class Member(Host):
    """A host whose TAPs are lists of frames."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tap = []
        self.changes = 0

    def start(self):
        super().start()
        # Hosts of tests without networks use this verb for their own ends.
        handler = self.node.vl2._inbound._on_multicast_frame
        self.node.vl1.register(Verb.MULTICAST_FRAME, handler)

    def join(self, nwid):
        self.node.join(nwid, self.net.now_ms)
        self.settle()

    def settle(self):
        self._settle()

    def _settle(self):
        super()._settle()
        for _, frame in self.switch.take_frames():
            self.tap.append(frame)

    def _carry_out(self, action):
        if isinstance(action, Frame):
            self.tap.append(action.data)
        elif isinstance(action, NetworkChanged):
            self.changes += 1
        super()._carry_out(action)

    def write(self, nwid, frame):
        """A frame that the operating system sends through the TAP."""
        self.switch.frame(nwid, frame, self.net.now_ms)
        self.settle()

    def listen(self, nwid, *groups):
        self.node.groups_changed(nwid, set(groups), self.net.now_ms)
        self.settle()

    def got(self, frame):
        return frame in self.tap


class Controller(Member):
    """Answers every request at once."""

    def start(self):
        super().start()
        self.node.vl2.controller = True
        self.members = set()
        self.refused = set()
        self.options = {}
        self.special = {}

    def _carry_out(self, action):
        if isinstance(action, ConfigRequest):
            self.answer(action)
        super()._carry_out(action)

    def answer(self, request):
        member = request.identity
        if member.address in self.refused:
            self.node.send_config_error(
                member.address, request.nwid, request.request_id,
                ErrorCode.NETWORK_ACCESS_DENIED, b"", self.net.now_ms,
            )  # fmt: skip
            return
        self.members.add(member.address)
        data = self.config(request.nwid, member).encode()
        update = self.random.getrandbits(64) | 1
        chunks = netconf.split(request.nwid, data, update, self.identity)
        self.node.send_config(
            member.address,
            request.nwid,
            [chunk.encode() for chunk in chunks],
            request.request_id,
            self.net.now_ms,
        )

    def config(self, nwid, member):
        now_ms = self.net.now_ms
        options = {
            "flags": BROADCAST,
            "multicast_limit": 32,
            "rules": ACCEPT,
            **self.options,
            **self.special.get(member.address, {}),
        }
        tags = tuple(
            Tag(nwid, now_ms, id, value, member.address).sign(self.identity)
            for id, value in options.pop("tags", {}).items()
        )
        capabilities = tuple(
            Capability(nwid, now_ms, id, rules).grant(self.identity, member.address)
            for id, rules in options.pop("capabilities", {}).items()
        )
        com = Com.issue(nwid, member, now_ms, WINDOW_MS).sign(self.identity)
        return NetworkConfig(
            nwid=nwid,
            issued_to=member.address,
            timestamp=now_ms,
            window=WINDOW_MS,
            revision=1,
            com=com,
            tags=tags,
            capabilities=capabilities,
            **options,
        )


@pytest.fixture
def net():
    return Network(seed=3)


@pytest.fixture
def world(net):
    """(network ID, controller, a, b, c), joined and configured; members have not talked yet."""
    return make_world(net)


def make_world(net, count=3, **options):
    net.add_roots()
    controller = add(net, Controller)
    controller.options = options
    nwid = NetworkId(controller.address << 24 | 0xC0FFEE)
    members = [add(net, Member) for _ in range(count)]
    for member in members:
        member.join(nwid)
    net.run_until(lambda: all(m.node.network(nwid).config for m in members), 10_000)
    net.run(2_000)
    return nwid, controller, *members


def add(net, kind):
    host = net.add_host()
    new = kind(net, host.identity, list(host.sockets.values()))
    net.hosts[net.hosts.index(host)] = new
    net._public[next(iter(host.sockets.values())).ip] = new
    host.down = True
    new.start()
    return new


def mac(nwid, host):
    return Mac.of(host.address, nwid)


def ip(last):
    return bytes([10, 0, 0, last])


def arp_request(nwid, host, mine, asked):
    source = mac(nwid, host).encode()
    return (
        b"\xff" * 6 + source + b"\x08\x06" + bytes.fromhex("0001080006040001")
        + source + mine + bytes(6) + asked
    )  # fmt: skip


def unicast(nwid, source, dest, payload=b"E" + bytes(40), ethertype=b"\x08\x00"):
    return mac(nwid, dest).encode() + mac(nwid, source).encode() + ethertype + payload


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
    b.tap.clear()
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


def talk(net, nwid, source, dest, number):
    frame = unicast(nwid, source, dest, b"E" + bytes(40) + number.to_bytes(4))
    source.write(nwid, frame)
    net.run(700)
    return dest.got(frame)


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
