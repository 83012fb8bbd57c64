"""WebPush under traffic while processes are killed and stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.farm_fixture import Farm, in_thread, running_farm, soon, until
from support.webpush import UserAgent, body_of, post, pushed
from support.webpush_traffic import CHANNELS, CRASH, Page, Traffic


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that outlives what is done to its processes."""
    with running_farm(tmp_path_factory.mktemp("crashing") / "data", CRASH) as farm:
        yield farm


def test_kill_the_router_again_and_again(crashing: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        connections = [page.connections for page in traffic.pages]
        for _ in range(3):
            os.kill(await in_thread(crashing.router_pid), signal.SIGKILL)
            await in_thread(crashing.wait_healthy)
            await traffic.pushes_arrive()
        assert [page.connections for page in traffic.pages] == connections

    trio.run(Traffic(crashing).run, act)


def test_kill_workers_and_the_router(crashing: Farm) -> None:
    async def act(traffic: Traffic) -> None:
        for shard in (0, 1):
            os.kill(await in_thread(crashing.worker_pid, shard), signal.SIGKILL)
            await in_thread(crashing.wait_healthy)
            await traffic.pushes_arrive()
        status = await in_thread(crashing.status)
        for pid in (status["routers"][0]["pid"], status["workers"][0]["pid"]):
            os.kill(pid, signal.SIGKILL)
        await in_thread(crashing.wait_healthy)

    trio.run(Traffic(crashing).run, act)


def test_kill_everything(tmp_path: Path) -> None:
    async def act(traffic: Traffic) -> None:
        for _ in range(2):
            await in_thread(farm.kill)
            await in_thread(farm.start)
            await traffic.pushes_arrive()

    with running_farm(tmp_path / "data", CRASH) as farm:
        trio.run(Traffic(farm).run, act)


def test_what_came_while_its_worker_stood_still_reaches_a_device_that_stayed(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH | {"router.routers": 1}, workers=1) as farm, UserAgent(farm) as device:
        _, endpoint = device.register()
        pushed(endpoint, "before")
        (before,) = device.notes(1)
        worker = farm.worker_pid(0)
        os.kill(worker, signal.SIGSTOP)
        try:
            until(lambda: farm.status()["routers"][0]["leases_lost"], "the worker has lost its lease")
            for number in range(23):
                pushed(endpoint, f"{number}")
            pushed(endpoint, "topic", Topic="t")
        finally:
            os.kill(worker, signal.SIGCONT)
        # One is under way already, so there is room for nine; the rest follows the acks.
        first = device.notes(9)
        assert [body_of(note) for note in first] == ["topic", *(f"{number}" for number in range(8))]
        device.nothing()
        device.ack(before, *first)
        assert device.bodies(10) == [f"{number}" for number in range(8, 18)]
        assert device.bodies(5) == [f"{number}" for number in range(18, 23)]
        device.nothing()


def test_registrations_while_the_router_dies_again_and_again(crashing: Farm) -> None:
    async def main() -> None:
        pages = [Page(crashing, acks=True) for _ in range(40)]
        killed = 0
        async with trio.open_nursery() as nursery:
            for page in pages:
                nursery.start_soon(page.live)
            while not all(page.online and len(page.subscriptions) == CHANNELS for page in pages) or killed < 4:
                await trio.sleep(0.3)
                if killed < 4:
                    killed += 1
                    os.kill(await in_thread(crashing.router_pid), signal.SIGKILL)
                    await in_thread(crashing.wait_healthy)
            # Every channel whose register was answered can be pushed to.
            for page in pages:
                for subscription in page.subscriptions.values():
                    assert (await in_thread(post, subscription.endpoint, "a")).status == 201
                    subscription.accepted.add("a")
            await soon(lambda: not any(page.missing for page in pages), "all have heard it")
            nursery.cancel_scope.cancel()

    trio.run(main)
