"""Everything stored, held in memory as it is in the database: reads wait for nothing.

Objects are kept as the JSON text that clients are shown, with the few values beside it that lists
and decisions look at. Only `zt.controller.changes` writes objects here.
"""

from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property

from zt.controller.addresses import AddressBook
from zt.controller.bodies import load
from zt.controller.decisions import listed_ips
from zt.controller.documents import Document
from zt.controller.plan import NetworkPlan
from zt.protocol.address import Address, NetworkId
from zt.protocol.coerce import boolean, text
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import RequestMetadata

PLATFORM_LENGTH = 64
ONLINE_MS = 120_000
"""A node is online for two poll periods after a request that was accepted."""


class Member:
    """One member object. Replaced as a whole, never changed."""

    __slots__ = (
        "address",
        "authorized",
        "bridge",
        "document",
        "ips",
        "revision",
        "search",
        "waiting",
    )

    def __init__(self, address: Address, revision: int, document: bytes) -> None:
        fields: Document = load(document)
        self.address = address
        self.revision = revision
        self.document = document
        self.authorized = boolean(fields.get("authorized"))
        self.bridge = boolean(fields.get("activeBridge"))
        self.search = f"{address} {text(fields.get('name'))}".lower()
        """What a search looks into."""
        self.ips = tuple(dict.fromkeys(listed_ips(fields)))
        self.waiting = revision == 1 and not self.authorized and "identity" in fields
        """Made by a request that was refused, and touched by nobody since."""

    def fields(self) -> Document:
        """The object, the caller's own."""
        value: Document = load(self.document)
        return value


class Sighting:
    """When and where a member was last seen, and what a push to it needs to know."""

    __slots__ = ("client", "last_ms", "physical", "platform", "settled", "version")

    def __init__(
        self, last_ms: int = 0, physical: str = "", version: str = "", platform: str = ""
    ) -> None:
        self.last_ms = last_ms
        """Last accepted request; 0: never."""
        self.physical = physical
        """Where it came from, ``ip/port``; empty if it was always relayed."""
        self.version = version
        self.platform = platform
        self.client: RequestMetadata | None = None
        """Of the last request to this process; None: there was none, so nothing is pushed."""
        self.settled: tuple[Member, NetworkPlan, RequestMetadata, int] | None = None
        """Member, plan, client and `AddressBook.moves` of a request that was answered with a config
        and changed nothing: the next one with the same has the same effect."""

    def note(self, now_ms: int, remote: InetAddress | None, client: RequestMetadata) -> None:
        self.last_ms = now_ms
        if remote:
            self.physical = str(remote)
        self.version = f"{client.major}.{client.minor}.{client.revision}"
        # Anybody may say anything here, and it is shown and stored as text.
        self.platform = "".join(filter(str.isprintable, client.platform[:PLATFORM_LENGTH]))
        self.client = client

    def online(self, now_ms: int) -> bool:
        return self.last_ms > 0 and now_ms - self.last_ms < ONLINE_MS

    def reachable(self, now_ms: int) -> bool:
        """Online, and known to this process: a config can be pushed."""
        return self.client is not None and self.online(now_ms)


class Network:
    """One network with its members."""

    def __init__(self, nwid: NetworkId, revision: int, document: bytes) -> None:
        self.nwid = nwid
        self.members: dict[Address, Member] = {}
        self.sightings: dict[Address, Sighting] = {}
        self.book = AddressBook()
        self.authorized = 0
        self.bridges: set[Address] = set()
        # A plain dict looks for its first entry past all that were taken from its front.
        self.waiting: OrderedDict[Address, None] = OrderedDict()
        """Members whose first request was refused, the longest unseen first."""
        self._order: list[Address] | None = []
        self.replace(revision, document)

    def replace(self, revision: int, document: bytes) -> None:
        """The object's next state."""
        self.revision = revision
        self.document = document
        for derived in ("fields", "plan", "search"):
            self.__dict__.pop(derived, None)

    @cached_property
    def fields(self) -> Document:
        """The object; not to be changed."""
        value: Document = load(self.document)
        return value

    @cached_property
    def plan(self) -> NetworkPlan:
        return NetworkPlan(self.fields)

    @cached_property
    def search(self) -> str:
        """What a search looks into."""
        return f"{self.nwid} {text(self.fields.get('name'))}".lower()

    @property
    def order(self) -> list[Address]:
        """Addresses of all members, ascending."""
        if self._order is None:
            self._order = sorted(self.members)
        return self._order

    def put(self, member: Member) -> None:
        old = self.members.get(member.address)
        self._count(old, -1)
        if old is None:
            self._order = None
        self.members[member.address] = member
        self._count(member, 1)
        before = old.ips if old else ()
        for ip in before:
            if ip not in member.ips:
                self.book.release(ip, member.address)
        for ip in member.ips:
            self.book.claim(ip, member.address)

    def remove(self, address: Address) -> None:
        old = self.members.pop(address, None)
        if old is None:
            return
        self._count(old, -1)
        self._order = None
        for ip in old.ips:
            self.book.release(ip, address)

    def _count(self, member: Member | None, by: int) -> None:
        if member is None:
            return
        self.authorized += by * member.authorized
        if member.bridge:
            (self.bridges.add if by > 0 else self.bridges.discard)(member.address)
        if member.waiting:
            if by > 0:
                self.waiting[member.address] = None
            else:
                self.waiting.pop(member.address, None)

    def saw(self, address: Address, sighting: Sighting) -> None:
        """Keep the order of `waiting`."""
        self.sightings[address] = sighting
        if address in self.waiting:
            self.waiting.move_to_end(address)


class State:
    """All networks, by ID."""

    def __init__(self) -> None:
        self.networks: dict[NetworkId, Network] = {}
        self._order: list[NetworkId] | None = []

    @property
    def order(self) -> list[NetworkId]:
        """IDs of all networks, ascending."""
        if self._order is None:
            self._order = sorted(self.networks)
        return self._order

    def member_count(self) -> int:
        return sum(len(network.members) for network in self.networks.values())

    def put(self, network: Network) -> None:
        self.networks[network.nwid] = network
        self._order = None

    def remove(self, nwid: NetworkId) -> Network | None:
        self._order = None
        return self.networks.pop(nwid, None)

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks[nwid] for nwid in self.order)
