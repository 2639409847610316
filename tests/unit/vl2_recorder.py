"""A `Vl1` that keeps what VL2 asks of it, for tests that look at one node alone."""

from collections import deque
from typing import NamedTuple

from zt._fast.switch import Switch
from zt._fast.tables import Tables
from zt.protocol.inet import InetAddress
from zt.protocol.messages import Error, Ok
from zt.protocol.packet import Verb, compress, new_packet
from zt.vl1 import DROPPED, WAIT, Packet
from zt.vl1.path import Path
from zt.vl1.status import Settings

PARKED_MS = 5000


class Sent(NamedTuple):
    verb: int
    dest: str
    payload: bytes
    compressed: bool


class RecordingVl1:
    """The part of `zt.vl1.Vl1` that VL2 uses; its peers are `identities`, and all reachable."""

    am_root = False
    settings = Settings()

    def __init__(self, me, identities, upstreams=()):
        self.me = me
        self.address = me.address
        self.identities = {identity.address: identity for identity in identities}
        self.upstream_list = list(upstreams)
        self.handlers, self.ok_handlers, self.error_handlers = {}, {}, []
        self.sent, self.replies, self.actions = [], [], []
        self.parked = deque()
        self.asked = []
        self.contacts, self.own_networks = set(), set()
        self.latencies = {}
        self.counter = self.by_switch = 0
        self.retry_wanted = False

    def random(self, size):
        self.counter += 1
        return bytes((self.counter * 37 + i * 101) % 251 for i in range(size))

    def emit(self, action):
        self.actions.append(action)

    def register(self, verb, handler):
        self.handlers[verb] = handler

    def register_ok(self, verb, handler):
        self.ok_handlers[verb] = handler

    def register_error(self, handler):
        self.error_handlers.append(handler)

    def send(self, to, verb, payload, now_ms, *, compress=False):
        if to != self.address:
            self.sent.append(Sent(verb, str(to), payload, compress and compressible(payload)))

    def send_on(self, path, to, verb, payload, now_ms, *, compress=False):
        self.send(to, verb, payload, now_ms, compress=compress)
        return 1

    def sent_by_switch(self, verb, packet_ids, now_ms, *, answered):
        self.by_switch += len(packet_ids)

    def send_ok(self, packet, payload, now_ms, *, verb=None):
        in_re = packet.verb if verb is None else verb
        self.replies.append((Verb.OK, Ok(in_re, packet.packet_id, payload).encode()))

    def send_error(self, packet, code, data, now_ms):
        error = Error(packet.verb, packet.packet_id, code, data)
        self.replies.append((Verb.ERROR, error.encode()))

    def identity(self, address):
        return self.me if address == self.address else self.identities.get(address)

    def whois(self, address, now_ms):
        self.asked.append(address)

    def upstreams(self):
        return self.upstream_list

    def latency_ms(self, address, now_ms):
        return self.latencies.get(address, 65535)

    def path(self, address, now_ms):
        return Path(0, InetAddress(b"\x0a\0\0\1", 9993)) if address in self.latencies else None

    def set_contacts(self, contacts):
        self.contacts = set(contacts)

    def set_own_networks(self, networks, now_ms):
        self.own_networks = set(networks)

    # what a driver and the packets of others do

    def deliver(self, source, verb, payload, now_ms, packet_id=0x1122334455667788):
        """Hands a packet to its handler; parks it if that says so."""
        path = Path(0, InetAddress(b"\x0a\0\0\2", 9993))
        packet = Packet(source, verb, payload, packet_id, 0, path, b"")
        return self._handle(packet, now_ms, now_ms)

    def retry_parked(self, now_ms):
        """The recording node waited for its next queue check, so this does nothing by itself."""
        self.retry_wanted = True

    def retry(self, now_ms):
        for _ in range(len(self.parked)):
            packet, since_ms = self.parked.popleft()
            self._handle(packet, since_ms, now_ms)

    def _handle(self, packet, since_ms, now_ms):
        payload = packet.payload
        if packet.verb == Verb.OK:
            request_id = int.from_bytes(payload[1:9])
            result = self.ok_handlers[payload[0]](packet, request_id, payload[9:], now_ms)
        elif packet.verb == Verb.ERROR:
            request_id = int.from_bytes(payload[1:9])
            for handler in self.error_handlers:
                result = handler(packet, payload[0], request_id, payload[9], payload[10:], now_ms)
        else:
            handler = self.handlers.get(packet.verb)
            result = handler(packet, now_ms) if handler else DROPPED
        if result is WAIT and now_ms - since_ms <= PARKED_MS:
            fields = {name: getattr(packet, name) for name in Packet.__slots__}
            again = Packet(**fields | {"attempt": packet.attempt + 1})
            self.parked.append((again, since_ms))
        return result

    def take_actions(self):
        taken, self.actions = self.actions, []
        return taken

    def take_sent(self):
        taken, self.sent = self.sent, []
        return taken

    def take_replies(self):
        taken, self.replies = self.replies, []
        return taken


def compressible(payload):
    return compress(new_packet(bytes(8), 0, 0, 0, payload))


def tables_of(vl1):
    """Empty tables, and a switch over them."""
    tables = Tables(vl1.address)
    vl1.switch = Switch(tables)
    return tables
