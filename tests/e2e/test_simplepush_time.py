"""SimplePush and the time: connections that outlast what is kept of them, and a clock that is set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_clock import FakeClock, restart_router
from support.farm_fixture import Farm, running_farm
from support.simplepush import Device, put

TIMEOUT_UAID_S = 2


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakeClock:
    return FakeClock(tmp_path_factory.mktemp("clock") / "clock")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("time") / "data", {}, 1, clock.environment) as started:
        yield started


def test_who_is_connected_is_not_forgotten(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", {"simplepush.timeout_uaid": TIMEOUT_UAID_S}, workers=1) as farm:
        with Device(farm) as device:
            device.hello()
            channel, _ = device.register()
            time.sleep(2.5 * TIMEOUT_UAID_S)
        with Device(farm) as back:
            assert back.hello(device.uaid, (channel,))["uaid"] == device.uaid


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_clock_and_a_new_router_change_no_order(farm: Farm, clock: FakeClock, step: int) -> None:
    clock.set(0)
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        assert put(endpoint) == 200  # the version is the time
        ((_, old),) = device.updates()
        clock.set(step)
        restart_router(farm)
        assert put(endpoint) == 200
        ((_, new),) = device.updates()
        assert new >= old
    clock.set(0)
