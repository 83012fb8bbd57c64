"""The device port, whatever the dialect, and what it has in common with the router port: upgrades, bad requests,
limits."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import trio
import trio_websocket
import websocket
from support import mirror
from support.farm_fixture import KEY, PATIENCE_S, UPGRADE, Farm, Raw, curl, refusal, running_farm, until
from support.mirror import Mirror
from websocket import ABNF


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait, and the mirror."""
    folder = tmp_path_factory.mktemp("farm")
    with running_farm(folder / "data", {"router.routers": 1}, environment=mirror.environment(folder)) as farm:
        yield farm


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with short deadlines, low limits and an origin list."""
    settings = {
        "worker.origins": "https://good.example,https://also.example:8443",
        "worker.max_connections": 8,
        "worker.handshake_timeout": 1,
        "worker.retry_after": 17,
        "endpoint.request_timeout": 1,
        "endpoint.idle_timeout": 1,
        "router.routers": 1,
    }
    folder = tmp_path_factory.mktemp("strict")
    with running_farm(folder / "data", settings, workers=1, environment=mirror.environment(folder)) as farm:
        yield farm


def test_what_is_said_comes_back(farm: Farm) -> None:
    device = Mirror(farm).socket
    for length in (0, 1, 125, 126, 65_535, 65_536, 262_144):
        device.send("ä" * (length // 2))
        assert device.recv() == "ä" * (length // 2)
        payload = os.urandom(length)
        device.send_binary(payload)
        assert device.recv() == payload
    for opcode, parts in ((ABNF.OPCODE_TEXT, [b"\xc3", b"\xa4", b"!"]), (ABNF.OPCODE_BINARY, [b"\0", b"", b"\xff"])):
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            device.send_frame(ABNF.create_frame(part, ABNF.OPCODE_CONT if position else opcode, 1 if last else 0))
            device.ping("between")
        answers = [device.recv_data(control_frame=True) for _ in range(4)]
        assert sorted(answers) == sorted([(opcode, b"".join(parts)), *[(ABNF.OPCODE_PONG, b"between")] * 3])
    device.close(timeout=PATIENCE_S)


def test_what_is_said_comes_back_to_trio_websocket(farm: Farm) -> None:
    async def main() -> None:
        async with trio_websocket.open_websocket_url(farm.device_url + mirror.PATH) as device:
            for message in ("text", b"binary", "", b"", "x" * 200_000):
                await device.send_message(message)
                assert await device.get_message() == message
        assert device.closed.code == 1000

    trio.run(main)


@pytest.mark.parametrize("origin", ["https://good.example", "https://also.example:8443"])
def test_allowed_origins(strict: Farm, origin: str) -> None:
    with Mirror(strict, origin=origin) as device:
        device.check()


@pytest.mark.parametrize("origin", ["https://good.example:443", "http://good.example", "https://also.example", None])
def test_other_origins(strict: Farm, origin: str | None) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as raised:
        Mirror(strict, **({"origin": origin} if origin else {"suppress_origin": True}))
    assert raised.value.status_code == 403


def test_a_full_worker_says_when_to_come_again(strict: Farm) -> None:
    def fill() -> websocket.WebSocketBadStatusException | None:
        try:
            stack.enter_context(Mirror(strict, origin="https://good.example")).check()
        except websocket.WebSocketBadStatusException as error:
            return error
        return None

    with contextlib.ExitStack() as stack:
        until(lambda: strict.counter("connections") == 0, "the devices of other tests have gone")
        error = None
        for _ in range(9):
            assert error is None
            error = fill()
        assert error is not None and error.status_code == 503
        assert error.resp_headers is not None and int(error.resp_headers["retry-after"]) in range(9, 26)
    with contextlib.ExitStack() as stack:
        until(lambda: fill() is None, "there is room again")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\nHost push\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: push\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: push\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: push\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: push\r\n folded: no\r\n\r\n", 400),
        (UPGRADE.replace(KEY, "short") + "\r\n", 400),
        ("GET /nothing HTTP/1.1\r\nHost: push\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: push\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: push\r\nContent-Length: 4\r\n\r\nbody", 413),
        ("GET / HTTP/1.1\r\nHost: push\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: push\r\n\r\n", 426),
        (UPGRADE.replace("Version: 13", "Version: 8") + "\r\n", 426),
        ("GET /" + "x" * 9000 + " HTTP/1.1\r\nHost: push\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: push\r\n" + "A: b\r\n" * 65 + "\r\n", 431),
    ],
)
def test_what_is_no_upgrade_gets_a_proper_answer(farm: Farm, request_text: str, status: int) -> None:
    answer = refusal(farm.device_port, request_text.encode())
    assert answer.status == status
    assert answer.headers["connection"].lower().endswith("close")
    assert int(answer.headers["content-length"]) == len(answer.body)
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"


def test_curl_understands_the_device_port(farm: Farm) -> None:
    assert curl(f"http://127.0.0.1:{farm.device_port}/").status == 426
    assert curl("--http2", f"http://127.0.0.1:{farm.device_port}/").status == 426
    assert curl("--head", f"http://127.0.0.1:{farm.device_port}/").status == 426


@pytest.mark.parametrize("port", ["device_port", "router_port"])
def test_tls_and_garbage_are_sent_away(farm: Farm, port: str) -> None:
    number = getattr(farm, port)
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", number), timeout=PATIENCE_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="push")
    for garbage in (b"\0" * 100, b"\r\n\r\n\r\n", os.urandom(5000), b"SSH-2.0-x\r\n", b"\xff"):
        with Raw(number) as raw:
            raw.send(garbage)
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.rest()
            assert not answer or answer.startswith(b"HTTP/1.1 4")
    with Mirror(farm) as device:
        device.check()


@pytest.mark.parametrize("port", ["device_port", "router_port"])
def test_a_request_that_never_ends_is_given_up(strict: Farm, port: str) -> None:
    with Raw(getattr(strict, port)) as slow, Raw(getattr(strict, port)) as silent:
        started = time.monotonic()
        slow.send(b"GET / HTTP/1.1\r\n")
        slow.socket.settimeout(0.1)
        answer = b""
        with contextlib.suppress(OSError):  # it keeps sending a byte now and then, until there is an answer
            while not answer:
                assert time.monotonic() - started < PATIENCE_S
                slow.send(b"a")
                with contextlib.suppress(TimeoutError):
                    answer = slow.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert silent.rest() == b""


def test_an_idle_app_server_is_closed(strict: Farm) -> None:
    with Raw(strict.router_port) as raw:
        raw.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answers(1)[0].status == 200
        assert raw.rest() == b""


def test_the_admin_port(farm: Farm) -> None:
    code, body = farm.admin("/health")
    assert (code, json.loads(body)) == (200, {"status": "ok", "down": [], "routers": 1, "workers": 2})
    with Mirror(farm):
        until(lambda: farm.status()["connections"] >= 1, "a worker's beat")
    status = farm.status()
    assert [row["state"] for row in status["workers"]] == ["up", "up"]
    assert len({row["pid"] for row in status["workers"]} | {status["pid"], status["routers"][0]["pid"]}) == 4
    assert status["ports"] == {
        "device": farm.device_port,
        "router": farm.router_port,
        "admin": farm.admin_port,
    }
    page = farm.admin("/metrics")[1].decode()
    assert "farm_up 1.0" in page
    assert 'farm_worker_connections{shard="0"}' in page
    assert "farm_router_pushes_total" in page


def test_a_refused_request_is_counted(farm: Farm) -> None:
    before = farm.status()["routers"][0]["http_bad_requests"]
    assert refusal(farm.router_port, b"GARBAGE\r\n\r\n").status >= 400
    until(lambda: farm.status()["routers"][0]["http_bad_requests"] > before, "the refusal is counted")
