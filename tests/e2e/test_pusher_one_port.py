"""Devices and app servers on one port: farms of two workers that are started with MicroNotifier's configuration.

The samples are those of MicroNotifier's README, with the port that the farm got.
"""

from __future__ import annotations

import gc
import hashlib
import hmac
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
from pusher import Pusher
from pusher.errors import PusherBadAuth
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, Raw, curl, refusal, running, running_farm, until
from support.pusher_sdk import Device

APP: Final = {"name": "testapp", "key": "1234567890", "secret": "donttellanybody"}
NUMBER: Final = {"name": "3", "key": "278d425bdf160c739803", "secret": "7ad3773142a6692b25b8"}
"""The library from PyPI takes only numbers for the ID of an application, which is its name here."""
DEVICES: Final = 8
"""Enough that both workers have some of them."""


class OnePort(Farm):
    """A farm from a configuration file of MicroNotifier; only its port is another, because it has to be free."""

    def arguments(self) -> list[str]:
        file = self.data.parent / "config.json"
        file.write_text(json.dumps({"host": "localhost", "port": 0, "applications": [APP, NUMBER]}))
        return [*super().arguments(), "--micronotifier-config", str(file)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers."""
    with running(OnePort(tmp_path_factory.mktemp("farm") / "data", {"router.routers": 1})) as farm:
        yield farm


def subscribed(farm: Farm, channel: str, app: Json = NUMBER) -> Device:
    """A device of this channel."""
    device = Device(farm, app)
    device.subscribe(channel)
    return device


def library(farm: Farm, secret: str = NUMBER["secret"]) -> Pusher:
    """The library, on the port of the devices."""
    name, key = NUMBER["name"], NUMBER["key"]
    return Pusher(app_id=name, key=key, secret=secret, host="localhost", port=farm.device_port, ssl=False)


def signed(method: str, path: str, body: bytes = b"", app: Json = APP) -> str:
    """The target of a signed request."""
    query = {"auth_key": app["key"], "auth_timestamp": str(int(time.time())), "auth_version": "1.0"}
    if body:
        query["body_md5"] = hashlib.md5(body).hexdigest()
    path = f"/apps/{app['name']}{path}"
    text = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
    signature = hmac.new(app["secret"].encode(), f"{method}\n{path}\n{text}".encode(), "sha256").hexdigest()
    return f"{path}?{text}&auth_signature={signature}"


def event(channel: str, data: str, **more: Any) -> bytes:
    return json.dumps({"name": "my-event", "channels": [channel], "data": json.dumps(data)} | more).encode()


def post(port: int, body: bytes) -> int:
    """Send an event of the sample's application on a connection of its own. Returns: status."""
    with closing(http.client.HTTPConnection("localhost", port, timeout=PATIENCE_S)) as connection:
        connection.request("POST", signed("POST", "/events", body), body)
        return connection.getresponse().status


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# ---------------------------------------------------------------------- requests


def test_the_samples(farm: Farm) -> None:
    with ExitStack() as stack:
        devices = [stack.enter_context(subscribed(farm, "my-channel", APP)) for _ in range(DEVICES)]
        assert post(farm.device_port, event("my-channel", "hello")) == 200
        assert [device.data("my-event") for device in devices] == ["hello"] * DEVICES


def test_a_library(farm: Farm) -> None:
    server = library(farm)
    with ExitStack() as stack:
        devices = [stack.enter_context(subscribed(farm, "news")) for _ in range(DEVICES)]
        for number in range(DEVICES):  # each on a connection of its own, of whichever worker
            assert server.trigger("news", "fresh", {"n": number}) == {}
        for device in devices:
            assert [device.data("fresh") for _ in range(DEVICES)] == [{"n": n} for n in range(DEVICES)]
        assert "news" in server.channels_info()["channels"]
        assert server.channel_info("news")["occupied"] is True
    with pytest.raises(PusherBadAuth):
        library(farm, "wrong").trigger("news", "no", {})


def test_requests_on_one_connection(farm: Farm) -> None:
    before = farm.status()["routers"][0]["http_connects"]
    with subscribed(farm, "many", APP) as device, Raw(farm.device_port) as raw:
        for number in range(50):
            body = event("many", str(number))
            raw.send(request("POST", "/events", body))
            (answer,) = raw.answers(1)
            assert (answer.status, answer.body) == (200, b"{}")
            assert device.data("my-event") == str(number)
        raw.send(request("GET", "/channels") * 3)  # pipelined
        assert [answer.status for answer in raw.answers(3)] == [200] * 3
    assert farm.status()["routers"][0]["http_connects"] == before + 1


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {signed(method, path, body)} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def test_a_body_longer_than_one_read(farm: Farm) -> None:
    channels = [f"long-{number}-{'x' * 150}" for number in range(99)]
    body = event("long", "y" * 9000, channels=[*channels, "long"])
    assert len(body) > 20_000
    with subscribed(farm, "long", APP) as device:
        assert post(farm.device_port, body) == 200
        assert device.data("my-event") == "y" * 9000
        target = f"http://localhost:{farm.device_port}{signed('POST', '/events', body)}"
        answer = curl("--data-binary", "@-", "--header", "Expect: 100-continue", target, stdin=body)
        assert answer.status == 200, answer
        assert device.data("my-event") == "y" * 9000


def test_a_request_that_comes_in_pieces(farm: Farm) -> None:
    whole = request("POST", "/events", event("pieces", "z"))
    for cut in (1, 3, 5, 40, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
        with Raw(farm.device_port) as raw:
            raw.send(whole[:cut])
            time.sleep(0.02)
            raw.send(whole[cut:])
            assert [answer.status for answer in raw.answers(1)] == [200]


def test_what_else_comes_to_this_port(farm: Farm) -> None:
    def status(line: str, *more: str) -> HttpAnswer:
        head = "\r\n".join([line, "Host: localhost", "Connection: close", *more, "", ""])
        return refusal(farm.device_port, head.encode())

    assert status("GET / HTTP/1.1").status == 426
    assert status("GET /nothing HTTP/1.1").status == 404
    assert status("GET /appsx HTTP/1.1").status == 404
    assert status("GET /app HTTP/1.1").status == 404
    assert status("PATCH /apps/testapp/events HTTP/1.1").status == 404
    assert status("GET /apps/testapp/channels HTTP/1.1").status == 401
    assert status("HEAD /apps/testapp/channels HTTP/1.1").status == 405
    assert status("POST /apps/nobody/events HTTP/1.1", "Content-Length: 0").status == 404
    assert status("POST /users/jim/terminate_connections HTTP/1.1", "Content-Length: 0").status == 401
    assert refusal(farm.device_port, b"POST nonsense\r\n\r\n").status == 400
    assert status("OPTIONS * HTTP/1.1").status == 200


def test_a_target_in_absolute_form_and_empty_lines_before_it(farm: Farm) -> None:
    host = f"http://localhost:{farm.device_port}"
    with Raw(farm.device_port) as raw:
        for target in (signed("GET", "/channels"), "/apps/testapp/channels", signed("GET", "/channels/a")):
            raw.send(f"\r\n\r\nGET {host}{target} HTTP/1.1\r\nHost: other\r\n\r\n".encode())
        assert [answer.status for answer in raw.answers(3)] == [200, 401, 200]
    device = f"\r\nGET {host}/app/{APP['key']} HTTP/1.1\r\nHost: other\r\n\r\n".encode()
    assert refusal(farm.device_port, device).status == 426


# ---------------------------------------------------------------------- what stays


def test_no_descriptor_stays(farm: Farm) -> None:
    def in_use() -> list[int]:
        return [descriptors(pid) for pid in (farm.router_pid(), farm.worker_pid(0), farm.worker_pid(1))]

    gc.collect()  # a library may have left connections of ours
    for _ in range(20):  # so that both workers know the router
        assert post(farm.device_port, event("nobody", "")) == 200
    until(lambda: farm.status()["routers"][0]["http_connections"] == 0, "nobody is there")
    before = in_use()
    came = farm.status()["routers"][0]["http_connects"]
    for number in range(300):
        with Raw(farm.device_port) as raw:
            if number % 3:
                raw.send(request("POST", "/events", event("nobody", "")))
                assert [answer.status for answer in raw.answers(1)] == [200]
            else:
                raw.send(b"POST /apps/testapp/events HTTP/1.1\r\nContent-Le")  # and goes
    until(lambda: farm.status()["routers"][0]["http_connects"] == came + 300, "the router has heard of all of them")
    until(lambda: farm.counter("handed_over") == came + 300, "and the workers have told so")
    until(lambda: farm.status()["routers"][0]["http_connections"] == 0, "nobody is there")
    until(lambda: farm.counter("connections") == 0, "at the workers neither")
    # The status page's own connection may be one of them.
    until(lambda: all(now <= then + 1 for now, then in zip(in_use(), before, strict=True)), f"not more than {before}")


def test_the_pages_of_micronotifier(farm: Farm) -> None:
    url = f"http://127.0.0.1:{farm.device_port}"
    answer = curl(f"{url}/apps")
    assert (answer.status, answer.json()) == (200, {"applications": ["testapp", "3"]})
    with subscribed(farm, "page") as _:
        numbers = until(lambda: _numbers(f"{url}/metrics"), "the workers' numbers")
    assert numbers['farm_router_http_requests_total{router="0"}'] >= 1
    assert {'farm_worker_connections{shard="0"}', 'farm_worker_connections{shard="1"}'} <= set(numbers)
    assert curl("--request", "POST", f"{url}/metrics").status == 405
    assert curl(f"{url}/metric").status == 404


def _numbers(url: str) -> dict[str, float]:
    """The numbers on the page; nothing before both workers have sent theirs."""
    answer = curl(url)
    assert answer.status == 200
    lines = [line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#")]
    found = {name: float(number) for name, _, number in lines}
    return found if 'farm_worker_connections{shard="1"}' in found else {}


def test_while_the_router_is_away(tmp_path: Path) -> None:
    numbers = list(map(str, range(10)))
    with running(
        OnePort(tmp_path / "data", {"router.routers": 1, "farm.restart_min": 4, "worker.retry_after": 7})
    ) as farm:
        port, workers, router = farm.device_port, [farm.worker_pid(0), farm.worker_pid(1)], farm.router_pid()
        with subscribed(farm, "my-channel", APP) as device:
            assert [post(port, event("my-channel", number)) for number in numbers] == [200] * 10
            assert [device.data("my-event") for _ in numbers] == numbers
            os.kill(router, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{router}").exists(), "the router has gone")
            for number in numbers:
                answer = refusal(port, request("POST", "/events", event("my-channel", number)))
                assert (answer.status, int(answer.headers["retry-after"]) in range(4, 11)) == (503, True), answer
                assert answer.headers["connection"] == "close"
            farm.wait_healthy()
            assert farm.router_pid() != router
            assert [farm.worker_pid(0), farm.worker_pid(1)] == workers
            assert [post(port, event("my-channel", number)) for number in numbers] == [200] * 10
            assert [device.data("my-event") for _ in numbers] == numbers
    assert not list(farm.data.glob("*.sock"))


def test_each_worker_has_a_favourite_router_and_passes_to_another_while_that_is_away(tmp_path: Path) -> None:
    with running(OnePort(tmp_path / "data", {"router.routers": 2, "farm.restart_min": 4})) as farm:

        def taker() -> int:
            """The router that answers a request on the device port."""
            page = curl(f"http://127.0.0.1:{farm.device_port}/metrics").body.decode()
            return next(n for n in range(2) if f'farm_router_http_requests_total{{router="{n}"}}' in page)

        seen: set[int] = set()

        def both() -> bool:
            seen.add(taker())
            return seen == {0, 1}

        until(both, "each worker has passed one")
        router = farm.router_pid()
        os.kill(router, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{router}").exists(), "the router has gone")
        assert {taker() for _ in range(DEVICES)} == {1}
        farm.wait_healthy()
        seen.clear()
        until(both, "it is passed connections again")


def test_without_the_setting_they_are_turned_away(tmp_path: Path) -> None:
    apps = tmp_path / "apps.json"
    apps.write_text(json.dumps({"applications": [APP]}))
    with running_farm(tmp_path / "data", {"pusher.apps": apps}) as farm:
        for data in (
            request("POST", "/events", event("c", "d")),
            request("GET", "/channels"),
            b"GET /apps HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PUT /update/token HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ):
            assert refusal(farm.device_port, data).status == 404
        assert post(farm.router_port, event("c", "d")) == 200
        assert not (farm.data / "adopt.sock").exists()
