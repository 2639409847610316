"""Keeps a port of the router mapped to ours: carries out the steps of a `Policy`."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress, ip_text
from zt.service.netlink import Gateway
from zt.service.portmap.gateway import GatewayLink
from zt.service.portmap.messages import (
    NONCE_SIZE,
    PORT,
    Mapping,
    Refusal,
    nat_pmp_address,
    nat_pmp_map,
    pcp_map,
    read_nat_pmp_address,
    read_nat_pmp_map,
    read_pcp_map,
)
from zt.service.portmap.policy import (
    LIFETIME_S,
    AskAddress,
    Discover,
    FindGateway,
    Map,
    Method,
    Outcome,
    Policy,
    Sleep,
    Step,
)
from zt.service.portmap.upnp import UpnpClient

log = logging.getLogger("zt.portmap")

ADDRESS_LIMIT_S = 5.0
MAP_LIMIT_S = 10.0
REMOVE_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """What an operator may want to know about port mapping."""

    port: int
    method: str  # "", "NAT-PMP", "PCP" or "UPnP"
    gateway: str  # IP of the router, "" if there is none
    external: InetAddress | None
    problem: str  # why there is no mapping

    def as_json(self) -> dict[str, Any]:
        return {
            "port": self.port,
            "method": self.method,
            "gateway": self.gateway,
            "external": str(self.external or ""),
            "problem": self.problem,
        }


class PortMapper:
    """A mapping of one local UDP port, from `start` to `stop`, which removes it."""

    def __init__(
        self,
        address: Address,
        port: int,
        *,
        gateways: Callable[[], Awaitable[Sequence[Gateway]]],
        changed: Callable[[InetAddress | None], None],
        now_ms: Callable[[], int],
        server_port: int = PORT,
    ) -> None:
        """
        :param gateways: the usable default gateways, best first; may raise OSError.
        :param changed: called with the new external address, None when it is lost.
        :param server_port: where the gateway listens for NAT-PMP and PCP.
        """
        self.policy = Policy(port)
        self.description = f"ZeroTier/{address}@{port}"
        self._gateways = gateways
        self._changed = changed
        self._now_ms = now_ms
        self._server_port = server_port
        self._gateway: Gateway | None = None
        self._upnp = UpnpClient()
        self._url = ""  # of the device that UPnP found
        self._nonce = os.urandom(NONCE_SIZE)
        self._told: InetAddress | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        policy = self.policy
        return State(
            port=policy.port,
            method=policy.method.value if policy.method else "",
            gateway=ip_text(self._gateway.ip) if self._gateway else "",
            external=policy.external,
            problem=policy.problem,
        )

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="portmap")

    def network_changed(self) -> None:
        """Addresses or routes changed: looks at the router again, now."""
        self._wake.set()

    async def stop(self) -> None:
        """Ends, and takes the mapping back if the router answers within a second."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        try:
            async with asyncio.timeout(REMOVE_LIMIT_S):
                await self._remove()
        except (TimeoutError, OSError):
            log.info("the mapping of port %d was left to the router", self.policy.port)
        await self._upnp.close()

    async def _run(self) -> None:
        policy = self.policy
        while True:
            outcome = await self._perform(policy.step)
            if self._wake.is_set():
                self._wake.clear()
                policy.restart()
            else:
                policy.done(outcome, self._now_ms())
            self._tell()

    def _tell(self) -> None:
        external = self.policy.external
        if external == self._told:
            return
        self._told = external
        state = self.state
        if external:
            log.info("port %d is %s by %s of %s", state.port, external, state.method, state.gateway)
        else:
            log.info("port %d is not mapped any more: %s", state.port, state.problem)
        self._changed(external)

    # --- steps -----------------------------------------------------------------------------------

    async def _perform(self, step: Step) -> Outcome:
        try:
            if isinstance(step, Sleep):
                await self._sleep(step)
                return None
            if isinstance(step, FindGateway):
                return await self._find_gateway()
            if isinstance(step, AskAddress):
                return await self._ask_address()
            if isinstance(step, Discover):
                return await self._discover()
            if step.method is Method.UPNP:
                return await self._map_upnp(step)
            return await self._map(step, LIFETIME_S, MAP_LIMIT_S)
        except OSError as error:
            log.debug("%s: %s", step, error)
            return None

    async def _sleep(self, step: Sleep) -> None:
        if isinstance(step.then, FindGateway):
            await self._upnp.close()  # nothing to ask for minutes
        with suppress(TimeoutError):
            async with asyncio.timeout(max(step.until_ms - self._now_ms(), 0) / 1000):
                await self._wake.wait()

    async def _find_gateway(self) -> bool:
        found = await self._gateways()
        self._gateway = found[0] if found else None
        return bool(found)

    def _link(self) -> GatewayLink:
        if self._gateway is None:
            raise OSError("no gateway")
        return GatewayLink(self._gateway, self._server_port)

    async def _ask_address(self) -> bytes | Refusal | None:
        link = self._link()
        try:
            return await link.ask(nat_pmp_address(), read_nat_pmp_address, ADDRESS_LIMIT_S)
        finally:
            link.close()

    async def _map(self, step: Map, lifetime_s: int, limit_s: float) -> Mapping | Refusal | None:
        """By NAT-PMP or PCP; a lifetime of 0 removes the mapping."""
        link = self._link()
        port = self.policy.port
        try:
            if step.method is Method.PCP:
                request = pcp_map(link.local_ip, self._nonce, port, step.port, lifetime_s)
                return await link.ask(
                    request, lambda data: read_pcp_map(data, self._nonce, port), limit_s
                )
            request = nat_pmp_map(port, step.port if lifetime_s else 0, lifetime_s)
            return await link.ask(request, lambda data: read_nat_pmp_map(data, port), limit_s)
        finally:
            link.close()

    async def _discover(self) -> bytes | None:
        found = await self._upnp.discover(self._gateway.device if self._gateway else "")
        if found is None:
            log.debug("no UPnP gateway: %s", self._upnp.problem)
            return None
        self._url, ip = found
        return ip

    async def _map_upnp(self, step: Map) -> Mapping | Refusal | None:
        granted = await self._upnp.map(self._url, self.policy.port, step.port, self.description)
        if granted is None:
            return None
        if not granted:
            log.debug("external port %d: %s", step.port, self._upnp.problem)
            return Refusal.EXHAUSTED
        return Mapping(InetAddress(b"", step.port), LIFETIME_S)

    async def _remove(self) -> None:
        method, external = self.policy.method, self.policy.external
        if method is None or external is None:
            return
        if method is Method.UPNP:
            await self._upnp.unmap(self._url, external.port, self.description, REMOVE_LIMIT_S)
        else:
            await self._map(Map(method, external.port), 0, REMOVE_LIMIT_S)
