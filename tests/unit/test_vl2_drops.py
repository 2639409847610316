"""Every reason for which a frame is dropped, in the chapter's order, has a counter of its own
(ch. 04, 10 and 11)."""

from random import Random

import pytest

from tests.sim.identity import cheap_identity
from tests.unit.vl2_recorder import RecordingVl1, tables_of
from zt.protocol.address import Mac, MulticastGroup, NetworkId
from zt.protocol.messages import ExtFrame, Frame, MulticastFrame
from zt.protocol.netconf import ACTIVE_BRIDGE, BROADCAST, NetworkConfig
from zt.protocol.packet import Verb
from zt.vl1 import TRUSTED
from zt.vl1.actions import Frame as ToTap
from zt.vl2 import Vl2

NOW_MS = 1700000000000
US, CONTROLLER, PEER, BRIDGE = (cheap_identity(Random(seed).randbytes) for seed in range(4))
NWID = NetworkId(CONTROLLER.address << 24 | 0xC0FFEE)
OURS, THEIRS = Mac.of(US.address, NWID), Mac.of(PEER.address, NWID)
FOREIGN = Mac.parse("00:1b:21:aa:bb:cc")
EVERYBODY, GROUP = Mac(0xFFFFFFFFFFFF), Mac.parse("33:33:00:00:00:07")
IPV4, IPV6, BODY = 0x0800, 0x86DD, b"E" + bytes(40)
ACCEPT, DROP = b"\1\0", b"\0\0"
NOT_TO_BRIDGE = bytes([25, 5]) + BRIDGE.address.encode() + DROP + ACCEPT


class Node:
    """One member, and what it counts."""

    def __init__(self, *, configured=True, **options):
        self.vl1 = RecordingVl1(US, [CONTROLLER, PEER, BRIDGE])
        self.vl2 = Vl2(self.vl1, tables_of(self.vl1), now_ms=NOW_MS)
        self.vl2.join(NWID, NOW_MS)
        if configured:
            fields = {
                "public": True, "rules": ACCEPT, "multicast_limit": 32, "flags": BROADCAST,
                "mtu": 10000, "specialists": (BRIDGE.address | ACTIVE_BRIDGE,), **options,
            }  # fmt: skip
            config = NetworkConfig(
                nwid=NWID, issued_to=US.address, timestamp=NOW_MS, revision=1, **fields
            )
            self.vl2._install(self.vl2._networks[NWID], config, NOW_MS)
        self.vl1.take_sent(), self.vl1.take_actions()

    def counted(self):
        """Drops by reason; nothing that was dropped went anywhere."""
        assert not [a for a in self.vl1.take_actions() if isinstance(a, ToTap)]
        found = {k.removeprefix("vl2.drop."): v for k, v in self.vl2.counters().items() if v}
        return {name: count for name, count in found.items() if name[:3] in ("tx.", "rx.")}

    def send(self, dest, source=OURS, ethertype=IPV4, payload=BODY):
        frame = dest.encode() + source.encode() + ethertype.to_bytes(2) + payload
        self.vl2.frame(NWID, frame, NOW_MS)
        frames = (Verb.FRAME, Verb.EXT_FRAME, Verb.MULTICAST_FRAME)
        return [sent for sent in self.vl1.take_sent() if sent.verb in frames]

    def receive(self, message, verb, peer=PEER):
        return self.vl1.deliver(peer.address, verb, message.encode(), NOW_MS)


