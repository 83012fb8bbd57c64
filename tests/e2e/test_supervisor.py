"""Which processes the supervisor kills: real ones, in a status of the router, or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.common import settings_with
from support.farm_fixture import PATIENCE_S

from farm.settings import FarmOptions
from farm.supervisor.children import Child
from farm.supervisor.supervisor import Supervisor
from router.common.settings import Data, Listen

START_S = 1.5
LOOPS = "while True: pass"
READS = "while True: open('/proc/self/stat').read()"


class Told:
    """The router's status, in the place of the link to it."""

    def __init__(self) -> None:
        self.told: dict[str, Any] | None = None

    async def ask(self) -> dict[str, Any] | None:
        return self.told


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


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    ports = {"host": "127.0.0.1", "device_port": 0, "router_port": 0, "admin_port": 0}
    settings = settings_with((Data, {"dir": str(tmp_path)}), (Listen, ports), (FarmOptions, {"start_timeout": START_S}))
    found = Supervisor(settings, 2, lambda: settings)
    link = found.link
    yield found
    link.close()
    found.listeners.close()


def test_what_does_not_begin_to_serve_is_killed_though_it_has_the_cpu(supervisor: Supervisor) -> None:
    """A router that loops, but not one that reads its store; then workers, as soon as there is a router to join."""
    link = Told()
    supervisor.link = link  # type: ignore[assignment]
    router, (first, second) = supervisor.router, supervisor.workers

    async def main() -> None:
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
                link.told = {"pid": reading.pid, "workers": [{"pid": good.pid, "heard_s": 0.0}]}
                await look_until(supervisor, worker)
                assert not good.ended.is_set() and not reading.ended.is_set()
                nursery.cancel_scope.cancel()

    trio.run(main)
