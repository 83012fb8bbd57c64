"""A farm on Redis: devices of every dialect stay, and hear what is accepted, whatever the server does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import dialects
from support.farm_fixture import Farm, Json, command, reload, running_farm, until
from support.processes import stopped
from support.redis_servers import RedisServer

from router.common.token import new_key

TIMEOUT_S = 2.0


def settings_of(server: RedisServer, folder: Path) -> Json:
    """Of a farm on this server."""
    redis = {"store.kind": "redis", "redis.url": server.url, "redis.timeout": TIMEOUT_S, "redis.prefix": folder.name}
    return dialects.settings(folder) | redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    started = RedisServer("redis", tmp_path_factory.mktemp("server"))
    yield started
    started.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def farm(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    with running_farm(folder / "data", settings_of(server, folder)) as started:
        yield started


@pytest.fixture(scope="module")
def check(farm: Farm) -> Iterator[Callable[[], None]]:
    """That a message reaches a device of each dialect: these stay connected through all tests."""
    with dialects.reached(farm) as reached:
        yield reached


def test_devices_of_every_dialect_are_reached(farm: Farm, check: Callable[[], None]) -> None:
    check()
    opened, *_ = farm.events("store.opened")  # a line of each router
    assert opened["kind"] == "redis"
    assert "power cut" in opened["promise"]


def test_they_stay_while_the_router_is_killed(farm: Farm, check: Callable[[], None]) -> None:
    router = farm.router_pid()
    os.kill(router, signal.SIGKILL)
    until(lambda: router != farm.router_pid(), "another router")
    farm.wait_healthy()
    check()
    assert not list(farm.events("redis.held"))  # the next one is the same farm's, and waits for no lease


def test_they_stay_while_the_server_is_killed_and_restarted(
    farm: Farm, server: RedisServer, check: Callable[[], None]
) -> None:
    router = farm.router_pid()
    server.restart(signal.SIGKILL)
    check()  # at once: nothing is refused after a restart that nobody noticed
    assert farm.router_pid() == router
    assert farm.healthy()


def test_they_stay_while_the_server_stands_still(farm: Farm, server: RedisServer, check: Callable[[], None]) -> None:
    router = farm.router_pid()
    with stopped(server.pid):
        time.sleep(2 * TIMEOUT_S)  # longer than a lease, too
    check()
    assert farm.router_pid() == router


def test_a_reload_replaces_the_router(farm: Farm) -> None:
    router = farm.router_pid()
    reload(farm)
    assert farm.router_pid() != router
    with dialects.reached(farm) as check:
        check()


def test_a_second_farm_on_the_same_prefix_is_refused(farm: Farm, server: RedisServer, tmp_path: Path) -> None:
    second = Farm(tmp_path / "second", farm.settings | {"token.keys": new_key()}, 1)
    second.launch()
    try:
        found = until(lambda: next(second.events("router.failed"), None), "its router says why it does not start")
    finally:
        second.kill()
    assert "another farm" in found["why"]
    assert "redis.prefix" in found["why"]
    with dialects.reached(farm) as check:
        check()


def test_several_routers_share_a_server_and_may_be_another_number(server: RedisServer, tmp_path: Path) -> None:
    settings = settings_of(server, tmp_path)
    for routers in (3, 2):
        with running_farm(tmp_path / "data", settings | {"router.routers": routers}, 1) as farm:
            with dialects.reached(farm) as check:
                check()
            assert not list(farm.events("redis.held"))


def test_what_the_doctor_says_of_the_server(farm: Farm, server: RedisServer) -> None:
    ran = command(farm, "doctor", "--json", "--set", "store.kind=redis", "--set", f"redis.url={server.url}")
    rows = {row["name"]: row for row in json.loads(ran.stdout)}
    assert rows["Redis appendfsync"]["status"] == "ok"
    assert "power cut" in rows["a 2xx means"]["found"]
