"""Damaged and forged packets of every verb: no exception, no growth, no answer to what is forged.

Recorded packets, single ones of every verb and two whole captures, are mutated in the clear and
then sealed, as a hostile peer could do, and as they were on the wire, as anybody could do; whole
and in fragments. ``ZT_FUZZ_PACKETS`` is how many each test sends (400,000 is the long form, a
million in all three), ``ZT_FUZZ_SEED`` another seed.
"""

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest

from tests.conftest import require_cases
from tests.sim.single import SingleNode
from zt._fast.cipher import PeerKey
from zt._fast.fragment import split
from zt.protocol.address import NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.messages import Hello
from zt.protocol.packet import (
    FLAG_COMPRESSED,
    FLAG_FRAGMENTED,
    FLAGS,
    HEADER_SIZE,
    HOPS_MASK,
    MAX_PACKET,
    PAYLOAD,
    SUITE_AES,
    SUITE_MAC,
    SUITE_SALSA,
    VERB,
    Verb,
    new_packet,
)
from zt.protocol.world import Root, WorldType, make
from zt.vl1.actions import Send

COUNT = int(os.environ.get("ZT_FUZZ_PACKETS", "6000"))
SEED = int(os.environ.get("ZT_FUZZ_SEED", "11"))

HERE = InetAddress.parse("10.0.0.1/9993")
START_MS = 1_700_000_000_000
LARGEST_TABLE = 16_384
"""No table of the node may hold more (docs/nat.md has each; introductions are bounded by pairs)."""
CAPTURES = ("startup_join_ping", "relay_moon_chunks")


class Target:
    """A recorded node that knows all other recorded nodes, one of them as its root."""

    def __init__(self, data: Any, name: str, random: Random) -> None:
        self.identities = {n: Identity.parse(t) for n, t in data["identities"].items()}
        self.name = name
        me = self.identities[name]
        self.places = {
            n: InetAddress(bytes((10, 0, 0, i + 2)), 9993) for i, n in enumerate(self.identities)
        }
        root = next(n for n in ("R", "root", *self.identities) if n != name and n in self.places)
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

    def receive(self, source: InetAddress, datagrams: list[bytes]) -> list[Any]:
        return [done for data in datagrams for done in self.single.receive(source, data)]

    def check_bounds(self) -> None:
        node = self.single.node
        for name, size in tables_of(node):
            assert size <= LARGEST_TABLE, name
        assert len(node.vl1.peers) <= 100
        assert len(node.vl1.paths) <= 5_000
        assert node.vl1.outbound.pending <= 4_096
        assert node.vl1.inbound.pending <= 1_600
        assert node.vl1.lookup.pending <= 4_096
        assert self.single.switch.counters()["punts_lost"] == 0


def tables_of(root: object) -> Iterator[tuple[str, int]]:
    """Every container that hangs on an object of ours, by attribute names, with its length."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [(type(root).__name__, root)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping | list | set | deque):
            yield name, len(value)
            inner = value.values() if isinstance(value, Mapping) else value
            waiting += ((f"{name}[]", item) for item in inner)
        elif type(value).__module__.startswith(("zt.vl1", "zt.vl2", "zt.node")):
            names = [*getattr(value, "__dict__", ())]
            for kind in type(value).__mro__:
                names += getattr(kind, "__slots__", ())
            for attribute in names:
                if hasattr(value, attribute):
                    waiting.append((f"{name}.{attribute}", getattr(value, attribute)))


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


def shuffled(datagrams: list[bytes], random: Random) -> list[bytes]:
    """As a bad way delivers them: out of order, some twice, some not, some cut or damaged."""
    random.shuffle(datagrams)
    out = []
    for data in datagrams:
        fate = random.randrange(16)
        if fate == 0:
            continue
        out += [data] * (2 if fate == 1 else 1)
        if fate == 2:
            out.append(data[: random.randrange(len(data))])
        if fate == 3:
            at = random.randrange(len(data))
            out.append(data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :])
    return out


@pytest.fixture
def data(vectors: Any) -> Any:
    return vectors("packets_plain.json")


@pytest.fixture
def captures(vectors: Any) -> list[Any]:
    """The captures in the form of the single packets."""
    nodes = vectors("capture/identities.json")["nodes"]
    names = {node["address"]: name for name, node in nodes.items()}
    found = []
    for capture in CAPTURES:
        packets = []
        for entry in vectors(f"capture/{capture}.json")["entries"]:
            if "plaintext" not in entry or "header" not in entry:
                continue  # pieces; whole packets are cut again here
            header = entry["header"]
            plain = bytes.fromhex(entry["plaintext"])
            to, source = int(header["dest"], 16), int(header["source"], 16)
            packet = new_packet(bytes(8), to, source, plain[0] & ~FLAG_COMPRESSED, plain[1:])
            packets.append(
                {
                    "from": names[header["source"]],
                    "to": names[header["dest"]],
                    "verb": entry["verb"],
                    "description": f"{capture} {entry['n']}",
                    "packet": packet.hex(),
                    "wire": entry["datagram"],
                }
            )
        identities = {name: node["identity_secret"] for name, node in nodes.items()}
        found.append({"identities": identities, "packets": packets})
    return found


def targets(data: Any, random: Random) -> list[tuple[Target, list[Any]]]:
    """The recorded nodes that are sent something, each with those packets."""
    found = []
    for name in data["identities"]:
        cases = [case for case in data["packets"] if case["to"] == name]
        if cases and len(Identity.parse(data["identities"][name]).public_key) == 64:
            found.append((Target(data, name, random), cases))
    require_cases(found, "nobody is sent anything in packets_plain.json or a capture")
    return found


def advance(pairs: list[tuple[Target, Any]], number: int, random: Random) -> None:
    """Now and then time passes, a little or a lot, and every table is measured."""
    if number % 500 < len(pairs):
        target = pairs[number % len(pairs)][0]
        target.single.advance(target.single.now_ms + random.choice((10, 600, 6_000, 40_000)))
        target.check_bounds()


def mask(packet: bytearray, key: PeerKey) -> None:
    """A HELLO's tail, as far as it has one."""
    with_tail = bytes(packet[HEADER_SIZE:])
    try:
        key.mask_hello(packet, HEADER_SIZE + Hello.tail_offset(with_tail))
    except DecodeError:
        return


