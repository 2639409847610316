"""What the controller asks of its storage, and the values that pass between them.

The controller holds everything it decides upon in memory; the store is read once at start, written
in batches, and read again only for what another controller on the same database has changed.

Every batch takes effect as a whole or not at all, batches of several controllers never interleave,
and `apply` returns after the batch has reached the disk. A change names the revision it was made
from; if the stored object has another one, the change is refused (`Conflict`) and the rest of the
batch goes on.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

Key = tuple[str, str]
"""A network (nwid, "") or a member (nwid, address), as hexadecimal text."""


class StoreError(Exception):
    """The database cannot be used at all, for a reason that one line tells."""


class StoreUnavailable(Exception):
    """The database is away for now; whether the last batch was stored is unknown."""


class Claim(NamedTuple):
    """A member's claim to an IP of its network.

    An exclusive claim (an address just taken from a pool) must be granted or the change is refused;
    any other (an address typed in by hand) is granted only if nobody else has the address.
    """

    ip: str
    exclusive: bool


class Event(NamedTuple):
    """One entry of the log, in the order of `seq`: audit, event stream and change feed in one."""

    seq: int
    time_ms: int
    actor: str
    """Who: ``local``, ``token:<name>``, ``node:<address>`` or ``controller``."""
    action: str
    """What: ``network.create``, ``member.deauthorize``, ``token.delete`` ..."""
    nwid: str
    member: str
    detail: bytes
    """JSON object: the fields that changed, with their new and old values."""
    origin: str
    """The process that made the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object's next state. Deleting a network deletes its members and their claims."""

    key: Key
    expected: int
    """Revision it was made from; 0: the object does not exist."""
    revision: int
    document: bytes | None
    """The new object as JSON; None deletes it."""
    claims: tuple[Claim, ...] = ()
    releases: tuple[str, ...] = ()
    """IPs given back. `heirs` names who gets one next: another member that lists it."""
    heirs: tuple[tuple[str, str], ...] = ()
    time_ms: int
    actor: str
    action: str
    detail: bytes = b"{}"


class Applied(NamedTuple):
    """What became of a batch."""

    outcomes: "list[Conflict | None]"
    """Per change: stored, or why it was refused."""
    first_seq: int
    last_seq: int
    """The log entries it made; the last is below the first if there are none."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A refused change: the object has another revision, or some IPs have other owners."""

    taken: dict[str, str] = field(default_factory=dict)
    """IP -> the member that has it."""


class SightingRow(NamedTuple):
    """When and where a member was last seen; written in bulk, no part of the object."""

    nwid: str
    member: str
    last_seen_ms: int
    physical: str
    version: str
    platform: str


class TokenRow(NamedTuple):
    """An API token; only a digest of the secret is kept."""

    id: str
    name: str
    digest: bytes
    scope: str
    networks: str
    """JSON array of network IDs it is limited to; empty: all."""
    created_ms: int
    expires_ms: int
    """0: never."""


class LoginRow(NamedTuple):
    """A nonce that a member was given to log in with, and the session that it has opened."""

    nonce: str
    nwid: str
    member: str
    nonce_expires_ms: int
    """Until then it can open a session."""
    session_ends_ms: int
    """0: it has not."""


class ObjectRow(NamedTuple):
    """A stored network or member."""

    key: Key
    revision: int
    document: bytes


class Store(Protocol):
    """All methods raise StoreUnavailable while the database is away."""

    folder: Path | None
    """Where an original controller's objects may lie that an empty store takes over."""

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises StoreError, StoreUnavailable."""

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Returns once the database answers."""

    def objects(self) -> AsyncIterator[Sequence[ObjectRow]]:
        """Every object in portions, networks first."""

    async def fetch(self, keys: Sequence[Key]) -> dict[Key, ObjectRow]:
        """Those of the objects that exist."""

    async def owners(self, nwid: str | None = None) -> list[tuple[str, str, str]]:
        """(nwid, IP, member) of every granted claim."""

    origin: str
    """Names this process in the log."""
    controller: str
    """The address of the controller it belongs to."""

    async def apply(self, batch: Sequence[Change]) -> Applied:
        """Store a batch durably.

        It changes no object twice, and nothing follows the deletion of a network.
        """

    async def last_seq(self) -> int: ...

    async def events(self, after: int, limit: int, nwid: str = "", member: str = "") -> list[Event]:
        """Log entries with ``seq > after``, ascending."""

    async def events_since(self, time_ms: int, actions: Sequence[str]) -> list[Event]:
        """Log entries of these kinds from that time on, ascending."""

    async def prune_events(self, before_ms: int, keep: int) -> None:
        """Forget entries older than that, but always keep the newest `keep`."""

    async def log(self, time_ms: int, actor: str, action: str, detail: bytes) -> None:
        """An entry that belongs to no object."""

    def listen(self, woken: Callable[[], None], lost: Callable[[], None]) -> None:
        """Call `woken` when another process has changed something, `lost` when the database went
        away. Before `open`."""

    async def sightings(self) -> list[SightingRow]: ...

    async def save_sightings(self, rows: Sequence[SightingRow]) -> None: ...

    async def tokens(self) -> list[TokenRow]: ...

    async def save_token(self, row: TokenRow) -> None: ...

    async def delete_token(self, token_id: str) -> None: ...

    async def setting(self, name: str, value: str) -> str:
        """What is stored under a name; the value, if nothing was until now."""

    async def open_login(self, row: LoginRow, now_ms: int) -> LoginRow:
        """Store a new nonce, unless the member has one that is unused and good: then that one."""

    async def login(self, nonce: str) -> LoginRow | None: ...

    async def extend_login(self, row: LoginRow, before_ms: int) -> bool:
        """Change when a session ends; False if it does not end at `before_ms` (any more)."""

    async def prune_logins(self, unused_ms: int, ended_ms: int) -> None:
        """Forget nonces that expired unused before one time, and sessions that ended before the
        other."""

    async def backup(self, path: str) -> dict[str, int]:
        """A consistent copy of everything as a new SQLite file; row counts by table.

        Raises StoreError if the file exists.
        """

    async def restore(self, path: str) -> dict[str, int]:
        """Fill this empty store from a backup; row counts by table. Raises StoreError."""
