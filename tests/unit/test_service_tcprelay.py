"""The TCP relay: records, and a server between a TCP client and a UDP peer on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from zt.protocol.errors import DecodeError
from zt.service.tcprelay.records import Relayed, Stream, greeting, parse, record, relayed
from zt.service.tcprelay.server import WRITE_LIMIT, Relay

DATAGRAM = b"a datagram of more than sixteen bytes"


def test_greeting_is_the_recorded_one() -> None:
    assert greeting((1, 14, 1)) == bytes.fromhex("1703030004010e0001")


@given(
    st.lists(
        st.builds(
            Relayed,
            st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
            st.integers(0, 65535),
            st.binary(min_size=16, max_size=100),
        ),
        max_size=5,
    ),
    st.data(),
)
def test_records_survive_any_cut(packets: list[Relayed], data: st.DataObject) -> None:
    stream = Stream()
    found = []
    rest = b"".join(relayed(*packet) for packet in packets)
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        found += [parse(message) for message in stream.feed(rest[:cut])]
        rest = rest[cut:]
    assert found == packets


@given(st.binary(max_size=64))
def test_any_bytes_raise_only_the_documented_error(data: bytes) -> None:
    try:
        for message in Stream().feed(data):
            parse(message)
    except DecodeError as wrong:
        assert str(wrong)


class Peer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait((data, addr))


@asynccontextmanager
async def peer() -> AsyncIterator[tuple[Peer, asyncio.DatagramTransport, int]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
    try:
        yield protocol, transport, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def run(scenario: Callable[[Relay, str, int], Awaitable[None]], **options: float) -> None:
    async def body() -> None:
        relay = Relay(loopback=True, **options)  # type: ignore[arg-type]
        host, port = await relay.start("127.0.0.1", 0)
        try:
            await asyncio.wait_for(scenario(relay, host, port), 60)
        finally:
            await relay.stop()

    uvloop.run(body())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (counters and sets announce nothing)
        await asyncio.sleep(0.001)


async def next_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(5)
    return await reader.readexactly(int.from_bytes(header[3:], "big"))


LOOPBACK = socket.inet_aton("127.0.0.1")


def test_both_ways() -> None:
    async def scenario(relay: Relay, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        async with peer() as (protocol, transport, peer_port):
            # The greeting and the first datagram in one segment, as a client sends them.
            writer.write(greeting((1, 14, 1)) + relayed(LOOPBACK, peer_port, DATAGRAM))
            data, source = await protocol.received.get()
            assert data == DATAGRAM
            transport.sendto(DATAGRAM[::-1], source)
            answer = parse(await next_message(reader))
            assert answer == Relayed(LOOPBACK, peer_port, DATAGRAM[::-1])
        writer.close()
        await until(lambda: not relay.clients)

    run(scenario)


@pytest.mark.parametrize(
    ("ip", "port", "datagram", "counter"),
    [
        (b"\x7f\0\0\1", 1024, DATAGRAM, "dropped_destination"),
        (b"\xe0\0\0\1", 9993, DATAGRAM, "dropped_destination"),
        (bytes(4), 9993, DATAGRAM, "dropped_destination"),
        (bytes(16), 9993, DATAGRAM, "dropped_destination"),
        (b"\x7f\0\0\1", 9993, b"short", "dropped_size"),
    ],
)
def test_what_is_not_forwarded(ip: bytes, port: int, datagram: bytes, counter: str) -> None:
    async def scenario(relay: Relay, host: str, relay_port: int) -> None:
        _, writer = await asyncio.open_connection(host, relay_port)
        writer.write(greeting((1, 14, 1)) + relayed(ip, port, datagram))
        await until(lambda: getattr(relay.counters, counter) == 1)
        assert relay.counters.datagrams_to_peers == 0
        writer.close()

    run(scenario)


def test_loopback_needs_permission() -> None:
    assert not Relay().may_send_to(LOOPBACK)
    assert Relay().may_send_to(b"\x0a\0\0\1")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", record(b"\x09bad type"), record(b"\x04")]
)
def test_malformed_clients_are_closed(data: bytes) -> None:
    async def scenario(relay: Relay, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(greeting((1, 14, 1)) + data)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        assert relay.counters.clients_malformed == 1
        writer.close()

    run(scenario)


def test_a_slow_client_loses_datagrams_and_holds_no_more_than_the_limit() -> None:
    async def scenario(relay: Relay, host: str, port: int) -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.write(greeting((1, 14, 1)))
        async with peer() as (protocol, transport, peer_port):
            writer.write(relayed(LOOPBACK, peer_port, DATAGRAM))
            _, source = await protocol.received.get()
            (client,) = relay.clients
            while not relay.counters.dropped_slow_client:
                for _ in range(64):
                    transport.sendto(bytes(2000), source)
                await asyncio.sleep(0)
                assert client.transport.get_write_buffer_size() <= WRITE_LIMIT
        writer.transport.abort()

    run(scenario)


def test_limits_on_clients_and_idle_time() -> None:
    async def crowd(relay: Relay, host: str, port: int) -> None:
        _, first = await asyncio.open_connection(host, port)
        await until(lambda: len(relay.clients) == 1)
        reader, second = await asyncio.open_connection(host, port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        assert relay.counters.clients_refused == 1
        first.close()
        second.close()

    async def idle(relay: Relay, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        assert relay.counters.clients_idle == 1
        writer.close()

    run(crowd, max_clients=1)
    run(idle, idle_s=0.02)
