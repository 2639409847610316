"""Connections: one SQLite file, or a PostgreSQL server."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from zt.controller.storage.interface import StoreError, StoreUnavailable

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 60
WRITER_LOCK = 0x7A74_6374_6C77
"""Advisory lock of PostgreSQL that writers of this schema hold, one at a time."""
CHANNEL = "zt_controller"


class Database(Protocol):
    """Runs plain functions of a connection, each in its own transaction, off the event loop."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """In a transaction that sees one state of the database. Raises StoreUnavailable."""

    async def write(self, work: Callable[[Connection], T], *, notify: str = "") -> T:
        """As the only writer; returns after the commit is durable. Raises StoreUnavailable.

        `notify` is handed to every listener of the database when the transaction commits.
        """

    async def close(self) -> None: ...


class SqliteDatabase:
    """One file in WAL mode; SQLite's calls run in worker threads.

    Every commit is synced: what has been answered survives a power failure.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._engine = sqlite_engine(self.path)
        self._writer = self._engine.execution_options(immediate=True)
        self._threads = ThreadPoolExecutor(2, "controller-sqlite")

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._engine, work)

    async def write(self, work: Callable[[Connection], T], *, notify: str = "") -> T:
        return await self._run(self._writer, work)

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.dispose)
        self._threads.shutdown()

    async def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with engine.begin() as connection:
                return work(connection)

        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, transaction)
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.OperationalError):
                raise StoreUnavailable(f"{self.path}: {error.orig}") from error
            raise StoreError(f"{self.path}: {error.orig}") from error


def sqlite_engine(path: Path) -> Engine:
    # The C library creates the file; secrets of networks lie in it, so nobody else may read it.
    with contextlib.suppress(OSError):
        path.touch(mode=0o600)
    engine = sqlalchemy.create_engine(
        f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": 30}
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


class PostgresqlDatabase:
    """A PostgreSQL server through asyncpg, and one more connection that listens."""

    _MISTAKES = (
        sqlalchemy.exc.ProgrammingError,
        sqlalchemy.exc.IntegrityError,
        sqlalchemy.exc.DataError,
    )

    def __init__(self, url: sqlalchemy.URL) -> None:
        # Imported here: neither package is needed by those who stay with SQLite.
        import asyncpg
        from sqlalchemy.ext.asyncio import create_async_engine

        self._asyncpg = asyncpg
        self._url = url
        self._engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            pool_size=4,
            max_overflow=4,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S},
        )
        self._listener: Any = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._failures(), self._engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                return await connection.run_sync(work)
        raise AssertionError("unreachable")

    async def write(self, work: Callable[[Connection], T], *, notify: str = "") -> T:
        def locked(connection: Connection) -> T:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})
            result = work(connection)
            if notify:
                payload = {"channel": CHANNEL, "payload": notify}
                connection.execute(text("SELECT pg_notify(:channel, :payload)"), payload)
            return result

        async with self._failures(), self._engine.begin() as connection:
            return await connection.run_sync(locked)
        raise AssertionError("unreachable")

    async def listen(self, heard: Callable[[str], None], lost: Callable[[], None]) -> None:
        """Call `heard` with every payload from now on, and `lost` once if the connection ends.

        Raises StoreUnavailable.
        """
        await self.unlisten()

        def payload(connection: Any, pid: int, channel: str, text: str) -> None:
            heard(text)

        def ended(connection: Any) -> None:
            if connection is self._listener:
                lost()

        async with self._failures():
            dsn = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
            listener = await self._asyncpg.connect(
                dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
            )
            self._listener = listener
            listener.add_termination_listener(ended)
            await listener.add_listener(CHANNEL, payload)

    async def unlisten(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None and not listener.is_closed():
            listener.terminate()

    async def close(self) -> None:
        await self.unlisten()
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _failures(self) -> AsyncIterator[None]:
        """What counts as "away": everything that is not a mistake of ours."""
        try:
            yield
        except DBAPIError as error:
            if isinstance(error, self._MISTAKES):
                raise
            raise StoreUnavailable(f"PostgreSQL: {error.orig}") from error
        except (
            OSError,
            TimeoutError,
            PoolTimeout,
            InvalidRequestError,
            self._asyncpg.PostgresError,
            self._asyncpg.InterfaceError,
        ) as error:
            raise StoreUnavailable(f"PostgreSQL: {error or type(error).__name__}") from error
