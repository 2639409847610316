"""The relay server: for each TCP client one UDP socket (chapter 03, section 8.3).

To peers a client appears at this machine's address and its socket's port. A relay forwards for
anybody, so it is bounded: clients, bytes waiting for a client, idle time; and it never sends to
loopback, multicast or unspecified addresses, which could reach what only this machine may reach.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass, fields
from typing import Any

from zt.protocol.errors import DecodeError
from zt.service.tcprelay.records import GREETING_SIZE, MIN_DATAGRAM, Stream, parse, record, relayed

log = logging.getLogger("zt.tcprelay")

# What may wait for a client that reads slowly; above it datagrams are dropped, as UDP would.
WRITE_LIMIT = 131_072
MAX_DATAGRAM = 2047
MAX_CLIENTS = 4096
IDLE_S = 300
IDLE_CHECK_S = 120
LOWEST_PORT = 1025
# Where a client of before the greeting wants its datagrams (chapter 03, section 8.3).
LEGACY_TARGET = ("127.0.0.1", 9993)


@dataclass(slots=True)
class Counters:
    """What a relay did since it started."""

    clients_accepted: int = 0
    clients_refused: int = 0
    clients_malformed: int = 0
    clients_idle: int = 0
    datagrams_to_peers: int = 0
    datagrams_to_clients: int = 0
    bytes_to_peers: int = 0
    bytes_to_clients: int = 0
    dropped_destination: int = 0
    dropped_size: int = 0
    dropped_slow_client: int = 0

    def items(self) -> list[tuple[str, int]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


class _Outside(asyncio.DatagramProtocol):
    """The UDP side of one client."""

    def __init__(self, client: "_Client") -> None:
        self.client = client

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.client.from_peer(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A peer's ICMP error; the datagram is lost, as on any UDP path."""


class _Client(asyncio.Protocol):
    """One TCP connection. Its UDP socket is opened with it and closed with it."""

    transport: asyncio.Transport

    def __init__(self, relay: "Relay") -> None:
        self.relay = relay
        self.stream = Stream()
        self.greeted = False
        self.outside: asyncio.DatagramTransport | None = None
        self.opening: asyncio.Task[None] | None = None
        self.last_active_s = 0.0

    # TCP

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.active()
        if not self.relay.admit(self):
            transport.abort()
            return
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nothing is read before there is a socket to send it from.
        transport.pause_reading()
        self.opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            outside, _ = await loop.create_datagram_endpoint(
                lambda: _Outside(self), local_addr=("0.0.0.0", 0)
            )
        except OSError as problem:
            log.warning("no UDP socket for a client: %s", problem)
            self.transport.abort()
            return
        if self.transport.is_closing():
            outside.close()
            return
        self.outside = outside
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.active()
        try:
            for message in self.stream.feed(data):
                self._message(message)
        except DecodeError as wrong:
            self.relay.counters.clients_malformed += 1
            log.debug("closing a client: %s", wrong)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.forget(self)
        if self.opening is not None:
            self.opening.cancel()
        if self.outside is not None:
            self.outside.close()

    def active(self) -> None:
        self.last_active_s = asyncio.get_running_loop().time()

    # both ways

    def _message(self, message: bytes) -> None:
        counters = self.relay.counters
        if len(message) == GREETING_SIZE:
            self.greeted = True
            return
        if not self.greeted:
            self._send(message, LEGACY_TARGET)
            return
        packet = parse(message)
        if packet is None or len(packet.ip) != 4:
            counters.dropped_destination += 1
            return
        if not len(packet.datagram) >= MIN_DATAGRAM:
            counters.dropped_size += 1
        elif packet.port < LOWEST_PORT or not self.relay.may_send_to(packet.ip):
            counters.dropped_destination += 1
        else:
            self._send(packet.datagram, (socket.inet_ntoa(packet.ip), packet.port))

    def _send(self, datagram: bytes, target: tuple[str, int]) -> None:
        if self.outside is None or self.outside.is_closing():
            return
        self.outside.sendto(datagram, target)
        self.relay.counters.datagrams_to_peers += 1
        self.relay.counters.bytes_to_peers += len(datagram)

    def from_peer(self, datagram: bytes, source: tuple[str, int]) -> None:
        counters = self.relay.counters
        if not MIN_DATAGRAM <= len(datagram) <= MAX_DATAGRAM:
            counters.dropped_size += 1
            return
        if self.transport.get_write_buffer_size() + len(datagram) > WRITE_LIMIT:
            counters.dropped_slow_client += 1
            return
        self.active()
        if self.greeted:
            self.transport.write(relayed(socket.inet_aton(source[0]), source[1], datagram))
        else:
            self.transport.write(record(datagram))
        counters.datagrams_to_clients += 1
        counters.bytes_to_clients += len(datagram)


class Relay:
    """A relay server on one TCP address. ``start`` and ``stop`` belong to one event loop."""

    def __init__(
        self, *, max_clients: int = MAX_CLIENTS, idle_s: float = IDLE_S, loopback: bool = False
    ) -> None:
        self.max_clients = max_clients
        self.idle_s = idle_s
        self.loopback = loopback
        self.counters = Counters()
        self.clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listens; returns the address in use. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Client(self), host, port, family=socket.AF_INET, backlog=512
        )
        self._sweeper = asyncio.ensure_future(self._sweep())
        name: tuple[str, int] = self._server.sockets[0].getsockname()
        return name

    async def stop(self) -> None:
        """Closes every connection and socket."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()

    def admit(self, client: _Client) -> bool:
        if len(self.clients) >= self.max_clients:
            self.counters.clients_refused += 1
            return False
        self.clients.add(client)
        self.counters.clients_accepted += 1
        return True

    def forget(self, client: _Client) -> None:
        self.clients.discard(client)

    def may_send_to(self, ip: bytes) -> bool:
        """Whether a client may reach this IPv4 address through us."""
        return ip[0] not in (0, 255) and not 224 <= ip[0] < 240 and (ip[0] != 127 or self.loopback)

    async def _sweep(self) -> None:
        """Closes clients that neither sent nor received for ``idle_s``."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(IDLE_CHECK_S, self.idle_s))
            for client in list(self.clients):
                if loop.time() - client.last_active_s > self.idle_s:
                    self.counters.clients_idle += 1
                    client.transport.abort()
