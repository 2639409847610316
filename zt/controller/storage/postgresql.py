"""A store on a PostgreSQL server, from the forms that `controllerDbPath` may have."""

import shlex
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from zt.controller.storage.database import PostgresqlDatabase
from zt.controller.storage.interface import StoreError
from zt.controller.storage.sql import SqlStore

_KNOWN = {"user", "password", "host", "port", "dbname"}


def postgresql_store(location: str, controller: str, folder: Path) -> SqlStore:
    """The store at a URL or a libpq connection string, see `open.open_store`. Raises StoreError."""
    return SqlStore(PostgresqlDatabase(_url(location)), controller, folder)


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
