"""API tokens besides the node's own: with a scope, perhaps limited to networks and in time."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from zt.controller.bodies import dump
from zt.controller.storage.interface import Event, Store, TokenRow
from zt.protocol.address import NetworkId
from zt.protocol.errors import DecodeError

SECRET_BYTES = 30
TOKENS_LIMIT = 1000


class Scope(IntEnum):
    """What a principal may do; each includes those before it."""

    READ = 1
    """See networks, members, the log."""
    NETWORK = 2
    """Change networks and members."""
    ADMIN = 3
    """Tokens, backups."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a token."""

    actor: str
    """As the log names it."""
    scope: Scope
    networks: frozenset[NetworkId] = frozenset()
    """The only networks it may see or change; empty: all, and it may create more."""


class TooMany(Exception):
    """The limit of tokens is reached."""


class Tokens:
    """All tokens in memory; the secrets themselves are nowhere."""

    def __init__(
        self, store: Store, now_ms: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._random = random
        self._rows: dict[bytes, TokenRow] = {}

    async def load(self) -> None:
        self._rows = {row.digest: row for row in await self._store.tokens()}

    async def follow(self, events: Sequence[Event]) -> None:
        """Another controller has written these log entries."""
        if any(event.action.startswith("token.") for event in events):
            await self.load()

    def authenticate(self, secret: str) -> Principal | None:
        """Who presents a token; None if it is not valid (any more)."""
        row = self._rows.get(_digest(secret))
        if row is None or (row.expires_ms and row.expires_ms <= self._now_ms()):
            return None
        networks = msgspec.json.decode(row.networks, type=list[str])
        try:
            only = frozenset(NetworkId.parse(nwid) for nwid in networks)
        except DecodeError:
            return None
        return Principal(f"token:{row.name}", Scope[row.scope.upper()], only)

    def list(self) -> list[TokenRow]:
        return sorted(self._rows.values(), key=lambda row: (row.created_ms, row.id))

    async def create(
        self, name: str, scope: Scope, networks: Sequence[NetworkId], expires_ms: int, actor: str
    ) -> tuple[TokenRow, str]:
        """A new token and its secret, which cannot be had again. Raises TooMany."""
        if len(self._rows) >= TOKENS_LIMIT:
            raise TooMany
        secret = base64.b32encode(self._random(SECRET_BYTES)).decode().lower()
        row = TokenRow(
            id=self._random(8).hex(),
            name=name,
            digest=_digest(secret),
            scope=scope.name.lower(),
            networks=dump([str(nwid) for nwid in networks]).decode(),
            created_ms=self._now_ms(),
            expires_ms=expires_ms,
        )
        await self._store.save_token(row)
        self._rows[row.digest] = row
        await self._log(actor, "token.create", row)
        return row, secret

    async def delete(self, token_id: str, actor: str) -> TokenRow | None:
        """What it was; None if there is none with that ID."""
        row = next((row for row in self._rows.values() if row.id == token_id), None)
        if row is None:
            return None
        await self._store.delete_token(token_id)
        del self._rows[row.digest]
        await self._log(actor, "token.delete", row)
        return row

    async def _log(self, actor: str, action: str, row: TokenRow) -> None:
        detail = dump({"id": row.id, "name": row.name, "scope": row.scope})
        await self._store.log(self._now_ms(), actor, action, detail)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
