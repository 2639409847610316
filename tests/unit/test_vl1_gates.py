"""Rate gates, expected replies and waiting packets: what they let through, and their bounds."""

from hypothesis import given
from hypothesis import strategies as st

from zt.protocol.address import Address
from zt.vl1 import replies, waiting
from zt.vl1.gates import PushGate, Spacing, TokenBucket
from zt.vl1.replies import ExpectedReplies
from zt.vl1.waiting import Waiting

NOW_MS = 1_700_000_000_000


def test_bucket_grants_a_burst_then_one_per_interval() -> None:
    bucket: TokenBucket[str] = TokenBucket(2_000, 3, 16)
    assert [bucket.take("a", NOW_MS) for _ in range(5)] == [True] * 3 + [False] * 2
    assert not bucket.take("a", NOW_MS + 1_999)
    assert bucket.take("a", NOW_MS + 2_000)
    assert not bucket.take("a", NOW_MS + 2_000)
    assert bucket.take("b", NOW_MS + 2_000)


@given(st.lists(st.integers(0, 5_000), max_size=60), st.integers(1, 5))
def test_bucket_never_grants_more_than_burst_and_refill(gaps: list[int], burst: int) -> None:
    bucket: TokenBucket[int] = TokenBucket(1_000, burst, 4)
    now_ms, granted = NOW_MS, 0
    for gap in gaps:
        now_ms += gap
        granted += bucket.take(0, now_ms)
    assert granted <= burst + (now_ms - NOW_MS) // 1_000


def test_gates_forget_the_oldest_key() -> None:
    bucket: TokenBucket[int] = TokenBucket(1_000_000, 1, 100)
    spacing: Spacing[int] = Spacing(1_000_000, 100)
    for key in range(1_000):
        assert bucket.take(key, NOW_MS)
        assert spacing.take(key, NOW_MS)
    assert len(bucket) == len(spacing) == 100
    assert not bucket.take(999, NOW_MS)
    assert not spacing.take(999, NOW_MS)
    assert bucket.take(0, NOW_MS)
    assert spacing.take(0, NOW_MS)


def test_spacing() -> None:
    spacing: Spacing[str] = Spacing(30_000, 10)
    assert spacing.take("pair", NOW_MS)
    assert not spacing.take("pair", NOW_MS + 29_999)
    assert spacing.take("pair", NOW_MS + 30_000)


def test_pushes_of_a_pair_in_constant_traffic_are_heard_for_ever() -> None:
    gate = PushGate()
    assert all(gate.take(NOW_MS + i * 15_000) for i in range(100))
    flood = [gate.take(NOW_MS + 1_500_000 + i) for i in range(100)]
    assert flood == [True] * PushGate.BURST + [False] * (100 - PushGate.BURST)


def test_replies_are_expected_until_they_time_out() -> None:
    expected = ExpectedReplies()
    expected.add(7, NOW_MS)
    assert expected.sent_ms(8, NOW_MS) is None
    assert expected.sent_ms(7, NOW_MS + replies.TIMEOUT_MS) == NOW_MS
    assert expected.sent_ms(7, NOW_MS + replies.TIMEOUT_MS + 1) is None


def test_replies_are_bounded() -> None:
    expected = ExpectedReplies()
    for packet_id in range(replies.LIMIT + 100):
        expected.add(packet_id, NOW_MS)
    assert len(expected) == replies.LIMIT
    assert expected.sent_ms(99, NOW_MS) is None
    assert expected.sent_ms(100, NOW_MS) == NOW_MS


def test_a_full_destination_loses_its_own_oldest_packet_only() -> None:
    queue: Waiting[int] = Waiting(4, 100)
    queue.add(Address(2), 0, NOW_MS)
    for number in range(10):
        queue.add(Address(1), number, NOW_MS)
    assert queue.take(Address(1)) == [6, 7, 8, 9]
    assert queue.take(Address(2)) == [0]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3_000)), max_size=200))
def test_waiting_is_bounded_and_keeps_order(items: list[tuple[int, int]]) -> None:
    queue: Waiting[int] = Waiting(4, 10)
    now_ms = NOW_MS
    for number, (address, gap) in enumerate(items):
        now_ms += gap
        queue.add(Address(address), number, now_ms)
        assert len(queue) <= 10
        queue.expire(now_ms)
    rest = [queue.take(address) for address in queue.addresses()]
    assert all(numbers == sorted(numbers) and 0 < len(numbers) <= 4 for numbers in rest)
    assert len(queue) == 0


def test_what_waited_too_long_is_dropped() -> None:
    queue: Waiting[str] = Waiting(4, 10)
    queue.add(Address(1), "old", NOW_MS)
    queue.add(Address(1), "young", NOW_MS + 1)
    queue.expire(NOW_MS + waiting.LIFETIME_MS + 1)
    assert queue.take(Address(1)) == ["young"]
