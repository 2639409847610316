"""Virtual time, links and topology."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Any

from tests.sim.host import Host
from tests.sim.identity import cheap_identity
from tests.sim.nat import Nat, NatKind
from zt.protocol.address import NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.keys import KeyPair
from zt.protocol.world import Root, World, WorldType, make
from zt.vl1.status import Settings

START_MS = 1_700_000_000_000
PORT = 9993
PLANET_ID = 0x5117
LAN = b"\x0a"  # inside of translators is 10/8


@dataclass(slots=True)
class Link:
    """How datagrams fare on the public Internet; all parts are drawn from the seed."""

    delay_ms: int = 10  # one way, at each end
    jitter_ms: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0  # share that is held back by `reorder_ms`
    reorder_ms: int = 30


class Network:
    """Hosts, translators and what lies between them."""

    def __init__(self, seed: int = 0, link: Link | None = None) -> None:
        self.random = Random(seed)
        self.link = link or Link()
        self.now_ms = START_MS
        self.hosts: list[Host] = []
        self.roots: list[Host] = []
        self.networks: set[NetworkId] = set()
        self.signer = KeyPair(self.random.randbytes(64))
        self.planet: World | None = None
        self.datagrams = 0
        self.bytes = 0
        self.trace: Callable[[Host, InetAddress, InetAddress, bytes], None] | None = None
        self._blocked: Callable[[InetAddress, InetAddress], bool] | None = None
        self._public: dict[bytes, Host | Nat] = {}
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._next_ip = 0x1F_00_00_00  # 31.0.0.0

    # Building

    def add_roots(self, count: int = 1, *, ipv6: bool = False) -> list[Host]:
        """The roots of the planet; before any other host. With IPv4, and IPv6 if wanted."""
        identities = sorted(self.identity() for _ in range(count))
        places = [self._new_places(ipv6=ipv6) for _ in identities]
        both = list(zip(identities, places, strict=True))
        self.set_planet([Root(identity.public(), tuple(at)) for identity, at in both])
        for identity, at in both:
            self.roots.append(self._place(Host(self, identity, at)))
        return self.roots

    def set_planet(self, roots: Sequence[Root]) -> World:
        """Signs the next planet."""
        self.planet = make(WorldType.PLANET, PLANET_ID, self.now_ms, roots, self.signer)
        return self.planet

    def add_nat(self, kind: NatKind) -> Nat:
        nat = Nat(kind, self._new_ip(), self.random)
        self._public[nat.ip] = nat
        return nat

    def add_host(
        self,
        nat: Nat | None = None,
        *,
        identity: Identity | None = None,
        ports: Sequence[int] = (PORT,),
        ipv4: bool = True,
        ipv6: bool = False,
        settings: Settings | None = None,
    ) -> Host:
        """A host on the public Internet, or on the LAN of a translator; a socket for each port and
        family."""
        identity = identity or self.identity()
        if nat is None:
            places = self._new_places(ports, ipv4=ipv4, ipv6=ipv6)
            return self._place(Host(self, identity, places, settings=settings))
        number = len(nat.inside) + 2
        ip = bytes((10, 0, number >> 8, number & 0xFF))
        places = [InetAddress(ip, port) for port in ports]
        if ipv6:
            places += self._new_places(ports, ipv4=False, ipv6=True)
        host = nat.inside[ip] = Host(self, identity, places, nat=nat, settings=settings)
        return self._place(host)

    def add_network(self, controller: Host) -> NetworkId:
        """A private network that lets everybody in, and no rules."""
        nwid = NetworkId(controller.address << 24 | len(self.networks) + 1)
        self.networks.add(nwid)
        return nwid

    def identity(self) -> Identity:
        return cheap_identity(self.random.randbytes)

    def move_nat(self, nat: Nat) -> None:
        """The translator gets another external IP and forgets its mappings."""
        del self._public[nat.ip]
        nat.reset(self._new_ip())
        self._public[nat.ip] = nat

    def move_host(self, host: Host) -> None:
        """A host on the public Internet changes its IP: old sockets close, new ones open."""
        for place in host.sockets.values():
            self._public.pop(place.ip, None)
        host.rebind(self._new_places())
        self._place(host)

    def add_address(self, host: Host) -> None:
        """A host on the public Internet gets one more address and keeps the others."""
        host.rebind(self._new_places(), keep=True)
        self._place(host)

    def block(self, blocked: Callable[[InetAddress, InetAddress], bool] | None) -> None:
        """Loses every datagram for whose (source, destination) this is true, until changed."""
        self._blocked = blocked

    def _place(self, host: Host) -> Host:
        """Connects a host, and starts it if it is new."""
        for place in host.sockets.values():
            if place.ip[:1] != LAN:
                self._public[place.ip] = host
        if host not in self.hosts:
            self.hosts.append(host)
            host.start()
        return host

    def _new_places(
        self, ports: Sequence[int] = (PORT,), *, ipv4: bool = True, ipv6: bool = False
    ) -> list[InetAddress]:
        ips = [self._new_ip()] if ipv4 else []
        if ipv6:
            ips.append(bytes.fromhex("2600") + self._new_ip() + bytes(9) + b"\x01")
        return [InetAddress(ip, port) for ip in ips for port in ports]

    def _new_ip(self) -> bytes:
        """Global scope, and each in a /24 of its own, because strangers share limits by /24."""
        self._next_ip += 0x101
        if self._next_ip & 0xFF in (0, 0xFF):
            self._next_ip += 2
        return self._next_ip.to_bytes(4)

    # Running

    def at(self, time_ms: int, call: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heappush(self._queue, (time_ms, self._sequence, call, arguments))

    def run(self, duration_ms: int) -> None:
        """Lets time pass."""
        end_ms = self.now_ms + duration_ms
        queue = self._queue
        while queue and queue[0][0] <= end_ms:
            time_ms, _, call, arguments = heappop(queue)
            self.now_ms = max(self.now_ms, time_ms)
            call(*arguments)
        self.now_ms = end_ms

    def run_until(self, condition: Callable[[], bool], limit_ms: int, step_ms: int = 10) -> int:
        """Runs until the condition holds; the time it took. AssertionError at the limit."""
        start_ms = self.now_ms
        while not condition():
            assert self.now_ms - start_ms < limit_ms, f"not within {limit_ms} ms"
            self.run(step_ms)
        return self.now_ms - start_ms

    # Datagrams

    def send(self, host: Host, source: InetAddress, to: InetAddress, data: bytes, ttl: int) -> None:
        """A datagram leaves a host."""
        self.datagrams += 1
        self.bytes += len(data)
        if self.trace is not None:
            self.trace(host, source, to, data)
        if self._blocked is not None and self._blocked(source, to):
            return
        if host.nat is not None and len(to.ip) == 4:
            if to.ip[:1] == LAN:
                self._local(host.nat, source, to, data)
                return
            source = host.nat.outbound(source, to, self.now_ms)
            if self._blocked is not None and self._blocked(source, to):
                return
        if to.ip[:1] == LAN or (0 < ttl <= 2 and len(to.ip) == 4):
            return
        link, random = self.link, self.random
        if link.loss and random.random() < link.loss:
            return
        for _ in range(2 if link.duplication and random.random() < link.duplication else 1):
            delay_ms = 2 * link.delay_ms
            if link.jitter_ms:
                delay_ms += random.randrange(link.jitter_ms)
            if link.reorder and random.random() < link.reorder:
                delay_ms += link.reorder_ms
            self.at(self.now_ms + delay_ms, self._arrive, source, to, data)

    def _local(self, nat: Nat, source: InetAddress, to: InetAddress, data: bytes) -> None:
        host = nat.inside.get(to.ip)
        if host is not None:
            self.at(self.now_ms + 1, host.receive, to, source, data)

    def _arrive(self, source: InetAddress, to: InetAddress, data: bytes) -> None:
        target = self._public.get(to.ip)
        if isinstance(target, Nat):
            inside = target.inbound(to.port, source, self.now_ms)
            if inside is not None and inside.ip in target.inside:
                target.inside[inside.ip].receive(inside, source, data)
        elif target is not None:
            target.receive(to, source, data)
