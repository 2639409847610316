"""Round trips to a peer on request, naming the path that they took."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.packet import Verb
from zt.vl1.packet import HANDLED, Packet, Result

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

RETRY_S = 0.5
"""An ECHO that could not leave yet, or that was not answered, is sent again this soon."""
MAX_WAITING = 256


@dataclass(frozen=True, slots=True)
class Pong:
    """One answer. `path` is None when it came through a relay."""

    milliseconds: float
    path: str | None
    hops: int


class Pinger:
    """Sends ECHO and waits for its OK; one per daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._waiting: dict[int, tuple[asyncio.Future[tuple[Packet, float]], float]] = {}
        daemon.node.vl1.register_ok(Verb.ECHO, self._answered)

    async def ping(self, address: Address, timeout_s: float) -> Pong | None:
        """One round trip; None if there is no answer in time. Unknown peers are looked up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        answer: asyncio.Future[tuple[Packet, float]] = loop.create_future()
        sent: list[int] = []
        try:
            while (left := end - loop.time()) > 0 and len(self._waiting) < MAX_WAITING:
                now_ms = self._daemon.clock.now_ms()
                packet_id = self._daemon.node.vl1.send_now(address, Verb.ECHO, b"", now_ms)
                if packet_id is None:
                    self._daemon.node.vl1.whois(address, now_ms)
                else:
                    sent.append(packet_id)
                    # uvloop's own time counts whole milliseconds.
                    self._waiting[packet_id] = (answer, time.perf_counter())
                self._daemon.drain()
                # Peers drop an ECHO that comes too soon after another one: ask again.
                done, _ = await asyncio.wait([answer], timeout=min(RETRY_S, left))
                if done:
                    packet, seconds = answer.result()
                    path = None if packet.hops else str(packet.path.address)
                    return Pong(seconds * 1000, path, packet.hops)
        finally:
            for packet_id in sent:
                self._waiting.pop(packet_id, None)
        return None

    def _answered(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        answer, sent = self._waiting.get(request_id, (None, 0.0))
        if answer is not None and not answer.done():
            answer.set_result((packet, time.perf_counter() - sent))
        return HANDLED
