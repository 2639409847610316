"""Answers in the forms that clients of the controller know (ch. 05, 2.3 and 2.4)."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from zt.controller.bodies import BodyError, dump, parse
from zt.controller.changes import NotFound
from zt.controller.controller import NoFreeId
from zt.controller.rulestext import RulesRefused
from zt.controller.storage.interface import StoreUnavailable
from zt.protocol.address import Address, NetworkId

JSON = "application/json"
DESCRIPTION_LIMIT = 1000
"""Bytes of an error's description; original controllers cut the whole body at 1023."""

Handler = Callable[[Request], Awaitable[Response]]


def answer(value: Any) -> Response:
    return Response(dump(value), media_type=JSON)


def stored(document: bytes) -> Response:
    """An object as it is stored."""
    return Response(document, media_type=JSON)


def empty(status: int) -> Response:
    return Response(status_code=status)


def failure(status: int, description: str) -> Response:
    """An error with a body; unlike the original's it is always valid JSON (Q2)."""
    cut = description.encode("utf-8", "replace")[:DESCRIPTION_LIMIT].decode("utf-8", "ignore")
    # Blanks as recorded.
    body = b'{"error": %d, "description": %s}' % (status, msgspec.json.encode(cut))
    return Response(body, status, media_type=JSON)


class Refused(Exception):
    """A request body of a kind that is not read: the status alone is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def parsed(request: Request) -> Any:
    """The JSON of a classic request body; its declared type hardly matters (ch. 05, 2.1).

    Raises BodyError, and Refused for a compressed body or one in parts.
    """
    headers = request.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(415)
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise Refused(400)
    return parse(await request.body())


class BadRequest(Exception):
    """Status 400 with a reason; only the extended endpoints have it."""


def problem(status: int, description: str, **more: object) -> Response:
    """An error of the extended endpoints (`models.Problem`)."""
    body = dump({"error": status, "description": description, **more})
    return Response(body, status, media_type=JSON)


def guarded(handler: Handler) -> Handler:
    """Turns what a handler may raise into its answer."""

    async def call(request: Request) -> Response:
        try:
            return await handler(request)
        except NotFound:
            return empty(404)
        except Refused as error:
            return empty(error.status)
        except BodyError as error:
            return failure(500, f"[json.exception] {error}")
        except BadRequest as error:
            return problem(400, str(error))
        except RulesRefused as refused:
            wrong = refused.error
            place = {"line": wrong.line, "column": wrong.column, "code": wrong.code}
            return problem(422, wrong.message, **place)
        except NoFreeId:
            return empty(503)
        except StoreUnavailable as error:
            return failure(503, f"the controller's database is not available: {error}")
        except ClientDisconnect:
            return empty(400)

    return call


class _Network(Convertor[NetworkId]):
    """16 hex digits of either case."""

    regex = "[0-9a-fA-F]{16}"

    def convert(self, value: str) -> NetworkId:
        return NetworkId.parse(value)

    def to_string(self, value: NetworkId) -> str:
        return str(value)


class _Member(Convertor[Address]):
    """10 hex digits of either case."""

    regex = "[0-9a-fA-F]{10}"

    def convert(self, value: str) -> Address:
        return Address.parse(value)

    def to_string(self, value: Address) -> str:
        return str(value)


class _Below(Convertor[str]):
    """``<address>______``: the address part, as it is spelled."""

    regex = "[0-9a-fA-F]{10}_{6}"

    def convert(self, value: str) -> str:
        return value[:10]

    def to_string(self, value: str) -> str:
        return f"{value}______"


register_url_convertor("controller_prefix", _Below())
register_url_convertor("controller_network", _Network())
register_url_convertor("controller_member", _Member())
