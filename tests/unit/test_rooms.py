"""The rooms of a worker: what the router is told of them, and who of a room's connections is told what."""

import itertools
from typing import Any, NamedTuple

import pytest

from farm.dialects import Join
from farm.worker.connection import OPEN, Connection
from farm.worker.fanout import FanOuts
from farm.worker.subscriptions import Change, Rooms
from router.common import messages as v

NAME = "presence-room"
LABEL = v.channel_label("pusher", "app", NAME)
KEY = v.channel_key("pusher", "app", NAME)
PLAIN = Join(KEY, LABEL)
HIDDEN = Join(KEY, hidden=True)


def present(user: str, most: int = 100) -> Join:
    return Join(KEY, LABEL, user, f'"{user}"', most)


class Answered(NamedTuple):
    """What came of an answer."""

    joins: list[tuple[Connection, Join]]
    change: Change | None
    audience: list[Connection]
    """Who is told of the change."""


class Worker:
    """Rooms, and what they said to the router."""

    def __init__(self) -> None:
        self.words: list[Any] = []
        self.rooms = Rooms(self.words.append, itertools.count(1).__next__, FanOuts(1000))
        self._fd = 100

    def connection(self) -> Connection:
        self._fd += 1
        connection = Connection(self._fd, 0, 0.0)
        connection.phase = OPEN
        return connection

    def said(self) -> list[Any]:
        words = self.words[:]
        self.words.clear()
        return words

    def answer(self, number: int, status: int = v.OK, payload: Any = None) -> Answered:
        completed = self.rooms.answered(number, status, payload)
        assert completed is not None
        audience = list(completed.room.subscribers)
        joins = self.rooms.admit(completed)
        for connection, _ in joins:
            connection.ask = 0
        return Answered(joins, completed.change, audience)

    @property
    def members(self) -> dict[str, str]:
        room = self.rooms.get(KEY)
        assert room is not None
        assert room.presence is not None
        return room.presence.members

    def member(self, user: str, *others: str) -> Connection:
        """A connection that is in the presence channel, with these others known there too."""
        connection = self.connection()
        if self.rooms.join(connection, present(user)) is None:
            ((*_, enter),) = [self.said()]
            self.answer(enter[1], payload={name: f'"{name}"' for name in (*others, user)})
        assert self.said() == []
        return connection


def told(change: Change | None) -> Any:
    assert change is not None
    return [user for user, _ in change.added], [user for user, _ in change.removed]


# ---- channels without members


def test_the_router_is_asked_once_and_everybody_waits_for_its_answer() -> None:
    worker = Worker()
    first, second, third = (worker.connection() for _ in range(3))
    assert worker.rooms.join(first, PLAIN) is None
    assert worker.rooms.join(second, PLAIN) is None
    ((kind, number, *rest),) = worker.said()
    assert (kind, rest) == (v.SUBSCRIBE, [KEY, -1, LABEL])
    assert first.ask == second.ask == number
    assert worker.answer(number).joins == [(first, PLAIN), (second, PLAIN)]
    assert worker.rooms.join(third, PLAIN) == (v.OK, None)
    room = worker.rooms.get(KEY)
    assert room is not None
    assert list(room.subscribers) == [first, second, third]
    assert worker.rooms.answered(number, v.OK, None) is None
    assert worker.said() == []


def test_the_last_one_closes_the_room_and_a_new_one_opens_it_anew() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.rooms.join(first, PLAIN)
    ((_, number, *_),) = worker.said()
    worker.answer(number)
    worker.rooms.join(second, PLAIN)
    worker.rooms.leave(first, KEY)
    worker.rooms.leave(first, KEY)
    assert worker.said() == []
    worker.rooms.leave(second, KEY)
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]
    assert len(worker.rooms) == 0
    worker.rooms.leave(second, KEY)
    assert worker.said() == []
    worker.rooms.join(second, PLAIN)
    assert [word[0] for word in worker.said()] == [v.SUBSCRIBE]


def test_who_goes_while_he_waits_takes_nobody_with_him() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.rooms.join(first, PLAIN)
    worker.rooms.join(second, PLAIN)
    ((_, number, *_),) = worker.said()
    worker.rooms.leave(first, KEY)
    assert worker.said() == []
    assert worker.answer(number).joins == [(second, PLAIN)]


