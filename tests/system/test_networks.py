"""Virtual networks of five nodes: isolation, observers, revocation, multicast, bridges, MTU.

One world for all tests, each with a network of its own on it.
"""

import contextlib
import itertools
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial

import pytest

from bench.lab import Host, Lab, ip, wait_for
from bench.traffic import checksum
from bench.world import Service, World, by_family, ours

pytestmark = pytest.mark.system

NAMES = ("a", "b", "c", "d", "e")
ETH_P_ALL = 3
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2
ACCEPT = {"type": "ACTION_ACCEPT"}
DROP = {"type": "ACTION_DROP"}
MDNS = ("224.0.0.251", 5353)
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab() as lab:
        world = World(lab, dict.fromkeys(("root", *NAMES), ours()))
        world.create()
        world.start()
        yield world


class Net:
    """One network that all nodes joined, gone at the end."""

    def __init__(self, world: World, bridge: str = "", **fields: object) -> None:
        self.world = world
        self.nodes = dict(zip(NAMES, world.nodes, strict=True))
        self.nwid = world.create_network(next(numbers), **fields)
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
        """Whether the node knows that its host listens to a group."""
        groups = self[name].network(self.nwid)["multicastSubscriptions"]
        return any(group["mac"] == mac for group in groups)

    def set(self, **fields: object) -> None:
        """Changes the network; waits until every node has the new configuration."""
        before = {
            name: node.network(self.nwid)["netconfRevision"] for name, node in self.nodes.items()
        }
        self.world.root.api("POST", f"/controller/network/{self.nwid}", fields)
        self._wait_revisions(before)

    def member(self, name: str, **fields: object) -> None:
        path = f"/controller/network/{self.nwid}/member/{self[name].address}"
        self.world.root.api("POST", path, fields)

    def _wait_revisions(self, before: dict[str, int]) -> None:
        for name, node in self.nodes.items():
            wait_for(
                f"{name} to have the changed configuration",
                lambda node=node, name=name: (
                    node.network(self.nwid)["netconfRevision"] > before[name]
                ),
                80.0,
            )

    def ping(self, source: str, target: str, family: int = 0) -> bool:
        """One echo, answered within a second?"""
        return echo(self[source].host, self.ip(target, family))

    def pings(self, source: str, target: str, family: int = 0) -> None:
        wait_for(f"{source} to ping {target}", lambda: self.ping(source, target, family))


def echo(host: Host, address: str, size: int = 16) -> bool:
    """Whether an ICMP echo of that many bytes behind its IP header, which must not be fragmented,
    is answered within a second."""

    def ask() -> bool:
        family, protocol, request, answer, start = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, 0)
            if ":" in address
            else (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, 20)
        )
        token = os.urandom(8)
        packet = bytes([request, 0, 0, 0, 0, 1, 0, 1]) + token + bytes(size - 16)
        packet = packet[:2] + checksum(packet).to_bytes(2) + packet[4:]
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            if family == socket.AF_INET:
                raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            raw.connect((address, 0))
            raw.send(packet)
            deadline = time.monotonic() + 1.0
            while (left := deadline - time.monotonic()) > 0:
                if select.select([raw], [], [], left)[0]:
                    data = raw.recv(65536)[start:]
                    if data[:1] == bytes([answer]) and data[8:16] == token:
                        return True
        return False

    try:
        return host.inside(ask)
    except OSError:
        return False  # no route, or too large


@contextlib.contextmanager
def capture(host: Host, device: str) -> Iterator[socket.socket]:
    """A socket that sees every frame that comes out of a device."""

    def open_socket() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.bind((device, ETH_P_ALL))
        return raw

    with host.inside(open_socket) as raw:
        yield raw


