"""The arguments of requests of /api/v1: what is refused, and that the refusal names it."""

from collections.abc import Iterator
from typing import Annotated, Any, cast

import msgspec
import pytest
from msgspec import Meta

from farm.supervisor.api import routes
from farm.supervisor.api.arguments import Fault, NoArguments, read_body, read_path, read_query, written
from farm.supervisor.api.frame import ApiContext


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """Which."""

    prefix: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    hue: Annotated[str, Meta(pattern="^(red|blue)?$", description="A colour.")] = ""


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What."""

    text: str = ""
    ttl: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 60


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"prefx=a", "the query: prefx is not known here; there may be: prefix, limit, hue"),
        (b"limit=1&prefix=a&limit=1", "the query: limit stands there twice"),
        (b"lim%69t=1&limit=2", "the query: limit stands there twice"),
        (b"limit=x", "the query: limit: expected `int`, found something else"),
        (b"limit=", "the query: limit: expected `int`, found something else"),
        (b"limit", "the query: limit: expected `int`, found something else"),
        (b"limit=0", "the query: limit: expected `int` >= 1"),
        (b"limit=" + b"9" * 5000, "the query: limit: integer value out of range"),
        (b"hue=green", "the query: hue: expected: A colour."),
        (b"prefix=%ff", "the query is no UTF-8: %ff"),
        (b"prefix=\xff", r"the query is no UTF-8: \xff"),
        (b"%ed%a0%80=1", "the query is no UTF-8: %ed%a0%80"),
        (b"prefix=a%00b", "the query has a NUL (%00) in it"),
        (b"a" * 9000 + b"=1", f"the query: {'a' * 100}... is not known here; there may be: prefix, limit, hue"),
        (b"a%0Ab=1", "the query: a?b is not known here; there may be: prefix, limit, hue"),
    ],
)
def test_a_query_that_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(Fault) as fault:
        read_query(raw, Query)
    assert str(fault.value) == said


def test_a_query_that_is_taken() -> None:
    assert read_query(b"prefix=a+b%2B%C3%A9&&limit=7", Query) == Query("a b+é", 7)
    assert read_query(b"prefix=a=b;c", Query) == Query("a=b;c")
    assert read_query(b"", NoArguments) == NoArguments()
    with pytest.raises(Fault, match="the query: a is not known here; there may be: nothing"):
        read_query(b"a=1", NoArguments)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"txt": "a"}', "the body: txt is not known here; there may be: text, ttl"),
        (b'{"text": "a", "text": "b"}', "the body: text stands there twice"),
        (b'{"text": "a", "\\u0074ext": "a"}', "the body: text stands there twice"),
        (b'{"text": 5}', "the body: text: expected `str`, got `int`"),
        (b'{"text": null}', "the body: text: expected `str`, got `null`"),
        (b'{"ttl": 1' + b"0" * 5000 + b"}", "the body: ttl: "),
        (b'{"ttl": 1e9}', "the body: ttl: expected `int`, got `float`"),
        (b'{"ttl": NaN}', "the body is no JSON: "),
        (b'{"text": "\xff"}', "the body is no JSON: "),
        (b'{"text": "\\ud800"}', "the body is no JSON: "),
        (b"[" * 100_000, "the body: expected `object`, got `array`"),
        (b'{"text": ' + b"[" * 100_000, "the body: text: expected `str`, got `array`"),
        (b'{"deep": ' + b'{"a":' * 100_000, "the body: deep is not known here"),
        (b"{} {}", "the body is no JSON: "),
        (b"\xef\xbb\xbf{}", "the body is no JSON: "),
        (b"null", "the body: expected `object`, got `null`"),
        (b'{"' + b"a" * 9000 + b'": 1}', "the body: aaaa"),
    ],
)
def test_a_body_that_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Fault) as fault:
        read_body(data, Body)
    assert str(fault.value).startswith(said)
    assert len(str(fault.value)) < 200


def test_a_path_that_is_refused() -> None:
    read_path(b"/api/v1/channels/pusher/a%20%C3%A9/b")
    for raw in (b"/channels/a%ff", b"/channels/a%00b"):
        with pytest.raises(Fault, match="the path"):
            read_path(raw)


def test_arguments_are_written_so_that_none_can_pass_for_another() -> None:
    assert written(Query("a b&limit=3"), Body("secret", 5), ("ttl",)) == "prefix=a+b%26limit%3D3&ttl=5"
    assert written(Query(), Body(), ("text",)) == ""
    assert written(NoArguments(), None, ()) == ""


def types() -> Iterator[tuple[str, Any]]:
    for route in routes(cast(ApiContext, _Nothing())):
        for kind in (route.query, route.body):
            if kind is not None:
                yield f"{route.method} {route.path}", kind


class _Nothing:
    def __getattr__(self, name: str) -> "_Nothing":
        return self


@pytest.mark.parametrize(("route", "kind"), list(types()), ids=lambda found: getattr(found, "__name__", found))
def test_no_route_passes_over_what_it_does_not_know(route: str, kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.forbid_unknown_fields
