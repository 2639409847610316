"""How objects change: made from the current state, stored in batches, then shown to everybody.

An object has one change under way at a time. The state in memory follows the database: it is
replaced after the commit, in the order of commits, so nothing is ever shown, sent or acknowledged
that a crash could take back. Changes of different objects share a transaction, and so one sync of
the disk.

Several controllers on one database: each reads the log entries of the others when it is woken, and
fetches what they name. A change made from a state that another controller has just replaced is
refused by the store and made again from the new state.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from zt.controller.bodies import dump, load
from zt.controller.decisions import listed_ips
from zt.controller.documents import Document, revise, same
from zt.controller.files import import_objects, read
from zt.controller.state import Member, Network, State
from zt.controller.storage.interface import (
    Change,
    Claim,
    Conflict,
    Event,
    ObjectRow,
    Store,
    StoreUnavailable,
)
from zt.protocol.address import Address, NetworkId
from zt.protocol.coerce import boolean, integer
from zt.protocol.inet import ip_text, parse_ip

log = logging.getLogger(__name__)

BATCH_LIMIT = 500
QUEUE_LIMIT = 20_000
"""Changes that may wait for the database; more are refused as if it were away."""
ATTEMPTS = 20
"""How often a change is made again after conflicts with other controllers."""
RETRY_S = 1.0
EVENTS_AT_ONCE = 1000
DETAIL_LIMIT = 65_536
"""Bytes of old and new values kept in the log per change; beyond it only the fields' names."""

T = TypeVar("T")

Key = tuple[NetworkId, Address | None]
"""A network, or one of its members."""


class NotFound(Exception):
    """There is no such network or member."""


class Draft(NamedTuple):
    """What an object shall become."""

    document: Document | None
    """None: deleted."""
    reserved: Sequence[bytes] = ()
    """Addresses that were just taken from pools for it."""


Make = Callable[[Network | None, Document | None], Draft | None]
"""From the network and the object as they are; None changes nothing. May raise."""


class Watcher(Protocol):
    """Is told of every change, by whatever controller, right after the state has it."""

    def network_changed(self, network: Network) -> None: ...

    def network_removed(self, network: Network) -> None: ...

    def member_changed(
        self, network: Network, address: Address, old: Member | None, new: Member | None, own: bool
    ) -> None:
        """`own`: the member's own request made the change, and its answer shows it."""

    def logged(self) -> None:
        """There are new log entries."""


@dataclass(slots=True)
class _Entry:
    change: Change
    own: bool
    done: "asyncio.Future[Conflict | None]"


