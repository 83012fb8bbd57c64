"""A farm with TLS on both ports: app servers on the router port, one of them behind a proxy; its certificate's end."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import websocket
from prometheus_client.parser import text_string_to_metric_families
from support.certificates import Files, write
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, curl, new_channel, running_farm, until

DAYS: Final = 20
PROXY: Final = "127.0.0.5"
ROUTERS: Final = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("certificate"), "localhost", days=DAYS, addresses=("127.0.0.1",))


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[Farm]:
    settings = {
        "tls.certificate": files.certificate,
        "tls.key": files.key,
        "listen.proxy_from": PROXY,
        "router.routers": ROUTERS,
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as farm:
        yield farm


@pytest.fixture
def device(farm: Farm, files: Files) -> Iterator[websocket.WebSocket]:
    device = websocket.create_connection(
        f"wss://localhost:{farm.device_port}/",
        subprotocols=["push-notification"],
        timeout=PATIENCE_S,
        sslopt={"ca_certs": str(files.certificate)},
    )
    yield device
    device.close()


def ask(device: websocket.WebSocket, **command: Any) -> Any:
    device.send(json.dumps(command))
    return json.loads(device.recv())


def test_a_device_is_pushed_to(farm: Farm, files: Files, device: websocket.WebSocket) -> None:
    def put(version: int, *more: str) -> HttpAnswer:
        return curl("--cacert", str(files.certificate), "-X", "PUT", "-d", f"version={version}", *more, endpoint)

    ask(device, messageType="hello", uaid="", channelIDs=[])
    endpoint = ask(device, messageType="register", channelID=new_channel())["pushEndpoint"]
    assert endpoint.startswith(f"https://127.0.0.1:{farm.router_port}/")
    assert put(1).status == 200
    assert put(2, "--interface", PROXY, "--haproxy-protocol").status == 200
    with pytest.raises(subprocess.CalledProcessError):
        put(9, "--interface", PROXY)
    many = [{"endpoint": endpoint, "version": version, "data": "x" * 60} for version in range(3, 400)]
    body = "\n".join(json.dumps(one) for one in many).encode()  # in several records
    answer = curl(
        "--cacert",
        str(files.certificate),
        "--data-binary",
        "@-",
        f"{endpoint[: endpoint.index('/', 8)]}/v1/push",
        stdin=body,
    )
    assert answer.status == 200
    assert {json.loads(line)["status"] for line in answer.body.splitlines()} <= {200, 202}
    seen = 0
    while seen < 399:  # newer versions replace those that wait
        seen = max(update["version"] for update in json.loads(device.recv())["updates"])
    plain = curl(f"http://127.0.0.1:{farm.router_port}/live")
    assert (plain.status, plain.body) == (400, b"this port speaks TLS\n")


def test_sessions_are_resumed_by_the_other_router_too(farm: Farm, files: Files) -> None:
    context = ssl.create_default_context(cafile=files.certificate)
    session: ssl.SSLSession | None = None
    resumed: list[bool | None] = []

    def connect() -> None:
        nonlocal session
        with (
            socket.create_connection(("127.0.0.1", farm.router_port), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as own,
        ):
            own.sendall(b"GET /live HTTP/1.1\r\nHost: push\r\n\r\n")
            assert own.recv(1000).startswith(b"HTTP/1.1 200 ")  # and the ticket has come before it
            session = own.session
            resumed.append(own.session_reused)

    def both() -> bool:
        connect()
        return all(row["http_handshakes"] for row in farm.status()["routers"])

    connect()
    until(both, "both routers had some")
    connect()
    assert resumed == [False] + (len(resumed) - 1) * [True]


def test_the_end_of_the_certificate_is_told_in_time(farm: Farm) -> None:
    (expires,) = (
        sample.value
        for family in text_string_to_metric_families(farm.admin("/metrics")[1].decode())
        for sample in family.samples
        if sample.name == "farm_certificate_expiry_timestamp_seconds"
    )
    assert DAYS - 1 < (expires - time.time()) / 86_400 <= DAYS
    (line,) = until(lambda: list(farm.events("tls.expires_soon")), "it is in the log")
    assert (line["level"], round(line["days"])) == ("info", DAYS)
