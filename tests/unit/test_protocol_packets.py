"""Recorded packets of every verb, field by field: chapter 02, 9 and 10."""

import pytest
from transcript import describe

from zt._fast.cipher import PeerKey
from zt.protocol import packet as wire
from zt.protocol.identity import Identity
from zt.protocol.messages import Hello
from zt.protocol.packet import Header, Verb


@pytest.fixture(scope="module")
def data(vectors):
    return vectors("packets_plain.json")


@pytest.fixture(scope="module")
def identities(data):
    return {name: Identity.parse(text) for name, text in data["identities"].items()}


@pytest.fixture(scope="module")
def find(identities):
    return {identity.address: identity for identity in identities.values()}.get


def pair_key(identities, case):
    return PeerKey(identities[case["from"]].agree(identities[case["to"]]))


def test_fields(data, identities, find):
    for case in data["packets"]:
        packet = bytearray.fromhex(case["packet"])
        header = Header.decode(packet)
        assert header.verb == case["verb"]
        want = {
            "packet_id": f"{header.packet_id:016x}",
            "dest": str(header.destination),
            "source": str(header.source),
            "fragmented": header.fragmented,
        }
        assert want == case["header"]
        assert header.source == identities[case["from"]].address
        assert header.destination == identities[case["to"]].address
        payload = bytes(packet[wire.PAYLOAD :])
        masked = {}
        if header.verb == Verb.HELLO:
            assert Hello.claimed_identity(payload) == identities[case["from"]]
            offset = Hello.tail_offset(payload)
            if offset < len(payload):
                masked["masked_tail"] = payload[offset:].hex()
                pair_key(identities, case).mask_hello(packet, wire.PAYLOAD + offset)
                payload = bytes(packet[wire.PAYLOAD :])
                masked["tail_plain"] = payload[offset:].hex()
        fields = describe(header.verb, payload, find) | masked
        assert fields == case["fields"], case["description"]


def test_compressed_forms(data):
    for case in data["packets"]:
        if "packet_compressed" in case:
            packed = bytearray.fromhex(case["packet_compressed"])
            assert Header.decode(packed).compressed
            wire.decompress(packed)
            assert packed.hex() == case["packet"]


def test_armor(data, identities):
    """What live nodes sent is reproduced, and opens."""
    for case in data["packets"]:
        if "wire" not in case or case["cipher"] == wire.SUITE_TRUSTED:
            continue
        key = pair_key(identities, case)
        plain = bytearray.fromhex(case.get("packet_compressed", case["packet"]))
        sealed = bytearray(plain)
        key.seal(sealed, case["cipher"])
        assert sealed.hex() == case["wire"], case["description"]
        assert Header.decode(sealed).suite == case["cipher"]
        assert key.open(sealed)
        assert sealed[wire.VERB :] == plain[wire.VERB :]


def test_hello_field_encryption(vectors):
    """Chapter 01, 6.5."""
    for case in vectors("hello_cryptfield.json")["cases"]:
        key = PeerKey(bytes.fromhex(case["key48"]))
        plain = bytearray.fromhex(case["packet_plain"])
        start = case["crypted_start"]
        payload = bytes(plain[wire.PAYLOAD :])
        assert len(plain) - start == case["crypted_length"]
        assert plain[start:].hex() == case["tail_plain"]
        if case["crypted_length"]:
            assert wire.PAYLOAD + Hello.tail_offset(payload) == start
            Hello.decode(payload)
        sealed = bytearray(plain)
        key.mask_hello(sealed, start)
        assert sealed[start:].hex() == case["tail_crypted"]
        key.seal(sealed, wire.SUITE_MAC)
        assert sealed.hex() == case["packet_wire"]
        assert key.open(sealed)
        key.mask_hello(sealed, start)
        assert sealed.hex() == case["packet_after_receive"]
