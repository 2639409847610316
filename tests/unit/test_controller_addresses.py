"""Taken addresses and pools, against slow and obvious twins."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from zt.controller.addresses import AddressBook, Runs, choose4, choose6, merge, pool

NUMBERS = st.integers(0, 40)


@given(st.lists(st.tuples(st.booleans(), NUMBERS), max_size=80), NUMBERS)
def test_runs_are_a_set(steps: list[tuple[bool, int]], probe: int) -> None:
    runs, twin = Runs(), set()
    for add, number in steps:
        (runs.add if add else runs.discard)(number)
        (twin.add if add else twin.discard)(number)
    assert [number in runs for number in range(42)] == [number in twin for number in range(42)]
    free = probe
    while free in twin:
        free += 1
    assert runs.next_free(probe) == free


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
def test_merge(pairs: list[tuple[int, int]]) -> None:
    ranges = [(min(pair), max(pair)) for pair in pairs]
    merged = merge(ranges)
    assert {n for a, b in merged for n in range(a, b + 1)} == {
        n for a, b in ranges for n in range(a, b + 1)
    }
    assert all(first[1] + 1 < second[0] for first, second in itertools.pairwise(merged))


def slow_choose4(
    first: int, last: int, routed: list[tuple[int, int]], taken: set[int], member: int
) -> int | None:
    """The rule of chapter 05, 11.5, without its limit, and with the last address at the end."""
    length = last - first
    candidates = (
        [first + (member % length + i) % length for i in range(length)] + [last]
        if length
        else [first]
    )
    for candidate in candidates:
        inside = any(low <= candidate <= high for low, high in routed)
        if candidate & 0xFF != 0xFF and inside and candidate not in taken:
            return candidate
    return None


BASE = 0x0A0000F0  # near the end of a /24, so that .255 is among them
OFFSETS = st.integers(0, 40)


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(OFFSETS, OFFSETS),
    st.lists(st.tuples(OFFSETS, OFFSETS), max_size=3),
    st.sets(OFFSETS),
    st.integers(0, (1 << 40) - 1),
)
def test_choose4(
    ends: tuple[int, int], routes: list[tuple[int, int]], taken: set[int], member: int
) -> None:
    first, last = BASE + min(ends), BASE + max(ends)
    routed = merge((BASE + min(route), BASE + max(route)) for route in routes)
    book = AddressBook()
    for number in taken:
        book.claim((BASE + number).to_bytes(4), 1)
    chosen = choose4([pool(first, last, routed)], book, member)
    expected = slow_choose4(
        first, last, routed, {BASE + number for number in taken}, member & 0xFFFF_FFFF
    )
    assert (None if chosen is None else int.from_bytes(chosen)) == expected


@given(st.integers(0, 30), st.sets(st.integers(0, 30)), st.integers(0, (1 << 40) - 1))
def test_choose6_finds_what_is_free(size: int, taken: set[int], member: int) -> None:
    base = 0xFD00 << 112
    book = AddressBook()
    for number in taken:
        book.claim((base + number).to_bytes(16), 1)
    pools = [pool(base, base + size, [(base, base + 100)])]
    chosen = choose6(pools, book, member, random.Random(member).randbytes)
    free = set(range(size + 1)) - taken
    if free:
        assert chosen is not None
        assert int.from_bytes(chosen) - base in free
    else:
        assert chosen is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_the_first_that_lists_an_address_owns_it(steps: list[tuple[bool, int, int]]) -> None:
    book = AddressBook()
    twin: dict[bytes, list[int]] = {}
    for claim, member, number in steps:
        ip = (0x0A000001 + number).to_bytes(4)
        listed = twin.setdefault(ip, [])
        if claim:
            book.claim(ip, member)
            if member not in listed:
                listed.append(member)
        else:
            assert book.heir(ip, member) == next((m for m in listed if m != member), None)
            book.release(ip, member)
            if member in listed:
                listed.remove(member)
        assert book.owner(ip) == (listed[0] if listed else None)
    assert book.shared == sum(len(listed) > 1 for listed in twin.values())
