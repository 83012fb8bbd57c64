"""A router of a cluster and its lease in Redis: it answers only while nobody else can have its part of the farm."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket
from support.farm_fixture import Farm, Raw, curl, until
from support.hosts import Hosts, placed
from support.processes import stopped
from support.redis_sentinels import Sentinels
from support.redis_servers import RedisServer
from support.relay import relaying
from support.simplepush import Device, put
from support.simplepush_publisher import nothing_missing

from router.common import health

LEASE_S = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "server").mkdir()
    started = RedisServer("valkey", tmp_path / "server")
    yield started
    started.stop(signal.SIGKILL)


@contextmanager
def running(folder: Path, number: int, server: RedisServer, **redis: object) -> Iterator[list[Farm]]:
    """So many hosts with one router, which the first one has; they are killed at the end."""
    more = {f"redis.{name}": value for name, value in redis.items()}
    hosts = Hosts(folder, server, number, 1, {"redis.lease": LEASE_S, "redis.timeout": 2} | more)
    try:
        hosts.start()
        assert placed(hosts.each[0]) == [0]
        yield hosts.each
    except BaseException:
        for host in hosts.each:
            print(host.log_tail(), file=sys.stderr)
        raise
    finally:
        for host in filter(lambda host: host.runs, hosts.each):
            _signal(host, signal.SIGCONT)
        hosts.end()


def _signal(host: Farm, number: int) -> None:
    """To all processes of a host but its workers, which go on serving their devices."""
    for pid, title in host.processes().items():
        if not title.startswith("farm: worker"):
            os.kill(pid, number)


def is_shut(host: Farm) -> bool:
    """Whether its router says that it may have lost its part."""
    answer = curl(host.url("/ready"))
    return answer.status == 503 and health.NOT_OWNED in json.loads(answer.body)["reasons"]


def undisturbed(host: Farm, router: int) -> None:
    """Nobody had its router's part meanwhile, so nobody has joined or announced anything anew."""
    assert host.router_pid() == router
    assert len(list(host.events("worker.joined"))) == 1
    assert not list(host.events("worker.lost"))
    assert list(host.events("lease.renewed"))


def test_while_redis_stands_still_it_refuses_and_then_goes_on_with_what_it_knows(
    server: RedisServer, tmp_path: Path
) -> None:
    with running(tmp_path, 1, server) as (host,):
        router = host.router_pid()
        with Device(host) as device, Device(host) as late:
            device.hello()
            channel, endpoint = device.register()
            assert put(endpoint, 1) == 200
            assert device.updates() == [(channel, 1)]
            with stopped(server.pid):
                until(lambda: is_shut(host), "its lease is over")
                refused = curl("--request", "PUT", "--data", "version=2", endpoint)
                assert (refused.status, refused.headers["retry-after"]) == (503, "2")
                assert curl(host.url("/none")).status == 503
                assert curl(host.url("/live")).status == 200
                late.send({"messageType": "hello", "uaid": "", "channelIDs": []})
            assert late.receive()["status"] == 200  # what it heard meanwhile was kept
            until(lambda: put(endpoint, 3) == 200, "it accepts again")
            assert device.updates()[-1] == (channel, 3)
            assert curl(host.url("/none")).status == 404
            until(host.healthy, "all of it is well")
            (row,) = host.status()["routers"]
            assert 0 < row["lease_left_seconds"] < LEASE_S
            assert abs(row["clock_offset_seconds"]) < LEASE_S
        undisturbed(host, router)


