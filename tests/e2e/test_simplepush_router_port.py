"""The router port of a farm with small limits: what app servers do to it unasked, and what the others see of it.

Every test ends with a request on a new connection, to the router that was there at the beginning.
"""

from __future__ import annotations

import http.client
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any, Final

import pytest
import requests
from support.farm_fixture import PATIENCE_S, Farm, Raw, curl, refusal, running_farm, until
from support.simplepush import Device

CONNECTIONS: Final = 20
REFUSALS: Final = 5
MEBIBYTE: Final = 1_048_576
BUFFERED: Final = 2 * MEBIBYTE
STATUS: Final = b"GET /status/ HTTP/1.1\r\nHost: push\r\n\r\n"
LAST: Final = STATUS.replace(b"Host", b"Connection: close\r\nHost")
PUT_ONE: Final = b"PUT /update/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
UNFINISHED: Final = b"PUT /update/x HTTP/1.1\r\nHost: push\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker, and a router port with small limits."""
    settings = {
        "endpoint.max_connections": CONNECTIONS,
        "endpoint.max_refusals": REFUSALS,
        "endpoint.max_buffered_bytes": BUFFERED,
        "endpoint.gather_ms": 10,
        "router.routers": 1,
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as farm:
        yield farm


@pytest.fixture
def farm(small: Farm) -> Iterator[Farm]:
    """The same farm; its router must have outlived the test."""
    pid = small.router_pid()
    until(lambda: router(small)["http_connections"] == 0, "the connections of the test before are closed")
    yield small
    assert curl("--data", "version=1", "--request", "PUT", small.url("/update/x")).status == 404
    assert small.router_pid() == pid


def router(farm: Farm) -> dict[str, Any]:
    """What the router counts."""
    found: dict[str, Any] = farm.status()["routers"][0]
    return found


# ---------------------------------------------------------------------- requests


def test_pushes_one_after_another_are_let_gather_and_a_single_one_is_not(farm: Farm) -> None:
    def push(connection: Raw, version: int) -> None:
        body = b"version=%d" % version
        path = endpoint[endpoint.index("/update/") :].encode()
        connection.send(b"PUT %b HTTP/1.1\r\nHost: push\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body))

    with Device(farm) as device, ExitStack() as open_:
        device.hello()
        _, endpoint = device.register()
        senders = [open_.enter_context(Raw(farm.router_port)) for _ in range(CONNECTIONS - 4)]
        version = 0

        def gathered() -> bool:
            nonlocal version
            for _ in range(5):
                for sender in senders:
                    version += 1
                    push(sender, version)
                    time.sleep(0.001)
                assert all(sender.answers(1)[0].status in (200, 202) for sender in senders)
            return int(router(farm)["waits"]) > 0

        until(gathered, "pushes share a turn")
        time.sleep(0.3)  # nothing was sent lately
        before = router(farm)["waits"]
        for number in range(1, 21):
            push(senders[0], version + number)
            assert senders[0].answers(1)[0].status in (200, 202)
        assert router(farm)["waits"] == before


def test_clients_that_offer_http_2(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        answer = curl("--http2", "--request", "PUT", "--data", "version=7", endpoint)
        assert (answer.status, answer.body) == (200, b"{}")
        assert "date" in answer.headers
        assert curl("--http1.0", "--request", "PUT", "--data", "version=8", endpoint).status == 200
        via = {"http": f"http://127.0.0.1:{farm.router_port}"}  # a proxy is asked for targets in absolute form
        with requests.Session() as session:
            session.trust_env = False
            assert (
                session.put(
                    "http://push.example.org" + endpoint[endpoint.index("/update/") :],
                    {"version": "9"},
                    proxies=via,
                    timeout=PATIENCE_S,
                ).status_code
                == 200
            )
    assert curl("--request", "OPTIONS", "--request-target", "*", farm.url("/")).headers["allow"]
    with closing(http.client.HTTPConnection("127.0.0.1", farm.router_port, timeout=PATIENCE_S)) as connection:
        for method in ("HEAD", "GET"):
            connection.request(method, "/status/")
            response = connection.getresponse()
            assert response.status == 200 and bool(response.read()) == (method == "GET")


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (404, PUT_ONE + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nabcde"),
        (413, b"PUT /update/x HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        (400, b"GET /status/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET /status/ HTTP/1.0\r\nHost: a b\r\n\r\n"),
        (417, b"GET /status/ HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n"),
        (501, b"PUT /update/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (431, b"POST /v1/push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200_000),
        (431, b"POST /v1/push HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000),
        (404, PUT_ONE + b'Content-Type: multipart/form-data; a="' + b";" * 16_000 + b"\r\n\r\n"),
        (404, b"GET " + b"/a" * 8000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ],
)  # fmt: skip
def test_requests_that_are_none_or_odd(farm: Farm, status: int, request_bytes: bytes) -> None:
    assert refusal(farm.router_port, request_bytes).status == status


def test_a_flood_of_pipelined_requests_is_answered_in_order(farm: Farm) -> None:
    paths = [b"/update/%d" % number if number % 3 else b"/status/" for number in range(3000)]
    many = b"".join(b"PUT %s HTTP/1.1\r\nHost: push\r\n\r\n" % path for path in paths)
    with Raw(farm.router_port) as raw:
        sender = threading.Thread(target=raw.send, args=(many + LAST,), daemon=True)
        sender.start()
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", raw.rest())
        sender.join(PATIENCE_S)
    assert statuses == [b"405" if path == b"/status/" else b"404" for path in paths] + [b"200"]


# ---------------------------------------------------------------------- too many, and too much


def test_an_idle_connection_makes_room_for_a_new_one(farm: Farm) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(Raw(farm.router_port)) for _ in range(CONNECTIONS)]
        for raw in idle:
            raw.send(STATUS)
            assert raw.answers(1)[0].status == 200
        before = router(farm)["http_evicted"]
        for _ in range(3):
            raw = stack.enter_context(Raw(farm.router_port))
            raw.send(STATUS)
            assert raw.answers(1)[0].status == 200
        assert idle[0].rest() == idle[1].rest() == idle[2].rest() == b""  # those that were idle for longest
        idle[3].send(STATUS)
        assert idle[3].answers(1)[0].status == 200
        until(lambda: router(farm)["http_evicted"] - before == 3, "they are counted")


def test_where_none_is_idle_everybody_hears_503(farm: Farm) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(Raw(farm.router_port)) for _ in range(CONNECTIONS)]
        for raw in busy:
            raw.send(UNFINISHED)
        until(lambda: router(farm)["http_connections"] == CONNECTIONS, "all are there")
        before = router(farm)["http_refused"]
        refused = [stack.enter_context(Raw(farm.router_port)) for _ in range(3 * REFUSALS)]
        for raw in refused:
            raw.send(b"PUT /update/x HTTP/1.1\r\nHost: push\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        for raw in refused:
            head, _, _ = raw.rest().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in head and b"\r\nDate: " in head
            raw.socket.close()
        for raw in busy:
            raw.send(b"abcde")
            assert raw.answers(1)[0].status == 404
        until(lambda: router(farm)["http_refused"] - before == 3 * REFUSALS, "they are counted")


def test_what_waits_has_one_limit_and_the_largest_goes(farm: Farm) -> None:
    part = b"PUT /update/x HTTP/1.1\r\nHost: push\r\nContent-Length: 1000000\r\n\r\n"
    with ExitStack() as stack:
        small = stack.enter_context(Raw(farm.router_port))
        small.send(UNFINISHED)
        large = [stack.enter_context(Raw(farm.router_port)) for _ in range(CONNECTIONS - 2)]
        for number, raw in enumerate(large):
            with suppress(OSError):
                raw.send(part + b"x" * (500_000 + 1000 * number))
        until(lambda: router(farm)["http_given_up"] >= len(large) - 4, "most are given up")
        assert router(farm)["http_buffered"] <= BUFFERED
        small.send(b"abcde")
        assert small.answers(1)[0].status == 404
        heard = []
        for raw in large:
            raw.socket.settimeout(0.2)
            with suppress(OSError):
                heard.append(raw.socket.recv(12))
        assert heard.count(b"HTTP/1.1 503") >= len(large) - 4
    until(lambda: router(farm)["http_buffered"] == 0, "nothing waits any more")


def test_out_of_descriptors_it_waits_for_some(farm: Farm) -> None:
    pid = farm.router_pid()
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        kept = stack.enter_context(Raw(farm.router_port))
        kept.send(UNFINISHED)
        until(lambda: router(farm)["http_connections"] == 1, "it is there")
        opened = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened, limits[1]))
        try:
            waiting = [stack.enter_context(Raw(farm.router_port)) for _ in range(2)]
            for raw in waiting:
                raw.send(STATUS)
            until(
                lambda: any(farm.log_file.read_text().count(f"http.{what}_failed") for what in ("accept",)),
                "it is told",
            )
            before = _cpu_seconds(pid)
            time.sleep(1)
            assert _cpu_seconds(pid) - before < 0.5  # it does not try again and again
            kept.send(b"abcde")
            assert kept.answers(1)[0].status == 404  # an open connection is served
            assert farm.healthy()
            kept.socket.close()  # one descriptor, for one after the other: each is idle once it is answered
            for raw in waiting:
                assert raw.answers(1)[0].status == 200
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
