"""The network controller: decisions, storage, HTTP API."""

from zt.controller.changes import NotFound
from zt.controller.controller import Controller, NoFreeId
from zt.controller.link import MemberLink
from zt.controller.settings import Settings
from zt.controller.storage import StoreError, StoreUnavailable, open_store

__all__ = [
    "Controller",
    "MemberLink",
    "NoFreeId",
    "NotFound",
    "Settings",
    "StoreError",
    "StoreUnavailable",
    "open_store",
]
