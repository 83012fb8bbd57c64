"""WebPush and the time: connections that outlast what is kept of them, and a clock that is set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_clock import FakeClock, restart_router
from support.farm_fixture import Farm, running_farm, until
from support.webpush import UserAgent, post, pushed

TIMEOUT_UAID_S = 2


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakeClock:
    return FakeClock(tmp_path_factory.mktemp("clock") / "clock")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("time") / "data", {}, 1, clock.environment) as started:
        yield started


def test_who_is_connected_is_not_forgotten_and_who_is_not_is(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", {"webpush.timeout_uaid": TIMEOUT_UAID_S}, workers=1) as farm:
        with UserAgent(farm) as gone:
            _, its_endpoint = gone.register()
        with UserAgent(farm) as device:
            _, endpoint = device.register()
            time.sleep(2.5 * TIMEOUT_UAID_S)
            until(lambda: post(its_endpoint).status == 410, "who is not connected is forgotten")
            pushed(endpoint)
        with UserAgent(farm, device.uaid) as back:
            assert back.uaid == device.uaid


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_clock_and_a_new_router_change_no_order(farm: Farm, clock: FakeClock, step: int) -> None:
    clock.set(0)
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "old", Topic="t")
        (old,) = device.notes(1)
        clock.set(step)
        restart_router(farm)
        pushed(endpoint, "new", Topic="t")
        (new,) = device.notes(1)
        assert new["version"] > old["version"]
        device.ack(old)  # which must not be taken for an acknowledgement of the new one
        device.nothing()
    with UserAgent(farm, device.uaid) as back:
        assert back.uaid == device.uaid
        assert back.bodies(1) == ["new"]
    clock.set(0)


def test_a_clock_that_steps_while_it_serves_disturbs_nobody(farm: Farm, clock: FakeClock) -> None:
    clock.set(0)
    with UserAgent(farm) as device:
        _, endpoint = device.register()
        router = farm.router_pid()
        versions = []
        for step in (0, 7200, -7200):
            clock.set(step)
            time.sleep(1.2)  # so long it may take until a process looks at the file again
            pushed(endpoint, "text")
            (note,) = device.notes(1)
            versions.append(note["version"])
            device.ack(note)
        assert versions == sorted(versions)
        assert farm.healthy()
        assert farm.router_pid() == router
