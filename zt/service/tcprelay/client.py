"""The node's connection to a TCP relay: datagrams out, datagrams in (chapter 03, 8.1 and 8.2)."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress, Scope, ip_text
from zt.service.tcprelay.fallback import Fallback
from zt.service.tcprelay.records import MIN_DATAGRAM, Relayed, Stream, greeting, parse, relayed

log = logging.getLogger("zt.tcprelay")

QUEUE_LIMIT = 65_536
"""Bytes that may wait for the relay; what would exceed it is dropped, as by a full UDP socket."""
CONNECT_LIMIT_S = 10.0
UNANSWERED_MS = 15_000
"""A connection on which nothing is acknowledged for this long is dead."""
KEEPALIVE_S = (30, 10, 3)  # idle, between probes; number of probes
LINGER_S = 15.0
"""How long a connection that is needed no more still brings what peers send to the relay: they know
us by its address until they have found that way dead."""


class Tunnel:
    """At most one connection, opened and closed as `Fallback` says."""

    def __init__(
        self,
        relay: InetAddress,
        fallback: Fallback,
        *,
        version: tuple[int, int, int],
        received: Callable[[Sequence[Relayed]], None],
        changed: Callable[[bool], None],
        now_ms: Callable[[], int],
    ) -> None:
        """
        :param version: what the greeting says we are.
        :param received: datagrams that came, all from addresses of global scope.
        :param changed: called with True when the connection is up, with False when it is gone.
        """
        self._relay = relay
        self._fallback = fallback
        self._greeting = greeting(version)
        self._received = received
        self._changed = changed
        self._now_ms = now_ms
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self.counters = {
            "connections": 0,
            "failures": 0,
            "sent": 0,
            "received": 0,
            "dropped_queue": 0,
            "dropped_source": 0,
        }

    @property
    def active(self) -> bool:
        """A connection exists and is needed."""
        return self._connection is not None and self._leaving is None

    def configure(self, relay: InetAddress, *, allowed: bool, forced: bool) -> None:
        """Other settings."""
        self._fallback.allowed, self._fallback.forced = allowed, forced
        if relay != self._relay:
            self._relay = relay
            self.close()
        self.check()

    def restarted(self) -> None:
        """The machine slept. UDP gets another chance, unless it did not work before."""
        in_use = self.active
        self.close()  # probably dead; one in use is opened again at once
        if not in_use:
            self._fallback.restarted(self._now_ms())

    def heard(self) -> None:
        """UDP works: something authentic came from an address of global scope."""
        self._fallback.heard(self._now_ms())
        self.check()

    def check(self) -> None:
        """Takes leave of a connection that is not needed."""
        if self._fallback.engaged(self._now_ms()):
            return
        if self._connecting is not None or not self._fallback.allowed:
            self.close()
        elif self.active:
            log.info("the connection to relay %s is not needed any more", self._relay)
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(LINGER_S, self.close)
            self._changed(False)

    def send(self, ip: bytes, port: int, datagram: bytes) -> bool:
        """Sends through the relay what should go there; whether it is to go by UDP (too)."""
        now_ms = self._now_ms()
        way = self._fallback.way(ip, len(datagram), now_ms)
        if not way.relay:
            return way.udp
        if self._connection is not None:
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
                self._changed(True)
            if self._connection.send(relayed(ip, port, datagram)):
                self.counters["sent"] += 1
            else:
                self.counters["dropped_queue"] += 1
        elif way.connect and self._connecting is None:
            self._fallback.connecting(now_ms)
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        return way.udp

    def close(self) -> None:
        """Ends the connection; it may come back when it is needed."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            connection = self._connection
            self._gone()
            connection.abort()
            log.info("the connection to relay %s is closed", self._relay)

    def _gone(self) -> None:
        leaving = self._leaving
        self._connection = self._leaving = None
        if leaving is None:
            self._changed(False)
        else:
            leaving.cancel()  # it was told when the leave began

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        host, port = ip_text(self._relay.ip), self._relay.port
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, connection = await loop.create_connection(lambda: _Connection(self), host, port)
        except (OSError, TimeoutError) as error:
            log.info("no connection to relay %s: %s", self._relay, error or "no answer")
            self.counters["failures"] += 1
            self._fallback.failed()
            return
        finally:
            self._connecting = None
        if connection.closed:
            self._fallback.failed()
            return
        self._connection = connection
        self.counters["connections"] += 1
        why = "as the settings say" if self._fallback.forced else "UDP does not work"
        log.warning("tunneling through relay %s: %s", self._relay, why)
        connection.send(self._greeting)
        self._changed(True)

    # --- what a connection reports ---------------------------------------------------------------

    def arrived(self, packets: list[Relayed]) -> None:
        good = [packet for packet in packets if _acceptable(packet)]
        self.counters["dropped_source"] += len(packets) - len(good)
        if good:
            self._fallback.succeeded()
            self.counters["received"] += len(good)
            self._received(good)

    def lost(self, connection: "_Connection", error: Exception | None) -> None:
        if connection is not self._connection:
            return
        if not connection.useful:
            self._fallback.failed()
        log.info("the relay %s is gone: %s", self._relay, error or "it closed the connection")
        self._gone()


class _Connection(asyncio.Protocol):
    """One TCP connection to the relay."""

    _transport: asyncio.Transport

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._stream = Stream()
        self.closed = False
        self.useful = False
        """Something came from the relay."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        tcp: socket.socket = transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle_s, between_s, probes = KEEPALIVE_S
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between_s)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)

    def data_received(self, data: bytes) -> None:
        packets = []
        try:
            for message in self._stream.feed(data):
                packet = parse(message)
                if packet is not None:
                    packets.append(packet)
        except DecodeError as wrong:
            log.warning("the relay talks nonsense: %s", wrong)
            self._transport.abort()
        if packets and not self.closed:
            self.useful = True
            self._tunnel.arrived(packets)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._tunnel.lost(self, exc)

    def send(self, record: bytes) -> bool:
        """Whether there was room for it."""
        if self._transport.get_write_buffer_size() + len(record) > QUEUE_LIMIT:
            return False
        self._transport.write(record)
        return True

    def abort(self) -> None:
        self.closed = True
        self._transport.abort()


def _acceptable(packet: Relayed) -> bool:
    """A relay has no business with other addresses: it could pose as a neighbour."""
    global_source = InetAddress(packet.ip).scope is Scope.GLOBAL
    return global_source and packet.port > 0 and len(packet.datagram) >= MIN_DATAGRAM
