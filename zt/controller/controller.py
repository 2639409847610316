"""The controller of a node: what the API, the service and the nodes' requests share."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from zt.controller import documents
from zt.controller.changes import Changes, Draft, NotFound
from zt.controller.counters import Counters
from zt.controller.decisions import login_expiry, login_required
from zt.controller.documents import Document
from zt.controller.link import MemberLink
from zt.controller.logins import NONCE_FIELD, Logins
from zt.controller.requests import Requests
from zt.controller.revocations import MARGIN_MS, Revocations
from zt.controller.settings import Settings
from zt.controller.sightings import Sightings
from zt.controller.state import Member, Network, State
from zt.controller.storage.interface import Store, StoreUnavailable
from zt.controller.tokens import Principal, Tokens
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import MAX_WINDOW

log = logging.getLogger(__name__)

API_VERSION = 4
ID_TRIES = 100_000
LOCAL = "local"
"""The actor of changes made with the node's own token."""
REVOKING = ("member.deauthorize", "member.delete")
LOGIN_CHECK_S = 0.5
DAY_MS = 86_400_000


class NoFreeId(Exception):
    """Every network ID that was tried is in use."""


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Controller:
    """Serves the networks whose IDs begin with the node's address.

    Every method runs on the event loop. Reads answer from memory; writes return when they are
    stored, and raise StoreUnavailable while the database is away.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        link: MemberLink,
        *,
        now_ms: Callable[[], int] = wall_ms,
        random: Callable[[int], bytes] = secrets.token_bytes,
        settings: Settings = Settings(),  # noqa: B008 - frozen
    ) -> None:
        """`identity` has the private key; `now_ms` is the node's clock."""
        self.identity = identity
        self.settings = settings
        self.now_ms = now_ms
        self.state = State()
        self.log_changed = asyncio.Event()
        """Set when there are new log entries; take it before reading them."""
        self._random = random
        self.store = store
        self.counters = Counters()
        self.changes = Changes(store, self.state, self, now_ms)
        self.logins = Logins(store, now_ms, random, settings)
        self._requests = Requests(
            identity, self.state, link, self.counters, now_ms, random, settings, self.logins
        )
        self._requests.changes = self.changes
        self._requests.seen = self._seen
        self._revocations = Revocations(identity, link, now_ms, random)
        self._sightings = Sightings(store, self.state, now_ms)
        self.tokens = Tokens(store, now_ms, random)
        self.changes.reload = self.tokens.follow
        self._upkeep: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Open the store and read it. Raises StoreError, StoreUnavailable."""
        await self.changes.start()
        await self.tokens.load()
        await self._sightings.start()
        await self._restore_revocations()
        await self._revocations.start()
        await self._requests.start()
        self._upkeep = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        """Store what is under way and close the store."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        await self._requests.stop()
        await self._revocations.stop()
        await self._sightings.stop()
        await self.changes.stop()
        await self.store.close()

    async def _restore_revocations(self) -> None:
        """What members must still learn: everybody put out within the longest window."""
        since = self.now_ms() - MAX_WINDOW
        for event in await self.store.events_since(since, REVOKING):
            nwid, address = NetworkId.parse(event.nwid), Address.parse(event.member)
            network = self.state.networks.get(nwid)
            if network is None or ((member := network.members.get(address)) and member.authorized):
                continue
            self._revocations.revoke(nwid, [address], network.plan.window_ms, event.time_ms)

    async def _keep_up(self) -> None:
        """Sessions that end, waiting members that nobody has seen for long, old log entries."""
        next_tidy_ms = 0
        while True:
            await asyncio.sleep(LOGIN_CHECK_S)
            now_ms = self.now_ms()
            self._end_logins(now_ms)
            if now_ms >= next_tidy_ms:
                next_tidy_ms = now_ms + DAY_MS
                await self._tidy(now_ms)

    def _end_logins(self, now_ms: int) -> None:
        self.counters.login_checks += 1
        sessions = self._requests.sessions
        for key in [key for key, expiry_ms in sessions.items() if expiry_ms <= now_ms]:
            del sessions[key]
            network = self.state.networks.get(key[0])
            member = network.members.get(key[1]) if network is not None else None
            if network is None or member is None:
                continue
            if not login_required(member.fields(), network.plan):
                continue
            expiry_ms = login_expiry(member.fields())
            if expiry_ms <= now_ms:
                self.counters.login_timeouts += 1
                self._put_out(network, [key[1]], now_ms)
            else:
                sessions[key] = expiry_ms

    async def _tidy(self, now_ms: int) -> None:
        forgotten_ms = now_ms - self.settings.waiting_days * DAY_MS
        for network in self.state:
            for address in list(network.waiting):
                sighting = network.sightings.get(address)
                if sighting is not None and sighting.last_ms < forgotten_ms:
                    await self._requests.forget(network.nwid, address)
        try:
            before_ms = now_ms - self.settings.log_days * DAY_MS
            await self.store.prune_events(before_ms, self.settings.log_entries)
            await self.logins.tidy()
        except StoreUnavailable as error:
            log.debug("old log entries stay: %s", error)

    # Requests of nodes

    def request(
        self,
        nwid: NetworkId,
        identity: Identity,
        metadata: bytes,
        remote: InetAddress | None,
        request_id: int,
    ) -> None:
        """A NETWORK_CONFIG_REQUEST, as the node's action of that name has it. Returns at once; the
        answer goes through the link."""
        self._requests.request(nwid, identity, metadata, remote, request_id)

    def _seen(self, network: Network, address: Address) -> None:
        self._sightings.seen(network, address)
        self._revocations.seen(network.nwid, address, asks=True)

    # What follows from a change (`changes.Watcher`)

    def network_changed(self, network: Network) -> None:
        self.counters.network_changes += 1
        self._requests.push_network(network)

    def network_removed(self, network: Network) -> None:
        self.counters.network_changes += 1
        # Only certificates of this age are still accepted by others.
        since_ms = self.now_ms() - network.plan.window_ms - MARGIN_MS
        recent = [a for a, sighting in network.sightings.items() if sighting.last_ms >= since_ms]
        self._put_out(network, recent, self.now_ms())

    def member_changed(
        self, network: Network, address: Address, old: Member | None, new: Member | None, own: bool
    ) -> None:
        before = old is not None and old.authorized
        after = new is not None and new.authorized
        self.logins.forget(network.nwid, address)
        if before and not after:
            self.counters.deauthorizations += 1
            self._put_out(network, [address], self.now_ms())
        elif after and not before:
            self.counters.authorizations += 1
        else:
            self.counters.member_changes += 1
        if after and not own:
            self._requests.push(network, address)
            # A session that somebody has ended by hand.
            session = network.nwid, address
            if session in self._requests.sessions and new is not None:
                self._requests.sessions[session] = login_expiry(new.fields())

    async def log_in(
        self, nonce: str, state: str | None, ends_ms: int, actor: str = LOCAL
    ) -> tuple[NetworkId, Address]:
        """Somebody has logged in for a member: whose nonce that is, until then. No state: what the
        nonce has opened before goes on.

        Raises LoginRefused, and NotFound for a member that is gone.
        """
        if state is None:
            row = await self.logins.refresh(nonce, ends_ms)
        else:
            row = await self.logins.use(nonce, state, ends_ms)
        nwid, address = NetworkId.parse(row.nwid), Address.parse(row.member)
        session = {"authenticationExpiryTime": ends_ms, NONCE_FIELD: nonce}
        await self.put_member(nwid, address, {}, actor, session)
        return nwid, address

    def logged(self) -> None:
        changed, self.log_changed = self.log_changed, asyncio.Event()
        changed.set()

    def _put_out(self, network: Network, members: list[Address], now_ms: int) -> None:
        self._revocations.revoke(network.nwid, members, network.plan.window_ms, now_ms)
        for address, sighting in network.sightings.items():
            if sighting.online(now_ms):
                self._revocations.seen(network.nwid, address)

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return self._requests.waiting

    def authenticate(self, token: str) -> Principal | None:
        """Whose API token that is; None if it is none of this controller's."""
        return self.tokens.authenticate(token)

    # Reading

    @property
    def address(self) -> Address:
        return self.identity.address

    def status(self) -> Document:
        return {
            "controller": True,
            "apiVersion": API_VERSION,
            "clock": wall_ms(),
            "databaseReady": self.changes.unavailable is None,
        }

    def network(self, nwid: NetworkId) -> Network:
        """Raises NotFound."""
        self.counters.network_reads += 1
        return self._network(nwid)

    def networks(self) -> State:
        """All networks, to be listed."""
        self.counters.network_lists += 1
        return self.state

    def members(self, nwid: NetworkId) -> Network:
        """The network whose members are to be listed. Raises NotFound."""
        self.counters.member_lists += 1
        return self._network(nwid)

    def _network(self, nwid: NetworkId) -> Network:
        network = self.state.networks.get(nwid)
        if network is None:
            raise NotFound(f"network {nwid}")
        return network

    def member(self, nwid: NetworkId, address: Address) -> Member:
        """Raises NotFound."""
        self.counters.member_reads += 1
        member = self._network(nwid).members.get(address)
        if member is None:
            raise NotFound(f"member {address} of network {nwid}")
        return member

    # Writing. Bodies are parsed JSON of any kind; the answers are objects as JSON text.

    async def create_network(self, body: Any, actor: str = LOCAL) -> bytes:
        """A network with a random ID. Raises BodyError, NoFreeId."""
        for _ in range(ID_TRIES):
            number = int.from_bytes(self._random(3)) or 1
            nwid = NetworkId(self.address << 24 | number)
            if nwid not in self.state.networks:
                return await self.put_network(nwid, body, actor)
        raise NoFreeId

    async def put_network(
        self, nwid: NetworkId, body: Any, actor: str = LOCAL, extra: Document | None = None
    ) -> bytes:
        """Create, or update: with `extra` (`documents.extend`) only that. Raises BodyError, and
        NotFound."""

        def make(network: Network | None, current: Document | None) -> Draft:
            if extra is not None and network is None:
                raise NotFound(f"network {nwid}")
            made = documents.update_network(current, nwid, body, self.now_ms())
            documents.extend(made, extra or {})
            return Draft(made)

        await self.changes.change((nwid, None), make, actor)
        return self.network(nwid).document

    async def delete_network(self, nwid: NetworkId, actor: str = LOCAL) -> bytes:
        """Returns the last state. Raises NotFound."""
        last = b""

        def make(network: Network | None, current: Document | None) -> Draft:
            nonlocal last
            if network is None:
                raise NotFound(f"network {nwid}")
            last = network.document
            return Draft(None)

        await self.changes.change((nwid, None), make, actor)
        return last

    async def put_member(
        self,
        nwid: NetworkId,
        address: Address,
        body: Any,
        actor: str = LOCAL,
        extra: Document | None = None,
    ) -> bytes:
        """Create, or update: with `extra` (`documents.extend`) only that. Raises BodyError, and
        NotFound, also for an unknown network."""

        def make(network: Network | None, current: Document | None) -> Draft:
            if network is None:
                raise NotFound(f"network {nwid}")
            if extra is not None and current is None:
                raise NotFound(f"member {address} of network {nwid}")
            made = documents.update_member(current, nwid, address, body, self.now_ms())
            documents.extend(made, extra or {})
            return Draft(made)

        await self.changes.change((nwid, address), make, actor)
        return self.member(nwid, address).document

    async def delete_member(self, nwid: NetworkId, address: Address, actor: str = LOCAL) -> bytes:
        """Returns the last state. Raises NotFound."""
        last = b""

        def make(network: Network | None, current: Document | None) -> Draft:
            nonlocal last
            last = self.member(nwid, address).document
            return Draft(None)

        await self.changes.change((nwid, address), make, actor)
        return last
