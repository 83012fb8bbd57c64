"""What operators see and have done of a device, at the router that owns it: a hub, with workers that answer or not."""

from typing import Any

import pytest
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, in_rig
from support.hub_messages import DEVICE, OTHER, attach, attached

from router.common import messages as m
from router.common.operation import Operation
from router.common.wire import WIRES
from router.core.device_operations import (
    MAX_CONTENT,
    CloseDevice,
    EmptyInbox,
    ForgetDevice,
    Held,
    InboxItem,
    Look,
    ReadInbox,
    Where,
)
from router.core.inspections import MOST

SPACE = "talk.device"
ADDRESS = "192.0.2.9"


def ask(rig: Rig, operation: Operation, device: bytes = DEVICE) -> list[tuple[int, Any]]:
    answers: list[tuple[int, Any]] = []
    rig.hub.core.operations.at(device, operation, lambda status, reply=None: answers.append((status, reply)))
    return answers


async def asked(rig: Rig, operation: Operation, device: bytes = DEVICE) -> Any:
    answers = ask(rig, operation, device)
    await rig.settle()
    ((status, reply),) = answers
    assert status == m.OK
    return reply


async def stores(rig: Rig, *slots: str, **more: Any) -> None:
    for number, slot in enumerate(slots, 1):
        rig.push(DEVICE, slot, number, **more)
    await rig.settle()


def inspects(worker: FakeWorker) -> m.Inspect:
    (message,) = [one for one in worker.take() if isinstance(one, m.Inspect)]
    return message


def inspection(device: bytes = DEVICE) -> m.Inspection:
    return m.Inspection(device, "talk", ADDRESS, 1.5, 7)


async def records(rig: Rig, value: bytes | None = b"record") -> None:
    rig.hub.core.records.put(SPACE, DEVICE, value, 0)
    await rig.settle()


# ---- see


@in_rig()
async def test_a_device_of_which_nothing_is_known(rig: Rig) -> None:
    looked = await asked(rig, Look(SPACE, True))
    assert (looked.record, looked.items, looked.held, looked.connection) == (None, 0, None, None)
    assert await asked(rig, Where()) == []


@in_rig()
async def test_a_device_is_looked_at_with_its_record_inbox_and_connection(rig: Rig) -> None:
    await records(rig)
    await stores(rig, "a", "b", body="\N{PUSHPIN}")
    worker = rig.worker()
    since = int(rig.clock.monotonic() * 1000)
    worker.say(attach(since=since))
    await rig.settle()
    worker.take()
    rig.clock.pass_by(2.0)
    answers = ask(rig, Look(SPACE, True))
    await rig.settle()
    assert answers == [], "its worker is asked first"
    question = inspects(worker)
    assert (question.device, question.address) == (DEVICE, "")
    worker.say(m.Inspected(question.number, [inspection()], False))
    ((_, looked),) = answers
    assert (looked.record, looked.items, looked.size) == (b"record", 2, 8)
    assert looked.held == Held(0, "", 2.0)
    assert looked.connection == inspection()
    assert await asked(rig, Where()) == [Held(0, "", 2.0)]
    worker.say(m.Inspected(question.number, [inspection()], False))  # it comes twice with a new link


@in_rig()
async def test_a_worker_that_does_not_answer_in_time_is_not_waited_for(rig: Rig) -> None:
    await attached(rig)
    answers = ask(rig, Look(SPACE, True))
    await rig.settle()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
    rig.hub.tick()
    ((status, looked),) = answers
    assert status == m.OK and looked.held is not None and looked.connection is None


@in_rig()
async def test_a_worker_that_ends_meanwhile_is_not_waited_for(rig: Rig) -> None:
    worker = await attached(rig)
    answers = ask(rig, Look(SPACE, True))
    await rig.settle()
    worker.send(m.Leave())
    rig.hub.tick()
    assert len(answers) == 1


@in_rig()
async def test_a_worker_of_an_older_version_is_not_asked(rig: Rig) -> None:
    worker = await attached(rig)
    older = rig.hub.sessions.get(worker.identity)
    assert older is not None
    older.wire = WIRES[m.INSPECTED - 1]
    looked = await asked(rig, Look(SPACE, True))
    assert looked.held is not None and looked.connection is None
    assert await asked(rig, CloseDevice("why")) is True
    assert [type(one) for one in worker.take()] == [m.Disconnect]
    assert rig.hub.map.device(DEVICE) is None


@in_rig()
async def test_an_inbox_is_read_by_pages_and_shows_no_content(rig: Rig) -> None:
    await stores(rig, *"edcba", body="secret", ttl=600)
    rig.clock.pass_by(10)
    seen: list[InboxItem] = []
    while page := await asked(rig, ReadInbox(seen[-1].slot if seen else "", 2, False)):
        assert len(page) <= 2
        seen += page
    assert [item.slot for item in seen] == list("abcde")
    assert {(item.size, item.age, item.ttl, item.body) for item in seen} == {(6, 10.0, 590, None)}
    shown = await asked(rig, ReadInbox("", 9, True))
    assert {item.body for item in shown} == {"secret"}


