"""Routes of the local API (ch. 06, 3.4). Handlers only translate; the daemon does the work."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from zt.protocol.address import Address, NetworkId
from zt.service.api import views
from zt.service.api.auth import Authentication
from zt.service.api.http import Envelope, failure
from zt.service.api.shortcut import ShortCut
from zt.service.localconf import parse_inet
from zt.service.managed import NetworkSettings
from zt.vl1.status import MoonStatus

if TYPE_CHECKING:
    from zt.service.daemon import Daemon


PEERS_AT_ONCE = 200
"""Peers shown without a turn for the rest of the service."""
BOND_MTU = range(68, 65536)


class _Hex(Convertor[int]):
    """Hex digits of either case, as a number."""

    def convert(self, value: str) -> int:
        return int(value, 16)

    def to_string(self, value: int) -> str:
        return f"{value:x}"


class _Hex16(_Hex):
    regex = "[0-9a-fA-F]{16}"


class _Hex10(_Hex):
    regex = "[0-9a-fA-F]{10}"


class _WorldId(_Hex):
    regex = "[0-9a-fA-F]{10}|[0-9a-fA-F]{16}"


class _Regex(Convertor[str]):
    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Mtu(_Regex):
    regex = "[0-9]{1,6}"


class _Device(_Regex):
    regex = "[A-Za-z0-9_]{1,16}"


class _Ip(_Regex):
    regex = "[0-9a-fA-F.:]{1,39}"


for _name, _kind in (
    ("nwid", _Hex16),
    ("address", _Hex10),
    ("world", _WorldId),
    ("mtu", _Mtu),
    ("device", _Device),
    ("ip", _Ip),
):
    register_url_convertor(_name, _kind())


def encode(value: Any) -> bytes:
    """Compact JSON, keys sorted, UTF-8."""
    return msgspec.json.encode(value, order="sorted")


def answer(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


class JsonError(Exception):
    """A request body that should be JSON and is not."""


async def json_body(request: Request) -> Any:
    """The parsed body. Raises JsonError."""
    try:
        return msgspec.json.decode(await request.body())
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None


class Api:
    """The handlers, bound to one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self.daemon = daemon

    def routes(self) -> list[BaseRoute]:
        write = ["POST", "PUT"]
        return [
            Route("/status", self.status),
            Route("/health", self.health),
            Route("/network", self.networks),
            Route("/network/{nwid:nwid}", self.network),
            Route("/network/{nwid:nwid}", self.network_set, methods=write),
            Route("/network/{nwid:nwid}", self.network_leave, methods=["DELETE"]),
            Route("/peer", self.peers),
            Route("/peer/{address:address}", self.peer),
            Route("/moon", self.moons),
            Route("/moon/{id:world}", self.moon),
            Route("/moon/{id:world}", self.orbit, methods=write),
            Route("/moon/{id:world}", self.deorbit, methods=["DELETE"]),
            Route("/bond/show/{address:address}", self.bond_show),
            Route("/bond/rotate/{address:address}", self.bond_rotate, methods=write),
            Route("/bond/setmtu/{mtu:mtu}/{device:device}/{ip:ip}", self.bond_mtu, methods=write),
            Route("/config", self.config),
            Route("/config/settings", self.config_settings, methods=write),
            Route("/metrics", self.metrics),
        ]

    def bodies(self) -> dict[bytes, Callable[[], bytes | None]]:
        """What monitoring asks for, by path (`ShortCut`)."""
        return {
            b"/status": lambda: encode(views.status(self.daemon)),
            b"/health": lambda: encode(views.health(self.daemon)),
            b"/network": lambda: encode(self._networks()),
            b"/peer": self._few_peers,
        }

    # --- status ------------------------------------------------------------------------------

    async def status(self, request: Request) -> Response:
        return answer(views.status(self.daemon))

    async def health(self, request: Request) -> Response:
        return answer(views.health(self.daemon))

    async def metrics(self, request: Request) -> Response:
        return Response(self.daemon.metrics_text(), headers={"content-type": "text/plain"})

    # --- networks ----------------------------------------------------------------------------

    async def networks(self, request: Request) -> Response:
        return answer(self._networks())

    def _networks(self) -> list[views.JsonObject]:
        return [views.network(self.daemon, joined) for joined in self.daemon.networks]

    async def network(self, request: Request) -> Response:
        joined = self.daemon.networks.get(NetworkId(request.path_params["nwid"]))
        if joined is None:
            # Empty: `Envelope` makes it `{}`, or `null` for JSONP.
            return Response(b"", 404, media_type="application/json")
        return answer(views.network(self.daemon, joined))

    async def network_set(self, request: Request) -> Response:
        nwid = NetworkId(request.path_params["nwid"])
        try:
            body = await json_body(request)
        except JsonError:
            body = None  # a join needs no body, and clients send all kinds
        networks = self.daemon.networks
        joined = await networks.join(nwid)
        await networks.configure(nwid, _merged(joined.settings, body))
        return answer(views.network(self.daemon, joined))

    async def network_leave(self, request: Request) -> Response:
        left = await self.daemon.networks.leave(NetworkId(request.path_params["nwid"]))
        return answer({"result": True} if left else {})

    # --- peers and moons -----------------------------------------------------------------------

    async def peers(self, request: Request) -> Response:
        addresses = self.daemon.node.peer_addresses()
        shown = []
        for batch in _batches(addresses, PEERS_AT_ONCE):
            shown.append(encode(self._shown(batch))[1:-1])
            await asyncio.sleep(0)
        return Response(b"[%b]" % b",".join(filter(None, shown)), media_type="application/json")

    def _few_peers(self) -> bytes | None:
        addresses = self.daemon.node.peer_addresses()
        return encode(self._shown(addresses)) if len(addresses) <= PEERS_AT_ONCE else None

    def _shown(self, addresses: Sequence[Address]) -> list[views.JsonObject]:
        """Of the peers with these addresses those that are still there."""
        return [shown for address in addresses if (shown := self._peer(address)) is not None]

    async def peer(self, request: Request) -> Response:
        found = self._peer(Address(request.path_params["address"]))
        return answer(found or {})

    def _peer(self, address: Address) -> views.JsonObject | None:
        status = self.daemon.node.peer(address, self.daemon.clock.now_ms())
        return None if status is None else views.peer(self.daemon, status)

    async def moons(self, request: Request) -> Response:
        return answer([views.moon(m) for m in self.daemon.node.moons() if m.world is not None])

    async def moon(self, request: Request) -> Response:
        return answer(self._moon(request.path_params["id"]) or {})

    def _moon(self, world_id: int) -> views.JsonObject | None:
        for status in self.daemon.node.moons():
            if status.id == world_id and status.world is not None:
                return views.moon(status)
        return None

    async def orbit(self, request: Request) -> Response:
        world_id = request.path_params["id"]
        known = self._moon(world_id)
        if known is not None:
            return answer(known)
        try:
            body = await json_body(request)
        except JsonError:
            body = None
        seed = _seed(body)
        if not seed:
            return answer({})
        self.daemon.node.orbit(world_id, Address(seed), self.daemon.clock.now_ms())
        self.daemon.drain()
        return answer(views.moon(MoonStatus(world_id, None)))

    async def deorbit(self, request: Request) -> Response:
        self.daemon.node.deorbit(request.path_params["id"], self.daemon.clock.now_ms())
        self.daemon.drain()
        return answer({"result": True})

    # --- bonds -------------------------------------------------------------------------------

    async def bond_show(self, request: Request) -> Response:
        shown = self._peer(Address(request.path_params["address"]))
        if shown is None or not shown["isBonded"]:
            return answer({}, 400)
        return answer(shown)

    async def bond_rotate(self, request: Request) -> Response:
        address = Address(request.path_params["address"])
        if not self.daemon.node.rotate_bond(address, self.daemon.clock.now_ms()):
            return answer({}, 400)
        self.daemon.drain()
        return answer({})

    async def bond_mtu(self, request: Request) -> Response:
        params = request.path_params
        where, mtu = parse_inet(params["ip"]), int(params["mtu"])
        if not self.daemon.conf.bonding.in_use:
            refusal = "Bonding layer isn't active yet"
        elif mtu not in BOND_MTU:
            refusal = "Specified MTU is not reasonable"
        elif where and self.daemon.node.set_bond_mtu(mtu, params["device"], where.ip):
            return answer({})
        else:
            refusal = "Unable to find specified link"
        return Response(refusal, 400, media_type="application/json")

    # --- configuration -------------------------------------------------------------------------

    async def config(self, request: Request) -> Response:
        return answer(self.daemon.conf.raw)

    async def config_settings(self, request: Request) -> Response:
        body = await json_body(request)
        if isinstance(body, dict):
            self.daemon.edit_settings(body)
        return answer({})


