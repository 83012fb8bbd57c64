"""Answers to a balancer's probe: the pages, and what makes a worker not ready."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.common import settings_with

from farm.transports.request import Refusal, Request
from farm.worker.health import Health
from farm.worker.link import WorkerLink
from router.common.health import LEAVING, LIVE, NO_ROOM, NO_ROUTER, READY, STATUS, STORE_REFUSES, page
from router.common.settings import LinkOptions

HEARTBEAT_S = 0.5


def request(path: str, method: bytes = b"GET") -> Request:
    return Request(method, path, "", {b"host": b"x"}, (1, 1))


def health(joined: bool = True, silent: float = 0.0) -> Health:
    """Of a worker whose router sent something so many seconds ago."""
    link = cast("WorkerLink", SimpleNamespace(joined=joined, last_heard=100.0))
    return Health(link, settings_with((LinkOptions, {"heartbeat": HEARTBEAT_S})).get(LinkOptions), lambda: 100 + silent)


def test_pages() -> None:
    assert page(LIVE, ["anything"], 3) == (200, b'{"status":"live"}')
    assert page(READY, [], 3) == (200, b'{"status":"ready"}')
    assert page(READY, ["a", "b"], 3) == (503, b'{"status":"not ready","reasons":["a","b"]}')
    status, body = page(STATUS, [], 3)
    told = json.loads(body)
    assert (status, told.pop("version") != "", told) == (200, True, {"status": "OK", "clients": 3})
    status, body = page(STATUS, ["a"], 3)
    assert (status, json.loads(body)["status"], json.loads(body)["reasons"]) == (503, "not ready", ["a"])


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        ({}, []),
        ({"joined": False}, [NO_ROUTER]),
        ({"silent": 3.9 * HEARTBEAT_S}, []),
        ({"silent": 4.1 * HEARTBEAT_S}, [NO_ROUTER]),
    ],
)
def test_a_worker_without_a_router_is_not_ready(state: dict[str, Any], reasons: list[str]) -> None:
    assert health(**state).reasons(False) == reasons


def test_a_worker_that_is_full_or_leaves_or_knows_of_a_store_that_fails_is_not_ready() -> None:
    one = health()
    assert one.reasons(True) == [NO_ROOM]
    one.refusing = STORE_REFUSES
    assert one.reasons(False) == [STORE_REFUSES]
    one.leaving = True
    assert one.reasons(True) == [LEAVING, NO_ROOM, STORE_REFUSES]


def test_answers_on_the_device_port() -> None:
    head, _, body = health().answer(request(READY), False, 0).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"Connection: close", b"Content-Length: %d" % len(body), b"Cache-Control: no-store"} <= set(lines)
    assert body == b'{"status":"ready"}'
    assert health().answer(request(READY, b"HEAD"), False, 0) == head + b"\r\n\r\n"
    assert health().answer(request(READY), True, 0).startswith(b"HTTP/1.1 503 ")
    assert health().answer(request(LIVE), True, 0).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(Refusal) as refused:
        health().answer(request(READY, b"POST"), False, 0)
    assert (refused.value.status, refused.value.headers["Allow"]) == (405, "GET, HEAD")
