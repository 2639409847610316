"""Port mapping: messages, the policy by a hand-driven clock, and fake routers on loopback."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.portmap_support import (
    EXTERNAL,
    NONCE,
    OURS,
    PORT,
    FakeGateway,
    FakeIgd,
    Mapped,
    nat_pmp_answer,
    pcp_answer,
)
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.service.netlink import Gateway
from zt.service.portmap import messages as m
from zt.service.portmap.gateway import GatewayLink
from zt.service.portmap.messages import Mapping, Refusal
from zt.service.portmap.policy import (
    AskAddress,
    Discover,
    FindGateway,
    Map,
    Method,
    Policy,
    Sleep,
)
from zt.service.portmap.upnp import UpnpClient

# --- messages ------------------------------------------------------------------------------------


def test_requests_as_the_rfcs_draw_them() -> None:
    assert m.nat_pmp_address() == b"\0\0"
    assert m.nat_pmp_map(PORT, 40000, 600) == bytes.fromhex("00010000 a112 9c40 00000258")
    pcp = m.pcp_map(b"\x0a\0\0\2", NONCE, PORT, 40000, 600)
    assert pcp.hex() == (
        "02010000" "00000258" "00000000000000000000ffff0a000002"
        + NONCE.hex()
        + "11000000" "a1129c40" "00000000000000000000ffff00000000"
    )  # fmt: skip


def test_answers() -> None:
    assert m.read_nat_pmp_address(nat_pmp_answer(0, EXTERNAL)) == EXTERNAL
    granted = nat_pmp_answer(1, struct.pack(">HHI", PORT, 40000, 120))
    assert m.read_nat_pmp_map(granted, PORT) == Mapping(InetAddress(b"", 40000), 120)
    assert m.read_pcp_map(pcp_answer(), NONCE, PORT) == Mapping(InetAddress(EXTERNAL, 40000), 600)


@pytest.mark.parametrize(
    ("result", "refusal"),
    [(1, Refusal.UNSUPPORTED_VERSION), (2, Refusal.OTHER), (4, Refusal.EXHAUSTED)],
)
def test_nat_pmp_refusals_need_no_body(result: int, refusal: Refusal) -> None:
    assert m.read_nat_pmp_address(nat_pmp_answer(0, b"", result)) is refusal
    assert m.read_nat_pmp_map(nat_pmp_answer(1, b"", result), PORT) is refusal


@pytest.mark.parametrize(("result", "refusal"), [(2, Refusal.OTHER), (8, Refusal.EXHAUSTED)])
def test_pcp_refusals(result: int, refusal: Refusal) -> None:
    assert m.read_pcp_map(pcp_answer(result=result), NONCE, PORT) is refusal


def test_the_other_protocol_is_named_either_way() -> None:
    pcp_only = struct.pack(">BBBBII12x", 2, 0x80, 0, 1, 0, 7)
    assert m.read_nat_pmp_address(pcp_only) is Refusal.UNSUPPORTED_VERSION
    nat_pmp_only = nat_pmp_answer(1, b"", 1)
    assert m.read_pcp_map(nat_pmp_only, NONCE, PORT) is Refusal.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "data",
    [
        nat_pmp_answer(1, struct.pack(">HHI", PORT + 1, 40000, 120)),
        nat_pmp_answer(1, struct.pack(">HHI", PORT, 0, 120)),
        nat_pmp_answer(1, struct.pack(">HHI", PORT, 40000, 120) + b"\0"),
        nat_pmp_answer(0, struct.pack(">HHI", PORT, 40000, 120)),
        m.nat_pmp_map(PORT, 40000, 600),
    ],
)
def test_not_a_nat_pmp_mapping_of_ours(data: bytes) -> None:
    with pytest.raises(DecodeError):
        m.read_nat_pmp_map(data, PORT)


@pytest.mark.parametrize(
    "data",
    [
        pcp_answer(nonce=bytes(12)),
        pcp_answer(internal=PORT + 1),
        pcp_answer(external=0),
        pcp_answer(ip=b"\x20\x01" + bytes(14)),
        pcp_answer() + b"\0",
        pcp_answer() + bytes(1100),
        m.pcp_map(b"\x0a\0\0\2", NONCE, PORT, 40000, 600),
    ],
)
def test_not_a_pcp_mapping_of_ours(data: bytes) -> None:
    with pytest.raises(DecodeError):
        m.read_pcp_map(data, NONCE, PORT)


READERS: list[Callable[[bytes], object]] = [
    m.read_nat_pmp_address,
    lambda data: m.read_nat_pmp_map(data, PORT),
    lambda data: m.read_pcp_map(data, NONCE, PORT),
]


@given(st.sampled_from(READERS), st.data())
def test_any_bytes_raise_only_the_documented_error(
    read: Callable[[bytes], object], data: st.DataObject
) -> None:
    good = data.draw(
        st.sampled_from([nat_pmp_answer(0, EXTERNAL), nat_pmp_answer(1, bytes(8)), pcp_answer()])
    )
    mutated = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)))):
        if at < len(mutated):
            mutated[at] = byte
    try:
        answer = read(bytes(mutated))
    except DecodeError as wrong:
        assert str(wrong)
    else:
        assert isinstance(answer, bytes | Mapping | Refusal)


# --- the policy ----------------------------------------------------------------------------------


class Driven:
    """A policy and the time; `answer` reports the outcome of the step that must be due."""

    def __init__(self) -> None:
        self.policy = Policy(PORT)
        self.now_ms = 1_000_000

    def answer(self, step: object, outcome: Any) -> None:
        assert self.policy.step == step
        self.policy.done(outcome, self.now_ms)

    def sleep(self) -> int:
        """Sleeps for as long as the policy wants; milliseconds."""
        step = self.policy.step
        assert isinstance(step, Sleep)
        slept = step.until_ms - self.now_ms
        self.policy.done(None, step.until_ms - 1)
        assert self.policy.step is step, "woken early, it goes on sleeping"
        self.now_ms = step.until_ms
        self.policy.done(None, self.now_ms)
        return slept


def mapping(port: int, lifetime_s: int = 600, ip: bytes = b"") -> Mapping:
    return Mapping(InetAddress(ip, port), lifetime_s)


def test_nat_pmp_then_renewal_of_the_port_we_have() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    d.answer(Map(Method.NAT_PMP, PORT), mapping(50000))
    assert d.policy.external == InetAddress(EXTERNAL, 50000)
    assert d.policy.method is Method.NAT_PMP
    assert d.sleep() == 300_000
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    d.answer(Map(Method.NAT_PMP, 50000), mapping(50000))
    assert d.policy.external == InetAddress(EXTERNAL, 50000)


def test_a_gateway_that_speaks_pcp_only() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), Refusal.UNSUPPORTED_VERSION)
    d.answer(Map(Method.PCP, PORT), mapping(50000, ip=EXTERNAL))
    assert d.policy.external == InetAddress(EXTERNAL, 50000)


@pytest.mark.parametrize("outcome", [None, Refusal.OTHER, bytes(4), b"\x7f\0\0\1"])
def test_upnp_at_once_when_nat_pmp_fails(outcome: Any) -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), outcome)
    d.answer(Discover(), EXTERNAL)
    d.answer(Map(Method.UPNP, PORT), mapping(PORT))
    assert d.policy.external == InetAddress(EXTERNAL, PORT)
    d.sleep()
    d.answer(FindGateway(), True)  # the same mode again
    assert d.policy.step == Discover()


def test_no_gateway_is_tried_again_with_doubling_pauses() -> None:
    d = Driven()
    pauses = []
    for _ in range(9):
        d.answer(FindGateway(), False)
        assert d.policy.problem
        pauses.append(d.sleep())
    assert pauses == [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]


def test_sixty_ports_of_nat_pmp() -> None:
    d = Driven()
    d.policy.port = 65500
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    asked = []
    while isinstance(d.policy.step, Map):
        asked.append(d.policy.step.port)
        d.policy.done(Refusal.EXHAUSTED, d.now_ms)
    assert asked == [*range(65500, 65536), *range(1025, 1025 + 24)]
    assert d.policy.step == Discover()


def test_sixty_ports_of_upnp_a_second_apart_then_nat_pmp_again() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), None)
    d.answer(Discover(), EXTERNAL)
    for port in range(PORT, PORT + 60):
        d.answer(Map(Method.UPNP, port), Refusal.EXHAUSTED)
        d.sleep()
    d.answer(FindGateway(), True)
    assert d.policy.step == AskAddress()
    assert d.policy.problem


def test_a_lost_mapping_is_told_when_everything_failed() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    d.answer(Map(Method.NAT_PMP, PORT), mapping(PORT))
    d.sleep()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), None)
    assert d.policy.external, "there may be another way to keep one"
    d.answer(Discover(), None)
    assert d.policy.external is None
    assert d.sleep() == 500


@pytest.mark.parametrize(
    ("lifetime_s", "renewal_ms"),
    [(0xFFFFFFFF, 300_000), (600, 300_000), (120, 60_000), (1, 30_000)],
)
def test_whatever_lifetime_is_granted_renewal_is_bounded(lifetime_s: int, renewal_ms: int) -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    d.answer(Map(Method.NAT_PMP, PORT), mapping(PORT, lifetime_s))
    assert d.sleep() == renewal_ms


def test_a_mapping_of_no_lifetime_or_address_is_none() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), EXTERNAL)
    d.answer(Map(Method.NAT_PMP, PORT), mapping(PORT, 0))
    assert d.policy.step == Discover()
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), Refusal.UNSUPPORTED_VERSION)
    d.answer(Map(Method.PCP, PORT), mapping(PORT, 600, bytes(4)))
    assert d.policy.step == Discover()


def test_a_changed_network_begins_anew() -> None:
    d = Driven()
    d.answer(FindGateway(), True)
    d.answer(AskAddress(), None)
    d.answer(Discover(), EXTERNAL)
    d.answer(Map(Method.UPNP, PORT), mapping(PORT))
    d.policy.restart()
    d.answer(FindGateway(), True)
    assert d.policy.step == AskAddress()


@given(st.lists(st.sampled_from([None, True, EXTERNAL, *Refusal, mapping(50000), mapping(1, 0)])))
def test_any_outcomes_leave_a_step_and_bounded_pauses(outcomes: list[Any]) -> None:
    policy, now_ms = Policy(PORT), 0
    for outcome in outcomes:
        policy.done(outcome, now_ms)
        if isinstance(policy.step, Sleep):
            assert 0 < policy.step.until_ms - now_ms <= 300_000
            now_ms = policy.step.until_ms
        elif isinstance(policy.step, Map):
            assert 1025 <= policy.step.port <= 65535 or policy.external


# --- a gateway for NAT-PMP and PCP on loopback ---------------------------------------------------

LOOPBACK = Gateway(b"\x7f\0\0\1", "lo")


async def loopback() -> list[Gateway]:
    return [LOOPBACK]


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(body(), 60)

    uvloop.run(limited())


async def listen(gateway: FakeGateway) -> int:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: gateway, local_addr=("127.0.0.1", 0))
    port: int = transport.get_extra_info("sockname")[1]
    return port


@pytest.mark.parametrize("protocol", ["NAT-PMP", "PCP"])
def test_a_mapping_is_obtained_and_taken_back(protocol: str) -> None:
    async def body() -> None:
        gateway = FakeGateway(protocol)
        mapped = Mapped(loopback, await listen(gateway))
        mapped.mapper.start()
        assert await mapped.told.get() == InetAddress(EXTERNAL, PORT + 1)
        assert gateway.mapped == {PORT: PORT + 1}
        assert mapped.mapper.state.as_json() == {
            "port": PORT,
            "method": protocol,
            "gateway": "127.0.0.1",
            "external": f"44.66.9.9/{PORT + 1}",
            "problem": "",
        }
        await mapped.mapper.stop()
        assert gateway.mapped == {}

    run(body)


def test_lost_and_senseless_datagrams_are_survived() -> None:
    noise = (b"", b"\0", bytes(12), nat_pmp_answer(1, b""), nat_pmp_answer(0, b"\1"), bytes(2000))

    async def body() -> None:
        gateway = FakeGateway("NAT-PMP", noise=noise, lose=2)
        link = GatewayLink(LOOPBACK, await listen(gateway))
        assert link.local_ip == LOOPBACK.ip
        assert await link.ask(m.nat_pmp_address(), m.read_nat_pmp_address, 5) == EXTERNAL
        assert len(gateway.asked) == 3, "two were lost"
        assert link.malformed
        link.close()

    run(body)


def test_a_silent_and_an_absent_gateway() -> None:
    async def body() -> None:
        port = await listen(FakeGateway())
        link = GatewayLink(LOOPBACK, port)
        assert await link.ask(m.nat_pmp_address(), m.read_nat_pmp_address, 0.05) is None
        link.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        link = GatewayLink(LOOPBACK, port)
        begun = time.monotonic()
        assert await link.ask(m.nat_pmp_address(), m.read_nat_pmp_address, 10) is None
        assert time.monotonic() - begun < 5, "the ICMP error ends the waiting"
        link.close()

    run(body)


def test_a_changed_network_is_looked_at_at_once() -> None:
    found: list[Gateway] = []

    async def gateways() -> list[Gateway]:
        return found

    async def body() -> None:
        gateway = FakeGateway("NAT-PMP")
        mapped = Mapped(gateways, await listen(gateway))
        mapped.mapper.start()
        while not mapped.mapper.state.problem:  # noqa: ASYNC110 (a state announces nothing)
            await asyncio.sleep(0)
        found.append(LOOPBACK)
        mapped.mapper.network_changed()
        assert await mapped.told.get() == InetAddress(EXTERNAL, PORT + 1)
        await mapped.mapper.stop()

    run(body)


# --- a UPnP gateway device (its discovery by multicast is a system test) -------------------------

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE root [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(12))
    + "]><root><device>&m;</device></root>"
)


@pytest.fixture
def igd() -> Iterator[FakeIgd]:
    device = FakeIgd()
    yield device
    device.close()


def test_a_port_is_mapped_and_taken_back(igd: FakeIgd) -> None:
    async def body() -> None:
        client = UpnpClient()
        assert await client.map(igd.url, PORT, PORT + 1, OURS) is True
        assert igd.mapped == {PORT + 1: ("127.0.0.1", PORT, OURS)}
        await client.unmap(igd.url, PORT + 1, OURS, 5)
        assert igd.mapped == {}
        await client.close()

    run(body)


def test_our_own_mapping_is_kept_and_one_of_an_earlier_address_replaced(igd: FakeIgd) -> None:
    async def body() -> None:
        client = UpnpClient()
        igd.mapped[PORT] = ("127.0.0.1", PORT, OURS)
        assert await client.map(igd.url, PORT, PORT, OURS) is True
        igd.mapped[PORT] = ("127.0.0.9", PORT, OURS)
        assert await client.map(igd.url, PORT, PORT, OURS) is True
        assert igd.mapped[PORT] == ("127.0.0.1", PORT, OURS)
        await client.close()

    run(body)


def test_what_belongs_to_others_stays(igd: FakeIgd) -> None:
    igd.mapped[PORT] = ("127.0.0.9", PORT, "somebody else")

    async def body() -> None:
        client = UpnpClient()
        assert await client.map(igd.url, PORT, PORT, OURS) is False
        assert client.problem
        await client.unmap(igd.url, PORT, OURS, 5)
        assert igd.mapped[PORT] == ("127.0.0.9", PORT, "somebody else")
        await client.close()

    run(body)


def endless() -> Iterator[bytes]:
    yield b"<root>"
    while True:
        yield b"<a>" * 20_000


def dripping(stop: threading.Event) -> Iterator[bytes]:
    while not stop.wait(0.05):
        yield b"<a>"


@pytest.mark.parametrize("kind", ["bomb", "endless", "dripping", "empty"])
def test_hostile_devices_cost_a_bounded_time(igd: FakeIgd, kind: str) -> None:
    bodies: dict[str, Iterator[bytes]] = {
        "bomb": iter((BOMB.encode(),)),
        "endless": endless(),
        "dripping": dripping(igd.cut_off),
        "empty": iter(()),
    }
    igd.hostile = bodies[kind]

    async def body() -> None:
        ticks = 0

        async def count() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        counting = asyncio.create_task(count())
        client = UpnpClient()
        begun = time.monotonic()
        assert not await client.map(igd.url, PORT, PORT, OURS, limit_s=1)
        taken = time.monotonic() - begun
        assert taken < 60
        assert ticks >= int(10 * taken), "the loop goes on meanwhile"
        counting.cancel()
        await client.close()

    run(body)
    if kind == "dripping":
        assert igd.cut_off.wait(60), "the client is gone, and its connection with it"
