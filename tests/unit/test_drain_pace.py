"""Over how many seconds devices are let go, and how the processes are told."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import trio
import trio.testing

from farm.supervisor.draining import held
from farm.supervisor.status_links import Answers
from router.common import lifecycle
from router.common.settings import DrainOptions


@pytest.mark.parametrize(
    ("options", "connections", "passed", "seconds"),
    [
        ({"seconds": 10}, 7, 0, 10),
        ({"seconds": 10, "deadline": 1}, 7, 5, 10),  # which is for the rate
        ({"rate": 100, "seconds": 10}, 5000, 0, 50),
        ({"rate": 0.5, "seconds": 10}, 0, 0, 0),
        ({"rate": 1, "deadline": 60}, 59, 0, 59),
        ({"rate": 1, "deadline": 60}, 61, 0, 60),
        ({"rate": 1, "deadline": 60}, 61, 20, 40),
        ({"rate": 1, "deadline": 60}, 61, 80, 0),
    ],
)
def test_the_rate_counts_up_to_the_deadline(
    options: dict[str, Any], connections: int, passed: float, seconds: float
) -> None:
    one = DrainOptions(**options)
    assert one.over(connections, passed) == seconds
    assert seconds <= one.longest(passed) == (max(0, one.deadline - passed) if one.rate else one.seconds)


def test_the_connections_of_workers_that_are_not_known_are_an_average() -> None:
    rows = [{"pid": 1, "connections": 30}, {"pid": 2, "connections": 10}, {"pid": 9, "connections": 7}, {"pid": 4}]
    answer = Answers({0: {"workers": [{"heard_s": 0, "devices": 0} | row for row in rows]}}, 1)
    assert held(answer, {1, 2}) == 40
    assert held(answer, {1}) == 30
    assert held(answer, {1, 2, 3}) == 60
    assert held(answer, {1, 4}) == 60
    assert held(answer, {3}) is held(answer, {4}) is None
    assert held(Answers({0: {"workers": []}}, 1), {1}) is None
    assert held(Answers({}, 1), {1}) is None


def test_a_process_is_told_as_often_as_its_supervisor_likes() -> None:
    """However the bytes come: the socket pair keeps their order, and nothing else."""
    told: list[float | None] = []

    class Process:
        def notice(self, over: float | None = None) -> None:
            told.append(over)

        def finish(self) -> None:
            told.append(-1.0)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        stop = trio.Event()
        with ours, theirs:
            os.set_blocking(theirs.fileno(), False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lifecycle._watch_supervisor, theirs.fileno(), stop, Process())
                for data in (
                    lifecycle.notice(None),
                    lifecycle.notice(598.7504)[:9],
                    lifecycle.notice(598.7504)[9:],
                    lifecycle.finish(),
                ):
                    ours.sendall(data)
                    await trio.testing.wait_all_tasks_blocked()
                ours.sendall(lifecycle.notice(None) + b"of a later version\n" + lifecycle.notice(0.0) * 30)
                await trio.testing.wait_all_tasks_blocked()
                assert not stop.is_set()
                ours.close()
                await stop.wait()

    trio.run(main)
    assert told == [None, 598.75, -1.0, None, *[0.0] * 30]
