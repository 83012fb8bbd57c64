"""The channels of a worker: what the router is told of them, and who of a channel's connections is told what."""

from typing import Any

import pytest
from support.channels import HIDDEN, KEY, LABEL, PLAIN, Worker, present

from farm.dialects import Subscription
from farm.worker.subscriptions import Change
from router.common import messages as m


def told(change: Change | None) -> Any:
    assert change is not None
    return [user for user, _ in change.added], [user for user, _ in change.removed]


# ---- channels without members


def test_the_router_is_asked_once_and_everybody_waits_for_its_answer() -> None:
    worker = Worker()
    first, second, third = (worker.connection() for _ in range(3))
    assert worker.join(first, PLAIN) is None
    assert worker.join(second, PLAIN) is None
    (sent,) = worker.sent()
    number = sent.number
    assert sent == m.Call(number, m.Subscribe(KEY, LABEL))
    assert 0 < first.call != second.call > 0
    assert worker.answer(number).joins == [(first, PLAIN, m.OK), (second, PLAIN, m.OK)]
    assert worker.join(third, PLAIN) == (m.OK, None)
    channel = worker.subscriptions.get(KEY)
    assert channel is not None
    assert list(channel.subscribers) == [first, second, third]
    assert worker.subscriptions.replied(number, m.OK, None) is False
    assert worker.sent() == []


