"""What the kernel tells about changes, in a namespace of its own."""

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest

from bench.lab import Host, Lab, ip
from zt.service.netwatch import MULTICAST, NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, NetWatch

pytestmark = pytest.mark.system


def noticed(host: Host, act: Callable[[], object]) -> str:
    """What a watch on that host tells of what is done there."""

    async def main() -> str:
        told: asyncio.Queue[str] = asyncio.Queue()
        watch = NetWatch(lambda: told.put_nowait("host"), lambda: told.put_nowait("groups"))
        try:
            act()
            return await asyncio.wait_for(told.get(), 20)
        finally:
            watch.close()

    return host.inside(asyncio.run, main())


def knows_groups() -> bool:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as probe:
        try:
            for group in MULTICAST:
                probe.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            return False
    return True


def test_addresses(lab: Lab) -> None:
    host = lab.host("a")
    words = ("-n", host.namespace, "addr", "add", "10.9.9.9/24", "dev", "eth0")
    assert noticed(host, lambda: ip(*words)) == "host"


@pytest.mark.skipif(not knows_groups(), reason="Linux before 6.14 tells nothing of groups")
def test_multicast_groups(lab: Lab) -> None:
    """A program that begins to listen need not wait for the next scan."""
    host = lab.host("a")
    with (
        host.inside(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as v4,
        host.inside(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as v6,
    ):
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton(host.address)
        listen = partial(v4.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        assert noticed(host, listen) == "groups"
        index = host.inside(socket.if_nametoindex, "eth0")
        six = socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("I", index)
        listen = partial(v6.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, six)
        assert noticed(host, listen) == "groups"
