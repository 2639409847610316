"""Proofs of work of strangers, checked aside: one thread that gives way to everything else.

A check is some milliseconds of CPU that anybody can make us spend. While the machine has time they
go on one after the other; while the rest of it is busy they take `SHARE` of a core, so that a crowd
of newcomers does not slow the packets of peers; and less and less of it, down to `FLOOD_SHARE`,
while what they find is false, for then it is no crowd but a flood.
"""

import os
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from zt.protocol.identity import Identity

NICE = 15
SHARE = 0.05
"""Of a core, while the machine is busy."""
FLOOD_SHARE = 0.01
"""Of a core, while it is busy and most of what is checked proves false."""
BUSY = 0.7
"""Part of all cores that the rest of the machine uses, from which on it counts as busy."""
SAMPLE_S = 0.25
PAUSE_LIMIT_S = 0.5
STAT = Path("/proc/stat")


class Validator:
    """Owns the thread; `stop` ends it."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(1, "validate", initializer=_yield_to_others)
        self._pace = Pace(read_stat, time.monotonic)
        self._stopped = Event()

    def validate(self, identity: Identity) -> "Future[bool]":
        """Its result is whether the proof of work is good."""
        return self._loop.run_in_executor(self._pool, self._check, identity)

    def stop(self) -> None:
        """Checks that have not begun are cancelled."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, identity: Identity) -> bool:
        self._stopped.wait(self._pace.pause())
        begin = time.thread_time()
        good = False
        try:
            good = identity.validate()
            return good
        finally:
            self._pace.spent(time.thread_time() - begin, good)


class Pace:
    """When the next piece of work may begin. `stat` gives seconds of CPU that all cores together
    have been at work and had to give since some time, or None where nobody knows."""

    def __init__(
        self, stat: Callable[[], tuple[float, float] | None], clock: Callable[[], float]
    ) -> None:
        self._stat = stat
        self._clock = clock
        self._at = clock()
        self._before = stat()
        self._own = 0.0
        self._busy = False
        self._share = SHARE
        self._next = 0.0

    def pause(self) -> float:
        """Seconds to wait first."""
        return min(max(self._next - self._clock(), 0.0), PAUSE_LIMIT_S)

    def spent(self, cpu_s: float, good: bool) -> None:
        """A piece of work is done, and was `good` for something."""
        now = self._clock()
        self._own += cpu_s
        if now - self._at >= SAMPLE_S:
            self._sample(now)
        self._share = min(2 * self._share, SHARE) if good else max(0.9 * self._share, FLOOD_SHARE)
        if self._busy:
            self._next = now + cpu_s * (1 / self._share - 1)

    def _sample(self, now: float) -> None:
        after = self._stat()
        if self._before is not None and after is not None:
            worked, given = (y - x for x, y in zip(self._before, after, strict=True))
            self._busy = worked - self._own > BUSY * given
        self._at, self._before, self._own = now, after, 0.0


def read_stat() -> tuple[float, float] | None:
    """For `Pace`, of Linux."""
    try:
        times = [int(word) for word in STAT.read_text().split("\n", 1)[0].split()[1:9]]
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    idle = times[3] + times[4]  # with waiting for I/O
    return (sum(times) - idle) * tick_s, sum(times) * tick_s


def _yield_to_others() -> None:
    """Lowers the priority of the calling thread alone (Linux)."""
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
