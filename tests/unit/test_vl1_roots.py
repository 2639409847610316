"""Planets and moons: how they change, spread, and decide who our upstreams are."""

from random import Random

import pytest

from tests.sim import Network
from tests.sim.identity import cheap_identity
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.world import Root, World, WorldType, WorldVersion, make
from zt.vl1.actions import MOON as MOON_EVENT
from zt.vl1.actions import PLANET as PLANET_EVENT
from zt.vl1.roots import Roots
from zt.vl1.status import LEAF, MOON, PLANET

RANDOM = Random(3)
SIGNER = KeyPair(RANDOM.randbytes(64))
ME, R1, R2, M1 = (cheap_identity(RANDOM.randbytes) for _ in range(4))
PLACE = InetAddress.parse("31.0.0.1/9993")
OTHER_PLACE = InetAddress.parse("31.0.0.2/9993")


def world(
    kind: WorldType, timestamp: int, *roots: Identity, world_id: int = 7, signer: KeyPair = SIGNER
) -> World:
    return make(kind, world_id, timestamp, [Root(r.public(), (PLACE,)) for r in roots], signer)


def planet(timestamp: int, *roots: Identity) -> World:
    return world(WorldType.PLANET, timestamp, *roots)


def moon(timestamp: int, *roots: Identity, signer: KeyPair = SIGNER) -> World:
    return world(WorldType.MOON, timestamp, *roots, world_id=99, signer=signer)


def test_roles_and_upstreams() -> None:
    roots = Roots(ME, planet(1, R1, R2), [moon(1, M1, R1)])
    assert set(roots.upstreams) == {R1.address, R2.address, M1.address}
    assert [roots.role(i.address) for i in (R1, M1, ME)] == [PLANET, MOON, LEAF]
    assert not roots.am_root
    assert roots.endpoint_ips(R2.address) == {PLACE.ip}
    assert roots.endpoint_ips(ME.address) is None


def test_we_are_a_root_if_a_world_lists_our_key() -> None:
    assert Roots(ME, planet(1, R1, ME), []).am_root
    assert Roots(ME, planet(1, R1), [moon(1, ME)]).am_root
    impostor = Identity(ME.address, R2.public_key)
    assert not Roots(ME, planet(1, impostor), []).am_root


def test_endpoints_of_several_worlds_add_up() -> None:
    second = make(WorldType.MOON, 5, 1, [Root(R1.public(), (PLACE, OTHER_PLACE))], SIGNER)
    roots = Roots(ME, planet(1, R1), [second])
    assert roots.endpoints(R1.address) == (PLACE, OTHER_PLACE)


def test_planet_updates_are_newer_and_signed() -> None:
    roots = Roots(ME, planet(10, R1), [])
    assert roots.offer(planet(10, R2), R1.address) is None
    assert roots.offer(planet(9, R2), R1.address) is None
    forged = world(WorldType.PLANET, 11, R2, signer=KeyPair(RANDOM.randbytes(64)))
    assert roots.offer(forged, R1.address) is None
    assert set(roots.upstreams) == {R1.address}
    assert roots.offer(planet(11, R2), R1.address) is not None
    assert set(roots.upstreams) == {R2.address}


def test_an_unknown_moon_is_taken_from_its_seed_only() -> None:
    roots = Roots(ME, planet(1, R1), [])
    assert roots.offer(moon(1, M1), R1.address) is None
    roots.want(99, M1.address)
    assert roots.may_update(M1.address)
    assert roots.announced_moons() == (WorldVersion(99, 0),)
    assert roots.offer(moon(1, R2), M1.address) is None  # the seed is not among its roots
    assert roots.offer(moon(1, M1), R1.address) is None  # R1 is not a seed
    assert roots.offer(moon(1, M1), M1.address) is not None
    assert roots.announced_moons() == (WorldVersion(99, 1),)
    assert not roots.wanted
    forged = moon(2, R2, signer=KeyPair(RANDOM.randbytes(64)))
    assert roots.offer(forged, M1.address) is None
    assert roots.forget(99)
    assert set(roots.upstreams) == {R1.address}


def test_null_worlds_are_never_used() -> None:
    null = world(WorldType.NULL, 99, R2)
    assert Roots(ME, planet(1, R1), []).offer(null, R1.address) is None