def test_an_answer_for_those_who_have_all_gone_changes_nothing() -> None:
    worker = Worker()
    first, second = worker.connection(), worker.connection()
    worker.rooms.join(first, PLAIN)
    ((_, number, *_),) = worker.said()
    worker.rooms.leave(first, KEY)
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]
    worker.rooms.join(second, PLAIN)
    ((_, again, *_),) = worker.said()
    assert worker.rooms.answered(number, v.OK, None) is None
    assert worker.answer(again).joins == [(second, PLAIN)]


def test_a_refused_room_is_no_room() -> None:
    worker = Worker()
    connection = worker.connection()
    worker.rooms.join(connection, PLAIN)
    ((_, number, *_),) = worker.said()
    assert worker.answer(number, v.FAILED).joins == [(connection, PLAIN)]
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]
    assert len(worker.rooms) == 0


def test_subscribers_are_counted_when_they_are_more_or_fewer_than_the_router_knows() -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(5)]
    worker.rooms.join(connections[0], PLAIN)
    ((_, number, *_),) = worker.said()
    worker.rooms.counts()
    worker.answer(number)
    worker.rooms.counts()
    assert worker.said() == []  # SUBSCRIBE was one already
    for connection in connections[1:]:
        worker.rooms.join(connection, PLAIN)
    assert worker.said() == []
    worker.rooms.counts()
    worker.rooms.counts()
    assert worker.said() == [(v.COUNT, KEY, 5)]
    worker.rooms.leave(connections[0], KEY)
    worker.rooms.join(connections[0], PLAIN)
    worker.rooms.counts()
    assert worker.said() == []
    for connection in connections[2:]:
        worker.rooms.leave(connection, KEY)
    worker.rooms.counts()
    assert worker.said() == [(v.COUNT, KEY, 2)]
    for connection in connections:
        worker.rooms.leave(connection, KEY)
    worker.rooms.counts()
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]


def test_a_channel_without_a_label_is_not_counted() -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(3)]
    worker.rooms.join(connections[0], Join(KEY))
    ((_, number, *rest),) = worker.said()
    assert rest == [KEY, -1, ""]
    worker.answer(number)
    for connection in connections[1:]:
        worker.rooms.join(connection, Join(KEY))
    worker.rooms.counts()
    assert worker.said() == []


def test_hidden_ones_hold_the_room_but_are_neither_counted_nor_subscribers() -> None:
    worker = Worker()
    one, two = worker.connection(), worker.connection()
    worker.rooms.join(one, HIDDEN)
    ((_, number, *rest),) = worker.said()
    assert rest == [KEY, -1, ""]
    worker.answer(number)
    room = worker.rooms.get(KEY)
    assert room is not None
    assert (list(room.subscribers), list(room.hidden or ())) == ([], [one])
    worker.rooms.join(two, HIDDEN)
    assert worker.rooms.join(one, PLAIN) == (v.OK, None)  # now it wants the events
    assert worker.said() == [(v.SUBSCRIBE, 0, KEY, -1, LABEL)]
    assert (list(room.subscribers), list(room.hidden or ())) == ([one], [two])
    assert worker.rooms.join(one, PLAIN) == (v.OK, None)
    assert worker.rooms.join(one, HIDDEN) == (v.OK, None)
    worker.rooms.counts()
    assert worker.said() == [(v.COUNT, KEY, 0)]
    assert (list(room.subscribers), list(room.hidden or ())) == ([], [two, one])
    worker.rooms.leave(one, KEY)
    worker.rooms.leave(two, KEY)
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]


@pytest.mark.parametrize("many", [1, 15, 16, 17, 40])
def test_a_room_of_any_size_has_who_joined_and_not_who_left(many: int) -> None:
    worker = Worker()
    connections = [worker.connection() for _ in range(many)]
    worker.rooms.join(connections[0], PLAIN)
    ((_, number, *_),) = worker.said()
    worker.answer(number)
    for connection in connections[1:]:
        worker.rooms.join(connection, PLAIN)
    room = worker.rooms.get(KEY)
    assert room is not None
    assert list(room.subscribers) == connections
    for connection in connections[::2]:
        worker.rooms.leave(connection, KEY)
        worker.rooms.leave(connection, KEY)
    assert list(room.subscribers) == connections[1::2]
    for connection in connections[1::2]:
        worker.rooms.leave(connection, KEY)
    assert len(room.subscribers) == len(worker.rooms) == 0


