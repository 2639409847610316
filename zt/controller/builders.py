"""Configs are built and signed in worker threads, so that the event loop goes on meanwhile.

What waits is handed over several at a time: a thread that takes one by one spends as much time on
being woken and on waiting for the interpreter's lock as on the config.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from zt.controller.config import Recipe, build
from zt.protocol.identity import Identity

AT_ONCE = 32
"""Configs that one thread takes together; about ten milliseconds of work."""


class _Order(NamedTuple):
    recipe: Recipe
    done: "asyncio.Future[list[bytes]]"


class Builders:
    """A few threads that make configs. Used on one event loop."""

    def __init__(self, threads: int, signer: Identity, random: Callable[[int], bytes]) -> None:
        self._signer = signer
        self._random = random
        self._free = threads
        self._threads = ThreadPoolExecutor(threads, "controller")
        self._loop = asyncio.get_running_loop()
        self._orders: deque[_Order] = deque()
        self._scheduled = False

    def stop(self) -> None:
        """Waits for the threads; nobody may be waiting for a config any more."""
        self._orders.clear()
        self._threads.shutdown()

    async def build(self, recipe: Recipe) -> list[bytes]:
        """The chunks of a config; raises what `config.build` raises."""
        order = _Order(recipe, self._loop.create_future())
        self._orders.append(order)
        self._schedule()
        return await order.done

    def _schedule(self) -> None:
        """Hand over at the end of this pass of the loop, together with what else it brings."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        while self._orders and self._free:
            orders = [self._orders.popleft() for _ in range(min(AT_ONCE, len(self._orders)))]
            self._free -= 1
            self._threads.submit(self._work, orders)

    def _work(self, orders: list[_Order]) -> None:
        """In a thread."""
        results: list[list[bytes] | Exception] = []
        for order in orders:
            try:
                results.append(build(order.recipe, self._signer, self._random))
            except Exception as error:
                results.append(error)
        self._loop.call_soon_threadsafe(self._finished, orders, results)

    def _finished(self, orders: list[_Order], results: list[list[bytes] | Exception]) -> None:
        self._free += 1
        for order, result in zip(orders, results, strict=True):
            if order.done.cancelled():
                continue
            if isinstance(result, Exception):
                order.done.set_exception(result)
            else:
                order.done.set_result(result)
        if self._orders:
            self._hand_over()
