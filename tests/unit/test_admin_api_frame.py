"""The frame of /api/v1: arguments of the declared types, answers and errors as JSON, and a line for what acts."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import trio
from starlette.applications import Starlette

from farm.supervisor.api.frame import ACT, READ, STATUSES, ApiError, ApiRoute, Asked, Limit, mount
from farm.supervisor.api.openapi import description
from router.core.managing import CONFLICT

MAX_BODY = 1000


class Found(msgspec.Struct):
    """What was asked for."""

    name: str
    limit: int
    text: str = ""


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """How much."""

    limit: Limit = 100


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What to say."""

    text: str
    kind: str = ""


def routes() -> Iterator[ApiRoute]:
    async def find(asked: Asked) -> Found:
        if asked.path["name"] == "gone":
            raise ApiError(CONFLICT, "it is gone")
        if asked.path["name"] == "defect":
            raise KeyError("defect")
        return Found(asked.path["name"], asked.query.limit)

    async def say(asked: Asked) -> Found:
        return Found(asked.path["name"], 0, asked.body.text)

    yield ApiRoute(
        method="GET",
        path="/things/{name}",
        role=READ,
        summary="One.",
        handler=find,
        answer=Found,
        query=Query,
        parts={"name": "which"},
    )
    yield ApiRoute(
        method="POST",
        path="/things/{name}",
        role=ACT,
        summary="Say.",
        handler=say,
        answer=Found,
        query=Query,
        body=Body,
        told=("kind",),
    )


def ask(method: str, path: str, **given: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        app = Starlette(routes=mount(routes(), MAX_BODY))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://farm/api/v1") as client:
            return await client.request(method, path, **given)

    return trio.run(main)


def test_an_answer_is_json_with_the_id_of_its_request() -> None:
    answer = ask("GET", "/things/a%20b", params={"limit": "7"}, headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.json()) == (200, {"name": "a b", "limit": 7, "text": ""})
    assert answer.headers["x-request-id"] == "mine-1"
    assert ask("GET", "/things/a", headers={"X-Request-Id": "no\tid"}).headers["x-request-id"] != "no\tid"
    assert ask("HEAD", "/things/a").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "given", "code"),
    [
        ("GET", "/things/a?limit=0", {}, "bad_request"),
        ("GET", "/things/a?limit=1001", {}, "bad_request"),
        ("GET", "/things/a?limit=x", {}, "bad_request"),
        ("GET", "/things/a?other=1", {}, "bad_request"),
        ("GET", "/things/a?limit=1&limit=2", {}, "bad_request"),
        ("GET", "/things/a?limit=1&text=%ff", {}, "bad_request"),
        ("GET", "/things/a%ff", {}, "bad_request"),
        ("GET", "/things/a%00", {}, "bad_request"),
        ("GET", "/things/a", {"content": b"x"}, "bad_request"),
        ("GET", "/things/gone", {}, "conflict"),
        ("GET", "/things/defect", {}, "failed"),
        ("GET", "/nothing", {}, "not_found"),
        ("DELETE", "/things/a", {}, "method_not_allowed"),
        ("POST", "/things/a", {"json": {}}, "bad_request"),
        ("POST", "/things/a", {"json": {"text": 5}}, "bad_request"),
        ("POST", "/things/a", {"json": {"text": "x", "more": 1}}, "bad_request"),
        ("POST", "/things/a", {"content": b"{", "headers": {"Content-Type": "application/json"}}, "bad_request"),
        ("POST", "/things/a", {"content": b'{"text":"x"}'}, "unsupported_media_type"),
        ("POST", "/things/a", {"data": {"text": "x"}}, "unsupported_media_type"),
        ("POST", "/things/a", {"json": {"text": "x" * MAX_BODY}}, "too_long"),
    ],
)
def test_what_is_refused_says_why_in_json(method: str, path: str, given: dict[str, Any], code: str) -> None:
    answer = ask(method, path, **given)
    assert answer.status_code == STATUSES[code][0]
    error = answer.json()["error"]
    assert error["code"] == code and error["message"]


def test_what_acts_leaves_a_line_whatever_comes_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="farm")
    ask("POST", "/things/ann?limit=7", json={"text": "hello", "kind": "a b"}, headers={"X-Request-Id": "one"})
    ask("POST", "/things/bob?limit=7&token=secret", json={}, headers={"X-Request-Id": "two"})
    ask("GET", "/things/ann")
    lines = [vars(record)["farm_fields"] for record in caplog.records if record.message == "admin.action"]
    told = ("action", "target", "arguments", "outcome", "request_id")
    assert [tuple(line[name] for name in told) for line in lines] == [
        ("POST /things/{name}", "ann", "limit=7&kind=a+b", "ok", "one"),
        ("POST /things/{name}", "bob", "", "bad_request", "two"),
    ]
    assert not any(text in str(lines) for text in ("hello", "secret"))


def test_the_description_has_every_argument_and_answer() -> None:
    found = description(list(routes()))
    operation = found["paths"]["/things/{name}"]["get"]
    assert [(p["name"], p["in"], p["required"]) for p in operation["parameters"]] == [
        ("name", "path", True),
        ("limit", "query", False),
    ]
    limit = operation["parameters"][1]["schema"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 1000, 100)
    assert found["paths"]["/things/{name}"]["post"]["requestBody"]["required"]
    assert {"Found", "Body", "ErrorAnswer"} <= found["components"]["schemas"].keys()
    assert {"200", "400", "401", "403"} <= operation["responses"].keys()
