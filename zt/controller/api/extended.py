"""What front ends miss in the classic API: pages, filters, bulk changes, inventory, rules as text.

Bodies are checked strictly: 400 with a reason for what does not fit, 422 for rules that do not
compile.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from zt.controller.api import models
from zt.controller.api.auth import actor, visible
from zt.controller.api.endpoint import Endpoint, Query
from zt.controller.api.http import JSON, BadRequest, answer
from zt.controller.bodies import dump
from zt.controller.changes import NotFound
from zt.controller.controller import Controller
from zt.controller.documents import Document
from zt.controller.listing import Wanted, matching, online
from zt.controller.rulestext import compile_text
from zt.controller.state import Member, Network
from zt.controller.tokens import Scope
from zt.protocol.address import Address, NetworkId

V5 = "/controller/v5"
NETWORKS = V5 + "/network"
NETWORK = NETWORKS + "/{nwid:controller_network}"
MEMBERS = NETWORK + "/member"
MEMBER = MEMBERS + "/{address:controller_member}"

PAGE_DEFAULT, PAGE_MOST = 100, 1000
METADATA_LIMIT = 65_536
BULK_AT_ONCE = 500

T = TypeVar("T")


PAGING = (
    Query("after", {"type": "string"}, "the last ID of the page before"),
    Query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": PAGE_DEFAULT},
        "entries of one page",
    ),
    Query("search", {"type": "string"}, "part of the ID or, in any case, of the name"),
)
FILTERS = (
    Query("authorized", {"type": "boolean"}, "only members that are, or are not"),
    Query("online", {"type": "boolean"}, "only members that asked within two minutes, or not"),
)


class Extended:
    """Handlers, bound to one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def endpoints(self) -> list[Endpoint]:
        read, write = Scope.READ, Scope.NETWORK
        return [
            Endpoint(
                path=V5 + "/status",
                methods=("GET",),
                scope=read,
                handler=self.status,
                text="Numbers, and whether the database is there.",
                answer=models.Status,
            ),
            Endpoint(
                path=NETWORKS,
                methods=("GET",),
                scope=read,
                handler=self.networks,
                text="A page of networks.",
                answer=models.NetworkPage,
                query=PAGING,
                errors=(400,),
            ),
            Endpoint(
                path=NETWORK,
                methods=("GET",),
                scope=read,
                handler=self.network,
                text="A network with its numbers.",
                answer=models.NetworkEntry,
                errors=(404,),
            ),
            Endpoint(
                path=NETWORK,
                methods=("PATCH",),
                scope=write,
                handler=self.patch_network,
                text="Change some fields of a network.",
                body=models.NetworkPatch,
                answer=models.NetworkEntry,
                errors=(400, 404, 422),
            ),
            Endpoint(
                path=NETWORK + "/rules",
                methods=("GET",),
                scope=read,
                handler=self.rules,
                text="The rules as text, and what they compile to.",
                answer=models.RulesResult,
                errors=(404, 422),
            ),
            Endpoint(
                path=V5 + "/rules",
                methods=("POST",),
                scope=read,
                handler=self.check_rules,
                text="Compile rules without storing them.",
                body=models.RulesText,
                answer=models.RulesResult,
                errors=(400, 422),
            ),
            Endpoint(
                path=MEMBERS,
                methods=("GET",),
                scope=read,
                handler=self.members,
                text="A page of members, each with what the controller saw of it.",
                answer=models.MemberPage,
                query=(*PAGING, *FILTERS),
                errors=(400, 404),
            ),
            Endpoint(
                path=MEMBERS,
                methods=("PATCH",),
                scope=write,
                handler=self.change_members,
                text="Change or delete many members, listed or filtered.",
                body=models.BulkChange,
                answer=models.BulkResult,
                errors=(400, 404),
            ),
            Endpoint(
                path=MEMBER,
                methods=("GET",),
                scope=read,
                handler=self.member,
                text="A member with what the controller saw of it.",
                answer=models.MemberEntry,
                errors=(404,),
            ),
            Endpoint(
                path=MEMBER,
                methods=("PATCH",),
                scope=write,
                handler=self.patch_member,
                text="Change some fields of a member.",
                body=models.MemberPatch,
                answer=models.MemberEntry,
                errors=(400, 404),
            ),
        ]

    # Networks

    async def status(self, request: Request) -> Response:
        state = self._controller.state
        status = models.Status(
            networks=len(state.networks),
            members=state.member_count(),
            database=self._controller.changes.unavailable,
            log=self._controller.changes.last_seq,
        )
        return encoded(status)

    async def networks(self, request: Request) -> Response:
        after, limit = page_of(request, NetworkId)
        search = request.query_params.get("search", "").lower()
        networks = (
            network
            for network in visible(request, self._controller.networks())
            if (after is None or network.nwid > after) and search in network.search
        )
        found = list(islice(networks, limit + 1))
        entries = [self._network(network) for network in found[:limit]]
        following = str(found[limit - 1].nwid) if len(found) > limit else None
        return answer({"data": entries, "next": following})

    async def network(self, request: Request) -> Response:
        return answer(self._network(self._controller.network(request.path_params["nwid"])))

    async def patch_network(self, request: Request) -> Response:
        nwid = request.path_params["nwid"]
        patch = await body_of(request, models.NetworkPatch)
        classic, extra = split(patch, ("rulesSource", *NETWORK_EXTRA), NETWORK_EXTRA)
        if patch.rules_source is not UNSET:
            if {"rules", "capabilities", "tags"} & classic.keys():
                raise BadRequest("rulesSource sets rules, capabilities and tags itself")
            compiled = await compile_text(patch.rules_source)
            classic |= compiled.config
            extra["rulesSource"] = patch.rules_source
        await self._controller.put_network(nwid, classic, actor(request), extra)
        return await self.network(request)

    def _network(self, network: Network) -> Document:
        return {"network": msgspec.Raw(network.document), "meta": self._meta(network)}

    def _meta(self, network: Network) -> Document:
        return {
            "authorizedMemberCount": network.authorized,
            "totalMemberCount": len(network.members),
            "onlineMemberCount": len(online(network, self._controller.now_ms())),
        }

    # Rules

    async def rules(self, request: Request) -> Response:
        network = self._controller.network(request.path_params["nwid"])
        source = network.fields.get("rulesSource")
        return await self._compiled(source if isinstance(source, str) else "")

    async def check_rules(self, request: Request) -> Response:
        return await self._compiled((await body_of(request, models.RulesText)).source)

    async def _compiled(self, source: str) -> Response:
        compiled = await compile_text(source)
        remarks = [
            models.RulesRemark(code=w.code, line=w.line, column=w.column, message=w.message)
            for w in compiled.warnings
        ]
        result = models.RulesResult(
            source=source,
            config=compiled.config,
            capabilities_by_name=compiled.capabilities_by_name,
            tags_by_name=compiled.tags_by_name,
            warnings=remarks,
        )
        return encoded(result)

    # Members

    async def members(self, request: Request) -> Response:
        network = self._controller.members(request.path_params["nwid"])
        after, limit = page_of(request, Address)
        wanted = Wanted(
            flag_of(request, "authorized"),
            flag_of(request, "online"),
            request.query_params.get("search", ""),
        )
        now_ms = self._controller.now_ms()
        found = list(islice(matching(network, wanted, now_ms, after), limit + 1))
        following = str(found[limit - 1].address) if len(found) > limit else None
        entries = [self._member(network, member) for member in found[:limit]]
        return answer({"data": entries, "next": following, "meta": self._meta(network)})

    async def member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        member = self._controller.member(nwid, address)
        return answer(self._member(self._controller.network(nwid), member))

    async def patch_member(self, request: Request) -> Response:
        nwid, address = request.path_params["nwid"], request.path_params["address"]
        classic, extra = split(
            await body_of(request, models.MemberPatch), MEMBER_EXTRA, MEMBER_EXTRA
        )
        await self._controller.put_member(nwid, address, classic, actor(request), extra)
        return await self.member(request)

    async def change_members(self, request: Request) -> Response:
        network = self._controller.network(request.path_params["nwid"])
        change = await body_of(request, models.BulkChange)
        if (change.members is None) == (change.where is None):
            raise BadRequest("give either members or where")
        if (change.set is None) == (not change.delete):
            raise BadRequest("give either set or delete")
        patch = split(change.set or models.MemberPatch(), MEMBER_EXTRA, MEMBER_EXTRA)
        missing: list[str] = []
        if change.members is not None:
            addresses = [Address.parse(text) for text in dict.fromkeys(change.members)]
            missing = [str(address) for address in addresses if address not in network.members]
        else:
            assert change.where is not None
            wanted = Wanted(change.where.authorized, change.where.online, change.where.search)
            addresses = [m.address for m in matching(network, wanted, self._controller.now_ms())]
        present = [address for address in addresses if address in network.members]
        before = {address: network.members[address] for address in present}
        who = actor(request)

        async def apply(address: Address) -> None:
            try:
                if change.delete:
                    await self._controller.delete_member(network.nwid, address, who)
                else:
                    await self._controller.put_member(
                        network.nwid, address, patch[0], who, patch[1]
                    )
            except NotFound:
                missing.append(str(address))

        for at in range(0, len(present), BULK_AT_ONCE):
            # What is under way together shares a transaction.
            await asyncio.gather(*map(apply, present[at : at + BULK_AT_ONCE]))
        changed = sum(network.members.get(address) is not old for address, old in before.items())
        unchanged = len(addresses) - changed - len(missing)
        return encoded(models.BulkResult(changed=changed, unchanged=unchanged, missing=missing))

    def _member(self, network: Network, member: Member) -> Document:
        seen = network.sightings.get(member.address)
        here = seen is not None and seen.online(self._controller.now_ms())
        return {
            "member": msgspec.Raw(member.document),
            "seen": {
                "online": here,
                "lastSeen": seen.last_ms if seen else 0,
                "physicalAddress": (seen.physical or None) if seen else None,
                "version": (seen.version or None) if seen else None,
                "platform": (seen.platform or None) if seen else None,
            },
        }


