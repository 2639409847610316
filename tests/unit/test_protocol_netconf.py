"""Network configurations: chapter 04, 5.5, 5.6 and 6."""

from dataclasses import replace
from typing import Any

import pytest
from test_protocol_credentials import (
    describe_capability,
    describe_com,
    describe_ownership,
    describe_tag,
)

from tests.conftest import require_cases
from zt.protocol import netconf, rules
from zt.protocol.address import Address, NetworkId
from zt.protocol.dictionary import CONFIG_CAPACITY, Dictionary, DictionaryWriter
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress, ip_text
from zt.protocol.netconf import (
    ACTIVE_BRIDGE,
    Assembler,
    ConfigChunk,
    Dns,
    NetworkConfig,
    RequestMetadata,
    Route,
    Sso,
)


def written(address: InetAddress) -> str | None:
    return str(address) or None


def describe_rules(table: bytes) -> list[Any]:
    return [rule.to_json() for rule in rules.decode(table)]


def describe(config: NetworkConfig) -> dict[str, Any]:
    """A configuration the way the recorded data writes it."""
    return {
        "authentication_expiry_time": config.sso.expiry_ms,
        "authentication_url": config.sso.authentication_url,
        "capabilities": [describe_capability(value) for value in config.capabilities],
        "central_auth_url": config.sso.central_url,
        "certificates_of_ownership": [describe_ownership(value) for value in config.ownerships],
        "com": describe_com(config.com) if config.com else None,
        "credential_time_max_delta": config.window,
        "dns": {
            "domain": config.dns.domain,
            "servers": [ip_text(s.ip) if s else None for s in config.dns.servers],
        },
        "flags": f"{config.flags:016x}",
        "issued_to": str(config.issued_to),
        "issuer_url": config.sso.issuer_url,
        "mtu": config.mtu,
        "multicast_limit": config.multicast_limit,
        "name": config.name,
        "network_id": str(config.nwid),
        "remote_trace_level": config.trace_level,
        "remote_trace_target": str(config.trace_target),
        "revision": config.revision,
        "routes": [
            {
                "target": written(route.target),
                "via": written(route.via),
                "flags": route.flags,
                "metric": route.metric,
            }
            for route in config.routes
        ],
        "rules": describe_rules(config.rules),
        "rules_bin": config.rules.hex(),
        "specialists": [f"{specialist:016x}" for specialist in config.specialists],
        "sso_client_id": config.sso.client_id,
        "sso_enabled": config.sso.enabled,
        "sso_nonce": config.sso.nonce,
        "sso_provider": config.sso.provider,
        "sso_state": config.sso.state,
        "sso_version": config.sso.version,
        "static_ips": [written(ip) for ip in config.static_ips],
        "tags": [describe_tag(value) for value in config.tags],
        "timestamp": config.timestamp,
        "type": int(config.public),
    }


def recorded(decoded: dict[str, Any]) -> dict[str, Any]:
    """The recorded form without what is recorded twice."""
    out = dict(decoded)
    out["rules"] = [rule.get("json") for rule in decoded["rules"]]
    out["capabilities"] = [
        {key: value for key, value in capability.items() if key != "rules"}
        for capability in decoded["capabilities"]
    ]
    return out


def test_configs(vectors):
    for case in vectors("netconf_dictionary.json")["configs"]:
        dictionary = bytes.fromhex(case["dictionary"])
        config = NetworkConfig.decode(dictionary)
        assert describe(config) == recorded(case["decoded"]), case["description"]
        keys, again = Dictionary.decode(dictionary), Dictionary.decode(config.encode())
        # Only what is clamped or sorted may change.
        changed = {key for key, value in keys.items() if again.get(key) != value}
        assert changed <= {"mtu", "CAP", "TAG"}, case["description"]
        assert list(keys) == list(again)
        assert all(sorted(keys.blob(key)) == sorted(again.blob(key)) for key in ("CAP", "TAG"))
        if not changed:
            assert config.encode() == dictionary
        assert NetworkConfig.decode(config.encode()) == config