def arrives(raw: socket.socket, mark: bytes, timeout_s: float = 3.0) -> bool:
    """Whether a frame with these bytes comes within the time."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([raw], [], [], left)[0] and mark in raw.recv(65536):
            return True
    return False


def hears(receiver: socket.socket, text: bytes) -> bool:
    """Whether this datagram comes within a second."""
    deadline = time.monotonic() + 1.0
    while (left := deadline - time.monotonic()) > 0:
        if select.select([receiver], [], [], left)[0] and receiver.recv(1000) == text:
            return True
    return False


def udp(host: Host, target: str, text: bytes, port: int = 4000) -> None:
    def send() -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(text, (target, port))

    host.inside(send)


def frame(host: Host, device: str, data: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((device, 0))
            raw.send(data)

    host.inside(send)


def test_every_pair_over_every_family(world: World) -> None:
    with Net(world) as net:
        for source, target in itertools.permutations(NAMES, 2):
            net.pings(source, target, family=0)
        for source, target in (("a", "b"), ("c", "e"), ("e", "a")):
            net.pings(source, target, family=1)
            net.pings(source, target, family=2)


def test_multicast_reaches_every_listener(world: World) -> None:
    """As mDNS does it: five programs on one group."""

    def listen(address: str) -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind((MDNS[0], MDNS[1]))
        group = socket.inet_aton(MDNS[0]) + socket.inet_aton(address)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        return receiver

    def say(address: str, text: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            interface = socket.inet_aton(address)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sender.sendto(text, MDNS)

    with Net(world) as net, contextlib.ExitStack() as stack:
        listeners = {
            name: stack.enter_context(net[name].host.inside(listen, net.ip(name))) for name in NAMES
        }

        # Who speaks before all have announced themselves asks for them again a minute later.
        for name in NAMES:
            wait_for(f"{name} to listen", partial(net.listens, name, "01:00:5e:00:00:fb"))

        def heard_by_all(speaker: str) -> bool:
            text = f"I am {speaker}, {time.monotonic()}".encode()
            net[speaker].host.inside(say, net.ip(speaker), text)
            return all(hears(listeners[name], text) for name in NAMES if name != speaker)

        for speaker in ("a", "d"):
            wait_for(f"all to hear {speaker}", partial(heard_by_all, speaker))


def test_tags_and_capabilities_isolate(world: World) -> None:
    """Members talk if they have the same tag, and a capability opens everything to one of them."""
    same = {"type": "MATCH_TAGS_DIFFERENCE", "id": 1, "value": 0}
    arp = {"type": "MATCH_ETHERTYPE", "etherType": 0x0806}
    fields = {
        "rules": [arp, ACCEPT, same, ACCEPT, {"type": "ACTION_BREAK"}],
        "tags": [{"id": 1, "default": 0}],
        "capabilities": [{"id": 7, "default": False, "rules": [ACCEPT]}],
    }
    with Net(world, **fields) as net:
        for name, value in (("a", 10), ("b", 10), ("c", 20), ("d", 20)):
            net.member(name, tags=[[1, value]])
        net.pings("a", "b")
        net.pings("c", "d")
        for source, target in (("a", "c"), ("b", "d"), ("e", "a")):
            assert not net.ping(source, target)
        for name in ("a", "e"):
            net.member(name, capabilities=[7])
        net.pings("a", "e")
        assert not net.ping("b", "e")


def test_observer_sees_copies_and_diversions(world: World) -> None:
    with Net(world) as net:
        net.pings("a", "b")
        observer = net["e"].address
        watched = [{"type": "MATCH_IP_PROTOCOL", "ipProtocol": 17}]
        for action, arrives_too in (("ACTION_TEE", True), ("ACTION_REDIRECT", False)):
            copy = {"type": action, "address": observer, "flags": 0, "length": 0}
            net.set(rules=[*watched, copy, ACCEPT])
            with (
                capture(net["e"].host, net.device("e")) as seen,
                capture(net["b"].host, net.device("b")) as got,
            ):
                text = f"for b, {action}".encode()

                def both(text: bytes = text, expected: bool = arrives_too) -> bool:
                    udp(net["a"].host, net.ip("b"), text)
                    return arrives(seen, text, 1.0) and arrives(got, text, 1.0) == expected

                wait_for(f"{action} to work", both)


def test_a_revoked_member_is_cut_off_and_others_stay_connected(world: World) -> None:
    with Net(world) as net:
        for name in ("b", "c", "d", "e"):
            net.pings("a", name)
        net.pings("b", "c")

        def serve(address: str) -> socket.socket:
            return socket.create_server((address, 5201))

        with (
            net["c"].host.inside(serve, net.ip("c")) as server,
            net["b"].host.inside(socket.create_connection, (net.ip("c"), 5201), 10) as client,
        ):
            connection, _ = server.accept()
            with connection:
                lost = net.ip("a")
                net.member("a", authorized=False)
                for name in ("b", "c", "d", "e"):
                    host = net[name].host
                    wait_for(f"{name} to lose a", lambda host=host: not echo(host, lost))
                for word in (b"still", b"here"):
                    client.sendall(word)
                    assert connection.recv(100) == word
        assert not net.ping("a", "e")
        net.pings("d", "e")


def test_lan_behind_a_bridge(world: World) -> None:
    """A host that knows nothing of the network, behind a node that bridges: both directions,
    broadcasts included."""
    with Net(world, bridge="b") as net:
        node = net["b"].host
        device = net.device("b")
        lan = Host(world.lab, "lan", 200)
        world.lab.hosts["lan"] = lan
        ip("netns", "add", lan.namespace)
        try:
            ip("-n", node.namespace, "link", "add", "lan0", "type", "veth",
               "peer", "name", "eth0", "netns", lan.namespace)  # fmt: skip
            ip("-n", node.namespace, "-batch", "-", batch=(
                "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                f"link set lan0 master br0 up\nlink set {device} master br0 up\nlink set br0 up\n"
            ))  # fmt: skip
            ip("-n", lan.namespace, "-batch", "-", batch=(
                "link set lo up\naddr add 10.66.0.250/24 dev eth0\nlink set eth0 up\n"
            ))  # fmt: skip
            wait_for("the LAN to reach a", lambda: echo(lan, net.ip("a")))
            for name in ("a", "c"):
                host = net[name].host
                wait_for(f"{name} to reach the LAN", lambda host=host: echo(host, "10.66.0.250"))
            # what DHCP needs: a broadcast from an unknown host, and the answer to its MAC
            with capture(net["d"].host, net.device("d")) as seen, capture(lan, "eth0") as at_lan:
                mac = bytes.fromhex("021122334455")
                discover = b"\xff" * 6 + mac + b"\x88\xb5" + b"discover" + bytes(40)
                offer = mac + net.mac("d") + b"\x88\xb5" + b"offer" + bytes(40)

                def exchange() -> bool:
                    frame(lan, "eth0", discover)
                    if not arrives(seen, b"discover", 1.0):
                        return False
                    frame(net["d"].host, net.device("d"), offer)
                    return arrives(at_lan, b"offer", 1.0)

                wait_for("a lease", exchange)
        finally:
            subprocess.run(["ip", "-n", node.namespace, "link", "delete", "br0"], check=False)
            subprocess.run(["ip", "-n", node.namespace, "link", "delete", "lan0"], check=False)


def test_mtu_changes_live(world: World) -> None:
    with Net(world) as net:
        net.pings("a", "b")
        net.set(mtu=1400)

        def mtus() -> bool:
            links = [net[n].host.run(["cat", f"/sys/class/net/{net.device(n)}/mtu"]) for n in NAMES]
            return {link.stdout.strip() for link in links} == {"1400"}

        wait_for("the devices to have the new MTU", mtus)
        net.pings("a", "b")
        assert not echo(net["a"].host, net.ip("b"), 1400 - 20 + 2)
        assert echo(net["a"].host, net.ip("b"), 1400 - 20)
