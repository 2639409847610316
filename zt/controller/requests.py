"""Configs for members: in answer to their requests, and pushed when something changes.

A request is checked where it arrives, decided on the event loop from the state in memory, stored if
it changes the member, and only then built and signed in a worker thread and sent. A push runs the
same procedure with what the last request said.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from zt.controller.builders import Builders
from zt.controller.changes import Changes, Draft
from zt.controller.config import Recipe, login_error
from zt.controller.counters import Counters
from zt.controller.decisions import (
    Decision,
    Outcome,
    allocate,
    assign,
    decide,
    login_expiry,
    login_required,
    sought,
)
from zt.controller.documents import Document
from zt.controller.link import MemberLink
from zt.controller.logins import Logins
from zt.controller.settings import Settings
from zt.controller.state import Member, Network, Sighting, State
from zt.controller.storage.interface import StoreUnavailable
from zt.protocol.address import Address, NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import RequestMetadata, Sso
from zt.protocol.packet import ErrorCode

log = logging.getLogger(__name__)

SPACING_MS = 1000
"""A request is ignored unless more time than this has passed since the last accepted one."""
STRANGERS_LIMIT = 10_000
"""Nodes without a member object whose last request is remembered."""

_metadata = lru_cache(1024)(RequestMetadata.decode)


class Requests:
    """See the module. `changes` is set before `start`."""

    changes: Changes

    def __init__(
        self,
        identity: Identity,
        state: State,
        link: MemberLink,
        counters: Counters,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        settings: Settings,
        logins: Logins,
    ) -> None:
        self._identity = identity
        self._state = state
        self._link = link
        self._counters = counters
        self._now_ms = now_ms
        self._random = random
        self._settings = settings
        self._logins = logins
        self._builders: Builders | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: OrderedDict[tuple[NetworkId, Address], int] = OrderedDict()
        self._pushes: OrderedDict[tuple[NetworkId, Address], None] = OrderedDict()
        self._pushers: list[asyncio.Task[None]] = []
        self._push_wake = asyncio.Event()
        self.sessions: dict[tuple[NetworkId, Address], int] = {}
        """When the sessions of members that were given a config end (single sign-on)."""
        self.seen: Callable[[Network, Address], None] = lambda network, address: None
        """Called for every accepted request of a member."""

    async def start(self) -> None:
        self._builders = Builders(self._settings.workers, self._identity, self._random)
        self._pushers = [
            asyncio.create_task(self._push_all()) for _ in range(2 * self._settings.workers)
        ]

    async def stop(self) -> None:
        for task in (*self._pushers, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._pushers, *self._tasks, return_exceptions=True)
        if self._builders is not None:
            self._builders.stop()

    # Requests

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._tasks)

    def request(
        self,
        nwid: NetworkId,
        identity: Identity,
        metadata: bytes,
        remote: InetAddress | None,
        request_id: int,
    ) -> None:
        """See `Controller.request`."""
        if nwid.controller != self._identity.address:
            return
        if len(self._tasks) >= self._settings.requests_limit:
            self._counters.requests_dropped += 1
            return
        address = identity.address
        network = self._state.networks.get(nwid)
        now_ms = self._now_ms()
        sighting = network.sightings.get(address) if network is not None else None
        client = _metadata(metadata)
        if network is not None and address in network.members:
            if sighting is None:
                sighting = Sighting()
            if now_ms - sighting.last_ms <= SPACING_MS:
                return
            sighting.note(now_ms, remote, client)
            network.saw(address, sighting)
            self.seen(network, address)
        elif not self._stranger(nwid, address, now_ms):
            return
        self._counters.requests += 1
        self._counters.member_reads += 1
        self._spawn(self._answer(nwid, identity, client, remote, request_id))

    def _stranger(self, nwid: NetworkId, address: Address, now_ms: int) -> bool:
        """May a node that is no member be answered? What is remembered of strangers is bounded."""
        key = nwid, address
        if now_ms - self._strangers.get(key, -SPACING_MS - 1) <= SPACING_MS:
            return False
        self._strangers[key] = now_ms
        self._strangers.move_to_end(key)
        if len(self._strangers) > STRANGERS_LIMIT:
            self._strangers.popitem(last=False)
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("answering a config request failed", exc_info=error)

    async def _answer(
        self,
        nwid: NetworkId,
        identity: Identity,
        client: RequestMetadata,
        remote: InetAddress | None,
        request_id: int,
    ) -> None:
        address = identity.address
        decision = self._settled(nwid, identity, client)
        if decision is None:
            decision = await self._decide(nwid, identity, client)
        network = self._state.networks.get(nwid)
        if network is None:
            self._refuse(address, nwid, request_id, ErrorCode.OBJECT_NOT_FOUND)
            return
        if decision is None:
            return
        if address in network.members and address not in network.sightings:
            # The request itself has made the member.
            sighting = Sighting()
            sighting.note(self._now_ms(), remote, client)
            network.saw(address, sighting)
            self.seen(network, address)
        if decision.outcome is Outcome.DENIED:
            self._refuse(address, nwid, request_id, ErrorCode.NETWORK_ACCESS_DENIED)
        elif decision.outcome is Outcome.LOGIN:
            await self._send_to_login(network, address, request_id)
        elif decision.member is not None:
            if login_required(decision.member, network.plan):
                self.sessions[nwid, address] = login_expiry(decision.member)
            chunks = await self._build(network, identity, decision.member, client)
            self._link.send_config(address, nwid, chunks, request_id)

    async def _send_to_login(self, network: Network, address: Address, request_id: int) -> None:
        sso = Sso(enabled=True)
        if address in network.members:  # else there was no room for one more stranger
            try:
                sso = await self._logins.challenge(network.nwid, address, network.plan)
            except StoreUnavailable:
                return  # it asks again
        code = ErrorCode.AUTHENTICATION_REQUIRED
        self._refuse(address, network.nwid, request_id, code, login_error(sso))

    def _refuse(
        self, address: Address, nwid: NetworkId, request_id: int, code: ErrorCode, data: bytes = b""
    ) -> None:
        self._link.send_config_error(address, nwid, request_id, code, data)

    def _settled(
        self, nwid: NetworkId, identity: Identity, client: RequestMetadata
    ) -> Decision | None:
        """What the member's last request led to, while everything is as it was then.

        So it is with nearly all requests: every member asks every minute.
        """
        network = self._state.networks.get(nwid)
        if network is None or (sighting := network.sightings.get(identity.address)) is None:
            return None
        member = network.members.get(identity.address)
        if member is None or sighting.settled != (member, network.plan, client, network.book.moves):
            return None
        fields = member.fields()
        if fields.get("identity") != identity.to_text():
            return None
        return Decision(Outcome.CONFIG, fields)

    def _settle(
        self, network: Network, member: Member, decision: Decision, client: RequestMetadata
    ) -> None:
        """Note that a request has changed nothing, if the next one will not either."""
        sighting = network.sightings.get(member.address)
        fields, plan = decision.member, network.plan
        if sighting is None or fields is None or decision.outcome is not Outcome.CONFIG:
            return
        if login_required(fields, plan):
            return  # until the session ends
        given = assign(network.nwid, plan, member.address, fields, network.book)
        if not any(sought(plan, fields, given)):
            sighting.settled = (member, plan, client, network.book.moves)

    async def _decide(
        self, nwid: NetworkId, identity: Identity, client: RequestMetadata
    ) -> Decision | None:
        """Decide and store; None if there is nothing to say.

        While the database is away nothing changes: members get the config that they have a right
        to by what is stored, and nobody new is admitted.
        """
        address = identity.address
        decision: Decision | None = None
        before: Member | None = None

        def make(network: Network | None, current: Document | None) -> Draft | None:
            nonlocal decision, before
            decision = None
            if network is None:
                return None
            plan = network.plan
            before = network.members.get(address)
            decision = decide(nwid, plan, current, identity, client, self._now_ms())
            member = decision.member
            if member is None:
                return None
            if decision.outcome is Outcome.CONFIG:
                given = assign(nwid, plan, address, member, network.book)
                taken = allocate(plan, address, member, given, network.book, self._random)
                return Draft(member, taken)
            if current is None and not self._room(network):
                return None
            return Draft(member)

        try:
            await self.changes.change((nwid, address), make, f"node:{address}", own=True)
        except StoreUnavailable:
            if decision is None or decision.outcome is not Outcome.CONFIG:
                return decision
            return self._as_stored(nwid, identity, client)
        network = self._state.networks.get(nwid)
        unchanged = network is not None and network.members.get(address) is before
        if network is not None and before is not None and decision is not None and unchanged:
            self._settle(network, before, decision, client)
        return decision

    def _as_stored(
        self, nwid: NetworkId, identity: Identity, client: RequestMetadata
    ) -> Decision | None:
        network = self._state.networks.get(nwid)
        if network is None or (member := network.members.get(identity.address)) is None:
            return None
        stored = member.fields()
        decision = decide(nwid, network.plan, stored, identity, client, self._now_ms())
        if decision.outcome is not Outcome.CONFIG or not member.authorized:
            return None
        return decision._replace(member=stored)

    def _room(self, network: Network) -> bool:
        """May one more refused stranger become a member object? The longest unseen one makes room
        (Q17)."""
        if len(network.waiting) < self._settings.waiting_limit:
            return True
        oldest = next(iter(network.waiting))
        sighting = network.sightings.get(oldest)
        if sighting is not None and sighting.online(self._now_ms()):
            return False
        self._spawn(self.forget(network.nwid, oldest))
        return True

    async def forget(self, nwid: NetworkId, address: Address) -> None:
        """Delete a member that still waits."""

        def make(network: Network | None, current: Document | None) -> Draft | None:
            waits = network is not None and address in network.waiting
            return Draft(None) if waits else None

        try:
            await self.changes.change((nwid, address), make, "controller")
        except StoreUnavailable as error:
            log.debug("a waiting member stays: %s", error)

    async def _build(
        self, network: Network, identity: Identity, member: Document, client: RequestMetadata
    ) -> list[bytes]:
        plan = network.plan
        recipe = Recipe(
            nwid=network.nwid,
            plan=plan,
            identity=identity,
            member=member,
            assignment=assign(network.nwid, plan, identity.address, member, network.book),
            bridges=sorted(network.bridges),
            rules_engine=client.rules_revision,
            sso=await self._logins.session(network.nwid, plan, member),
            now_ms=self._now_ms(),
        )
        assert self._builders is not None
        return await self._builders.build(recipe)

    # Pushes

    def push(self, network: Network, address: Address) -> None:
        """Send a member its config soon, if it is online and has asked this process before."""
        sighting = network.sightings.get(address)
        if sighting is not None and sighting.reachable(self._now_ms()):
            self._pushes[network.nwid, address] = None
            self._push_wake.set()

    def push_network(self, network: Network) -> None:
        """Send every member of a network its config, one after the other (Q18)."""
        for address in network.sightings:
            self.push(network, address)

    async def _push_all(self) -> None:
        while True:
            await self._push_wake.wait()
            while self._pushes:
                key, _ = self._pushes.popitem(last=False)
                try:
                    await self._push(*key)
                except Exception:
                    log.exception("pushing a config failed")
            self._push_wake.clear()

    async def _push(self, nwid: NetworkId, address: Address) -> None:
        network = self._state.networks.get(nwid)
        if network is None or (member := network.members.get(address)) is None:
            return
        sighting = network.sightings.get(address)
        if sighting is None or sighting.client is None:
            return
        try:
            identity = Identity.parse(member.fields().get("identity", ""))
        except (DecodeError, AttributeError, TypeError):
            return
        decision = await self._decide(nwid, identity, sighting.client)
        if decision is None or decision.outcome is not Outcome.CONFIG or decision.member is None:
            return
        chunks = await self._build(network, identity, decision.member, sighting.client)
        self._link.send_config(address, nwid, chunks, None)
