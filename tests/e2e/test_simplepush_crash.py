"""What an answer means, shown on real processes that die under SimplePush traffic (`support.simplepush_traffic`)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import websocket
from support.farm_fixture import PATIENCE_S, Farm, in_thread, running_farm, soon, until
from support.processes import stopped
from support.simplepush import Device, put
from support.simplepush_traffic import DEVICES, SETTINGS, Actor, Traffic, under_traffic

RECOVERED_S = 5.0
"""A new router has the whole map within this time."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for every test after which it still runs."""
    with running_farm(tmp_path_factory.mktemp("shared") / "data", SETTINGS) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The shared farm, well again."""
    shared.wait_healthy()
    return shared


def on_shard(farm: Farm, shard: int, uaid: str, channel: str) -> Device:
    """A device of this name on the other one of the two workers, which is the only one that runs."""
    while True:
        try:
            device = Device(farm, timeout=0.5)
        except (OSError, websocket.WebSocketException):
            continue  # the kernel has given it to the one that does not run
        device.socket.settimeout(PATIENCE_S)
        device.hello(uaid, (channel,))
        return device


def test_of_two_connections_the_younger_stays_though_a_new_router_hears_of_the_older_first(farm: Farm) -> None:
    def held() -> list[int]:
        return [worker.get("devices", 0) for worker in farm.status()["workers"]]

    until(lambda: held() == [0, 0], "nobody is there")
    with Device(farm) as older:
        older.hello()
        channel, endpoint = older.register()
        until(lambda: sum(held()) == 1, "it is there")
        one = held().index(1)
        pids = [farm.worker_pid(shard) for shard in range(2)]
        with contextlib.ExitStack() as until_the_older_is_announced:
            with stopped(pids[one]):
                until(lambda: sum(held()) == 0, "its lease has run out, so it will not be told of a younger one")
                younger = on_shard(farm, 1 - one, older.uaid, channel)
                older.send({})  # what was read last does not make it the younger
                router = farm.router_pid()
                until_the_older_is_announced.enter_context(stopped(pids[1 - one]))
                os.kill(router, signal.SIGKILL)
                until(lambda: farm.router_pid() not in (None, router), "there is a new router")
            until(lambda: sum(held()) == 1, "it knows the older one")
        with younger:
            assert older.close_code() == 1001
            assert put(endpoint, 7) == 200
            assert younger.updates() == [(channel, 7)]
            younger.ack((channel, 7))
            younger.settle()


def test_kill_a_worker(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        await in_thread(until, lambda: farm.status()["connections"] == len(traffic.staying), "a beat of both workers")
        before = (await in_thread(farm.status))["workers"]
        os.kill(before[0]["pid"], signal.SIGKILL)
        await soon(lambda: len(traffic.undisturbed()) == before[1]["connections"], "its devices notice")
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "they are back")
        await traffic.pushes_arrive()
        after = (await in_thread(farm.status))["workers"]
        assert after[0]["pid"] != before[0]["pid"]
        assert after[1]["pid"] == before[1]["pid"]
        # No other device has lost its connection. That they received every push answered 200 is part of the last check.
        assert len(traffic.undisturbed()) == before[1]["connections"]

    under_traffic(farm, act)


def test_kill_the_router(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        old = await in_thread(farm.router_pid)
        os.kill(old, signal.SIGKILL)
        killed = time.monotonic()
        await in_thread(until, lambda: farm.router_pid() not in (None, old), "there is a new router")
        await traffic.pushes_arrive()
        assert time.monotonic() - killed < RECOVERED_S
        assert traffic.undisturbed() == traffic.staying
        assert await in_thread(farm.healthy)

    under_traffic(farm, act)


def test_kill_the_router_and_a_worker_again_and_again(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        for shard in (0, 1, 0):
            status = await in_thread(farm.wait_healthy)
            os.kill(status["routers"][0]["pid"], signal.SIGKILL)
            os.kill(status["workers"][shard]["pid"], signal.SIGKILL)
            await in_thread(
                until, lambda old=status: farm.router_pid() not in (None, old["routers"][0]["pid"]), "a router"
            )
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    under_traffic(farm, act)


def test_hellos_while_the_router_dies_again_and_again(farm: Farm) -> None:
    async def main() -> None:
        devices = [Actor(farm, acks=True, leaves=True) for _ in range(DEVICES)]
        running = True
        left = DEVICES

        async def come_and_go(device: Actor) -> None:
            nonlocal left
            await device.live()
            while running:
                await device.flush()
                # Where the kernel resets a connection in its handshake, trying again is the client's part.
                await trio.sleep(0.01)
            left -= 1

        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(come_and_go, device)
            for _ in range(5):
                counts = {device.uaid: len(device.connections) for device in devices}
                await soon(
                    lambda counts=counts: all(len(d.connections) > counts.get(d.uaid, 0) + 2 for d in devices),
                    "all go on",
                )
                pid = await in_thread(farm.router_pid)
                os.kill(pid, signal.SIGKILL)
                await in_thread(until, lambda pid=pid: farm.router_pid() not in (None, pid), "there is a new router")
            running = False
            await soon(lambda: not left, "every hello is answered")

    trio.run(main)


def test_kill_everything(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        for _ in range(2):
            await in_thread(farm.kill)
            await in_thread(farm.start)
            await soon(traffic.everybody_is_back, "all are back")
            await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", SETTINGS) as farm:
        under_traffic(farm, act)


def test_the_supervisor_alone_is_killed(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        os.kill(farm.pid, signal.SIGKILL)
        assert await in_thread(farm.wait_ended) == -signal.SIGKILL  # what it had started ends by itself
        await in_thread(farm.start)
        await soon(traffic.everybody_is_back, "all are back")
        await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", SETTINGS) as farm:
        under_traffic(farm, act)


def accept_queue(port: int) -> int:
    """Connections that wait to be accepted on this port: of a listening socket, rx_queue counts them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f"0100007F:{port:04X}"
    return sum(int(row[4].partition(":")[2], 16) for row in rows if row[1] == local and row[3] == "0A")


def test_who_waits_to_be_accepted_outlives_the_worker(farm: Farm) -> None:
    async def main() -> None:
        pid = await in_thread(farm.worker_pid, 0)
        devices = [Actor(farm, acks=True, leaves=False) for _ in range(DEVICES)]
        async with trio.open_nursery() as nursery:
            with stopped(pid):
                for device in devices:
                    nursery.start_soon(device.connect)

                def all_in() -> bool:
                    return sum(d.online for d in devices) + accept_queue(farm.device_port) == DEVICES

                await soon(all_in, "each is connected or waits")
                assert accept_queue(farm.device_port) > 0
                os.kill(pid, signal.SIGKILL)
                await soon(lambda: all(device.online for device in devices), "all are connected")
            assert all(len(device.connections) == 1 for device in devices)
            nursery.cancel_scope.cancel()

    trio.run(main)
    farm.wait_healthy()
