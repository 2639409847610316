"""NETWORK_CREDENTIALS: pushed on demand, taken from anybody, revocations passed on.

Chapter 04, 7.8 and 7.9.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import (
    MAX_CAPABILITY_SIZE,
    MAX_OWNERSHIP_SIZE,
    MAX_TAG_SIZE,
    Capability,
    Com,
    Ownership,
    Revocation,
    Tag,
)
from zt.protocol.messages import NetworkCredentials
from zt.protocol.netconf import NetworkConfig
from zt.protocol.packet import HEADER_SIZE, MAX_PACKET, ErrorCode, Verb
from zt.vl1 import DROPPED, HANDLED, TRUSTED, WAIT, Packet, Result
from zt.vl2.context import Context
from zt.vl2.membership import NEVER, Added, Credential, Membership, Outcome
from zt.vl2.network import PUSH_MS, Network

RECEIVE_MS = 1000
"""A receiver takes one packet of credentials in this time from one peer, whatever its networks."""
PACE_MS = 1100
"""How far apart we send them: clocks and links differ."""
REPEAT_MS = 1500
"""Before a repeat: something new that comes in time goes first."""
ANSWER_MS = 1000
"""A member that asks for our credentials gets them once in this time."""
ERROR_MS = 400
"""How often a peer is told that its certificate is missing. It retries every 500 ms."""

REVOCATIONS_PER_PACKET = 60
MAX_QUEUE = 64
"""Packets waiting for one receiver."""
MAX_RECEIVERS = 65536
ATTACHED_MS = 100
"""How often a certificate inside another packet of one peer is looked at."""
MAX_FORGED = 4
"""Bad signatures after which the rest of a packet is not looked at."""
REPEATS = 3
"""How often a revocation of our own controller is sent to each member."""


class Rejected(Protocol):
    def __call__(
        self, network: Network, credential: Credential, reason: str, now_ms: int, /
    ) -> None: ...


class _Receiver:
    """Packets of credentials for one peer, far enough apart to be accepted."""

    __slots__ = ("queue", "repeats", "sent_ms")

    def __init__(self) -> None:
        self.sent_ms = NEVER
        self.queue: deque[tuple[bytes, bool]] = deque()
        self.repeats: deque[bytes] = deque()
        """What was sent before, and goes again when nothing else waits."""

    def take(self) -> tuple[bytes, bool]:
        """The next packet, and whether to compress it."""
        return self.queue.popleft() if self.queue else (self.repeats.popleft(), False)

    @property
    def waiting(self) -> bool:
        return bool(self.queue or self.repeats)

    @property
    def due_ms(self) -> int:
        """When the next packet may go."""
        return self.sent_ms + (PACE_MS if self.queue else REPEAT_MS)


class Credentials:
    """All sending and receiving of credentials."""

    def __init__(self, context: Context, rejected: Rejected) -> None:
        self._context = context
        self._rejected = rejected
        self._receivers: dict[Address, _Receiver] = {}
        self._taken_ms: dict[Address, int] = {}
        """When a packet of each peer was last accepted."""
        self._asked_ms: dict[tuple[NetworkId, Address], int] = {}
        """When a peer was last told that we need its certificate."""
        self._attached_ms: dict[Address, int] = {}
        """When a certificate in another packet of each peer was last looked at."""
        self._waiting: set[Address] = set()
        """Receivers with a queue."""
        context.vl1.register(Verb.NETWORK_CREDENTIALS, self._on_credentials)

    # -- sending -----------------------------------------------------------------------------

    def push_if_due(self, network: Network, member: Membership, now_ms: int) -> None:
        """Ahead of a frame: if the last push was long ago, or of an older configuration."""
        if member.pushed_ms < network.updated_ms or now_ms - member.pushed_ms > PUSH_MS:
            self.push(network, member, now_ms)

    def asked(self, network: Network, member: Membership, now_ms: int) -> None:
        """A member says that it needs our certificate (ERROR 6)."""
        if network.com and (
            member.pushed_ms < network.updated_ms or now_ms - member.pushed_ms > ANSWER_MS
        ):
            self.push(network, member, now_ms)

    def push(self, network: Network, member: Membership, now_ms: int) -> None:
        """Sends everything we hold for this network. The first packet, which has the certificate
        of membership, leaves now; a receiver would drop more at once."""
        if network.config is None:
            return
        member.pushed_ms = now_ms
        if network.packed is None:
            network.packed = _packets(network.config)
        for i, payload in enumerate(network.packed):
            self._send(member.address, payload, now_ms, compress=True, urgent=i == 0)
        network.enter(member)

    def send_revocations(
        self, member: Address, revocations: Sequence[Revocation], now_ms: int
    ) -> None:
        """As the controller: several times, because nothing confirms them."""
        packets = _revocation_packets(revocations)
        for payload in packets:
            self._send(member, payload, now_ms, compress=False)
        receiver = self._receivers.get(member)
        if receiver is not None:
            room = max(0, MAX_QUEUE - len(receiver.repeats))
            receiver.repeats.extend((packets * (REPEATS - 1))[:room])
            self._waiting.add(member)

    def propagate(
        self, network: Network, revocations: Sequence[Revocation], origin: Address, now_ms: int
    ) -> None:
        """Passes on what was new to us, once (7.9)."""
        spared = {origin, self._context.us, *(r.signer for r in revocations)}
        for payload in _revocation_packets(revocations):
            for address in list(network.members):
                if address not in spared:
                    self._send(address, payload, now_ms, compress=False)

    def _send(
        self, to: Address, payload: bytes, now_ms: int, *, compress: bool, urgent: bool = False
    ) -> None:
        if to == self._context.us:
            return
        receiver = self._receivers.get(to)
        if receiver is None:
            if len(self._receivers) >= MAX_RECEIVERS:
                self.clean(now_ms)
            receiver = self._receivers.setdefault(to, _Receiver())
        if urgent or (not receiver.queue and now_ms - receiver.sent_ms >= PACE_MS):
            receiver.sent_ms = now_ms
            self._context.vl1.send(to, Verb.NETWORK_CREDENTIALS, payload, now_ms, compress=compress)
        elif len(receiver.queue) < MAX_QUEUE:
            receiver.queue.append((payload, compress))
            self._waiting.add(to)
        else:
            self._context.counters["credential.queue full"] += 1

    def timer(self, now_ms: int) -> None:
        """Sends what waited for its turn."""
        for to in list(self._waiting):
            receiver = self._receivers[to]
            if now_ms < receiver.due_ms:
                continue
            payload, compress = receiver.take()
            receiver.sent_ms = now_ms
            if not receiver.waiting:
                self._waiting.discard(to)
            self._context.vl1.send(to, Verb.NETWORK_CREDENTIALS, payload, now_ms, compress=compress)

    def deadline(self) -> int | None:
        """When `timer` has something to do."""
        if not self._waiting:
            return None
        return min(self._receivers[to].due_ms for to in self._waiting)

    def clean(self, now_ms: int) -> None:
        """Forgets peers that nothing is due for or from."""
        for to, receiver in list(self._receivers.items()):
            if not receiver.waiting and now_ms - receiver.sent_ms >= PACE_MS:
                del self._receivers[to]
        for peer, taken_ms in list(self._taken_ms.items()):
            if now_ms - taken_ms >= RECEIVE_MS:
                del self._taken_ms[peer]
        for peer, attached_ms in list(self._attached_ms.items()):
            if now_ms - attached_ms >= ATTACHED_MS:
                del self._attached_ms[peer]
        for key, asked_ms in list(self._asked_ms.items()):
            if now_ms - asked_ms >= ERROR_MS:
                del self._asked_ms[key]

    # -- receiving ---------------------------------------------------------------------------

    def add(self, network: Network, credential: Credential, now_ms: int) -> Outcome:
        """Files one credential under whom it was issued to, whoever sent it."""
        vl1 = self._context.vl1
        holder = credential.target if isinstance(credential, Revocation) else credential.issued_to
        if credential.nwid != network.nwid or not holder:
            outcome = Outcome(Added.REJECTED, "wrong network")
        else:
            member = network.known(holder, now_ms)
            outcome = member.add(credential, vl1.identity)
        self._context.counters[f"credential.{outcome.result.name.lower()}"] += 1
        match outcome.result:
            case Added.NEW:
                network.admit(member)
            case Added.DEFERRED:
                for signer in _signers(credential):
                    vl1.whois(signer, now_ms)
            case Added.REJECTED:
                self._context.counters[f"credential.rejected.{outcome.reason}"] += 1
                self._rejected(network, credential, outcome.reason, now_ms)
        return outcome

    def attached(self, network: Network, com: Com | None, origin: Address, now_ms: int) -> None:
        """A certificate inside another packet, as old versions send it; what is wrong with it does
        not matter to the packet."""
        if not com or com == network.known(com.issued_to, now_ms).com:
            return
        # Each costs a signature check, so no peer gets many.
        if now_ms - self._attached_ms.get(origin, NEVER) >= ATTACHED_MS:
            self._attached_ms[origin] = now_ms
            self.add(network, com, now_ms)

    def _on_credentials(self, packet: Packet, now_ms: int) -> Result:
        peer = packet.source
        if packet.attempt == 0:
            if now_ms - self._taken_ms.get(peer, NEVER) < RECEIVE_MS:
                self._context.counters["credential.too soon"] += 1
                return DROPPED
            self._taken_ms[peer] = now_ms
        message = NetworkCredentials.decode(packet.payload)
        accepted = admitting = False
        revoked: dict[NetworkId, list[Revocation]] = {}
        deferred = False
        forged = 0
        for credential in _all(message):
            network = self._context.networks.get(credential.nwid)
            if network is None:
                self._context.counters["credential.foreign network"] += 1
                continue
            outcome = self.add(network, credential, now_ms)
            if outcome.result is Added.DEFERRED:
                deferred = True
                break
            accepted |= outcome.result is not Added.REJECTED
            forged += outcome.reason == "invalid"
            if forged >= MAX_FORGED:
                break
            if outcome.result is not Added.NEW:
                continue
            if not isinstance(credential, Revocation):
                admitting = True
            elif credential.fast_propagate:
                revoked.setdefault(credential.nwid, []).append(credential)
        for nwid, revocations in revoked.items():
            self.propagate(self._context.networks[nwid], revocations, peer, now_ms)
        if deferred:
            return WAIT
        if admitting:
            self._context.vl1.retry_parked(now_ms)
        if message.parts not in (1, 5):
            return DROPPED  # ended early: does not count as received (ch. 02, 9.10)
        return TRUSTED if accepted else HANDLED

    def need(self, network: Network, packet: Packet, now_ms: int) -> Result:
        """A frame failed the gate: asks its sender for a certificate and keeps the packet."""
        key = (network.nwid, packet.source)
        if now_ms - self._asked_ms.get(key, NEVER) >= ERROR_MS:
            if len(self._asked_ms) >= MAX_RECEIVERS:
                self.clean(now_ms)
            self._asked_ms[key] = now_ms
            self._context.vl1.send_error(
                packet, ErrorCode.NEED_MEMBERSHIP_CERTIFICATE, network.nwid.encode(), now_ms
            )
        return WAIT


def _all(message: NetworkCredentials) -> Iterable[Credential]:
    yield from message.coms
    yield from message.capabilities
    yield from message.tags
    yield from message.revocations
    yield from message.ownerships


def _signers(credential: Credential) -> Iterable[Address]:
    """Whose signatures a credential carries."""
    if hasattr(credential, "custody"):
        return [link.from_ for link in credential.custody]
    return [credential.signer]


def _revocation_packets(revocations: Sequence[Revocation]) -> list[bytes]:
    size = REVOCATIONS_PER_PACKET
    return [
        NetworkCredentials(revocations=tuple(revocations[at : at + size])).encode()
        for at in range(0, len(revocations), size)
    ]


_Held = TypeVar("_Held", Capability, Tag, Ownership)


def _packets(config: NetworkConfig) -> list[bytes]:
    """Our credentials in as many packets as they need: the certificate of membership, then
    capabilities, tags and ownership. Nothing if we hold none."""
    com = (config.com,) if config.com else ()
    capabilities, tags = list(config.capabilities), list(config.tags)
    ownerships = list(config.ownerships)
    packets = []
    while com or capabilities or tags or ownerships:
        room = MAX_PACKET - HEADER_SIZE - 9 - sum(len(c.encode()) for c in com)
        chosen, room = _take(capabilities, MAX_CAPABILITY_SIZE, room)
        chosen_tags, room = _take(tags, MAX_TAG_SIZE, room)
        chosen_ownerships, room = _take(ownerships, MAX_OWNERSHIP_SIZE, room)
        message = NetworkCredentials(com, chosen, chosen_tags, (), chosen_ownerships)
        packets.append(message.encode())
        com = ()
    return packets


def _take(held: list[_Held], largest: int, room: int) -> tuple[tuple[_Held, ...], int]:
    """Moves as many as fit for certain: one is added only if the largest of its kind would fit."""
    chosen = []
    while held and room > largest + 16:
        chosen.append(held.pop(0))
        room -= len(chosen[-1].encode())
    return tuple(chosen), room
