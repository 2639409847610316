"""Several wake-ups as one once they come thick and fast, as network cards moderate interrupts.

Most of what a wake-up costs beside traffic is cold caches: a root that thousands of peers come to
hears hundreds of HELLOs per second that the data plane cannot answer, and each costs it 55 us when
the last one has just been handled, and 350 us when the data plane had the core since. So where
wake-ups follow each other within `WAIT_S` for a while, and nobody's frames hang on them, what comes
is collected once in `WAIT_S`.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from enum import Enum, auto

WAIT_S = 0.01
THICK = 32
"""So many wake-ups in close succession, and the next ones are put together."""
QUIET = 3
"""So many collections in vain, and every event wakes the loop again."""


class Found(Enum):
    """What a collection brought: nothing, what might have waited, or also what should not."""

    NOTHING = auto()
    PATIENT = auto()
    URGENT = auto()


class Moderation:
    """Calls `collect` when the descriptor `fd` is readable, or later; `start` and `stop`."""

    def __init__(self, loop: AbstractEventLoop, fd: int, collect: Callable[[], Found]) -> None:
        self._loop = loop
        self._fd = fd
        self._collect = collect
        self._woken_at = 0.0
        self._thick = 0
        self._quiet = 0
        self._timer: TimerHandle | None = None  # runs while the descriptor is not watched
        self._stopped = False

    def start(self) -> None:
        self._loop.add_reader(self._fd, self._woken)

    def stop(self) -> None:
        """Nothing is collected after this."""
        self._stopped = True
        if self._timer is None:
            self._loop.remove_reader(self._fd)
        else:
            self._timer.cancel()

    def _woken(self) -> None:
        now = self._loop.time()
        close = now - self._woken_at < WAIT_S
        self._woken_at = now
        found = self._collect()
        self._thick = self._thick + 1 if close and found is Found.PATIENT else 0
        if self._thick >= THICK and not self._stopped:
            self._quiet = 0
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(WAIT_S, self._due)

    def _due(self) -> None:
        # Before the collection: one that fails must not be the last.
        self._timer = self._loop.call_later(WAIT_S, self._due)
        found = self._collect()
        self._quiet = self._quiet + 1 if found is Found.NOTHING else 0
        if (found is Found.URGENT or self._quiet >= QUIET) and not self._stopped:
            self._timer.cancel()
            self._timer = None
            self.start()
