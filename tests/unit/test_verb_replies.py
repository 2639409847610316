"""What a node answers, against a recording of the original: stimuli, clock and every reply."""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.sim.single import SingleNode
from zt._fast.cipher import PeerKey
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.packet import PAYLOAD, ErrorCode, Header, Verb, decompress
from zt.protocol.world import World
from zt.vl1.actions import Action, RemoteTrace, Send, UserMessage
from zt.vl1.status import Settings

USER_MESSAGE_EVENT, REMOTE_TRACE_EVENT = 6, 7
COLLISION_SIZE = 38
EXACT_REPEATS = frozenset(("WHOIS +100",))
"""Steps that send an earlier packet once more, byte by byte. The original answers, we do not."""


class Recorded:
    """The recorded node, and the keys of those who talk to it."""

    def __init__(self, recording: Any) -> None:
        self.base_ms: int = recording["clock_base"]
        self.me = Identity.parse(recording["node_identity"])
        texts = [peer["identity"] for peer in recording["peers"]]
        self.peers = [Identity.parse(text) for text in (*texts, recording["root_identity"])]
        self.single = SingleNode(
            self.me,
            World.decode(bytes.fromhex(recording["planet"])),
            InetAddress.parse(recording["node_address"]),
            self.base_ms,
            # The original checks one stranger per source network every 2 s.
            settings=Settings(stranger_burst=1),
        )

    def open(self, wire: bytes) -> tuple[Header, bytes] | None:
        """Header and payload of a packet of the node's, by the key of whoever can read it."""
        destination = Header.decode(wire).destination
        for identity in self.peers:
            packet = bytearray(wire)
            if identity.address == destination and PeerKey(identity.agree(self.me)).open(packet):
                decompress(packet)
                return Header.decode(packet), bytes(packet[PAYLOAD:])
        return None


def test_recorded_replies(vectors: Any) -> None:
    recording = vectors("verb_replies.json")
    bench = Recorded(recording)
    for step in recording["steps"]:
        bench.single.advance(bench.base_ms + step["t_ms"])
        source = InetAddress.parse(step["from"])
        actions = bench.single.receive(source, bytes.fromhex(step["wire"]))
        check_replies(bench, step, source, [a for a in actions if isinstance(a, Send)])
        check_events(step, actions)


def check_replies(bench: Recorded, step: Any, source: InetAddress, sent: Iterable[Send]) -> None:
    about = f"{step['description']} at {step['t_ms']} ms"
    back = [send for send in sent if (send.ip, send.port) == source]
    elsewhere = [send for send in sent if (send.ip, send.port) != source]
    replies = [] if step["description"] in EXACT_REPEATS else step["replies"]
    expected = [reply for reply in replies if not reply.get("other_dest")]
    assert len(elsewhere) == len(replies) - len(expected), about
    readable = [bench.open(send.data) for send in back]
    assert len(back) == len(expected), f"{about}: {readable}"
    for send, opened, reply in zip(back, readable, expected, strict=True):
        assert opened is not None, about
        header, payload = opened
        if reply.get("undecodable"):
            # The original seals this with a key that its receiver has not; ours can be read.
            assert header.verb == Verb.ERROR, about
            assert payload[9] == ErrorCode.IDENTITY_COLLISION, about
            assert len(send.data) == reply["len"] == COLLISION_SIZE, about
            continue
        assert (header.verb, header.suite) == (reply["verb"], reply["cipher"]), about
        assert len(send.data) == reply["len"], about
        if header.verb != Verb.HELLO:  # carries our clock and a masked tail
            assert payload.hex() == reply["payload"], about


def check_events(step: Any, actions: Iterable[Action]) -> None:
    seen = []
    for action in actions:
        if isinstance(action, UserMessage):
            seen.append((USER_MESSAGE_EVENT, action.data.hex(), action.type, str(action.origin)))
        elif isinstance(action, RemoteTrace):
            seen.append((REMOTE_TRACE_EVENT, action.data.decode()))
    expected = []
    for event in step.get("events", ()):
        if event["ev"] == USER_MESSAGE_EVENT:
            expected.append((event["ev"], event["data"], event["type"], event["origin"]))
        elif event["ev"] == REMOTE_TRACE_EVENT:
            expected.append((event["ev"], event["data"]))
        else:
            pytest.fail(f"unknown event {event}")
    assert seen == expected, step["description"]