class Changes:
    """The only writer of `State`."""

    def __init__(
        self, store: Store, state: State, watcher: Watcher, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._state = state
        self._watcher = watcher
        self._now_ms = now_ms
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._queue: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._feed_wake = asyncio.Event()
        self._fed_seq = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._storing = asyncio.Lock()
        """Held from a write to the database until the state shows it."""
        self._away: str | None = "not started"
        self.reload: Callable[[Sequence[Event]], Awaitable[None]] | None = None
        """Is given foreign log entries that belong to no object, such as those of API tokens."""

    # Life

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be stored now; None if it can."""
        return self._away

    @property
    def last_seq(self) -> int:
        """The newest log entry that the state reflects."""
        return self._fed_seq

    async def start(self) -> None:
        """Read everything. Raises StoreError, StoreUnavailable."""
        self._store.listen(self._feed_wake.set, self._lost)
        await self._store.open()
        if self._store.folder is not None and await self._store.last_seq() == 0:
            objects = await asyncio.to_thread(lambda folder: list(read(folder)), self._store.folder)
            if any(await import_objects(self._store, objects, self._now_ms())):
                log.warning("took over the objects in %s", self._store.folder)
        await self._load()
        self._away = None
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._feed())]

    async def stop(self) -> None:
        """Store what has been queued, then end."""
        if self._away is None:
            await asyncio.gather(*(entry.done for entry in self._queue), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        self._refuse(StoreUnavailable("the controller has stopped"))

    async def _load(self) -> None:
        self._fed_seq = await self._store.last_seq()
        async for rows in self._store.objects():
            for row in rows:
                self._show(row)
        self._own(await self._store.owners())

    async def _reload(self) -> None:
        """Compare everything with the database; what is the same stays visible meanwhile."""
        async with self._storing:
            seq = await self._store.last_seq()
            changed: list[ObjectRow] = []
            stored: set[tuple[str, str]] = set()
            async for rows in self._store.objects():
                for row in rows:
                    stored.add(row.key)
                    network = self._state.networks.get(NetworkId.parse(row.key[0]))
                    if row.document != _document(network, row.key[1]):
                        changed.append(row)
            owners = await self._store.owners()
            for network in list(self._state.networks.values()):
                nwid = str(network.nwid)
                gone = [m for m in network.members if (nwid, str(m)) not in stored]
                if (nwid, "") not in stored:
                    self._follow((nwid, ""), 0, None, False)
                    continue
                for address in gone:
                    self._follow((nwid, str(address)), 0, None, False)
            for row in changed:
                self._follow(row.key, row.revision, row.document, False)
            self._own(owners)
            self._fed_seq = seq

    def _own(self, owners: Iterable[tuple[str, str, str]]) -> None:
        """Addresses that several members list belong to whom the store says."""
        for nwid, ip, member in owners:
            network = self._state.networks.get(NetworkId(int(nwid, 16)))
            if network is not None and network.book.shared:
                network.book.set_owner(parse_ip(ip), Address(int(member, 16)))

    def _show(self, row: ObjectRow) -> None:
        nwid = NetworkId(int(row.key[0], 16))
        network = self._state.networks.get(nwid)
        if not row.key[1]:
            if network is None:
                self._state.put(Network(nwid, row.revision, row.document))
            else:
                network.replace(row.revision, row.document)
        elif network is not None:
            network.put(Member(Address(int(row.key[1], 16)), row.revision, row.document))

    # Making changes

    async def change(self, key: Key, make: Make, actor: str, *, own: bool = False) -> None:
        """Bring an object to what `make` says; returns once that is stored and in the state.

        Raises what `make` raises, and StoreUnavailable.
        """
        async with self._lock(key):
            for _ in range(ATTEMPTS):
                network = self._state.networks.get(key[0])
                current = _fields(network, key[1])
                draft = make(network, current)
                if draft is None:
                    return
                try:
                    change = self._prepare(key, network, current, draft, actor)
                    if change is None:
                        return
                    conflict = await self._store_one(change, own)
                except BaseException:
                    _release(network, key[1], draft.reserved)
                    raise
                if conflict is None:
                    return
                _release(network, key[1], draft.reserved)
                await self._resolve(key, conflict)
        raise StoreUnavailable("other controllers keep changing the same object")

    def _lock(self, key: Key) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _prepare(
        self,
        key: Key,
        network: Network | None,
        current: Document | None,
        draft: Draft,
        actor: str,
    ) -> Change | None:
        nwid, address = key
        new = draft.document
        if new is not None:
            if current is not None and _unchanged(network, address, current, new):
                return None
            if (new := revise(current, new)) is None:
                return None
        expected = _revision(network, address)
        claims, releases, heirs = _addresses(network, address, new, draft.reserved)
        return Change(
            key=(str(nwid), "" if address is None else str(address)),
            expected=expected,
            revision=0 if new is None else max(integer(new["revision"]), expected + 1),
            document=None if new is None else dump(new),
            claims=claims,
            releases=releases,
            heirs=heirs,
            time_ms=self._now_ms(),
            actor=actor,
            action=f"{'network' if address is None else 'member'}.{_verb(current, new)}",
            detail=_detail(current, new),
        )

    async def _store_one(self, change: Change, own: bool) -> Conflict | None:
        if self._away is not None:
            raise StoreUnavailable(self._away)
        if len(self._queue) >= QUEUE_LIMIT:
            raise StoreUnavailable("too many changes wait for the database")
        entry = _Entry(change, own, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._wake.set()
        # A caller that gives up does not undo what is under way; the lock must outlast it.
        return await _outlast(entry.done)

    async def _resolve(self, key: Key, conflict: Conflict) -> None:
        """Learn what another controller did, so that the next attempt starts from it."""
        network = self._state.networks.get(key[0])
        for ip, member in conflict.taken.items():
            if network is not None:
                network.book.claim(parse_ip(ip), Address.parse(member))
        nwid = str(key[0])
        if key[1] is not None and (nwid, "") not in await self._store.fetch([(nwid, "")]):
            self._follow((nwid, ""), 0, None, False)
        await self._refresh([(nwid, "" if key[1] is None else str(key[1]))])

    # Storing them

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._write_batch(self._next_batch())

    def _next_batch(self) -> list[_Entry]:
        batch: list[_Entry] = []
        while self._queue and len(batch) < BATCH_LIMIT:
            entry = self._queue.popleft()
            batch.append(entry)
            if entry.change.document is None and not entry.change.key[1]:
                break  # nothing follows the deletion of a network
        return batch

    async def _write_batch(self, batch: list[_Entry]) -> None:
        async with self._storing:
            failed = await self._store_batch(batch)
        for entry in failed:  # one bad change must not take the others with it
            await self._write_batch([entry])

    async def _store_batch(self, batch: list[_Entry]) -> list[_Entry]:
        """Returns what has to be tried again, each change by itself."""
        try:
            applied = await self._store.apply([entry.change for entry in batch])
        except StoreUnavailable as error:
            self._lost(str(error))
            for entry in batch:
                entry.done.set_exception(error)
            self._refuse(error)
            return []
        except Exception as error:
            if len(batch) > 1:
                return batch
            log.exception("storing a change of %s failed", batch[0].change.key)
            batch[0].done.set_exception(error)
            return []
        if applied.first_seq == self._fed_seq + 1:
            self._fed_seq = applied.last_seq
        else:
            self._feed_wake.set()
        for entry, conflict in zip(batch, applied.outcomes, strict=True):
            change = entry.change
            try:
                if conflict is None:
                    self._follow(change.key, change.revision, change.document, entry.own)
                entry.done.set_result(conflict)
            except Exception as error:
                log.exception("following a change of %s failed", change.key)
                entry.done.set_exception(error)
        self._watcher.logged()
        return []

    def _refuse(self, error: StoreUnavailable) -> None:
        while self._queue:
            self._queue.popleft().done.set_exception(error)

    def _follow(
        self, key: tuple[str, str], revision: int, document: bytes | None, own: bool
    ) -> None:
        """Bring the state to what is stored, and tell the watcher."""
        nwid = NetworkId.parse(key[0])
        network = self._state.networks.get(nwid)
        if not key[1]:
            if document is None:
                if (removed := self._state.remove(nwid)) is not None:
                    self._watcher.network_removed(removed)
                return
            if network is None:
                network = Network(nwid, revision, document)
                self._state.put(network)
            else:
                network.replace(revision, document)
            self._watcher.network_changed(network)
        elif network is not None:
            address = Address.parse(key[1])
            old = network.members.get(address)
            new = None if document is None else Member(address, revision, document)
            if new is not None:
                network.put(new)
            elif old is not None:
                network.remove(address)
            self._watcher.member_changed(network, address, old, new, own)
            if new is None:
                network.sightings.pop(address, None)

    # Following other controllers, and the way back after the database was away

    def _lost(self, reason: str = "the connection to the database was lost") -> None:
        if self._away is None:
            log.warning("controller database: %s", reason)
        self._away = reason
        self._feed_wake.set()

    async def _feed(self) -> None:
        while True:
            await self._feed_wake.wait()
            self._feed_wake.clear()
            try:
                if self._away is None:
                    await self._catch_up(foreign_only=True)
                else:
                    await self._recover()
            except StoreUnavailable as error:
                self._lost(str(error))
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("following the controller database failed")
                await asyncio.sleep(RETRY_S)
                self._feed_wake.set()

    async def _recover(self) -> None:
        """Whether the last batch was stored is unknown, so our own log entries count here too."""
        await self._store.ping()
        await self._catch_up(foreign_only=False)
        log.warning("controller database: back")
        self._away = None

    async def _catch_up(self, *, foreign_only: bool) -> None:
        # While the entries are read, a batch of ours may move `_fed_seq` on.
        while events := await self._store.events(after := self._fed_seq, EVENTS_AT_ONCE):
            if events[0].seq != after + 1:
                await self._reload()  # the entries in between have been forgotten
                self._watcher.logged()
                return
            fresh = [
                event
                for event in events
                if not (foreign_only and event.origin == self._store.origin)
            ]
            keys = {(event.nwid, event.member) for event in fresh if event.nwid}
            async with AsyncExitStack() as stack:
                # What is read must not be older than a change of ours that is under way.
                for name in sorted(keys):
                    await stack.enter_async_context(self._lock(_key(name)))
                await self._refresh(sorted(keys))
            if self.reload is not None:
                await self.reload(fresh)
            self._fed_seq = max(self._fed_seq, events[-1].seq)
            self._watcher.logged()

    async def _refresh(self, keys: Sequence[tuple[str, str]]) -> None:
        rows = await self._store.fetch(keys)
        shared: set[NetworkId] = set()
        for key in keys:
            row = rows.get(key)
            nwid = NetworkId.parse(key[0])
            network = self._state.networks.get(nwid)
            if (None if row is None else row.document) == _document(network, key[1]):
                continue
            if row is None:
                self._follow(key, 0, None, False)
                continue
            self._follow(key, row.revision, row.document, False)
            network = self._state.networks.get(nwid)
            if key[1] and network is not None:
                address = Address.parse(key[1])
                ips = network.members[address].ips
                if any(network.book.heir(ip, address) is not None for ip in ips):
                    shared.add(nwid)
        for nwid in shared:
            self._own(await self._store.owners(str(nwid)))


async def _outlast(future: "asyncio.Future[T]") -> T:
    """Wait for a result even if the waiting task is cancelled meanwhile; then the task is."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return future.result()


def _fields(network: Network | None, address: Address | None) -> Document | None:
    if network is None:
        return None
    if address is None:
        return network.fields
    member = network.members.get(address)
    return None if member is None else load(member.document)


def _revision(network: Network | None, address: Address | None) -> int:
    """As the store has it; 0 if it does not exist."""
    if network is None:
        return 0
    if address is None:
        return network.revision
    member = network.members.get(address)
    return 0 if member is None else member.revision


def _unchanged(
    network: Network | None, address: Address | None, current: Document, new: Document
) -> bool:
    """Quickly true for most of what does not change: the poll of every member, every minute."""
    stored = _document(network, "" if address is None else str(address))
    return dump(new | {"revision": current.get("revision")}) == stored


def _document(network: Network | None, member: str) -> bytes | None:
    if network is None:
        return None
    if not member:
        return network.document
    found = network.members.get(Address.parse(member))
    return found.document if found else None


def _key(name: tuple[str, str]) -> Key:
    return NetworkId.parse(name[0]), Address.parse(name[1]) if name[1] else None


def _release(network: Network | None, address: Address | None, reserved: Sequence[bytes]) -> None:
    if network is not None and address is not None:
        member = network.members.get(address)
        for ip in reserved:
            if member is None or ip not in member.ips:
                network.book.release(ip, address)


def _addresses(
    network: Network | None,
    address: Address | None,
    new: Document | None,
    reserved: Sequence[bytes],
) -> tuple[tuple[Claim, ...], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Claims, releases and heirs of a change."""
    if network is None or address is None:
        return (), (), ()
    member = network.members.get(address)
    before = member.ips if member is not None else ()
    after = () if new is None else tuple(dict.fromkeys(listed_ips(new)))
    claims = tuple(Claim(ip_text(ip), ip in reserved) for ip in after if ip not in before)
    gone = [ip for ip in before if ip not in after]
    heirs = (
        (ip_text(ip), str(Address(heir)))
        for ip in gone
        if (heir := network.book.heir(ip, address)) is not None
    )
    return claims, tuple(map(ip_text, gone)), tuple(heirs)


def _verb(old: Document | None, new: Document | None) -> str:
    if new is None:
        return "delete"
    if old is None:
        return "create"
    before, after = (boolean(document.get("authorized")) for document in (old, new))
    if before != after:
        return "authorize" if after else "deauthorize"
    return "update"


def _detail(old: Document | None, new: Document | None) -> bytes:
    """The fields that differ with their old and new values."""
    old, new = old or {}, new or {}
    names = [
        name
        for name in sorted(old.keys() | new.keys())
        if name != "revision" and not (name in old and name in new and same(old[name], new[name]))
    ]
    detail = dump(
        {
            name: {
                **({"old": old[name]} if name in old else {}),
                **({"new": new[name]} if name in new else {}),
            }
            for name in names
        }
    )
    return detail if len(detail) <= DETAIL_LIMIT else dump({name: {} for name in names})
