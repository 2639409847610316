"""Limits on what others can make us do (ch. 02, 11), with bounded memory."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TokenBucket(Generic[K]):
    """A token bucket per key: `burst` at once, one more every `interval_ms`.

    At most `limit` keys are remembered; the one used longest ago is forgotten first, which can
    only be to the advantage of that key.
    """

    def __init__(self, interval_ms: int, burst: int, limit: int) -> None:
        self._interval_ms = interval_ms
        self._burst = burst
        self._limit = limit
        # When the bucket of a key will be (or was) full again.
        self._full_ms: OrderedDict[K, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_ms)

    def open(self, key: K, now_ms: int) -> bool:
        """Is there a token?"""
        return self._full_ms.get(key, 0) - now_ms <= (self._burst - 1) * self._interval_ms

    def take(self, key: K, now_ms: int) -> bool:
        """Takes a token if there is one."""
        full_ms = max(self._full_ms.pop(key, 0), now_ms)
        allowed = full_ms - now_ms <= (self._burst - 1) * self._interval_ms
        self._full_ms[key] = full_ms + self._interval_ms if allowed else full_ms
        if len(self._full_ms) > self._limit:
            self._full_ms.popitem(last=False)
        return allowed


class Spacing(Generic[K]):
    """Allows an event per key every `interval_ms`; remembers `limit` keys, oldest out first."""

    def __init__(self, interval_ms: int, limit: int) -> None:
        self._interval_ms = interval_ms
        self._limit = limit
        self._last_ms: OrderedDict[K, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last_ms)

    def take(self, key: K, now_ms: int) -> bool:
        last_ms = self._last_ms.get(key)
        if last_ms is not None and 0 <= now_ms - last_ms < self._interval_ms:
            return False
        self._last_ms[key] = now_ms
        self._last_ms.move_to_end(key)
        if len(self._last_ms) > self._limit:
            self._last_ms.popitem(last=False)
        return True

    def forget(self, key: K) -> None:
        self._last_ms.pop(key, None)


class Repeats:
    """The packets that came last, of all peers together, so that an exact repeat is known.

    IDs are random and there are no sequence numbers. At most `LIMIT` packets are remembered, the
    oldest is forgotten first.
    """

    LIMIT = 16_384

    def __init__(self) -> None:
        # Source and ID in one number, in order of arrival.
        self._seen: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, source: int, packet_id: int) -> int:
        """How often the packet came before; it counts as come from now on."""
        key = source << 64 | packet_id
        before = self._seen.get(key, 0)
        self._seen[key] = before + 1
        if len(self._seen) > self.LIMIT:
            self._seen.popitem(last=False)
        return before


class RunGate:
    """Of a run of events spaced `window_ms` or less the first `limit` count."""

    __slots__ = ("_count", "_last_ms", "_limit", "_window_ms")

    def __init__(self, window_ms: int, limit: int) -> None:
        self._window_ms = window_ms
        self._limit = limit
        self._count = 0
        self._last_ms = 0

    def take(self, now_ms: int) -> bool:
        self._count = self._count + 1 if now_ms - self._last_ms <= self._window_ms else 0
        self._last_ms = now_ms
        return self._count < self._limit


class PushGate:
    """The gate of one peer's PUSH_DIRECT_PATHS: `BURST` at once, one more every `REFILL_MS`.

    The original counts those of a run spaced 30 s or less and hears none after the eighth (ch. 02,
    11); a pair in constant traffic by relay would stop to listen after two minutes.
    """

    BURST = 8
    REFILL_MS = 7_500

    __slots__ = ("_full_ms",)

    def __init__(self) -> None:
        self._full_ms = 0  # when there will be `BURST` again

    def take(self, now_ms: int) -> bool:
        full_ms = max(self._full_ms, now_ms)
        if full_ms - now_ms > (self.BURST - 1) * self.REFILL_MS:
            return False
        self._full_ms = full_ms + self.REFILL_MS
        return True
