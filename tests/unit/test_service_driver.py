"""The driver's one timer."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

from zt.service.driver import Driver


class Timer:
    """What `call_later` of the loop was asked for."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeNode:
    """Wants what the test says and notes when it was called."""

    def __init__(self) -> None:
        self.due_ms = 1_000
        self.called = 0

    def timer(self, now_ms: int) -> None:
        self.called += 1

    def deadline(self) -> int:
        return self.due_ms

    def actions(self) -> list[Any]:
        return []


def test_the_timer_moves_only_when_the_deadline_comes_closer(monkeypatch: Any) -> None:
    timers: list[Timer] = []

    def call_later(delay_s: float, callback: Any) -> Timer:
        timers.append(Timer(delay_s))
        return timers[-1]

    async def scenario() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        node = FakeNode()
        clock = SimpleNamespace(now_ms=lambda: 400)
        pump = SimpleNamespace(event_fd=os.eventfd(0))
        unused: Any = SimpleNamespace(remote=None, dropped_by_node=None)
        driver = Driver(
            node,  # type: ignore[arg-type]
            unused,
            pump,
            unused,
            clock,  # type: ignore[arg-type]
            network_changed=unused,
            config_request=unused,
            event=unused,
            capture=unused,
            tunnel=unused,
            tracing=unused,
        )
        driver.start()
        assert [timer.delay_s for timer in timers] == [0.6]
        for node.due_ms in (1_000, 2_000):
            driver.drain()
        assert len(timers) == 1
        node.due_ms = 500
        driver.drain()
        assert [timer.delay_s for timer in timers] == [0.6, 0.1]
        assert timers[0].cancelled
        assert not timers[1].cancelled
        node.due_ms = 3_000
        driver.tick()  # as the timer does; from now on it is the later deadline that counts
        assert node.called == 2
        assert timers[-1].delay_s == 2.6
        driver.stop()
        assert timers[-1].cancelled
        driver.drain()
        assert len(timers) == 3
        os.close(pump.event_fd)

    asyncio.run(scenario())