NETWORK_EXTRA = (
    "description",
    "metadata",
    "certificateTimeoutWindowSize",
    "ssoEnabled",
    "ssoVersion",
    "clientId",
    "authorizationEndpoint",
    "ssoIssuer",
    "ssoProvider",
)
MEMBER_EXTRA = ("description", "metadata", "ssoExempt")


def split(
    patch: msgspec.Struct, apart: Sequence[str], extra: Sequence[str]
) -> tuple[Document, Document]:
    """What the classic API knows, and what only the extended one does.

    Raises BadRequest for metadata that is too large.
    """
    fields: Document = msgspec.to_builtins(patch)
    if len(dump(fields.get("metadata"))) > METADATA_LIMIT:
        raise BadRequest(f"metadata may have {METADATA_LIMIT} bytes")
    classic = {key: value for key, value in fields.items() if key not in apart}
    return classic, {key: fields[key] for key in extra if key in fields}


async def body_of(request: Request, kind: type[T]) -> T:
    """The body as a value of that type. Raises BadRequest."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(str(error)) from None


def encoded(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON)


ID = TypeVar("ID", Address, NetworkId)


def page_of(request: Request, kind: type[ID]) -> tuple[ID | None, int]:
    """Cursor and size of the page that is asked for. Raises BadRequest."""
    after = request.query_params.get("after")
    limit = number_of(request, "limit", PAGE_DEFAULT, 1, PAGE_MOST)
    try:
        return None if not after else kind.parse(after), limit
    except ValueError as error:
        raise BadRequest(f"after: {error}") from None


def number_of(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A query parameter. Raises BadRequest."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise BadRequest(f"{name}: a number from {least} to {most}")
    return int(text)


def flag_of(request: Request, name: str) -> bool | None:
    """A query parameter; None if it is absent. Raises BadRequest."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise BadRequest(f"{name}: true or false")
    return text == "true"
