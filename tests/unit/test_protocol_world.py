"""Planets and moons: chapter 02, 6."""

import random

import pytest

from zt.protocol import world as worlds
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.wire import Reader
from zt.protocol.world import Root, World, WorldType


@pytest.fixture(scope="module")
def data(vectors):
    return vectors("world.json")


@pytest.fixture(scope="module")
def recorded(data):
    return {name: World.decode(bytes.fromhex(w["wire"])) for name, w in data["worlds"].items()}


def test_fields(data, recorded):
    for name, want in data["worlds"].items():
        world = recorded[name]
        assert world.type == want["type"]
        assert f"{world.id:016x}" == want["id_hex"]
        assert world.version == (int(want["id"]), int(want["timestamp"]))
        assert world.update_key.hex() == want["update_key"]
        assert world.signature.hex() == want["signature"]
        assert [
            {
                "identity": str(root.identity),
                "endpoints": [str(endpoint) for endpoint in root.endpoints],
            }
            for root in world.roots
        ] == want["roots"]
        assert world.signed_bytes().hex() == want["signed_bytes"]
        if "dictionary" not in name:
            assert world.encode().hex() == want["wire"]
        assert World.decode(world.encode()) == world


def test_signatures_are_reproduced(data, recorded):
    """Every recorded world is by one of the recorded keys, or by none."""
    pairs = {name: KeyPair(bytes.fromhex(key["private"])) for name, key in data["keys"].items()}
    for name, pair in pairs.items():
        assert pair.public.hex() == data["keys"][name]["public"]
    unsigned = []
    for name, world in recorded.items():
        signers = [pair for pair in pairs.values() if world.verify(pair.public)]
        if not signers:
            unsigned.append(name)
            continue
        again = worlds.make(
            world.type, world.id, world.timestamp, world.roots, signers[0], world.update_key
        )
        assert again == world
    assert all("tampered" in name for name in unsigned)


def test_replacement(data, recorded):
    for case in data["replacement"]:
        current = case["current"] and recorded[case["current"]]
        assert recorded[case["update"]].replaces(current) == case["accepted"], case["description"]


def test_decode(data):
    for case in data["decode_errors"]:
        wire = bytes.fromhex(case["wire"])
        # A dictionary that runs past the end is an error here.
        if not case["ok"] or case["consumed"] > len(wire):
            with pytest.raises(DecodeError):
                World.decode(wire)
            continue
        reader = Reader(wire)
        World.read(reader)
        assert reader.offset == case["consumed"], case["description"]


def test_default_planet(data):
    assert data["default_planet"]["id"] == worlds.DEFAULT_PLANET_ID


def test_null_world_is_always_replaced(recorded):
    any_world = next(iter(recorded.values()))
    null = World(WorldType.NULL, any_world.id, 2**63, b"k" * 64, ())
    assert any_world.replaces(null)


def test_limits(data):
    identity = Identity.parse(data["identities_secret"][0])
    signer = KeyPair(bytes(range(64)))
    root = Root(identity, (InetAddress.parse("10.0.0.1/9993"),))
    assert identity.private_key not in worlds.make(WorldType.PLANET, 1, 1, [root], signer).encode()
    with pytest.raises(ValueError, match="5 roots"):
        worlds.make(WorldType.PLANET, 1, 1, [root] * 5, signer)
    with pytest.raises(ValueError, match="33 endpoints"):
        worlds.make(WorldType.PLANET, 1, 1, [Root(identity, root.endpoints * 33)], signer)


def test_capture_worlds(vectors):
    data = vectors("capture/identities.json")
    for name in ("planet", "moon"):
        world = World.decode(bytes.fromhex(data[name]["hex"]))
        want = data[name]["decoded"]
        assert world.type.name.lower() == want["type"]
        assert f"{world.id:016x}" == want["id"]
        assert world.timestamp == want["timestamp"]
        assert world.update_key.hex() == want["update_key"]
        assert world.verify(world.update_key) == want["self_signed_ok"]
        assert [[str(r.identity), [str(e) for e in r.endpoints]] for r in world.roots] == [
            [r["identity"], r["endpoints"]] for r in want["roots"]
        ]
    pair = KeyPair(bytes.fromhex(data["planet_update_key"]["private"]))
    assert pair.public.hex() == data["planet_update_key"]["public"]


def test_private_planet(data):
    roots = [
        Root(Identity.parse(text), (InetAddress.parse(f"10.0.0.{i}/9993"),))
        for i, text in enumerate(data["identities_secret"], 1)
    ]
    chance = random.Random(1)
    first, signer = worlds.private_planet(roots, 1000, chance.randbytes)
    assert World.decode(first.encode()) == first
    assert first.is_planet
    assert first.verify(signer.public)
    assert first.id not in (0, worlds.DEFAULT_PLANET_ID)
    assert [root.identity for root in first.roots] == sorted(root.identity for root in roots)
    for text in data["identities_secret"]:
        assert Identity.parse(text).private_key not in first.encode()
    # Even when the clock went back, the next version replaces this one; a stranger's does not.
    second, again = worlds.private_planet(roots[:1], 5, chance.randbytes, (first, signer))
    assert again is signer
    assert second.replaces(first)
    assert not first.replaces(second)
    strange, _ = worlds.private_planet(roots, 2000, chance.randbytes)
    assert not strange.replaces(first)
    with pytest.raises(ValueError, match="5 roots"):
        worlds.private_planet(roots[:1] * 5, 1, chance.randbytes)
