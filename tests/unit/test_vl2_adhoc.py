"""Networks without a controller, against recorded configurations (ch. 04, 3)."""

from tests.unit.vl2_recorder import RecordingVl1, tables_of
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.vl1.actions import Store
from zt.vl2 import Vl2, status

STATUS = {0: status.REQUESTING_CONFIGURATION, 1: status.OK, 3: status.NOT_FOUND}


def test_recorded_configurations(vectors):
    for case in vectors("adhoc.json")["cases"]:
        nwid = NetworkId.parse(case["network_id"])
        us = Identity(Address.parse(case["node_address"]), bytes(64))
        vl1 = RecordingVl1(us, [])
        recorded = case.get("config")
        now_ms = recorded["timestamp"] if recorded else 1700000000000
        vl2 = Vl2(vl1, tables_of(vl1), now_ms=now_ms)
        vl2.join(nwid, now_ms)
        vl1.take_actions()
        vl2.timer(now_ms)
        found = vl2.network(nwid)
        assert found.status == STATUS[case["status"]], case["description"]
        assert len(vl1.take_sent()) == case["sent_packets"]
        assert not any(isinstance(action, Store) for action in vl1.take_actions())
        if recorded is None:
            assert found.config is None
            continue
        config = found.config
        assert str(found.mac) == case["mac"]
        assert config.rules.hex() == recorded["rules_bin"]
        assert config.name == recorded["name"]
        assert config.flags == int(recorded["flags"], 16)
        assert config.static_ips == tuple(map(InetAddress.parse, recorded["static_ips"]))
        assert config.window == recorded["credential_time_max_delta"]
        assert config.com is None
        for name in ("timestamp", "revision", "mtu", "multicast_limit"):
            assert getattr(config, name) == recorded[name], (case["description"], name)
        assert config.public == bool(recorded["type"])
        assert str(config.issued_to) == recorded["issued_to"]
        assert len(config.specialists) == len(recorded["specialists"])


def test_made_anew_every_minute(identity):
    vl1 = RecordingVl1(identity, [])
    nwid, now_ms = NetworkId.parse("ff00160016000000"), 1700000000000
    vl2 = Vl2(vl1, tables_of(vl1), now_ms=now_ms)
    vl2.join(nwid, now_ms)
    seen = set()
    for _ in range(26):
        vl2.timer(now_ms)
        seen.add(vl2.network(nwid).config.timestamp)
        now_ms += 5000
    assert seen == {1700000000000, 1700000060000, 1700000120000}
