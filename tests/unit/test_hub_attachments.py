"""Devices attach, get what waits for them, and leave."""

import pytest
from support.common import DELIVERY_TIMEOUT_S, Rig, during_each_commit, in_rig
from support.hub_messages import CHANNEL, DEVICE, DEVICES, OTHER, attach, attached, read_log, slots

from router.common import messages as m
from router.common.position import Last
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, STORED

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


@in_rig()
async def test_a_store_that_may_forget_ends_no_device_for_a_record_that_is_missing(rig: Rig) -> None:
    rig.store.forgets = True
    worker = rig.worker()
    stored = rig.push(DEVICE, "a", 7)
    worker.say(m.Record(DEVICES, OTHER, b"today", 60))
    worker.say(attach(DEVICE, 1, needs=DEVICES), attach(OTHER, 2, needs=DEVICES))
    await rig.settle()
    first, second = worker.take()
    assert (stored, slots(first.payload[0]), first.payload[1]) == ([STORED], [("a", 7)], None)
    assert second == m.Reply(2, m.OK, [[], b"today"])
    assert rig.hub.map.device(DEVICE) is worker.session.lease


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
