"""One simulated machine: a node, its switch and its sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.node import Node
from zt.protocol.address import Address, Mac, NetworkId
from zt.protocol.credentials import Com
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import NetworkConfig, split
from zt.protocol.packet import Verb
from zt.vl1.actions import (
    ALL_SOCKETS,
    Action,
    ConfigRequest,
    Event,
    Frame,
    Load,
    Send,
    Store,
    UserMessage,
    Validate,
)
from zt.vl1.packet import TRUSTED, Packet, Result
from zt.vl1.status import LocalSocket, Settings

if TYPE_CHECKING:
    from tests.sim.nat import Nat
    from tests.sim.network import Network

MAX_PEERS = 16384
FRAME_TYPE = 0x88B5  # local experimental Ethertype
ETHERNET_HEADER = 14
CONFIG_WINDOW_MS = 7_200_000
ACCEPT_EVERYTHING = b"\x01\x00"
DATA = Verb.MULTICAST_FRAME
"""What `Host.send` sends: it counts as a frame, but the control plane handles it."""


class Host:
    """Drives one `Node` as the service does: events in, actions out, a timer."""

    def __init__(
        self,
        net: Network,
        identity: Identity,
        places: Sequence[InetAddress],
        *,
        nat: Nat | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.net = net
        self.identity = identity
        self.address: Address = identity.address
        self.nat = nat
        self.settings = settings or Settings()
        self.random = Random(net.random.getrandbits(64))
        self.files: dict[str, bytes] = {}
        self.events: list[tuple[int, Event]] = []
        self.received: list[tuple[int, Address, bytes]] = []
        self.messages: list[UserMessage] = []
        self.frames: list[tuple[int, bytes]] = []
        self.joined: list[NetworkId] = []
        self.sockets: dict[int, InetAddress] = dict(enumerate(places, 1))
        self._next_socket = len(places) + 1
        self._timer_ms: int | None = None
        self.validate: Callable[[Identity], bool] = lambda identity: True
        self.asleep = False
        self.down = False

    def start(self) -> None:
        """Starts, or restarts with empty memory and the same files."""
        assert self.net.planet is not None
        self.tables = Tables(self.address, max_peers=MAX_PEERS)
        self.switch = Switch(self.tables, seed=self.random.randbytes(32))
        self.node = Node(
            self.identity,
            self.switch,
            now_ms=self.net.now_ms,
            random=self.random.randbytes,
            planet=self.net.planet,
            settings=self.settings,
            controller=True,
        )
        for nwid in self.joined:
            self.node.join(nwid, self.net.now_ms, self.files.get(f"networks.d/{nwid}.conf"))
        self.node.vl1.register(DATA, self._on_data)
        self.down = False
        self._timer_ms = None
        self._bind()

    def rebind(self, places: Sequence[InetAddress], *, keep: bool = False) -> None:
        """Closes all sockets (or keeps them) and opens others."""
        kept = self.sockets if keep else {}
        self.sockets = {**kept, **dict(enumerate(places, self._next_socket))}
        self._next_socket += len(places)
        self._bind()

    def _bind(self) -> None:
        devices = {
            ip: f"eth{i}" for i, ip in enumerate(dict.fromkeys(p.ip for p in self.sockets.values()))
        }
        sockets = [
            LocalSocket(number, place, devices[place.ip]) for number, place in self.sockets.items()
        ]
        self.node.sockets_changed(sockets, self.net.now_ms)
        self.settle()

    def socket_at(self, place: InetAddress) -> int | None:
        return next((number for number, bound in self.sockets.items() if bound == place), None)

    def stop(self) -> None:
        """Gone without a word; files stay."""
        self.node.stop(self.net.now_ms)
        self.settle()
        self.down = True

    def sleep(self) -> None:
        """SIGSTOP: nothing is read, no timer runs."""
        self.asleep = True

    def wake(self) -> None:
        self.asleep = False
        self._fire()

    # What tests do with it

    def send(self, to: Host, data: bytes) -> None:
        """Sends data that proves a common network, as frames do."""
        self.node.vl1.send(to.address, DATA, data, self.net.now_ms)
        self.settle()

    def join(self, nwid: NetworkId) -> None:
        self.joined.append(nwid)
        self.node.join(nwid, self.net.now_ms)
        self.settle()

    def send_frame(self, nwid: NetworkId, to: Host, payload: bytes) -> None:
        """An Ethernet frame from our TAP to another member's MAC, through the data plane."""
        macs = (Mac.of(host.address, nwid).encode() for host in (to, self))
        frame = b"".join((*macs, FRAME_TYPE.to_bytes(2), payload))
        self.switch.frame(nwid, frame, self.net.now_ms)
        self.settle()

    def got_frame(self, payload: bytes) -> bool:
        return any(frame[ETHERNET_HEADER:] == payload for _, frame in self.frames)

    def direct(self, to: Host) -> bool:
        """Do our packets to that host go over a direct path alone?"""
        peer = self.node.vl1.peers.get(to.address)
        if peer is None:
            return False
        path, mirror = peer.route
        return path is not None and mirror is None and peer.path_on(path) is not None

    def got(self, data: bytes) -> bool:
        return any(got == data for _, _, got in self.received)

    # Events

    def receive(self, at: InetAddress, source: InetAddress, data: bytes) -> None:
        """A datagram arrives."""
        number = self.socket_at(at)
        if number is None or self.asleep or self.down:
            return
        self.switch.datagram(number, source.ip, source.port, data, self.net.now_ms)
        self.settle()

    def _fire(self) -> None:
        if self.asleep or self.down:
            return
        self._timer_ms = None
        self.node.timer(self.net.now_ms)
        self.settle()

    def _due(self, time_ms: int) -> None:
        if self._timer_ms == time_ms:
            self._fire()

    def settle(self) -> None:
        """Carries everything out until nothing is left, then arms the timer."""
        now_ms = self.net.now_ms
        busy = True
        while busy:
            busy = False
            for punt in self.switch.take_punts():
                busy = True
                self.node.punt(punt, now_ms)
            for action in self.node.actions():
                busy = True
                self._carry_out(action)
            for _, frame in self.switch.take_frames():
                self.frames.append((now_ms, frame))
            for number, ip, port, data in self.switch.take_datagrams():
                busy = True
                self._send(number, InetAddress(ip, port), data, 0)
        deadline_ms = max(self.node.deadline(), now_ms + 1)
        if self._timer_ms is None or deadline_ms < self._timer_ms:
            self._timer_ms = deadline_ms
            self.net.at(deadline_ms, self._due, deadline_ms)

    def _carry_out(self, action: Action) -> None:
        now_ms = self.net.now_ms
        if isinstance(action, Send):
            self._send(action.socket, InetAddress(action.ip, action.port), action.data, action.ttl)
        elif isinstance(action, Validate):
            self.node.validated(action.ticket, self.validate(action.identity), now_ms)
        elif isinstance(action, Store):
            if action.data is None:
                self.files.pop(action.name, None)
            else:
                self.files[action.name] = action.data
        elif isinstance(action, Load):
            if action.name in self.files:
                self.node.stored(action.name, self.files[action.name], now_ms)
        elif isinstance(action, Frame):
            self.frames.append((now_ms, action.data))
        elif isinstance(action, ConfigRequest):
            self._configure(action)
        elif isinstance(action, Event):
            self.events.append((now_ms, action))
        elif isinstance(action, UserMessage):
            self.messages.append(action)

    def _configure(self, request: ConfigRequest) -> None:
        """As the controller of our networks: everybody is a member."""
        if request.nwid not in self.net.networks:
            return
        now_ms = self.net.now_ms
        com = Com.issue(request.nwid, request.identity, now_ms, CONFIG_WINDOW_MS)
        config = NetworkConfig(
            nwid=request.nwid,
            issued_to=request.identity.address,
            timestamp=now_ms,
            window=CONFIG_WINDOW_MS,
            com=com.sign(self.identity),
            rules=ACCEPT_EVERYTHING,
        )
        update_id = self.random.getrandbits(63) | 1
        chunks = split(request.nwid, config.encode(), update_id, self.identity)
        self.node.send_config(
            request.identity.address,
            request.nwid,
            [chunk.encode() for chunk in chunks],
            request.request_id,
            now_ms,
        )

    def _send(self, number: int, to: InetAddress, data: bytes, ttl: int) -> None:
        numbers = list(self.sockets) if number == ALL_SOCKETS else [number]
        for socket in numbers:
            bound = self.sockets.get(socket)
            if bound is not None and len(bound.ip) == len(to.ip):
                self.net.send(self, bound, to, data, ttl)

    def _on_data(self, packet: Packet, now_ms: int) -> Result:
        self.received.append((now_ms, packet.source, packet.payload))
        return TRUSTED
