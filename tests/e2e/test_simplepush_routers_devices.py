"""Devices of a farm with two routers while one of these does not run: only those whose addresses it owns notice."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.farm_fixture import Farm, new_channel, running_farm, until
from support.processes import stopped
from support.simplepush import Device

from router.common.partitions import fixed_owners, partition

ROUTERS = 2
PERSISTENT = 40
"""Calls of a device, one after the other, while the other's router does nothing."""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"router.routers": ROUTERS, "farm.hang_timeout": 60, "link.max_unconfirmed": 4}
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as farm:
        yield farm


def router_of(uaid: str) -> int:
    return fixed_owners(ROUTERS)[partition(uuid.UUID(uaid).bytes)]


def pid(farm: Farm, router: int) -> int:
    found: int = farm.status()["routers"][router]["pid"]
    return found


def device_of(farm: Farm, router: int, stack: ExitStack) -> Device:
    """A device whose address this router owns."""
    while True:
        device = stack.enter_context(Device(farm))
        device.hello()
        if router_of(device.uaid) == router:
            return device


@contextmanager
def one_of_each(farm: Farm) -> Iterator[list[Device]]:
    """A device of each router."""
    with ExitStack() as stack:
        yield [device_of(farm, router, stack) for router in range(ROUTERS)]


def registers(device: Device) -> str:
    channel = new_channel()
    device.send({"messageType": "register", "channelID": channel})
    return channel


def registered(device: Device, channel: str) -> None:
    reply = device.receive()
    assert (reply["status"], reply["channelID"]) == (200, channel), reply


def ready(farm: Farm) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{farm.device_port}/ready", timeout=20) as answer:
        return bool(json.loads(answer.read())["status"] == "ready")


def test_a_router_that_is_stopped_holds_up_its_own_devices_alone(farm: Farm) -> None:
    with one_of_each(farm) as (goes_on, waits), ExitStack() as others:
        known = device_of(farm, 1, others)
        with stopped(pid(farm, 1)):
            channel = registers(waits)
            again = others.enter_context(Device(farm))
            again.send({"messageType": "hello", "uaid": known.uaid, "channelIDs": []})
            for _ in range(PERSISTENT):
                registered(goes_on, registers(goes_on))
                goes_on.ack((new_channel(), 1))
            newer = others.enter_context(Device(farm))
            newer.hello(goes_on.uaid)
            assert goes_on.close_code() == 1001
            newer.settle()
            assert ready(farm)
        registered(waits, channel)
        reply = again.receive()
        assert (reply["status"], reply["uaid"]) == (200, known.uaid)
        assert known.close_code() == 1001
        again.settle()


def test_very_many_hellos_to_a_router_that_is_stopped_stop_no_other(farm: Farm) -> None:
    with one_of_each(farm) as (goes_on, waits), ExitStack() as stack:
        with stopped(pid(farm, 1)):
            for _ in range(50):  # far more than link.max_unconfirmed batches, and each ends without its answer
                device = Device(farm)
                device.send({"messageType": "hello", "uaid": waits.uaid, "channelIDs": []})
                device.socket.shutdown()
                registered(goes_on, registers(goes_on))
            late = stack.enter_context(Device(farm))
            late.send({"messageType": "hello", "uaid": waits.uaid, "channelIDs": []})
        reply = late.receive()
        assert (reply["status"], reply["uaid"]) == (200, waits.uaid)
        late.settle()
        goes_on.settle()


@pytest.mark.parametrize("router", range(ROUTERS))
def test_a_router_that_is_killed_is_missed_by_its_own_devices_alone(farm: Farm, router: int) -> None:
    with one_of_each(farm) as devices:
        old = pid(farm, router)
        workers = [row["pid"] for row in farm.status()["workers"]]
        os.kill(old, signal.SIGKILL)
        channels = [registers(device) for device in devices]
        registered(devices[1 - router], channels[1 - router])
        registered(devices[router], channels[router])
        until(lambda: pid(farm, router) not in (None, old), "there is a new router")
        farm.wait_healthy()
        for device in devices:
            device.settle()
        assert [row["pid"] for row in farm.status()["workers"]] == workers
        assert len({row["pid"] for row in farm.status()["routers"]}) == ROUTERS
