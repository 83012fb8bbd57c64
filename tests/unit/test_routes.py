"""Which handler a request is for: by its path, and on one path by what else it says."""

from __future__ import annotations

import pytest

from router.http.message import Request, Response
from router.http.routes import Handler, Predicate, Reply, Route, Router


def called(name: str) -> Handler:
    """A handler that answers with its name."""

    def handler(request: Request, reply: Reply) -> None:
        reply(Response(200, name.encode()))

    return handler


def asked(router: Router, path: bytes, query: bytes = b"", method: bytes = b"GET", **headers: bytes) -> bytes | None:
    """The name of the handler that answers; b"404" if it answers so, None if there is none."""
    handler = router.find(path)
    if handler is None:
        return None
    answers: list[Response] = []
    handler(Request(method, path, query, {k.encode(): v for k, v in headers.items()}, b""), answers.append)
    (answer,) = answers
    return answer.body if answer.status == 200 else str(answer.status).encode()


def has(name: bytes) -> Predicate:
    return lambda request: name in request.query


def test_an_exact_path_comes_before_a_prefix_and_the_longest_prefix_first() -> None:
    router = Router(
        (
            Route(b"/a/", called("short"), exact=False),
            Route(b"/a/b/", called("long"), exact=False),
            Route(b"/a/b/c", called("exact")),
        )
    )
    found = {path: asked(router, path) for path in (b"/a/b/c", b"/a/b/d", b"/a/b/c/d", b"/a/x", b"/a", b"/", b"/b/a/")}
    assert found == {
        b"/a/b/c": b"exact",
        b"/a/b/d": b"long",
        b"/a/b/c/d": b"long",
        b"/a/x": b"short",
        b"/a": None,
        b"/": None,
        b"/b/a/": None,
    }
    logged = {path: router.route(path) for path in found}
    assert logged == {
        b"/a/b/c": b"/a/b/c",
        b"/a/b/d": b"/a/b/",
        b"/a/b/c/d": b"/a/b/",
        b"/a/x": b"/a/",
        b"/a": b"",
        b"/": b"",
        b"/b/a/": b"",
    }


@pytest.mark.parametrize("exact", [True, False])
def test_two_that_claim_nothing_may_not_have_one_path(exact: bool) -> None:
    with pytest.raises(ValueError, match="two dialects claim /a/"):
        Router([Route(b"/a/", called("one"), exact), Route(b"/a/", called("two"), exact)])
    assert asked(Router([Route(b"/a/", called("one")), Route(b"/a/", called("two"), exact=False)]), b"/a/") == b"one"


@pytest.mark.parametrize("exact", [True, False])
def test_a_path_of_several_is_told_apart_by_what_they_claim(exact: bool) -> None:
    routes = [
        Route(b"/pub/", called("rest"), exact),
        Route(b"/pub/", called("key"), exact, has(b"key=")),
        Route(b"/pub/", called("put"), exact, lambda request: request.method == b"PUT"),
        Route(b"/pub/", called("host"), exact, lambda request: request.headers.get(b"host") == b"push"),
    ]
    router = Router(routes)
    assert asked(router, b"/pub/", b"key=1") == b"key"
    assert asked(router, b"/pub/", b"key=1", b"PUT") == b"key"  # the first that claims it
    assert asked(router, b"/pub/", b"id=1", b"PUT") == b"put"
    assert asked(router, b"/pub/", b"id=1", host=b"push") == b"host"
    assert asked(router, b"/pub/", b"id=1") == b"rest"
    assert asked(Router(routes[1:]), b"/pub/", b"id=1") == b"404"
