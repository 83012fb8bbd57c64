"""A router's next life answers what it can only know once every worker has announced what it holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.farm_fixture import Farm, HttpAnswer, running_farm, until
from support.pusher import APP, call, clients, members, new_name, with_apps

from router.common.partitions import partition
from router.dialects.pusher.protocol import channel_address

ROUTERS = 2
PATIENT = {"link__lease": 20, "link__forward_timeout": 20, "farm__restart_max": 0.1, "farm__hang_timeout": 60}
"""So only what the workers announce decides, and not the time."""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("farm")
    with running_farm(folder / "data", with_apps(folder, router__routers=ROUTERS, **PATIENT)) as found:
        yield found


def name_of(number: int, prefix: str) -> str:
    """A channel of this router's."""
    while True:
        name = new_name(prefix)
        if partition(channel_address(str(APP["id"]), name)) % ROUTERS == number:
            return name


def router_pids(farm: Farm) -> list[int]:
    return [row.get("pid", 0) for row in farm.status()["routers"]]


@contextmanager
def unannounced(farm: Farm, number: int) -> Iterator[None]:
    """A router is killed and replaced; its next life hears one of the workers, and the other one only afterwards."""
    stopped = farm.worker_pid(0)
    os.kill(stopped, signal.SIGSTOP)
    try:
        before = router_pids(farm)[number]
        os.kill(before, signal.SIGKILL)

        def replaced() -> bool:
            status = farm.status()
            links = [row["links"] for row in status["workers"]]
            return status["routers"][number].get("pid") not in (None, before) and links == [ROUTERS - 1, ROUTERS]

        until(replaced, "its next life has heard one worker")
        yield
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_publishing_and_asking_wait_until_all_workers_have_announced(farm: Farm) -> None:
    farm.wait_healthy()
    number = ROUTERS - 1
    channel, room = name_of(number, "room-"), name_of(number, "presence-")
    with clients(farm, 2) as devices, ThreadPoolExecutor() as pool:
        for user, device in enumerate(devices):
            device.subscribe(channel)
            assert len(device.enter(room, f"user-{user}")) == user + 1
        devices[0].expect("pusher_internal:member_added", room)
        asked: list[Callable[[], HttpAnswer]] = [
            lambda: call(farm, "POST", "/events", {"name": "news", "channel": channel, "data": "1"}),
            lambda: call(farm, "GET", "/channels", info="subscription_count"),
            lambda: call(farm, "GET", f"/channels/{room}/users"),
        ]
        with unannounced(farm, number):
            found = [pool.submit(ask) for ask in asked]

            def asked_or_answered() -> bool:
                held = farm.status()["routers"][number].get("operations_held")
                return held == len(asked) or all(one.done() for one in found)

            until(asked_or_answered, "asked")
        event, listing, users = (one.result() for one in found)
        assert (event.status, listing.status, users.status) == (200, 200, 200)
        assert listing.json()["channels"][channel] == {"subscription_count": 2}
        assert sorted(user["id"] for user in users.json()["users"]) == ["user-0", "user-1"]
        for device in devices:
            assert device.expect("news", channel) == 1
        assert members(farm, room) == ["user-0", "user-1"]