def test_the_last_one_closes_the_room_and_a_new_one_opens_it_anew() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.join(first, PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    worker.answer(number)
    worker.join(second, PLAIN)
    worker.subscriptions.leave(first, KEY)
    worker.subscriptions.leave(first, KEY)
    assert worker.sent() == []
    worker.subscriptions.leave(second, KEY)
    assert worker.sent() == [m.Unsubscribe(KEY)]
    assert len(worker.subscriptions) == 0
    worker.subscriptions.leave(second, KEY)
    assert worker.sent() == []
    worker.join(second, PLAIN)
    assert [type(one.request) for one in worker.sent()] == [m.Subscribe]


def test_who_goes_while_he_waits_takes_nobody_with_him() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.join(first, PLAIN)
    worker.join(second, PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    worker.subscriptions.leave(first, KEY)
    assert worker.sent() == []
    assert worker.answer(number).joins == [(second, PLAIN, m.OK)]


def test_an_answer_for_those_who_have_all_gone_changes_nothing() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.join(first, PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    worker.subscriptions.leave(first, KEY)
    assert worker.sent() == [m.Unsubscribe(KEY)]
    worker.join(second, PLAIN)
    (sent,) = worker.sent()
    again = sent.number
    assert worker.subscriptions.replied(number, m.OK, None) is False
    assert worker.answer(again).joins == [(second, PLAIN, m.OK)]


def test_a_refused_room_is_no_room() -> None:
    worker = Worker()
    connection = worker.connection()
    worker.join(connection, PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    assert worker.answer(number, m.FAILED).joins == [(connection, PLAIN, m.FAILED)]
    assert worker.sent() == [m.Unsubscribe(KEY)]
    assert len(worker.subscriptions) == 0


def test_subscribers_are_counted_when_they_are_more_or_fewer_than_the_router_knows() -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(5)]
    worker.join(connections[0], PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    worker.subscriptions.counts()
    worker.answer(number)
    worker.subscriptions.counts()
    assert worker.sent() == []  # SUBSCRIBE was one already
    for connection in connections[1:]:
        worker.join(connection, PLAIN)
    assert worker.sent() == []
    worker.subscriptions.counts()
    worker.subscriptions.counts()
    assert worker.sent() == [m.Counted(KEY, 5)]
    worker.subscriptions.leave(connections[0], KEY)
    worker.join(connections[0], PLAIN)
    worker.subscriptions.counts()
    assert worker.sent() == []
    for connection in connections[2:]:
        worker.subscriptions.leave(connection, KEY)
    worker.subscriptions.counts()
    assert worker.sent() == [m.Counted(KEY, 2)]
    for connection in connections:
        worker.subscriptions.leave(connection, KEY)
    worker.subscriptions.counts()
    assert worker.sent() == [m.Unsubscribe(KEY)]


def test_a_channel_without_a_label_is_not_counted() -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(3)]
    worker.join(connections[0], Subscription(KEY))
    (sent,) = worker.sent()
    number = sent.number
    assert sent == m.Call(number, m.Subscribe(KEY, ""))
    worker.answer(number)
    for connection in connections[1:]:
        worker.join(connection, Subscription(KEY))
    worker.subscriptions.counts()
    assert worker.sent() == []


def test_hidden_ones_hold_the_room_but_are_neither_counted_nor_subscribers() -> None:
    worker = Worker()
    one, two = worker.connection(), worker.connection()
    worker.join(one, HIDDEN)
    (sent,) = worker.sent()
    number = sent.number
    assert sent == m.Call(number, m.Subscribe(KEY, ""))
    worker.answer(number)
    channel = worker.subscriptions.get(KEY)
    assert channel is not None
    assert (list(channel.subscribers), list(channel.hidden or ())) == ([], [one])
    worker.join(two, HIDDEN)
    assert worker.join(one, PLAIN) == (m.OK, None)  # now it wants the events
    assert worker.sent() == [m.Subscribe(KEY, LABEL)]
    assert (list(channel.subscribers), list(channel.hidden or ())) == ([one], [two])
    assert worker.join(one, PLAIN) == (m.OK, None)
    assert worker.join(one, HIDDEN) == (m.OK, None)
    worker.subscriptions.counts()
    assert worker.sent() == [m.Counted(KEY, 0)]
    assert (list(channel.subscribers), list(channel.hidden or ())) == ([], [two, one])
    worker.subscriptions.leave(one, KEY)
    worker.subscriptions.leave(two, KEY)
    assert worker.sent() == [m.Unsubscribe(KEY)]


@pytest.mark.parametrize("many", [1, 15, 16, 17, 40])
def test_a_room_of_any_size_has_who_joined_and_not_who_left(many: int) -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(many)]
    worker.join(connections[0], PLAIN)
    (sent,) = worker.sent()
    number = sent.number
    worker.answer(number)
    for connection in connections[1:]:
        worker.join(connection, PLAIN)
    channel = worker.subscriptions.get(KEY)
    assert channel is not None
    assert list(channel.subscribers) == connections
    for connection in connections[::2]:
        worker.subscriptions.leave(connection, KEY)
        worker.subscriptions.leave(connection, KEY)
    assert list(channel.subscribers) == connections[1::2]
    for connection in connections[1::2]:
        worker.subscriptions.leave(connection, KEY)
    assert len(channel.subscribers) == len(worker.subscriptions) == 0


# ---- presence


def test_the_first_connection_of_a_user_enters_and_the_others_know_the_members() -> None:
    worker = Worker()
    first, second, third = (worker.connection() for _ in range(3))
    assert worker.join(first, present("ann")) is None
    assert worker.join(second, present("ann")) is None
    subscribe, enter = worker.sent()
    assert subscribe == m.Subscribe(KEY, LABEL)
    assert enter == m.Call(enter.number, m.PresenceJoin(KEY, "ann", '"ann"', 100))
    completed = worker.answer(enter.number, payload={"eve": '"eve"', "ann": '"ann"'})
    members = {"eve": '"eve"', "ann": '"ann"'}
    assert completed.joins == [(c, present("ann"), m.OK) for c in (first, second)]
    assert worker.members == members
    assert completed.recipients == []
    assert worker.join(third, present("ann")) == (m.OK, members)
    for connection in (first, second):
        worker.subscriptions.leave(connection, KEY)
    assert worker.sent() == []
    worker.subscriptions.leave(third, KEY)
    assert worker.sent() == [m.PresenceLeave(KEY, "ann"), m.Unsubscribe(KEY)]


def test_members_are_told_once_and_never_to_the_user_himself() -> None:
    worker = Worker()
    ann = worker.member("ann", "eve")
    bob = worker.connection()
    worker.join(bob, present("bob"))
    (sent,) = worker.sent()
    number = sent.number
    change = worker.subscriptions.changed(m.Members(KEY, False, [("bob", '"bob"')], []))
    assert told(change) == (["bob"], [])
    assert change is not None
    assert (change.channel.label, change.channel.subscribers) == (LABEL, {ann: "ann"})
    assert worker.subscriptions.changed(m.Members(KEY, False, [("bob", '"bob"')], ["nobody"])) is None
    completed = worker.answer(number, payload={"ann": '"ann"', "eve": '"eve"', "bob": '"bob"'})
    assert (completed.change, len(completed.joins)) == (None, 1)
    change = worker.subscriptions.changed(m.Members(KEY, False, [], ["eve"]))
    assert told(change) == ([], ["eve"])
    assert change is not None
    assert change.channel.subscribers == {ann: "ann", bob: "bob"}
    assert worker.subscriptions.changed(m.Members(KEY, False, [], ["eve"])) is None


def test_all_members_at_once_are_compared_and_who_is_here_stays() -> None:
    worker = Worker()
    worker.member("ann", "eve", "bob")
    assert (
        worker.subscriptions.changed(m.Members(KEY, True, [(user, "") for user in ("ann", "eve", "bob")], [])) is None
    )
    assert told(worker.subscriptions.changed(m.Members(KEY, True, [("eve", ""), ("joe", "")], []))) == (
        ["joe"],
        ["bob"],
    )
    assert told(worker.subscriptions.changed(m.Members(KEY, True, [], []))) == ([], ["eve", "joe"])
    assert worker.subscriptions.changed(m.Members(b"x" * 16, True, [("eve", "")], [])) is None


def test_what_an_answer_brings_is_told_to_those_who_were_there_before() -> None:
    worker = Worker()
    ann = worker.member("ann")
    bob = worker.connection()
    worker.join(bob, present("bob"))
    (sent,) = worker.sent()
    number = sent.number
    completed = worker.answer(number, payload={"ann": "", "bob": "", "eve": ""})
    assert told(completed.change) == (["bob", "eve"], [])
    assert completed.recipients == [ann]
    assert completed.joins == [(bob, present("bob"), m.OK)]
    assert worker.members == {"ann": '"ann"', "bob": "", "eve": ""}


def test_a_full_channel_refuses_all_who_asked_with_that_user() -> None:
    worker = Worker()
    ann = worker.member("ann")
    first, second = worker.connection(), worker.connection()
    for connection in (first, second):
        worker.join(connection, present("bob", 1))
    (sent,) = worker.sent()
    number = sent.number
    completed = worker.answer(number, m.FULL)
    assert [(c, status) for c, _, status in completed.joins] == [(first, m.FULL), (second, m.FULL)]
    channel = worker.subscriptions.get(KEY)
    assert channel is not None
    assert list(channel.subscribers) == [ann]
    for connection in (first, second, ann):
        worker.subscriptions.leave(connection, KEY)
    assert worker.sent() == [m.PresenceLeave(KEY, "ann"), m.Unsubscribe(KEY)]


def test_the_first_of_a_channel_that_is_full_closes_the_room() -> None:
    worker = Worker()
    connection = worker.connection()
    worker.join(connection, present("bob", 1))
    _, sent = worker.sent()
    number = sent.number
    worker.answer(number, m.FULL)
    assert worker.sent() == [m.Unsubscribe(KEY)]
    assert len(worker.subscriptions) == 0


def test_a_user_who_goes_and_comes_while_he_is_asked_for() -> None:
    worker = Worker()
    ann = worker.member("ann")
    first, second = worker.connection(), worker.connection()
    worker.join(first, present("bob"))
    (sent,) = worker.sent()
    number = sent.number
    worker.subscriptions.leave(first, KEY)
    assert worker.sent() == [m.PresenceLeave(KEY, "bob")]
    worker.join(second, present("bob"))
    (sent,) = worker.sent()
    again = sent.number
    assert worker.subscriptions.replied(number, m.OK, {"ann": "", "bob": ""}) is False
    # What the router says of the first time, and then of the second.
    assert told(worker.subscriptions.changed(m.Members(KEY, False, [("bob", "")], []))) == (["bob"], [])
    assert worker.subscriptions.changed(m.Members(KEY, False, [], ["bob"])) is None
    assert worker.subscriptions.changed(m.Members(KEY, False, [("bob", "")], [])) is None
    completed = worker.answer(again, payload={"ann": "", "bob": ""})
    assert completed.change is None
    channel = worker.subscriptions.get(KEY)
    assert channel is not None
    assert channel.subscribers == {ann: "ann", second: "bob"}


def test_a_user_who_came_back_too_late_is_told_to_have_gone() -> None:
    worker = Worker()
    ann = worker.member("ann")
    bob = worker.member("bob", "ann")
    worker.subscriptions.leave(bob, KEY)
    worker.sent()
    worker.join(bob, present("bob", 2))
    (sent,) = worker.sent()
    number = sent.number
    assert worker.subscriptions.changed(m.Members(KEY, False, [], ["bob"])) is None
    completed = worker.answer(number, m.FULL)
    assert told(completed.change) == ([], ["bob"])
    assert completed.recipients == [ann]


# ---- for a router that knows nothing


def test_everything_that_is_held_is_announced_with_its_members() -> None:
    worker = Worker()
    worker.member("ann", "eve")
    worker.join(worker.connection(), present("ann"))
    waiting = worker.connection()
    worker.join(waiting, present("bob"))
    hidden = m.channel_key("pusher", "app", "#server-to-user-1")
    worker.join(worker.connection(), Subscription(hidden, hidden=True))
    *_, sent = worker.sent()
    number = sent.number
    worker.answer(number)
    assert list(worker.subscriptions.held(0)) == [
        [m.HeldChannel(KEY, LABEL, 2, [("ann", '"ann"')]), m.HeldChannel(hidden, "", 0, [])],
    ]
    assert worker.sent() == []
    worker.subscriptions.counts()
    assert worker.sent() == []  # it has just been said


def test_very_much_is_announced_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "ANNOUNCE_CHUNK", 4)
    worker = Worker()
    for number in range(6):
        worker.member(f"u{number}")
    for number in range(3):
        worker.join(worker.connection(), Subscription(bytes([number]) * 16, f"pusher\0app\0c{number}"))
    parts = list(worker.subscriptions.held(0))
    assert all(len(part) + sum(len(held.members) for held in part) <= 4 for part in parts)
    members = [user for part in parts for held in part if held.channel == KEY for user, _ in held.members]
    assert sorted(members) == [f"u{number}" for number in range(6)]
    assert {held.subscribers for part in parts for held in part if held.channel == KEY} == {6}
    assert len({held.channel for part in parts for held in part}) == 4
    assert list(Worker().subscriptions.held(0)) == []
