"""From the setting `controllerDbPath` to a store."""

from pathlib import Path

from zt.controller.storage.deferred import DeferredStore
from zt.controller.storage.interface import Store, StoreError

SQLITE_NAME = "controller.db"
FOLDER = "controller.d"
"""Where original controllers keep their objects, in the home folder."""


def open_store(location: str, home: Path, controller: str) -> Store:
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
        from zt.controller.storage.postgresql import postgresql_store

        try:
            return postgresql_store(location, controller, folder)
        except ModuleNotFoundError as error:
            raise StoreError(f"PostgreSQL needs the Python package {error.name}") from None
    path = home / location if location else folder
    if path.is_dir() or not location:
        folder, path = path, path / SQLITE_NAME
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def make() -> Store:
        # Imported here: a node that controls nothing does not load the SQL library.
        from zt.controller.storage.database import SqliteDatabase
        from zt.controller.storage.sql import SqlStore

        return SqlStore(SqliteDatabase(path), controller, folder)

    return DeferredStore(path, make, controller, folder)
