"""The controller's HTTP API, as routes for the service to mount."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zt.controller.api.classic import Classic
from zt.controller.api.endpoint import Endpoint
from zt.controller.api.extended import V5, Extended
from zt.controller.api.http import answer
from zt.controller.api.openapi import document
from zt.controller.api.operations import Operations
from zt.controller.controller import Controller
from zt.controller.tokens import Scope


def endpoints(controller: Controller) -> list[Endpoint]:
    """Every endpoint, with its description."""
    table = [
        *Classic(controller).endpoints(),
        *Extended(controller).endpoints(),
        *Operations(controller).endpoints(),
    ]

    async def describe(request: Request) -> Response:
        return answer(document(table))

    table.append(
        Endpoint(
            path=V5 + "/openapi.json",
            methods=("GET",),
            scope=Scope.READ,
            handler=describe,
            text="This description.",
            answer=dict[str, Any],
        )
    )
    return table


def routes(controller: Controller) -> list[Route]:
    """Every endpoint as a route. Authentication, JSONP and byte ranges are the caller's."""
    return [endpoint.route() for endpoint in endpoints(controller)]