def test_answers_carry_what_is_newer() -> None:
    roots = Roots(ME, planet(10, R1), [moon(5, M1)])
    assert roots.newer_than(WorldVersion(7, 10), ()) == b""
    assert roots.newer_than(WorldVersion(8, 1), ()) == b""  # another planet
    assert roots.newer_than(WorldVersion(0, 0), ()) == b""
    assert roots.newer_than(WorldVersion(7, 9), ()) == planet(10, R1).encode()
    both = roots.newer_than(WorldVersion(7, 9), [WorldVersion(99, 4), WorldVersion(1, 0)])
    assert both == planet(10, R1).encode() + moon(5, M1).encode()
    assert roots.newer_than(WorldVersion(7, 10), [WorldVersion(99, 5)]) == b""


def test_wanted_moons_are_bounded() -> None:
    roots = Roots(ME, planet(1, R1), [])
    for moon_id in range(10_000):
        roots.want(moon_id, M1.address)
    assert len(roots.wanted) <= 64


# In the simulator


def test_a_new_planet_spreads_from_one_root() -> None:
    net = Network(seed=31)
    old_root, other_root = net.add_roots(2)
    hosts = [net.add_host() for _ in range(3)]
    net.run(2_000)
    replacement = net.add_host()
    # The other root goes, a new one comes; only the first root is told.
    new = net.set_planet(
        [
            Root(old_root.identity.public(), (old_root.sockets[1],)),
            Root(replacement.identity.public(), (replacement.sockets[1],)),
        ]
    )
    old_root.stop()
    old_root.start()
    other_root.stop()
    net.run(150_000)  # a HELLO to every root each 120 s
    for host in hosts:
        assert host.node.planet == new
        assert host.files["planet"] == new.encode()
        assert [event.kind for _, event in host.events].count(PLANET_EVENT) == 1
        assert set(host.node.vl1.upstreams()) == {old_root.address, replacement.address}
    assert replacement.node.vl1.am_root
    hosts[0].send(hosts[1], b"hello")
    net.run_until(lambda: hosts[1].got(b"hello"), 5_000)


@pytest.mark.parametrize("met_before", [False, True])
def test_orbiting_a_moon(met_before: bool) -> None:
    """Chapter 03, 2.3: the definition comes from the seed, reached through the planet."""
    net = Network(seed=32)
    net.add_roots()
    host, seed = net.add_host(), net.add_host()
    definition = make(
        WorldType.MOON,
        int(seed.address),
        net.now_ms,
        [Root(seed.identity.public(), (seed.sockets[1],))],
        KeyPair(net.random.randbytes(64)),
    )
    name = f"moons.d/{definition.id:016x}.moon"
    seed.node.stored(name, definition.encode(), net.now_ms)
    assert seed.node.vl1.am_root
    net.run(2_000)
    if met_before:  # with a direct path there is no HELLO through the root to carry the wish
        host.send(seed, b"hello")
        net.run_until(lambda: seed.got(b"hello"), 5_000)
        net.run(2_000)
    host.node.orbit(definition.id, seed.address, net.now_ms)
    (waiting,) = host.node.moons()
    assert (waiting.id, waiting.world) == (definition.id, None)
    net.run(15_000)
    (held,) = host.node.moons()
    assert held.world == definition
    assert host.files[name] == definition.encode()
    assert MOON_EVENT in [event.kind for _, event in host.events]
    # An own moon is the preferred relay.
    net.run(5_000)
    assert host.node.vl1.upstreams()[0] == seed.address
    host.node.deorbit(definition.id, net.now_ms)
    host.node.timer(net.now_ms)
    net.run(1_000)
    assert host.node.moons() == []
    assert name not in host.files
    assert host.node.vl1.upstreams()[0] != seed.address


def test_an_orbited_moon_is_read_from_its_file() -> None:
    net = Network(seed=33)
    net.add_roots()
    host, seed = net.add_host(), net.add_host()
    root = Root(seed.identity.public(), (seed.sockets[1],))
    definition = make(WorldType.MOON, 5, net.now_ms, [root], net.signer)
    host.files["moons.d/0000000000000005.moon"] = definition.encode()
    host.node.orbit(5, None, net.now_ms)
    net.run(5_000)
    assert [status.world for status in host.node.moons()] == [definition]
    assert seed.address in host.node.vl1.upstreams()


def test_damaged_files_are_ignored() -> None:
    net = Network(seed=34)
    net.add_roots()
    host = net.add_host()
    host.node.stored("moons.d/0000000000000005.moon", b"\x7f damaged", net.now_ms)
    host.node.stored("peers.d/0123456789.peer", b"\x02 damaged", net.now_ms)
    assert host.node.moons() == []
