"""Which processes the supervisor kills: real ones, in a status of the routers, or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from support.common import settings_with
from support.farm_fixture import PATIENCE_S

from farm.settings import FarmOptions
from farm.supervisor.activation import GivenSockets
from farm.supervisor.children import Child
from farm.supervisor.notify import Notifier
from farm.supervisor.recent_events import RecentEvents
from farm.supervisor.status_links import Answers
from farm.supervisor.supervisor import Supervisor
from router.common.settings import Data, Listen, RouterOptions

START_S = 1.5
HANG_S = 1.0
WAITS = "import time; time.sleep(1000)"
LOOPS = "while True: pass"
READS = "while True: open('/proc/self/stat').read()"


class Told:
    """The status of those routers that answer, in the place of the links to them."""

    def __init__(self, routers: int) -> None:
        self.told: dict[int, dict[str, Any]] = {}
        self._routers = routers

    async def ask(self) -> Answers:
        return Answers(self.told, self._routers)


def heard(*pids: int) -> list[dict[str, Any]]:
    """Rows of workers that a router has just received something of."""
    return [{"pid": pid, "heard_s": 0.0, "devices": 0} for pid in pids]


@contextmanager
def running(code: str) -> Iterator[Child]:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        yield Child(process.pid, os.pidfd_open(process.pid))
        process.kill()


async def look_until(supervisor: Supervisor, ended: Child) -> None:
    with trio.fail_after(PATIENCE_S):
        while not ended.ended.is_set():
            await supervisor._look_for_hangs()
            await trio.sleep(0.05)


@contextmanager
def supervising(folder: Path, routers: int, **options: float) -> Iterator[tuple[Supervisor, Told]]:
    """A supervisor of two workers that has started nothing yet."""
    ports = {"host": "127.0.0.1", "device_port": 0, "router_port": 0, "admin_port": 0}
    sections = ((Listen, ports), (FarmOptions, options), (RouterOptions, {"routers": routers}))
    settings = settings_with((Data, {"dir": str(folder)}), *sections)
    found = Supervisor(settings, 2, lambda: settings, RecentEvents(), Notifier({}), GivenSockets())
    link = found.link
    found.link = told = Told(routers)  # type: ignore[assignment]
    yield found, told
    link.close()
    found.listeners.close()


def test_what_does_not_begin_to_serve_is_killed_though_it_has_the_cpu(tmp_path: Path) -> None:
    """A router that loops, but not one that reads its store; then workers, as soon as there is a router to join."""

    async def main(supervisor: Supervisor, link: Told) -> None:
        (router,), (first, second) = supervisor.routers, supervisor.workers
        with running(LOOPS) as looping, running(READS) as reading, running(LOOPS) as worker, running(LOOPS) as good:
            async with trio.open_nursery() as nursery:
                for child in (looping, reading, worker, good):
                    nursery.start_soon(child.watch)
                router.child, first.child, second.child = looping, worker, good
                await look_until(supervisor, looping)
                assert not worker.ended.is_set()
                router.child = reading
                with trio.move_on_after(START_S * 1.4):
                    await look_until(supervisor, reading)
                assert not reading.ended.is_set() and not worker.ended.is_set()
                link.told = {0: {"pid": reading.pid, "workers": heard(good.pid)}}
                await look_until(supervisor, worker)
                assert not good.ended.is_set() and not reading.ended.is_set()
                nursery.cancel_scope.cancel()

    with supervising(tmp_path, 1, start_timeout=START_S) as (found, told):
        trio.run(main, found, told)


def test_one_router_that_hangs_is_killed_alone(tmp_path: Path) -> None:
    """The others answer, and have received something of the workers."""

    async def main(supervisor: Supervisor, link: Told) -> None:
        with running(WAITS) as hanging, running(WAITS) as router, running(WAITS) as worker, running(WAITS) as other:
            async with trio.open_nursery() as nursery:
                slots = (*supervisor.routers, *supervisor.workers)
                for slot, child in zip(slots, (hanging, router, worker, other), strict=True):
                    nursery.start_soon(child.watch)
                    slot.child = child
                link.told = {
                    0: {"pid": hanging.pid, "workers": heard(worker.pid, other.pid)},
                    1: {"pid": router.pid, "workers": heard(worker.pid, other.pid)},
                }
                await supervisor._look_for_hangs()
                del link.told[0]
                await look_until(supervisor, hanging)
                link.told[1]["workers"] = heard(worker.pid)
                await look_until(supervisor, other)
                assert not router.ended.is_set() and not worker.ended.is_set()
                nursery.cancel_scope.cancel()

    with supervising(tmp_path, 2, hang_timeout=HANG_S) as (found, told):
        trio.run(main, found, told)


def test_a_worker_is_joined_with_every_router_and_counted_once() -> None:
    rows = [
        [{"pid": 1, "heard_s": 0.3, "devices": 2, "connections": 4}, {"pid": 2, "heard_s": 0.1, "devices": 0}],
        [{"pid": 1, "heard_s": 0.2, "devices": 3, "connections": 5}],
    ]
    found = Answers({number: {"workers": of} for number, of in enumerate(rows)}, 3)
    assert found.workers[1] == {"pid": 1, "heard_s": 0.2, "devices": 5, "connections": 5, "links": 2}
    assert not found.complete
    assert found.joined(1) and not found.joined(2) and not found.joined(3)
    assert not Answers({}, 1).joined(1)


def test_a_host_without_routers_goes_by_what_one_of_another_host_says() -> None:
    there = {"workers": [{"pid": 1, "heard_s": 0.3, "devices": 2}]}
    found = Answers({}, 0, [there])
    assert found.complete and found.joined(1) and not found.joined(2)
    assert found.of == {}
    assert not Answers({}, 0).complete
