"""Sessions of workers: batches and what confirms them, leases, and outboxes that fill."""

import pytest
from support.common import DELIVERY_TIMEOUT_S, LIMIT, Rig, hold, in_rig
from support.hub_messages import CHANNEL, DEVICE, DEVICES, LABEL, OTHER, attach, attached, slots, subscribe

from router.common import messages as m
from router.common.wire import NEWEST
from router.core.pushes import DELIVERED, STORED

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


# ---- READY


@in_rig()
async def test_a_worker_that_repeats_its_ready_has_joined_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """While no router is there it sends one with each beat, and all of them wait for the next router."""
    caplog.set_level("INFO", logger="farm")
    worker = rig.worker()
    worker.join()
    worker.join()
    assert len(worker.direct()) == 3
    assert [record.message for record in caplog.records] == ["worker.joined"]
    rig.hub.lost(worker.session, "it has gone")
    worker.join()
    assert [record.message for record in caplog.records] == ["worker.joined", "worker.lost", "worker.joined"]


@in_rig()
async def test_a_worker_that_has_drained_leaves_and_is_not_lost(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="farm")
    worker = await attached(rig)
    worker.send(m.Leave())
    assert len(rig.hub.sessions) == 0 and rig.hub.map.device(DEVICE) is None
    assert rig.hub.counters.leases_lost == 0
    assert "worker.left" in caplog.text and "worker.lost" not in caplog.text
    worker.direct()
    worker.send(m.Leave())  # of one that nobody knows
    assert worker.direct() == []
