"""Channels: events, logs, counts, presence."""

from typing import Any

import pytest
from support.common import Rig, in_rig
from support.hub_messages import CHANNEL, DEVICE, LABEL, NAME, enter, event, logged, read_log, subscribe
from support.watcher import Watcher

from router.common import messages as m
from router.common.position import ANY_EPOCH, AfterOffset, Last, LogEvent, log_slice

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
async def test_an_event_with_an_id_that_no_log_keeps_is_sent_at_once(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(subscribe(1))
    worker.take()
    rig.store.hold()
    one = event(rig, "one", id="a", headers={"type": "t"})
    rig.hub.messages.publish_unlogged(one, "1.2")
    (sent,) = worker.take()
    assert (sent.epoch, sent.exclude) == (ANY_EPOCH, "1.2")
    assert sent.event._replace(time=0, tag=0) == LogEvent(0, 0, 0, one.expires, "a", {"type": "t"}, "one")
    worker.say(read_log(2, Last(9)))
    rig.store.release()
    await rig.settle()
    assert log_slice(worker.take()[0].payload).events == []
    with pytest.raises(ValueError, match="ID or headers"):
        rig.hub.messages.publish_unlogged(event(rig, "two", id="\0"))


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
async def test_a_dialect_may_let_nobody_into_a_channel_that_has_no_subscriber(rig: Rig) -> None:
    watcher = Watcher()
    rig.hub.core.channels.observe("pusher", watcher)
    first, second = rig.worker(0), rig.worker(1)
    first.say(subscribe(1, LABEL))
    watcher.refuses = True
    second.say(subscribe(1, LABEL), m.Call(2, m.Subscribe(DEVICE, m.channel_label("pusher", "app", "other"))))
    assert second.take() == [m.Reply(1, m.OK, None), m.Reply(2, m.FULL, None)]
    assert rig.hub.core.channels.get(DEVICE) is None
    assert rig.hub.core.channels.number("pusher", "app") == 1
    rig.hub.messages.publish(DEVICE, "nobody is there")
    assert second.take() == []


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
