"""The one clock of a node (docs/architecture.md, Words).

`now_ms` is milliseconds since 1970 that never run backwards: CLOCK_BOOTTIME, which keeps counting
while the machine sleeps, plus an offset taken once at start. The data plane adds the same offset to
its own readings, so times of both planes compare.
"""

import time


class Clock:
    """Reads CLOCK_BOOTTIME; `offset_ms` is what turns it into wall-clock milliseconds."""

    def __init__(self) -> None:
        self.offset_ms = 0
        self.offset_ms = wall_ms() - self.now_ms()

    def now_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 + self.offset_ms


def wall_ms() -> int:
    """The wall clock in milliseconds: for `clock` in the API and for new timestamps on disk."""
    return time.time_ns() // 1_000_000
