"""Port mapping from behind a router: its discovery, and a mapping by each way that it may offer."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable

import pytest

from bench.lab import Host, Lab, ip, wait_for
from bench.world import Service, ours
from tests.unit.portmap_support import EXTERNAL, OURS, PORT, FakeGateway, FakeIgd, Mapped
from zt.protocol.inet import InetAddress, parse_ip
from zt.service.netlink import Gateway, Netlink
from zt.service.portmap.messages import PORT as SERVER_PORT

pytestmark = pytest.mark.system


def behind_router(lab: Lab) -> tuple[Host, Host]:
    """A host and its default router."""
    inside, router = lab.host("inside"), lab.host("router")
    ip("-n", inside.namespace, "route", "add", "default", "via", router.address)
    return inside, router


def run(host: Host, body: Callable[[Netlink], Awaitable[None]]) -> None:
    """Runs `body` on the host, with its netlink."""

    async def limited() -> None:
        netlink = Netlink()
        try:
            await asyncio.wait_for(body(netlink), 90)
        finally:
            await netlink.close()

    host.inside(asyncio.run, limited())


def test_the_default_routers_best_first(lab: Lab) -> None:
    inside, router = behind_router(lab)
    ip("-n", inside.namespace, *"route add default via 44.66.0.9 dev eth0 metric 50".split())

    async def body(netlink: Netlink) -> None:
        expected = [Gateway(parse_ip(a), "eth0") for a in (router.address, "44.66.0.9")]
        assert await netlink.gateways() == expected

    run(inside, body)


def bound(ip: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((ip, port))
    udp.setblocking(False)
    return udp


def test_nat_pmp_of_the_default_router(lab: Lab) -> None:
    inside, router = behind_router(lab)
    udp = router.inside(bound, router.address, SERVER_PORT)

    async def body(netlink: Netlink) -> None:
        gateway = FakeGateway("NAT-PMP")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: gateway, sock=udp)
        mapped = Mapped(netlink.gateways)
        mapped.mapper.start()
        assert await mapped.told.get() == InetAddress(EXTERNAL, PORT + 1)
        assert mapped.mapper.state.gateway == router.address
        await mapped.mapper.stop()
        assert gateway.mapped == {}
        transport.close()

    run(inside, body)


def test_upnp_of_a_router_that_refuses_nat_pmp(lab: Lab) -> None:
    inside, router = behind_router(lab)
    igd = router.inside(FakeIgd, router.address)
    ssdp = router.inside(igd.open_ssdp)
    igd.mapped[PORT] = ("44.66.0.7", 5000, "somebody else")

    async def body(netlink: Netlink) -> None:
        searched = asyncio.get_running_loop().run_in_executor(None, igd.answer_search, ssdp)
        mapped = Mapped(netlink.gateways)
        mapped.mapper.start()
        assert await mapped.told.get() == InetAddress(EXTERNAL, PORT + 1)
        assert igd.mapped[PORT + 1] == (inside.address, PORT, OURS)
        assert mapped.mapper.state.method == "UPnP"
        await mapped.mapper.stop()
        assert list(igd.mapped) == [PORT]
        await searched

    run(inside, body)
    ssdp.close()
    igd.close()


def test_the_service_maps_its_third_port_and_takes_it_back(lab: Lab) -> None:
    inside, router = behind_router(lab)
    udp = router.inside(bound, router.address, SERVER_PORT)
    gateway = FakeGateway("NAT-PMP")
    loop = asyncio.new_event_loop()
    serving = loop.create_datagram_endpoint(lambda: gateway, sock=udp)
    transport, _ = loop.run_until_complete(serving)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        service = Service(inside, ours(), {"settings": {"tertiaryPort": PORT}})
        service.generate()
        service.start()
        expected = [f"44.66.9.9/{PORT + 1}"]
        wait_for("the mapping", lambda: service.api("GET", "/netcheck")["mapped"] == expected)
        assert gateway.mapped == {PORT: PORT + 1}
        assert service.stop() == 0
        assert gateway.mapped == {}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        transport.close()
        loop.close()
