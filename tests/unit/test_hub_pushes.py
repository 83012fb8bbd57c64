"""Pushes through the hub, over a real committer and store: when they are answered, and with what."""

import pytest
from support.common import DELIVERY_TIMEOUT_S, Rig, in_rig
from support.hub_messages import DEVICE, OTHER, attach, attached, slots

from router.common import messages as m
from router.common.numbers import SECOND
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, STORED

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
