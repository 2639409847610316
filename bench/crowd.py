"""Thousands of peers, or a flood of strangers, for one root, out of one process.

    python -m bench.crowd ROOT_IDENTITY ROOT_IP --control FILE --report FILE [--peers N]
        [--strangers FILE | --strangers COUNT] [--port PORT]

Every peer has an address of its own in ``SUBNET``, which is routed to this host's loopback
(``prepare``), and answers the root's own HELLOs, so that the root gets a confirmed path to each.
``--control`` names a file with three numbers, read ten times a second: HELLOs of the peers per
second, and of strangers, and how many of the peers' next ones to have ready, so that they cost
little when they are sent. ``--report`` is a file that has, as JSON, what happened so far.

Strangers are new to the root in every datagram's eyes: identities without a valid proof of work
(a COUNT of them, which stay strangers for ever), or the secret identities of a file, which pass.
Each comes from a source network of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.lab import Host
from zt._fast.cipher import PeerKey
from zt.protocol import keys
from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.messages import OWN_VERSION, Hello, Ok, OkHello
from zt.protocol.packet import (
    DESTINATION,
    FLAGS,
    HEADER_SIZE,
    SOURCE,
    SUITE_AES,
    SUITE_MAC,
    SUITE_MASK,
    VERB,
    Verb,
    new_packet,
)
from zt.protocol.world import WorldVersion

SUBNET = "60.0.0.0/8"
PORT = 9993
STRANGERS_AT = 1 << 20
TICK_S = 0.005
IDLE_S = 0.1  # the control file is read so often
MADE_AT_ONCE = 100
IP_PKTINFO, SO_RCVBUFFORCE = 8, 33
ANY = socket.inet_aton("0.0.0.0")


def prepare(crowd: Host, root: Host) -> None:
    """Makes every address of ``SUBNET`` the crowd's, and the root send there."""
    crowd.run(["ip", "route", "add", "local", SUBNET, "dev", "lo"])
    root.run(["ip", "route", "add", SUBNET, "via", crowd.address])


def place(number: int) -> bytes:
    """An IPv4 address in a /24 of its own, as far as there are any."""
    return bytes((60, number >> 8 & 0xFF, number & 0xFF, 1 + (number >> 16)))


@dataclass
class Report:
    peers: int = 0
    """Peers made."""
    answered: int = 0
    """Peers that got an authentic OK at least once."""
    sent: int = 0
    ok: int = 0
    ready: int = 0
    """HELLOs of peers made in advance and not sent yet."""
    hellos: int = 0
    """HELLOs of the root that were answered."""
    strangers_sent: int = 0
    cpu_s: float = 0.0


class Talker:
    """One identity that says HELLO to the root."""

    __slots__ = ("answered", "identity", "key", "number")

    def __init__(self, identity: Identity, root: Identity, number: int) -> None:
        self.key = PeerKey(identity.agree(root))
        self.identity = identity.public()
        self.number = number
        self.answered = False

    def hello(self, root: Address, to: InetAddress, now_ms: int, planet: WorldVersion) -> bytes:
        payload = Hello(OWN_VERSION, now_ms, self.identity, to, planet).encode()
        packet = new_packet(random.randbytes(8), root, self.identity.address, Verb.HELLO, payload)
        self.key.mask_hello(packet, HEADER_SIZE + Hello.tail_offset(payload))
        self.key.seal(packet, SUITE_MAC)
        return bytes(packet)


def made_up(count: int) -> Iterator[Identity]:
    """Identities with valid keys but no proof of work; new ones in every run."""
    for _ in range(count):
        private = random.randbytes(keys.KEY_SIZE)
        address = Address(random.randrange(1 << 32, 0xFE << 32))
        yield Identity(address, keys.public_of(private), private)


