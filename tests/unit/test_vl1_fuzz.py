"""Damaged and forged packets of every verb: no exception, no growth, no answer to what is forged.

The recorded packets are mutated in the clear and then sealed, as a hostile peer could do, and as
they were on the wire, as anybody could do.
"""

import os
from collections import deque
from random import Random
from typing import Any

import pytest

from tests.conftest import require_cases
from tests.sim.single import SingleNode
from zt._fast.cipher import PeerKey
from zt.protocol.address import NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.packet import (
    FLAG_COMPRESSED,
    FLAG_FRAGMENTED,
    FLAGS,
    HEADER_SIZE,
    MAX_PACKET,
    PAYLOAD,
    SUITE_AES,
    SUITE_MAC,
    SUITE_SALSA,
    VERB,
    Verb,
)
from zt.protocol.world import Root, WorldType, make
from zt.vl1.actions import Send

COUNT = int(os.environ.get("ZT_FUZZ_PACKETS", "6000"))
"""The long form is a million."""

HERE = InetAddress.parse("10.0.0.1/9993")
START_MS = 1_700_000_000_000


class Target:
    """A recorded node that knows all other recorded nodes, one of them as its root."""

    def __init__(self, data: Any, name: str, random: Random) -> None:
        self.identities = {n: Identity.parse(t) for n, t in data["identities"].items()}
        self.name = name
        me = self.identities[name]
        self.places = {
            n: InetAddress(bytes((10, 0, 0, i + 2)), 9993) for i, n in enumerate(self.identities)
        }
        root = next((n for n in ("R", *self.identities) if n != name), name)
        self.root = root
        self.sent: deque[bytes] = deque(maxlen=50)  # packet IDs
        roots = [Root(self.identities[root].public(), (self.places[root],))]
        planet = make(WorldType.PLANET, 7, 1, roots, KeyPair(random.randbytes(64)))
        self.single = SingleNode(me, planet, HERE, START_MS)
        self.keys = {}
        for n, identity in self.identities.items():
            if n != name and identity.has_private:
                self.keys[n] = PeerKey(identity.agree(me))
                if identity.address not in self.single.node.vl1.peers:
                    self.single.node.vl1.add_peer(identity.public(), START_MS)
        for case in data["packets"]:
            if case["verb"] in (Verb.FRAME, Verb.NETWORK_CONFIG_REQUEST, Verb.MULTICAST_GATHER):
                nwid = NetworkId.decode(bytes.fromhex(case["packet"])[PAYLOAD:])
                self.single.node.join(nwid, START_MS)
        self.single.settle()

    def check_bounds(self) -> None:
        vl1 = self.single.node.vl1
        assert len(vl1.peers) <= 100
        assert len(vl1.paths) <= 5_000
        assert vl1.outbound.pending <= 4_096
        assert vl1.inbound.pending <= 1_600
        assert vl1.lookup.pending <= 4_096


def mutate(data: bytes, random: Random) -> bytes:
    """A few of: bytes changed, cut, repeated, inserted, interesting numbers written over."""
    out = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        at = random.randrange(len(out) + 1)
        kind = random.randrange(5)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << random.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = random.randbytes(random.choice((1, 2, 5, 18, 200)))
        elif kind == 3:
            out[at : at + 8] = random.choice((b"\xff" * 8, bytes(8), b"\x7f\xff", b"\0\x01"))
        else:
            out += out[at : at + 300]
    return bytes(out[: MAX_PACKET - HEADER_SIZE])


@pytest.fixture
def data(vectors: Any) -> Any:
    return vectors("packets_plain.json")


def targets(data: Any, random: Random) -> list[tuple[Target, list[Any]]]:
    """The recorded nodes that are sent something, each with those packets."""
    found = []
    for name in data["identities"]:
        cases = [case for case in data["packets"] if case["to"] == name]
        if cases and len(Identity.parse(data["identities"][name]).public_key) == 64:
            found.append((Target(data, name, random), cases))
    require_cases(found, "nobody is sent anything in packets_plain.json")
    return found


def test_a_hostile_peer(data: Any) -> None:
    """Mutated in the clear, then sealed: past the armor."""
    random = Random(11)
    pairs = targets(data, random)
    for number in range(COUNT):
        target, cases = pairs[number % len(pairs)]
        case = random.choice(cases)
        sender = case["from"]
        if sender not in target.keys:
            continue
        clear = bytes.fromhex(case["packet"])
        packet = bytearray(clear[:HEADER_SIZE] + mutate(clear[HEADER_SIZE:], random))
        packet[:8] = random.randbytes(8)
        packet[FLAGS] = 0
        if packet[VERB] == Verb.OK and target.sent and random.random() < 0.8:
            packet[PAYLOAD + 1 : PAYLOAD + 9] = random.choice(target.sent)  # as if asked for
        if random.random() < 0.05:
            packet[VERB] = random.randrange(256)
        if random.random() < 0.02:
            packet[VERB] |= FLAG_COMPRESSED
        if packet[VERB] & 0x1F == Verb.HELLO and random.random() < 0.5:
            suite = SUITE_MAC
        else:
            suite = random.choice((SUITE_MAC, SUITE_SALSA, SUITE_AES))
        target.keys[sender].seal(packet, suite)
        packet[FLAGS] |= random.choice((0, 0, 0, 1, 7))
        done = target.single.receive(target.places[sender], bytes(packet))
        target.sent.extend(action.data[:8] for action in done if isinstance(action, Send))
        if number % 500 < len(pairs):
            target.single.advance(target.single.now_ms + random.choice((10, 600, 6_000, 40_000)))
            target.check_bounds()


def test_anybody(data: Any) -> None:
    """Mutated on the wire: nothing is answered, because nothing is authentic."""
    random = Random(12)
    pairs = targets(data, random)
    for number in range(COUNT):
        target, cases = pairs[number % len(pairs)]
        case = random.choice(cases)
        wire = bytearray.fromhex(case["wire"] if case.get("wire") else case["packet"])
        if random.random() < 0.3:
            wire[HEADER_SIZE:] = mutate(wire[HEADER_SIZE:], random)
        at = random.choice((*range(8, FLAGS), *range(FLAGS + 1, min(len(wire), 60))))
        wire[at] ^= 1 << random.randrange(8)
        if random.random() < 0.2:
            wire[FLAGS] |= FLAG_FRAGMENTED
        place = target.places[case["from"]]
        done = target.single.receive(place, bytes(wire))
        back = [a for a in done if isinstance(a, Send) and (a.ip, a.port) == place]
        root = target.places[target.root]
        # An unknown source may be looked up at the root; nothing else leaves.
        assert not back or place == root, (case["description"], at)
        if number % 500 < len(pairs):
            target.single.advance(target.single.now_ms + random.choice((10, 600, 6_000)))
            target.check_bounds()


def test_noise(data: Any) -> None:
    random = Random(13)
    target, _ = targets(data, random)[0]
    address = target.single.me.address.encode()
    for number in range(COUNT):
        datagram = bytearray(random.randbytes(random.choice((0, 5, 13, 16, 17, 28, 60, 1400))))
        if random.random() < 0.7 and len(datagram) >= 13:
            datagram[8:13] = address
        target.single.receive(InetAddress(random.randbytes(4), 1), bytes(datagram))
        if number % 500 == 0:
            target.single.advance(target.single.now_ms + 1_000)
            target.check_bounds()
