"""Drops told one by one: credit in the data plane, the rule that refused a frame, streams."""

import asyncio
import random
from typing import Any

import pytest

from zt._fast.cipher import PeerKey
from zt._fast.filter import Program
from zt._fast.switch import DROP_REASONS, DROPPED, Switch
from zt._fast.tables import Tables
from zt.cli.trace import lines
from zt.protocol import rules as rule_tables
from zt.protocol.address import Address, Mac, NetworkId
from zt.service.trace import CREDIT, Listener, Tracing, deciding_rule
from zt.vl1.actions import Dropped, RemoteTrace

US, PEER = Address(0x1122334455), Address(0x66778899AA)
NWID = NetworkId(0x8056C2E21C00ABCD)
NOW = 1_700_000_000_000
TCP_80 = bytes.fromhex(
    "4500002800000000400600000a0000010a00000204d200500000000000000000500200000000"
)


def table(*rules: dict[str, Any]) -> bytes:
    made = [rule_tables.from_json(rule) for rule in rules]
    return rule_tables.encode(rule for rule in made if rule is not None)


DROP_TCP_80 = table(
    {"type": "MATCH_ETHERTYPE", "etherType": 0x0806},
    {"type": "ACTION_ACCEPT"},
    {"type": "MATCH_IP_PROTOCOL", "ipProtocol": 6},
    {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 80, "end": 80},
    {"type": "ACTION_DROP"},
    {"type": "ACTION_ACCEPT"},
)


def frame(payload: bytes = TCP_80, ethertype: int = 0x0800) -> bytes:
    macs = Mac.of(PEER, NWID).encode() + Mac.of(US, NWID).encode()
    return macs + ethertype.to_bytes(2) + payload


@pytest.fixture
def switch() -> Switch:
    tables = Tables(US)
    tables.network_set(
        NWID,
        mtu=2800,
        mac=Mac.of(US, NWID),
        public=False,
        bridge=False,
        rules=Program(US, DROP_TCP_80),
    )
    tables.peer_set(PEER, PeerKey(random.Random(3).randbytes(48)), 3)
    tables.peer_route(PEER, tables.path(0, b"\x0a\0\0\1", 9993))
    tables.member_set(NWID, PEER, allowed=True, push_due_ms=1 << 62)
    return Switch(tables)


def told(switch: Switch) -> list[tuple[str, bool, int, int]]:
    """Reason, outbound, network and peer of each record."""
    return [
        (DROP_REASONS[punt.hops & 0x7F], punt.hops >= 0x80, punt.nwid, punt.address)
        for punt in switch.take_punts()
        if punt.kind == DROPPED
    ]


def test_nothing_is_told_without_credit(switch: Switch) -> None:
    for _ in range(5):
        switch.frame(NWID, frame(), NOW)
    assert told(switch) == []
    switch.tell_drops(2)
    for _ in range(5):
        switch.frame(NWID, frame(), NOW)
    assert told(switch) == [("filter", True, NWID, PEER)] * 2
    switch.tell_drops(0)
    switch.frame(NWID, frame(), NOW)
    assert told(switch) == []
    assert switch.counters()["drop_filter_out"] == 11


def test_reasons(switch: Switch) -> None:
    switch.tell_drops(100)
    switch.frame(NWID, frame(bytes(3000)), NOW)
    switch.frame(NWID + 1, frame(), NOW)
    switch.frame(NWID, frame()[:6] + b"\2\1\1\1\1\1" + frame()[12:], NOW)
    forged = bytearray(60)
    forged[8:13], forged[13:18] = US.encode(), PEER.encode()
    forged[18] = 3 << 3
    for data in (bytes(forged), bytes(forged[:20]), bytes(forged[:8]) + bytes(52)):
        switch.datagram(0, b"\x0a\0\0\1", 9993, data, NOW)
    assert told(switch) == [
        ("size", True, NWID, 0),
        ("network", True, NWID + 1, 0),
        ("bridge", True, NWID, 0),
        ("armor", False, 0, PEER),
        ("malformed", False, 0, 0),
        ("relay", False, 0, 0),
    ]
    assert switch.tables.peer_errors(PEER) == 1
    switch.tables.peer_error(PEER)
    assert switch.tables.peer_errors(PEER) == 2