class Crowd:
    """The socket and everybody behind it."""

    def __init__(self, root: Identity, ip: str, port: int) -> None:
        self.root = root
        self.to = InetAddress(socket.inet_aton(ip), PORT)
        self.target = (ip, PORT)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self.udp.bind(("", port))
        self.udp.setblocking(False)
        self.peers: list[Talker] = []
        self.by_address: dict[bytes, Talker] = {}
        self.strangers: list[tuple[bytes, int]] = []
        self.report = Report()
        self._next = self._next_stranger = 0
        self._ready: deque[tuple[bytes, int]] = deque()

    def add(self, identities: Iterator[Identity]) -> None:
        for identity in identities:
            talker = Talker(identity, self.root, len(self.peers))
            self.peers.append(talker)
            self.by_address[identity.address.encode()] = talker
        self.report.peers = len(self.peers)

    def add_strangers(self, identities: Sequence[Identity] | Iterator[Identity]) -> None:
        """Their datagrams are made in advance: the flood shall cost little here."""
        for number, identity in enumerate(identities):
            talker = Talker(identity, self.root, STRANGERS_AT + number)
            data = talker.hello(self.root.address, self.to, 1, WorldVersion(0, 0))
            self.strangers.append((data, talker.number))

    def send(self, data: bytes, number: int) -> None:
        info = struct.pack("=I4s4s", 0, place(number), ANY)
        try:
            self.udp.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, self.target)
        except BlockingIOError:
            return

    def make(self, count: int) -> None:
        """The next HELLOs, from one peer after the other."""
        now_ms = time.time_ns() // 1_000_000
        for _ in range(count):
            talker = self.peers[self._next % len(self.peers)]
            self._next += 1
            data = talker.hello(self.root.address, self.to, now_ms, WorldVersion(0, 0))
            self._ready.append((data, talker.number))
        self.report.ready = len(self._ready)

    def say_hello(self, count: int) -> None:
        if len(self._ready) < count:
            self.make(count - len(self._ready))
        for _ in range(count):
            self.send(*self._ready.popleft())
        self.report.sent += count
        self.report.ready = len(self._ready)

    def flood(self, count: int) -> None:
        for _ in range(count):
            data, number = self.strangers[self._next_stranger % len(self.strangers)]
            self._next_stranger += 1
            self.send(data, number)
        self.report.strangers_sent += count

    def listen(self) -> None:
        while True:
            try:
                data = self.udp.recv(2048)
            except BlockingIOError:
                return
            talker = self.by_address.get(data[DESTINATION:SOURCE])
            if talker is None or len(data) < HEADER_SIZE:
                continue
            if data[FLAGS] & SUITE_MASK:
                if talker.answered:  # taken for an OK: opening it would only take time
                    self.report.ok += 1
                    continue
                packet = bytearray(data)
                if talker.key.open(packet) and packet[VERB] & 0x1F == Verb.OK:
                    self.report.ok += 1
                    self.report.answered += 1
                    talker.answered = True
            elif data[VERB] == Verb.HELLO:
                self._answer(talker, data)

    def _answer(self, talker: Talker, data: bytes) -> None:
        timestamp = int.from_bytes(data[HEADER_SIZE + 5 : HEADER_SIZE + 13])
        body = OkHello(timestamp, OWN_VERSION, self.to).encode()
        ok = Ok(Verb.HELLO, int.from_bytes(data[:8]), body).encode()
        packet = new_packet(
            random.randbytes(8), self.root.address, talker.identity.address, Verb.OK, ok
        )
        talker.key.seal(packet, SUITE_AES)
        self.send(bytes(packet), talker.number)
        self.report.hellos += 1


def run(crowd: Crowd, control: Path, report: Path) -> None:
    """Until the control file is gone."""
    last = time.monotonic()
    owed = [0.0, 0.0]
    rates = (0.0, 0.0)
    ahead = 0
    read_at = 0.0
    while True:
        now = time.monotonic()
        if now >= read_at:
            read_at = now + IDLE_S
            usage = resource.getrusage(resource.RUSAGE_SELF)
            crowd.report.cpu_s = usage.ru_utime + usage.ru_stime
            fresh = report.with_suffix(".new")
            fresh.write_text(json.dumps(asdict(crowd.report)))
            fresh.rename(report)
            try:
                peers, strangers, ready = map(float, control.read_text().split())
            except FileNotFoundError:
                return
            rates, ahead = (peers, strangers), int(ready)
        elapsed, last = min(now - last, 0.1), now
        for index, act in enumerate((crowd.say_hello, crowd.flood)):
            owed[index] += rates[index] * elapsed
            act(int(owed[index]))
            owed[index] -= int(owed[index])
        if crowd.report.ready < ahead:
            crowd.make(min(ahead - crowd.report.ready, MADE_AT_ONCE))
        select.select([crowd.udp], [], [], TICK_S if any(rates) or ahead else IDLE_S)
        crowd.listen()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd")
    parser.add_argument("identity", help="public identity of the root")
    parser.add_argument("ip", help="its IPv4 address")
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--strangers", default="0", help="a number, or a file of identities")
    parser.add_argument("--port", type=int, default=PORT, help="of every peer")
    args = parser.parse_args()
    crowd = Crowd(Identity.parse(args.identity), args.ip, args.port)
    crowd.add(made_up(args.peers))
    if args.strangers.isdigit():
        crowd.add_strangers(made_up(int(args.strangers)))
    else:
        texts = Path(args.strangers).read_text().split()
        crowd.add_strangers(Identity.parse(text) for text in texts)
    run(crowd, args.control, args.report)


if __name__ == "__main__":
    main()
