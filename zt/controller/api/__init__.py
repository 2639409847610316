"""The controller's HTTP API, as routes for the service to mount."""

from starlette.routing import Route

from zt.controller.api.classic import Classic
from zt.controller.controller import Controller


def routes(controller: Controller) -> list[Route]:
    """Every endpoint. Authentication, JSONP and byte ranges are the caller's."""
    return Classic(controller).routes()
