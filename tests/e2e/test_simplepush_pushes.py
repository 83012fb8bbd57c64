"""What app servers send to the endpoints of SimplePush, and how they send it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from support.farm_fixture import PATIENCE_S, Farm, Raw, curl, refusal, running_farm, until
from support.simplepush import Device, put


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


@pytest.fixture
def device(farm: Farm) -> Iterator[Device]:
    """A device that has said hello."""
    with Device(farm) as device:
        device.hello()
        yield device


@pytest.mark.parametrize(
    ("arguments", "status", "body"),
    [
        (("--data", "version=-1"), 400, '"Invalid Version"'),
        (("--data", "version=one"), 400, '"Invalid Version"'),
        (("--data", f"version={2**63}"), 400, '"Invalid Version"'),
        (("--data", "version=1&data=" + "x" * 4097), 413, '"Data exceeds max length of 4096 bytes"'),
        (("--request", "POST"), 405, '"Method Not Allowed"'),
        (("--request", "DELETE"), 405, '"Method Not Allowed"'),
    ],
)
def test_a_push_that_is_refused(farm: Farm, device: Device, arguments: tuple[str, ...], status: int, body: str) -> None:
    _, endpoint = device.register()
    answer = curl("--request", "PUT", *arguments, endpoint)
    assert (answer.status, answer.body.decode()) == (status, body)
    if status == 405:
        assert answer.headers["allow"] == "PUT, OPTIONS"


def test_ways_to_say_version_and_data(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    body = "version=5&data=five"
    for arguments in (
        ("--data", body),
        ("--header", "Content-Type:", "--data", body),
        ("--form", "version=5", "--form", "data=five"),
        ("--get", "--data", body),
    ):
        assert curl("--request", "PUT", *arguments, endpoint).status == 200
        assert device.receive()["updates"] == [{"channelID": channel, "version": 5, "data": "five"}]
    # Another type of body is not looked at.
    before = time.time() - 1
    assert curl("--request", "PUT", "--header", "Content-Type: text/plain", "--data", body, endpoint).status == 200
    [update] = device.receive()["updates"]
    assert update["version"] >= before
    assert "data" not in update


@pytest.mark.parametrize("token", ["", "x", "%00", "AAAA", "ä", "a" * 5000])
def test_tokens_that_are_none(farm: Farm, token: str) -> None:
    answer = curl("--request", "PUT", farm.url(f"/update/{token}"))
    assert (answer.status, answer.body) == (404, b'"Invalid Token"')


def test_a_token_with_one_bit_changed_opens_nothing(farm: Farm, device: Device) -> None:
    _, endpoint = device.register()
    for position in (-1, -20, -40, len(farm.url("/update/")) + 1):
        other = "A" if endpoint[position] != "A" else "Q"
        changed = endpoint[:position] + other + (endpoint[position:][1:])
        assert put(changed, 1) == 404


def test_limits_of_requests(farm: Farm) -> None:
    assert curl("--request", "PUT", "--header", "Long: " + "x" * 17_000, farm.url("/update/x")).status == 431
    many = [part for number in range(120) for part in ("--header", f"H{number}: x")]
    assert curl(*many, farm.url("/status/")).status == 431
    assert curl(farm.url("/" + "x" * 17_000)).status in (414, 431)
    assert (
        refusal(farm.router_port, b"PUT /update/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n").status == 413
    )
    chunks = (
        b"PUT /update/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 17
    )
    assert refusal(farm.router_port, chunks).status == 413
    assert refusal(farm.router_port, b"GET /status/ HTTP/1.1\r\n\r\n").status == 400
    assert refusal(farm.router_port, b"GET /status/ HTTP/x\r\n\r\n").status == 400
    assert refusal(farm.router_port, b"NONSENSE /status/ HTTP/1.1\r\n\r\n").status == 501
    assert curl(farm.url("/nothing")).status == 404


def test_a_large_body_after_expect_continue(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    headers = ("--header", "Expect: 100-continue", "--header", "Content-Type: application/octet-stream")
    body = b"x" * 1_000_000
    assert curl("--request", "PUT", *headers, "--data-binary", "@-", endpoint + "?version=9", stdin=body).status == 200
    assert device.updates() == [(channel, 9)]


def test_without_cors_no_page_is_invited(farm: Farm) -> None:
    answer = curl("--request", "OPTIONS", farm.url("/update/x"))
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_keep_alive(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    connection = http.client.HTTPConnection("127.0.0.1", farm.router_port, timeout=PATIENCE_S)
    connection.connect()
    used = connection.sock
    for version in range(1, 30):
        connection.request("PUT", path, f"version={version}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
        assert device.updates() == [(channel, version)]
    assert connection.sock is used
    connection.request("PUT", path, headers={"Connection": "close"})
    assert connection.getresponse().getheader("connection") == "close"
    connection.close()
    old = refusal(farm.router_port, f"PUT {path} HTTP/1.0\r\n\r\n".encode())
    assert old.status == 200


def test_pipelined_requests_are_answered_in_order(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    with Raw(farm.router_port) as raw:
        parts = []
        for version in range(1, 301):
            body = f"version={version}"
            parts.append(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}")
            parts.append("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.send("".join(parts).encode())
        assert [answer.status for answer in raw.answers(600)] == [200, 404] * 300
    assert [device.updates() for _ in range(300)] == [[(channel, version)] for version in range(1, 301)]


def test_a_half_closed_app_server_gets_its_answer(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    with Raw(farm.router_port) as raw:
        raw.send(f"PUT {path}?version=4 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.rest().startswith(b"HTTP/1.1 200 ")
    assert device.updates() == [(channel, 4)]


def test_many_pushes_in_one_request(farm: Farm, device: Device) -> None:
    one, first = device.register()
    two, second = device.register()
    with Device(farm) as away:
        away.hello()
        _, third = away.register()
    until(lambda: put(third, 1) == 202, "the farm knows that the device is away")
    lines = [
        {"endpoint": first, "version": 1},
        {"token": second.rpartition("/")[2], "version": "2", "data": "two"},
        {"endpoint": third, "version": 3},
        {"token": "none", "version": 1},
        {"endpoint": first, "version": -1},
        {"endpoint": first, "data": "x" * 4097},
        {"endpoint": 5},
    ]
    body = "\n".join(json.dumps(line) for line in lines) + "\nno JSON\n\n"
    answer = curl("--data-binary", body, farm.url("/v1/push"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    answers = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["status"] for line in answers] == [200, 200, 202, 404, 400, 413, 400, 400]
    assert all(("error" in line) == (line["status"] >= 300) for line in answers)
    assert device.updates() == [(one, 1)]
    assert device.receive()["updates"] == [{"channelID": two, "version": 2, "data": "two"}]
    assert curl("--data-binary", "\n", farm.url("/v1/push")).status == 400
    assert curl(farm.url("/v1/push")).status == 405