def test_the_rule_that_decided() -> None:
    program = Program(US, DROP_TCP_80)
    verdict = program.outbound(PEER, 1, 2, 0x0800, TCP_80, trace=True)
    why = "drop ipprotocol tcp and dport 80 ;"
    assert deciding_rule(DROP_TCP_80, verdict) == {"rule": 4, "why": why}
    negated = table(
        {"type": "MATCH_ETHERTYPE", "etherType": 0x0806, "not": True},
        {"type": "MATCH_IP_PROTOCOL", "ipProtocol": 17, "or": True},
        {"type": "ACTION_DROP"},
    )
    verdict = Program(US, negated).outbound(PEER, 1, 2, 0x0800, TCP_80, trace=True)
    assert deciding_rule(negated, verdict)["rule"] == 2


class Fake:
    """What `Tracing` asks of a daemon."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.node = self
        self.pump = self
        self.telling = False

    def counters(self) -> dict[str, int]:
        return {}

    def tell_drops(self, telling: bool) -> None:
        self.telling = telling

    def network(self, nwid: NetworkId) -> Any:
        fake = self
        fake.config = type("Config", (), {"rules": DROP_TCP_80})()
        return fake

    def judged(self, nwid: NetworkId, peer: Address, frame: bytes, *, inbound: bool) -> Any:
        return Program(US, DROP_TCP_80).outbound(peer, 1, 2, 0x0800, frame[14:], trace=True)


def test_a_stream(switch: Switch) -> None:
    """Records of both planes and of others; nothing goes on once nobody listens."""

    async def main() -> list[dict[str, Any]]:
        fake = Fake(switch)
        tracing = Tracing(fake)  # type: ignore[arg-type]
        stream = tracing.records(Listener(nwid=NWID))
        found = [await anext(stream)]
        assert fake.telling
        for _ in range(CREDIT + 1):
            switch.frame(NWID, frame(), NOW)
        punts = switch.take_punts()
        assert len(punts) == CREDIT
        switch.tables.turn_strangers_away(True)
        hello = bytes(8) + US.encode() + PEER.encode()[::-1] + bytes((0,)) + bytes(8) + b"\1 hello"
        switch.datagram(0, b"\x0a\0\0\2", 9993, hello, NOW)
        tracing.dropped_by_plane(punts[0])
        tracing.dropped_by_node(Dropped(NWID, False, "no certificate", PEER))
        tracing.dropped_by_node(Dropped(NetworkId(NWID + 1), False, "no certificate", PEER))
        tracing.remote(RemoteTrace(PEER, b"event=2000\nnetworkId=8056c2e21c00abcd\nreason=x\n"))
        found += [await anext(stream) for _ in range(3)]
        found.append(await anext(stream))  # the count of the first second
        tracing.stop()
        assert [record async for record in stream] == []
        assert not fake.telling
        switch.frame(NWID, frame(), NOW)
        assert switch.take_punts() == []
        return found

    listening, filtered, refused, remote, counted = asyncio.run(main())
    assert listening["event"] == "listening"
    assert filtered["reason"] == "filter"
    assert filtered["rule"] == 4
    assert filtered["flow"] == "tcp 10.0.0.1/1234 > 10.0.0.2/80"
    assert filtered["size"] == len(TCP_80)
    assert (refused["plane"], refused["peer"]) == ("control", str(PEER))
    assert remote["fields"]["reason"] == "x"
    assert counted["drops"] == {"filter": CREDIT + 1, "stranger": 1}
    text = "\n".join(line for record in (filtered, refused, remote) for line in lines(record))
    assert f"sending on {NWID} to {PEER}: refused by the rules; tcp 10.0.0.1/1234" in text
    assert "rule 4: drop ipprotocol tcp and dport 80 ;" in text
    assert f"report of {PEER}: event=2000" in text