# ---- presence


def test_the_first_connection_of_a_user_enters_and_the_others_know_the_members() -> None:
    worker = Worker()
    first, second, third = (worker.connection() for _ in range(3))
    assert worker.rooms.join(first, present("ann")) is None
    assert worker.rooms.join(second, present("ann")) is None
    subscribe, enter = worker.said()
    assert subscribe == (v.SUBSCRIBE, 0, KEY, -1, LABEL)
    assert enter == (v.PRESENCE_JOIN, first.ask, KEY, "ann", '"ann"', 100)
    assert second.ask == first.ask
    completed = worker.answer(first.ask, payload={"eve": '"eve"', "ann": '"ann"'})
    members = {"eve": '"eve"', "ann": '"ann"'}
    assert completed.joins == [(c, present("ann")) for c in (first, second)]
    assert worker.members == members
    assert completed.audience == []
    assert worker.rooms.join(third, present("ann")) == (v.OK, members)
    for connection in (first, second):
        worker.rooms.leave(connection, KEY)
    assert worker.said() == []
    worker.rooms.leave(third, KEY)
    assert worker.said() == [(v.PRESENCE_LEAVE, KEY, "ann"), (v.UNSUBSCRIBE, KEY)]


def test_members_are_told_once_and_never_to_the_user_himself() -> None:
    worker = Worker()
    ann = worker.member("ann", "eve")
    bob = worker.connection()
    worker.rooms.join(bob, present("bob"))
    ((_, number, *_),) = worker.said()
    change = worker.rooms.members([v.MEMBERS, KEY, False, [["bob", '"bob"']], []])
    assert told(change) == (["bob"], [])
    assert change is not None
    assert (change.room.label, change.room.subscribers) == (LABEL, {ann: "ann"})
    assert worker.rooms.members([v.MEMBERS, KEY, False, [["bob", '"bob"']], ["nobody"]]) is None
    completed = worker.answer(number, payload={"ann": '"ann"', "eve": '"eve"', "bob": '"bob"'})
    assert (completed.change, len(completed.joins)) == (None, 1)
    change = worker.rooms.members([v.MEMBERS, KEY, False, [], ["eve"]])
    assert told(change) == ([], ["eve"])
    assert change is not None
    assert change.room.subscribers == {ann: "ann", bob: "bob"}
    assert worker.rooms.members([v.MEMBERS, KEY, False, [], ["eve"]]) is None


def test_all_members_at_once_are_compared_and_who_is_here_stays() -> None:
    worker = Worker()
    worker.member("ann", "eve", "bob")
    assert worker.rooms.members([v.MEMBERS, KEY, True, [[user, ""] for user in ("ann", "eve", "bob")], []]) is None
    assert told(worker.rooms.members([v.MEMBERS, KEY, True, [["eve", ""], ["joe", ""]], []])) == (["joe"], ["bob"])
    assert told(worker.rooms.members([v.MEMBERS, KEY, True, [], []])) == ([], ["eve", "joe"])
    assert worker.rooms.members([v.MEMBERS, b"x" * 16, True, [["eve", ""]], []]) is None


def test_what_an_answer_brings_is_told_to_those_who_were_there_before() -> None:
    worker = Worker()
    ann = worker.member("ann")
    bob = worker.connection()
    worker.rooms.join(bob, present("bob"))
    ((_, number, *_),) = worker.said()
    completed = worker.answer(number, payload={"ann": "", "bob": "", "eve": ""})
    assert told(completed.change) == (["bob", "eve"], [])
    assert completed.audience == [ann]
    assert completed.joins == [(bob, present("bob"))]
    assert worker.members == {"ann": '"ann"', "bob": "", "eve": ""}


