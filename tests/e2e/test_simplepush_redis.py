"""SimplePush on Redis or Valkey: what was accepted arrives, whatever becomes of the server and the router meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from support.farm_fixture import Farm, running_farm, until
from support.processes import stopped
from support.redis_servers import PRODUCTS, RedisServer
from support.simplepush import Device, put
from support.simplepush_publisher import nothing_missing


@pytest.fixture(scope="module", params=PRODUCTS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    started = RedisServer(request.param, tmp_path_factory.mktemp("server"))
    yield started
    started.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def farm(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"store.kind": "redis", "redis.url": server.url, "redis.timeout": 2}
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, 1) as started:
        yield started


def well(farm: Farm) -> bool:
    return all(row["store_ok"] is True for row in farm.status()["routers"])


def test_a_server_that_is_away_refuses_and_comes_back(farm: Farm, server: RedisServer) -> None:
    router = farm.router_pid()
    with Device(farm) as stays, Device(farm) as away:
        stays.hello()
        channel, endpoint = stays.register()
        away.hello()
        waiting, waiting_endpoint = away.register()
        assert put(endpoint, 1) == 200
        assert stays.updates() == [(channel, 1)]
        away.socket.close()
        until(lambda: put(waiting_endpoint, 5) == 202, "the device is known to have gone")
        server.stop(signal.SIGKILL)
        # What it acknowledges meanwhile is not forgotten, and nothing is accepted.
        stays.ack((channel, 1))
        assert {put(endpoint, version) for version in range(2, 6)} == {503}
        assert not well(farm)
        server.start()
        until(lambda: well(farm), "it finds out by itself that it can write again")
        assert put(endpoint, 100) == 200
        until(lambda: stays.updates() == [(channel, 100)], "what was refused may have been shown, and this one comes")
    with Device(farm) as back:
        back.hello(away.uaid, (waiting,))
        assert back.updates() == [(waiting, 5)]
    with Device(farm) as again:
        again.hello(stays.uaid, (channel,))
        assert again.updates() == [(channel, 100)]
    assert farm.router_pid() == router


def test_a_server_that_stands_still_refuses_and_comes_back(farm: Farm, server: RedisServer) -> None:
    router = farm.router_pid()
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        with stopped(server.pid):
            assert put(endpoint, 1) == 503
            until(lambda: not well(farm), "it says so")
        until(lambda: well(farm), "it finds out by itself")
        until(lambda: put(endpoint, 7) == 200, "it is accepted")
        until(lambda: device.updates() == [(channel, 7)], "this one comes")
    assert farm.router_pid() == router


def test_a_full_server_refuses_pushes_and_takes_acknowledgements(farm: Farm, server: RedisServer) -> None:
    with Device(farm) as device, Device(farm) as other:
        device.hello()
        channel, endpoint = device.register()
        other.hello()
        _, other_endpoint = other.register()
        assert put(endpoint, 1) == 200
        assert device.updates() == [(channel, 1)]
        server.config("maxmemory", "1mb")
        try:
            assert put(other_endpoint, 2) == 503
            device.ack((channel, 1))
            device.settle()
        finally:
            server.config("maxmemory", "0")
        assert list(farm.events("redis.full"))
        assert put(other_endpoint, 3) == 200
    with Device(farm) as back:
        back.hello(device.uaid, (channel,))
        assert put(endpoint, 9) == 200
        assert back.updates() == [(channel, 9)]  # and not the first, which was acknowledged


def test_nothing_that_was_accepted_is_missing(farm: Farm, server: RedisServer) -> None:
    def kill_router() -> None:
        router = farm.router_pid()
        os.kill(router, signal.SIGKILL)
        until(lambda: farm.router_pid() != router, "another router")
        farm.wait_healthy()

    def stand_still() -> None:
        with stopped(server.pid):
            until(lambda: not well(farm), "it is seen")

    faults: list[Callable[[], None]] = [kill_router, server.restart, stand_still, server.restart, kill_router]
    with nothing_missing(farm, 6, stay=False) as publisher:
        for fault in faults:
            publisher.more_accepted()
            fault()
        until(lambda: well(farm), "it is well")
