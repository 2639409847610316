"""Schema changes in order of their dated names. Append only: a released file never changes.

Each module has ``apply(connection)``. It describes the tables as they were on its day and imports
nothing that may change later.
"""

import importlib
import pkgutil

from sqlalchemy import Connection, insert, inspect, select

from zt.controller.storage import schema
from zt.controller.storage.interface import StoreError


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def migrate(connection: Connection) -> list[str]:
    """Bring a database up to date, in the caller's transaction; the names of what was applied.

    Raises StoreError if the database is newer than this program.
    """
    known = names()
    applied: set[str] = set()
    if inspect(connection).has_table(schema.migration.name):
        applied = set(connection.execute(select(schema.migration.c.name)).scalars())
    if unknown := applied.difference(known):
        raise StoreError(
            f"the controller database was made by a newer version (it has {max(unknown)})"
        )
    missing = [name for name in known if name not in applied]
    for name in missing:
        importlib.import_module(f"{__name__}.{name}").apply(connection)
        connection.execute(insert(schema.migration), {"name": name})
    return missing
