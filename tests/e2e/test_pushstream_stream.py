"""The thread that takes notifications from a stream, with a real NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from support.farm_fixture import in_thread, soon
from support.pushstream_queue import STREAM, SUBJECT, NatsServer, nats_server
from trio.testing import trio_test

from router.dialects.pushstream.nats import client
from router.dialects.pushstream.nats.client import Done, Fate, QueueThread, State
from router.dialects.pushstream.nats.options import NatsOptions

Decide = Callable[[list[bytes]], Sequence[Fate]]


class Queue:
    """Takes messages, and keeps those that it has published."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self.published: list[bytes] = []
        self.told: list[tuple[State, str]] = []

    def take(self, bodies: list[bytes], done: Done) -> None:
        fates = self._decide(bodies)
        self.published += [body for body, fate in zip(bodies, fates, strict=True) if fate is Fate.PUBLISHED]
        done(fates)

    def tell(self, state: State, detail: str) -> None:
        self.told.append((state, detail))

    async def tells(self, state: State) -> str:
        """Wait until it tells this. Returns: what it says more."""
        await soon(lambda: state in dict(self.told), f"it tells {state}")
        return dict(self.told)[state]

    async def has(self, bodies: list[bytes]) -> None:
        """Wait until so many are published; it must be these."""
        await soon(lambda: len(self.published) >= len(bodies), "all are published")
        assert self.published == bodies


@asynccontextmanager
async def taking(
    server: NatsServer, decide: Decide, max_in_work: int = 100, subject: str = SUBJECT
) -> AsyncIterator[Queue]:
    queue = Queue(decide)
    options = NatsOptions(url=server.url, subject=subject, stream=STREAM)
    thread = QueueThread(options, max_in_work, queue.take, queue.tell, trio.lowlevel.current_trio_token())
    try:
        yield queue
    finally:
        thread.stop()
        await thread.ended.wait()


def published(bodies: list[bytes]) -> Sequence[Fate]:
    return [Fate.PUBLISHED] * len(bodies)


@trio_test
async def test_what_is_behind_a_batch_that_waits_for_the_store_comes_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_ACK_WAIT_S", 2.0)
    monkeypatch.setattr(client, "_IN_WORK_S", 0.1)
    monkeypatch.setattr(client, "_AGAIN_S", 0.1)
    refused = 0

    def decide(bodies: list[bytes]) -> Sequence[Fate]:
        nonlocal refused
        if refused == 35:  # behind the time after which the server sends again what it does not hear of
            return published(bodies)
        refused += 1
        return [Fate.AGAIN] * len(bodies)

    bodies = [b"%d" % number for number in range(50)]
    with nats_server(tmp_path) as server:
        await in_thread(server.make_stream)
        await in_thread(server.publish, bodies[:1], True)
        async with taking(server, decide) as queue:
            await soon(lambda: refused, "the first is refused")
            await in_thread(server.publish, bodies[1:], True)
            await queue.has(bodies)
            await in_thread(server.publish, [b"last"], True)  # behind what may have come twice
            await queue.has([*bodies, b"last"])


@trio_test
async def test_a_server_that_hangs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PING_S", 0.2)
    with nats_server(tmp_path) as server:
        await in_thread(server.make_stream)
        async with taking(server, published) as queue:
            await queue.tells(State.CONNECTED)
            with server.stopped():
                await queue.tells(State.LOST)
            await in_thread(server.publish, [b"one"], True)
            await queue.has([b"one"])


@trio_test
async def test_a_consumer_that_is_there_is_taken_as_the_settings_are_now_if_it_is_for_the_subject(
    tmp_path: Path,
) -> None:
    with nats_server(tmp_path) as server:
        await in_thread(server.make_stream)
        for in_work in (100, 7):
            async with taking(server, published, in_work) as queue:
                await queue.tells(State.CONNECTED)
                await in_thread(server.publish, [b"one"], True)
                await queue.has([b"one"])
                assert await in_thread(server.max_ack_pending) == in_work
        async with taking(server, published, subject="another") as queue:
            why = await queue.tells(State.FAILED)
            assert f"for {SUBJECT}" in why and "nats.durable" in why