def test_one_that_stood_still_while_another_took_over_answers_nothing_wrong(
    server: RedisServer, tmp_path: Path
) -> None:
    """Neither to app servers, whether it had read what they asked or not, nor to a device."""
    with running(tmp_path, 2, server) as (first, second), ExitStack() as stack:
        device = stack.enter_context(Device(first))
        device.hello()
        channel, endpoint = device.register()
        assert put(endpoint, 1) == 200
        assert device.updates() == [(channel, 1)]
        read, unread = (stack.enter_context(Raw(first.router_port)) for _ in range(2))
        with stopped(server.pid):
            # It has gone to the device, and waits for Redis, which does what it was told when the router stands still.
            read.send(_push(endpoint, 2))
            assert device.updates() == [(channel, 2)]
            _signal(first, signal.SIGSTOP)
        unread.send(_push(endpoint, 3))
        until(lambda: placed(second), "another host has the router")
        elsewhere = second.url(urlsplit(endpoint).path)
        with Device(second) as moved:
            moved.hello(device.uaid, (channel,))
            assert moved.updates() in ([(channel, 1)], [(channel, 2)])  # it was not answered, so it may be there or not
            assert put(elsewhere, 4) == 200
            assert moved.updates() == [(channel, 4)]
            _signal(first, signal.SIGCONT)
            for connection in (read, unread):
                assert all(b" 503 " in line for line in connection.rest().splitlines() if line.startswith(b"HTTP/1.1"))
            assert put(elsewhere, 5) == 200
            assert moved.updates() == [(channel, 5)]
            assert _until_closed(device) == []


def test_one_whose_supervisor_stands_still_gives_way_to_another(server: RedisServer, tmp_path: Path) -> None:
    """It goes on renewing its lease, and nobody tells it that it was placed elsewhere."""
    with running(tmp_path, 2, server) as (first, second), Device(first) as device:
        device.hello()
        channel, endpoint = device.register()
        os.kill(first.pid, signal.SIGSTOP)
        until(lambda: placed(second), "another host has the router")
        (failed,) = first.events("router.failed")
        assert "another router has taken" in failed["why"]
        os.kill(first.pid, signal.SIGCONT)
        elsewhere = second.url(urlsplit(endpoint).path)
        until(lambda: put(elsewhere, 1) == 200, "its worker has followed the router")
        assert device.updates()[-1] == (channel, 1)


def _until_closed(device: Device) -> list[int]:
    """The versions that a device is still sent before it is told that there is a newer connection."""
    versions: list[int] = []
    with suppress(websocket.WebSocketException, ValueError):
        while True:
            versions += [version for _, version in device.updates()]
    return versions


def _push(url: str, version: int) -> bytes:
    path = urlsplit(url).path
    body = b"version=%d" % version
    return f"PUT {path} HTTP/1.1\r\nHost: push\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_nothing_that_was_accepted_is_missing_after_a_failover_under_traffic(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    sentinels = Sentinels("valkey", tmp_path / "servers")
    options = sentinels.options | {"sentinels": ",".join(sentinels.options["sentinels"])}
    try:
        with running(tmp_path, 1, sentinels.primary, **options) as (host,):
            router = host.router_pid()

            def fail_over() -> None:
                killed = sentinels.fail_over()
                # The new primary has no replica that would know of a lease.
                until(lambda: is_shut(host), "it is not certain any more")
                sentinels.bring_back(killed)

            _under(host, sentinels.switch_over, fail_over)
            undisturbed(host, router)
    finally:
        sentinels.stop()


def test_connections_to_redis_that_are_broken_without_a_word_are_replaced(server: RedisServer, tmp_path: Path) -> None:
    with (
        relaying(server.port) as (port, hold),
        running(tmp_path, 1, server, url=f"redis://127.0.0.1:{port}/0") as (host,),
    ):
        router = host.router_pid()
        _under(host, hold, hold)
        assert host.router_pid() == router
        assert not list(host.events("worker.lost"))


def _under(host: Farm, *faults: Callable[[], None]) -> None:
    """Faults while devices are pushed to; at the end each has the newest that was accepted."""
    with nothing_missing(host, 4, stay=True) as publisher:
        for fault in faults:
            publisher.more_accepted()
            fault()
        publisher.more_accepted()
