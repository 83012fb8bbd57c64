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
from router.common.health import LEAVING, LIVE, NO_ROOM, NO_ROUTER, READY, ROUTER_AWAY, STATUS, STORE_REFUSES, page
from router.common.settings import LinkOptions

HEARTBEAT_S = 0.5
LEASE_S = 5.0


def request(path: str, method: bytes = b"GET") -> Request:
    return Request(method, path, "", {b"host": b"x"}, (1, 1))


def health(*others: dict[str, Any], joined: bool = True, silent: float = 0.0, lag: float = 0.0) -> Health:
    """Of a worker whose router sent something so many seconds ago, and of its other routers."""
    routers = [{"joined": joined, "silent": silent, "lag": lag}, *others]
    links = [
        SimpleNamespace(
            joined=one.get("joined", True), last_heard=100 - one.get("silent", 0.0), lag=one.get("lag", 0.0)
        )
        for one in routers
    ]
    options = settings_with((LinkOptions, {"heartbeat": HEARTBEAT_S, "lease": LEASE_S})).get(LinkOptions)
    return Health(cast("list[WorkerLink]", links), options, lambda: 100.0)


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
    one.store_state(0, STORE_REFUSES)
    assert one.reasons(False) == [STORE_REFUSES]
    one.leaving = True
    assert one.reasons(True) == [LEAVING, NO_ROOM, STORE_REFUSES]


@pytest.mark.parametrize(
    ("other", "reasons"),
    [
        ({}, []),
        ({"silent": 9.9}, []),
        ({"joined": False, "silent": 9.9}, []),
        ({"silent": 10.1}, [ROUTER_AWAY]),
        ({"joined": False, "silent": 10.1}, [ROUTER_AWAY]),
    ],
)
def test_a_worker_is_ready_for_two_leases_while_one_of_its_routers_is_away(
    other: dict[str, Any], reasons: list[str]
) -> None:
    assert health(other).reasons(False) == reasons


def test_a_worker_of_whose_routers_none_answers_is_not_ready() -> None:
    assert health({"joined": False}, silent=4.1 * HEARTBEAT_S).reasons(False) == [NO_ROUTER]


def test_the_store_that_refuses_is_named_by_its_router() -> None:
    one = health({}, {})
    one.store_state(1, STORE_REFUSES)
    one.store_state(2, STORE_REFUSES)
    one.store_state(2, "")
    assert one.reasons(False) == [f"{STORE_REFUSES} (router 1)"]


def test_new_connections_do_not_wait_for_a_router_that_is_away_while_others_are_there() -> None:
    assert health({"silent": 3.0, "lag": 60.0}, lag=0.2).lag == 0.2
    assert health({"lag": 1.5}, {"lag": 0.5}, lag=0.2).lag == 0.5  # one has just been lost
    assert health({"lag": 1.5}, lag=0.2).lag == 0.2
    assert health({"lag": 1.5}, {"lag": 0.9}, lag=0.2).lag == 0.9  # most are late
    assert health(silent=3.0, lag=60.0).lag == 60.0


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
