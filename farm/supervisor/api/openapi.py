"""The description of `/api/v1` by OpenAPI 3.1, made from the routes and the types of their arguments and answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from farm.supervisor.api.frame import ACT, PREFIX, READ, STATUSES, ApiRoute
from router import __version__

_REF: Final = "#/components/schemas/{name}"
_PART: Final = re.compile(r"\{(\w+)(?::path)?\}")
_INFO: Final = (
    "What the farm shows and does, for people, the dashboard and the commands. Every error is "
    '`{"error": {"code": "...", "message": "..."}}`.'
)


class Error(msgspec.Struct):
    """Why a request was not answered."""

    code: str
    message: str


class ErrorAnswer(msgspec.Struct):
    """The body of every answer that is an error."""

    error: Error


def description(routes: Sequence[ApiRoute]) -> dict[str, Any]:
    """The document of `GET /openapi.json`."""
    types = [ErrorAnswer, *(t for route in routes for t in (route.answer, route.query, route.body) if t is not None)]
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PART.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas, components)
    queries = {route.query.__name__ for route in routes if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Connection farm", "version": __version__, "description": _INFO},
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}, {"basic": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "admin.token or admin.read_token"},
                "basic": {"type": "http", "scheme": "basic", "description": "The same as password, with any user."},
            },
        },
    }


def _operation(route: ApiRoute, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": route.parts.get(name, ""),
            "schema": {"type": "string", "minLength": 1}
            | ({"pattern": f"^{route.patterns[name]}$"} if name in route.patterns else {}),
        }
        for name in _PART.findall(route.path)
    ]
    if route.query is not None:
        query = components[route.query.__name__]
        for name, schema in query["properties"].items():
            parameters.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in query.get("required", ()),
                    "description": schema.get("description", ""),
                    "schema": {key: value for key, value in schema.items() if key != "description"},
                }
            )
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.path.split("/")[1].partition(".")[0]],
        "x-role": route.role,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": schemas[route.answer]}}}
        }
        | {
            str(status): {
                "description": meaning,
                "content": {"application/json": {"schema": schemas[ErrorAnswer]}},
            }
            for status, meaning in STATUSES.values()
        },
    }
    if route.role == READ:
        operation["description"] = "Any token may ask."
    elif route.role == ACT:
        operation["description"] = "Only the token that may act. It leaves a line in the log: `admin.action`."
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(components[route.body.__name__].get("required")),
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    return operation


def _operation_id(route: ApiRoute) -> str:
    words = re.findall(r"[a-z]+", route.path)
    return "_".join([route.method.lower(), *words])
