"""Keys and identities: chapter 01, 2.3 and 3 to 5."""

import hashlib
import hmac
import random
from collections.abc import Callable

import pytest

from zt.protocol import keys
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.wire import Reader


def test_hashes(vectors):
    """The hashes the room relies on are those of the standard library."""
    data = vectors("crypto_sha.json")
    for name in ("sha512", "sha384"):
        for case in data[name]:
            assert hashlib.new(name, bytes.fromhex(case["message"])).hexdigest() == case["digest"]
    for case in data["sha384_two_part"]:
        whole = bytes.fromhex(case["part0"]) + bytes.fromhex(case["part1"])
        assert hashlib.sha384(whole).hexdigest() == case["digest"]
    for case in data["hmac_sha384"]:
        key, message = bytes.fromhex(case["key"]), bytes.fromhex(case["message"])
        assert hmac.digest(key, message, "sha384").hex() == case["mac"]


def test_agreement(vectors):
    data = vectors("agreement.json")
    for case in data["pairs"]:
        a, b = (
            Identity(
                Address.parse(case[f"{x}_address"]),
                bytes.fromhex(case[f"{x}_public"]),
                bytes.fromhex(case[f"{x}_private"]),
            )
            for x in "ab"
        )
        assert a.agree(b).hex() == b.agree(a).hex() == case["key48"]
        assert a.agree(b.public())[:32].hex() == case["key32"]
        assert case["sha512_of_raw"].startswith(case["key48"])
    for case in data["keypairs"]:
        assert keys.public_of(bytes.fromhex(case["private"])).hex() == case["public"]
    for case in data["special"]:
        private, public = bytes.fromhex(case["private"]), bytes.fromhex(case["public"])
        if case["strict_library_result"] == "error":
            with pytest.raises(DecodeError):
                keys.agree(private, public)
        else:
            assert keys.agree(private, public).hex() == case["key48"], case["note"]
    for case in data["extended"]:
        private, public = bytes.fromhex(case["private"]), bytes.fromhex(case["public"])
        length = min(case["length"], keys.AGREED_SIZE)
        assert keys.agree(private, public)[:length].hex() == case["output"][: 2 * length]


def test_signatures(vectors):
    data = vectors("signatures.json")
    for case in data["valid"]:
        message = bytes.fromhex(case["message"])
        private, public = bytes.fromhex(case["private_key"]), bytes.fromhex(case["public_key"])
        identity = Identity(Address.parse(case["address"]), public, private)
        assert identity.sign(message).hex() == case["signature"]
        assert case["signature"].endswith(case["signed_digest32"])
        assert identity.public().verify(message, bytes.fromhex(case["signature"]))
        assert keys.KeyPair(private).sign(message).hex() == case["signature"]
    for case in data["forged"]:
        public, message = bytes.fromhex(case["public_key"]), bytes.fromhex(case["message"])
        assert not keys.verify(public, message, bytes.fromhex(case["signature"])), case["reason"]
    for case in data["malleable"]:
        public, message = bytes.fromhex(case["public_key"]), bytes.fromhex(case["message"])
        verdict = keys.verify(public, message, bytes.fromhex(case["signature"]))
        assert verdict == case["strict_ed25519_accepts"], case["note"]


def test_valid_identities(vectors):
    for case in vectors("identity.json")["valid"]:
        identity = Identity.parse(case["secret_string"])
        assert str(identity.address) == case["address"]
        assert identity.to_text(private=True) == case["secret_string"]
        assert str(identity) == identity.public().to_text() == case["public_string"]
        assert identity.public_key.hex() == case["public_key"]
        assert identity.public_key.hex() == case["x25519_public"] + case["ed25519_public"]
        assert identity.private_key.hex() == case["private_key"]
        assert identity.private_key.hex() == case["x25519_private"] + case["ed25519_seed"]
        assert identity.encode().hex() == case["binary_public"]
        assert identity.encode(private=True).hex() == case["binary_secret"]
        assert identity.hash().hex() == case["public_key_sha384"]
        assert identity.private_hash().hex() == case["private_key_sha512"]
        assert identity.private_matches()
        for wire in (case["binary_public"], case["binary_secret"]):
            reader = Reader(bytes.fromhex(wire) + b"more")
            again = Identity.read(reader)
            assert reader.rest() == b"more"
            assert again == identity
            assert again.has_private == (wire == case["binary_secret"])


def test_tolerated_texts(vectors):
    for case in vectors("identity.json")["tolerated_strings"]:
        identity = Identity.parse(case["string"])
        assert identity.to_text(identity.has_private) == case["canonical"], case["note"]


def test_parse_errors(vectors):
    for case in vectors("identity.json")["invalid"]:
        if case["form"] == "string":
            parse, form = Identity.parse, case["string"]
        else:
            parse, form = Identity.decode, bytes.fromhex(case["binary"])
        if case["parse_ok"]:
            parse(form)
        else:
            with pytest.raises(DecodeError):
                parse(form)


def test_equality_and_order(vectors):
    identities = [Identity.parse(c["public_string"]) for c in vectors("identity.json")["valid"]]
    ordered = sorted(identities)
    assert [(i.address, i.public_key) for i in ordered] == sorted(
        (i.address, i.public_key) for i in identities
    )
    assert len(set(identities)) == len({(i.address, i.public_key) for i in identities})
    assert all(identity != "something else" for identity in identities)


def test_wipe(identity):
    text = identity.to_text(private=True)
    private = identity.private_key
    shown = bytes(private).hex()
    identity.wipe()
    assert not any(private)
    assert not identity.has_private
    with pytest.raises(ValueError, match="no private key"):
        identity.sign(b"")
    assert shown not in repr(Identity.parse(text))


def test_validation(vectors):
    data = vectors("identity.json")
    for case in data["valid"]:
        assert Identity.parse(case["public_string"]).validate(), case["note"]
    for case in data["invalid"]:
        if case["parse_ok"]:
            is_text = case["form"] == "string"
            identity = (
                Identity.parse(case["string"])
                if is_text
                else Identity.decode(bytes.fromhex(case["binary"]))
            )
            assert identity.validate() == case["locally_valid"], case["reason"]
    unchecked = Identity.parse(data["unchecked_private"]["string"])
    assert unchecked.validate() == data["unchecked_private"]["locally_valid"]
    assert not unchecked.private_matches()


def test_proof_of_work(vectors):
    for case in vectors("identity.json")["memory_hard"]:
        identity = Identity(Address.parse(case["address"]), bytes.fromhex(case["public_key"]))
        assert identity.validate() == (case["pow_ok"] and not identity.address.reserved)


def test_generate():
    """Deterministic from its random bytes, and valid."""

    def source() -> Callable[[int], bytes]:
        chance = random.Random(5)
        return chance.randbytes

    identity = Identity.generate(source())
    assert identity.validate()
    assert identity.private_matches()
    assert Identity.generate(source()).to_text(private=True) == identity.to_text(private=True)
    other = Identity.generate(random.Random(6).randbytes)
    assert identity.agree(other) == other.agree(identity.public())
    assert other.public().verify(b"message", other.sign(b"message"))
