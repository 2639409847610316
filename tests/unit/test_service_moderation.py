"""Wake-ups that come thick are put together, and nothing is lost or late for it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from zt.service.moderation import QUIET, THICK, WAIT_S, Found, Moderation

FD = 5


class Loop:
    """An event loop whose time stands still until the test moves it; only `FD` is watched."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reader: Callable[[], None] | None = None
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        assert (fd, self.reader) == (FD, None)
        self.reader = callback

    def remove_reader(self, fd: int) -> None:
        assert fd == FD
        assert self.reader is not None
        self.reader = None

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        entry = (self.now + delay_s, callback)
        self.timers.append(entry)
        return SimpleNamespace(cancel=lambda: entry in self.timers and self.timers.remove(entry))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for entry in [timer for timer in self.timers if timer[0] <= self.now]:
            if entry in self.timers:
                self.timers.remove(entry)
                entry[1]()


class Source:
    """What a pump is to the driver: it collects what came, and may fail."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.waiting: list[Found] = []
        self.collected = 0
        self.collections = 0
        self.failing = False
        self.moderation = Moderation(loop, FD, self.collect)  # type: ignore[arg-type]
        self.moderation.start()

    def collect(self) -> Found:
        self.collections += 1
        if self.failing:
            raise RuntimeError("on purpose")
        found = self.waiting
        self.waiting = []
        self.collected += len(found)
        if not found:
            return Found.NOTHING
        return Found.URGENT if Found.URGENT in found else Found.PATIENT

    def come(self, what: Found = Found.PATIENT) -> None:
        """An event; it wakes the loop where that watches."""
        self.waiting.append(what)
        if self.loop.reader is not None:
            self.loop.reader()

    def crowd(self) -> None:
        """So many that the next ones have to wait."""
        for _ in range(THICK + 1):
            if self.loop.reader is not None:
                self.loop.advance(WAIT_S / 4)
                self.come()
        assert self.loop.reader is None
        assert not self.waiting


@pytest.fixture
def source() -> Source:
    return Source(Loop())


def test_what_comes_now_and_then_never_waits(source: Source) -> None:
    for _ in range(3 * THICK):
        source.loop.advance(WAIT_S)
        source.come()
        assert not source.waiting


def test_what_comes_thick_is_collected_together(source: Source) -> None:
    source.crowd()
    before = source.collections
    for number in range(1, 21):
        for _ in range(5):
            source.come()
        assert len(source.waiting) == 5
        source.loop.advance(WAIT_S)
        assert not source.waiting
        assert source.collections == before + number


def test_after_a_while_without_any_they_wake_the_loop_again(source: Source) -> None:
    source.crowd()
    for _ in range(QUIET - 1):
        source.loop.advance(WAIT_S)
    source.come()
    assert source.waiting, "a short quiet ends nothing"
    for _ in range(1 + QUIET):
        source.loop.advance(WAIT_S)
    assert source.loop.timers == []
    for _ in range(THICK):
        source.come()
        assert not source.waiting


def test_urgent_ones_wake_the_loop_each(source: Source) -> None:
    for _ in range(3 * THICK):
        source.come(Found.URGENT)
        assert not source.waiting
    source.crowd()
    source.come(Found.URGENT)
    source.loop.advance(WAIT_S)
    source.come(Found.URGENT)
    assert not source.waiting


def test_a_collection_that_fails_is_not_the_last(source: Source) -> None:
    source.crowd()
    source.failing = True
    with pytest.raises(RuntimeError):
        source.loop.advance(WAIT_S)
    source.failing = False
    source.come()
    source.loop.advance(WAIT_S)
    assert not source.waiting


@pytest.mark.parametrize("crowded", [False, True])
def test_nothing_is_collected_after_the_stop(source: Source, crowded: bool) -> None:
    if crowded:
        source.crowd()
    before = source.collections
    source.moderation.stop()
    assert source.loop.reader is None
    source.loop.advance(10 * WAIT_S)
    assert (source.collections, source.loop.timers) == (before, [])


@pytest.mark.parametrize("crowded", [False, True])
def test_a_stop_while_collecting_holds(crowded: bool) -> None:
    loop = Loop()
    stopping: list[Moderation] = []

    def collect() -> Found:
        for moderation in stopping:
            moderation.stop()
        return Found.URGENT if crowded and stopping else Found.PATIENT

    moderation = Moderation(loop, FD, collect)  # type: ignore[arg-type]
    moderation.start()
    for _ in range(THICK + crowded):
        assert loop.reader is not None
        loop.reader()
    assert (loop.reader is None) == crowded
    stopping.append(moderation)
    if crowded:
        loop.advance(WAIT_S)
    else:
        assert loop.reader is not None
        loop.reader()
    assert (loop.reader, loop.timers) == (None, [])
