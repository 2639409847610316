"""Tells what changed in the host's network as soon as the kernel does (rtnetlink(7))."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
MULTICAST = (37, 38)  # RTNLGRP_IPV4_MCADDR, RTNLGRP_IPV6_MCADDR, since Linux 6.14
MULTICAST_MESSAGES = frozenset((56, 57))  # RTM_NEWMULTICAST, RTM_DELMULTICAST
HEADER = struct.Struct("=IH")  # length and type, of the sixteen bytes in front of a message
SETTLE_S = 0.1
"""Changes come in bursts; the last of one is what counts."""
READ_BYTES = 65_536


class NetWatch:
    """Calls back once per burst of changes, from the event loop it was made on.

    `changed`: addresses or links; `joined`: only multicast groups that programs listen to. Where
    the kernel refuses the socket nothing is ever called, and older ones say nothing of groups: the
    periodic looks remain.
    """

    def __init__(self, changed: Callable[[], object], joined: Callable[[], object]) -> None:
        self._changed = changed
        self._joined = joined
        self._only_groups = True
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            self._socket.bind((0, GROUPS))
            for group in MULTICAST:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            while data := self._socket.recv(READ_BYTES):
                self._only_groups &= MULTICAST_MESSAGES.issuperset(_types(data))
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: messages were lost
            self._only_groups = False
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        only_groups, self._only_groups = self._only_groups, True
        self._timer = None
        if only_groups:
            self._joined()
        else:
            self._changed()


def _types(data: bytes) -> Iterator[int]:
    """Of the messages in one read."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind = HEADER.unpack_from(data, at)
        yield kind
        at += max(length + 3 & ~3, 16)
