"""Tells of changed addresses and links as soon as the kernel does (rtnetlink(7))."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
SETTLE_S = 0.1
"""Changes come in bursts; the last of one is what counts."""
READ_BYTES = 65_536


class NetWatch:
    """Calls back once per burst of changes, from the event loop it was made on.

    Where the kernel refuses the socket nothing is ever called: the periodic refresh remains.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            self._socket.bind((0, GROUPS))
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        """What changed does not matter, and neither does a message lost to overrun (ENOBUFS)."""
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while self._socket.recv(READ_BYTES):
                pass
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._changed()
