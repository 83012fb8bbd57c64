"""What a route of `/api/v1` is, and how it is served: arguments checked against types, answers and errors as JSON.

A handler gets its arguments as the structs that the route declares, so it never sees what does not fit them, and gives
a struct or a dict. What it cannot do it raises as an `ApiError`; the answer is then
`{"error": {"code": "...", "message": "..."}}`, with the status of the code (`STATUSES`). What acts leaves a line in the
log: `admin.action`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from farm.supervisor.api.arguments import Fault, NoArguments, read_body, read_path, read_query, written
from farm.supervisor.running_farm import RunningFarm
from router.common import logs
from router.core.managing import BAD_REQUEST, CONFLICT, FAILED, MAX_PAGE, NOT_FOUND, REFUSED, UNAVAILABLE

PREFIX: Final = "/api/v1"
READ: Final = "read"
ACT: Final = "act"
"""The roles: who may act may read, too."""
ROLE: Final = "farm.role"
"""Where the role of a request stands in its ASGI scope; `admin_access` writes it."""
REQUEST_ID: Final = "farm.request_id"
"""The same for its ID."""

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Rows of one answer, at most.")]
"""As `limit` in a query. What is longer is cut, and the answer says so with `more` or `next`."""

# The others are those of a router's refusals.
FORBIDDEN: Final = "forbidden"
UNAUTHORIZED: Final = "unauthorized"
MISDIRECTED: Final = "misdirected"
BAD_METHOD: Final = "method_not_allowed"
TOO_LONG: Final = "too_long"
BAD_TYPE: Final = "unsupported_media_type"
STATUSES: Final = {
    BAD_REQUEST: (400, "An argument is missing or is not what it has to be."),
    UNAUTHORIZED: (401, "The token is missing or wrong."),
    FORBIDDEN: (403, "The token may only read, or a page of another site has sent the request."),
    NOT_FOUND: (404, "There is no such thing."),
    BAD_METHOD: (405, "The route has no such method."),
    CONFLICT: (409, "It cannot be done as things are now."),
    TOO_LONG: (413, "The body is longer than admin.max_body_bytes."),
    BAD_TYPE: (415, "A body has to be application/json."),
    MISDIRECTED: (421, "The Host header names none of the admin port's names: see admin.hosts."),
    REFUSED: (422, "What was sent was understood and is refused, as an app server would see it."),
    FAILED: (500, "A defect of the farm; its log has a trace."),
    UNAVAILABLE: (503, "The router or the store does not answer now."),
}
"""By code: the HTTP status, and what it means."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ApiError(Exception):
    """A request that is answered with an error. code: one of STATUSES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class ApiContext:
    """What routes may use."""

    farm: RunningFarm
    status: Callable[[], Awaitable[dict[str, Any]]]
    """The whole farm's, as `GET /status` has it."""

    async def ask(self, action: str, /, **arguments: Any) -> dict[str, Any]:
        """Have a router perform an action (`router.core.managing`); any of them reaches what any of them owns.

        Returns: what the action answers. Raises: ApiError.
        """
        answer = await self.farm.link.manage(action, arguments)
        if answer is None:
            raise ApiError(UNAVAILABLE, "no router answers; what was to be changed may have been changed all the same")
        if (error := answer.get("error")) is not None:
            code = error.get("code")
            raise ApiError(code if code in STATUSES else FAILED, str(error.get("message", "")))
        return answer


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of a request, each as the route declares it."""

    path: Mapping[str, str]
    query: Any
    body: Any
    role: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """One method of one path."""

    method: str
    path: str
    """Below PREFIX, with `{name}` for a part that is an argument; `{name:path}` takes slashes too."""
    role: str
    """READ or ACT."""
    summary: str
    """What it does, a line for the documentation."""
    handler: Callable[[Asked], Awaitable[Any]]
    """Gives what `answer` says. Raises: ApiError."""
    answer: Any
    """Type of the answer: a struct."""
    query: type[msgspec.Struct] | None = None
    """Arguments of the query; all of them have defaults, or are needed."""
    body: type[msgspec.Struct] | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    """What each part of the path that is an argument is, a line for the documentation."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """What these parts have to look like, as a regular expression of the whole; else 400."""
    told: tuple[str, ...] = ()
    """Fields of the body that say what is done: they stand in the log. No contents of messages."""


def error(code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that is an error."""
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    return Response(body, STATUSES[code][0], headers, "application/json")