@in_rig()
async def test_a_long_content_is_cut(rig: Rig) -> None:
    await stores(rig, "a", body="x" * (MAX_CONTENT + 5))
    (item,) = await asked(rig, ReadInbox("", 9, True))
    assert (item.size, len(item.body)) == (MAX_CONTENT + 5, MAX_CONTENT)


@pytest.mark.parametrize(
    "operation", [Look(SPACE, True), ReadInbox("", 5, False), EmptyInbox(), ForgetDevice(SPACE, "")]
)
@in_rig()
async def test_a_store_that_fails_is_said(rig: Rig, operation: Operation) -> None:
    rig.store.failing = True
    answers = ask(rig, operation)
    await rig.settle()
    assert answers == [(m.FAILED, None)]


# ---- search


@in_rig()
async def test_a_search_asks_every_worker_and_is_cut(rig: Rig) -> None:
    workers = [rig.worker(shard) for shard in range(3)]
    heard: list[Any] = []
    rig.hub.inspections.address(rig.hub.sessions, ADDRESS, 2, lambda found, complete: heard.append((found, complete)))
    questions = [inspects(worker) for worker in workers]
    assert {(one.device, one.address, one.limit) for one in questions} == {(b"", ADDRESS, 2)}
    for worker, question in zip(workers, questions, strict=True):
        assert heard == []
        worker.say(m.Inspected(question.number, [inspection(b"%16d" % worker.shard)], False))
    ((found, complete),) = heard
    assert [session.lease.shard for session, _ in found] == [0, 1] and not complete


@in_rig()
async def test_a_search_without_workers_is_over_at_once(rig: Rig) -> None:
    heard: list[Any] = []
    rig.hub.inspections.address(rig.hub.sessions, ADDRESS, 2, lambda *found: heard.append(found))
    assert heard == [([], True)]


@in_rig()
async def test_so_many_searches_at_a_time_and_no_more(rig: Rig) -> None:
    worker = rig.worker()
    heard: list[Any] = []
    for _ in range(MOST + 1):
        rig.hub.inspections.address(rig.hub.sessions, ADDRESS, 2, lambda *found: heard.append(found))
    assert heard == [([], False)]
    rig.clock.pass_by(3600)
    worker.send(m.Beat({}))
    rig.hub.tick()
    assert len(heard) == MOST + 1 and len(rig.hub.inspections) == 0


# ---- act


@in_rig()
async def test_what_waits_is_removed_and_what_comes_later_stays(rig: Rig) -> None:
    await stores(rig, "a", "b")
    rig.push(OTHER, "c", 1)
    rig.committer.read_inbox(DEVICE, lambda *_: rig.push(DEVICE, "b", 9))  # between what is read and what is removed
    answers = ask(rig, EmptyInbox())
    await rig.settle()
    assert answers == [(m.OK, 2)]
    assert await rig.inbox(DEVICE) == [("b", 9)]
    assert await rig.inbox(OTHER) == [("c", 1)]


@in_rig()
async def test_a_device_is_closed_by_its_worker_behind_what_it_is_sent(rig: Rig) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "a", 1)
    answers = ask(rig, CloseDevice("an operator did it"))
    await rig.settle()
    deliver, let_go, question = worker.take()
    assert (type(deliver), let_go) == (m.Deliver, m.LetGo(DEVICE, "an operator did it"))
    assert answers == []
    worker.say(m.Detach(DEVICE), m.Inspected(question.number, [], False))
    assert answers == [(m.OK, True)]
    assert await asked(rig, CloseDevice("again")) is False


@in_rig()
async def test_a_device_that_is_attaching_is_closed_when_it_has(rig: Rig) -> None:
    worker = rig.worker()
    rig.store.hold()
    worker.say(attach())
    answers = ask(rig, CloseDevice("closed"))
    rig.store.release()
    await rig.settle()
    reply, let_go, question = worker.take()
    assert (reply.status, let_go, question.device) == (m.OK, m.LetGo(DEVICE, "closed"), DEVICE)
    assert answers == []


@in_rig()
async def test_what_a_device_had_sent_before_it_is_forgotten_does_not_bring_it_back(rig: Rig) -> None:
    worker = await attached(rig)
    await records(rig)
    await stores(rig, "a")
    worker.take()
    answers = ask(rig, ForgetDevice(SPACE, "forgotten"))
    await rig.settle()
    let_go, question = worker.take()
    assert let_go == m.LetGo(DEVICE, "forgotten")
    worker.say(m.Record(SPACE, DEVICE, b"anew", 60), m.Detach(DEVICE))
    worker.say(m.Inspected(question.number, [], False))
    await rig.settle()
    assert answers == [(m.OK, True)]
    looked = await asked(rig, Look(SPACE, False))
    assert (looked.record, looked.items, looked.held) == (None, 0, None)
    assert await asked(rig, ForgetDevice(SPACE, "again")) is False


@in_rig()
async def test_a_device_that_is_back_before_it_is_forgotten_is_closed_again(rig: Rig) -> None:
    worker = await attached(rig)
    await records(rig)
    worker.take()
    answers = ask(rig, ForgetDevice(SPACE, "forgotten"))
    await rig.settle()
    _, question = worker.take()
    other = await attached(rig, 1)
    worker.say(m.Inspected(question.number, [], False))
    await rig.settle()
    assert answers == [(m.OK, True)]
    assert m.LetGo(DEVICE, "forgotten") in other.take()