def test_parsing(vectors):
    for case in vectors("netconf_dictionary.json")["parse_cases"]:
        dictionary = bytes.fromhex(case["dictionary"])
        if not case["decode_ok"]:
            with pytest.raises(DecodeError):
                NetworkConfig.decode(dictionary)
            continue
        config = NetworkConfig.decode(dictionary)
        assert describe(config) == recorded(case["decoded"]), case["description"]
        if config.timestamp >= 0:  # the format loses the sign
            assert NetworkConfig.decode(config.encode()) == config


def test_ad_hoc_configs(vectors):
    """Configurations that never travel have a dictionary all the same."""
    for case in vectors("adhoc.json")["cases"]:
        want = case["config"]
        if want is None:
            continue
        config = NetworkConfig(
            nwid=NetworkId.parse(want["network_id"]),
            issued_to=Address.parse(want["issued_to"]),
            timestamp=want["timestamp"],
            window=want["credential_time_max_delta"],
            revision=want["revision"],
            flags=int(want["flags"], 16),
            multicast_limit=want["multicast_limit"],
            public=want["type"] == 1,
            name=want["name"],
            mtu=want["mtu"],
            specialists=tuple(int(s, 16) for s in want["specialists"]),
            static_ips=tuple(map(InetAddress.parse, want["static_ips"])),
            rules=bytes.fromhex(want["rules_bin"]),
        )
        described = describe(config)
        assert {key: described[key] for key in want} == recorded(want), case["description"]
        assert NetworkConfig.decode(config.encode()) == config
        assert config.nwid.ad_hoc


BASE = NetworkConfig(
    nwid=NetworkId(0x8056C2E21C000001), issued_to=Address(0x1122334455), timestamp=1
)


def test_limits():
    config = replace(
        BASE,
        name="é" * 70,  # cut inside a character
        routes=(Route(InetAddress.parse("10.0.0.0/8")),) * 200,
        static_ips=(InetAddress.parse("10.0.0.1/8"),) * 40,
        specialists=(1,) * 300,
        rules=b"\x01\0" * 1100,
        dns=Dns("d" * 300, (InetAddress.parse("10.0.0.1"),) * 6),
    )
    again = NetworkConfig.decode(config.encode())
    assert again.name == "é" * 63 + "\ufffd"
    assert len(again.routes) == netconf.MAX_ROUTES
    assert len(again.static_ips) == netconf.MAX_STATIC_IPS
    assert len(again.specialists) == netconf.MAX_SPECIALISTS
    assert rules.count(again.rules) == netconf.MAX_RULES
    assert again.dns.domain == "d" * 127
    assert len(again.dns.servers) == netconf.DNS_SERVERS
    assert NetworkConfig.decode(again.encode()) == NetworkConfig.decode(again.encode())