def mount(routes: Iterable[ApiRoute], max_body: int) -> list[BaseRoute]:
    """All of them as the application's routes, each path with all of its methods. max_body: bytes."""
    by_path: dict[str, dict[str, ApiRoute]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method] = route
    served: list[BaseRoute] = [
        Route(path, _Served(methods, max_body), name=f"api {path}") for path, methods in by_path.items()
    ]
    served.append(Route("/{rest:path}", _nothing))
    return [Mount(PREFIX, routes=served)]


class _Nothing:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await error(NOT_FOUND, "there is no such route: GET /api/v1/openapi.json describes all of them")(
            scope, receive, send
        )


_nothing: Final = _Nothing()


class _Served:
    """One path: an ASGI application, so that every method comes here."""

    def __init__(self, methods: Mapping[str, ApiRoute], max_body: int) -> None:
        self._methods = methods
        self._allow = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        route = self._methods.get(method)
        if route is None:
            response = error(BAD_METHOD, f"this route has {self._allow}", {"Allow": self._allow})
        else:
            response = await self._answer(route, request)
        await response(scope, receive, send)

    async def _answer(self, route: ApiRoute, request: Request) -> Response:
        given = request.headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else os.urandom(8).hex()
        request.scope[REQUEST_ID] = request_id
        outcome, arguments = "ok", ""
        try:
            asked = await self._asked(route, request, request_id)
            arguments = written(asked.query, asked.body, route.told)
            response = Response(msgspec.json.encode(await route.handler(asked)), media_type="application/json")
        except ApiError as refused:
            outcome = refused.code
            response = error(refused.code, refused.message)
        except Exception as defect:
            outcome = FAILED
            logs.limited(
                "admin.route_failed", at="error", per=route.path, exc=defect, route=route.path, request_id=request_id
            )
            response = error(FAILED, "a defect of the farm: its log has a trace")
        if route.role == ACT:
            client = request.client
            logs.event(
                "admin.action",
                role=request.scope.get(ROLE, ACT),
                address="" if client is None else client.host,
                action=f"{route.method} {route.path}",
                target=" ".join(str(part) for part in request.path_params.values()),
                arguments=arguments,
                outcome=outcome,
                request_id=request_id,
            )
        response.headers["X-Request-Id"] = request_id
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _asked(self, route: ApiRoute, request: Request, request_id: str) -> Asked:
        """Raises: ApiError."""
        role = request.scope.get(ROLE, ACT)
        if route.role == ACT and role != ACT:
            raise ApiError(FORBIDDEN, "this token may only read: admin.token may act")
        path = {name: str(value) for name, value in request.path_params.items()}
        try:
            read_path(request.scope["raw_path"])
            for name, pattern in route.patterns.items():
                if re.fullmatch(pattern, path[name]) is None:
                    raise Fault(f"{name}: {route.parts.get(name, 'not of the form that it has to have')}")
            query = read_query(request.scope["query_string"], route.query or NoArguments)
            body = await self._body(route, request)
        except Fault as wrong:
            raise ApiError(BAD_REQUEST, str(wrong)) from None
        return Asked(path, query, body, role, request_id)

    async def _body(self, route: ApiRoute, request: Request) -> Any:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > self._max_body:
                raise ApiError(TOO_LONG, f"the body is longer than admin.max_body_bytes, {self._max_body}")
        if route.body is None:
            if data:
                raise ApiError(BAD_REQUEST, "this route takes no body")
            return None
        if data and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(BAD_TYPE, "the body has to be JSON, with Content-Type: application/json")
        return read_body(data or b"{}", route.body)
