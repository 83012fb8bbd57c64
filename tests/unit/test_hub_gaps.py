"""What was lost on a link comes to light: batches, the answers to them, and what was sent twice on account of that."""

from __future__ import annotations

from typing import Any

from support.common import FakeWorker, Rig, in_rig

from router.common import messages as m
from router.common.directory import Placement
from router.common.wire import WIRES

CHANNEL = b"c" * 16
LABEL = m.channel_label("talk", "app", "room")
PLACED = Placement(1, 7, "b", "b:7402", "b:7403", "key")


def numbers(worker: FakeWorker) -> list[int]:
    """Those of the envelopes that wait for it."""
    found: list[int] = []
    while (session := worker._rig.hub.sessions.dirty.get(worker.identity)) is not None:
        envelope = session.wire.of_router(session.envelope(), 2**20)
        assert isinstance(envelope, m.RouterBatch)
        found.append(envelope.number)
        if session.sent():
            worker._rig.hub.drained(session)
    return found


def joined(rig: Rig, confirmed: int = 0) -> FakeWorker:
    worker = FakeWorker(rig, 0)
    worker.join(confirmed)
    assert [type(one) for one in worker.direct()] == [m.Welcome]
    worker.take()
    return worker


def batch(worker: FakeWorker, sequence: int, *messages: Any) -> None:
    worker.send(m.WorkerBatch(sequence, list(messages)))


@in_rig()
async def test_a_batch_that_is_not_the_next_one_is_not_handled(rig: Rig) -> None:
    worker = joined(rig, confirmed=4)
    batch(worker, 5, m.Subscribe(CHANNEL, LABEL))
    assert len(rig.hub.channels) == 1
    batch(worker, 7, m.Unsubscribe(CHANNEL))
    assert worker.direct() == [m.Rejoin()]
    assert len(rig.hub.sessions) == 0
    batch(worker, 8)
    assert worker.direct() == [m.Rejoin()]
    worker.join(5)
    worker.direct()
    batch(worker, 6, m.Subscribe(CHANNEL, LABEL))
    batch(worker, 6, m.Unsubscribe(CHANNEL))  # a repeat
    assert worker.direct() == []
    assert len(rig.hub.channels) == 1


@in_rig()
async def test_the_last_batch_is_missed_by_the_next_beat(rig: Rig) -> None:
    worker = joined(rig)
    batch(worker, 1)
    worker._sequence = 1
    worker.send(m.Beat({}))
    assert worker.direct() == []
    worker._sequence = 2
    worker.send(m.Beat({}))
    assert worker.direct() == [m.Rejoin()]


@in_rig()
async def test_without_begin_nothing_is_handled(rig: Rig) -> None:
    for message in (m.WorkerBatch(1, [m.Subscribe(CHANNEL, LABEL)]), m.Beat({})):
        worker = FakeWorker(rig, 0)
        worker.send(m.Ready(m.PROTOCOL, 0, b"i0", 4711, m.LOWEST_PROTOCOL))
        worker.direct()
        rig.hub.received(worker.identity, WIRES[m.PROTOCOL].encode(message))
        assert worker.direct() == [m.Rejoin()]
    assert len(rig.hub.channels) == 0


@in_rig()
async def test_an_older_worker_does_not_count(rig: Rig) -> None:
    worker = FakeWorker(rig, 0)
    worker.send(m.Ready(6, 0, b"i0", 4711, 5))
    worker.direct()
    for sequence in (5, 7):
        rig.hub.received(worker.identity, WIRES[6].encode(m.WorkerBatch(sequence, [])))
    rig.hub.received(worker.identity, WIRES[6].encode(m.Beat({}, 99)))
    assert worker.direct() == []
    rig.hub.placed([PLACED])
    assert numbers(worker) == [0]


@in_rig()
async def test_every_envelope_for_a_worker_has_the_next_number(rig: Rig) -> None:
    worker = joined(rig)
    for _ in range(2):
        worker.send(m.Beat({}))
    first = numbers(worker)
    worker.send(m.Beat({}))
    assert (first, numbers(worker)) == ([1], [2])
    worker.join()
    worker.direct()
    worker.send(m.Beat({}))
    assert numbers(worker) == [1]


@in_rig()
async def test_what_was_handled_before_is_not_published_again(rig: Rig) -> None:
    worker, other = joined(rig), FakeWorker(rig, 1)
    other.join()
    other.say(m.Subscribe(CHANNEL, LABEL))
    other.take()
    publish = m.Call(1, m.Publish(CHANNEL, "text", 0, ""))
    batch(worker, 1, publish)
    assert [one.body for one in other.take() if isinstance(one, m.Event)] == ["text"]
    batch(worker, 3)  # the reply to 1 was lost, too
    worker.direct()
    worker.join()
    worker.direct()
    batch(worker, 1, publish)
    batch(worker, 2, m.Call(2, m.Publish(CHANNEL, "more", 0, "")))
    assert [one.body for one in other.take() if isinstance(one, m.Event)] == ["more"]
    replies = [one for one in worker.take() if isinstance(one, m.Reply)]
    assert [(one.number, one.status) for one in replies] == [(1, m.OK), (2, m.OK)]


@in_rig()
async def test_workers_hear_where_routers_are(rig: Rig) -> None:
    worker = joined(rig)
    rig.hub.placed([PLACED])
    assert worker.take() == [m.Placements([PLACED])]
    late = FakeWorker(rig, 1)
    late.join()
    late.direct()
    assert late.take()[0] == m.Placements([PLACED])


@in_rig()
async def test_a_worker_says_which_host_it_is_on(rig: Rig) -> None:
    worker = FakeWorker(rig, 0)
    worker.send(m.Ready(m.PROTOCOL, 0, b"i0", 4711, m.LOWEST_PROTOCOL))
    worker.send(m.Begin("host-a", 0))
    assert worker.session.host == "host-a"


@in_rig()
async def test_what_is_left_of_a_connection_that_was_replaced_is_no_worker(rig: Rig) -> None:
    rest = b"\0\x01\x02\x03\x04"  # as ZeroMQ names it
    for envelope in (m.Ready(m.PROTOCOL, 0, b"i0", 4711, m.PROTOCOL), m.Begin("", 0), m.WorkerBatch(1, [])):
        rig.hub.received(rest, WIRES[m.PROTOCOL].encode(envelope))
    assert len(rig.hub.sessions) == 0


@in_rig()
async def test_begin_comes_once_in_a_session(rig: Rig) -> None:
    worker = joined(rig)
    batch(worker, 1, m.Subscribe(CHANNEL, LABEL))
    worker.send(m.Begin("", 0))  # the READY before it was lost
    batch(worker, 1, m.Subscribe(CHANNEL, LABEL))
    assert worker.direct() == [m.Rejoin(), m.Rejoin()]
    assert len(rig.hub.sessions) == 0
