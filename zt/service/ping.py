"""Round trips to a peer on request, naming the path that they took."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.packet import Verb
from zt.vl1.packet import HANDLED, Packet, Result

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

RETRY_S = 0.2
"""An ECHO that cannot leave yet (the peer is unknown, or has no route) is tried again this soon."""
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
        self._waiting: dict[int, asyncio.Future[Packet]] = {}
        daemon.node.vl1.register_ok(Verb.ECHO, self._answered)

    async def ping(self, address: Address, timeout_s: float) -> Pong | None:
        """One round trip; None if there is no answer in time. Unknown peers are looked up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while (left := end - loop.time()) > 0 and len(self._waiting) < MAX_WAITING:
            now_ms = self._daemon.clock.now_ms()
            begin = loop.time()
            packet_id = self._daemon.node.vl1.send_now(address, Verb.ECHO, b"", now_ms)
            if packet_id is None:
                self._daemon.node.vl1.whois(address, now_ms)
                self._daemon.drain()
                await asyncio.sleep(min(RETRY_S, left))
                continue
            future: asyncio.Future[Packet] = loop.create_future()
            self._waiting[packet_id] = future
            self._daemon.drain()
            try:
                packet = await asyncio.wait_for(future, left)
            except TimeoutError:
                return None
            finally:
                del self._waiting[packet_id]
            path = None if packet.hops else str(packet.path.address)
            return Pong((loop.time() - begin) * 1000, path, packet.hops)
        return None

    def _answered(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        future = self._waiting.get(request_id)
        if future is not None and not future.done():
            future.set_result(packet)
        return HANDLED
