"""A received packet on its way through the handlers."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from zt.protocol.address import Address
from zt.vl1.path import Path


class Result(Enum):
    """What a handler made of a packet (ch. 02, 4.4)."""

    HANDLED = auto()  # counts as received from the peer
    TRUSTED = auto()  # the same, and it proved a common network
    WAIT = auto()  # needs something that was asked for: park it and hand it over again
    DROPPED = auto()  # has no effect on peer or path (malformed, gated)


HANDLED, TRUSTED, WAIT, DROPPED = Result


@dataclass(frozen=True, slots=True)
class Packet:
    """An authentic packet. `verb` has its flag bits removed, `payload` (from byte 28) is
    decompressed; `data` is the whole opened packet as the switch delivers it, still compressed if
    flagged, which is what `Switch.packet` takes."""

    source: Address
    verb: int
    payload: bytes
    packet_id: int
    hops: int
    path: Path
    data: bytes
    authenticated: bool = True
    attempt: int = 0  # how often it was parked before


Handler: TypeAlias = Callable[[Packet, int], Result]
"""handler(packet, now_ms) for one verb."""

OkHandler: TypeAlias = Callable[[Packet, int, bytes, int], Result]
"""handler(packet, request_id, body, now_ms): an expected OK; body is what follows the prefix."""

ErrorHandler: TypeAlias = Callable[[Packet, int, int, int, bytes, int], Result]
"""handler(packet, in_re_verb, request_id, code, data, now_ms) for an ERROR."""
