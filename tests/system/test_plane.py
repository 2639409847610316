"""Two pumps between real TAP devices: checksummed TCP both ways, and segmented UDP, through every
combination of offloads.

`bench.plane_pair` is the harness: static tables, no control plane. Whole services, and frames of
every shape, are test_frames' and test_demo's. All together move 2 GB; with ZT_LONG=1 every
combination of offloads and cipher suites does."""

import itertools
import os
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from bench import measure
from bench.lab import Host, Lab
from bench.plane_pair import INNER, start_pumps

pytestmark = [pytest.mark.system, pytest.mark.busy]
LONG = bool(os.environ.get("ZT_LONG"))
SIZE = 1_000_000_000 if LONG else 36_000_000  # bytes each way
SUITES = (0, 1, 3)
UDP = ["udp_gso", "udp_gro"]
TAP = ["tap_tso", "join_tcp"]
UDP_SEGMENT = 103  # <linux/udp.h>
SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for all: the pumps are new in each test, the hosts need not be."""
    with Lab() as lab:
        yield lab


def combinations(features: list[str]) -> list[tuple[str, ...]]:
    """Every way to force features off."""
    return [
        off for count in range(len(features) + 1) for off in itertools.combinations(features, count)
    ]


def transfer(lab: Lab, *, suite: int = 3, off: tuple[str, ...] = (), **more: object) -> None:
    pumps = start_pumps(lab, suite=suite, off=list(off), **more)
    a, b = lab.hosts["a"], lab.hosts["b"]
    for source, target, to in ((a, b, "b"), (b, a, "a")):
        done = measure.tcp(
            source, target, INNER[to], size=SIZE, verify=True, timeout_s=120 + SIZE / 5e6
        )
        assert done.intact
    for pump in pumps:
        assert pump.stop() == 0, pump.output()


@pytest.mark.parametrize("suite", SUITES if LONG else [3])
@pytest.mark.parametrize(
    "off", combinations(UDP + TAP), ids=lambda off: "-".join(off) or "everything on"
)
def test_tcp_arrives_intact(lab: Lab, off: tuple[str, ...], suite: int) -> None:
    transfer(lab, off=off, suite=suite)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("mtu", [1500, 2800, 9000])
def test_tcp_arrives_intact_under_every_suite(lab: Lab, suite: int, mtu: int) -> None:
    transfer(lab, suite=suite, mtu=mtu)


@pytest.mark.parametrize("change", [{"without": ["vnet"]}, {"relay": True}], ids=["plain", "relay"])
def test_tcp_arrives_intact_otherwise(lab: Lab, change: dict[str, object]) -> None:
    transfer(lab, **change)


def test_threads_keep_flows_in_order(lab: Lab) -> None:
    transfer(lab, option=["udp_threads=2", "tap_threads=2"])


def segmented(source: Host, target: Host, to: str, seed: int) -> None:
    """Bursts of datagrams, cut by the kernel or by us, arrive as they were, no more, no less."""
    dice = random.Random(seed)
    with (
        source.inside(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender,
        target.inside(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        receiver.bind((to, 0))
        receiver.settimeout(20)
        sender.connect(receiver.getsockname())
        for _ in range(200):
            segment = dice.choice((1, 8, 100, 512, 1372, 1472, 2700))
            data = dice.randbytes(
                min(segment * dice.randint(1, 40) - dice.randrange(segment), 60_000)
            )
            size = struct.pack("=H", segment)
            sender.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, size)])
            expected = [data[at : at + segment] for at in range(0, len(data), segment)]
            assert [receiver.recv(65536) for _ in expected] == expected
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


@pytest.mark.parametrize(
    "off",
    combinations(["udp_gso", "tap_uso", "join_udp"]),
    ids=lambda off: "-".join(off) or "everything on",
)
def test_udp_bursts_arrive_as_they_were(lab: Lab, off: tuple[str, ...]) -> None:
    pumps = start_pumps(lab, off=list(off))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    segmented(lab.hosts["a"], lab.hosts["b"], INNER["b"], seed)
    for pump in pumps:
        assert pump.stop() == 0, pump.output()
