"""The controller inside of the service: started with it, asked by the node, mounted in the API."""

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from zt.controller.api import routes
from zt.controller.controller import Controller
from zt.controller.settings import Settings
from zt.controller.storage.interface import StoreError, StoreUnavailable
from zt.controller.storage.open import open_store
from zt.controller.tokens import Principal
from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Revocation
from zt.protocol.packet import ErrorCode
from zt.service.errors import ServiceError
from zt.vl1.actions import ConfigRequest

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

STORE_FOLDER = "controller.d"


class ControllerHost:
    """Gives the controller its identity, its storage and a way to send, and takes its routes."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        (daemon.home / STORE_FOLDER).mkdir(mode=0o700, exist_ok=True)
        # `controller.db` in the home itself is what the original takes for a relic and refuses.
        location = daemon.conf.controller_db or STORE_FOLDER
        try:
            store = open_store(location, daemon.home.path, str(daemon.identity.address))
        except (StoreError, OSError) as error:
            raise ServiceError(f"controller storage {location}: {error}") from None
        key = os.environ.get("ZT_SSO_PSK", "")
        settings = Settings(
            login_url=daemon.conf.sso_redirect_url, login_key=key.encode() if key else None
        )
        self.controller = Controller(
            daemon.identity, store, Link(daemon), now_ms=daemon.clock.now_ms, settings=settings
        )

    async def start(self) -> None:
        """Raises ServiceError."""
        try:
            await self.controller.start()
        except (StoreError, StoreUnavailable) as error:
            raise ServiceError(f"controller storage: {error}") from None

    async def stop(self) -> None:
        await self.controller.stop()

    def routes(self) -> list[BaseRoute]:
        return list(routes(self.controller))

    def authenticate(self, token: str) -> Principal | None:
        """Who holds one of the controller's own tokens."""
        return self.controller.authenticate(token)

    def request(self, request: ConfigRequest) -> None:
        self.controller.request(
            request.nwid, request.identity, request.metadata, request.remote, request.request_id
        )

    def metrics(self) -> dict[str, int]:
        """Values of the controller's families by their names (ch. 06, 10.3)."""
        controller, counters = self.controller, self.controller.counters
        networks = controller.state.networks.values()
        return {
            "controller_network_count": len(networks),
            "controller_member_count": sum(len(network.members) for network in networks),
            "controller_network_change_count": counters.network_changes,
            "controller_member_change_count": counters.member_changes,
            "controller_member_auth_count": counters.authorizations,
            "controller_member_deauth_count": counters.deauthorizations,
            "controller_sso_expiration_checks": counters.login_checks,
            "controller_sso_timeouts": counters.login_timeouts,
            "controller_network_config_request": counters.requests,
            "controller_network_config_request_queue": controller.waiting,
            "controller_network_config_request_threads": controller.settings.workers,
            "controller_db_get_network": counters.network_reads,
            "controller_db_get_network_and_member": counters.member_reads,
            "controller_db_get_networK_and_member_summary": counters.requests,
            "controller_db_get_member_list": counters.member_lists,
            "controller_db_get_network_list": counters.network_lists,
            "controller_db_member_change": counters.member_changes
            + counters.authorizations
            + counters.deauthorizations,
            "controller_db_network_change": counters.network_changes,
        }


class Link:
    """`MemberLink` on the node of a daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    def send_config(
        self, member: Address, nwid: NetworkId, chunks: Sequence[bytes], request_id: int | None
    ) -> None:
        now_ms = self._daemon.clock.now_ms()
        self._daemon.node.send_config(member, nwid, chunks, request_id, now_ms)
        self._drain()

    def send_config_error(
        self, member: Address, nwid: NetworkId, request_id: int, code: ErrorCode, data: bytes
    ) -> None:
        now_ms = self._daemon.clock.now_ms()
        self._daemon.node.send_config_error(member, nwid, request_id, code, data, now_ms)
        self._drain()

    def send_revocation(
        self, member: Address, nwid: NetworkId, revocations: Sequence[Revocation]
    ) -> None:
        now_ms = self._daemon.clock.now_ms()
        self._daemon.node.send_revocation(member, revocations, now_ms)
        self._drain()

    def _drain(self) -> None:
        """Once for all that is sent in one pass of the loop: pushes come in their thousands."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drained)

    def _drained(self) -> None:
        self._scheduled = False
        self._daemon.drain()
