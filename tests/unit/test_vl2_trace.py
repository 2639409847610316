"""Traces sent to an observer, against recorded ones (ch. 04, 15)."""

import pytest

from tests.unit.vl2_recorder import RecordingVl1, tables_of
from zt._fast.cipher import PeerKey
from zt._fast.switch import Switch
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.credentials import Capability, Tag
from zt.protocol.dictionary import Dictionary
from zt.protocol.identity import Identity
from zt.protocol.netconf import NetworkConfig
from zt.protocol.packet import Verb
from zt.vl2 import Vl2
from zt.vl2.trace import TRACES_PER_SECOND

NOW_MS = 1700000000000


@pytest.fixture
def node(vectors):
    """A function (config options) -> (vl1, vl2, network ID) of the recorded node."""
    data = vectors("rules_filter.json")
    nodes = {name: Identity.parse(node["identity_public"]) for name, node in data["nodes"].items()}
    nwid = NetworkId.parse(data["network_id"])

    def make(**options):
        vl1 = RecordingVl1(nodes["a"], nodes.values())
        vl2 = Vl2(vl1, tables_of(vl1), now_ms=NOW_MS)
        vl2.join(nwid, NOW_MS)
        us = vl1.address
        target = options.pop("target", "d")
        config = NetworkConfig(
            nwid=nwid, issued_to=us, timestamp=NOW_MS, public=True, multicast_limit=32,
            trace_target=nodes[target].address if target else Address(0), **options,
        )  # fmt: skip
        vl2._install(vl2._networks[nwid], config, NOW_MS)
        vl1.take_sent()
        return vl1, vl2, nwid

    return make


def frame(case):
    macs = Mac.parse(case["mac_dest"]).encode() + Mac.parse(case["mac_source"]).encode()
    return macs + case["ethertype"].to_bytes(2) + bytes.fromhex(case["frame"])


def test_recorded_filter_traces(vectors, node):
    for case in vectors("rules_filter.json")["cases"]:
        recorded = [s for s in case["expected"]["sent"] if s["verb"] == Verb.REMOTE_TRACE]
        if not recorded or case["direction"] != "out":
            continue
        held = case["config"]
        us = Address.parse(case["zt_source"])
        nwid = NetworkId.parse(vectors("rules_filter.json")["network_id"])
        vl1, vl2, nwid = node(
            target=held["trace"],
            trace_level=held["trace_level"],
            rules=bytes.fromhex(case["rules"]),
            capabilities=tuple(
                Capability(nwid, NOW_MS, c["id"], bytes.fromhex(c["rules"]))
                for c in held.get("caps", ())
            ),
            tags=tuple(Tag(nwid, NOW_MS, t["id"], t["value"], us) for t in held.get("tags", ())),
        )
        vl2.frame(nwid, frame(case), NOW_MS)
        sent = [s for s in vl1.take_sent() if s.verb == Verb.REMOTE_TRACE]
        events = {Dictionary.decode(s.payload).text("event"): s for s in sent}
        assert events["2006"].payload.hex() == recorded[0]["payload"], case["description"]
        assert events["2006"].dest == recorded[0]["dest"]
        assert events["2006"].compressed == recorded[0]["compressed"]


def test_levels_and_limit(node):
    payload = b"E" + bytes(40)
    for level, expected in ((0, set()), (10, {"2000"}), (15, {"2000", "2006"})):
        vl1, vl2, nwid = node(trace_level=level, rules=b"\0\0")
        us = Mac.of(vl1.address, nwid)
        blocked = Mac.of(0xA4D16039BC, nwid).encode() + us.encode() + b"\x08\x00" + payload
        vl2.frame(nwid, blocked, NOW_MS)
        events = {Dictionary.decode(s.payload).text("event") for s in vl1.take_sent()}
        assert events == expected
    for _ in range(TRACES_PER_SECOND):
        vl2.frame(nwid, blocked, NOW_MS + 1000)
    assert len(vl1.take_sent()) == TRACES_PER_SECOND


@pytest.mark.parametrize("traced", [True, False])
def test_a_traced_network_is_all_the_control_planes(node, traced):
    """Else frames on the fast path would be missing from the trace."""
    vl1, vl2, nwid = node(trace_level=15, rules=b"\1\0", target="d" if traced else None)
    tables = vl2._context.tables
    switch = Switch(tables)
    peer = Address(0xA4D16039BC)
    tables.peer_set(peer, PeerKey(bytes(48)), 3)
    tables.peer_route(peer, tables.path(1, b"\x0a\0\0\1", 9993))
    macs = Mac.of(peer, nwid).encode() + Mac.of(vl1.address, nwid).encode()
    passing = macs + b"\x08\x00" + bytes(40)
    vl2.frame(nwid, passing, NOW_MS)
    switch.frame(nwid, passing, NOW_MS)
    assert bool(switch.take_punts()) == traced
    assert bool(switch.take_datagrams()) != traced
