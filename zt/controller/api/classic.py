"""The endpoints that every ZeroTier controller has (ch. 05, 3)."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from zt.controller.api.auth import actor, visible
from zt.controller.api.endpoint import Endpoint
from zt.controller.api.http import JSON, answer, empty, parsed, stored
from zt.controller.api.models import MemberPatch, NetworkPatch
from zt.controller.controller import Controller
from zt.controller.tokens import Scope

WRITE = ["POST", "PUT"]
NETWORK = "/controller/network/{nwid:controller_network}"
BELOW = "/controller/network/{prefix:controller_prefix}"
MEMBER = NETWORK + "/member/{address:controller_member}"


# For the description only: bodies are read leniently, and what is no object changes nothing.
_ANSWERS: dict[str, Any] = {
    "networks": list[str],
    "members": dict[str, int],
}
_ERRORS: dict[str, tuple[int, ...]] = {
    "status": (503,),
    "networks": (),
    "all_networks": (),
    "create": (500, 503),
    "create_below": (400, 500, 503),
    "put_network": (500, 503),
    "put_member": (404, 500, 503),
    "delete_network": (404, 503),
    "delete_member": (404, 503),
}


class Classic:
    """Handlers, bound to one controller. They only translate."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def endpoints(self) -> list[Endpoint]:
        read, write = Scope.READ, Scope.NETWORK
        table = [
            ("/controller", ["GET"], read, self.status, "Is this a controller, and is it ready?"),
            ("/controller/network", ["GET"], read, self.networks, "The IDs of all networks."),
            ("/controller/network", WRITE, write, self.create, "Create a network, random ID."),
            (BELOW, WRITE, write, self.create_below, "The same, naming our own address."),
            (NETWORK, ["GET"], read, self.network, "A network."),
            (NETWORK, WRITE, write, self.put_network, "Create or change a network."),
            (NETWORK, ["DELETE"], write, self.delete_network, "Delete a network; its last state."),
            (NETWORK + "/member", ["GET"], read, self.members, "Members and their revisions."),
            (MEMBER, ["GET"], read, self.member, "A member."),
            (MEMBER, WRITE, write, self.put_member, "Create or change a member."),
            (MEMBER, ["DELETE"], write, self.delete_member, "Delete a member; its last state."),
            ("/unstable/controller/network", ["GET"], read, self.all_networks, "All networks."),
            ("/unstable" + NETWORK + "/member", ["GET"], read, self.all_members, "All members."),
        ]
        return [
            Endpoint(
                path=path,
                methods=methods,
                scope=scope,
                handler=handler,
                text=text,
                body=(MemberPatch if path == MEMBER else NetworkPatch)
                if methods is WRITE
                else None,
                answer=_ANSWERS.get(handler.__name__, dict[str, Any]),
                errors=_ERRORS.get(handler.__name__, (404,)),
            )
            for path, methods, scope, handler, text in table
        ]

    async def status(self, request: Request) -> Response:
        status = self._controller.status()
        # The one answer that is laid out: tabs, this order, a final newline.
        lines = msgspec.json.format(msgspec.json.encode(status), indent=1).decode()
        body = lines.replace("\n ", "\n\t") + "\n"
        return Response(body, 200 if status["databaseReady"] else 503, media_type=JSON)

    async def networks(self, request: Request) -> Response:
        return answer([str(n.nwid) for n in visible(request, self._controller.networks())])

    async def create(self, request: Request) -> Response:
        body = await parsed(request)
        return stored(await self._controller.create_network(body, actor(request)))

    async def create_below(self, request: Request) -> Response:
        if request.path_params["prefix"] != str(self._controller.address):
            return empty(400)
        return await self.create(request)

    async def network(self, request: Request) -> Response:
        return stored(self._controller.network(request.path_params["nwid"]).document)

    async def put_network(self, request: Request) -> Response:
        body = await parsed(request)
        nwid = request.path_params["nwid"]
        return stored(await self._controller.put_network(nwid, body, actor(request)))

    async def delete_network(self, request: Request) -> Response:
        nwid = request.path_params["nwid"]
        return stored(await self._controller.delete_network(nwid, actor(request)))

    async def members(self, request: Request) -> Response:
        network = self._controller.members(request.path_params["nwid"])
        return answer({str(a): network.members[a].revision for a in network.order})

    async def member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        return stored(self._controller.member(nwid, address).document)

    async def put_member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        self._controller.network(nwid)  # before the body is looked at
        body = await parsed(request)
        return stored(await self._controller.put_member(nwid, address, body, actor(request)))

    async def delete_member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        return stored(await self._controller.delete_member(nwid, address, actor(request)))

    async def all_networks(self, request: Request) -> Response:
        networks = visible(request, self._controller.networks())
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
        network = self._controller.members(request.path_params["nwid"])
        data = [msgspec.Raw(network.members[address].document) for address in network.order]
        meta = {"authorizedCount": network.authorized, "totalCount": len(data)}
        return answer({"data": data, "meta": meta})
