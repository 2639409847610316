"""WHOIS: asking upstreams for identities, and answering (ch. 02, 9.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.messages import OkWhois, Whois
from zt.protocol.packet import MAX_PAYLOAD, Verb
from zt.vl1.actions import Validate
from zt.vl1.packet import DROPPED, HANDLED, Packet, Result

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

RETRY_MS = 500
LIFETIME_MS = 5_000
LIMIT = 4096
GATE_MS = 100
OTHER_ROOT_AFTER = 2
"""Unanswered questions after which another upstream is asked."""
CHECKS_AT_ONCE, CHECKS_LIMIT = 16, 1024
"""Proofs of work that are being checked, and that wait for it; beyond that an identity stays
unchecked, rather than that a busy pool makes us lose peers."""
OK_PREFIX = 9
ANSWER_LIMIT = MAX_PAYLOAD - OK_PREFIX


class Questions:
    """Which addresses we are asking for. Bounded to `LIMIT`; new questions beyond are refused."""

    def __init__(self) -> None:
        self._asked: dict[Address, tuple[int, int, int]] = {}  # until, last, how often

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, address: Address, now_ms: int) -> bool:
        """Somebody waits for an identity from now on; true if the question is new."""
        known = self._asked.get(address)
        if known is None and len(self._asked) >= LIMIT:
            return False
        _, last_ms, tries = known or (0, 0, 0)
        self._asked[address] = (now_ms + LIFETIME_MS, last_ms, tries)
        return known is None

    def due(self, now_ms: int) -> list[tuple[Address, int]]:
        """The questions to be put now, each with how often it was put before."""
        due = []
        for address, (until_ms, last_ms, tries) in list(self._asked.items()):
            if now_ms > until_ms:
                del self._asked[address]
            elif now_ms - last_ms >= RETRY_MS:
                due.append((address, tries))
        return due

    def put(self, address: Address, now_ms: int) -> None:
        """The question was sent."""
        until_ms, _, tries = self._asked[address]
        self._asked[address] = (until_ms, now_ms, tries + 1)

    def answered(self, address: Address) -> bool:
        """An identity arrived; false if nobody asked."""
        return self._asked.pop(address, None) is not None


class Lookup:
    """Asks one address per packet (the original reads only the first identity of an answer), the
    best upstream first. An identity is used at once and its proof of work checked afterwards: a
    root that lies is found out before it could have done more than lose our packets."""

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._questions = Questions()
        self._checks: dict[int, Identity] = {}  # by ticket
        self._to_check: deque[Identity] = deque()
        vl1.register(Verb.WHOIS, self._on_whois)
        vl1.register_ok(Verb.WHOIS, self._on_ok)

    @property
    def pending(self) -> int:
        return len(self._questions)

    def ask(self, address: Address, now_ms: int) -> None:
        if self._questions.ask(address, now_ms):
            self.put_questions(now_ms)

    def put_questions(self, now_ms: int) -> None:
        """Sends what is due, as far as an upstream can be reached."""
        upstreams = self._vl1.contact.best_upstreams()
        for address, tries in self._questions.due(now_ms):
            # An upstream need not be asked about itself: its identity is in the planet or moon.
            asked = [upstream for upstream in upstreams if upstream != address]
            if not asked:
                continue
            upstream = asked[tries // OTHER_ROOT_AFTER % len(asked)]
            if self._vl1.send_now(upstream, Verb.WHOIS, address.encode(), now_ms) is not None:
                self._questions.put(address, now_ms)

    def known(self, address: Address) -> None:
        """The identity came to be known in whatever way."""
        self._questions.answered(address)

    def _on_ok(self, packet: Packet, request_id: int, body: bytes, now_ms: int) -> Result:
        vl1 = self._vl1
        if not vl1.is_upstream(packet.source):
            return HANDLED
        for identity in OkWhois.decode(body).identities:
            address = identity.address
            # Only what was asked for: nobody fills our memory with strangers.
            if not self._questions.answered(address) or address in vl1.peers:
                continue
            vl1.add_peer(identity, now_ms)
            if len(self._to_check) < CHECKS_LIMIT:
                self._to_check.append(identity)
        self._start_checks()
        return HANDLED

    def _start_checks(self) -> None:
        while self._to_check and len(self._checks) < CHECKS_AT_ONCE:
            ticket = self._vl1.new_ticket()
            self._checks[ticket] = self._to_check.popleft()
            self._vl1.emit(Validate(ticket, self._checks[ticket]))

    def awaits(self, ticket: int) -> bool:
        return ticket in self._checks

    def validated(self, ticket: int, ok: bool, now_ms: int) -> None:
        """The proof of work of an identity was checked."""
        identity = self._checks.pop(ticket, None)
        if identity is None:
            return
        self._start_checks()
        if ok:
            return
        peer = self._vl1.peers.get(identity.address)
        if peer is not None and peer.identity == identity:
            self._vl1.remove_peer(peer, save=False)

    def _on_whois(self, packet: Packet, now_ms: int) -> Result:
        vl1 = self._vl1
        peer = vl1.peers[packet.source]
        if not vl1.am_root:
            if now_ms - peer.whois_ms < GATE_MS:
                return DROPPED
            peer.whois_ms = now_ms
        answer = bytearray()
        for address in Whois.decode(packet.payload).addresses:
            identity = vl1.identity(address)
            if identity is None:
                # The requester asks again, and is answered then.
                vl1.look_up(address, now_ms)
                continue
            encoded = identity.encode()
            if len(answer) + len(encoded) <= ANSWER_LIMIT:
                answer += encoded
        if answer:
            vl1.send_ok(packet, bytes(answer), now_ms)
        return HANDLED
