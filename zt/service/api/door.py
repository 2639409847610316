"""The first protocol of every connection of the API: it answers what it knows, and calls for
`http.ApiProtocol` when something else is asked."""

import asyncio
from collections.abc import Callable

from zt.service.api.auth import on_loopback
from zt.service.api.http import ApiProtocol
from zt.service.api.shortcut import IDLE_S, REQUESTS_PER_CONNECTION, ShortCut

LIMIT = 512
"""Connections at the door; others are handed over at once."""


class Door(asyncio.Protocol):
    """One connection, until it asks for what `short_cut` does not know byte for byte."""

    def __init__(
        self, short_cut: ShortCut, doors: "set[Door]", inside: Callable[[], ApiProtocol]
    ) -> None:
        self._short_cut = short_cut
        self._doors = doors
        self._inside = inside
        self._requests = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        client = transport.get_extra_info("peername")
        if len(self._doors) >= LIMIT or client is None or not on_loopback(client[0]):
            self._hand_over()
            return
        self._doors.add(self)
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(IDLE_S, self._idle)

    def data_received(self, data: bytes) -> None:
        last = self._requests + 1 >= REQUESTS_PER_CONNECTION
        answer = self._short_cut.answer_known(data, last)
        if answer is None:
            self._leave()
            inside = self._hand_over()
            inside.data_received(data)
            if inside.short_url is not None:
                self._short_cut.remember(data, inside.short_url)
            return
        self._requests += 1
        self._heard = self._loop.time()
        self.transport.write(answer)
        if last:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._doors.discard(self)
        self._timer.cancel()

    def _hand_over(self) -> ApiProtocol:
        inside = self._inside()
        self.transport.set_protocol(inside)
        inside.connection_made(self.transport)
        inside.requests = self._requests
        return inside

    def _idle(self) -> None:
        """One timer for all requests of a connection: it goes on if there was one meanwhile."""
        due = self._heard + IDLE_S
        if due <= self._loop.time():
            self.transport.close()
        else:
            self._timer = self._loop.call_at(due, self._idle)