def test_a_hostile_peer(data: Any, captures: list[Any]) -> None:
    """Mutated in the clear, then sealed: past the armor."""
    random = Random(SEED)
    pairs = [pair for recorded in (data, *captures) for pair in targets(recorded, random)]
    for number in range(COUNT):
        target, cases = pairs[number % len(pairs)]
        case = random.choice(cases)
        sender = case["from"]
        if sender not in target.keys:
            continue
        key = target.keys[sender]
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
            mask(packet, key)
        else:
            suite = random.choice((SUITE_MAC, SUITE_SALSA, SUITE_AES))
        mtu = random.choice((1432, 1432, 300, 64))
        if len(packet) > mtu:
            packet[FLAGS] |= FLAG_FRAGMENTED
        key.seal(packet, suite)
        packet[FLAGS] |= random.choice((0, 0, 0, 1, 7))
        # Longer ones have too many pieces.
        pieces = split(packet, mtu) if len(packet) < 6 * mtu else [bytes(packet)]
        if len(pieces) > 1 and random.random() < 0.5:
            pieces = shuffled(pieces, random)
        done = target.receive(target.places[sender], pieces)
        target.sent.extend(action.data[:8] for action in done if isinstance(action, Send))
        advance(pairs, number, random)
    arrived: Counter[str] = Counter()
    for target, _ in pairs:
        arrived.update(target.single.node.counters())
    sent = {c["verb"] for target, cases in pairs for c in cases if c["from"] in target.keys}
    never = [v.name for v in Verb if v in sent and not arrived[f"packet.rx.{counter_name(v)}"]]
    assert never == [], f"seed {SEED}"


def counter_name(verb: Verb) -> str:
    return "qos" if verb == Verb.QOS_MEASUREMENT else verb.name.lower()


def test_anybody(data: Any, captures: list[Any]) -> None:
    """Mutated on the wire: nothing is answered, because nothing is authentic."""
    random = Random(SEED + 1)
    pairs = [pair for recorded in (data, *captures) for pair in targets(recorded, random)]
    tried: set[int] = set()
    for number in range(COUNT):
        target, cases = pairs[number % len(pairs)]
        case = random.choice(cases)
        tried.add(case["verb"])
        recorded = bytes.fromhex(case["wire"] if case.get("wire") else case["packet"])
        wire = bytearray(recorded)
        if random.random() < 0.3:
            wire[HEADER_SIZE:] = mutate(wire[HEADER_SIZE:], random)
        at = random.randrange(8, len(wire))
        wire[at] ^= (
            random.choice((0x80, 0x40, 0x20, 0x10, 0x08))
            if at == FLAGS
            else (1 << random.randrange(8))
        )
        if random.random() < 0.2:
            wire[FLAGS] |= FLAG_FRAGMENTED
        if wire == recorded:
            continue  # one change undid the other
        wire[FLAGS] |= random.choice((0, 0, HOPS_MASK))  # which the armor does not cover
        pieces = [bytes(wire)]
        if random.random() < 0.2 and 64 < len(wire) < 6 * 300:
            wire[FLAGS] |= FLAG_FRAGMENTED
            pieces = shuffled(split(wire, random.choice((64, 300))), random)
        place = target.places[case["from"]]
        before = target.single.node.counters()
        done = target.receive(place, pieces)
        after = target.single.node.counters()
        made = {
            name for name in after if name.startswith("packet.tx.") and after[name] > before[name]
        }
        # An unknown source may be looked up at the root; nothing else is said.
        assert made <= {"packet.tx.whois"}, (case["description"], at)
        back = [a for a in done if isinstance(a, Send) and (a.ip, a.port) == place]
        assert not back or place == target.places[target.root], (case["description"], at)
        advance(pairs, number, random)
    assert tried == {case["verb"] for _, cases in pairs for case in cases}, f"seed {SEED}"


def test_noise(data: Any) -> None:
    random = Random(SEED + 2)
    target, _ = targets(data, random)[0]
    address = target.single.me.address.encode()
    for number in range(COUNT):
        datagram = bytearray(random.randbytes(random.choice((0, 5, 13, 16, 17, 28, 60, 200, 1400))))
        if random.random() < 0.7 and len(datagram) >= 13:
            datagram[8:13] = address
        if random.random() < 0.2 and len(datagram) > FLAGS:
            datagram[FLAGS] = 0x80 | datagram[FLAGS] & 0x47  # a HELLO under a layer, by its flags
        target.single.receive(InetAddress(random.randbytes(4), 1), bytes(datagram))
        if number % 500 == 0:
            target.single.advance(target.single.now_ms + 1_000)
            target.check_bounds()
