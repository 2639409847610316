"""Who asks, and what that principal may do.

The service authenticates a request before it gets here and leaves a `Principal` in the ASGI scope
under `PRINCIPAL`; without one the request comes from whoever holds the node's own token.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from zt.controller.controller import LOCAL
from zt.controller.state import Network, State
from zt.controller.tokens import Principal, Scope

PRINCIPAL = "zt.principal"

Handler = Callable[[Request], Awaitable[Response]]

ADMINISTRATOR = Principal(LOCAL, Scope.ADMIN)


def principal(request: Request) -> Principal:
    found: Principal = request.scope.get(PRINCIPAL, ADMINISTRATOR)
    return found


def actor(request: Request) -> str:
    return principal(request).actor


def visible(request: Request, state: State) -> list[Network]:
    """The networks that the principal may see, ascending."""
    only = principal(request).networks
    return [network for network in state if not only or network.nwid in only]


def required(scope: Scope, handler: Handler) -> Handler:
    """Refuses with 401, as any request without a right is, unless the principal has this scope and
    may touch the network that the path names. Paths without one are for reading only then."""

    async def call(request: Request) -> Response:
        asking = principal(request)
        nwid = request.path_params.get("nwid")
        limited = bool(asking.networks) and nwid not in asking.networks
        if asking.scope < scope or (limited and (nwid is not None or scope > Scope.READ)):
            return Response(b"{}", 401, media_type="application/json")
        return await handler(request)

    return call
