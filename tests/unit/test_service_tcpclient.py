"""The client side of the TCP relay: its rules by a hand-driven clock, and a relay on loopback."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from zt.protocol.inet import InetAddress, Scope
from zt.service.tcprelay import client as client_module
from zt.service.tcprelay.client import QUEUE_LIMIT, Tunnel
from zt.service.tcprelay.fallback import NOWHERE, RETRY_MS, UDP_ONLY, Fallback, Way
from zt.service.tcprelay.records import Relayed, Stream, greeting, parse, record, relayed

PEER = socket.inet_aton("44.66.0.7")
NEIGHBOUR = socket.inet_aton("192.168.1.7")
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
SIZE = 100
START_MS = 1_000_000

# --- rules ---------------------------------------------------------------------------------------


def fallback(*, allowed: bool = True, forced: bool = False) -> Fallback:
    return Fallback(START_MS, allowed=allowed, forced=forced)


def test_udp_alone_in_the_first_minute() -> None:
    rules = fallback()
    for now_ms in range(START_MS, START_MS + 60_001, 1000):
        assert rules.way(PEER, SIZE, now_ms) == UDP_ONLY
    now_ms = START_MS + 60_001
    assert rules.way(PEER, SIZE, now_ms).relay
    assert rules.way(PEER, SIZE, now_ms + 1000) == Way(relay=True, connect=True, udp=True)


def test_the_first_datagram_of_a_minute_opens_no_connection() -> None:
    rules = fallback()
    now_ms = START_MS + 200_000
    assert rules.way(PEER, SIZE, now_ms) == Way(relay=True, connect=False, udp=True)
    assert rules.way(PEER, SIZE, now_ms + 60_001) == Way(relay=True, connect=False, udp=True)
    assert rules.way(PEER, SIZE, now_ms + 120_001) == Way(relay=True, connect=True, udp=True)


def test_a_datagram_by_udp_ends_it_for_a_minute() -> None:
    rules = fallback()
    now_ms = START_MS + 200_000
    assert rules.engaged(now_ms)
    rules.heard(now_ms)
    assert not rules.engaged(now_ms + 60_000)
    assert rules.way(PEER, SIZE, now_ms + 60_000) == UDP_ONLY
    assert rules.engaged(now_ms + 60_001)


def test_after_sleep_udp_gets_its_minute_again() -> None:
    rules = fallback()
    now_ms = START_MS + 200_000
    rules.restarted(now_ms)
    assert not rules.engaged(now_ms + 60_000)
    assert rules.engaged(now_ms + 60_001)


def test_only_ipv4_of_global_scope_and_no_probes_go_through_the_relay() -> None:
    rules = fallback()
    now_ms = START_MS + 200_000
    assert rules.way(PEER, 16, now_ms).relay
    assert rules.way(PEER, 15, now_ms) == UDP_ONLY
    assert rules.way(NEIGHBOUR, SIZE, now_ms) == UDP_ONLY
    assert rules.way(SIX, SIZE, now_ms) == UDP_ONLY


def test_forced_means_the_relay_from_the_start_and_nothing_else() -> None:
    rules = fallback(forced=True)
    assert rules.way(PEER, SIZE, START_MS) == Way(relay=True, connect=True, udp=False)
    assert rules.way(NEIGHBOUR, SIZE, START_MS) == NOWHERE
    rules.heard(START_MS)
    assert rules.engaged(START_MS)


def test_not_allowed_means_never_even_if_forced() -> None:
    now_ms = START_MS + 200_000
    assert fallback(allowed=False).way(PEER, SIZE, now_ms) == UDP_ONLY
    assert fallback(allowed=False, forced=True).way(PEER, SIZE, now_ms) == NOWHERE


def test_attempts_are_spaced_and_double_while_they_fail() -> None:
    rules = fallback(forced=True)
    attempts = []
    for now_ms in range(START_MS, START_MS + 300_000, 100):
        if rules.way(PEER, SIZE, now_ms).connect:
            rules.connecting(now_ms)
            rules.failed()
            attempts.append(now_ms)
    pauses = [b - a for a, b in itertools.pairwise(attempts)]
    assert pauses == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]
    rules.succeeded()
    assert rules.way(PEER, SIZE, attempts[-1] + RETRY_MS[0]).connect
    assert not rules.way(PEER, SIZE, attempts[-1] + RETRY_MS[0] - 1).connect


EVENTS = st.sampled_from(["send", "heard", "restarted", "failed", "succeeded"])


@given(
    st.lists(st.tuples(EVENTS, st.integers(0, 90_000))),
    st.booleans(),
    st.booleans(),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    st.integers(0, 40),
)
def test_what_never_happens(
    events: list[tuple[str, int]], allowed: bool, forced: bool, ip: bytes, size: int
) -> None:
    rules = fallback(allowed=allowed, forced=forced)
    now_ms, quiet_ms, tried_ms = START_MS, START_MS, 0
    for event, pause_ms in events:
        now_ms += pause_ms
        if event in ("heard", "restarted"):
            getattr(rules, event)(now_ms)
            quiet_ms = now_ms
        elif event != "send":
            getattr(rules, event)()
        else:
            way = rules.way(ip, size, now_ms)
            assert way.udp is not forced
            if way.relay:
                assert allowed
                assert InetAddress(ip).scope is Scope.GLOBAL
                assert len(ip) == 4
                assert size >= 16
                assert forced or now_ms - quiet_ms > 60_000
            if way.connect:
                assert way.relay
                assert now_ms - tried_ms >= 2_500
                rules.connecting(now_ms)
                tried_ms = now_ms


# --- the connection ------------------------------------------------------------------------------

DATAGRAM = b"a datagram of more than sixteen bytes"
VERSION = (1, 14, 1)


class FakeRelay:
    """Accepts connections and keeps what it gets; says whatever a test wants."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.read = True
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.put_nowait(writer)
        stream = Stream()
        try:
            while self.read and (data := await reader.read(65536)):
                for message in stream.feed(data):
                    self.messages.put_nowait(message)
        except ConnectionError:
            pass
        finally:
            self.ended.set()