OUTBOUND = [
    # reason, configuration, frame
    ("no configuration", {"configured": False}, {"dest": THEIRS}),
    ("not a bridge", {}, {"dest": THEIRS, "source": FOREIGN}),
    ("not a bridge", {}, {"dest": EVERYBODY, "source": FOREIGN}),
    ("broadcast disabled", {"flags": 0}, {"dest": EVERYBODY}),
    ("multicast disabled", {"multicast_limit": 0}, {"dest": EVERYBODY}),
    ("multicast disabled", {"multicast_limit": 0}, {"dest": GROUP, "ethertype": IPV6}),
    ("filter blocked", {"rules": DROP}, {"dest": THEIRS}),
    ("filter blocked", {"rules": DROP}, {"dest": GROUP}),
    ("filter blocked", {"rules": DROP}, {"dest": FOREIGN}),
    ("filter blocked (bridge replication)", {"rules": NOT_TO_BRIDGE}, {"dest": FOREIGN}),
    ("no bridge", {"specialists": ()}, {"dest": FOREIGN}),
    ("too large", {}, {"dest": THEIRS, "payload": bytes(9987)}),
    ("too large", {}, {"dest": FOREIGN, "payload": bytes(9974)}),
    ("too large", {}, {"dest": GROUP, "payload": bytes(9966)}),
]


@pytest.mark.parametrize(("reason", "options", "frame"), OUTBOUND)
def test_outbound(reason, options, frame):
    node = Node(**options)
    assert node.send(**frame) == []
    assert node.counted() == {f"tx.{reason}": 1}


@pytest.mark.parametrize(("dest", "size"), [(THEIRS, 9986), (FOREIGN, 9973)])
def test_largest_frames_still_go(dest, size):
    node = Node()
    assert len(node.send(dest, payload=bytes(size))) == 1
    assert node.counted() == {}


def ext(dest, source, payload=BODY, flags=ExtFrame.ACKNOWLEDGE):
    return ExtFrame(NWID, dest, source, IPV4, payload, flags), Verb.EXT_FRAME


def multicast(mac, source=None, nwid=NWID):
    message = MulticastFrame(nwid, MulticastGroup(mac), IPV4, BODY, source, gather_limit=5)
    return message, Verb.MULTICAST_FRAME


def unicast(payload=BODY):
    return Frame(NWID, IPV4, payload), Verb.FRAME


INBOUND = [
    ("not joined", {}, multicast(GROUP, nwid=NetworkId(NWID ^ 1))),
    ("no certificate", {"public": False}, unicast()),
    ("no certificate", {"public": False}, ext(OURS, THEIRS)),
    ("no certificate", {"public": False}, multicast(GROUP)),
    ("filter blocked", {"rules": DROP}, unicast()),
    ("filter blocked", {"rules": DROP}, ext(OURS, THEIRS)),
    ("filter blocked", {"rules": DROP}, multicast(GROUP)),
    ("invalid source MAC", {}, ext(OURS, Mac(0))),
    ("invalid source MAC", {}, ext(OURS, OURS)),
    ("invalid source MAC", {}, multicast(GROUP, OURS)),
    ("invalid source MAC", {}, multicast(GROUP, GROUP)),
    ("bridging not allowed (remote)", {}, ext(OURS, FOREIGN)),
    ("bridging not allowed (remote)", {}, multicast(GROUP, FOREIGN)),
    ("bridging not allowed (local)", {}, ext(FOREIGN, THEIRS)),
    ("multicast disabled", {"multicast_limit": 0}, ext(GROUP, THEIRS)),
    ("multicast disabled", {"multicast_limit": 0}, multicast(GROUP)),
    ("not multicast", {}, multicast(OURS)),
    ("too large", {"mtu": 1280}, unicast(bytes(1281))),
]


@pytest.mark.parametrize(("reason", "options", "packet"), INBOUND)
def test_inbound(reason, options, packet):
    node = Node(**options)
    node.receive(*packet)
    assert node.counted() == {f"rx.{reason}": 1}


@pytest.mark.parametrize(
    ("packet", "options", "acknowledged"),
    [
        (ext(OURS, THEIRS), {}, True),
        (ext(OURS, THEIRS), {"rules": DROP}, True),
        (ext(FOREIGN, THEIRS), {}, False),
        (ext(OURS, FOREIGN), {}, False),
        (ext(OURS, OURS), {}, False),
    ],
)
def test_who_asks_for_a_receipt_gets_it_unless_the_macs_are_wrong(packet, options, acknowledged):
    node = Node(**options)
    assert node.receive(*packet) is TRUSTED
    assert bool(node.vl1.take_replies()) == acknowledged