def test_a_full_channel_refuses_all_who_asked_with_that_user() -> None:
    worker = Worker()
    ann = worker.member("ann")
    first, second = worker.connection(), worker.connection()
    for connection in (first, second):
        worker.rooms.join(connection, present("bob", 1))
    ((_, number, *_),) = worker.said()
    completed = worker.answer(number, v.FULL)
    assert [c for c, _ in completed.joins] == [first, second]
    room = worker.rooms.get(KEY)
    assert room is not None
    assert list(room.subscribers) == [ann]
    for connection in (first, second, ann):
        worker.rooms.leave(connection, KEY)
    assert worker.said() == [(v.PRESENCE_LEAVE, KEY, "ann"), (v.UNSUBSCRIBE, KEY)]


def test_the_first_of_a_channel_that_is_full_closes_the_room() -> None:
    worker = Worker()
    connection = worker.connection()
    worker.rooms.join(connection, present("bob", 1))
    _, (_, number, *_) = worker.said()
    worker.answer(number, v.FULL)
    assert worker.said() == [(v.UNSUBSCRIBE, KEY)]
    assert len(worker.rooms) == 0


def test_a_user_who_goes_and_comes_while_he_is_asked_for() -> None:
    worker = Worker()
    ann = worker.member("ann")
    first, second = worker.connection(), worker.connection()
    worker.rooms.join(first, present("bob"))
    ((_, number, *_),) = worker.said()
    worker.rooms.leave(first, KEY)
    assert worker.said() == [(v.PRESENCE_LEAVE, KEY, "bob")]
    worker.rooms.join(second, present("bob"))
    ((_, again, *_),) = worker.said()
    assert worker.rooms.answered(number, v.OK, {"ann": "", "bob": ""}) is None
    # What the router says of the first time, and then of the second.
    assert told(worker.rooms.members([v.MEMBERS, KEY, False, [["bob", ""]], []])) == (["bob"], [])
    assert worker.rooms.members([v.MEMBERS, KEY, False, [], ["bob"]]) is None
    assert worker.rooms.members([v.MEMBERS, KEY, False, [["bob", ""]], []]) is None
    completed = worker.answer(again, payload={"ann": "", "bob": ""})
    assert completed.change is None
    room = worker.rooms.get(KEY)
    assert room is not None
    assert room.subscribers == {ann: "ann", second: "bob"}


def test_a_user_who_came_back_too_late_is_told_to_have_gone() -> None:
    worker = Worker()
    ann = worker.member("ann")
    bob = worker.member("bob", "ann")
    worker.rooms.leave(bob, KEY)
    worker.said()
    worker.rooms.join(bob, present("bob", 2))
    ((_, number, *_),) = worker.said()
    assert worker.rooms.members([v.MEMBERS, KEY, False, [], ["bob"]]) is None
    completed = worker.answer(number, v.FULL)
    assert told(completed.change) == ([], ["bob"])
    assert completed.audience == [ann]


# ---- for a router that knows nothing


def test_everything_that_is_held_is_announced_with_its_members() -> None:
    worker = Worker()
    worker.member("ann", "eve")
    worker.rooms.join(worker.connection(), present("ann"))
    waiting = worker.connection()
    worker.rooms.join(waiting, present("bob"))
    hidden = v.channel_key("pusher", "app", "#server-to-user-1")
    worker.rooms.join(worker.connection(), Join(hidden, hidden=True))
    *_, (_, number, *_) = worker.said()
    worker.answer(number)
    assert list(worker.rooms.held()) == [
        [[KEY, LABEL, 2, [["ann", '"ann"']]], [hidden, "", 0, []]],
    ]
    assert worker.said() == []
    worker.rooms.counts()
    assert worker.said() == []  # it has just been said


def test_very_much_is_announced_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v, "ANNOUNCE_CHUNK", 4)
    worker = Worker()
    for number in range(6):
        worker.member(f"u{number}")
    for number in range(3):
        worker.rooms.join(worker.connection(), Join(bytes([number]) * 16, f"pusher\0app\0c{number}"))
    parts = list(worker.rooms.held())
    assert all(len(part) + sum(len(entry[3]) for entry in part) <= 4 for part in parts)
    members = [user for part in parts for key, _, count, users in part if key == KEY for user, _ in users]
    assert sorted(members) == [f"u{number}" for number in range(6)]
    assert {count for part in parts for key, _, count, _ in part if key == KEY} == {6}
    assert len({entry[0] for part in parts for entry in part}) == 4
    assert list(Worker().rooms.held()) == []