def _batches(items: Sequence[Address], size: int) -> Iterator[Sequence[Address]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _merged(settings: NetworkSettings, body: Any) -> NetworkSettings:
    """Only real booleans count; anything else in the body is ignored without an error."""
    if not isinstance(body, dict):
        return settings

    def choice(key: str, current: bool) -> bool:
        value = body.get(key)
        return value if isinstance(value, bool) else current

    return replace(
        settings,
        allow_managed=choice("allowManaged", settings.allow_managed),
        allow_global=choice("allowGlobal", settings.allow_global),
        allow_default=choice("allowDefault", settings.allow_default),
        allow_dns=choice("allowDNS", settings.allow_dns),
    )


def _seed(body: Any) -> int:
    """The seed's address: hex text; a JSON number counts as its decimal text."""
    value = body.get("seed") if isinstance(body, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return 0
    try:
        return int(str(value), 16) & 0xFF_FFFF_FFFF
    except ValueError:
        return 0


async def _no_route(request: Request, error: Exception) -> Response:
    """Unknown paths and unknown methods: 404 with nothing in it, never 405."""
    return Response(status_code=404)


async def _bad_json(request: Request, error: Exception) -> Response:
    return Response(
        failure(f"[json.exception.parse_error.101] parse error: {error}"),
        500,
        media_type="application/json",
    )


def build(daemon: "Daemon", extra: list[BaseRoute]) -> tuple[ASGIApp, ShortCut]:
    """The whole API of a daemon, and what of it is answered at once. `extra` are the controller's
    routes."""
    api = Api(daemon)
    app = Starlette(
        routes=[*api.routes(), *extra],
        exception_handlers={HTTPException: _no_route, JsonError: _bad_json},
    )
    app.router.redirect_slashes = False
    authentication = Authentication(
        app,
        daemon.token,
        daemon.metrics_token,
        management=lambda: daemon.conf.management,
        principal=lambda token: daemon.controller.authenticate(token),
    )
    short_cut = ShortCut(api.bodies(), authentication.allowed)
    return Envelope(authentication, short_cut.forget_answers), short_cut
