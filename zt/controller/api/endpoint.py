"""One endpoint with all that its route, its checks and its description need."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from starlette.routing import Route

from zt.controller.api.auth import required
from zt.controller.api.http import JSON, Handler, guarded
from zt.controller.tokens import Scope


class Query(NamedTuple):
    """A query parameter."""

    name: str
    schema: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path with the methods that do the same there."""

    path: str
    methods: Sequence[str]
    scope: Scope
    handler: Handler
    text: str
    """What it does, in one sentence."""
    body: Any = None
    """Type of the JSON body; None: none is read."""
    answer: Any = None
    """Type of the answer with status 200; None: not JSON, see `media`."""
    media: str = JSON
    query: Sequence[Query] = ()
    errors: Sequence[int] = field(default=())

    def route(self) -> Route:
        return Route(
            self.path, guarded(required(self.scope, self.handler)), methods=list(self.methods)
        )