class Client:
    """A tunnel with a clock of its own."""

    def __init__(self, relay: InetAddress, *, forced: bool) -> None:
        self.now_ms = START_MS
        self.received: asyncio.Queue[Relayed] = asyncio.Queue()
        self.states: asyncio.Queue[bool] = asyncio.Queue()
        self.rules = Fallback(self.now_ms, allowed=True, forced=forced)
        self.tunnel = Tunnel(
            relay,
            self.rules,
            version=VERSION,
            received=lambda packets: [self.received.put_nowait(packet) for packet in packets],
            changed=self.states.put_nowait,
            now_ms=lambda: self.now_ms,
        )

    def send(self) -> bool:
        return self.tunnel.send(PEER, 9993, DATAGRAM)

    async def connected(self) -> None:
        """Sends until there is a connection."""
        self.send()
        self.now_ms += 3_000
        self.send()
        assert await self.states.get()
        assert self.tunnel.active


def run(
    body: Callable[[FakeRelay, Client], Awaitable[None]],
    *,
    forced: bool = True,
) -> None:
    @asynccontextmanager
    async def relay() -> AsyncIterator[tuple[FakeRelay, InetAddress]]:
        fake = FakeRelay()
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield fake, InetAddress(b"\x7f\0\0\1", port)
        finally:
            server.close()
            while not fake.writers.empty():
                fake.writers.get_nowait().close()

    async def limited() -> None:
        async with asyncio.timeout(60), relay() as (fake, address):
            client = Client(address, forced=forced)
            try:
                await body(fake, client)
            finally:
                client.tunnel.close()

    uvloop.run(limited())


def test_greeting_then_datagrams_both_ways() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        await client.connected()
        assert client.send() is False, "forced: not by UDP"
        assert record(await relay.messages.get()) == greeting(VERSION)
        assert parse(await relay.messages.get()) == Relayed(PEER, 9993, DATAGRAM)
        writer = await relay.writers.get()
        writer.write(relayed(PEER, 5000, DATAGRAM[::-1]))
        assert await client.received.get() == Relayed(PEER, 5000, DATAGRAM[::-1])
        connection = client.tunnel._connection
        assert connection is not None
        tcp = connection._transport.get_extra_info("socket")
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(body)


