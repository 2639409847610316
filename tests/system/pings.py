"""ICMP echo in this process: from hosts of a lab through the tunnel, cheap enough for many."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time

from bench.lab import Host
from bench.traffic import checksum

ECHO_REQUEST, ECHO_ANSWER = 8, 0
IP_HEADER = 20


class Echo:
    """A raw socket on a host; asks any number of addresses."""

    def __init__(self, host: Host) -> None:
        kind = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._raw = host.inside(socket.socket, *kind)
        token = os.urandom(8)
        body = struct.pack("!HH", os.getpid() & 0xFFFF, 0) + token
        check = checksum(struct.pack("!BBH", ECHO_REQUEST, 0, 0) + body)
        self._request = struct.pack("!BBH", ECHO_REQUEST, 0, check) + body
        self._token = token

    def ask(self, address: str) -> None:
        with contextlib.suppress(OSError):  # no address or no route for the moment
            self._raw.sendto(self._request, (address, 0))

    def answer(self, patience_s: float) -> str | None:
        """Who answered, or None if nobody did for that long."""
        deadline = time.monotonic() + patience_s
        while True:
            self._raw.settimeout(max(deadline - time.monotonic(), 0))
            try:
                data, (source, _) = self._raw.recvfrom(2048)
            except (TimeoutError, BlockingIOError):
                return None
            if data[IP_HEADER] == ECHO_ANSWER and data.endswith(self._token):
                return str(source)

    def close(self) -> None:
        self._raw.close()


class Pinger(threading.Thread):
    """Asks an address from a host each ``step_s``; `answers` are the times (s) of arrival."""

    def __init__(self, host: Host, address: str, step_s: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.answers: list[float] = []
        self._echo = Echo(host)
        self._address = address
        self._step_s = step_s
        self._ended = threading.Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            if time.monotonic() >= due:
                due += self._step_s
                self._echo.ask(self._address)
            if self._echo.answer(max(due - time.monotonic(), 0.001)) is not None:
                self.answers.append(time.monotonic())

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._echo.close()
