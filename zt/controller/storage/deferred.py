"""A store that costs nothing until there is something to keep.

Most nodes never control a network. Loading the SQL library takes a third of a second and 16 MB, so
while a database file does not exist it reads as empty, and the first write makes it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from zt.controller.storage.interface import (
    Applied,
    Change,
    Event,
    Key,
    LoginRow,
    ObjectRow,
    SightingRow,
    Store,
    TokenRow,
)


class DeferredStore:
    """See `interface.Store`. ``make`` gives the real store of the SQLite file at ``path``, called
    in a worker thread once."""

    def __init__(
        self, path: Path, make: Callable[[], Store], controller: str, folder: Path | None
    ) -> None:
        self._path = path
        self._make = make
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._woken: Callable[[], None] = lambda: None
        self._lost: Callable[[], None] = lambda: None
        self.controller = controller
        self.folder = folder
        self.origin = secrets.token_hex(8)

    async def _real(self) -> Store:
        async with self._opening:
            if self._store is None:
                store = await asyncio.to_thread(self._make)
                store.origin = self.origin
                store.listen(self._woken, self._lost)
                await store.open()
                self._store = store
            return self._store

    def listen(self, woken: Callable[[], None], lost: Callable[[], None]) -> None:
        self._woken, self._lost = woken, lost

    async def open(self) -> None:
        if self._path.exists():
            await self._real()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def ping(self) -> None:
        if self._store is not None:
            await self._store.ping()
        elif self._path.exists():  # another process has made it
            await self._real()
            self._woken()

    # What reads: nothing is there before the file is.

    async def objects(self) -> AsyncIterator[Sequence[ObjectRow]]:
        if self._store is not None:
            async for rows in self._store.objects():
                yield rows

    async def fetch(self, keys: Sequence[Key]) -> dict[Key, ObjectRow]:
        return await self._store.fetch(keys) if self._store is not None else {}

    async def owners(self, nwid: str | None = None) -> list[tuple[str, str, str]]:
        return await self._store.owners(nwid) if self._store is not None else []

    async def last_seq(self) -> int:
        return await self._store.last_seq() if self._store is not None else 0

    async def events(self, after: int, limit: int, nwid: str = "", member: str = "") -> list[Event]:
        if self._store is None:
            return []
        return await self._store.events(after, limit, nwid, member)

    async def events_since(self, time_ms: int, actions: Sequence[str]) -> list[Event]:
        return await self._store.events_since(time_ms, actions) if self._store is not None else []

    async def sightings(self) -> list[SightingRow]:
        return await self._store.sightings() if self._store is not None else []

    async def tokens(self) -> list[TokenRow]:
        return await self._store.tokens() if self._store is not None else []

    async def prune_events(self, before_ms: int, keep: int) -> None:
        if self._store is not None:
            await self._store.prune_events(before_ms, keep)

    async def delete_token(self, token_id: str) -> None:
        if self._store is not None:
            await self._store.delete_token(token_id)

    async def login(self, nonce: str) -> LoginRow | None:
        return await self._store.login(nonce) if self._store is not None else None

    async def prune_logins(self, unused_ms: int, ended_ms: int) -> None:
        if self._store is not None:
            await self._store.prune_logins(unused_ms, ended_ms)

    # What writes: this makes the file.

    async def setting(self, name: str, value: str) -> str:
        return await (await self._real()).setting(name, value)

    async def open_login(self, row: LoginRow, now_ms: int) -> LoginRow:
        return await (await self._real()).open_login(row, now_ms)

    async def extend_login(self, row: LoginRow, before_ms: int) -> bool:
        return await (await self._real()).extend_login(row, before_ms)

    async def apply(self, batch: Sequence[Change]) -> Applied:
        return await (await self._real()).apply(batch)

    async def log(self, time_ms: int, actor: str, action: str, detail: bytes) -> None:
        await (await self._real()).log(time_ms, actor, action, detail)

    async def save_sightings(self, rows: Sequence[SightingRow]) -> None:
        await (await self._real()).save_sightings(rows)

    async def save_token(self, row: TokenRow) -> None:
        await (await self._real()).save_token(row)

    async def backup(self, path: str) -> dict[str, int]:
        return await (await self._real()).backup(path)

    async def restore(self, path: str) -> dict[str, int]:
        return await (await self._real()).restore(path)
