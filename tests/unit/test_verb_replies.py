"""What a node answers, against a recording of the original: stimuli, clock and every reply."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from zt._fast.cipher import PeerKey
from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.node import Node
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.packet import PAYLOAD, ErrorCode, Header, Verb, decompress
from zt.protocol.world import World
from zt.vl1.actions import Action, RemoteTrace, Send, UserMessage, Validate
from zt.vl1.status import LocalSocket, Settings

SOCKET = 1
USER_MESSAGE_EVENT, REMOTE_TRACE_EVENT = 6, 7
COLLISION_SIZE = 38


@dataclass
class Sent:
    to: InetAddress
    data: bytes


class Bench:
    """One node under a clock of ours."""

    def __init__(self, recording: Any) -> None:
        self.base_ms = recording["clock_base"]
        self.me = Identity.parse(recording["node_identity"])
        peers = [Identity.parse(peer["identity"]) for peer in recording["peers"]]
        peers.append(Identity.parse(recording["root_identity"]))
        self.peers = peers
        self.switch = Switch(Tables(self.me.address))
        self.now_ms = self.base_ms
        self.node = Node(
            self.me,
            self.switch,
            now_ms=self.now_ms,
            random=Random(1).randbytes,
            planet=World.decode(bytes.fromhex(recording["planet"])),
            # The original checks one stranger per source network every 2 s.
            settings=Settings(stranger_burst=1),
        )
        here = InetAddress.parse(recording["node_address"])
        self.node.sockets_changed([LocalSocket(SOCKET, here)], self.now_ms)
        self.settle()

    def advance(self, t_ms: int) -> None:
        """Runs the timers up to an instant of the recording."""
        until_ms = self.base_ms + t_ms
        while self.node.deadline() <= until_ms:
            self.now_ms = max(self.now_ms, self.node.deadline())
            self.node.timer(self.now_ms)
            self.settle()
        self.now_ms = until_ms

    def stimulate(self, source: InetAddress, wire: bytes) -> list[Action]:
        self.switch.datagram(SOCKET, source.ip, source.port, wire, self.now_ms)
        return self.settle()

    def settle(self) -> list[Action]:
        """Everything that the node does now."""
        done: list[Action] = []
        while True:
            for punt in self.switch.take_punts():
                self.node.punt(punt, self.now_ms)
            actions = self.node.actions()
            datagrams = self.switch.take_datagrams()
            if not actions and not datagrams:
                return done
            for action in actions:
                if isinstance(action, Validate):
                    ok = action.identity.validate()
                    self.node.validated(action.ticket, ok, self.now_ms)
                done.append(action)
            done += [Send(socket, ip, port, data) for socket, ip, port, data in datagrams]

    def open(self, wire: bytes) -> tuple[Header, bytes] | None:
        """Header and payload of a packet of the node's, by the key of whoever can read it."""
        header = Header.decode(wire)
        for identity in self.peers:
            if identity.address == header.destination:
                packet = bytearray(wire)
                if PeerKey(identity.agree(self.me)).open(packet):
                    decompress(packet)
                    return Header.decode(packet), bytes(packet[PAYLOAD:])
        return None


def test_recorded_replies(vectors: Any) -> None:
    recording = vectors("verb_replies.json")
    bench = Bench(recording)
    for step in recording["steps"]:
        bench.advance(step["t_ms"])
        source = InetAddress.parse(step["from"])
        actions = bench.stimulate(source, bytes.fromhex(step["wire"]))
        check_replies(bench, step, source, [a for a in actions if isinstance(a, Send)])
        check_events(step, actions)


def check_replies(bench: Bench, step: Any, source: InetAddress, sent: Iterable[Send]) -> None:
    about = f"{step['description']} at {step['t_ms']} ms"
    back = [send for send in sent if (send.ip, send.port) == source]
    elsewhere = [send for send in sent if (send.ip, send.port) != source]
    expected = [reply for reply in step["replies"] if not reply.get("other_dest")]
    assert len(elsewhere) == len(step["replies"]) - len(expected), about
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
