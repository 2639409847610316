"""The OpenAPI document, made from the endpoints and the types of their bodies and answers."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from zt.controller.api.endpoint import Endpoint
from zt.controller.api.models import Problem

TITLE = "ZeroTier network controller"
VERSION = "5"
_PARAMETERS: dict[str, dict[str, Any]] = {
    "nwid": {"type": "string", "pattern": "^[0-9a-fA-F]{16}$"},
    "address": {"type": "string", "pattern": "^[0-9a-fA-F]{10}$"},
    "prefix": {"type": "string", "pattern": "^[0-9a-f]{10}_{6}$"},
    "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
}
_CONVERTED = re.compile(r"\{(\w+)(:\w+)?\}")


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    types = [t for e in endpoints for t in (e.body, e.answer) if t is not None]
    schemas, components = msgspec.json.schema_components(
        [*types, Problem], ref_template="#/components/schemas/{name}"
    )
    found = dict(zip(map(repr, [*types, Problem]), schemas, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(_CONVERTED.sub(r"{\1}", endpoint.path), {})
        for method in endpoint.methods:
            operations[method.lower()] = _operation(endpoint, found)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION},
        "security": [{"token": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-ZT1-Auth"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    path = [
        {
            "name": match[1],
            "in": "path",
            "required": True,
            "schema": _PARAMETERS[match[1]],
        }
        for match in _CONVERTED.finditer(endpoint.path)
    ]
    query = [
        {"name": q.name, "in": "query", "schema": q.schema, "description": q.text}
        for q in endpoint.query
    ]
    answer: dict[str, Any] = {"schema": {"type": "string"}}
    if endpoint.answer is not None:
        answer = {"schema": schemas[repr(endpoint.answer)]}
    responses: dict[str, Any] = {
        "200": {"description": "Done.", "content": {endpoint.media: answer}},
        "401": {"description": "No valid token, or one without the right."},
    }
    for status in endpoint.errors:
        responses[str(status)] = {"description": _STATUS[status]}
        if status in (400, 422, 500, 503):
            schema = {"schema": schemas[repr(Problem)]}
            responses[str(status)]["content"] = {"application/json": schema}
    operation: dict[str, Any] = {
        "summary": endpoint.text,
        "parameters": [*path, *query],
        "responses": responses,
        "x-scope": endpoint.scope.name.lower(),
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": schemas[repr(endpoint.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


_STATUS = {
    400: "What was sent does not fit.",
    404: "There is no such network or member.",
    422: "The rules do not compile.",
    500: "The body is not JSON, or holds a value that cannot be read.",
    503: "The database is not available.",
}
