"""Processes that stop for a while, devices that do not read, and devices that move, under SimplePush traffic."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.farm_fixture import Farm, in_thread, running_farm, soon, until
from support.processes import stopped
from support.simplepush import Device, push_many, put
from support.simplepush_traffic import SETTINGS, Traffic, under_traffic


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


def test_a_worker_stops_for_ten_seconds(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        row = (await in_thread(farm.status))["workers"][0]
        with stopped(row["pid"]):
            began = trio.current_time()
            await in_thread(until, lambda: not farm.healthy(), "the farm says that a worker is missing")
            mark = {channel.name: len(channel.pushes) for channel in traffic.channels}
            await trio.sleep_until(began + 10)
            answers = {
                channel.name: {status for _, status in channel.pushes[mark[channel.name] :]}
                for channel in traffic.channels
            }
            staying = {name for device in traffic.staying for name in device.channels}
            # Those of the stopped worker are stored for later, the others go on.
            assert {tuple(answers[name]) for name in staying} == {(200,), (202,)}
        await in_thread(farm.wait_healthy)
        await traffic.pushes_arrive()
        assert (await in_thread(farm.status))["workers"][0]["pid"] == row["pid"]
        assert traffic.undisturbed() == traffic.staying

    under_traffic(farm, act)


def test_the_router_stops_for_three_leases(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        pid = await in_thread(farm.router_pid)
        with stopped(pid):
            began = trio.current_time()
            await in_thread(until, lambda: not farm.healthy(), "the farm says that its router is missing")
            await trio.sleep_until(began + 3 * SETTINGS["link.lease"])
        await in_thread(farm.wait_healthy)
        await soon(traffic.everybody_is_back, "who was away and said hello meanwhile is answered")
        await traffic.pushes_arrive()
        assert await in_thread(farm.router_pid) == pid
        assert traffic.undisturbed() == traffic.staying

    under_traffic(farm, act)


def resident(pid: int) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_device_that_stops_reading(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        pids = await in_thread(lambda: [row["pid"] for row in farm.status()["workers"]] + [farm.router_pid()])
        before = {pid: resident(pid) for pid in pids}
        options = {"sockopt": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]}
        slow = await in_thread(lambda: Device(farm, **options))
        await in_thread(slow.hello)
        channels = dict([await in_thread(slow.register) for _ in range(5)])
        closed = await in_thread(farm.counter, "slow_closed")
        pushed: dict[str, list[tuple[int, int]]] = {name: [] for name in channels}

        def flood(base: int) -> None:
            pairs = [(name, base + number) for number in range(40) for name in channels]
            pushes = [{"endpoint": channels[name], "version": v, "data": "x" * 4096} for name, v in pairs]
            for (name, version), status in zip(pairs, push_many(farm, pushes), strict=True):
                pushed[name].append((version, status))

        base = 1
        while await in_thread(farm.counter, "slow_closed") == closed:
            assert base < 10_000, "a device that does not read is never closed"
            await in_thread(flood, base)
            base += 40
        assert {status for pushes in pushed.values() for _, status in pushes} == {200, 202}
        assert max(resident(pid) - before[pid] for pid in pids) < 32 * 2**20
        assert traffic.undisturbed() == traffic.staying
        await in_thread(slow.socket.shutdown)

        again = await in_thread(Device, farm)
        await in_thread(again.hello, slow.uaid, tuple(channels))
        assert again.uaid == slow.uaid
        received = dict(await in_thread(again.updates))
        assert received == {name: max(version for version, _ in pushes) for name, pushes in pushed.items()}
        await in_thread(again.socket.shutdown)

    under_traffic(farm, act)


def test_a_device_that_reads_too_late(tmp_path: Path) -> None:
    """Less waits for it than it may, but for longer than it may."""
    with running_farm(tmp_path / "data", {"worker.write_timeout": 1, "worker.write_buffer_bytes": 8_388_608}) as farm:
        slow = Device(farm, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        slow.hello()
        channel, endpoint = slow.register()
        pushes = [{"endpoint": endpoint, "version": 1, "data": "x" * 4096}] * 200
        until(lambda: 202 in push_many(farm, pushes), "what is written waits")
        until(lambda: farm.counter("slow_closed") == 1, "it is closed")
        slow.socket.shutdown()
        assert put(endpoint, 1000) == 202
        with Device(farm) as again:
            again.hello(slow.uaid)
            assert again.updates() == [(channel, 1000)]


def test_newer_connections_of_many_devices(farm: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        devices = [device for device in traffic.staying if device.acks][:12]
        moved = (await in_thread(farm.status))["routers"][0]["devices_moved"]
        for device in devices:
            device.reconnects = False
        for times in range(2, 7):
            for device in devices:
                traffic.nursery.start_soon(device.connect)
            await soon(lambda n=times: all(len(d.connections) == n for d in devices), "the newer are answered")
            await soon(lambda: all(c.ended for d in devices for c in d.connections[:-1]), "the older are closed")
            assert {c.code for d in devices for c in d.connections[:-1]} == {1001}
            await traffic.pushes_arrive()
            assert all(device.online for device in devices)
        # 60 times a newer connection: on the other shard as well as on the same one.
        assert 0 < (await in_thread(farm.status))["routers"][0]["devices_moved"] - moved < 60

    under_traffic(farm, act)
