"""HELLOs that say nothing new: the data plane answers them, the control plane sees the others."""

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim import Host, Network
from tests.unit.switch_nodes import ALICE, BOB, CAROL, IP, NOW, PORT, ROOT, Node, key_of
from zt._fast import switch as plane
from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import OWN_VERSION, Hello, Ok, OkHello, Version
from zt.protocol.packet import FLAGS, HEADER_SIZE, SUITE_MAC, VERB, Verb, id_of, new_packet
from zt.protocol.world import WorldVersion
from zt.service.capture import Capture
from zt.vl1.actions import ALL_SOCKETS
from zt.vl1.hello import GREETING_MS
from zt.vl1.nat import PUSH_DIRECT_MS
from zt.vl1.peer import EXPIRED_MS

RANDOM = random.Random(7)
UNTIL = NOW + 60_000


def message(sender: int = ALICE, time_ms: int = 1_000) -> Hello:
    identity = Identity(Address(sender), bytes(range(64)))
    to = InetAddress(IP[BOB], PORT)
    moons = (WorldVersion(0x1234, 5),)
    return Hello(OWN_VERSION, time_ms, identity, to, WorldVersion(7, 8), moons)


def clear(hello: Hello, sender: int = ALICE) -> tuple[bytearray, int]:
    """A packet without armor and mask, and where the mask begins."""
    payload = hello.encode()
    packet = new_packet(RANDOM.randbytes(8), Address(BOB), Address(sender), Verb.HELLO, payload)
    return packet, HEADER_SIZE + Hello.tail_offset(payload)


def sealed(hello: Hello, sender: int = ALICE, *, hops: int = 0) -> bytes:
    packet, tail = clear(hello, sender)
    key_of(sender, BOB).mask_hello(packet, tail)
    key_of(sender, BOB).seal(packet, SUITE_MAC)
    packet[FLAGS] |= hops
    return bytes(packet)


class Bob(Node):
    """Knows some peers, and what Alice says."""

    def __init__(self, suite: int = 3) -> None:
        super().__init__(BOB, suite=suite)
        self.tables.greetings(OWN_VERSION.encode())
        for peer in (ALICE, ROOT):
            self.knows(peer)

    def note(self, hello: Hello, sender: int = ALICE, until_ms: int = UNTIL) -> None:
        packet, tail = clear(hello, sender)
        path = self.tables.path(0, IP[sender], PORT)
        self.tables.greeting(sender, path, packet, tail, until_ms)

    def answers(self, datagram: bytes, sender: int = ALICE, **options: int) -> list[bytes]:
        """What is sent back; the rest must be left to the control plane."""
        self.hears(datagram, source=sender, **options)
        sent = self.switch.take_datagrams()
        punts = self.switch.take_punts()
        assert [punt.kind for punt in punts] == [] if sent else [plane.HELLO]
        assert all(entry[:3] == (0, IP[sender], PORT) for entry in sent)
        assert all(punt.data == datagram for punt in punts)
        return [data for *_, data in sent]


