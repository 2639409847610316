"""Virtual networks of five nodes, and who plays which role in them."""

import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from bench.lab import Lab, LabError, wait_for
from bench.world import Service, World, by_family, ours, reference
from tests.system.raw import echo

NAMES = ("a", "b", "c", "d", "e")
ROLES = ("root", *NAMES)
MIXTURES = ("root", "a,c", "b,d,e", "a,b,c,d,e", "root,a,b,c,d", "root,a,c,d,e", "root,b,c,d,e",
            "root,a,b,c,d,e")  # fmt: skip
"""Roles that the original plays: the controller alone, each node of a test at least once with and
without originals around it, everybody (what it does with its own kind)."""

needs_reference = pytest.mark.skipif(
    not os.environ.get("ZT_REFERENCE"),
    reason="the original's side needs ZT_REFERENCE=<folder with zerotier-one>",
)

PATIENCE_S, ORIGINALS_PATIENCE_S = 30.0, 130.0
"""How long it may take until two nodes hear each other's multicasts. The original looks for
listeners of a group, and announces all of its own, once a minute each."""
QUIET_S = 3.0
"""Who is not heard for so long, at a datagram each 20 ms, is cut off."""


def mixtures() -> list[object]:
    """Parameters of a world: the roles that the original plays. Without it one stands for all."""
    found: list[object] = [pytest.param("", id="ours")]
    if not os.environ.get("ZT_REFERENCE"):
        return [*found, pytest.param("root", marks=needs_reference, id="original")]
    return [*found, *(pytest.param(roles, id=roles.replace(",", "+")) for roles in MIXTURES)]


@contextmanager
def running_world(originals: str) -> Iterator[World]:
    """A root with its controller, and five nodes that are up."""
    wanted = {role for role in originals.split(",") if role}
    original = reference() if wanted else None
    with Lab() as lab:
        roles = {
            role: original if original is not None and role in wanted else ours() for role in ROLES
        }
        world = World(lab, roles)
        world.create()
        world.start()
        yield world


class Net:
    """One network that all nodes joined, gone at the end."""

    numbers = itertools.count(1)

    def __init__(self, world: World, bridge: str = "", **fields: object) -> None:
        self.world = world
        names = {service.program.name for service in world.services.values()}
        self.patience_s = ORIGINALS_PATIENCE_S if names != {"ours"} else PATIENCE_S
        self.nodes = dict(zip(NAMES, world.nodes, strict=True))
        self.nwid = world.create_network(next(self.numbers), **fields)
        if bridge:
            self.member(bridge, activeBridge=True)
        world.join(self.nwid)
        world.wait_joined(self.nwid)

    def __getitem__(self, name: str) -> Service:
        return self.nodes[name]

    def __enter__(self) -> "Net":
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes.values():
            node.cli("leave", self.nwid)

    def ip(self, name: str, family: int = 0) -> str:
        """IPv4, RFC 4193 or 6PLANE address of a node."""
        return by_family(self[name].addresses(self.nwid))[family]

    def device(self, name: str) -> str:
        device: str = self[name].network(self.nwid)["portDeviceName"]
        return device

    def mac(self, name: str) -> bytes:
        return bytes.fromhex(self[name].network(self.nwid)["mac"].replace(":", ""))

    def listens(self, name: str, mac: str) -> bool:
        """Whether the node knows that its host listens to a group. The original shows what it knew
        when it was configured last (ch. 06, Q9), so nothing is to be learned from it."""
        if self[name].program.name != "ours":
            return True
        groups = self[name].network(self.nwid)["multicastSubscriptions"]
        return any(group["mac"] == mac for group in groups)

    def set(self, **fields: object) -> None:
        """Changes the network; waits until every node has the new configuration."""
        before = {
            name: node.network(self.nwid)["netconfRevision"] for name, node in self.nodes.items()
        }
        self.world.root.api("POST", f"/controller/network/{self.nwid}", fields)
        for name, node in self.nodes.items():
            wait_for(
                f"{name} to have the changed configuration",
                lambda node=node, name=name: (
                    node.network(self.nwid)["netconfRevision"] > before[name]
                ),
                80.0,
            )

    def member(self, name: str, **fields: object) -> None:
        path = f"/controller/network/{self.nwid}/member/{self[name].address}"
        self.world.root.api("POST", path, fields)

    def ping(self, source: str, target: str, family: int = 0) -> bool:
        """One echo, answered within a second?"""
        return echo(self[source].host, self.ip(target, family))

    def pings(self, source: str, target: str, family: int = 0) -> None:
        wait_for(
            f"{source} to ping {target}", lambda: self.ping(source, target, family), self.patience_s
        )

    @contextmanager
    def connection(self, client: str, server: str) -> Iterator[Callable[[bytes], bool]]:
        """A TCP connection between two nodes; calling it sends a word and tells whether it
        arrived."""
        with ExitStack() as stack:
            address = (self.ip(server), 5201)
            listener = stack.enter_context(self[server].host.inside(socket.create_server, address))
            near = stack.enter_context(
                self[client].host.inside(socket.create_connection, address, 20)
            )
            far = stack.enter_context(listener.accept()[0])
            far.settimeout(20)

            def carries(word: bytes) -> bool:
                near.sendall(word)
                return far.recv(100) == word

            yield carries

    def cut_off(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        act: Callable[[], None],
    ) -> dict[str, float]:
        """Sends datagrams from every source to every target all the time; once all pairs are heard,
        acts. Returns for each pair how many seconds after that it was last heard."""
        pairs = list(itertools.product(sources, targets))
        heard: dict[str, float] = {}
        acted_s = None
        deadline = time.monotonic() + 90.0
        with ExitStack() as stack:
            senders = {
                s: stack.enter_context(self[s].host.inside(socket.socket, type=socket.SOCK_DGRAM))
                for s in sources
            }
            addresses = {t: (self.ip(t), 4000) for t in targets}
            receivers = {
                stack.enter_context(self[t].host.inside(bound, addresses[t])): t for t in targets
            }
            while True:
                for source, target in pairs:
                    senders[source].sendto(source.encode(), addresses[target])
                now_s = time.monotonic()
                while ready := select.select([*receivers], [], [], 0)[0]:
                    for receiver in ready:
                        heard[f"{receiver.recv(10).decode()} > {receivers[receiver]}"] = now_s
                if acted_s is None and len(heard) == len(pairs):
                    acted_s = time.monotonic()
                    act()
                elif acted_s and now_s - max(acted_s, *heard.values()) > QUIET_S:
                    return {pair: max(0.0, last_s - acted_s) for pair, last_s in heard.items()}
                if now_s > deadline:
                    raise LabError(f"not cut off: {heard}, {acted_s}, now {now_s}")
                time.sleep(0.02)


def bound(address: tuple[str, int]) -> socket.socket:
    """A UDP socket at that address."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(address)
    return receiver
