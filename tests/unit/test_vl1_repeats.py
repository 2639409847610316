"""What comes again byte by byte has no effect: nobody who recorded a packet gets an answer to it.

And what is not authentic is not answered at all, so that nobody amplifies anything through us.
"""

from random import Random
from typing import Any

import pytest

from tests.conftest import require_cases
from tests.unit.test_vl1_fuzz import Target
from zt.protocol.inet import InetAddress
from zt.protocol.packet import (
    FLAGS,
    HEADER_SIZE,
    SOURCE,
    SUITE_AES,
    SUITE_MAC,
    SUITE_SALSA,
    VERB,
    Verb,
    compress,
)
from zt.vl1.actions import Send, UserMessage
from zt.vl1.counters import REPEAT
from zt.vl1.gates import Repeats
from zt.vl1.inbound import COPIED_VERBS, COPIES_LIMIT

ELSEWHERE = InetAddress.parse("45.9.9.9/1234")
REPLAYS = 100


def cases_of(data: Any, target: Target, verb: int) -> list[Any]:
    return [
        case
        for case in data["packets"]
        if (case["to"], case["verb"]) == (target.name, verb) and case["from"] in target.keys
    ]


def sealed(target: Target, case: Any, random: Random) -> bytes:
    """The recorded packet with an ID of its own."""
    packet = bytearray.fromhex(case["packet"])
    packet[:8] = random.randbytes(8)
    packet[FLAGS] = 0
    suite = SUITE_MAC if packet[VERB] == Verb.HELLO else random.choice((SUITE_SALSA, SUITE_AES))
    target.keys[case["from"]].seal(packet, suite)
    return bytes(packet)


def answered(actions: list[Any], place: InetAddress) -> int:
    """Bytes that went to a place."""
    return sum(
        len(action.data)
        for action in actions
        if isinstance(action, Send) and (action.ip, action.port) == place
    )


@pytest.fixture
def data(vectors: Any) -> Any:
    return vectors("packets_plain.json")


@pytest.mark.parametrize("verb", sorted(Verb))
def test_a_replay_is_answered_with_less_than_it_cost(data: Any, verb: Verb) -> None:
    """Somebody on the way recorded a packet and sends it on in the name of a victim."""
    random = Random(verb)
    tried = False
    for name in ("A", "B", "C", "R"):
        target = Target(data, name, random)
        for case in cases_of(data, target, verb):
            packet = sealed(target, case, random)
            target.single.receive(target.places[case["from"]], packet)
            target.single.advance(target.single.now_ms + 5_000)
            got = [answered(target.single.receive(ELSEWHERE, packet), ELSEWHERE)]
            for _ in range(REPLAYS - 1):
                target.single.advance(target.single.now_ms + 200)
                got.append(answered(target.single.receive(ELSEWHERE, packet), ELSEWHERE))
            tried = True
            if verb in COPIED_VERBS:
                assert not any(got[COPIES_LIMIT - 1 :]), case["description"]
                assert sum(got) < REPLAYS * len(packet) / 4, case["description"]
            else:
                assert not any(got), case["description"]
    require_cases(tried, f"nobody is sent {verb.name} in packets_plain.json")


@pytest.mark.parametrize("verb", range(32))
def test_who_is_not_authentic_is_not_answered(data: Any, verb: int) -> None:
    """In the name of a known peer and of unknown nodes, whole and in fragments, every suite."""
    random = Random(verb)
    target = Target(data, "R", random)
    place = target.places["A"]
    here, peer = (target.identities[n].address.encode() for n in ("R", "A"))
    for number in range(60):
        for source in (peer, random.randbytes(5)):
            packet = bytearray(random.randbytes(8) + here + source + bytes(9))
            packet[FLAGS] = random.choice((0x00, 0x08, 0x10, 0x18, 0x80, 0x88)) | number % 8
            packet[FLAGS] |= random.choice((0, 0, 0x40))
            packet += bytes((verb,)) + random.randbytes(random.choice((0, 10, 110, 1300)))
            done = target.single.receive(place, bytes(packet))
            assert not answered(done, place), bytes(packet[SOURCE:HEADER_SIZE]).hex()
    for case in cases_of(data, target, verb):
        packet = bytearray(sealed(target, case, random))
        packet[-1] ^= 1
        assert not answered(target.single.receive(place, bytes(packet)), place)


def test_a_repeat_has_no_effect_and_is_counted(data: Any) -> None:
    random = Random(3)
    target = Target(data, "A", random)
    questions = cases_of(data, target, Verb.WHOIS)
    messages = cases_of(data, Target(data, "B", random), Verb.USER_MESSAGE)
    require_cases(questions and messages, "a WHOIS to A and a USER_MESSAGE to B")
    case, message = questions[0], messages[0]
    other = Target(data, "B", random)
    place = other.places[message["from"]]
    packet = sealed(other, message, random)
    for copies in range(3):
        done = other.single.receive(place, packet)
        assert sum(isinstance(action, UserMessage) for action in done) == (copies == 0)
        assert other.single.node.counters()[REPEAT] == copies
    # Another packet with the same content is none.
    again = sealed(other, message, random)
    assert any(isinstance(a, UserMessage) for a in other.single.receive(place, again))
    packet = sealed(target, case, random)
    assert answered(target.single.receive(place, packet), place)


@pytest.mark.parametrize("verb", [Verb.FRAME, Verb.EXT_FRAME, Verb.MULTICAST_FRAME])
@pytest.mark.parametrize("compressed", [False, True])
def test_repeats_of_frames_end_in_the_data_plane(data: Any, verb: Verb, compressed: bool) -> None:
    random = Random(4)
    for name in ("A", "B", "C"):
        target = Target(data, name, random)
        for case in cases_of(data, target, verb):
            place = target.places[case["from"]]
            target.single.receive(place, sealed(target, case, random))  # now both planes know it
            packet = bytearray.fromhex(case["packet"])
            packet[:8] = random.randbytes(8)
            packet[FLAGS] = 0
            if compressed:
                packet += bytes(200)
                assert compress(packet)
            target.keys[case["from"]].seal(packet, SUITE_AES)
            target.single.receive(place, bytes(packet))
            assert target.single.switch.counters()["drop_repeat"] == 0
            for _ in range(3):
                assert not answered(target.single.receive(place, bytes(packet)), place)
            assert target.single.switch.counters()["drop_repeat"] == 3
            assert target.single.node.counters()[REPEAT] == 0
            return
    require_cases(False, f"nobody is sent {verb.name} in packets_plain.json")


def test_the_window_is_bounded() -> None:
    seen = Repeats()
    for packet_id in range(Repeats.LIMIT + 100):
        assert seen.count(1, packet_id) == 0
    assert len(seen) == Repeats.LIMIT
    assert seen.count(2, Repeats.LIMIT) == 0
    assert seen.count(1, Repeats.LIMIT) == 1
    assert seen.count(1, 0) == 0
