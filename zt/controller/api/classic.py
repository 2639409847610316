"""The endpoints that every ZeroTier controller has (ch. 05, 3)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zt.controller.api.auth import actor, required, visible
from zt.controller.api.http import JSON, answer, empty, guarded, stored
from zt.controller.bodies import parse
from zt.controller.controller import Controller
from zt.controller.tokens import Scope

WRITE = ["POST", "PUT"]
NETWORK = "/controller/network/{nwid:controller_network}"
MEMBER = NETWORK + "/member/{address:controller_member}"


class Classic:
    """Handlers, bound to one controller. They only translate."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def routes(self) -> list[Route]:
        read, write = Scope.READ, Scope.NETWORK
        table = [
            ("/controller", ["GET"], read, self.status),
            ("/controller/network", ["GET"], read, self.networks),
            ("/controller/network", WRITE, write, self.create),
            ("/controller/network/{prefix:controller_prefix}", WRITE, write, self.create_below),
            (NETWORK, ["GET"], read, self.network),
            (NETWORK, WRITE, write, self.put_network),
            (NETWORK, ["DELETE"], write, self.delete_network),
            (NETWORK + "/member", ["GET"], read, self.members),
            (MEMBER, ["GET"], read, self.member),
            (MEMBER, WRITE, write, self.put_member),
            (MEMBER, ["DELETE"], write, self.delete_member),
            ("/unstable/controller/network", ["GET"], read, self.all_networks),
            ("/unstable" + NETWORK + "/member", ["GET"], read, self.all_members),
        ]
        return [
            Route(path, guarded(required(scope, handler)), methods=methods)
            for path, methods, scope, handler in table
        ]

    async def status(self, request: Request) -> Response:
        status = self._controller.status()
        # The one answer that is laid out: tabs, this order, a final newline.
        lines = msgspec.json.format(msgspec.json.encode(status), indent=1).decode()
        body = lines.replace("\n ", "\n\t") + "\n"
        return Response(body, 200 if status["databaseReady"] else 503, media_type=JSON)

    async def networks(self, request: Request) -> Response:
        return answer([str(n.nwid) for n in visible(request, self._controller.state)])

    async def create(self, request: Request) -> Response:
        body = parse(await request.body())
        return stored(await self._controller.create_network(body, actor(request)))

    async def create_below(self, request: Request) -> Response:
        if request.path_params["prefix"] != str(self._controller.address):
            return empty(400)
        return await self.create(request)

    async def network(self, request: Request) -> Response:
        return stored(self._controller.network(request.path_params["nwid"]).document)

    async def put_network(self, request: Request) -> Response:
        body = parse(await request.body())
        nwid = request.path_params["nwid"]
        return stored(await self._controller.put_network(nwid, body, actor(request)))

    async def delete_network(self, request: Request) -> Response:
        nwid = request.path_params["nwid"]
        return stored(await self._controller.delete_network(nwid, actor(request)))

    async def members(self, request: Request) -> Response:
        network = self._controller.network(request.path_params["nwid"])
        return answer({str(a): network.members[a].revision for a in network.order})

    async def member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        return stored(self._controller.member(nwid, address).document)

    async def put_member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        self._controller.network(nwid)  # before the body is looked at
        body = parse(await request.body())
        return stored(await self._controller.put_member(nwid, address, body, actor(request)))

    async def delete_member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        return stored(await self._controller.delete_member(nwid, address, actor(request)))

    async def all_networks(self, request: Request) -> Response:
        networks = visible(request, self._controller.state)
        data = [
            network.fields
            | {
                "meta": {
                    "authorizedMemberCount": network.authorized,
                    "totalMemberCount": len(network.members),
                }
            }
            for network in networks
        ]
        return answer({"data": data, "meta": {"networkCount": len(networks)}})

    async def all_members(self, request: Request) -> Response:
        network = self._controller.network(request.path_params["nwid"])
        data = [msgspec.Raw(network.members[address].document) for address in network.order]
        meta = {"authorizedCount": network.authorized, "totalCount": len(data)}
        return answer({"data": data, "meta": meta})
