"""The controller at scale: a network of 100,000 members, requests, lists, start-up, allocation.

python -m bench.controller [--postgresql] [--members N] [--requesters N] [--seconds S]

Prints one line per figure with its goal. The process under test is a child, so that its memory and
processor time are its own; requests reach it without a network, as the node's actions would.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from zt.controller import Controller, open_store
from zt.controller.addresses import AddressBook, choose4, pool
from zt.controller.api import routes
from zt.controller.documents import default_member, default_network
from zt.controller.files import import_objects
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import RequestMetadata

METADATA = RequestMetadata.own("linux/x86_64").encode()
NUMBER = 1


class CountingLink:
    """A `MemberLink` that counts answers."""

    def __init__(self) -> None:
        self.answers = 0
        self.bytes = 0
        self.wanted = 0
        self.done = asyncio.Event()

    def _count(self, size: int) -> None:
        self.answers += 1
        self.bytes += size
        if self.answers >= self.wanted:
            self.done.set()

    def send_config(self, member: Any, nwid: Any, chunks: Any, request_id: Any) -> None:
        self._count(sum(map(len, chunks)))

    def send_config_error(self, member: Any, nwid: Any, request_id: Any, *error: Any) -> None:
        self._count(0)

    def send_revocation(self, member: Any, nwid: Any, revocations: Any) -> None:
        pass


class Clock:
    """Milliseconds that the benchmark moves, so that no request is refused as too early."""

    def __init__(self) -> None:
        self.now = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now


def member_identity(number: int) -> Identity:
    return Identity(Address(0x1000000000 + number), number.to_bytes(64))


def identity() -> Identity:
    """Any secret key: nobody checks the proof of work of the controller's own identity here."""
    generator = random.Random(7)
    from zt.protocol.keys import public_of

    private = generator.randbytes(64)
    return Identity(Address(0x7700000001), public_of(private), private)


def memory_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def report(what: str, value: float, unit: str, goal: str = "") -> None:
    note = f"   (goal: {goal})" if goal else ""
    print(f"{what:<58} {value:>10.3f} {unit}{note}", flush=True)
    RESULTS[what] = (round(value, 3), unit)


RESULTS: dict[str, tuple[float, str]] = {}


