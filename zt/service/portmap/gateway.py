"""Questions to the default gateway over UDP, repeated until answered (RFC 6886, 3.1)."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from zt.protocol.errors import DecodeError
from zt.protocol.inet import ip_text, parse_ip
from zt.service.netlink import Gateway
from zt.service.portmap.messages import MAX_ANSWER, PORT

FIRST_REPEAT_S = 0.25
"""The wait before a question is repeated; it doubles each time."""

T = TypeVar("T")


class GatewayLink:
    """A socket to one gateway, out of the interface that leads there. One question at a time."""

    def __init__(self, gateway: Gateway, port: int = PORT) -> None:
        """Raises OSError: the gateway cannot be reached from here."""
        self.malformed = 0
        self._loop = asyncio.get_running_loop()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if gateway.device:
                # A default route through one of our own networks must not take this away.
                device = gateway.device.encode() + b"\0"
                self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            # Connected, so that only the gateway's datagrams and its ICMP errors come in.
            self._udp.connect((ip_text(gateway.ip), port))
            self.local_ip = parse_ip(self._udp.getsockname()[0])
            """The IPv4 address that the gateway sees as ours."""
        except BaseException:
            self._udp.close()
            raise

    async def ask(self, request: bytes, read: Callable[[bytes], T], limit_s: float) -> T | None:
        """What `read` makes of the answer; datagrams for which it raises DecodeError are none.

        None: no answer within `limit_s`, or nobody listens there.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._loop.add_reader(self._udp, self._readable, answer, read)
        pause_s = FIRST_REPEAT_S
        try:
            async with asyncio.timeout(limit_s):
                while not answer.done():
                    self._udp.send(request)
                    await asyncio.wait((answer,), timeout=pause_s)
                    pause_s *= 2
            return answer.result()
        except (TimeoutError, OSError):
            return None
        finally:
            self._loop.remove_reader(self._udp)

    def close(self) -> None:
        self._udp.close()

    def _readable(self, answer: "asyncio.Future[Any]", read: Callable[[bytes], Any]) -> None:
        if answer.done():
            return
        try:
            answer.set_result(read(self._udp.recv(MAX_ANSWER + 1)))
        except DecodeError:
            self.malformed += 1
        except BlockingIOError:
            return
        except OSError as error:  # ICMP: nobody listens there
            answer.set_exception(error)