@pytest.mark.parametrize("sender", [ALICE, ROOT], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("suite", [1, 3])
def test_the_answer_is_the_one_of_the_control_plane(suite: int, sender: int) -> None:
    bob = Bob(suite)
    bob.note(message(sender), sender)
    for time_ms in (1_001, 5_000):
        hello = sealed(message(sender, time_ms), sender)
        (data,) = bob.answers(hello, sender, now=NOW + 5)
        assert data[8:18] == sender.to_bytes(5) + BOB.to_bytes(5)
        assert data[FLAGS] & 0x3F == suite << 3
        packet = bytearray(data)
        assert key_of(sender, BOB).open(packet)
        expected = OkHello(time_ms, OWN_VERSION, InetAddress(IP[sender], PORT))
        assert packet[VERB] == Verb.OK
        assert packet[VERB + 1 :] == Ok(Verb.HELLO, id_of(hello), expected.encode()).encode()
    assert bob.switch.counters()["greeted"] == 2
    path = bob.tables.path(0, IP[sender], PORT)
    assert bob.tables.path_times(path) == (NOW + 5, 0)
    assert bob.tables.peer_times(sender) == (NOW + 5, 0)
    assert bob.tables.peer_path_time(sender, path) == NOW + 5


@pytest.mark.parametrize(
    "change",
    [
        {"version": Version(12, 1, 14, 2)},
        {"identity": Identity(Address(ALICE), bytes(64))},
        {"sent_to": InetAddress(IP[BOB], PORT + 1)},
        {"planet": WorldVersion(7, 9)},
        {"moons": (WorldVersion(0x1234, 6),)},
        {"moons": ()},
        {"moons": None},
        {"timestamp": 1_000},
        {"timestamp": 999},
        {"timestamp": 1 << 63},
    ],
    ids=str,
)
def test_what_is_new_or_old_is_left_to_the_control_plane(change: dict[str, object]) -> None:
    bob = Bob()
    bob.note(message())
    assert not bob.answers(sealed(replace(message(time_ms=2_000), **change)))
    assert bob.answers(sealed(message(time_ms=2_001)))


@given(st.data())
def test_any_other_bit_counts(data: st.DataObject) -> None:
    bob = Bob()
    bob.note(message())
    packet, tail = clear(message(time_ms=2_000))
    time_at = HEADER_SIZE + 5
    places = [*range(VERB + 1, time_at), *range(time_at + 8, len(packet))]
    packet[data.draw(st.sampled_from(places))] ^= 1 << data.draw(st.integers(0, 7))
    key_of(ALICE, BOB).mask_hello(packet, tail)
    key_of(ALICE, BOB).seal(packet, SUITE_MAC)
    assert not bob.answers(bytes(packet))


@given(st.data())
def test_other_lengths_count(data: st.DataObject) -> None:
    bob = Bob()
    bob.note(message())
    packet, tail = clear(message(time_ms=2_000))
    size = data.draw(st.integers(VERB + 1, len(packet) + 40).filter(lambda n: n != len(packet)))
    packet = (packet + bytes(40))[:size]
    if size > tail:
        key_of(ALICE, BOB).mask_hello(packet, tail)
    key_of(ALICE, BOB).seal(packet, SUITE_MAC)
    assert not bob.answers(bytes(packet))


def test_each_is_answered_once() -> None:
    bob = Bob()
    bob.note(message())
    first, second = (sealed(message(time_ms=time_ms)) for time_ms in (2_000, 3_000))
    assert bob.answers(second)
    assert not bob.answers(second)
    assert not bob.answers(first)
    bob.note(message(time_ms=1_500))  # an old one that the control plane answered
    assert not bob.answers(first), "the time does not go back"


def test_only_directly_and_on_the_same_path() -> None:
    bob = Bob()
    bob.note(message())
    assert not bob.answers(sealed(message(time_ms=2_000), hops=1))
    bob.switch.datagram(0, IP[CAROL], PORT, sealed(message(time_ms=2_000)), NOW)
    assert not bob.switch.take_datagrams()
    assert [punt.kind for punt in bob.switch.take_punts()] == [plane.HELLO]
    path = bob.tables.path(0, IP[ALICE], PORT)
    bob.tables.peer_path_remove(ALICE, path)
    assert not bob.answers(sealed(message(time_ms=2_000)))
    bob.tables.peer_path_add(ALICE, path)
    assert not bob.answers(sealed(message(time_ms=2_000))), "nothing is known of the new path"


def test_not_what_is_forged_or_under_a_layer() -> None:
    bob = Bob()
    bob.note(message())
    forged = bytearray(sealed(message(time_ms=2_000)))
    forged[-1] ^= 1
    assert not bob.answers(bytes(forged))
    packet, tail = clear(message(time_ms=2_000))
    packet[FLAGS] |= 0x80
    key_of(ALICE, BOB).mask_hello(packet, tail)
    key_of(ALICE, BOB).seal(packet, SUITE_MAC)
    packet[FLAGS] |= 0x80
    assert not bob.answers(bytes(packet))


def test_until_it_ends() -> None:
    bob = Bob()
    bob.note(message())
    hello = sealed(message(time_ms=2_000))
    assert not bob.answers(hello, now=UNTIL)
    bob.tables.greetings(None)
    assert not bob.answers(hello)
    bob.tables.greetings(OWN_VERSION.encode())
    bob.tables.greetings_end()
    assert not bob.answers(hello)
    bob.note(message(time_ms=1_500))
    assert bob.answers(hello, now=UNTIL - 1)


def test_what_cannot_be_noted() -> None:
    bob = Bob()
    bob.tables.greeting(ALICE, 12345, bytes(100), 60, UNTIL)  # no such path: nothing happens
    with pytest.raises(KeyError):
        bob.note(message(CAROL), CAROL)
    with pytest.raises(ValueError, match="5 bytes"):
        bob.tables.greetings(b"\1")
    path = bob.tables.path(0, IP[ALICE], PORT)
    packet, _ = clear(message())
    for data, at in ((packet[:40], 30), (packet, 20), (packet, len(packet) + 1), (b"\1", 0)):
        bob.note(message())
        bob.tables.greeting(ALICE, path, bytes(data), at, UNTIL)
        assert not bob.answers(sealed(message(time_ms=2_000)))
    bob.note(message())
    assert bob.answers(sealed(message(time_ms=2_000)))


# ---- the control plane's side -------------------------------------------------------------------


class Pair:
    """A root and a node that says HELLO when told to, beside what it says anyway."""

    def __init__(self) -> None:
        self.net = Network(seed=11)
        (self.root,) = self.net.add_roots()
        self.host: Host = self.net.add_host()
        self.net.run(1_000)
        self.hello()  # the first with a confirmed path

    def hello(self) -> tuple[int, int]:
        """One HELLO: how many the control plane and the data plane of the root got to answer."""
        before = self.counts()
        answered = self.host.node.counters()["packet.rx.ok"]
        peer = self.host.node.vl1.peers[self.root.address]
        self.host.node.vl1.hello.send(
            peer, peer.paths[0].path.address, ALL_SOCKETS, self.net.now_ms
        )
        self.host.settle()
        self.net.run(100)
        assert self.host.node.counters()["packet.rx.ok"] > answered
        control, data = self.counts()
        return control - before[0], data - before[1]

    def counts(self) -> tuple[int, int]:
        greeted = self.root.switch.counters()["greeted"]
        return self.root.node.counters()["packet.rx.hello"], greeted


def test_the_second_hello_on_a_path_is_the_data_planes() -> None:
    pair = Pair()
    assert [pair.hello() for _ in range(3)] == [(0, 1)] * 3


def test_what_changes_an_answer_brings_it_back() -> None:
    pair = Pair()
    vl1 = pair.root.node.vl1
    settings = pair.root.settings
    for change in (
        lambda: vl1.roots_changed(pair.net.now_ms),
        lambda: vl1.settings_changed(settings, pair.net.now_ms),
    ):
        change()
        assert [pair.hello() for _ in range(2)] == [(1, 0), (0, 1)]
    vl1.hello.delegate(False)
    assert [pair.hello() for _ in range(2)] == [(1, 0)] * 2
    vl1.hello.delegate(True)
    assert pair.hello() == (0, 1)


def test_the_control_plane_looks_again_now_and_then() -> None:
    pair = Pair()
    control, data = pair.counts()
    pair.net.run(6 * GREETING_MS)  # HELLO every two minutes
    again, answered = (now - old for now, old in zip(pair.counts(), (control, data), strict=True))
    assert 4 <= again <= 6
    assert answered >= 8
    (known,) = pair.root.node.vl1.peers[pair.host.address].paths
    assert pair.net.now_ms - known.last_in_ms < EXPIRED_MS


def test_a_trusted_peer_is_told_our_addresses_in_time() -> None:
    pair = Pair()
    vl1 = pair.root.node.vl1
    peer = vl1.peers[pair.host.address]
    peer.trusted_ms = pair.net.now_ms
    vl1.roots_changed(pair.net.now_ms)
    assert pair.hello() == (1, 0)
    assert peer.push_ms >= pair.net.now_ms - 100
    pushed = vl1.counters.as_dict()["packet.tx.push_direct_paths"]
    assert pair.hello() == (0, 1)
    pair.net.run(PUSH_DIRECT_MS)
    peer.trusted_ms = pair.net.now_ms
    pair.hello()
    assert vl1.counters.as_dict()["packet.tx.push_direct_paths"] == pushed + 1


def test_all_come_by_while_somebody_captures() -> None:
    pair = Pair()

    async def body() -> None:
        capture = Capture(pair.root.node)
        first, second = (asyncio.create_task(capture.collect(60)) for _ in range(2))
        await asyncio.sleep(0)
        assert pair.hello() == (1, 0)
        for task, expected in ((first, (1, 0)), (second, (0, 1))):
            task.cancel()
            await asyncio.wait([task])
            assert pair.hello() == expected

    asyncio.run(body())
