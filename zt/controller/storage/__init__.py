"""Where networks and members are kept: one interface, SQLite by default, PostgreSQL by URL."""

from zt.controller.storage.interface import (
    Applied,
    Change,
    Claim,
    Conflict,
    Event,
    SightingRow,
    Store,
    StoreError,
    StoreUnavailable,
)
from zt.controller.storage.open import open_store

__all__ = [
    "Applied",
    "Change",
    "Claim",
    "Conflict",
    "Event",
    "SightingRow",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "open_store",
]
