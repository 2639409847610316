"""The store on a SQL database: each method of the interface as one transaction."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, insert, select

from zt.controller.storage import schema, transactions
from zt.controller.storage.database import (
    Database,
    PostgresqlDatabase,
    SqliteDatabase,
    sqlite_engine,
)
from zt.controller.storage.interface import (
    Applied,
    Change,
    Event,
    Key,
    LoginRow,
    ObjectRow,
    SightingRow,
    StoreError,
    TokenRow,
)
from zt.controller.storage.migrations import migrate

OWNER = "controller"
"""Setting: the address of the controller whose networks these are."""


class SqlStore:
    """See `interface.Store`. One database belongs to one controller address."""

    def __init__(
        self, database: SqliteDatabase | PostgresqlDatabase, controller: str, folder: Path | None
    ) -> None:
        self._database: Database = database
        self.controller = controller
        self.folder = folder
        self.origin = secrets.token_hex(8)
        self._woken: Callable[[], None] = lambda: None
        self._lost: Callable[[], None] = lambda: None

    def listen(self, woken: Callable[[], None], lost: Callable[[], None]) -> None:
        self._woken, self._lost = woken, lost

    async def open(self) -> None:
        def prepare(connection: Connection) -> None:
            migrate(connection)
            self._check_owner(connection)

        await self._database.write(prepare)
        await self._hear()

    def _check_owner(self, connection: Connection) -> None:
        """A database holds the networks of one controller; an empty one becomes ours."""
        owner = connection.execute(
            select(schema.setting.c.value).where(schema.setting.c.name == OWNER)
        ).scalar()
        if owner is None:
            connection.execute(insert(schema.setting), {"name": OWNER, "value": self.controller})
        elif owner != self.controller:
            raise StoreError(
                f"the controller database belongs to {owner}, this node is {self.controller}"
            )

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        await self._database.read(transactions.last_seq)
        await self._hear()

    async def _hear(self) -> None:
        if isinstance(self._database, PostgresqlDatabase):
            await self._database.listen(self._heard, self._lost)

    def _heard(self, origin: str) -> None:
        if origin != self.origin:
            self._woken()

    async def objects(self) -> AsyncIterator[Sequence[ObjectRow]]:
        yield await self._database.read(transactions.networks)
        after = ("", "")
        while rows := await self._database.read(
            partial(transactions.members_after, after=after, limit=10_000)
        ):
            yield rows
            after = rows[-1].key

    async def fetch(self, keys: Sequence[Key]) -> dict[Key, ObjectRow]:
        return await self._database.read(partial(transactions.fetch, keys=keys))

    async def owners(self, nwid: str | None = None) -> list[tuple[str, str, str]]:
        return await self._database.read(partial(transactions.owners, nwid=nwid))

    async def apply(self, batch: Sequence[Change]) -> Applied:
        work = partial(transactions.apply, batch=batch, origin=self.origin)
        return await self._database.write(work, notify=self.origin)

    async def last_seq(self) -> int:
        return await self._database.read(transactions.last_seq)

    async def events(self, after: int, limit: int, nwid: str = "", member: str = "") -> list[Event]:
        work = partial(transactions.events, after=after, limit=limit, nwid=nwid, member=member)
        return await self._database.read(work)

    async def events_since(self, time_ms: int, actions: Sequence[str]) -> list[Event]:
        work = partial(transactions.events_since, time_ms=time_ms, actions=actions)
        return await self._database.read(work)

    async def prune_events(self, before_ms: int, keep: int) -> None:
        work = partial(transactions.prune_events, before_ms=before_ms, keep=keep)
        await self._database.write(work)

    async def log(self, time_ms: int, actor: str, action: str, detail: bytes) -> None:
        entry = Event(0, time_ms, actor, action, "", "", detail, self.origin)
        await self._database.write(partial(transactions.log, event=entry), notify=self.origin)

    async def sightings(self) -> list[SightingRow]:
        return await self._database.read(transactions.sightings)

    async def save_sightings(self, rows: Sequence[SightingRow]) -> None:
        await self._database.write(partial(transactions.save_sightings, rows=rows))

    async def tokens(self) -> list[TokenRow]:
        return await self._database.read(transactions.tokens)

    async def save_token(self, row: TokenRow) -> None:
        await self._database.write(partial(transactions.save_token, row=row), notify=self.origin)

    async def delete_token(self, token_id: str) -> None:
        work = partial(transactions.delete_token, token_id=token_id)
        await self._database.write(work, notify=self.origin)

    async def setting(self, name: str, value: str) -> str:
        work = partial(transactions.setting, name=name, value=value)
        return await self._database.write(work)

    async def open_login(self, row: LoginRow, now_ms: int) -> LoginRow:
        work = partial(transactions.open_login, row=row, now_ms=now_ms)
        return await self._database.write(work)

    async def login(self, nonce: str) -> LoginRow | None:
        return await self._database.read(partial(transactions.login, nonce=nonce))

    async def extend_login(self, row: LoginRow, before_ms: int) -> bool:
        work = partial(transactions.extend_login, row=row, before_ms=before_ms)
        return await self._database.write(work)

    async def prune_logins(self, unused_ms: int, ended_ms: int) -> None:
        work = partial(transactions.prune_logins, unused_ms=unused_ms, ended_ms=ended_ms)
        await self._database.write(work)

    async def backup(self, path: str) -> dict[str, int]:
        def work(source: Connection) -> dict[str, int]:
            if Path(path).exists():
                raise StoreError(f"{path} exists already")
            engine = sqlite_engine(Path(path))
            try:
                with engine.begin() as target:
                    migrate(target)
                    return transactions.copy(source, target)
            finally:
                engine.dispose()

        return await self._database.read(work)

    async def restore(self, path: str) -> dict[str, int]:
        def work(target: Connection) -> dict[str, int]:
            if not Path(path).exists():
                raise StoreError(f"{path} does not exist")
            if transactions.last_seq(target):
                raise StoreError("the database is not empty")
            transactions.clear(target)
            engine = sqlite_engine(Path(path))
            try:
                with engine.begin() as source:
                    migrate(source)
                    counts = transactions.copy(source, target)
            finally:
                engine.dispose()
            self._check_owner(target)
            return counts

        return await self._database.write(work, notify=self.origin)