def test_udp_works_again_and_the_connection_goes() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        client.now_ms += 70_000
        await client.connected()
        assert client.send() is True, "not forced: by UDP as well"
        client.tunnel.heard()
        assert not client.tunnel.active
        assert await client.states.get() is False
        assert client.send() is True
        client.now_ms += 60_001
        await client.connected()

    run(body, forced=False)


def test_what_peers_still_send_to_the_relay_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """After UDP works again the connection stays a moment, for what comes in only."""
    monkeypatch.setattr(client_module, "LINGER_S", 0.2)

    async def body(relay: FakeRelay, client: Client) -> None:
        client.now_ms += 70_000
        await client.connected()
        writer = await relay.writers.get()
        client.tunnel.heard()
        assert await client.states.get() is False
        assert client.send() is True
        writer.write(relayed(PEER, 5000, DATAGRAM))
        assert await client.received.get() == Relayed(PEER, 5000, DATAGRAM)
        assert not client.tunnel.active
        await relay.ended.wait()
        assert client.states.empty(), "said once"

    run(body, forced=False)


def test_a_relay_that_goes_is_found_again() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        await client.connected()
        (await relay.writers.get()).transport.abort()
        assert await client.states.get() is False
        client.now_ms += RETRY_MS[0] - 1
        client.send()
        assert relay.writers.empty()
        await client.connected()
        assert client.tunnel.counters["connections"] == 2

    run(body)


def test_what_is_no_record_ends_the_connection() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        for nonsense in (b"HTTP/1.1 400 Bad Request\r\n\r\n", record(b"\x09" + DATAGRAM)):
            await client.connected()
            (await relay.writers.get()).write(nonsense)
            assert await client.states.get() is False
            client.now_ms += RETRY_MS[1]

    run(body)


def test_only_what_could_come_from_outside_is_taken() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        await client.connected()
        writer = await relay.writers.get()
        writer.write(
            record(b"\x01\x0e\x00\x01")  # the size of a greeting
            + record(b"\0" + DATAGRAM)
            + relayed(NEIGHBOUR, 9993, DATAGRAM)
            + relayed(b"\x7f\0\0\1", 9993, DATAGRAM)
            + relayed(PEER, 0, DATAGRAM)
            + relayed(PEER, 9993, b"short")
            + relayed(SIX, 9993, DATAGRAM)
        )
        assert await client.received.get() == Relayed(SIX, 9993, DATAGRAM)
        assert client.tunnel.counters["dropped_source"] == 4

    run(body)


def test_a_relay_that_does_not_read_costs_bounded_memory() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        relay.read = False
        await client.connected()
        big = bytes(1400)
        while not client.tunnel.counters["dropped_queue"]:
            client.tunnel.send(PEER, 9993, big)
            await asyncio.sleep(0)
        connection = client.tunnel._connection
        assert connection is not None
        waiting = connection._transport.get_write_buffer_size()
        assert QUEUE_LIMIT - 1500 < waiting <= QUEUE_LIMIT

    run(body)


def test_another_relay_or_no_relay_is_obeyed_at_once() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        await client.connected()
        client.tunnel.configure(InetAddress(b"\x7f\0\0\1", 1), allowed=True, forced=True)
        assert not client.tunnel.active
        client.now_ms += RETRY_MS[1]
        client.send()
        while not client.tunnel.counters["failures"]:  # noqa: ASYNC110 (a count announces nothing)
            await asyncio.sleep(0.001)
        client.tunnel.configure(InetAddress(b"\x7f\0\0\1", 1), allowed=False, forced=True)
        assert client.send() is False

    run(body)


def test_after_sleep_a_used_connection_is_made_anew() -> None:
    async def body(relay: FakeRelay, client: Client) -> None:
        client.now_ms += 70_000
        await client.connected()
        client.now_ms += 120_000
        client.tunnel.restarted()
        assert await client.states.get() is False
        await client.connected()

    run(body, forced=False)
