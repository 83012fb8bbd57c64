"""Limits for clients in a whole farm, several at once, as other people's clients meet them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final

import pytest
import websocket
from prometheus_client.parser import text_string_to_metric_families
from pusher.errors import PusherBadStatus, PusherForbidden
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, curl, running_farm, until
from support.pusher_sdk import APP, library
from support.simplepush import Device

OF_APP: Final = 6
OF_ADDRESS: Final = 40


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker and two routers. A burst is what the rate gives in an hour: in the time of a test there is no more."""
    folder = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": [APP]}))
    settings = {
        "pusher.apps": apps,
        "router.routers": 2,
        "worker.retry_after": 10,
        "listen.forwarded_from": "127.0.0.64/26",
        "limits.burst_seconds": 3600,
        "limits.connections_per_address": 3,
        "limits.setups_per_address": 8 / 3600,
        "limits.registrations_per_address": 2 / 3600,
        "limits.pushes_per_endpoint": 2 / 3600,
        "limits.pushes_per_application": OF_APP / 3600,
        "limits.pushes_per_address": OF_ADDRESS / 3600,
        "limits.store_bytes_per_application": 2 * (256 + 1000),
    }
    with running_farm(folder / "data", settings, workers=1) as farm:
        yield farm


def reached(farm: Farm, reason: str, times: int) -> None:
    """Wait until a limit has been reached so often."""

    def counted() -> bool:
        families = text_string_to_metric_families(farm.admin("/metrics")[1].decode())
        samples = [one for family in families for one in family.samples if one.name == "farm_limited_total"]
        return sum(one.value for one in samples if one.labels["reason"] == reason) == times

    until(counted, f"{reason} was reached {times} times")


def connect(farm: Farm, address: str, client: str = "") -> websocket.WebSocket:
    """A device that comes from this address of loopback. client: what a proxy there says of it."""
    port = int(farm.device_url.rpartition(":")[2].rstrip("/"))
    own = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0))
    header = [f"X-Forwarded-For: {client}"] if client else []
    return websocket.create_connection(farm.device_url, socket=own, timeout=PATIENCE_S, header=header)


def refused(farm: Farm, address: str, client: str = "") -> tuple[int, int]:
    """Status and Retry-After of a device that is not let in."""
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        connect(farm, address, client)
    assert caught.value.resp_headers is not None
    return caught.value.status_code, int(caught.value.resp_headers["retry-after"])


def push(endpoint: str, version: int, address: str) -> HttpAnswer:
    return curl("-X", "PUT", "-d", f"version={version}", "--interface", address, endpoint)


def test_an_address_has_so_many_devices(farm: Farm) -> None:
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(closing(connect(farm, "127.0.0.2"))) for _ in range(3)]
        status, wait = refused(farm, "127.0.0.2")
        assert status == 429 and 5 <= wait <= 15
        stack.enter_context(closing(connect(farm, "127.0.0.3")))
        reached(farm, "connections_per_address", 1)
        first.close()  # the farm has seen that when it has answered the close
        stack.enter_context(closing(connect(farm, "127.0.0.2")))


def test_clients_of_a_proxy_count_each_and_the_proxy_does_not(farm: Farm) -> None:
    with ExitStack() as stack:
        for client in ("192.0.2.1", "192.0.2.2"):
            for _ in range(3):
                stack.enter_context(closing(connect(farm, "127.0.0.64", client)))
            assert refused(farm, "127.0.0.65", client)[0] == 429
        stack.enter_context(closing(connect(farm, "127.0.0.64", "2001:db8::1")))
        reached(farm, "connections_per_address", 3)


def test_an_address_comes_so_often(farm: Farm) -> None:
    for _ in range(8):
        connect(farm, "127.0.0.4").close()
    status, wait = refused(farm, "127.0.0.4")
    assert status == 429 and 0 < wait <= 450
    connect(farm, "127.0.0.5").close()
    reached(farm, "setups_per_address", 1)


def test_an_endpoint_gets_so_much_whichever_router_it_comes_to(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        statuses = [push(endpoint, number, "127.0.0.6").status for number in range(1, 9)]
        assert statuses == [200, 200, *[429] * 6]
        answer = push(endpoint, 9, "127.0.0.6")
        assert answer.json() == "Too many updates for this endpoint" and answer.headers["retry-after"] == "1800"
    reached(farm, "pushes_per_endpoint", 7)


def test_an_address_registers_so_many_channels(farm: Farm) -> None:
    with closing(connect(farm, "127.0.0.8")) as device:
        device.send(json.dumps({"messageType": "hello", "uaid": "", "channelIDs": []}))
        assert json.loads(device.recv())["status"] == 200
        for number in range(3):
            channel = f"11111111-2222-3333-4444-{number:012x}"
            device.send(json.dumps({"messageType": "register", "channelID": channel}))
            if number < 2:
                assert json.loads(device.recv())["status"] == 200
        reached(farm, "registrations_per_address", 1)
        device.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            device.recv()  # the third waits
        device.shutdown()  # it is not read, so that its close would not be answered


def test_an_address_pushes_so_much(farm: Farm) -> None:
    lines = json.dumps({"token": "none"}) + "\n"
    arguments = ("--data-binary", "@-", "--interface", "127.0.0.7", farm.url("/v1/push"))
    answer = curl(*arguments, stdin=lines.encode() * (OF_ADDRESS + 5))
    statuses = [json.loads(line)["status"] for line in answer.body.splitlines()]
    assert statuses == [404] * OF_ADDRESS + [429] * 5
    reached(farm, "pushes_per_address", 5)


def test_an_application_sends_and_stores_so_much(farm: Farm) -> None:
    server = library(farm)  # it keeps its connection, and so its router
    refused = 0
    for number in range(OF_APP):
        try:
            server.trigger(f"cache-{number}", "x", "d" * 990)
        except PusherForbidden:
            refused += 1
    assert refused == OF_APP - 2  # each router has room for one
    with pytest.raises(PusherBadStatus, match="429"):
        server.trigger("cache-1", "x", "d")
    reached(farm, "pushes_per_application", 1)
    reached(farm, "store_bytes_per_application", refused)
