"""When and where members were last seen, kept over restarts without a write per request."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from zt.controller.state import Network, Sighting, State
from zt.controller.storage.interface import SightingRow, Store, StoreUnavailable
from zt.protocol.address import Address, NetworkId

log = logging.getLogger(__name__)

SAVE_S = 10.0


class Sightings:
    """Writes what has changed every ten seconds; a crash forgets at most that."""

    def __init__(self, store: Store, state: State, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._state = state
        self._now_ms = now_ms
        self._dirty: set[tuple[NetworkId, Address]] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for row in await self._store.sightings():
            network = self._state.networks.get(NetworkId.parse(row.nwid))
            address = Address.parse(row.member)
            if network is not None and address in network.members:
                network.saw(address, Sighting(*row[2:]))
        self._task = asyncio.create_task(self._save_all())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(StoreUnavailable):
            await self.save()

    def seen(self, network: Network, address: Address) -> None:
        self._dirty.add((network.nwid, address))

    async def save(self) -> None:
        """Write what has changed. Raises StoreUnavailable, and tries again the next time."""
        dirty, self._dirty = self._dirty, set()
        rows = []
        for nwid, address in dirty:
            network = self._state.networks.get(nwid)
            if network is not None and (seen := network.sightings.get(address)) is not None:
                row = (seen.last_ms, seen.physical, seen.version, seen.platform)
                rows.append(SightingRow(str(nwid), str(address), *row))
        try:
            if rows:
                await self._store.save_sightings(rows)
        except StoreUnavailable:
            self._dirty |= dirty
            raise

    async def _save_all(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            try:
                await self.save()
            except StoreUnavailable as error:
                log.debug("last-seen times are not stored yet: %s", error)
            except Exception:
                log.exception("storing last-seen times failed")
