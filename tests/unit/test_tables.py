"""The tables' bookkeeping, against dictionaries and through what the switch makes of them."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zt._fast.cipher import PeerKey
from zt._fast.tables import Tables, TablesFull

KEY = PeerKey(bytes(48))
NWID = 0x8056C2E21C000001


def test_a_path_is_found_again_by_its_place() -> None:
    tables = Tables(1)
    first = tables.path(0, bytes(4), 9993)
    assert tables.path(0, bytes(4), 9993) == first
    assert tables.path(1, bytes(4), 9993) != first
    assert tables.path(0, bytes(16), 9993) != first
    assert tables.counters()["paths"] == 3


def test_a_removed_path_does_not_come_back_under_its_old_handle() -> None:
    tables = Tables(1)
    old = tables.path(0, bytes(4), 1)
    tables.path_remove(old)
    tables.path_remove(old)
    new = tables.path(0, bytes(4), 2)
    assert new != old
    assert tables.path_times(old) == (0, 0)
    assert tables.counters()["paths"] == 1


def test_bounds_are_kept() -> None:
    tables = Tables(1, max_peers=5, max_paths=5)
    for i in range(5):
        tables.path(0, bytes(4), i)
        tables.peer_set(i + 1, KEY, 3)
    with pytest.raises(TablesFull):
        tables.path(0, bytes(4), 5)
    with pytest.raises(TablesFull):
        tables.peer_set(6, KEY, 3)
    tables.peer_remove(3)
    tables.peer_set(6, KEY, 3)
    tables.path_remove(tables.path(0, bytes(4), 2))
    tables.path(0, bytes(4), 5)


def test_paths_of_one_peer_are_bounded() -> None:
    tables = Tables(1)
    tables.peer_set(7, KEY, 3)
    handles = [tables.path(0, bytes(4), i) for i in range(65)]
    for handle in handles[:64]:
        tables.peer_path_add(7, handle)
    with pytest.raises(TablesFull):
        tables.peer_path_add(7, handles[64])
    tables.peer_path_remove(7, handles[0])
    tables.peer_path_add(7, handles[64])


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.path(0, b"123", 1),
        lambda t: t.path(0, bytes(4), 65536),
        lambda t: t.path(0, bytes(4), 1, mtu=20),
        lambda t: t.peer_set(1, KEY, 2),
    ],
)
def test_what_cannot_be_is_refused(call) -> None:
    with pytest.raises(ValueError):
        call(Tables(1))


def test_unknown_names_are_key_errors() -> None:
    tables = Tables(1)
    with pytest.raises(KeyError):
        tables.peer_route(5, None)
    with pytest.raises(KeyError):
        tables.member_set(NWID, 5, allowed=True, push_due_ms=0)


def test_an_idle_peer_is_small() -> None:
    tables = Tables(1)
    empty = tables.counters()["bytes"]
    assert empty < 1024
    count = 1000
    for i in range(count):
        tables.peer_set(i + 1, KEY, 3)
        handle = tables.path(0, i.to_bytes(4, "big"), 9993)
        tables.peer_path_add(i + 1, handle)
        tables.peer_route(i + 1, handle)
    assert (tables.counters()["bytes"] - empty) / count < 1024


def test_a_key_lives_as_long_as_its_peer() -> None:
    key = PeerKey(bytes(48))
    before = sys.getrefcount(key)
    tables = Tables(1)
    tables.peer_set(1, key, 3)
    tables.peer_set(2, key, 3)
    tables.peer_set(2, key, 1)
    assert sys.getrefcount(key) == before + 2
    tables.peer_set(2, KEY, 1)
    tables.peer_remove(1)
    assert sys.getrefcount(key) == before
    tables.peer_set(1, key, 3)
    del tables
    assert sys.getrefcount(key) == before


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "route", "member", "unmember", "bridge", "unbridge"]),
        st.integers(1, 40),
    ),
    max_size=300,
)


@given(operations)
@settings(max_examples=60, deadline=None)
def test_tables_agree_with_dictionaries(steps) -> None:
    tables = Tables(0xFFFF)
    tables.network_set(NWID, mtu=2800, mac=1, public=False, bridge=False, rules=None)
    peers: set[int] = set()
    members: set[int] = set()
    routes: set[int] = set()
    for step, n in steps:
        match step:
            case "add":
                tables.peer_set(n, KEY, 3)
                peers.add(n)
            case "remove":
                tables.peer_remove(n)
                peers.discard(n)
            case "route":
                if n in peers:
                    tables.peer_route(n, tables.path(0, bytes(4), n))
                else:
                    with pytest.raises(KeyError):
                        tables.peer_route(n, 0)
            case "member":
                tables.member_set(NWID, n, allowed=True, push_due_ms=0)
                members.add(n)
            case "unmember":
                tables.member_remove(NWID, n)
                members.discard(n)
            case "bridge":
                tables.bridge_route(NWID, n, 5)
                routes.add(n)
            case "unbridge":
                tables.bridge_route(NWID, n, None)
                routes.discard(n)
    counters = tables.counters()
    assert (counters["peers"], counters["members"], counters["bridge_routes"]) == (
        len(peers),
        len(members),
        len(routes),
    )
    for n in range(1, 41):
        if n in peers:
            assert tables.peer_times(n) == (0, 0)
        else:
            with pytest.raises(KeyError):
                tables.peer_times(n)
