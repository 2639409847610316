"""Telling everybody that a member is out (ch. 05, 14.2).

Receivers take one packet of credentials per second from a node, and nodes that are away miss what
is sent. So revocations wait per receiver, everything that waits goes into one packet, packets to a
receiver are a second apart. Nothing confirms them, and a node that starts again has forgotten them:
so with every request of a node for its configuration, one a minute, it is sent all again, until the
revoked certificate has lost its effect by age (Q14). After our own restart they are made again from
the log.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from zt.controller.link import MemberLink
from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Revocation, revoke_com
from zt.protocol.identity import Identity

PACE_MS = 1100
"""Between packets to one receiver: more than the second that receivers insist on."""
PACKET_LIMIT = 60
"""Revocations in one packet; 152 bytes each."""
MARGIN_MS = 60_000
"""Beyond the credential window: certificates are renewed every minute."""
TICK_S = 0.1


class _Issued(NamedTuple):
    number: int
    """Counts up; receivers have had everything up to some number."""
    expires_ms: int
    revocation: Revocation


class Revocations:
    """Those in effect, and who has had which."""

    def __init__(
        self,
        identity: Identity,
        link: MemberLink,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._identity = identity
        self._link = link
        self._now_ms = now_ms
        self._random = random
        self._number = 0
        self._issued: dict[NetworkId, dict[Address, _Issued]] = {}
        self._had: dict[tuple[NetworkId, Address], int] = {}
        """Up to which number each receiver was sent them; counts from 0 again with its requests."""
        self._waiting: dict[Address, set[NetworkId]] = {}
        self._sent_ms: dict[Address, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._send_all())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def revoke(
        self, nwid: NetworkId, members: Iterable[Address], window_ms: int, at_ms: int
    ) -> None:
        """Nobody shall accept these members' certificates of that time and before any more.

        `window_ms` is how long others would accept them. Call `seen` for whoever is there.
        """
        expires_ms = at_ms + window_ms + MARGIN_MS
        if expires_ms <= self._now_ms():
            return
        for member in members:
            number = int.from_bytes(self._random(4))
            self._number += 1
            issued = self._issued.setdefault(nwid, {})
            issued.pop(member, None)  # the newest stand last
            issued[member] = _Issued(
                self._number, expires_ms, revoke_com(nwid, member, at_ms, number, self._identity)
            )

    def seen(self, nwid: NetworkId, address: Address, *, asks: bool = False) -> None:
        """A node is there: send it what it has not had. If it asks for its configuration, all."""
        issued = self._issued.get(nwid)
        if not issued:
            return
        newest = next(reversed(issued.values())).number
        if asks and nwid not in self._waiting.get(address, ()):
            self._had[nwid, address] = 0
        if self._had.get((nwid, address), 0) < newest:
            self._waiting.setdefault(address, set()).add(nwid)
            self._wake.set()

    # Sending

    async def _send_all(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            now_ms = self._now_ms()
            self._expire(now_ms)
            for address in list(self._waiting):
                if now_ms - self._sent_ms.get(address, -PACE_MS) >= PACE_MS:
                    self._send(address, now_ms)
            if self._waiting:
                await asyncio.sleep(TICK_S)

    def _send(self, address: Address, now_ms: int) -> None:
        """One packet of what a receiver has not had; of one network, the others follow."""
        nwids = self._waiting[address]
        nwid = next(iter(nwids))
        had = self._had.get((nwid, address), 0)
        issued = self._issued.get(nwid, {})
        due = sorted(entry for entry in issued.values() if entry.number > had)[:PACKET_LIMIT]
        if due:
            self._link.send_revocation(address, nwid, [entry.revocation for entry in due])
            self._sent_ms[address] = now_ms
            self._had[nwid, address] = due[-1].number
        if len(due) < PACKET_LIMIT:
            nwids.discard(nwid)
        if not nwids:
            del self._waiting[address]

    def _expire(self, now_ms: int) -> None:
        for nwid, issued in list(self._issued.items()):
            for target, entry in list(issued.items()):
                if entry.expires_ms <= now_ms:
                    del issued[target]
            if not issued:
                del self._issued[nwid]
        if not self._issued:
            self._had.clear()
        self._sent_ms = {
            address: at for address, at in self._sent_ms.items() if now_ms - at < PACE_MS
        }
