"""Splitting and reassembly (chapter 02, 2.3 to 2.6)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zt._fast.fragment import Reassembly, split

FRAGMENTED = 0x40


def packet_of(size: int, seed: int = 0) -> bytes:
    """Random bytes that pass for the head of a fragmented packet."""
    data = bytearray(random.Random(seed * 65536 + size).randbytes(size))
    data[13] &= 0x7F
    data[18] |= FRAGMENTED
    return bytes(data)


@given(st.integers(28, 10024), st.integers(1400, 3000))
def test_pieces_are_equal_few_and_complete(size: int, mtu: int) -> None:
    packet = packet_of(size)
    pieces = split(packet, mtu)
    if size <= mtu:
        assert pieces == [packet]
        return
    reference_count = 1 + -(-(size - mtu) // (mtu - 16))
    assert len(pieces) == min(reference_count, 7)
    assert len({len(piece) for piece in pieces[:-1]}) == 1
    assert 16 < len(pieces[-1]) <= len(pieces[0])
    if reference_count <= 7:
        assert len(pieces[0]) <= mtu
    assert pieces[0] == packet[: len(pieces[0])]
    joined = pieces[0]
    for number, piece in enumerate(pieces[1:], 1):
        assert piece[:13] == packet[:13]
        assert piece[13:16] == bytes((0xFF, len(pieces) << 4 | number, 0))
        joined += piece[16:]
    assert joined == packet


@pytest.mark.parametrize("bad", [(27, 1432), (10025, 1432), (1000, 63)])
def test_split_refuses(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError):
        split(bytes(bad[0]), bad[1])


@given(st.integers(1433, 10024), st.randoms(use_true_random=False))
def test_any_order_of_arrival(size: int, order: random.Random) -> None:
    packet = packet_of(size)
    pieces = split(packet, 1432)
    order.shuffle(pieces)
    ring = Reassembly()
    results = [ring.add(piece) for piece in pieces]
    assert results[:-1] == [None] * (len(pieces) - 1)
    assert results[-1] == packet
    assert len(ring) == 0


def test_recorded_reassembly(vectors) -> None:
    """The armor is judged in test_switch; here only what comes together."""
    data = vectors("fragments.json")
    me = bytes.fromhex(data["receiver_identity"][:10])
    for case in data["reassembly"]:
        ring = Reassembly()
        complete = 0
        for entry in case["datagrams"]:
            datagram = bytes.fromhex(entry["hex"])
            if len(datagram) <= 16 or datagram[8:13] != me:
                continue
            if datagram[13] != 0xFF and (len(datagram) < 28 or not datagram[18] & FRAGMENTED):
                complete += len(datagram) >= 28
                continue
            complete += ring.add(datagram) is not None
        # What comes together may still fail its MAC, never the other way round.
        assert complete >= case["delivered_count"], case["description"]


def test_recorded_splits_reassemble(vectors) -> None:
    for case in vectors("fragments.json")["splits"]:
        if "packet" not in case:
            continue
        packet = bytes.fromhex(case["packet"])
        ours = split(packet, case["mtu"])
        if not case["fragmented_flag"]:
            assert ours == [packet]
            continue
        for pieces in (ours, [bytes.fromhex(d) for d in case["datagrams"]]):
            if len(pieces) > 7:
                continue
            ring = Reassembly()
            assert [ring.add(piece) for piece in pieces][-1] == packet


@given(st.lists(st.binary(min_size=28, max_size=200), max_size=200))
@settings(max_examples=50)
def test_garbage_stays_bounded(datagrams: list[bytes]) -> None:
    ring = Reassembly()
    for datagram in datagrams:
        try:
            ring.add(datagram)
        except ValueError:
            assert datagram[13] != 0xFF
            assert not datagram[18] & FRAGMENTED
        assert len(ring) <= 32


def test_more_than_a_packet_is_dropped() -> None:
    ring = Reassembly()
    head = packet_of(9000)
    assert ring.add(head) is None
    assert ring.add(head[:13] + b"\xff\x21\x00" + bytes(1025)) is None
    assert len(ring) == 0
