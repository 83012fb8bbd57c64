"""The supervisor's line to the router, with a router that answers anything."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import zmq
from support.common import array

from farm.supervisor.status_link import StatusLink
from router.common import messages as m
from router.common.wire import NEWEST

GOOD = {"router": {}, "workers": []}


@pytest.mark.parametrize(
    "answer",
    [
        [b""],
        [b"\xc1"],
        [b"\x93\x0e\x81\x90\x01\x80"],
        [NEWEST.encode(array(m.Status))],
        [NEWEST.encode(array(m.Status, 1))],
        [NEWEST.encode(array(m.Status, 1, [], 2))],
        [NEWEST.encode(m.Status([], {}))],
        [NEWEST.encode(m.Status({}, {}))],
        [NEWEST.encode(m.Status(1, "text"))],
        [NEWEST.encode(m.Status(1, {1: 2}))],
        [NEWEST.encode(m.Status(1, GOOD)), b"one part too many"],
        [NEWEST.encode(m.Welcome(b"router", m.PROTOCOL))],
    ],
)
def test_an_answer_that_is_none_is_passed_over(tmp_path: Path, answer: list[bytes]) -> None:
    async def main() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.bind(f"ipc://{tmp_path}/r")
        link = StatusLink(context, f"ipc://{tmp_path}/r")
        heard: list[Any] = []

        async def asks() -> None:
            heard.append(await link.set_broadcast("space", "key", "half a character: \ud83d"))
            heard.append(await link.ask())

        try:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.run)
                    nursery.start_soon(asks)
                    while not router.poll(0):
                        await trio.sleep(0.001)
                    identity, question = router.recv_multipart()
                    assert NEWEST.of_worker(question, 100) == m.AskStatus(2)
                    router.send_multipart([identity, *answer])
                    router.send_multipart([identity, NEWEST.encode(m.Status(2, GOOD))])
                    while len(heard) < 2:
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()
        finally:
            link.close()
            router.close(linger=0)
            context.destroy(linger=0)
        assert heard == [None, GOOD]

    trio.run(main)


def test_actions_that_are_not_answered_leave_room_for_the_status(tmp_path: Path) -> None:
    async def main() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.bind(f"ipc://{tmp_path}/r")
        link = StatusLink(context, f"ipc://{tmp_path}/r")
        refused: list[Any] = []
        heard: list[Any] = []

        async def acts() -> None:
            refused.append(await link.manage("devices", {}))

        async def asks() -> None:
            heard.append(await link.ask())

        try:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        nursery.start_soon(acts)
                    await trio.testing.wait_all_tasks_blocked()
                    assert 0 < len(refused) < 100 and not any(refused)
                    nursery.start_soon(link.run)
                    nursery.start_soon(asks)
                    while not heard:
                        while router.poll(0):
                            identity, question = router.recv_multipart()
                            asked = NEWEST.of_worker(question, 1000)
                            if isinstance(asked, m.AskStatus):
                                router.send_multipart([identity, NEWEST.encode(m.Status(asked.number, GOOD))])
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()
        finally:
            link.close()
            router.close(linger=0)
            context.destroy(linger=0)
        assert heard == [GOOD]

    trio.run(main)
