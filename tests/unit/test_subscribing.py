"""Subscribing to several channels in one step, and what comes to them meanwhile."""

import pytest
from support.channels import Worker

from farm.dialects import Subscribe, Subscription
from router.common import messages as m


def wanted(*names: str) -> tuple[Subscription, ...]:
    return tuple(Subscription(name.encode().ljust(16), f"pusher\0app\0{name}") for name in names)


def test_several_channels_are_told_of_together_once_the_last_reply_is_here() -> None:
    worker = Worker()
    channels = wanted("one", "two", "three")
    worker.join(other := worker.connection(), channels[1])
    (sent,) = worker.said()
    open_two = sent.number
    worker.answer(open_two)
    connection = worker.connection()
    assert worker.subscriptions.subscribe(connection, Subscribe(channels)) is None
    first, third = worker.said()
    worker.subscriptions.replied(third.number, m.FAILED, None)
    assert worker.said() == [m.Unsubscribe(channels[2].key)]
    assert worker.let_in() == []
    worker.hear("two", b"held", None)
    worker.hear("two", b"its own", connection)
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.hear("one", b"held too")
    ((answered, results, events),) = worker.let_in()
    assert answered is connection
    assert [(result.wanted, result.status) for result in results] == list(
        zip(channels, (m.OK, m.OK, m.FAILED), strict=True)
    )
    assert [event.text for event in events] == [b"held too", b"held"]
    assert worker.subscriptions.held_bytes == 0
    two = worker.subscriptions.get(channels[1].key)
    assert two is not None
    assert (list(two.subscribers), two.waiting) == ([other, connection], None)
    again = worker.subscriptions.subscribe(connection, Subscribe(channels[:2]))
    assert again is not None
    assert [result.status for result in again] == [m.OK, m.OK]


def test_who_goes_while_it_waits_for_several_leaves_nothing_behind() -> None:
    worker = Worker()
    channels = wanted("one", "two")
    connection = worker.connection()
    worker.subscriptions.subscribe(connection, Subscribe(channels))
    first, second = worker.said()
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.hear("one", b"held")
    connection.call = 0
    for channel in channels:
        worker.subscriptions.leave(connection, channel.key)
    assert worker.said() == [m.Unsubscribe(channel.key) for channel in channels]
    assert worker.let_in() == []
    assert len(worker.subscriptions) == worker.subscriptions.held_bytes == 0
    assert worker.subscriptions.replied(second.number, m.OK, None) == (False, None)


def test_what_is_left_while_it_waits_is_no_part_of_what_it_is_told() -> None:
    worker = Worker()
    channels = wanted("one", "two")
    connection = worker.connection()
    worker.subscriptions.subscribe(connection, Subscribe(channels))
    first, _ = worker.said()
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.subscriptions.leave(connection, channels[1].key)
    ((_, results, _),) = worker.let_in()
    assert [result.wanted for result in results] == [channels[0]]


def test_a_channel_is_named_once() -> None:
    worker = Worker()
    with pytest.raises(ValueError, match="once"):
        worker.subscriptions.subscribe(worker.connection(), Subscribe(wanted("one", "one")))


def test_who_waits_longest_is_to_be_closed_when_too_much_is_held() -> None:
    worker = Worker()
    (channel,) = wanted("one")
    first, second = worker.connection(), worker.connection()
    worker.subscriptions.subscribe(first, Subscribe((channel,)))
    room = worker.subscriptions.get(channel.key)
    assert room is not None
    worker.hear("one", b"a" * 5000)
    worker.subscriptions.subscribe(second, Subscribe((channel,)))
    assert worker.subscriptions.overdue(room) is None
    worker.hear("one", b"b" * 5000)
    assert worker.subscriptions.overdue(room) is first
    worker.subscriptions.leave(first, channel.key)
    assert worker.subscriptions.overdue(room) is None
    assert 5000 < worker.subscriptions.held_bytes < 6000
