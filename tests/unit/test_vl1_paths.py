"""Which physical addresses become paths, which path is chosen, what is stored about peers."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.identity import cheap_identity
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Version
from zt.vl1.cache import CachedPeer
from zt.vl1.path import Paths, Policy
from zt.vl1.peer import DOUBT_PROBES, EXPIRED_MS, Peer, PeerPath
from zt.vl1.status import PhysicalPath, Settings

NOW_MS = 1_700_000_000_000
PEER = Address(0x1122334455)


def at(text: str) -> InetAddress:
    return InetAddress.parse(text)


def policy(settings: Settings = Settings()) -> Policy:  # noqa: B008 - immutable
    paths = Paths()
    paths.configure(settings.physical)
    return Policy(paths, settings)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("8.8.8.8/9993", True),
        ("10.1.2.3/1", True),
        ("11.1.2.3/1", True),  # pseudo-private
        ("fd00::1/9993", True),
        ("2600::1/9993", True),
        ("8.8.8.8/0", False),
        ("127.0.0.1/9993", False),
        ("169.254.3.4/9993", False),
        ("224.0.0.1/9993", False),
        ("255.255.255.255/9993", False),
        ("0.0.0.0/9993", False),
        ("fe80::2/9993", False),
        ("::1/9993", False),
        ("2001:470:1::1/9993", False),  # a tunnel broker
    ],
)
def test_allowed_scopes(text: str, allowed: bool) -> None:
    assert policy().allows(at(text), PEER) is allowed


def test_nil_is_no_path() -> None:
    assert not policy().allows(InetAddress(), PEER)


def test_never_inside_our_own_networks() -> None:
    rules = policy()
    rules.own_networks = (at("10.144.0.0/16"), at("fd80::/40"))
    rules.tap_networks = (at("192.168.191.0/24"),)
    for text in ("10.144.7.7/9993", "fd80::99/9993", "192.168.191.3/1"):
        assert not rules.allows(at(text), PEER)
    assert rules.allows(at("10.145.0.1/9993"), PEER)


def test_blacklists() -> None:
    settings = Settings(
        physical={
            at("10.0.0.0/8"): PhysicalPath(blacklist=True),
            at("10.5.0.0/16"): PhysicalPath(mtu=1400),
        },
        blacklist={PEER: (at("8.0.0.0/8"),)},
    )
    rules = policy(settings)
    assert not rules.allows(at("10.1.1.1/9993"), PEER)
    assert rules.allows(at("10.5.1.1/9993"), PEER)  # the more specific entry counts
    assert not rules.allows(at("8.8.8.8/9993"), PEER)
    assert rules.allows(at("8.8.8.8/9993"), Address(1))


def test_roots_are_only_where_the_world_says() -> None:
    endpoints = frozenset((at("8.8.8.8/1").ip,))
    assert policy().allows(at("8.8.8.8/2"), PEER, endpoints)
    assert not policy().allows(at("8.8.4.4/1"), PEER, endpoints)


def test_physical_settings_reach_paths() -> None:
    paths = Paths()
    known = paths.get(1, at("10.0.0.1/9993"))
    paths.hold(known)
    assert (known.mtu, known.trusted_id) == (1432, 0)
    entry = PhysicalPath(trusted_id=7, mtu=9000)
    paths.configure({at("10.0.0.0/8"): entry, at("20.0.0.0/8"): PhysicalPath(mtu=99_999)})
    assert (known.mtu, known.trusted_id) == (9000, 7)
    assert paths.get(1, at("20.0.0.1/1")).mtu == 10_324
    assert paths.get(1, at("30.0.0.1/1")).mtu == 1432


def test_unused_paths_are_bounded() -> None:
    paths = Paths(unused_limit=10)
    used = paths.get(1, at("10.0.0.1/1"))
    paths.hold(used)
    for port in range(2, 100):
        paths.get(1, InetAddress(used.address.ip, port))
    assert len(paths) == 11
    assert paths.get(1, at("10.0.0.1/1")) is used
    assert paths.release(used)


def peer_with(*paths: tuple[str, int, int]) -> Peer:
    """A peer with paths (address, latency, ms since last heard)."""
    peer = Peer(cheap_identity(Random(1).randbytes), NOW_MS)
    registry = Paths()
    for text, latency_ms, silent_ms in paths:
        known = PeerPath(registry.get(1, at(text)), NOW_MS - silent_ms)
        known.latency_ms = latency_ms
        peer.paths.append(known)
    return peer


@pytest.mark.parametrize(
    ("paths", "best"),
    [
        ([("8.8.8.8/1", 10, 0), ("10.0.0.1/1", 30, 0)], "10.0.0.1/1"),  # a LAN beats the Internet
        ([("8.8.8.8/1", 10, 0), ("10.0.0.1/1", 50, 0)], "8.8.8.8/1"),  # unless 4 times slower
        ([("8.8.8.8/1", 10, 0), ("10.0.0.1/1", 1, 20_000)], "8.8.8.8/1"),  # or silent
        ([("8.8.8.8/1", 10, EXPIRED_MS), ("9.9.9.9/1", 65_535, 100_000)], "9.9.9.9/1"),
        ([("8.8.8.8/1", 10, EXPIRED_MS)], None),
        ([], None),
    ],
)
def test_choice_of_path(paths: list[tuple[str, int, int]], best: str | None) -> None:
    chosen = peer_with(*paths).best(NOW_MS)
    assert (chosen.path.address if chosen else None) == (at(best) if best else None)


def test_a_path_in_doubt_is_not_chosen() -> None:
    peer = peer_with(("10.0.0.1/1", 1, 0), ("8.8.8.8/1", 10, 0))
    lan, internet = peer.paths
    lan.probes = 1  # an answer is awaited
    assert peer.best(NOW_MS) is lan
    lan.probes = 2  # and late
    assert peer.best(NOW_MS) is internet
    internet.probes = DOUBT_PROBES + 1
    assert peer.best(NOW_MS) is lan
    lan.probes = DOUBT_PROBES + 1
    assert peer.best(NOW_MS) is None


def test_cached_peer() -> None:
    peer = peer_with(("10.0.0.1/1", 1, 0), ("2600::5/9993", 10, 0))
    peer.version = Version(12, 1, 14, 1)
    data = CachedPeer.of(peer).encode()
    # Chapter 03, 3.5
    assert data[0] == 2
    assert data[1:72] == peer.identity.encode()
    assert data[72:82].hex() == "000c0001000e00010002"
    cached = CachedPeer.decode(data)
    assert cached.identity == peer.identity
    assert cached.version == peer.version
    assert cached.addresses == tuple(path.path.address for path in peer.paths)


@given(st.binary(max_size=300))
def test_damaged_cache_files_are_decode_errors(data: bytes) -> None:
    try:
        CachedPeer.decode(b"\x02" + data)
    except DecodeError:
        return
