"""The VL1 state machine: what `vl2` and `node` use of it."""

from collections.abc import Callable, Iterable, Sequence

from zt._fast.switch import Switch
from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.vl1.actions import Action
from zt.vl1.packet import ErrorHandler, Handler, OkHandler, Packet
from zt.vl1.path import Path


class Vl1:
    """Peers, paths, roots and queues; dispatches verbs through a table."""

    identity_self: Identity
    address: Address
    switch: Switch
    random: Callable[[int], bytes]
    am_root: bool

    # -- for vl2 ---------------------------------------------------------------------------

    def emit(self, action: Action) -> None:
        """Hands an action to the driver."""
        raise NotImplementedError

    def register(self, verb: int, handler: Handler) -> None:
        """Sets the handler of a verb. Verbs without one are ignored, but count as received."""
        raise NotImplementedError

    def register_ok(self, verb: int, handler: OkHandler) -> None:
        """Sets the handler of expected OKs whose in-re verb is `verb`."""
        raise NotImplementedError

    def register_error(self, handler: ErrorHandler) -> None:
        """Adds a handler that sees every ERROR (codes 3, 5..9 concern networks)."""
        raise NotImplementedError

    def send(
        self, to: Address, verb: int, payload: bytes, now_ms: int, *, compress: bool = False
    ) -> int | None:
        """Sends over the best route. Unknown peers and peers without any route are queued (bounded,
        5 s) and asked for. Returns the packet ID on the wire if it left now, else None."""
        raise NotImplementedError

    def send_on(
        self,
        path: Path,
        to: Address,
        verb: int,
        payload: bytes,
        now_ms: int,
        *,
        compress: bool = False,
    ) -> int | None:
        """Sends over exactly this path; None if no key with the peer is known."""
        raise NotImplementedError

    def send_ok(
        self, packet: Packet, payload: bytes, now_ms: int, *, verb: int | None = None
    ) -> None:
        """Answers OK on the arrival path; `verb` overrides the in-re verb (ch. 02, 9.12)."""
        raise NotImplementedError

    def send_error(self, packet: Packet, code: int, data: bytes, now_ms: int) -> None:
        """Answers ERROR on the arrival path."""
        raise NotImplementedError

    def identity(self, address: Address) -> Identity | None:
        """The identity of ourselves or of a peer in memory."""
        raise NotImplementedError

    def whois(self, address: Address, now_ms: int) -> None:
        """Asks an upstream for an identity (at most every 500 ms per address) until it is known or
        5 s have passed; parked packets are retried when it arrives."""
        raise NotImplementedError

    def upstreams(self) -> Sequence[Address]:
        """The roots of planet and moons except ourselves, the best one first."""
        raise NotImplementedError

    def is_upstream(self, address: Address) -> bool:
        raise NotImplementedError

    def expects(self, packet_id: int) -> bool:
        """Whether an OK for this packet ID would be accepted."""
        raise NotImplementedError

    def expect(self, packet_id: int, now_ms: int) -> None:
        """Registers an ID that `send` or `send_on` did not (they always do)."""
        raise NotImplementedError

    def retry_parked(self, now_ms: int) -> None:
        """Hands all parked packets over again at once (a credential or configuration arrived)."""
        raise NotImplementedError

    # paths and peers as vl2 and the local API see them

    def path(self, address: Address, now_ms: int) -> Path | None:
        """The live direct path that packets to a peer take now, if any."""
        raise NotImplementedError

    def paths(self, address: Address) -> Sequence[Path]:
        """All direct paths of a peer."""
        raise NotImplementedError

    def latency_ms(self, address: Address, now_ms: int) -> int:
        """Latency of the peer's best path, 65535 if unknown."""
        raise NotImplementedError

    def set_contacts(self, contacts: Iterable[Address]) -> None:
        """Peers to be kept in contact like roots are (anchors, replicators of joined networks)."""
        raise NotImplementedError

    def set_own_networks(self, networks: Iterable[InetAddress]) -> None:
        """Prefixes (ip/bits) of our own virtual networks: no path may lead into them."""
        raise NotImplementedError
