"""Subscribing to several channels in one step, and what comes to them meanwhile."""

import pytest
from support.channels import Worker

from farm.dialects import Subscribe, Subscription
from farm.worker.catch_up import caught_up
from farm.worker.local_channel import HeldEvent, Joining, LocalChannel, Part
from router.common import messages as m
from router.common.position import AfterOffset, Last, LogEvent, LogSlice, Position


def wanted(*names: str) -> tuple[Subscription, ...]:
    return tuple(Subscription(name.encode().ljust(16), f"pusher\0app\0{name}") for name in names)


def test_several_channels_are_told_of_together_once_the_last_reply_is_here() -> None:
    worker = Worker()
    channels = wanted("one", "two", "three")
    worker.join(other := worker.connection(), channels[1])
    (sent,) = worker.sent()
    open_two = sent.number
    worker.answer(open_two)
    connection = worker.connection()
    assert worker.subscriptions.subscribe(connection, Subscribe(channels)) is None
    first, third = worker.sent()
    worker.subscriptions.replied(third.number, m.FAILED, None)
    assert worker.sent() == [m.Unsubscribe(channels[2].key)]
    assert worker.admitted() == []
    worker.receive("two", b"held", None)
    worker.receive("two", b"its own", connection)
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.receive("one", b"held too")
    ((answered, results, events),) = worker.admitted()
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
    first, second = worker.sent()
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.receive("one", b"held")
    connection.call = 0
    for channel in channels:
        worker.subscriptions.leave(connection, channel.key)
    assert worker.sent() == [m.Unsubscribe(channel.key) for channel in channels]
    assert worker.admitted() == []
    assert len(worker.subscriptions) == worker.subscriptions.held_bytes == 0
    assert worker.subscriptions.replied(second.number, m.OK, None) is False


def test_what_is_left_while_it_waits_is_no_part_of_what_it_is_told() -> None:
    worker = Worker()
    channels = wanted("one", "two")
    connection = worker.connection()
    worker.subscriptions.subscribe(connection, Subscribe(channels))
    first, _ = worker.sent()
    worker.subscriptions.replied(first.number, m.OK, None)
    worker.subscriptions.leave(connection, channels[1].key)
    ((_, results, _),) = worker.admitted()
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
    worker.receive("one", b"a" * 5000)
    worker.subscriptions.subscribe(second, Subscribe((channel,)))
    assert worker.subscriptions.overdue(room) is None
    worker.receive("one", b"b" * 5000)
    assert worker.subscriptions.overdue(room) is first
    worker.subscriptions.leave(first, channel.key)
    assert worker.subscriptions.overdue(room) is None
    assert 5000 < worker.subscriptions.held_bytes < 6000


# ---- what the log of a channel gives, and what came since


def logged(offset: int, epoch: int = 7) -> HeldEvent:
    event = LogEvent(offset, 1, offset, 2_000_000_000, "", {}, str(offset))
    return HeldEvent(b"%d" % offset, None, event, epoch)


@pytest.mark.parametrize(
    ("position", "held", "offsets", "behind"),
    [
        (AfterOffset(7, 1), [logged(2), logged(4), logged(5)], [2, 3, 4, 5], []),
        (AfterOffset(7, 1), [logged(2), logged(3), logged(3), logged(2), logged(4), logged(4)], [2, 3, 4], []),
        (AfterOffset(7, 1), [logged(2), logged(9), logged(5)], [2, 3, 5, 9], []),
        (AfterOffset(7, 1), [logged(2), logged(1, epoch=8), logged(2, epoch=8)], [2, 3], [b"1", b"2"]),
        (Last(2), [logged(3), logged(4)], [3, 4], []),
        (Last(0), [logged(3), logged(4)], [], []),
        (AfterOffset(7, 1), [HeldEvent(b"one", None), HeldEvent(b"two", None)], [2, 3], [b"one", b"two"]),
        (AfterOffset(7, 1), [logged(0, epoch=0), logged(4), logged(0, epoch=0)], [2, 3, 4], [b"0", b"0"]),
    ],
)
def test_a_double_is_known_by_its_offset_and_what_is_new_is_part_of_the_slice(
    position: Position, held: list[HeldEvent], offsets: list[int], behind: list[bytes]
) -> None:
    worker = Worker()
    channel = LocalChannel(b"c" * 16)
    part = Part(Joining(worker.connection()), channel, Subscription(channel.key, position=position))
    part.log = LogSlice(7, 3, True, [event.event for event in (logged(2), logged(3)) if event.event is not None])
    part.read_at = 1  # the first of them came before the reply
    log, rest = caught_up(part, held)
    assert log is not None
    assert [event.offset for event in log.events] == offsets
    assert [event.text for event in rest] == behind
    assert log.offset == max([3, *(one.event.offset for one in held if one.event is not None and one.epoch == 7)])
