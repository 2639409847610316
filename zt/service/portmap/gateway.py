"""Questions to the default gateway over UDP, repeated until answered (RFC 6886, 3.1)."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from zt.protocol.errors import DecodeError
from zt.protocol.inet import ip_text, parse_ip
from zt.service.netlink import Gateway
from zt.service.portmap.messages import PORT

FIRST_REPEAT_S = 0.25
"""The wait before a question is repeated; it doubles each time."""

T = TypeVar("T")


class GatewayLink(asyncio.DatagramProtocol):
    """A socket to one gateway, out of the interface that leads there. One question at a time."""

    _transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.local_ip = b""
        """The IPv4 address that the gateway sees as ours."""
        self.malformed = 0
        self._read: Callable[[bytes], Any] = bytes
        self._answer: asyncio.Future[Any] | None = None

    @classmethod
    async def open(cls, gateway: Gateway, port: int = PORT) -> "GatewayLink":
        """Raises OSError: the gateway cannot be reached from here."""
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            if gateway.device:
                # A default route through one of our own networks must not take this away.
                device = gateway.device.encode() + b"\0"
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            # Connected, so that only the gateway's datagrams and its ICMP errors come in.
            udp.connect((ip_text(gateway.ip), port))
            local_ip = parse_ip(udp.getsockname()[0])
            loop = asyncio.get_running_loop()
            _, link = await loop.create_datagram_endpoint(cls, sock=udp)
        except BaseException:
            udp.close()
            raise
        link.local_ip = local_ip
        return link

    async def ask(self, request: bytes, read: Callable[[bytes], T], limit_s: float) -> T | None:
        """What `read` makes of the answer; datagrams for which it raises DecodeError are none.

        None: no answer within `limit_s`, or nobody listens there.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._read, self._answer = read, answer
        pause_s = FIRST_REPEAT_S
        try:
            async with asyncio.timeout(limit_s):
                while not answer.done():
                    self._transport.sendto(request)
                    await asyncio.wait((answer,), timeout=pause_s)
                    pause_s *= 2
            return answer.result()
        except (TimeoutError, OSError):
            return None
        finally:
            self._answer = None

    def close(self) -> None:
        self._transport.close()

    # --- asyncio.DatagramProtocol ----------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._answer is None or self._answer.done():
            return
        try:
            self._answer.set_result(self._read(data))
        except DecodeError:
            self.malformed += 1

    def error_received(self, exc: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)
