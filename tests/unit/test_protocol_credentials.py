"""Credentials as values: chapter 04, 7."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import require_cases
from zt.protocol import rules
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.credentials import (
    Capability,
    Com,
    Ownership,
    Qualifier,
    Revocation,
    Tag,
    Thing,
    Verdict,
    revoke_com,
    things_of,
)
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.wire import Reader


def describe_com(com: Com) -> dict[str, Any]:
    return {
        "qualifiers": [
            {"id": q.id, "value": f"{q.value:016x}", "max_delta": f"{q.max_delta:016x}"}
            for q in com.qualifiers
        ],
        "signed_by": str(com.signer),
        "signature": com.signature.hex(),
    }


def describe_signed(value: Any) -> dict[str, Any]:
    return {
        "id": value.id,
        "network_id": str(value.nwid),
        "signed_by": str(value.signer),
        "signature": value.signature.hex(),
    }


def describe_tag(tag: Tag) -> dict[str, Any]:
    return describe_signed(tag) | {
        "issued_to": str(tag.issued_to),
        "timestamp": tag.timestamp,
        "value": tag.value,
    }


def describe_ownership(ownership: Ownership) -> dict[str, Any]:
    return describe_signed(ownership) | {
        "flags": f"{ownership.flags:016x}",
        "issued_to": str(ownership.issued_to),
        "things": [{"type": t.type, "value": t.value.hex()} for t in ownership.things],
        "timestamp": ownership.timestamp,
    }


def describe_revocation(revocation: Revocation) -> dict[str, Any]:
    return describe_signed(revocation) | {
        "credential_id": revocation.credential_id,
        "flags": f"{revocation.flags:016x}",
        "target": str(revocation.target),
        "threshold": revocation.threshold,
        "type": revocation.credential_type,
    }


def describe_capability(capability: Capability) -> dict[str, Any]:
    return {
        "id": capability.id,
        "network_id": str(capability.nwid),
        "timestamp": capability.timestamp,
        "rules_bin": capability.rules.hex(),
        "max_custody_chain_length": capability.max_custody,
        "issued_to": str(capability.issued_to),
        "custody": [
            {"to": str(link.to), "from": str(link.from_), "signature": link.signature.hex()}
            for link in capability.custody
        ],
    }


CREDENTIALS = {
    "com": (Com, describe_com),
    "tag": (Tag, describe_tag),
    "capability": (Capability, describe_capability),
    "coo": (Ownership, describe_ownership),
    "revocation": (Revocation, describe_revocation),
}


def finder(data: Any) -> Callable[[Address], Identity | None]:
    """The recorded nodes by address, but for those that the recording did not know."""
    known = {}
    for name, node in data["nodes"].items():
        if name != "evil":
            identity = Identity.parse(node["identity_public"])
            assert str(identity.address) == node["address"]
            known[identity.address] = identity
    return known.get


@pytest.mark.parametrize("name", CREDENTIALS)
def test_recorded(vectors, name):
    data = vectors(f"{name}.json")
    kind, describe = CREDENTIALS[name]
    find = finder(data)
    for case in data["cases"]:
        binary = bytes.fromhex(case["binary"])
        if case.get("decode") == "error":
            with pytest.raises(DecodeError):
                kind.decode(binary)
            continue
        reader = Reader(binary)
        value = kind.read(reader)
        assert reader.offset == case.get("consumed", len(binary)), case["description"]
        want = dict(case["decoded"])
        if "rules" in want:
            decoded = rules.decode(value.rules)
            assert [r.to_json() for r in decoded] == [r.get("json") for r in want.pop("rules")]
        assert describe(value) == want, case["description"]
        if "signed_bytes" in case:
            assert value.signed_bytes().hex() == case["signed_bytes"], case["description"]
        if "decode" not in case:
            assert value.encode() == binary, case["description"]
        if "verify" in case:
            assert value.verify(find) == case["verify"], case["description"]
        assert kind.decode(value.encode()) == value
        for owned in case.get("owns", ()):
            thing = owned["thing"]
            is_mac = thing.count(":") == 5
            asked = (
                Thing.mac(Mac.parse(thing).encode())
                if is_mac
                else Thing.ip(InetAddress.parse(thing).ip)
            )
            assert value.owns(asked) == owned["owns"], (case["description"], thing)
        if "fast_propagate" in case:
            assert value.fast_propagate == case["fast_propagate"]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_signatures_are_reproduced(vectors, name):
    """Whatever verifies was signed by a recorded secret: signing it again gives the same bytes."""
    data = vectors(f"{name}.json")
    kind, _ = CREDENTIALS[name]
    recorded = data["secrets"] if "secrets" in data else vectors("com.json")["secrets"]
    secrets = {identity.address: identity for identity in map(Identity.parse, recorded.values())}
    signed = 0
    for case in data["cases"]:
        if case.get("verify") != Verdict.VALID or "decode" in case:
            continue
        value = kind.decode(bytes.fromhex(case["binary"]))
        links = value.custody if kind is Capability else ()
        signers = {link.from_ for link in links} if kind is Capability else {value.signer}
        if not signers <= secrets.keys():
            continue  # by somebody whose secret was not recorded
        if kind is Capability:
            again = Capability(
                value.nwid, value.timestamp, value.id, value.rules, value.max_custody
            )
            for link in links:
                again = again.grant(secrets[link.from_], link.to)
        else:
            again = value.sign(secrets[value.signer])
        assert again == value
        signed += 1
    require_cases(signed, f"nothing valid in {name}.json")


def test_agreement(vectors):
    data = vectors("com_agreement.json")
    nodes = {name: Identity.parse(n["identity_public"]) for name, n in data["nodes"].items()}
    for case in data["cases"]:
        mine, other = (Com.decode(bytes.fromhex(case[side])) for side in ("mine", "other"))
        for com, side in ((mine, "mine"), (other, "other")):
            assert describe_com(com)["qualifiers"] == case[f"{side}_decoded"]
        holder = nodes[case["other_identity"]]
        assert mine.agrees(other, holder) == case["agrees"], case["description"]
        if "reverse_agrees" in case:
            assert other.agrees(mine, nodes["a"]) == case["reverse_agrees"], case["description"]


def test_issued_com_is_the_recorded_one(vectors):
    data = vectors("com.json")
    controller = Identity.parse(data["secrets"]["ctrl"])
    for case in data["cases"]:
        if "issued_to_identity" not in case:
            continue
        com = Com.decode(bytes.fromhex(case["binary"]))
        holder = Identity.parse(data["nodes"][case["issued_to_identity"]]["identity_public"])
        again = Com.issue(com.nwid, holder, com.timestamp, com.qualifiers[0].max_delta)
        assert again.sign(controller) == com
        assert com.issued_to == holder.address


def test_what_controllers_make(identity, other_identity):
    controller, member = identity, other_identity
    nwid = NetworkId(controller.address << 24 | 5)
    find = {controller.address: controller.public()}.get
    revocation = revoke_com(nwid, member.address, 1234, 99, controller)
    assert revocation.verify(find) is Verdict.VALID
    assert revocation.fast_propagate
    assert revocation.threshold == 1234
    ips = [bytes((10, 0, 0, i)) for i in range(20)] + [bytes(16)]
    things = things_of(ips)
    assert len(things) == 16
    ownership = Ownership(nwid, 1, 1, things, member.address).sign(controller)
    assert ownership.verify(find) is Verdict.VALID
    assert ownership.owns(Thing.ip(bytes((10, 0, 0, 15))))
    assert not ownership.owns(Thing.ip(bytes(16)))
    with pytest.raises(ValueError, match="17 things"):
        Ownership(nwid, 1, 1, (*things, things[0]), member.address).sign(controller)
    capability = Capability(nwid, 1, 1, b"\x01\0").grant(controller, member.address)
    with pytest.raises(ValueError, match="chain of custody"):
        capability.grant(member, controller.address)


def test_empty_com_is_none(identity):
    assert not Com()
    assert not Com().agrees(Com.issue(1, identity, 1, 1), identity)
    assert Com((Qualifier(0, 1, 0),))
    assert Com.decode(Com().encode()) == Com()
