"""From the setting `controllerDbPath` to a store."""

import shlex
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from zt.controller.storage.database import PostgresqlDatabase, SqliteDatabase
from zt.controller.storage.interface import StoreError
from zt.controller.storage.sql import SqlStore

SQLITE_NAME = "controller.db"
FOLDER = "controller.d"
"""Where original controllers keep their objects, in the home folder."""


def open_store(location: str, home: Path, controller: str) -> SqlStore:
    """The store at a location, not yet opened; `controller` is the node's address as text.

    - nothing: ``controller.d/controller.db`` in the home folder
    - ``postgresql://user:password@host:port/database``, or ``postgres:`` and a libpq connection
      string such as ``host=... dbname=...``: a PostgreSQL server
    - else a path, relative to the home folder: a SQLite file, or a folder that holds one

    An empty database takes over the objects of an original controller at its first start: those in
    ``controller.d`` of the home folder, or in the folder that the location names.

    Raises StoreError for a URL that cannot be read and a package that is not installed.
    """
    folder = home / FOLDER
    if location.startswith(("postgresql:", "postgres:")):
        try:
            return SqlStore(PostgresqlDatabase(_url(location)), controller, folder)
        except ModuleNotFoundError as error:
            raise StoreError(f"PostgreSQL needs the Python package {error.name}") from None
    path = home / location if location else folder
    if path.is_dir() or not location:
        folder, path = path, path / SQLITE_NAME
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqlStore(SqliteDatabase(path), controller, folder)


def _url(location: str) -> sqlalchemy.URL:
    scheme, _, rest = location.partition(":")
    try:
        if rest.startswith("//"):
            return sqlalchemy.make_url(f"postgresql:{rest}")
        options = dict(option.split("=", 1) for option in shlex.split(rest))
        query = {name: value for name, value in options.items() if name not in _KNOWN}
        return sqlalchemy.URL.create(
            "postgresql",
            username=options.get("user"),
            password=options.get("password"),
            host=options.get("host"),
            port=int(options["port"]) if "port" in options else None,
            database=options.get("dbname"),
            query=query,
        )
    except (ArgumentError, ValueError):
        raise StoreError(f"not a PostgreSQL address: {scheme}:...") from None


_KNOWN = {"user", "password", "host", "port", "dbname"}
