"""The thread at the API's door, alone; with the API behind it: test_service_door.py."""

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from zt._fast.door import KNOWN_LIMIT, KNOWN_SIZE, LEAVING_LIMIT, LIMIT, Caller, Door

FOREVER = 1e9
REQUESTS = 3
ASK = b"a request"


def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.001)
    return found


class Porch:
    """A door with one path and nothing behind it."""

    def __init__(
        self, host: str = "127.0.0.1", *, idle_s: float = 3600.0, requests: int = REQUESTS
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        if family == socket.AF_INET6:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.listener.bind((host, 0))
        self.listener.listen(1000)
        self.listener.setblocking(False)
        self.door = Door(1, idle_s=idle_s, requests=requests)
        self.door.start([self.listener.fileno()])
        self.clients: list[socket.socket] = []

    def __enter__(self) -> "Porch":
        return self

    def __exit__(self, *args: object) -> None:
        self.door.stop()
        for opened in (self.listener, *self.clients):
            opened.close()

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        address = host, self.listener.getsockname()[1]
        client = socket.create_connection(address, timeout=60)
        self.clients.append(client)
        return client

    def know(self, ordinary: bytes = b"ordinary", last: bytes = b"last") -> None:
        self.door.remember(ASK, 0)
        self.door.publish(0, (ordinary, last), FOREVER)

    def settled(self) -> int:
        """Requests answered, and connections that left."""
        counters = self.door.counters()
        return counters["answered"] + counters["left"]

    def callers(self, count: int = 1) -> list[Caller]:
        """That many, whose descriptors are closed at once."""
        found: list[Caller] = []
        while len(found) < count:
            assert select.select([self.door.event_fd], [], [], 60)[0]
            self.door.wanted()
            came = self.door.callers()
            for caller in came:
                socket.close(caller.fd)
            found += came
        return found

    def wanted(self) -> list[int]:
        """What somebody waits for."""
        return eventually(self.door.wanted)  # type: ignore[no-any-return]


def said(client: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (more := client.recv(size - len(found))):
        found += more
    return bytes(found)


def ended(client: socket.socket) -> bool:
    """Waits for the end of a connection; whether nothing came before it."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_door_answers_what_it_knows_and_closes_after_the_last() -> None:
    with Porch() as porch:
        porch.know(b"ordinary", b"the last")
        for _ in range(3):
            client = porch.client()
            for _ in range(REQUESTS - 1):
                client.sendall(ASK)
                assert said(client, 8) == b"ordinary"
            client.sendall(ASK)
            assert said(client, 8) == b"the last"
            assert ended(client)
        assert porch.door.counters() == {"answered": 3 * REQUESTS, "waited": 0, "left": 0}


@pytest.mark.parametrize(
    "data",
    [ASK[:5], ASK + b" ", ASK + ASK, ASK[:-1] + b"T", bytes(2000)],
    ids=["a part", "more", "pipelined", "another", "long"],
)
def test_everything_else_leaves_as_it_came(data: bytes) -> None:
    with Porch() as porch:
        porch.know()
        client = porch.client()
        client.sendall(ASK)
        assert said(client, 8) == b"ordinary"
        client.sendall(data)
        (caller,) = porch.callers()
        assert caller[1:] == (1, data, b"", False)
        assert ended(client)  # its descriptor is ours, and was closed


def test_what_is_remembered_is_bounded() -> None:
    requests = [b"%3d" % number for number in range(3 * KNOWN_LIMIT)]
    with Porch() as porch:
        porch.know()
        for request in (bytes(KNOWN_SIZE + 1), *requests, requests[-1]):
            porch.door.remember(request, 0)
        for number, request in enumerate((*requests, bytes(KNOWN_SIZE + 1)), 1):
            porch.client().sendall(request)
            eventually(lambda n=number: porch.settled() == n)
            if request == requests[-1]:
                assert porch.door.counters()["answered"] in range(1, KNOWN_LIMIT + 1)
        assert porch.callers(number - porch.door.counters()["answered"])[-1].data == request


def test_what_is_remembered_again_replaces_nothing() -> None:
    requests = [b"%3d" % number for number in range(KNOWN_LIMIT)]
    with Porch() as porch:
        porch.know()
        porch.door.remember(requests[0], 0)  # one too many with what `know` says
        for request in requests * 2:
            porch.door.remember(request, 0)
        for request in requests:
            client = porch.client()
            client.sendall(request)
            assert said(client, 8) == b"ordinary"


def test_a_client_waits_until_its_answer_is_made_anew() -> None:
    with Porch() as porch:
        porch.know(b"the old one")
        first, second = porch.client(), porch.client()
        porch.door.forget()
        first.sendall(ASK)
        assert porch.wanted() == [0]
        second.sendall(ASK)
        assert porch.wanted() == [0]
        # Made and old at once: it is what they waited for.
        porch.door.publish(0, (b"new", b"end"), 0.0)
        assert said(first, 3) == said(second, 3) == b"new"
        # Forgotten, published and forgotten again before the thread looks, or after: never old.
        first.sendall(ASK)
        assert porch.wanted() == [0]
        porch.door.publish(0, (b"NEW", b"END"), FOREVER)
        porch.door.forget()
        eventually(lambda: porch.door.wanted() or select.select([first], [], [], 0)[0])
        porch.door.publish(0, (b"NEW", b"END"), FOREVER)
        assert said(first, 3) == b"NEW"


def test_what_a_client_says_while_it_waits_has_time() -> None:
    with Porch() as porch:
        porch.door.remember(ASK, 0)
        client, another = porch.client(), porch.client()
        client.sendall(ASK)
        assert porch.wanted() == [0]
        client.sendall(ASK)
        another.sendall(b"something else")  # heard, and `client` before it, if at all
        porch.callers()
        porch.door.publish(0, (b"ordinary", b"last"), FOREVER)
        assert said(client, 16) == 2 * b"ordinary"


def test_what_cannot_be_made_leaves() -> None:
    with Porch() as porch:
        porch.door.remember(ASK, 0)
        client, another = porch.client(), porch.client()
        client.sendall(ASK)
        assert porch.wanted() == [0]
        porch.door.publish(0, None, FOREVER)
        another.sendall(ASK)
        assert [caller.data for caller in porch.callers(2)] == [ASK, ASK]
        assert porch.door.counters() == {"answered": 0, "waited": 0, "left": 2}


def test_silent_clients_are_closed_and_waiting_ones_are_not() -> None:
    with Porch(idle_s=0.1) as porch:
        porch.know()
        silent, asking, waiting = porch.client(), porch.client(), porch.client()
        asking.sendall(ASK)
        assert said(asking, 8) == b"ordinary"
        assert ended(silent)
        assert ended(asking)
        porch.door.forget()
        waiting = porch.client()
        waiting.sendall(ASK)
        assert porch.wanted() == [0]
        assert ended(porch.client())  # which came later
        porch.door.publish(0, (b"ordinary", b"last"), FOREVER)
        assert said(waiting, 8) == b"ordinary"


def test_who_asks_is_not_silent() -> None:
    with Porch(idle_s=1.0, requests=1 << 30) as porch:
        porch.know()
        asking, silent = porch.client(), porch.client()
        while not select.select([silent], [], [], 0.01)[0]:
            asking.sendall(ASK)
            assert said(asking, 8) == b"ordinary"
        assert ended(silent)
        asking.sendall(ASK)
        assert said(asking, 8) == b"ordinary"


@pytest.mark.parametrize("size", [1, 1 << 24])
def test_an_answer_that_does_not_fit_is_continued_elsewhere(size: int) -> None:
    answers = [random.Random(seed).randbytes(size) for seed in range(2)]
    with Porch() as porch:
        porch.know(*answers)
        for requests in range(1, REQUESTS + 1):
            client = porch.client()
            if requests > 1:  # one byte each, but for the one in question
                porch.door.publish(0, (b"1", b"1"), FOREVER)
                for _ in range(requests - 1):
                    client.sendall(ASK)
                    assert said(client, 1) == b"1"
                porch.door.publish(0, (answers[0], answers[1]), FOREVER)
            client.sendall(ASK)
            answer = answers[requests == REQUESTS]
            if size == 1:
                assert said(client, 1) == answer
                continue
            (caller,) = porch.callers()
            assert caller[1:3] == (requests, b"")
            assert caller.last == (requests == REQUESTS)
            assert 0 < len(caller.rest) < size
            assert said(client, size - len(caller.rest)) + caller.rest == answer


def test_clients_that_go_away_hold_nothing_up() -> None:
    """Without a word, while they wait, and with an answer on its way."""
    with Porch() as porch:
        porch.know()
        for what in (b"", ASK):
            for abort in (False, True):
                client = porch.client()
                porch.door.forget()
                client.sendall(what)
                if what:
                    assert porch.wanted() == [0]
                if abort:
                    no_linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
                client.close()
        porch.know()
        client = porch.client()
        client.sendall(ASK)
        assert said(client, 8) == b"ordinary"


@pytest.mark.usefixtures("many_descriptors")
def test_too_many_wait_outside_and_none_is_lost() -> None:
    """Nobody takes those that leave: the door accepts no more until somebody does."""
    room, more = LIMIT + LEAVING_LIMIT, 30
    with Porch() as porch:
        porch.know()
        for number in range(room + more):
            porch.client().sendall(b"%d" % number)
        eventually(lambda: porch.door.counters()["left"] == room)
        callers = porch.callers(room + more)
        assert sorted(int(c.data) for c in callers) == list(range(room + more))
        late = porch.client()
        late.sendall(ASK)
        assert said(late, 8) == b"ordinary"


@pytest.mark.usefixtures("many_descriptors")
def test_beyond_its_limit_the_door_hands_over_at_once() -> None:
    with Porch() as porch:
        porch.know()
        for _ in range(LIMIT):
            client = porch.client()
            client.sendall(ASK)
            assert said(client, 8) == b"ordinary"
        for _ in range(LEAVING_LIMIT + 1):
            porch.client().sendall(ASK)
            (caller,) = porch.callers()
            assert caller[1:] == (0, b"", b"", False)
        for client in porch.clients[:LIMIT]:
            client.sendall(ASK)
            assert said(client, 8) == b"ordinary"


def own_address() -> str:
    """An address of this host that is not on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has loopback only")
        return str(probe.getsockname()[0])


def test_clients_elsewhere_get_nothing_at_the_door() -> None:
    with Porch("0.0.0.0") as porch:
        porch.know()
        porch.client(own_address()).sendall(ASK)
        (caller,) = porch.callers()
        assert caller[1:] == (0, b"", b"", False)
        assert porch.door.counters()["answered"] == 0


def test_loopback_has_several_addresses() -> None:
    try:
        porch = Porch("::")
    except OSError:
        pytest.skip("this host has no IPv6")
    with porch:
        porch.know()
        for host in ("::1", "127.0.0.1"):  # the latter arrives as ::ffff:127.0.0.1
            client = porch.client(host)
            client.sendall(ASK)
            assert said(client, 8) == b"ordinary"
        porch.client(own_address()).sendall(ASK)
        assert porch.callers()[0].data == b""


def test_stop_closes_what_is_open() -> None:
    with Porch() as porch:
        porch.know()
        here, waiting, leaving = (porch.client() for _ in range(3))
        here.sendall(ASK)
        assert said(here, 8) == b"ordinary"
        porch.door.forget()
        waiting.sendall(ASK)
        assert porch.wanted() == [0]
        leaving.sendall(b"something else")
        eventually(lambda: porch.door.counters()["left"])
        porch.door.stop()
        porch.door.stop()
        assert ended(here)
        assert ended(waiting)
        assert ended(leaving)
        assert porch.door.callers() == []
        with pytest.raises(OSError):
            porch.door.start([porch.listener.fileno()])


def test_paths_are_checked() -> None:
    with pytest.raises(ValueError):
        Door(1000, idle_s=1, requests=1)
    door = Door(1, idle_s=1, requests=1)
    for path in (-1, 1):
        with pytest.raises(ValueError):
            door.remember(ASK, path)
        with pytest.raises(ValueError):
            door.publish(path, None, 0)


def test_a_crowd_and_constant_change() -> None:
    """Clients that ask, say something else, go away; answers that are published and forgotten."""
    stop = threading.Event()
    counts = [0] * 3

    def ask(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            address = porch.listener.getsockname()
            with (
                socket.create_connection(address, timeout=60) as client,
                contextlib.suppress(ConnectionError),
            ):
                for _ in range(chance.randrange(REQUESTS + 1)):
                    client.sendall(chance.choice([ASK, ASK, ASK, b"what else"]))
                    if chance.random() < 0.1:
                        break
                    answer = client.recv(64)
                    assert answer in (b"", b"ordinary", b"last")
                    counts[number] += bool(answer)

    with Porch() as porch, ThreadPoolExecutor(len(counts)) as pool:
        porch.door.remember(ASK, 0)
        crowd = [pool.submit(ask, number) for number in range(len(counts))]
        chance = random.Random(99)
        while not all(client.done() for client in crowd):
            select.select([porch.door.event_fd], [], [], 0.001)
            if min(counts) >= 200:
                stop.set()
            if stop.is_set() or (porch.door.wanted() and chance.random() < 0.9):
                porch.door.publish(0, chance.choice([(b"ordinary", b"last"), None]), FOREVER)
            elif chance.random() < 0.5:
                porch.door.forget()
                porch.door.publish(0, (b"ordinary", b"last"), time.monotonic() + 0.001)
            for caller in porch.door.callers():
                socket.close(caller.fd)
        for client in crowd:
            client.result()
