"""Single sign-on: where members are sent to log in, and what a login gives them (ch. 05, 13).

A member that has to log in is given a nonce. The identity provider puts it into the token that it
makes for the user, so whoever checks that token (a front end, outside of this program) can tell the
controller whose login it was.
"""

import hmac
from collections.abc import Callable
from hashlib import sha384
from urllib.parse import urlencode

from zt.controller.decisions import login_expiry, login_required
from zt.controller.documents import Document
from zt.controller.plan import LoginPlan, NetworkPlan
from zt.controller.settings import Settings
from zt.controller.storage.interface import LoginRow, Store, StoreUnavailable
from zt.protocol.address import Address, NetworkId
from zt.protocol.coerce import text
from zt.protocol.netconf import Sso

NONCE_SIZE = 16
NONCE_MS = 300_000
"""A nonce that nobody has used is good for five minutes."""
REFRESH_MS = 86_400_000
"""How long after its end a session may still be taken up again."""
KEY_SIZE = 48
KEY = "login key"
"""Setting of the database: what states are made with, unless the operator has set a key."""
NONCE_FIELD = "ssoNonce"
"""Member field: the nonce of its session."""


class LoginRefused(Exception):
    """A login that does not count; the text says why."""


class Logins:
    """Nonces given out and taken back; the store has them all, memory those that are in use."""

    def __init__(
        self,
        store: Store,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        settings: Settings,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._random = random
        self._redirect_url = settings.login_url
        self._key = settings.login_key
        self._open: dict[tuple[NetworkId, Address], LoginRow] = {}

    def forget(self, nwid: NetworkId, address: Address) -> None:
        """The member has changed: its nonce may have been used up."""
        self._open.pop((nwid, address), None)

    async def tidy(self) -> None:
        """Forget nonces that are too old to count. Raises StoreUnavailable."""
        now_ms = self._now_ms()
        for key in [key for key, row in self._open.items() if row.nonce_expires_ms <= now_ms]:
            del self._open[key]
        await self._store.prune_logins(now_ms, now_ms - REFRESH_MS)

    # What members are told

    async def challenge(self, nwid: NetworkId, address: Address, plan: NetworkPlan) -> Sso:
        """Where this member logs in now. Raises StoreUnavailable."""
        if plan.login is None:
            return Sso(enabled=True)
        nonce = await self._nonce(nwid, address)
        return await self._sso(nwid, plan.login, nonce)

    async def session(self, nwid: NetworkId, plan: NetworkPlan, member: Document) -> Sso:
        """What the config of a member says that need not log in now."""
        if not plan.sso:
            return Sso()
        if not login_required(member, plan):
            return Sso(enabled=True)
        nonce = text(member.get(NONCE_FIELD))
        if plan.login is not None and plan.login.version == 1 and nonce:
            try:
                return await self._sso(nwid, plan.login, nonce)
            except StoreUnavailable:
                pass  # it still is a member
        return Sso(enabled=True, expiry_ms=login_expiry(member))

    async def _sso(self, nwid: NetworkId, login: LoginPlan, nonce: str) -> Sso:
        state = await self._state(nonce)
        if login.version == 0:
            query = {
                "response_type": "id_token",
                "response_mode": "form_post",
                "scope": "openid email profile",
                "redirect_uri": self._redirect_url,
                "nonce": nonce,
                "state": state,
                "client_id": login.client_id,
            }
            url = f"{login.endpoint}?{urlencode(query)}"
            return Sso(enabled=True, authentication_url=url)
        return Sso(
            version=1,
            enabled=True,
            issuer_url=login.issuer,
            central_url=self._redirect_url,
            nonce=nonce,
            state=f"{state}_{nwid}",
            client_id=login.client_id,
            provider=login.provider,
        )

    async def _nonce(self, nwid: NetworkId, address: Address) -> str:
        """The member's open nonce, or a new one."""
        now_ms = self._now_ms()
        row = self._open.get((nwid, address))
        if row is None or row.nonce_expires_ms <= now_ms:
            fresh = LoginRow(
                nonce=self._random(NONCE_SIZE).hex(),
                nwid=str(nwid),
                member=str(address),
                nonce_expires_ms=now_ms + NONCE_MS,
                session_ends_ms=0,
            )
            row = await self._store.open_login(fresh, now_ms)
            self._open[nwid, address] = row
        return row.nonce

    async def _state(self, nonce: str) -> str:
        """Proves that a nonce is one of ours."""
        if self._key is None:
            made = self._random(KEY_SIZE).hex()
            self._key = bytes.fromhex(await self._store.setting(KEY, made))
        return hmac.digest(self._key, bytes.fromhex(nonce), sha384).hex()

    # What they bring back

    async def use(self, nonce: str, state: str, ends_ms: int) -> LoginRow:
        """Take a login: the session it opens lasts until `ends_ms`.

        Raises LoginRefused, StoreUnavailable.
        """
        now_ms = self._now_ms()
        row = await self._store.login(nonce)
        if row is None:
            raise LoginRefused("unknown nonce")
        shown = state.partition("_")[0].encode("utf-8", "replace")
        if not hmac.compare_digest(shown, (await self._state(nonce)).encode()):
            raise LoginRefused("the state does not belong to the nonce")
        if row.session_ends_ms:
            raise LoginRefused("the nonce has been used")
        if row.nonce_expires_ms <= now_ms:
            raise LoginRefused("the nonce has expired")
        return await self._extend(row, ends_ms)

    async def refresh(self, nonce: str, ends_ms: int) -> LoginRow:
        """The session that a nonce has opened lasts longer.

        Raises LoginRefused, StoreUnavailable.
        """
        row = await self._store.login(nonce)
        if row is None or not row.session_ends_ms:
            raise LoginRefused("no session was opened with this nonce")
        if row.session_ends_ms + REFRESH_MS <= self._now_ms():
            raise LoginRefused("the session ended too long ago")
        return await self._extend(row, ends_ms)

    async def _extend(self, row: LoginRow, ends_ms: int) -> LoginRow:
        if ends_ms <= self._now_ms():
            raise LoginRefused("the login is over already")
        extended = row._replace(session_ends_ms=ends_ms)
        if not await self._store.extend_login(extended, row.session_ends_ms):
            raise LoginRefused("the nonce has been used")
        return extended
