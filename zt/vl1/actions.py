"""What a node asks its driver to do.

The sans-I/O node opens no socket and no file. Every event handed to it may leave actions, which the
driver drains with `Node.actions()` and carries out in order.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress

ALL_SOCKETS = -1
"""`Send.socket` of a datagram that leaves from every bound socket of its family."""

TUNNEL = -2
"""Number of the socket that is no UDP socket but the TCP tunnel (ch. 03, 8)."""


class Send(NamedTuple):
    """One UDP datagram. `ttl` 0 means the default of the socket. The one action that there are
    many of, so it is of the kind that is made fastest."""

    socket: int
    ip: bytes
    port: int
    data: bytes
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole Ethernet frame for the TAP of a network."""

    nwid: NetworkId
    data: bytes


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """A network's state or configuration changed: read `node.network(nwid)`."""

    nwid: NetworkId


@dataclass(frozen=True, slots=True)
class NetworkGone:
    """A network was left; its TAP may go."""

    nwid: NetworkId


@dataclass(frozen=True, slots=True)
class Store:
    """Write a file of the home folder (`peers.d/...`, `moons.d/...`), or delete it (None)."""

    name: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Load:
    """Read a file of the home folder; if it exists, answer with `node.stored(name, data)`."""

    name: str


@dataclass(frozen=True, slots=True)
class ConfigRequest:
    """A NETWORK_CONFIG_REQUEST for our own controller. `remote` is None when it was relayed."""

    nwid: NetworkId
    identity: Identity
    metadata: bytes
    remote: InetAddress | None
    request_id: int


@dataclass(frozen=True, slots=True)
class Validate:
    """Check an identity's proof of work (tens of milliseconds, so off the event loop) and answer
    with `node.validated(ticket, ok, now_ms)`."""

    ticket: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class UserMessage:
    """USER_MESSAGE of a peer, for the application."""

    origin: Address
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RemoteTrace:
    """One non-empty trace dictionary of a peer, for the controller."""

    origin: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """A frame that the control plane dropped, or a credential that it refused; told only while
    somebody listens (`node.tell_drops`). `frame` is empty where there is none in the clear."""

    nwid: NetworkId
    outbound: bool
    reason: str
    peer: Address
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class Event:
    """Something an operator may want to know. Kinds: the constants below."""

    kind: str
    text: str = ""


ONLINE = "online"
OFFLINE = "offline"
COLLISION = "collision"  # an upstream says our address belongs to another identity: fatal
PLANET = "planet"  # a newer planet was installed
MOON = "moon"  # a moon was installed or replaced
BOND = "bond"  # the active path of a bond changed

Action: TypeAlias = (
    Send
    | Frame
    | NetworkChanged
    | NetworkGone
    | Store
    | Load
    | ConfigRequest
    | Validate
    | UserMessage
    | RemoteTrace
    | Dropped
    | Event
)
