"""The hub over a real committer and store: words and pushes in, words and outcomes out."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.common import DELIVERY_TIMEOUT_S, LIMIT, FakeWorker, Rig, array, during_each_commit, hold, in_rig
from support.watcher import Watcher

from router.common import messages as m
from router.common.numbers import SECOND
from router.common.position import AfterOffset, Last, Position, log_slice
from router.common.wire import NEWEST
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, STORED
from router.store.base import Append

DEVICE, OTHER = b"d" * 16, b"e" * 16
CHANNEL = b"c" * 16
DEVICES = "simplepush.device"


def attach(
    device: bytes = DEVICE, ask: int = 1, needs: str = "", fetch: int = m.EVERYTHING, since: int = 1000
) -> tuple[Any, ...]:
    return m.Call(ask, m.Attach(device, needs, fetch, since))


def subscribe(ask: int, label: str = "") -> tuple[Any, ...]:
    request = m.Subscribe(CHANNEL, label)
    return m.Call(ask, request) if ask else request


def read_log(call: int, place: Position) -> m.Call:
    return m.Call(call, m.ReadLog(CHANNEL, place))


def event(rig: Rig, body: str, **more: Any) -> Append:
    return Append(CHANNEL, rig.hub.messages.sequence(), int(rig.clock.unix()) + 60, body, **more)


def logged(messages: list[Any]) -> list[tuple[int, str, str]]:
    assert {type(one) for one in messages} <= {m.LoggedEvent}
    return [(one.event.offset, one.event.body, one.exclude) for one in messages]


async def attached(rig: Rig, shard: int = 0, device: bytes = DEVICE) -> FakeWorker:
    """A worker that holds the device and has been told so."""
    worker = rig.worker(shard)
    worker.say(attach(device))
    await rig.settle()
    last = worker.take()[-1]
    assert (last.number, last.status) == (1, m.OK)
    return worker


def slots(items: list[Any]) -> list[tuple[str, int]]:
    return [(item[0], item[1]) for item in items]


# ---- pushes


@in_rig()
async def test_a_push_to_nobody_is_stored_once_it_is_durable(rig: Rig) -> None:
    rig.store.hold()
    outcome = rig.push(DEVICE, "a", 7)
    await rig.settle()
    assert outcome == []
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    assert await rig.inbox(DEVICE) == [("a", 7)]
    assert rig.hub.in_work == 0


@pytest.mark.parametrize("written_first", [True, False])
@in_rig()
async def test_200_needs_both_the_commit_and_the_socket(rig: Rig, written_first: bool) -> None:
    worker = await attached(rig)
    rig.store.hold()
    outcome = rig.push(DEVICE, "a", 7, body="hello")
    (deliver,) = worker.take()
    number = deliver.number
    assert deliver == m.Deliver(number, DEVICE, "a", 7, "hello")
    if not written_first:
        rig.store.release()
    await rig.settle()
    assert outcome == []
    if written_first:
        worker.say(m.Result(number, m.WRITTEN))
        await rig.settle()
        assert outcome == []
        rig.store.release()
    else:
        worker.say(m.Result(number, m.WRITTEN))
    await rig.settle()
    assert outcome == [DELIVERED]
    assert await rig.inbox(DEVICE) == [("a", 7)]


@in_rig()
async def test_a_push_that_was_not_written_is_stored(rig: Rig) -> None:
    worker = await attached(rig)
    outcome = rig.push(DEVICE, "a", 7)
    (sent,) = worker.take()
    number = sent.number
    worker.say(m.Result(number, m.NOT_HERE))
    await rig.settle()
    assert outcome == [STORED]
    assert await rig.inbox(DEVICE) == [("a", 7)]


@pytest.mark.parametrize("result", [m.WRITTEN, m.NOT_HERE, None])
@pytest.mark.parametrize("result_first", [True, False])
@in_rig()
async def test_no_200_and_no_202_for_what_the_store_failed(rig: Rig, result: int | None, result_first: bool) -> None:
    worker = await attached(rig)
    rig.store.hold()
    rig.store.failing = True
    outcome = rig.push(DEVICE, "a", 7)
    (sent,) = worker.take()
    number = sent.number
    if result is not None and result_first:
        worker.say(m.Result(number, result))
    await rig.settle()
    rig.store.release()
    await rig.settle()
    assert outcome == [REFUSED_FAILED]
    if result is not None and not result_first:
        worker.say(m.Result(number, result))
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick()
    await rig.settle()
    assert outcome == [REFUSED_FAILED]
    assert rig.hub.in_work == 0
    counters = rig.hub.counters
    assert (counters.pushes, counters.pushes_refused) == (1, 1)
    assert counters.pushes_delivered == counters.pushes_stored == 0


@in_rig(store={"inbox_limit": 1})
async def test_a_full_inbox_refuses_another_slot_but_not_its_own(rig: Rig) -> None:
    first = rig.push(DEVICE, "a", 1)
    await rig.settle()
    other, same = rig.push(DEVICE, "b", 1), rig.push(DEVICE, "a", 2)
    await rig.settle()
    assert (first, other, same) == ([STORED], [REFUSED_FULL], [STORED])
    assert await rig.inbox(DEVICE) == [("a", 2)]


@in_rig(store={"queue_limit": 2})
async def test_when_too_much_waits_for_the_store_a_push_is_refused_at_once(rig: Rig) -> None:
    rig.store.hold()
    kept = [rig.push(DEVICE, "a", 1), rig.push(DEVICE, "b", 1)]
    assert rig.push(DEVICE, "c", 1) == [REFUSED_FAILED]
    rig.store.release()
    await rig.settle()
    assert kept == [[STORED], [STORED]]
    assert await rig.inbox(DEVICE) == [("a", 1), ("b", 1)]


@in_rig()
async def test_a_result_in_time_counts_and_a_late_one_does_not(rig: Rig) -> None:
    worker = await attached(rig)
    early, late = rig.push(DEVICE, "a", 1), rig.push(DEVICE, "b", 1)
    first, second = (one.number for one in worker.take())
    await rig.settle()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S * 0.9)
    rig.hub.tick()
    worker.say(m.Result(first, m.WRITTEN))
    assert (early, late) == ([DELIVERED], [])
    rig.clock.pass_by(DELIVERY_TIMEOUT_S * 0.2)
    rig.hub.tick()
    assert late == [STORED]
    worker.say(m.Result(second, m.WRITTEN))
    await rig.settle()
    assert (early, late) == ([DELIVERED], [STORED])
    assert rig.hub.counters.deliveries_late == 1
    assert rig.hub.in_work == 0


@in_rig()
async def test_the_body_is_kept_only_if_asked_for(rig: Rig) -> None:
    rig.push(DEVICE, "secret", 1, body="never stored", keep_body=False)
    rig.push(DEVICE, "kept", 1, body="stored", urgency=2)
    await rig.settle()
    worker = rig.worker()
    worker.say(attach())
    await rig.settle()
    (reply,) = worker.take()
    items, _ = reply.payload
    assert [(item[0], item[4], item[5]) for item in items] == [("secret", 0, None), ("kept", 2, "stored")]


@in_rig()
async def test_a_message_ends_with_its_time(rig: Rig) -> None:
    rig.push(DEVICE, "short", 1, ttl=10)
    rig.push(DEVICE, "long", 1, ttl=11)
    await rig.settle()
    rig.clock.pass_by(10)
    assert await rig.inbox(DEVICE) == [("long", 1)]


@in_rig()
async def test_arrival_is_in_order_even_when_the_clock_stands_or_goes_back(rig: Rig) -> None:
    for number in range(5):
        rig.push(DEVICE, f"slot-{number}", 1, ttl=10**6)
        rig.clock.unix_s -= 1
    await rig.settle()
    assert await rig.inbox(DEVICE) == [(f"slot-{number}", 1) for number in range(5)]


@in_rig()
async def test_an_ack_removes_up_to_its_version(rig: Rig) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "a", 5)
    rig.push(DEVICE, "b", 5)
    await rig.settle()
    worker.say(m.Ack(DEVICE, [["a", 4], ["b", 5]]))
    await rig.settle()
    assert await rig.inbox(DEVICE) == [("a", 5)]
    worker.say(m.Ack(DEVICE, [["a", 6], ["never", 1]]))
    await rig.settle()
    assert await rig.inbox(DEVICE) == []
    assert rig.hub.counters.acks == 4


# ---- pushes that do not wait for the worker


@in_rig()
async def test_without_waiting_a_push_is_said_at_once_and_answered_when_it_is_durable(rig: Rig) -> None:
    worker = await attached(rig)
    rig.store.hold()
    outcome = rig.push(DEVICE, "a", 7, body="hello", wait=False)
    assert worker.take() == [m.Deliver(0, DEVICE, "a", 7, "hello")]
    await rig.settle()
    assert outcome == []
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    worker.say(m.Result(0, m.WRITTEN))  # nobody asked
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick()
    assert outcome == [STORED]
    assert await rig.inbox(DEVICE) == [("a", 7)]
    counters = rig.hub.counters
    assert (counters.deliveries_late, counters.pushes_stored, counters.pushes_delivered) == (0, 1, 0)
    assert rig.hub.in_work == 0


@in_rig(store={"inbox_limit": 1})
async def test_without_waiting_a_refusal_is_said_too(rig: Rig) -> None:
    rig.push(DEVICE, "a", 1)
    await rig.settle()
    full = rig.push(DEVICE, "b", 1, wait=False)
    await rig.settle()
    assert full == [REFUSED_FULL]
    rig.store.failing = True
    failed = rig.push(DEVICE, "a", 2, wait=False)
    await rig.settle()
    assert failed == [REFUSED_FAILED]
    assert rig.hub.counters.pushes_refused == 2


@in_rig(store={"queue_limit": 1})
async def test_without_waiting_too_much_work_is_a_refusal_but_not_for_what_is_not_stored(rig: Rig) -> None:
    worker = await attached(rig)
    rig.store.hold()
    rig.push(DEVICE, "a", 1, wait=False)
    assert rig.push(DEVICE, "b", 1, wait=False) == [REFUSED_FAILED]
    assert rig.push(DEVICE, "c", 1, wait=False, ttl=0, body="now") == [STORED]
    assert [word.slot for word in worker.take()] == ["a", "c"]


@in_rig()
async def test_while_a_device_attaches_what_does_not_wait_is_held_back_too(rig: Rig) -> None:
    rig.store.hold()
    worker = rig.worker()
    worker.say(attach())
    kept = rig.push(DEVICE, "kept", 1, body="kept", wait=False)
    unkept = rig.push(DEVICE, "unkept", 2, body="unkept", wait=False, ttl=0)
    assert (kept, unkept) == ([], [STORED])
    await rig.settle()
    assert worker.take() == []
    rig.store.release()
    await rig.settle()
    answer, *delivers = worker.take()
    assert answer == m.Reply(1, m.OK, [[], None])
    assert delivers == [m.Deliver(0, DEVICE, "kept", 1, "kept"), m.Deliver(0, DEVICE, "unkept", 2, "unkept")]
    assert kept == [STORED]


@in_rig(link={"max_held": 2})
async def test_of_what_is_not_stored_so_much_is_held_back(rig: Rig) -> None:
    rig.store.hold()
    first, second = rig.worker(0), rig.worker(1)
    first.say(attach())
    second.say(attach(OTHER))
    for slot in "ab":
        assert rig.push(DEVICE, slot, 1, wait=False, ttl=0) == [STORED]
    assert rig.push(OTHER, "one more", 1, wait=False, ttl=0) == [STORED]
    kept = rig.push(OTHER, "kept", 1, wait=False)
    second.say(attach(OTHER, 2, since=2000))  # which takes over what was held
    rig.store.release()
    await rig.settle()
    assert [word.slot for word in first.take() if isinstance(word, m.Deliver)] == ["a", "b"]
    assert [word.slot for word in second.take() if isinstance(word, m.Deliver)] == ["kept"]
    assert kept == [STORED]
    second.say(attach(OTHER, 3, since=3000))
    assert rig.hub.attachments.held == 0


@in_rig(store={"inbox_limit": 1})
async def test_what_was_held_back_and_refused_is_not_said(rig: Rig) -> None:
    rig.push(DEVICE, "a", 1)
    await rig.settle()
    rig.store.hold()
    worker = rig.worker()
    worker.say(attach())
    refused = rig.push(DEVICE, "b", 1, wait=False)
    rig.store.release()
    await rig.settle()
    assert refused == [REFUSED_FULL]
    (reply,) = worker.take()
    items, _ = reply.payload
    assert slots(items) == [("a", 1)]


@pytest.mark.parametrize("there", [True, False])
@in_rig()
async def test_what_has_no_time_to_live_is_never_stored(rig: Rig, there: bool) -> None:
    worker = await attached(rig) if there else rig.worker()
    worker.take()
    writes = rig.committer.written
    assert rig.push(DEVICE, "a", 1, body="now", ttl=0, wait=False) == [STORED]
    assert worker.take() == ([m.Deliver(0, DEVICE, "a", 1, "now")] if there else [])
    await rig.settle()
    assert await rig.inbox(DEVICE) == []
    assert rig.committer.written == writes
    counters = rig.hub.counters
    assert (counters.pushes, counters.pushes_unkept, counters.pushes_stored) == (1, 1, 0)


@in_rig()
async def test_the_place_in_the_order_of_arrival_may_be_taken_before_the_push(rig: Rig) -> None:
    first, second = rig.hub.messages.sequence(), rig.hub.messages.sequence()
    assert int(rig.clock.unix() * SECOND) <= first < second
    rig.push(DEVICE, "own", 1, ttl=10**6)
    rig.push(DEVICE, "second", second, sequence=second, wait=False, ttl=10**6)
    rig.push(DEVICE, "first", first, sequence=first, wait=False, ttl=10**6)
    rig.clock.unix_s -= 100
    assert rig.hub.messages.sequence() > second
    await rig.settle()
    assert await rig.inbox(DEVICE) == [("first", first), ("second", second), ("own", 1)]


@in_rig(store={"inbox_limit": 2})
async def test_an_urgent_push_takes_the_place_of_one_that_is_less_so(rig: Rig) -> None:
    pushes = (("a", 3), ("b", 1), ("c", 3), ("d", 2))
    outcomes = [rig.push(DEVICE, slot, 1, urgency=urgency, wait=False) for slot, urgency in pushes]
    await rig.settle()
    assert outcomes == [[STORED], [STORED], [STORED], [REFUSED_FULL]]
    assert await rig.inbox(DEVICE) == [("a", 1), ("c", 1)]


# ---- attachments


@in_rig()
async def test_the_answer_to_attach_carries_what_waits(rig: Rig) -> None:
    for number in (3, 1, 2):
        rig.push(DEVICE, f"slot-{number}", number)
    rig.push(OTHER, "not mine", 1)
    worker = rig.worker()
    worker.say(attach(ask=9))
    await rig.settle()
    (reply,) = worker.take()
    items, record = reply.payload
    assert (reply.number, reply.status, record) == (9, m.OK, None)
    assert slots(items) == [("slot-3", 3), ("slot-1", 1), ("slot-2", 2)]


@in_rig()
async def test_without_fetch_the_answer_comes_at_once(rig: Rig) -> None:
    rig.store.hold()
    worker = rig.worker()
    worker.say(attach(fetch=0))
    assert worker.take() == [m.Reply(1, m.OK, [[], None])]
    rig.push(DEVICE, "a", 1)
    assert [type(one) for one in worker.take()] == [m.Deliver]


@in_rig()
async def test_while_it_attaches_deliveries_are_held_until_the_answer_has_gone(rig: Rig) -> None:
    rig.store.hold()
    worker = rig.worker()
    before = rig.push(DEVICE, "before", 1)
    worker.say(attach())
    during = rig.push(DEVICE, "during", 2, body="live")
    await rig.settle()
    assert worker.take() == []
    rig.store.release()
    await rig.settle()
    answer, deliver = worker.take()
    assert slots(answer.payload[0]) == [("before", 1)]
    assert deliver == m.Deliver(deliver.number, DEVICE, "during", 2, "live")
    worker.say(m.Result(deliver.number, m.WRITTEN))
    await rig.settle()
    assert (before, during) == ([STORED], [DELIVERED])


@in_rig()
async def test_what_was_held_is_said_even_when_its_push_was_answered_in_the_meantime(rig: Rig) -> None:
    rig.store.hold()
    rig.push(OTHER, "keeps the store busy", 1)
    await rig.settle()
    worker = rig.worker()
    worker.say(attach())
    outcome = rig.push(DEVICE, "a", 1)
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick()
    assert outcome == []
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    answer, deliver = worker.take()
    assert answer.payload == [[], None]
    assert deliver == m.Deliver(deliver.number, DEVICE, "a", 1, None)
    worker.say(m.Result(deliver.number, m.WRITTEN))
    await rig.settle()
    assert outcome == [STORED]


@pytest.mark.parametrize("gone", ["left", "lost", "moved", "timed out and left"])
@in_rig()
async def test_what_was_held_for_a_connection_that_went_is_stored(rig: Rig, gone: str) -> None:
    rig.store.hold()
    worker = rig.worker()
    worker.say(attach())
    outcome = rig.push(DEVICE, "a", 1)
    if gone == "lost":
        rig.hub.lost(worker.session, "test")
    elif gone == "moved":
        rig.worker(1).say(attach(fetch=0))
    else:
        if gone != "left":
            rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
            rig.hub.tick()
        worker.say(m.Detach(DEVICE))
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    assert await rig.inbox(DEVICE) == [("a", 1)]
    said = worker.take()
    assert not [word for word in said if isinstance(word, m.Deliver)]
    assert gone == "lost" or m.Reply(1, m.MOVED, None) in said


@pytest.mark.parametrize("then", ["stays", "leaves", "is lost", "has a full queue"])
@pytest.mark.parametrize("why", ["failed", "full"])
@in_rig(store={"inbox_limit": 1}, link={"queue_limit": 1})
async def test_what_was_held_and_refused_is_answered_once(rig: Rig, then: str, why: str) -> None:
    rig.push(DEVICE, "fills the inbox", 1)
    await rig.settle()
    rig.store.hold()
    rig.store.failing = why == "failed"
    worker = rig.worker()
    worker.say(attach())
    outcomes = [rig.push(DEVICE, "refused", 1), rig.push(DEVICE, "refused too", 1)]
    if then == "leaves":
        worker.say(m.Detach(DEVICE))
    elif then == "is lost":
        rig.hub.lost(worker.session, "test")
    elif then == "has a full queue":
        worker.say(attach(OTHER, fetch=0))
    rig.store.release()
    await rig.settle()
    expected = REFUSED_FAILED if why == "failed" else REFUSED_FULL
    assert outcomes == [[expected], [expected]]
    assert rig.hub.counters.pushes_refused == 2
    assert not [word for word in worker.take() if isinstance(word, m.Deliver)]
    assert rig.hub.in_work == 0


@in_rig()
async def test_an_attachment_that_the_store_failed_says_so(rig: Rig) -> None:
    worker = rig.worker()
    rig.store.failing = True
    worker.say(attach(ask=1), attach(OTHER, ask=2, needs=DEVICES))
    await rig.settle()
    assert sorted((one.number, one.status) for one in worker.take()) == [
        (1, m.FAILED),
        (2, m.FAILED),
    ]
    assert rig.hub.map.device(OTHER) is None


@in_rig()
async def test_a_device_that_must_be_known_and_is_not_attaches_nothing(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(m.Record(DEVICES, OTHER, b"today", 60))
    worker.say(attach(DEVICE, 1, needs=DEVICES), attach(OTHER, 2, needs=DEVICES))
    await rig.settle()
    assert worker.take() == [m.Reply(1, m.UNKNOWN, None), m.Reply(2, m.OK, [[], b"today"])]
    assert rig.hub.map.device(DEVICE) is None
    assert rig.hub.map.device(OTHER) is worker.session.lease


@pytest.mark.parametrize("same", [True, False])
@in_rig()
async def test_a_device_without_the_record_that_its_newer_connection_needs_is_shed(rig: Rig, same: bool) -> None:
    first = await attached(rig)
    second = first if same else rig.worker(1)
    second.say(attach(ask=2, needs=DEVICES))
    await rig.settle()
    assert first.take()[0] == m.Disconnect(DEVICE)
    outcome = rig.push(DEVICE, "a", 7)
    await rig.settle()
    assert outcome == [STORED]
    if not same:
        assert second.take() == [m.Reply(2, m.UNKNOWN, None)]
    second.say(m.Detach(DEVICE), attach(ask=3))
    await rig.settle()
    assert slots(second.take()[-1].payload[0]) == [("a", 7)]


@in_rig()
async def test_a_second_connection_elsewhere_wins_and_the_first_is_told(rig: Rig) -> None:
    first = await attached(rig, 0)
    second = await attached(rig, 1)
    assert first.take() == [m.Disconnect(DEVICE)]
    assert rig.hub.counters.devices_moved == 1
    first.say(m.Detach(DEVICE))
    rig.push(DEVICE, "a", 1)
    assert first.take() == []
    assert [type(one) for one in second.take()] == [m.Deliver]


@in_rig()
async def test_of_two_that_attach_at_once_the_later_gets_everything(rig: Rig) -> None:
    rig.store.hold()
    first, second = rig.worker(0), rig.worker(1)
    rig.push(DEVICE, "waiting", 1)
    await rig.settle()
    first.say(attach(ask=11))
    early = rig.push(DEVICE, "early", 2)
    second.say(attach(ask=22))
    late = rig.push(DEVICE, "late", 3)
    rig.store.release()
    await rig.settle()
    assert first.take() == [m.Disconnect(DEVICE), m.Reply(11, m.MOVED, None)]
    answer, *delivers = second.take()
    assert (answer.number, answer.status, slots(answer.payload[0])) == (22, m.OK, [("waiting", 1)])
    assert [(word.slot, word.version) for word in delivers] == [("early", 2), ("late", 3)]
    for word in delivers:
        second.say(m.Result(word.number, m.WRITTEN))
    await rig.settle()
    assert (early, late) == ([DELIVERED], [DELIVERED])


@in_rig()
async def test_two_connections_of_one_device_on_one_shard(rig: Rig) -> None:
    rig.store.hold()
    worker = rig.worker()
    rig.push(DEVICE, "a", 1)
    worker.say(attach(ask=1), attach(ask=2))
    rig.store.release()
    await rig.settle()
    first, second = worker.take()
    assert first == m.Reply(1, m.MOVED, None)
    assert (second.number, second.status, slots(second.payload[0])) == (2, m.OK, [("a", 1)])


@in_rig()
async def test_a_device_that_left_is_nobodys(rig: Rig) -> None:
    worker = await attached(rig)
    worker.say(m.Detach(DEVICE))
    outcome = rig.push(DEVICE, "a", 1)
    await rig.settle()
    assert outcome == [STORED]
    assert worker.take() == []


# ---- parts of an inbox


@in_rig()
async def test_an_attachment_may_bring_a_part_and_the_rest_is_fetched(rig: Rig) -> None:
    for number, slot in enumerate("dbeac"):
        rig.push(DEVICE, slot, number + 1)
    worker = rig.worker()
    worker.say(attach(fetch=2))
    await rig.settle()
    (reply,) = worker.take()
    items, _ = reply.payload
    assert slots(items) == [("a", 4), ("b", 2)]
    worker.say(m.Ack(DEVICE, [["a", 4], ["b", 2]]), m.Call(2, m.Fetch(DEVICE, 2)))
    await rig.settle()
    assert [(one.number, one.status, slots(one.payload)) for one in worker.take()] == [(2, m.OK, [("c", 5), ("d", 1)])]
    worker.say(m.Call(3, m.Fetch(DEVICE, 10)), m.Call(4, m.Fetch(DEVICE, m.EVERYTHING)))
    await rig.settle()
    part, whole = (slots(word.payload) for word in worker.take())
    assert part == [("c", 5), ("d", 1), ("e", 3)]
    assert whole == [("d", 1), ("e", 3), ("c", 5)]


@pytest.mark.parametrize("wait", [True, False])
@in_rig()
async def test_what_comes_while_it_attaches_goes_once_with_the_part_or_after_it(rig: Rig, wait: bool) -> None:
    rig.store.hold()
    rig.push(OTHER, "keeps the store busy", 1)
    await rig.settle()
    worker = rig.worker()
    worker.say(attach(fetch=2))
    outcomes = [rig.push(DEVICE, slot, 1, body=slot, wait=wait) for slot in "cab"]
    rig.store.release()
    await rig.settle()
    answer, *delivers = worker.take()
    # A part as long as was asked for: so the worker knows that there may be more.
    assert [(item[0], item[5]) for item in answer.payload[0]] == [("a", "a"), ("b", "b")]
    assert [(word.device, word.slot, word.version, word.body) for word in delivers] == [(DEVICE, "c", 1, "c")]
    if wait:
        worker.say(m.Result(delivers[0].number, m.WRITTEN))
        await rig.settle()
    assert outcomes == [[DELIVERED if wait else STORED], [STORED], [STORED]]
    assert rig.hub.in_work == 0


@in_rig()
async def test_a_part_is_read_again_if_something_of_it_was_acknowledged_meanwhile(rig: Rig) -> None:
    worker = await attached(rig)
    for slot in "abcd":
        rig.push(DEVICE, slot, 1, wait=False)
    await rig.settle()
    worker.take()
    rig.store.hold()
    number = worker.say(m.Call(2, m.Fetch(DEVICE, 2)))
    await rig.settle()
    worker.say(m.Ack(DEVICE, [["a", 1]]))
    rig.store.release()
    await rig.settle()
    assert [slots(word.payload) for word in worker.take()] == [[("b", 1), ("c", 1)]]
    assert worker.session.confirmed == number + 1
    # The whole is not: what is left of it is all there is.
    rig.store.hold()
    worker.say(m.Call(3, m.Fetch(DEVICE, m.EVERYTHING)))
    await rig.settle()
    worker.say(m.Ack(DEVICE, [["b", 1]]))
    rig.store.release()
    await rig.settle()
    assert [slots(word.payload) for word in worker.take()] == [[("c", 1), ("d", 1)]]


@in_rig()
async def test_a_part_that_is_overtaken_again_and_again_is_given_as_it_was_read(rig: Rig) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "a", 1, wait=False)
    rig.push(DEVICE, "b", 1, wait=False)
    await rig.settle()
    worker.take()
    version = 1

    def replace() -> None:
        nonlocal version
        if not [word for word in worker.session.outbox if isinstance(word, m.Reply)]:
            version += 1
            rig.push(DEVICE, "a", version, wait=False)

    during_each_commit(rig, replace)  # so that each read is behind
    worker.say(m.Call(2, m.Fetch(DEVICE, 1)))
    await rig.settle()
    (answer,) = [word for word in worker.take() if isinstance(word, m.Reply)]
    assert [slot for slot, _ in slots(answer.payload)] == ["a"]
    assert 3 < version < 10


# ---- the other asks of a device


@in_rig()
async def test_record_drop_and_fetch_are_answered_when_durable(rig: Rig) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "a", 2**62)
    rig.push(DEVICE, "b", 1)
    await rig.settle()
    worker.take()
    rig.store.hold()
    worker.say(
        m.Call(1, m.Record(DEVICES, DEVICE, b"x", 0)),
        m.Call(2, m.Drop(DEVICE, "a")),
        m.Call(3, m.Fetch(DEVICE, m.EVERYTHING)),
    )
    await rig.settle()
    assert [word for word in worker.take() if isinstance(word, m.Reply)] == []
    rig.store.release()
    await rig.settle()
    answers = {one.number: (one.status, one.payload) for one in worker.take()}
    assert answers[1] == answers[2] == (m.OK, None)
    assert (answers[3][0], slots(answers[3][1])) == (m.OK, [("b", 1)])


@in_rig()
async def test_asks_that_the_store_fails_are_answered_with_failed(rig: Rig) -> None:
    worker = await attached(rig)
    rig.store.failing = True
    worker.say(
        m.Call(1, m.Record(DEVICES, DEVICE, b"x", 0)),
        m.Call(2, m.Drop(DEVICE, "a")),
        m.Call(3, m.Fetch(DEVICE, m.EVERYTHING)),
    )
    worker.say(read_log(4, Last(1)), m.Call(5, m.Publish(CHANNEL, "x", 60, "")))
    await rig.settle()
    assert {one.number: one.status for one in worker.take()} == dict.fromkeys((1, 2, 3, 4, 5), m.FAILED)


# ---- batches


@in_rig()
async def test_a_batch_is_confirmed_when_it_is_durable(rig: Rig) -> None:
    worker = await attached(rig)
    confirmed = worker.session.confirmed
    rig.store.hold()
    worker.say(m.Ack(DEVICE, [["a", 1]]))
    number = worker.say(m.Ack(DEVICE, [["b", 1]]))
    await rig.settle()
    assert worker.session.confirmed == confirmed
    rig.store.release()
    await rig.settle()
    assert worker.session.confirmed == number
    assert worker.identity in rig.hub.sessions.dirty


@in_rig()
async def test_a_batch_that_the_store_failed_is_confirmed_too(rig: Rig) -> None:
    worker = rig.worker()
    rig.store.failing = True
    number = worker.say(m.Ack(DEVICE, [["a", 1]]))
    await rig.settle()
    assert worker.session.confirmed == number


@in_rig()
async def test_a_worker_is_told_which_acks_the_store_could_not_keep(rig: Rig) -> None:
    worker = rig.worker()
    kept = worker.say(m.Ack(DEVICE, [["a", 1]]))
    await rig.settle()
    rig.store.failing = True
    failed = worker.say(m.Ack(DEVICE, [["a", 1]]))
    worker.say(m.Detach(DEVICE))
    await rig.settle()
    rig.store.failing = False
    well = worker.say(m.Ack(DEVICE, [["a", 1]]))
    await rig.settle()
    assert worker.session.unkept == [failed]
    assert kept < failed < well == worker.session.confirmed


@in_rig()
async def test_a_batch_that_comes_twice_counts_once(rig: Rig) -> None:
    worker = rig.worker()
    batch = m.WorkerBatch(1, [m.Ack(DEVICE, [["a", 1]])])
    worker.send(batch)
    worker.send(batch)
    assert rig.hub.counters.acks == 1


@in_rig()
async def test_a_confirmation_goes_to_the_lease_that_said_the_batch(rig: Rig) -> None:
    rig.store.hold()
    worker = rig.worker()
    worker.say(m.Ack(DEVICE, [["a", 1]]))
    worker.say(m.Ack(DEVICE, [["b", 1]]))
    worker.join()
    rig.store.release()
    await rig.settle()
    assert worker.session.confirmed == 0


# ---- leases


@in_rig(link={"lease": 5.0})
async def test_a_silent_worker_loses_its_lease_and_gets_it_again(rig: Rig) -> None:
    worker = await attached(rig)
    worker.direct()
    rig.clock.pass_by(4.9)
    worker.send(m.Beat({"connections": 1}))
    rig.clock.pass_by(4.9)
    rig.hub.tick()
    assert rig.hub.map.device(DEVICE) is worker.session.lease
    assert worker.session.snapshot == {"connections": 1}
    rig.clock.pass_by(0.2)
    rig.hub.tick()
    assert len(rig.hub.sessions) == 0
    assert rig.hub.counters.leases_lost == 1
    outcome = rig.push(DEVICE, "missed", 1)
    await rig.settle()
    assert outcome == [STORED]
    worker.send(m.Beat({}))
    assert worker.direct() == [m.Rejoin()]
    worker.join()
    assert worker.direct() == [m.Welcome(b"router-1", m.PROTOCOL)]
    worker.say(hold(DEVICE))
    await rig.settle()
    (stored,) = worker.take()
    assert (stored.device, slots(stored.items)) == (DEVICE, [("missed", 1)])
    live = rig.push(DEVICE, "live", 2)
    (sent,) = worker.take()
    number = sent.number
    worker.say(m.Result(number, m.WRITTEN))
    await rig.settle()
    assert live == [DELIVERED]


@in_rig(link={"lease": 5.0})
async def test_a_worker_that_was_not_listened_to_has_not_been_silent(rig: Rig) -> None:
    worker = await attached(rig)
    heard_until = rig.clock.monotonic()
    rig.clock.pass_by(60.0)  # the router did not run, say
    rig.hub.tick(heard_until)
    assert rig.hub.map.device(DEVICE) is worker.session.lease
    rig.hub.tick(heard_until + 5.1)
    assert len(rig.hub.sessions) == 0


@in_rig()
async def test_a_push_on_its_way_when_the_lease_ends_is_stored(rig: Rig) -> None:
    worker = await attached(rig)
    outcome = rig.push(DEVICE, "a", 1)
    rig.hub.lost(worker.session, "test")
    assert rig.hub.in_work == 0
    assert rig.hub.sessions.dirty == {}
    await rig.settle()
    assert outcome == [STORED]
    assert rig.hub.counters.deliveries_late == 0


@in_rig()
async def test_a_result_counts_only_from_the_lease_that_the_delivery_was_sent_to(rig: Rig) -> None:
    worker, other = await attached(rig), rig.worker(1)
    outcome = rig.push(DEVICE, "a", 1)
    (sent,) = worker.take()
    number = sent.number
    other.say(m.Result(number, m.WRITTEN))
    await rig.settle()
    assert outcome == []
    worker.say(m.Result(number, m.NOT_HERE))
    assert outcome == [STORED]
    worker.say(attach(ask=2))
    await rig.settle()
    again = rig.push(DEVICE, "b", 1)
    number = worker.take()[-1].number
    worker.join()  # said again in another lease, it is of a delivery that was answered when the first one ended
    worker.say(m.Result(number, m.WRITTEN))
    await rig.settle()
    assert again == [STORED]


@pytest.mark.parametrize("same_worker", [True, False])
@in_rig()
async def test_a_result_that_is_repeated_to_another_router_is_of_no_push_of_its_own(
    rig: Rig, same_worker: bool
) -> None:
    first, second = await attached(rig, 0), await attached(rig, 1, OTHER)
    device, teller = (DEVICE, first) if same_worker else (OTHER, second)
    numbers = []
    for slot in "abc":
        rig.push(DEVICE, slot, 1)
        numbers.append(first.take()[-1].number)
    assert len(set(numbers)) == 3
    rig.router_restarts()
    first.join()
    second.join()
    teller.say(hold(device))
    await rig.settle()
    teller.take()
    outcomes = [rig.push(device, slot, 2) for slot in "abc"]
    assert not {word.number for word in teller.take()} & set(numbers)
    first.say(*(m.Result(number, m.WRITTEN) for number in numbers))  # not confirmed, so said again
    await rig.settle()
    assert outcomes == [[], [], []]


@in_rig(link={"max_results": 2})
async def test_of_too_many_results_none_is_waited_for_and_the_push_is_said_all_the_same(rig: Rig) -> None:
    worker = await attached(rig)
    outcomes = [rig.push(DEVICE, slot, 1) for slot in "abc"]
    assert rig.hub.in_work == 2
    *_, last = worker.take()
    assert last == m.Deliver(0, DEVICE, "c", 1, None)
    await rig.settle()
    assert outcomes == [[], [], [STORED]]


@in_rig()
async def test_a_worker_that_joins_again_holds_nothing_until_it_says_so(rig: Rig) -> None:
    worker = await attached(rig)
    worker.join()
    assert rig.hub.map.device(DEVICE) is None
    assert len(rig.hub.sessions) == 1
    worker.say(hold(DEVICE, OTHER))
    assert rig.hub.map.device(DEVICE) is rig.hub.map.device(OTHER) is worker.session.lease
    await rig.settle()
    assert worker.take() == []


@in_rig()
async def test_a_new_router_learns_its_map_from_the_workers(rig: Rig) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "a", 1)
    await rig.settle()
    rig.router_restarts()
    worker.say(m.Ack(OTHER, [["x", 1]]))
    assert worker.direct() == [m.Rejoin()]
    worker.join()
    assert worker.direct() == [m.Welcome(b"router-2", m.PROTOCOL)]
    worker.say(m.Ack(DEVICE, [["a", 1]]))
    worker.say(hold(DEVICE))
    await rig.settle()
    assert worker.take() == []  # it was acknowledged before it was announced
    outcome = rig.push(DEVICE, "b", 2)
    assert [type(one) for one in worker.take()] == [m.Deliver]
    assert outcome == []


@in_rig()
async def test_who_held_a_device_before_somebody_else_attached_it_is_shed(rig: Rig) -> None:
    first = await attached(rig, 0)
    rig.hub.lost(first.session, "test")
    second = await attached(rig, 1)
    first.join()
    first.say(hold(DEVICE, OTHER))
    await rig.settle()
    assert first.take() == [m.Disconnect(DEVICE)]
    assert rig.hub.map.device(DEVICE) is second.session.lease
    assert rig.hub.map.device(OTHER) is first.session.lease


@pytest.mark.parametrize("first_heard", ["older", "younger"])
@in_rig()
async def test_of_two_that_announce_a_device_to_a_new_router_the_younger_has_it(rig: Rig, first_heard: str) -> None:
    older, younger = rig.worker(0), rig.worker(1)
    rig.push(DEVICE, "a", 1)
    await rig.settle()
    claims = [(older, 5000), (younger, 5200)]
    for worker, since in claims if first_heard == "older" else reversed(claims):
        worker.say(hold(OTHER, DEVICE, since=since) if worker is older else hold(DEVICE, since=since))
    await rig.settle()
    assert rig.hub.map.device(DEVICE) is younger.session.lease
    assert rig.hub.map.device(OTHER) is older.session.lease
    assert [one for one in older.take() if not isinstance(one, m.DeliverStored)] == [m.Disconnect(DEVICE)]
    (stored,) = younger.take()
    assert slots(stored.items) == [("a", 1)]
    rig.push(DEVICE, "b", 1)
    assert [type(one) for one in younger.take()] == [m.Deliver]


@pytest.mark.parametrize("needs", ["", DEVICES])
@in_rig()
async def test_an_older_connection_that_is_said_again_does_not_take_the_device_of_a_younger(
    rig: Rig, needs: str
) -> None:
    rig.committer.record(DEVICES, DEVICE, b"today", 0)
    older, younger = rig.worker(0), rig.worker(1)
    younger.say(hold(DEVICE, since=6000))
    number = older.say(attach(ask=4, needs=needs, since=5000))  # not confirmed by the last router
    await rig.settle()
    assert older.take() == [m.Reply(4, m.MOVED, None)]
    assert older.session.confirmed == number
    assert rig.hub.map.device(DEVICE) is younger.session.lease
    assert younger.take() == []
    older.say(attach(ask=5, since=7000))
    await rig.settle()
    last = older.take()[-1]
    assert (last.number, last.status) == (5, m.OK)
    assert younger.take() == [m.Disconnect(DEVICE)]
    younger.join()
    younger.say(hold(DEVICE, since=6000))
    await rig.settle()
    assert younger.take() == [m.Disconnect(DEVICE)]


@in_rig()
async def test_a_younger_connection_gets_what_was_held_for_an_older_one_that_attaches(rig: Rig) -> None:
    rig.store.hold()
    older, younger = rig.worker(0), rig.worker(1)
    older.say(attach(since=5000))
    outcome = rig.push(DEVICE, "a", 1)
    younger.say(hold(DEVICE, since=6000))
    assert younger.take() == []  # what its inbox holds comes first
    rig.store.release()
    await rig.settle()
    (deliver,) = younger.take()
    assert deliver == m.Deliver(deliver.number, DEVICE, "a", 1, None)
    younger.say(m.Result(deliver.number, m.WRITTEN))
    await rig.settle()
    assert outcome == [DELIVERED]
    assert older.take() == [m.Disconnect(DEVICE), m.Reply(1, m.MOVED, None)]


@in_rig()
async def test_of_two_on_one_shard_the_younger_has_the_device_though_its_answer_came_first(rig: Rig) -> None:
    rig.committer.record(DEVICES, DEVICE, b"today", 0)
    worker = rig.worker()
    rig.store.hold()
    worker.say(attach(ask=1, needs=DEVICES, since=5000), attach(ask=2, fetch=0, since=6000))
    rig.store.release()
    await rig.settle()
    assert [(one.number, one.status) for one in worker.take()] == [(2, m.OK), (1, m.MOVED)]


@in_rig(link={"queue_limit": 3})
async def test_a_worker_whose_queue_is_full_loses_its_lease_and_nothing_else(rig: Rig) -> None:
    worker = await attached(rig)
    outcomes = [rig.push(DEVICE, f"slot-{number}", 1) for number in range(5)]
    await rig.settle()
    assert worker.session.overflowed
    rig.turn_ends()
    assert len(rig.hub.sessions) == 0
    assert outcomes[3:] == [[STORED], [STORED]]
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick()
    assert outcomes == [[STORED]] * 5
    worker.join()
    worker.say(hold(DEVICE))
    await rig.settle()
    assert slots(worker.take()[0].items) == [(f"slot-{number}", 1) for number in range(5)]


# ---- channels


@in_rig()
async def test_an_event_reaches_every_shard_with_subscribers_once(rig: Rig) -> None:
    workers = [rig.worker(shard) for shard in range(3)]
    for worker in workers[:2]:
        worker.say(subscribe(1))
        assert worker.take() == [m.Reply(1, m.OK, None)]
    workers[1].say(subscribe(2))
    workers[1].take()
    workers[2].say(m.Call(7, m.Publish(CHANNEL, "hello", 0, "1.2")))
    assert [worker.take() for worker in workers] == [
        [m.Event(CHANNEL, "hello", "1.2")],
        [m.Event(CHANNEL, "hello", "1.2")],
        [m.Reply(7, m.OK, 0)],
    ]
    rig.hub.messages.publish(CHANNEL, "of an app server")
    assert [worker.take() for worker in workers] == [[m.Event(CHANNEL, "of an app server", "")]] * 2 + [[]]
    workers[0].say(m.Unsubscribe(CHANNEL))
    workers[2].say(m.Publish(CHANNEL, "again", 0, ""))
    assert [len(worker.take()) for worker in workers] == [0, 1, 0]


@in_rig()
async def test_an_event_of_a_log_is_sent_when_the_log_holds_it(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    worker.take()
    rig.store.hold()
    heard: list[Any] = []
    rig.hub.messages.publish_logged(
        event(rig, "one", id="a", headers={"type": "t"}), lambda *result: heard.append(result), "1.2"
    )
    await rig.settle()
    assert worker.take() == []
    assert heard == []
    rig.store.release()
    await rig.settle()
    (sent,) = worker.take()
    ((status, end),) = heard
    assert (status, end) == (m.OK, AfterOffset(sent.epoch, 1))
    rig.hub.messages.publish_logged(event(rig, "two"))
    worker.say(m.Publish(CHANNEL, "three", 60, "3.4"), read_log(2, Last(9)))
    await rig.settle()
    *events, reply = worker.take()
    assert logged([sent, *events]) == [(1, "one", "1.2"), (2, "two", ""), (3, "three", "3.4")]
    found = log_slice(reply.payload)
    assert found.epoch == sent.epoch
    assert found.events == [sent.event, *(one.event for one in events)]


@in_rig()
async def test_an_event_that_the_log_cannot_hold_is_not_sent(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    rig.hub.messages.publish_logged(event(rig, "five", offset=5, exact=True))
    await rig.settle()
    worker.take()
    heard: list[Any] = []
    rig.hub.messages.publish_logged(
        event(rig, "five again", offset=5, exact=True), lambda *result: heard.append(result)
    )
    await rig.settle()
    rig.store.failing = True
    rig.hub.messages.publish_logged(event(rig, "one"), lambda *result: heard.append(result))
    worker.say(m.Call(2, m.Publish(CHANNEL, "two", 60, "")))
    await rig.settle()
    assert worker.take() == [m.Reply(2, m.FAILED, 0)]
    assert heard == [(m.OK, None), (m.FAILED, None)]


@pytest.mark.parametrize("first", [True, False])
@in_rig()
async def test_the_reply_to_a_read_comes_behind_the_events_that_it_may_hold(rig: Rig, first: bool) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    rig.store.hold()
    if first:
        rig.hub.messages.publish_logged(event(rig, "one"))
    worker.say(read_log(2, Last(9)))
    rig.hub.messages.publish_logged(event(rig, "two"))
    rig.store.release()
    await rig.settle()
    rig.hub.messages.publish_logged(event(rig, "three"))
    await rig.settle()
    _, *messages = worker.take()
    reply = next(place for place, one in enumerate(messages) if isinstance(one, m.Reply))
    held = {one.offset for one in log_slice(messages[reply].payload).events}
    assert held == {one.event.offset for one in messages[:reply]}


@in_rig(store={"log_limit": 3})
async def test_a_subscriber_gets_the_log_after_its_position(rig: Rig) -> None:
    for number in range(5):
        rig.hub.messages.publish_logged(event(rig, f"e{number + 1}"))
    await rig.settle()
    worker = rig.worker()
    worker.say(*(read_log(call, AfterOffset(0, offset)) for call, offset in ((1, 3), (2, 0), (3, 5))))
    worker.say(m.Call(4, m.ReadLog(CHANNEL, (1, 2, 3, 4, 5))))
    await rig.settle()
    found = {one.number: log_slice(one.payload) for one in worker.take() if one.status == m.OK}
    assert [(part.offset, part.recovered) for part in found.values()] == [(5, True), (5, False), (5, True)]
    assert {ask: [one.body for one in part.events] for ask, part in found.items()} == {
        1: ["e4", "e5"],
        2: ["e3", "e4", "e5"],
        3: [],
    }


@in_rig()
async def test_subscriptions_are_announced_again(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    rig.router_restarts()
    worker.join()
    rig.hub.messages.publish(CHANNEL, "missed")
    worker.say(m.AnnounceChannels([[CHANNEL, "", 1, []]]))
    rig.hub.messages.publish(CHANNEL, "heard")
    assert worker.take() == [m.Event(CHANNEL, "heard", "")]


@in_rig(link={"queue_limit": 2})
async def test_one_slow_shard_does_not_keep_an_event_from_the_others(rig: Rig) -> None:
    slow, quick = rig.worker(0), rig.worker(1)
    for worker in (slow, quick):
        worker.say(subscribe(1))
        worker.take()
    for number in range(4):
        rig.hub.messages.publish(CHANNEL, str(number))
        assert [word.body for word in quick.take()] == [str(number)]
    rig.turn_ends()
    assert [one.identity for one in rig.hub.sessions] == [quick.identity]


@in_rig(link={"max_message_bytes": 65_536})
async def test_events_for_a_worker_that_does_not_read_end_its_lease_and_not_our_memory(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    worker.take()
    body = "x" * 10_000
    for _ in range(100):
        rig.hub.messages.publish(CHANNEL, body)
        assert len(worker.take()) == 1  # as long as it reads, there is no end
    for _ in range(6):
        rig.hub.messages.publish(CHANNEL, body)
    rig.turn_ends()
    assert [one.identity for one in rig.hub.sessions] == [worker.identity]
    rig.hub.messages.publish(CHANNEL, body)
    rig.turn_ends()
    assert len(rig.hub.sessions) == 0
    worker.say(subscribe(2))
    assert worker.direct()[-1] == m.Rejoin()


# ---- channels with a name, and who is there

NAME = "presence-room"
LABEL = m.channel_label("pusher", "app", NAME)


def enter(user: str, ask: int = 0, most: int = 10) -> tuple[Any, ...]:
    return m.Call(ask, m.PresenceJoin(CHANNEL, user, "{}", most))


@in_rig()
async def test_named_channels_are_listed_and_counted(rig: Rig) -> None:
    one, two = rig.worker(1), rig.worker(2)
    one.say(subscribe(1, label=LABEL), m.Counted(CHANNEL, 5))
    two.say(subscribe(0, label=LABEL), m.Call(2, m.Subscribe(DEVICE, "")))
    assert [worker.take() for worker in (one, two)] == [[m.Reply(1, m.OK, None)], [m.Reply(2, m.OK, None)]]
    assert list(rig.hub.channels.names("pusher", "app")) == [NAME]
    assert rig.hub.channels.count(CHANNEL) == 6
    one.say(m.Unsubscribe(CHANNEL))
    assert rig.hub.channels.count(CHANNEL) == 1
    rig.hub.tick()
    assert (rig.hub.counters.channels, rig.hub.counters.members) == (1, 0)


@in_rig()
async def test_members_are_told_before_the_answer_and_until_the_channel_is_full(rig: Rig) -> None:
    one, two = rig.worker(1), rig.worker(2)
    one.say(subscribe(0, label=LABEL), enter("ann", 1))
    joined = m.Members(CHANNEL, False, [("ann", "{}")], [])
    assert one.take() == [joined, m.Reply(1, m.OK, {"ann": "{}"})]
    two.say(subscribe(0, label=LABEL), enter("ann", 1, 1), enter("bob", 2, 1))
    assert two.take() == [m.Reply(1, m.OK, {"ann": "{}"}), m.Reply(2, m.FULL, None)]
    one.say(m.PresenceLeave(CHANNEL, "ann"))
    two.say(m.PresenceLeave(CHANNEL, "ann"))
    left = m.Members(CHANNEL, False, [], ["ann"])
    assert [one.take(), two.take()] == [[left], [left]]
    assert rig.hub.channels.members(CHANNEL) == {}


@in_rig()
async def test_a_silent_worker_takes_its_members_with_it(rig: Rig) -> None:
    one, two = rig.worker(1), rig.worker(2)
    one.say(subscribe(0, label=LABEL), enter("ann"), enter("bob"))
    two.say(subscribe(0, label=LABEL), enter("bob"))
    two.take()
    rig.clock.pass_by(rig.link.lease + 0.1)
    two.send(m.Beat({}))
    rig.hub.tick()
    assert two.take() == []
    rig.clock.pass_by(rig.link.member_grace)
    two.send(m.Beat({}))
    rig.hub.tick()
    assert two.take() == [m.Members(CHANNEL, False, [], ["ann"])]
    assert rig.hub.channels.members(CHANNEL) == {"bob": "{}"}


@in_rig()
async def test_presence_is_rebuilt_by_what_workers_announce(rig: Rig) -> None:
    one, two = rig.worker(1), rig.worker(2)
    rig.router_restarts()
    one.join()
    two.join()
    one.say(m.AnnounceChannels([[CHANNEL, LABEL, 7, [("ann", "{}")]]]))
    two.say(m.AnnounceChannels([[CHANNEL, LABEL, 2, [("ann", "{}"), ("bob", "")]]]))
    one.say(m.PresenceLeave(CHANNEL, "ann"))
    assert rig.hub.channels.count(CHANNEL) == 9
    assert [one.take(), two.take()] == [[], []]
    rig.clock.pass_by(rig.link.lease + rig.link.member_grace)
    for worker in (one, two):
        worker.send(m.Beat({}))
    rig.hub.tick()
    whole = m.Members(CHANNEL, True, [("ann", "{}"), ("bob", "")], [])
    assert [one.take(), two.take()] == [[whole], [whole]]


@in_rig()
async def test_a_worker_that_joins_again_is_one_shard(rig: Rig) -> None:
    one, two = rig.worker(1), rig.worker(2)
    two.say(subscribe(0, label=LABEL))
    one.say(subscribe(0, label=LABEL), enter("ann"))
    two.take()
    one.join()
    one.say(m.AnnounceChannels([[CHANNEL, LABEL, 3, [("ann", "{}")]]]))
    assert rig.hub.channels.count(CHANNEL) == 4
    rig.clock.pass_by(rig.link.member_grace)
    rig.hub.tick()
    assert rig.hub.channels.count(CHANNEL) == 4
    assert two.take() == []
    assert rig.hub.channels.members(CHANNEL) == {"ann": "{}"}


@in_rig()
async def test_connections_of_an_address_are_dismissed_on_every_shard(rig: Rig) -> None:
    workers = [rig.worker(shard) for shard in range(3)]
    for worker in workers[:2]:
        worker.say(subscribe(0))
    rig.hub.messages.terminate(CHANNEL, 4009, "gone")
    assert [worker.take() for worker in workers] == [[m.Terminate(CHANNEL, 4009, "gone")]] * 2 + [[]]


@in_rig()
async def test_a_record_is_taken_once(rig: Rig) -> None:
    worker = rig.worker()
    rig.committer.record("tokens", CHANNEL, b"value", 0)
    takes = [m.Take("tokens", CHANNEL, taker) for taker in (b"1" * 16, b"2" * 16, b"1" * 16)]
    worker.say(*(m.Call(number, take) for number, take in enumerate(takes)))
    await rig.settle()
    assert worker.take() == [m.Reply(0, m.OK, b"value"), m.Reply(1, m.OK, None), m.Reply(2, m.OK, b"value")]
    rig.store.failing = True
    worker.say(m.Call(3, takes[0]))
    await rig.settle()
    assert worker.take() == [m.Reply(3, m.FAILED, None)]


@in_rig()
async def test_an_observer_hears_what_devices_do(rig: Rig) -> None:
    watcher = Watcher()
    rig.hub.channels.observe("pusher", watcher)
    worker = rig.worker()
    worker.say(
        subscribe(0, label=LABEL),
        enter("ann"),
        m.Publish(CHANNEL, "hello", 0, "1.2"),
        m.Publish(DEVICE, "to a channel without a name", 0, ""),
        m.Happened(LABEL, "cache_miss", ""),
        m.Happened(m.channel_label("other", "app", NAME), "nobody wants to know", ""),
        m.Unsubscribe(CHANNEL),
    )
    rig.hub.messages.publish(CHANNEL, "of an app server")
    assert watcher.take() == [
        ("occupied", NAME),
        ("counted", NAME, 1),
        ("entered", "ann"),
        ("published", "hello", "1.2"),
        ("cache_miss", ""),
        ("left", "ann"),
        ("vacated", NAME),
    ]


# ---- who speaks, and how


@in_rig()
async def test_the_supervisor_is_told_the_status(rig: Rig) -> None:
    rig.hub.on_status(lambda: {"well": True})
    rig.hub.received(b"supervisor", NEWEST.encode(m.AskStatus(5)))
    assert list(rig.hub.take_direct()) == [(b"supervisor", NEWEST.encode(m.Status(5, {"well": True})))]


@pytest.mark.parametrize(
    "message",
    [
        [99],
        array(m.RouterBatch, 0, []),
        ["1"],
        [None],
        array(m.Ready),
        array(m.Ready, m.PROTOCOL + 1, 0, b"i", 1, m.PROTOCOL + 1),
        array(m.Ready, [], 0, b"i", 1, []),
        array(m.Ready, m.PROTOCOL, "0", b"i", 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, "text", 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, b"i" * 65, 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, b"i", {}, m.PROTOCOL),
        array(m.WorkerBatch),
        array(m.WorkerBatch, 1),
        array(m.WorkerBatch, "1", []),
        array(m.WorkerBatch, 1.5, []),
        array(m.WorkerBatch, 1, {}),
        array(m.WorkerBatch, 1, [], 0),
        array(m.Beat),
        array(m.Beat, []),
        array(m.Beat, {1: 2}),
        array(m.Beat, {"connections": "many"}),
        array(m.Beat, {str(number): number for number in range(1001)}),
        array(m.AskStatus),
        array(m.AskStatus, "1"),
        array(m.SetBroadcast, 1, "space", b"key", "value"),
        array(m.SetBroadcast, 1, None, "key", "value"),
        array(m.SetBroadcast, 1, "space", "key", 1),
    ],
)
@in_rig()
async def test_a_message_that_is_not_our_vocabulary_is_refused(rig: Rig, message: list[Any]) -> None:
    worker = rig.worker()
    with pytest.raises(m.MessageError):
        worker.send(message)
    assert worker.session.lease.alive


REFUSED_WORDS: list[Any] = [
    [],
    None,
    7,
    "word",
    [99],
    [None],
    [[]],
    array(m.Reply, 1, m.OK, None),
    array(m.Result),
    array(m.Result, [], m.WRITTEN),
    array(m.Result, 1),
    array(m.Result, 1, m.WRITTEN, 0),
    array(m.Ack, "no bytes but text", [["a", 1]]),
    array(m.Ack, b"short", [["a", 1]]),
    array(m.Ack, DEVICE, None),
    array(m.Ack, DEVICE, [["kept", 1], ["a"]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", 1, 1]]),
    array(m.Ack, DEVICE, [["kept", 1], [b"a", 1]]),
    array(m.Ack, DEVICE, [["kept", 1], ("a", "1")]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", float("nan")]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", 2**63]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", -1]]),
    array(m.Detach),
    array(m.Detach, []),
    array(m.Announce, DEVICE, [[1, 0]]),
    array(m.Announce, [OTHER]),
    array(m.Announce, [OTHER, "text"], [[2, 0]]),
    array(m.Announce, [OTHER, b"short"], [[2, 0]]),
    array(m.Announce, [OTHER] * (m.ANNOUNCE_CHUNK + 1), [[m.ANNOUNCE_CHUNK + 1, 0]]),
    array(m.Announce, [b"f" * 16, b"g" * 16], [[1, 0]]),
    array(m.Announce, [b"f" * 16], [[1, -1]]),
    array(m.Announce, [b"f" * 16], [[1, 0, 0]]),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, -2, "")),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, "no label")),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, "a\0b\0" + "x" * m.MAX_LABEL)),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, 2**63, "")),
    array(m.Unsubscribe, {}),
    array(m.AnnounceChannels, [[CHANNEL, "", 1]]),
    array(m.AnnounceChannels, [[CHANNEL, "", 1, []], [b"f" * 16, "no label", 1, []]]),
    array(m.AnnounceChannels, [[CHANNEL, "a\0b\0c", 1, [("ann", "{}"), ["bob"]]]]),
    array(m.AnnounceChannels, [[CHANNEL, "a\0b\0c", "1", []]]),
    array(m.Call, 1, array(m.Record, "s", OTHER, "text", 60)),
    array(m.Call, 1, array(m.Record, "s", OTHER, b"x", 2**62)),
    array(m.Call, 1, array(m.Record, ["s"], OTHER, b"x", 60)),
    array(m.Call, 1, array(m.Fetch, OTHER, 0)),
    array(m.Call, 1, array(m.Fetch, OTHER, "1")),
    array(m.Call, 1, array(m.Drop, OTHER, None)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", -1, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, [], 0, 0)),
    array(m.Call, 1, array(m.Attach, b"short", "", 0, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0.5, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0, "0")),
    array(m.Call, 1, array(m.Publish, CHANNEL, b"body", 0, "")),
    array(m.Call, 1, array(m.Publish, CHANNEL, "body", 2**60, "")),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, b"short", b"head", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, "no bytes but text", b"head", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, OTHER, b"short", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, OTHER, b"head", 0, None)),
    array(m.Call, 1, array(m.SetRemove, "s", OTHER, b"")),
    array(m.Counted, CHANNEL, "5"),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, "x" * (m.MAX_USER_ID + 1), "", 1)),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, 7, "", 1)),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, "ann", "", None)),
    array(m.PresenceLeave, CHANNEL, []),
    array(m.Call, 1, array(m.ReadLog, {}, CHANNEL)),
    array(m.Happened, 1, 2, 3),
]


@pytest.mark.parametrize("word", REFUSED_WORDS, ids=repr)
@in_rig()
async def test_a_word_that_is_not_our_vocabulary_costs_that_word_only(rig: Rig, word: Any) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "kept", 1, wait=False)
    await rig.settle()
    worker.take()
    number = worker.say(attach(OTHER, 70), word, m.Call(71, m.Drop(OTHER, "a")))
    await rig.settle()
    answers = {one.number: one.status for one in worker.take()}
    asks = {1: m.FAILED} if type(word) is list and word[:2] == array(m.Call, 1) else {}
    assert answers == {70: m.OK, 71: m.OK} | asks
    assert worker.session.confirmed == number
    assert rig.hub.counters.messages_refused == 1
    # Nothing of it has been acted on.
    assert await rig.inbox(DEVICE) == [("kept", 1)]
    assert (len(rig.hub.map), len(rig.hub.channels)) == (2, 0)
    assert rig.committer.failures == 0


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.sampled_from([DEVICE, CHANNEL, "a\0b\0c", 0, 1, 2**31 - 1, 2**63 - 1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(0, 9), inner, max_size=2)
    ),
    max_leaves=6,
)
_messages = st.tuples(st.integers(0, 60), st.lists(_values, max_size=6)).map(lambda one: [one[0], *one[1]])


@settings(max_examples=100, deadline=None)
@given(st.lists(_messages | _values, max_size=12))
def test_whatever_a_worker_says_the_router_and_the_others_go_on(words: list[Any]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        worker, other = rig.worker(0), await attached(rig, 1, OTHER)
        number = worker.say(*words)
        await rig.settle()
        rig.hub.tick()
        assert worker.session.confirmed == number
        for word in words:
            if type(word) is list and word and type(word[0]) is int:
                with suppress(m.MessageError):
                    worker.send(word)
        await rig.settle()
        other.take()
        outcome = rig.push(OTHER, "a", 1)
        (deliver,) = other.take()
        other.say(m.Result(deliver.number, m.WRITTEN))
        await rig.settle()
        assert outcome == [DELIVERED]
        rig.clock.pass_by(10 * rig.link.lease)
        rig.hub.tick()
        rig.hub.map.sweep(100)
        rig.hub.tick()
        assert (len(rig.hub.sessions), rig.hub.sessions.dirty, len(rig.hub.channels)) == (0, {}, 0)

    scenario()


@in_rig(link={"max_workers": 2, "max_direct": 3})
async def test_of_too_many_workers_and_of_too_many_answers_some_are_not_heard(rig: Rig) -> None:
    for shard in range(2):
        rig.worker(shard)
    with pytest.raises(m.MessageError, match="max_workers"):
        rig.worker(2)
    rig.worker(1)
    for number in range(5):
        rig.hub.received(b"supervisor", NEWEST.encode(m.AskStatus(number)))
    assert [NEWEST.of_router(data, LIMIT).number for _, data in rig.hub.take_direct()] == [2, 3, 4]
    assert rig.hub.counters.link_dropped == 5


# ---- workers that do not take what is sent to them


@in_rig(link={"queue_limit": 1})
async def test_an_event_that_some_workers_have_no_room_for_reaches_the_others(rig: Rig) -> None:
    workers = [rig.worker(shard) for shard in range(3)]
    for worker in workers:
        worker.say(subscribe(0), m.Call(1, m.Attach(bytes([worker.shard]) * 16, "", 0, 0)))
    for worker in workers[1:]:
        worker.take()
    outcomes = [rig.push(bytes([shard]) * 16, "a", 1) for shard in (1, 2)]
    workers[2].take()
    rig.hub.messages.publish(CHANNEL, "event")
    assert [type(one) for one in workers[2].take()] == [m.Event]
    assert len(rig.hub.sessions) == 3  # nobody ends before the turn does
    rig.turn_ends()
    assert list(rig.hub.sessions) == [workers[2].session]
    assert set(rig.hub.sessions.dirty) <= {workers[2].identity}
    await rig.settle()
    assert outcomes == [[STORED], []]
    rig.hub.messages.terminate(CHANNEL, 4009, "")
    assert [type(one) for one in workers[2].take()] == [m.Terminate]


@in_rig(link={"queue_limit": 2})
async def test_a_delivery_that_finds_no_room_is_stored(rig: Rig) -> None:
    worker = await attached(rig)
    first, second, third = (rig.push(DEVICE, slot, 1) for slot in "abc")
    assert rig.hub.in_work == 2
    await rig.settle()
    assert [first, second, third] == [[], [], [STORED]]
    rig.turn_ends()
    assert [first, second, third] == [[STORED]] * 3
    assert worker.identity not in rig.hub.sessions.dirty


@in_rig(link={"queue_limit": 2})
async def test_a_worker_that_is_lost_in_its_own_batch_says_all_of_it_again(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(0), m.Publish(CHANNEL, "1", 0, ""), m.Publish(CHANNEL, "2", 0, ""))
    worker.say(m.Publish(CHANNEL, "3", 0, ""), subscribe(0, label=LABEL), m.Detach(DEVICE))
    await rig.settle()
    rig.turn_ends()
    assert (len(rig.hub.sessions), rig.hub.sessions.dirty) == (0, {})
    rig.clock.pass_by(rig.link.member_grace + 1)
    rig.hub.tick()
    assert len(rig.hub.channels) == 0


@in_rig()
async def test_an_answer_that_fails_costs_one_push_its_answer(rig: Rig) -> None:
    def fails(outcome: int) -> None:
        raise ValueError(outcome)

    worker = await attached(rig)
    rig.hub.messages.push(DEVICE, "a", 1, fails, ttl=60)
    outcome = rig.push(DEVICE, "b", 1)
    worker.say(*(m.Result(word.number, m.WRITTEN) for word in worker.take()))
    await rig.settle()
    assert outcome == [DELIVERED]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\x01",
        b"\x90",
        NEWEST.encode({"a": 1}),
        NEWEST.encode([1]) + b"x",
        b"\x91\x81\x90\x01",  # a key that is an array
        b"\x91\x81\x81\x01\x01\x01",  # or a map
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xa1\xff",  # no UTF-8
        b"\x91\xc7\x0c\xff" + b"\xff" * 12,  # no time
    ],
)
def test_what_is_not_one_packed_message_is_refused(data: bytes) -> None:
    with pytest.raises(m.MessageError):
        NEWEST.of_worker(data, LIMIT)


def test_a_message_over_the_limit_is_refused() -> None:
    batch = m.WorkerBatch(1, [m.Happened("", "", "x" * 100)])
    data = NEWEST.encode(batch)
    assert NEWEST.of_worker(data, len(data)) == batch
    with pytest.raises(m.MessageError):
        NEWEST.of_worker(data, len(data) - 1)


def test_channel_keys_differ_by_each_of_their_parts() -> None:
    keys = {m.channel_key(*parts) for parts in (("a", "b", "c"), ("a", "b", "d"), ("a", "c", "c"), ("b", "b", "c"))}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {16}


# ---- everything at once


class Shard:
    """A worker as the device side is: it repeats what is not confirmed, and announces what it holds."""

    def __init__(self, rig: Rig, number: int) -> None:
        self.worker = FakeWorker(rig, number)
        self.held: dict[bytes, dict[str, int]] = {}  # device -> what it was told on this connection
        self.asking: dict[int, bytes] = {}
        self._rig = rig
        self._ask = 0
        self._unconfirmed: list[tuple[int, list[Any]]] = []
        self.worker.join()

    def say(self, word: Any) -> None:
        self._unconfirmed.append((self.worker.say(word), [word]))

    def attach(self, device: bytes) -> None:
        self._ask += 1
        self.asking[self._ask] = device
        self.say(m.Call(self._ask, m.Attach(device, "", m.EVERYTHING, 0)))

    def leave(self, device: bytes) -> None:
        if self.held.pop(device, None) is not None and device not in self.asking.values():
            self.say(m.Detach(device))

    def hear(self) -> None:
        """Take what the router has for us; if it has forgotten us, join again."""
        if self._rig.hub.sessions.get(self.worker.identity) is None:
            batches = self._unconfirmed
            self._unconfirmed = []
            self.worker.join()
            for _, messages in batches:
                self.say(messages[0])
            self.say(hold(*self.held))
        confirmed = self.worker.session.confirmed
        self._unconfirmed = [batch for batch in self._unconfirmed if batch[0] > confirmed]
        for word in self.worker.take():
            if isinstance(word, m.Reply):
                self._answered(word.number, word.status, word.payload)
            elif isinstance(word, m.Deliver):
                told = self.held.get(word.device)
                if told is not None:
                    told[word.slot] = word.version
                if word.number:
                    self.say(m.Result(word.number, m.NOT_HERE if told is None else m.WRITTEN))
            elif isinstance(word, m.DeliverStored) and word.device in self.held:
                self.held[word.device].update(slots(word.items))
            elif isinstance(word, m.Disconnect):
                self.held.pop(word.device, None)

    def _answered(self, ask: int, status: int, payload: Any) -> None:
        device = self.asking.pop(ask, None)
        if device is None:
            return
        if status == m.OK:
            self.held[device] = dict(slots(payload[0]))
        elif device not in self.held and device not in self.asking.values():
            self.say(m.Detach(device))


_devices = st.sampled_from([DEVICE, OTHER])
_shards = st.integers(0, 1)
_steps: st.SearchStrategy[tuple[str, Any, Any]] = st.one_of(
    st.tuples(st.sampled_from(["push", "push and do not wait"]), _devices, st.sampled_from("ab")),
    st.tuples(st.just("attach"), _devices, _shards),
    st.tuples(st.just("leave"), _devices, _shards),
    st.tuples(st.just("ack"), _devices, _shards),
    st.tuples(st.just("hear"), st.just(None), _shards),
    st.tuples(st.just("lose"), st.just(None), _shards),
    st.tuples(st.sampled_from(["hold", "release", "restart", "late"]), st.just(None), st.just(None)),
)


@settings(max_examples=200)
@given(st.lists(_steps, max_size=40))
def test_whatever_happens_nothing_accepted_is_lost_and_who_is_there_is_told(steps: list[tuple[str, Any, Any]]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        shards = [Shard(rig, number) for number in range(2)]
        outcomes: list[tuple[tuple[bytes, str], int, list[int], bool]] = []
        acked: dict[tuple[bytes, str], int] = {}
        version = 0
        for step, one, other in steps:
            if step.startswith("push"):
                version += 1
                said = rig.push(one, other, version, ttl=10**6, wait=step == "push")
                outcomes.append(((one, other), version, said, True))
            elif step == "attach":
                shards[other].attach(one)
            elif step == "leave":
                shards[other].leave(one)
            elif step == "ack":
                told = shards[other].held.get(one)
                if told:
                    shards[other].say(m.Ack(one, list(told.items())))
                    for slot, upto in told.items():
                        acked[(one, slot)] = max(upto, acked.get((one, slot), 0))
                    told.clear()
            elif step == "hear":
                shards[other].hear()
            elif step == "lose":
                if rig.hub.sessions.get(shards[other].worker.identity) is not None:
                    rig.hub.lost(shards[other].worker.session, "test")
            elif step == "hold":
                rig.store.hold()
            elif step == "release":
                rig.store.release()
            elif step == "restart":
                # Pushes that the old router has not answered are the app servers' to repeat.
                outcomes = [(key, number, list(said), False) for key, number, said, _ in outcomes]
                rig.router_restarts()
            else:
                rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
                for shard in shards:
                    if rig.hub.sessions.get(shard.worker.identity) is not None:
                        shard.worker.send(m.Beat({}))
                rig.hub.tick()
            if not step.startswith("push"):
                await rig.settle()
        rig.store.release()
        for _ in range(4):
            await rig.settle()
            for shard in shards:
                shard.hear()
        rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
        rig.hub.tick()

        waiting = {(device, slot): at for device in (DEVICE, OTHER) for slot, at in await rig.inbox(device)}
        for key, number, said, answered_by_this_router in outcomes:
            assert len(said) == 1 if answered_by_this_router else len(said) <= 1
            assert set(said) <= {DELIVERED, STORED}
            if said and acked.get(key, 0) < number:
                assert waiting.get(key, 0) >= number
        for (device, slot), at in waiting.items():
            for shard in shards:
                if device in shard.held and rig.hub.map.device(device) is shard.worker.session.lease:
                    assert shard.held[device].get(slot, 0) >= at
        assert rig.hub.in_work == 0
        assert rig.committer.waiting == 0

    scenario()


def test_the_tests_own_worker_is_told_of_a_router_that_forgot_it() -> None:
    """What the property above stands on: without the announcement nothing would be told."""

    @in_rig()
    async def scenario(rig: Rig) -> None:
        shard = Shard(rig, 0)
        shard.attach(DEVICE)
        await rig.settle()
        shard.hear()
        rig.router_restarts()
        rig.push(DEVICE, "a", 1)
        await rig.settle()
        assert shard.held == {DEVICE: {}}
        shard.hear()
        await rig.settle()
        shard.hear()
        assert shard.held == {DEVICE: {"a": 1}}

    run: Callable[[], None] = scenario
    run()


@in_rig(link={"queue_limit": 4})
async def test_before_an_outbox_is_full_the_link_is_asked_to_take_some(rig: Rig) -> None:
    quick, stuck = rig.worker(0), rig.worker(1)
    for worker in (quick, stuck):
        worker.say(subscribe(0))
        worker.take()
    stuck.session.blocked = True  # the link has found that it does not take more
    taken: list[Any] = []
    for number in range(20):
        rig.hub.messages.publish(CHANNEL, str(number))
        if rig.hub.sessions.pressing:
            assert quick.session in rig.hub.outgoing()
            taken.extend(quick.take())
            assert not rig.hub.sessions.pressing
    assert len(taken) >= 15
    taken.extend(quick.take())
    assert [event.body for event in taken] == [str(number) for number in range(20)]
    assert list(rig.hub.sessions) == [quick.session]


@in_rig()
async def test_a_worker_that_owes_its_beats_is_spoken_to(rig: Rig) -> None:
    worker = rig.worker()
    worker.take()
    rig.clock.pass_by(rig.link.heartbeat)
    rig.hub.tick()
    assert worker.identity not in rig.hub.sessions.dirty
    rig.clock.pass_by(rig.link.heartbeat * 2)
    rig.hub.tick()
    assert worker.identity in rig.hub.sessions.dirty
    assert worker.take() == []
