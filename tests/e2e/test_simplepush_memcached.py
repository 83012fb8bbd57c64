"""A farm that keeps its messages in memcached: it ends, is empty, does not answer or is full, and devices stay."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.admin_api import api, code
from support.farm_fixture import SOON_S, Farm, Json, command, curl, reload, running_farm, until
from support.memcached import Memcached, running_memcached
from support.simplepush import Device, put

from farm.dialects import specs
from router.dialects.simplepush.protocol import NAME

OTHERS = [spec for spec in specs() if spec.name != NAME]
ALONE: Json = {f"dialects.{spec.name}": False for spec in OTHERS}


def settings(*servers: Memcached) -> Json:
    names = ",".join(server.name for server in servers)
    return ALONE | {"store.kind": "memcached", "memcached.servers": names, "memcached.timeout": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Memcached]:
    with running_memcached() as running:
        yield running


@pytest.fixture(scope="module")
def farm(server: Memcached, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("memcached") / "data", settings(server)) as running:
        yield running


@pytest.fixture
def same_processes(farm: Farm) -> Iterator[None]:
    """Whatever the server does, nothing has to be started anew."""
    died = len(list(farm.events("process.died")))
    yield
    assert len(list(farm.events("process.died"))) == died
    assert not list(farm.events("committer.failed"))


def offline(farm: Farm, channels: int = 1) -> tuple[str, list[tuple[str, str]]]:
    """A device that has registered these channels and gone. Returns: its uaid, and each channel with its endpoint."""
    with Device(farm) as device:
        device.hello()
        made = [device.register() for _ in range(channels)]
    until(lambda: put(made[0][1], 1) == 202, "the device is known to have gone")
    return device.uaid, made


def test_the_log_says_what_an_answer_means(farm: Farm) -> None:
    opened, *_ = farm.events("store.opened")  # a line of each router
    assert opened["kind"] == "memcached"
    assert opened["promise"].startswith(
        "in memory, by memcached: what is accepted is lost when its memcached server ends"
    )


def test_updates_wait_for_their_device(farm: Farm) -> None:
    uaid, made = offline(farm, 3)
    for version in (2, 3):
        assert [put(endpoint, version) for _, endpoint in made] == [202] * 3
    reload(farm)  # another router finds them
    channels = tuple(channel for channel, _ in made)
    with Device(farm) as device:
        assert device.hello(uaid, channels)["uaid"] == uaid
        assert sorted(device.updates()) == sorted((channel, 3) for channel in channels)
        device.ack(*((channel, 3) for channel in channels[1:]))
        device.settle()
        assert put(made[0][1], 4) == 200
        assert device.updates() == [(channels[0], 4)]
    with Device(farm) as device:
        device.hello(uaid, channels)
        assert device.updates() == [(channels[0], 4)]
        device.ack((channels[0], 4))
        device.settle()


@pytest.mark.usefixtures("same_processes")
def test_a_server_that_was_started_anew_ends_no_subscription(farm: Farm, server: Memcached) -> None:
    uaid, ((channel, endpoint),) = offline(farm)
    with Device(farm) as stays:
        stays.hello()
        known, known_endpoint = stays.register()
        server.kill()
        server.start()
        until(lambda: put(known_endpoint, 7) == 200, "pushes are accepted again")
        assert stays.updates() == [(known, 7)]
        stays.ack((known, 7))
        stays.settle()
    # What waited is lost, and nobody is sent away for the record that is missing.
    assert put(endpoint, 9) == 202
    with Device(farm) as device:
        assert device.hello(uaid, (channel,))["uaid"] == uaid
        assert device.updates() == [(channel, 9)]
        device.ack((channel, 9))
        device.settle()


@contextmanager
def away(server: Memcached) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def silent(server: Memcached) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.go_on()


@pytest.mark.usefixtures("same_processes")
@pytest.mark.parametrize("fails", [away, silent])
def test_a_server_that_does_not_answer_refuses_and_passes(
    farm: Farm, server: Memcached, fails: Callable[[Memcached], contextmanager[None]]
) -> None:
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        assert put(endpoint, 5) == 200
        assert device.updates() == [(channel, 5)]
        with fails(server):
            assert put(endpoint, 6) == 503
            until(lambda: curl(farm.url("/ready")).status == 503, "it is not ready")
            assert int(curl("--request", "PUT", "--data", "version=6", endpoint).headers["retry-after"]) > 0
            device.ack((channel, 5))
            device.send({"messageType": "ping"})
            while device.receive() != {}:  # what was answered with 503 may come all the same
                pass
        until(lambda: put(endpoint, 8) == 200, "pushes are accepted again", SOON_S)
        until(lambda: curl(farm.url("/ready")).status == 200, "it is ready")
        while device.updates()[-1] != (channel, 8):
            pass
        device.ack((channel, 8))
        device.settle()
        uaid = device.uaid
    until(lambda: farm.status()["routers"][0]["store_unremoved"] == 0, "the acknowledgements are made")
    with Device(farm) as device:
        device.hello(uaid, (channel,))
        assert put(endpoint, 9) == 200
        assert device.updates() == [(channel, 9)]  # nothing that was acknowledged


def test_a_router_that_dies_loses_nothing(farm: Farm) -> None:
    uaid, made = offline(farm, 2)
    router = farm.router_pid()
    os.kill(router, signal.SIGKILL)
    until(lambda: any(row["pid"] != router for row in farm.status()["routers"]), "another router", SOON_S)
    with Device(farm) as device:
        device.hello(uaid, tuple(channel for channel, _ in made))
        assert device.updates() == [(made[0][0], 1)]


def test_several_routers_share_a_server(server: Memcached, tmp_path: Path) -> None:
    more = {"router.routers": 2, "memcached.prefix": "several:"}
    with running_farm(tmp_path / "data", settings(server) | more, 1) as farm:
        waiting = [offline(farm) for _ in range(6)]
        killed = farm.status()["routers"][1]["pid"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in [row["pid"] for row in farm.status()["routers"]], "another router", SOON_S)
        farm.wait_healthy()
        for uaid, ((channel, endpoint),) in waiting:
            until(lambda endpoint=endpoint: put(endpoint, 2) == 202, "its router takes pushes")  # type: ignore[misc]
            with Device(farm) as device:
                assert device.hello(uaid, (channel,))["uaid"] == uaid
                assert device.updates() == [(channel, 2)]


def test_operators_see_and_act_on_devices(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
    path = f"/devices/{device.uaid}"
    until(lambda: api(farm, "GET", path)[1]["connection"] is None, "it has gone")
    assert put(endpoint, 1) == 202
    _, shown = api(farm, "GET", path)
    assert shown["registered"] and [item["channel"] for item in shown["inbox"]["items"]] == [channel]
    assert api(farm, "DELETE", f"{path}/inbox") == (200, {"removed": 1})
    assert api(farm, "DELETE", path) == (200, {"forgotten": True})
    assert code(api(farm, "GET", path)) == (404, "not_found")


def test_one_that_is_full_refuses_what_has_no_room(tmp_path: Path) -> None:
    with running_memcached("-m", "2", "-M") as server, running_farm(tmp_path / "data", settings(server), 1) as farm:
        with Device(farm) as device:
            device.hello()
            _, endpoint = device.register()
            fill(server)
            assert put(endpoint, 2) == 503
            server.forget()
            until(lambda: put(endpoint, 3) == 200, "pushes are accepted again")
        assert list(farm.events("store.server_full"))


def fill(server: Memcached) -> None:
    """Until there is no room for anything small: memcached has a page of memory for each size."""
    for size in range(0, 300, 15):
        made: Iterator[int] = itertools.count()
        answer = b""
        while b"SERVER_ERROR out of memory" not in answer:
            adds = (b"add %d-%d 0 0 %d\r\n%b\r\n" % (size, next(made), size, b"x" * size) for _ in range(1000))
            answer = server.ask(b"".join(adds) + b"mn\r\n", b"MN\r\n")


def test_other_dialects_are_refused_in_a_line_each(server: Memcached, farm: Farm) -> None:
    needy = [spec.name for spec in OTHERS if spec.needs]
    sets = [f"--set=dialects.{name}=true" for name in needy]
    done = command(farm, "check-config", "--data", str(farm.data), "--set=store.kind=memcached", *sets)
    lines = [line for line in done.stderr.splitlines() if "needs a store with" in line]
    assert done.returncode == (2 if needy else 0)
    assert sorted(line.partition("dialects.")[2].partition(" ")[0] for line in lines) == sorted(needy)
    assert all("memcached has none; choose store.kind = " in line for line in lines)


def test_a_farm_whose_server_is_not_there_does_not_start(tmp_path: Path) -> None:
    with running_memcached() as server:
        server.kill()
        farm = Farm(tmp_path / "data", settings(server), 1)
        done = subprocess.run(farm.arguments(), cwd=farm.root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert f"memcached {server.name}: connection refused; start it" in done.stderr
    assert "Traceback" not in done.stderr
