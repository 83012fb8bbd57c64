"""The routers that are placed on a host: what starts, what ends, and what the next beat says of them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from os import pidfd_open
from typing import Any, cast

import pytest
import trio
from support.common import settings_with
from support.farm_fixture import PATIENCE_S

from farm.supervisor.children import Child
from farm.supervisor.placed_routers import PlacedRouters
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import Slot
from farm.supervisor.status_links import Answers
from router.cluster.membership import Duties, Mine, Placement
from router.common.options import Settings

A = "a" * 16
NOTHING = Duties([], [], [])


@dataclass
class Ports:
    """The listener of the router port."""

    is_open: bool = False

    def open_routers(self, options: Any) -> None:
        self.is_open = True

    def shut_routers(self) -> None:
        self.is_open = False


@dataclass
class Processes:
    nursery: trio.Nursery


@dataclass
class Host:
    """What of a farm counts here, with processes that are real."""

    processes: Processes
    settings: Settings = field(default_factory=settings_with)
    routers: list[Slot] = field(default_factory=list)
    listeners: Ports = field(default_factory=Ports)
    stopping: trio.Event = field(default_factory=trio.Event)
    ended: list[tuple[int, float]] = field(default_factory=list)

    @property
    def placed(self) -> list[Slot]:
        return [slot for slot in self.routers if slot.placed]

    async def end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
        for child in children:
            self.ended.append((child.pid, patience))
            child.signal(cast(Any, 9))
            await child.ended.wait()


class Rig:
    """Three places of routers. `changes`: how often a beat was asked for."""

    def __init__(self, nursery: trio.Nursery, stack: ExitStack) -> None:
        self.changes = 0
        self._nursery = nursery
        self._stack = stack
        self.host = Host(Processes(nursery), routers=[Slot("router", n, list[socket.socket]()) for n in range(3)])
        for slot in self.host.routers:
            slot.withdraw()
        self.routers = PlacedRouters(cast(RunningFarm, self.host), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def start(self, *numbers: int, epoch: int = 7) -> None:
        """Have them placed here, and run."""
        self.routers.do(NOTHING._replace(start=[Placement(number, epoch, A) for number in numbers]))
        for number in numbers:
            self.run(number)

    def run(self, number: int) -> None:
        """Put a process there, as the supervisor does."""
        code = "import time; time.sleep(600)"
        process = self._stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
        self._stack.callback(process.kill)
        child = Child(process.pid, pidfd_open(process.pid))
        self._nursery.start_soon(child.watch)
        self.host.routers[number].put(child)

    def serve(self, *numbers: int, settled: bool = True) -> None:
        """Their status has come."""
        slots = [self.host.routers[number] for number in numbers]
        answers = {
            slot.number: {"pid": slot.child.pid, "settled": settled, "workers": []} for slot in slots if slot.child
        }
        self.routers.look(Answers(answers, len(self.host.placed)))


def in_rig(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
    """Run a test with a rig."""

    @wraps(test)
    def run() -> None:
        async def main() -> None:
            with ExitStack() as stack:
                async with trio.open_nursery() as nursery:
                    with trio.fail_after(PATIENCE_S):
                        await test(Rig(nursery, stack))
                    nursery.cancel_scope.cancel()

        trio.run(main)

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


@in_rig
async def test_what_is_placed_here_serves_once_it_has_heard_all_workers(rig: Rig) -> None:
    rig.start(0, 2)
    assert rig.host.listeners.is_open
    assert [slot.number for slot in rig.host.placed] == [0, 2]
    assert rig.routers.mine == {0: Mine(7, False), 2: Mine(7, False)}
    rig.serve(0, settled=False)
    assert rig.changes == 0 and not rig.routers.serve
    rig.serve(0, 2)
    assert rig.routers.mine == {0: Mine(7, True), 2: Mine(7, True)}
    assert rig.changes == 2 and rig.routers.serve
    rig.serve(0)
    assert rig.routers.mine[2] == Mine(7, False)


@pytest.mark.parametrize("given", [True, False])
def test_one_that_ends_is_told_once_and_the_port_is_shut_behind_the_last(given: bool) -> None:
    @in_rig
    async def run(rig: Rig) -> None:
        rig.start(0, 1)
        duties = Duties([], [] if given else [0], [0] if given else [])
        pid = rig.host.routers[0].child.pid  # type: ignore[union-attr]
        rig.routers.do(duties)
        rig.routers.do(duties)
        assert 0 in rig.routers.mine  # as long as its process runs nothing is started there
        while not rig.changes:
            await trio.sleep(0.01)
        assert [one for one, _ in rig.host.ended] == [pid]
        assert rig.host.ended[0][1] > 1 if given else rig.host.ended[0][1] < 1
        assert rig.routers.mine == {1: Mine(7, False)}
        assert rig.routers.given == ({0} if given else set())
        assert rig.host.routers[0].child is None
        assert rig.host.listeners.is_open
        rig.routers.do(Duties([], [1], []))
        while rig.changes < 2:
            await trio.sleep(0.01)
        assert not rig.host.listeners.is_open

    run()


@in_rig
async def test_a_host_is_unfit_where_none_serves_and_one_dies_again_and_again(rig: Rig) -> None:
    rig.start(0, 1)
    rig.host.routers[0].restarts += 4
    assert not rig.routers.fail
    rig.host.routers[0].restarts += 1
    assert rig.routers.fail
    rig.serve(1)
    assert not rig.routers.fail
    rig.serve(0)
    rig.host.routers[0].restarts += 9  # it did serve
    rig.serve()
    assert not rig.routers.fail


@in_rig
async def test_nothing_starts_on_a_host_that_is_about_to_stop(rig: Rig) -> None:
    rig.host.stopping.set()
    rig.routers.do(NOTHING._replace(start=[Placement(0, 7, A)]))
    assert rig.routers.mine == {} and not rig.host.placed and not rig.host.listeners.is_open