def test_too_large():
    with pytest.raises(ValueError, match="too large"):
        replace(BASE, rules=b"\x01\0" * (CONFIG_CAPACITY // 2)).encode()
    with pytest.raises(DecodeError):
        NetworkConfig.decode(bytes(CONFIG_CAPACITY))


def test_roles():
    config = replace(BASE, specialists=(5 | ACTIVE_BRIDGE, 6, 7 | netconf.ANCHOR))
    assert config.specialists_with(ACTIVE_BRIDGE) == (Address(5),)
    assert config.specialists_with(netconf.ANCHOR | netconf.REPLICATOR) == (Address(7),)


def test_metadata(vectors):
    """What 1.14.1 sends is what we send."""
    recorded = [
        bytes.fromhex(case["serialized"])
        for case in vectors("dictionary_format.json")["encode"]
        if [entry["key"] for entry in case["adds"][:2]] == ["v", "vend"]
    ]
    require_cases(recorded, "no metadata in dictionary_format.json")
    for data in recorded:
        metadata = RequestMetadata.decode(data)
        assert metadata == RequestMetadata.own(metadata.platform)
        assert metadata.encode() == data
    assert RequestMetadata.decode(b"") == RequestMetadata()
    asked = replace(RequestMetadata.own("linux/x86_64"), token="token:=x")
    assert RequestMetadata.decode(asked.encode()) == asked
    long = replace(asked, token="x" * 2000)
    assert RequestMetadata.decode(long.encode()) == replace(asked, token="")


def test_authentication(vectors):
    packets = vectors("packets_plain.json")["packets"]
    errors = [p["fields"] for p in packets if p["fields"].get("error_code") == 9]
    require_cases(errors, "no request for authentication in packets_plain.json")
    for fields in errors:
        data = fields.get("error_data")
        writer = DictionaryWriter()
        for key, value in (data or {}).items():
            writer.text(key, value)
        sso = Sso.of_error(bytes(writer) if data else None)
        assert sso is not None
        assert sso.enabled
        data = data or {}
        assert sso.version == int(data.get("aV", "0"), 16)
        assert sso.authentication_url == data.get("aU", "")
        if sso.version == 1:
            assert sso.issuer_url == data["iU"]
            assert sso.central_url == data["aCU"]
            assert (sso.nonce, sso.state) == (data["aN"], data["aS"])
            assert (sso.client_id, sso.provider) == (data["aCID"], data["aSSOp"])
    assert Sso.of_error(b"aV=2\naU=x") is None
    assert Sso.of_error(b"aV=0") is None
    assert Sso.of_error(b"aV=1").provider == "default"


@pytest.fixture
def controller(identity):
    return identity


def chunks_of(size: int, update_id: int, controller: Identity) -> tuple[bytes, list[ConfigChunk]]:
    dictionary = bytes(i * 31 % 251 for i in range(size))
    nwid = NetworkId(controller.address << 24 | 1)
    return dictionary, netconf.split(nwid, dictionary, update_id, controller)


@pytest.mark.parametrize("size", [1, 9740, 9741, 30000])
def test_chunks(controller, size):
    dictionary, chunks = chunks_of(size, 7, controller)
    assert len(chunks) == -(-size // netconf.CHUNK_SIZE)
    for order in (chunks, chunks[::-1]):
        assembler = Assembler()
        for chunk in order[:-1]:
            assert assembler.add(chunk) is None
            assert assembler.has(chunk)
        assert not assembler.has(order[-1])
        assert assembler.add(order[-1]) == dictionary
        assert assembler.add(order[-1]) is None
    for chunk in chunks:
        assert ConfigChunk.decode(chunk.encode()) == chunk
        assert chunk.verify(controller.public())
        assert not replace(chunk, offset=chunk.offset + 1).verify(controller)
        assert not replace(chunk, signature=None).verify(controller)
        assert not chunk.fast_propagate


def test_updates_side_by_side(controller):
    """Three updates fit; a fourth takes the place of the one used least."""
    updates = [chunks_of(20000, update_id, controller) for update_id in (1, 2, 3, 4)]
    assembler = Assembler()
    for _, chunks in updates[:3]:
        assembler.add(chunks[0])
    for dictionary, chunks in updates[1:3]:
        assembler.add(chunks[1])
        assert assembler.add(chunks[2]) == dictionary
    dictionary, chunks = updates[3]
    assert [assembler.add(chunk) for chunk in chunks] == [None, None, dictionary]
    assert not assembler.has(updates[0][1][0])


def test_old_form(controller):
    _, (chunk,) = chunks_of(500, 9, controller)
    old = replace(chunk, signature=None)
    decoded = ConfigChunk.decode(old.encode())
    assert decoded.signature is None
    assert (decoded.total, decoded.offset) == (500, 0)
    assert Assembler().add(replace(decoded, update_id=1234)) == chunk.data


def test_bad_chunks(controller):
    _, (chunk,) = chunks_of(500, 9, controller)
    good = chunk.encode()
    bad = [
        replace(chunk, total=499).encode(),
        replace(chunk, offset=1).encode(),
        replace(chunk, total=CONFIG_CAPACITY).encode(),
        good[:-99] + b"\x02" + good[-98:],
        good[:-98] + b"\0\x5f" + good[-96:],
        good[:-1],
        good[:400],
        good[:512],
    ]
    for wire in bad:
        with pytest.raises(DecodeError):
            ConfigChunk.decode(wire)