async def fill(location: str, home: Path, members: int) -> None:
    """One network on a /8, every member authorized and with an address."""
    signer = identity()
    store = open_store(location, home, str(signer.address))
    await store.open()
    nwid = NetworkId(signer.address << 24 | NUMBER)
    now_ms = time.time_ns() // 1_000_000
    network = default_network(nwid, now_ms) | {
        "routes": [{"target": "10.0.0.0/8", "via": None}],
        "ipAssignmentPools": [{"ipRangeStart": "10.0.0.1", "ipRangeEnd": "10.255.255.254"}],
        "v4AssignMode": {"zt": True},
        "revision": 1,
    }

    def objects() -> Any:
        yield (str(nwid), ""), network
        for number in range(members):
            holder = member_identity(number)
            yield (
                (str(nwid), str(holder.address)),
                default_member(nwid, holder.address, now_ms)
                | {
                    "authorized": True,
                    "identity": holder.to_text(),
                    "name": f"member {number}",
                    "ipAssignments": [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"],
                    "revision": 2,
                    "vMajor": 1,
                    "vMinor": 14,
                    "vRev": 1,
                    "vProto": 12,
                },
            )

    await import_objects(store, objects(), now_ms)
    await store.close()


async def measure(location: str, home: Path, members: int, requesters: int, seconds: float) -> None:
    link, clock = CountingLink(), Clock()
    signer = identity()
    store = open_store(location, home, str(signer.address))
    store.folder = None
    before = memory_mib()
    started = time.perf_counter()
    controller = Controller(signer, store, link, now_ms=clock)
    await controller.start()
    report(f"start-up, {members} members", time.perf_counter() - started, "s", "< 10 s")
    report("memory of the objects", memory_mib() - before, "MiB")
    nwid = NetworkId(signer.address << 24 | NUMBER)
    await pages(controller, nwid)
    await polls(controller, link, clock, nwid, requesters, seconds)
    await joins(controller, link, clock, nwid, requesters)
    await writes(controller, nwid)
    report("memory at the end", memory_mib(), "MiB")
    await controller.stop()


async def pages(controller: Controller, nwid: NetworkId) -> None:
    app = Starlette(routes=routes(controller))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://c") as http:
        base = f"/controller/v5/network/{nwid}/member"
        middle = sorted(controller.network(nwid).members)[
            len(controller.network(nwid).members) // 2
        ]
        for what, path, goal in (
            ("list page of 100 members", f"{base}?limit=100&after={middle}", "< 50 ms"),
            ("list page of 1000 members", f"{base}?limit=1000", "< 50 ms"),
            ("list page, searched, one match at the end", f"{base}?search=member+99999", "< 50 ms"),
            ("list page, online members, none", f"{base}?online=true", "< 50 ms"),
            ("classic list of all IDs and revisions", f"/controller/network/{nwid}/member", ""),
            ("classic list of all members", f"/unstable/controller/network/{nwid}/member", ""),
        ):
            await http.get(path)
            times = []
            for _ in range(5):
                started = time.perf_counter()
                answer = await http.get(path)
                times.append(time.perf_counter() - started)
                assert answer.status_code == 200
            report(what, sorted(times)[2] * 1000, "ms", goal)


async def polls(
    controller: Controller,
    link: CountingLink,
    clock: Clock,
    nwid: NetworkId,
    requesters: int,
    seconds: float,
) -> None:
    """Members that poll: nothing changes, everything is signed anew."""
    nodes = [member_identity(number) for number in range(requesters)]
    await flood(controller, link, clock, nwid, nodes[:1000])
    cpu = time.process_time()
    started = time.perf_counter()
    done = 0
    while time.perf_counter() - started < seconds:
        await flood(controller, link, clock, nwid, nodes)
        done += len(nodes)
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    report(f"config requests of {requesters} members", done / elapsed, "per s", ">= 1000 per s")
    report("processor time of a config request", used / done * 1000, "ms", "< 5 ms")


async def flood(
    controller: Controller, link: CountingLink, clock: Clock, nwid: NetworkId, nodes: list[Identity]
) -> None:
    """A request of each node, a hundred at a time, until all are answered."""
    clock.now += 2000
    at_once = 200
    for at in range(0, len(nodes), at_once):
        portion = nodes[at : at + at_once]
        link.wanted = link.answers + len(portion)
        link.done.clear()
        for number, node in enumerate(portion):
            controller.request(nwid, node, METADATA, None, number + 1)
        await link.done.wait()


async def joins(
    controller: Controller, link: CountingLink, clock: Clock, nwid: NetworkId, requesters: int
) -> None:
    """New members of a public network: each is stored, with an address, before it is answered."""
    await controller.put_network(nwid, {"private": False})
    await asyncio.sleep(0.1)
    nodes = [member_identity(10_000_000 + number) for number in range(requesters)]
    started = time.perf_counter()
    await flood(controller, link, clock, nwid, nodes)
    report("first joins, stored durably", len(nodes) / (time.perf_counter() - started), "per s")


async def writes(controller: Controller, nwid: NetworkId) -> None:
    addresses = list(controller.network(nwid).members)[:10_000]
    started = time.perf_counter()
    for at in range(0, len(addresses), 500):
        await asyncio.gather(
            *(
                controller.put_member(nwid, address, {"name": "renamed"})
                for address in addresses[at : at + 500]
            )
        )
    report(
        "member changes, 500 under way", len(addresses) / (time.perf_counter() - started), "per s"
    )


def allocation() -> None:
    """Addresses out of a /8, empty and nearly full."""
    whole = [pool(0x0A000001, 0x0AFFFFFE, [(0x0A000000, 0x0AFFFFFF)])]
    generator = random.Random(3)

    def choose(book: AddressBook) -> float:
        started = time.perf_counter()
        for number in range(20_000):
            ip = choose4(whole, book, generator.getrandbits(40))
            assert ip is not None
            book.claim(ip, number)
        return (time.perf_counter() - started) / 20_000 * 1e6

    report("address from an empty /8", choose(AddressBook()), "us")
    book = AddressBook()
    # All but every 500th address: the runs, without 16 million entries of who has them.
    free = 0
    for first in range(0, 0x1000000, 500):
        book._taken4.add_run(_rank(0x0A000000 + first), _rank(0x0A000000 + first + 498))
        free += 1
    report(f"address from a /8 with {free} free", choose(book), "us")


def _rank(address: int) -> int:
    return (address >> 8) * 255 + min(address & 0xFF, 254)


def child(work: Callable[..., Any], *arguments: Any) -> None:
    """Runs a coroutine function in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(work, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def _run(work: Callable[..., Any], *arguments: Any) -> None:
    try:
        import uvloop

        uvloop.run(work(*arguments))
    except ImportError:
        asyncio.run(work(*arguments))
    if RESULTS:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report("peak memory", peak, "MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--requesters", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--postgresql", action="store_true", help="on a server of its own")
    options = parser.parse_args()
    numbers = (options.members, options.requesters, options.seconds)
    with tempfile.TemporaryDirectory(prefix="controller-bench-") as home:
        if options.postgresql:
            from tests.system.postgresql import Cluster

            cluster = Cluster()
            try:
                suite(cluster.database(), Path(home), *numbers)
            finally:
                cluster.remove()
        else:
            suite("", Path(home), *numbers)
    allocation()


def suite(location: str, home: Path, members: int, requesters: int, seconds: float) -> None:
    kind = "PostgreSQL" if location else "SQLite"
    print(f"controller on {kind}, {members} members, {os.cpu_count()} processors")
    started = time.perf_counter()
    child(fill, location, home, members)
    print(f"filled in {time.perf_counter() - started:.1f} s")
    child(measure, location, home, members, requesters, seconds)


if __name__ == "__main__":
    main()
