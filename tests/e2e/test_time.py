"""A farm and the time: connections that outlast what is kept of them, and a clock that is set."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, curl, new_channel, running_farm, until
from support.simplepush import Device, put

TIMEOUT_UAID_S = 2


class WebPushDevice:
    """One that says hello, registers and acknowledges."""

    def __init__(self, farm: Farm, uaid: str | None = None) -> None:
        self.socket = websocket.create_connection(farm.device_url, timeout=PATIENCE_S)
        hello = {"messageType": "hello", "use_webpush": True} | ({"uaid": uaid} if uaid else {})
        self.uaid = self.ask(hello)["uaid"]

    def __enter__(self) -> WebPushDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()

    def receive(self) -> Any:
        return json.loads(self.socket.recv())

    def ask(self, command: dict[str, Any]) -> Any:
        self.socket.send(json.dumps(command))
        return self.receive()

    def register(self) -> str:
        endpoint: str = self.ask({"messageType": "register", "channelID": new_channel()})["pushEndpoint"]
        return endpoint

    def ack(self, note: Any) -> None:
        update = {"channelID": note["channelID"], "version": note["version"]}
        self.socket.send(json.dumps({"messageType": "ack", "updates": [update]}))


def post(endpoint: str, body: str = "", **headers: str) -> int:
    lines = {"TTL": "60", **headers} | ({"Content-Encoding": "aes128gcm"} if body else {})
    options = [part for name, value in lines.items() for part in ("--header", f"{name}: {value}")]
    return curl("--request", "POST", *options, "--data-binary", body, endpoint).status


def test_who_is_connected_is_not_forgotten_and_who_is_not_is(tmp_path: Path) -> None:
    settings = {"simplepush.timeout_uaid": TIMEOUT_UAID_S, "webpush.timeout_uaid": TIMEOUT_UAID_S}
    with running_farm(tmp_path / "data", settings, workers=1) as farm:
        with WebPushDevice(farm) as gone:
            its_endpoint = gone.register()
        with WebPushDevice(farm) as device, Device(farm) as other:
            endpoint = device.register()
            other.hello()
            channel, _ = other.register()
            time.sleep(2.5 * TIMEOUT_UAID_S)
            until(lambda: post(its_endpoint) == 410, "who is not connected is forgotten")
            assert post(endpoint) == 201
            uaid, other_uaid = device.uaid, other.uaid
        with WebPushDevice(farm, uaid) as back, Device(farm) as other_back:
            assert back.uaid == uaid
            assert other_back.hello(other_uaid, (channel,))["uaid"] == other_uaid


class FakeClock:
    """The clock of a farm under libfaketime, and of nothing else. The monotonic one is left alone."""

    def __init__(self, file: Path) -> None:
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
        if library is None:
            why = "no libfaketime; as root: apt-get install --no-install-recommends libfaketime"
            if os.environ.get("CI") == "true":
                pytest.fail(why)
            pytest.skip(why)
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """So far from the machine's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakeClock:
    return FakeClock(tmp_path_factory.mktemp("clock") / "clock")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("time") / "data", {}, 1, clock.environment) as started:
        yield started


def restart_router(farm: Farm) -> None:
    before = farm.router_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: farm.healthy() and farm.router_pid() != before, "another router serves")


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_clock_and_a_new_router_change_no_order(farm: Farm, clock: FakeClock, step: int) -> None:
    clock.set(0)
    with WebPushDevice(farm) as device, Device(farm) as simple:
        endpoint = device.register()
        simple.hello()
        _, simple_endpoint = simple.register()
        assert post(endpoint, "AAAA", Topic="t") == 201
        old = device.receive()
        assert put(simple_endpoint) == 200
        ((_, old_version),) = simple.updates()
        clock.set(step)
        restart_router(farm)
        assert post(endpoint, "BBBB", Topic="t") == 201
        new = device.receive()
        assert new["version"] > old["version"]
        assert put(simple_endpoint) == 200
        ((_, new_version),) = simple.updates()
        assert new_version >= old_version
        device.ack(old)  # which must not be taken for an acknowledgement of the new one
        assert device.ask({}) == {}
    with WebPushDevice(farm, device.uaid) as back:
        assert back.uaid == device.uaid
        assert back.receive()["data"] == new["data"]
    clock.set(0)


def test_a_clock_that_steps_while_it_serves_disturbs_nobody(farm: Farm, clock: FakeClock) -> None:
    clock.set(0)
    with WebPushDevice(farm) as device:
        endpoint = device.register()
        router = farm.router_pid()
        versions = []
        for step in (0, 7200, -7200):
            clock.set(step)
            time.sleep(1.2)  # so long it may take until a process looks at the file again
            assert post(endpoint, "AAAA") == 201
            note = device.receive()
            versions.append(note["version"])
            device.ack(note)
        assert versions == sorted(versions)
        assert farm.healthy()
        assert farm.router_pid() == router
    clock.set(0)
