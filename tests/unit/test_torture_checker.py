"""The checker of `make torture`: it finds nothing in a run that kept every promise, and every one that was broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torture.checker import RULES, Index, Violation, check
from torture.history import (
    CLOCK,
    GOPUSH2,
    LINK,
    PUSHER,
    SIMPLEPUSH,
    STOPPED,
    STORE,
    WEBPUSH,
    Arrival,
    Connection,
    Fault,
    History,
    MemberChange,
    Occupancy,
    Oddity,
    Push,
    Settled,
    Subscribed,
    Told,
)
from torture.report import chosen_first, longest_gap, rest

SP, WP, ROOM, KEY = "sp-channel", "wp-channel", "cache-room", "gopush2-key"
DAY = 86_400
Change = Callable[[History], object]


def push(dialect: str, number: int, sent: float, status: int, **more: object) -> Push:
    client = {SIMPLEPUSH: "sp", WEBPUSH: "wp", PUSHER: "", GOPUSH2: ""}[dialect]
    channel = {SIMPLEPUSH: SP, WEBPUSH: WP, PUSHER: ROOM, GOPUSH2: KEY}[dialect]
    return Push(dialect, client, channel, number, sent, sent + 0.1, status, **more)  # type: ignore[arg-type]


def arrival(dialect: str, connection: int, number: int, at: float, **more: object) -> Arrival:
    client = {SIMPLEPUSH: "sp", WEBPUSH: "wp", PUSHER: "u1", GOPUSH2: "g1"}[dialect]
    channel = {SIMPLEPUSH: SP, WEBPUSH: WP, PUSHER: ROOM, GOPUSH2: KEY}[dialect]
    return Arrival(connection, client, channel, number, at, **more)  # type: ignore[arg-type]


def good() -> History:
    """A run in which nothing went wrong: each client has two connections, one after the other."""
    found = History()
    for number, client in ((1, "sp"), (2, "wp"), (3, "u1"), (4, "g1")):
        found.connections[number] = Connection(number, client, 0.0, 0.2, ended=50.0)
        found.connections[number + 10] = Connection(number + 10, client, 60.0, 60.2)
    found.pushes = [
        push(SIMPLEPUSH, 1, 10, 200, data="a"),
        push(SIMPLEPUSH, 2, 11, 503),
        push(SIMPLEPUSH, 3, 55, 202),
        push(WEBPUSH, 1, 10, 201, ttl=DAY, data="1 x"),
        push(WEBPUSH, 2, 11, 201, ttl=DAY),
        push(WEBPUSH, 3, 12, 201, ttl=0),
        push(WEBPUSH, 4, 52, 201, ttl=DAY, topic="t"),
        push(WEBPUSH, 5, 53, 201, ttl=DAY, topic="t"),
        push(WEBPUSH, 6, 54, 201, ttl=DAY, deleting=54.2, deleted=54.4),
        push(PUSHER, 1, 10, 200),
        push(PUSHER, 2, 20, 200),
        push(GOPUSH2, 1, 10, 200),
        push(GOPUSH2, 2, 11, 0),
        push(GOPUSH2, 3, 12, 200),
        push(GOPUSH2, 4, 55, 200),
    ]
    found.arrivals = [
        arrival(SIMPLEPUSH, 1, 1, 10.1, data="a", acked=10.2, confirmed=10.3),
        arrival(SIMPLEPUSH, 11, 3, 60.2, acked=60.3, confirmed=60.4),
        arrival(WEBPUSH, 2, 1, 10.1, data="1 x", acked=10.2, confirmed=10.3),
        arrival(WEBPUSH, 2, 2, 11.1),
        arrival(WEBPUSH, 12, 5, 60.3),
        arrival(WEBPUSH, 12, 2, 60.4),
        arrival(PUSHER, 3, 1, 10.1),
        arrival(PUSHER, 3, 2, 20.1),
        arrival(PUSHER, 13, 2, 60.6),
        arrival(GOPUSH2, 4, 1, 10.1),
        arrival(GOPUSH2, 4, 3, 12.1),
        arrival(GOPUSH2, 4, 2, 12.2),
        arrival(GOPUSH2, 14, 4, 60.6),
    ]
    found.follows = {"g1": [KEY]}
    found.subscribed = [Subscribed(3, ROOM, 0.2, 0.3, -1), Subscribed(13, ROOM, 60.2, 60.3, 2)]
    found.members = [
        MemberChange(3, "presence-a", "u2", True, 1.0),
        MemberChange(3, "presence-a", "u2", False, 2.0),
        MemberChange(13, "presence-a", "u2", False, 61.0),
    ]
    found.settled = [Settled("presence-a", "u1", frozenset({"u1"}), frozenset({"u1"}))]
    found.webhooks = [Told("channel_vacated", ROOM, 51.0), Told("channel_occupied", ROOM, 61.0)]
    found.occupancy = [Occupancy(ROOM, True, 70.0)]
    return found


def rules_broken(history: History) -> list[str]:
    return [violation.rule for violation in check(history)]


def test_a_good_run() -> None:
    assert check(good()) == []


def replace_push(dialect: str, number: int, **fields: object) -> Change:
    def change(history: History) -> None:
        (one,) = (one for one in history.pushes if one.dialect == dialect and one.number == number)
        for name, value in fields.items():
            setattr(one, name, value)

    return change


def add(*new: Arrival) -> Change:
    def change(history: History) -> None:
        history.arrivals = sorted([*history.arrivals, *new], key=lambda one: one.at)

    return change


def drop(dialect: str, number: int) -> Change:
    channel = {SIMPLEPUSH: SP, WEBPUSH: WP, PUSHER: ROOM, GOPUSH2: KEY}[dialect]

    def change(history: History) -> None:
        history.arrivals = [one for one in history.arrivals if (one.channel, one.number) != (channel, number)]

    return change


def swap(dialect: str, connection: int, first: int, second: int) -> Change:
    def change(history: History) -> None:
        places = [
            place
            for place, one in enumerate(history.arrivals)
            if one.connection == connection and one.number in (first, second)
        ]
        one, other = places
        history.arrivals[one], history.arrivals[other] = history.arrivals[other], history.arrivals[one]

    return change


def one_more_webpush(sent: float) -> Change:
    """Number 7 comes before number 2, which has waited."""

    def change(history: History) -> None:
        history.pushes.append(push(WEBPUSH, 7, sent, 201, ttl=DAY))
        add(arrival(WEBPUSH, 12, 7, 60.35))(history)

    return change


def fault(*touches: str, begin: float, end: float) -> Fault:
    return Fault("any", begin, end, frozenset(touches))


def both(*changes: Change) -> Change:
    def change(history: History) -> None:
        for one in changes:
            one(history)

    return change


def during(*touches: str, begin: float, end: float) -> Change:
    return lambda history: history.faults.append(fault(*touches, begin=begin, end=end))


def subscribed(one: Subscribed) -> Change:
    return lambda history: history.subscribed.append(one)


def without_the_newest(history: History) -> None:
    """Connection 13 never receives event 2."""
    history.arrivals = [one for one in history.arrivals if (one.connection, one.number) != (13, 2)]


def one_more_event(history: History) -> None:
    """What is published after a subscriber has come proves nothing about what it got when it came."""
    history.pushes.append(push(PUSHER, 3, 60.7, 200))
    add(arrival(PUSHER, 13, 3, 60.8))(history)


def late_event(history: History) -> None:
    """Connection 13 first receives what was sent long before it came."""
    history.subscribed[1] = Subscribed(13, ROOM, 60.2, 60.3, 1)
    add(arrival(PUSHER, 13, 1, 60.3))(history)


BROKEN: list[tuple[str, Change]] = [
    ("answers", replace_push(SIMPLEPUSH, 2, status=404)),
    ("answers", replace_push(WEBPUSH, 2, status=410)),
    ("answers", replace_push(PUSHER, 2, status=500)),
    ("lost", drop(SIMPLEPUSH, 3)),
    ("lost", drop(WEBPUSH, 2)),
    ("lost", drop(WEBPUSH, 5)),
    ("false 200", drop(SIMPLEPUSH, 1)),
    ("twice", add(arrival(SIMPLEPUSH, 11, 3, 62))),
    ("twice", add(arrival(WEBPUSH, 12, 2, 62))),
    ("twice", add(arrival(PUSHER, 3, 2, 22))),
    ("order", add(arrival(SIMPLEPUSH, 11, 2, 62))),
    ("order", swap(WEBPUSH, 2, 1, 2)),
    ("order", one_more_webpush(sent=56)),
    ("order", swap(PUSHER, 3, 1, 2)),
    ("acked came again", add(arrival(SIMPLEPUSH, 11, 1, 60.1))),
    ("acked came again", add(arrival(WEBPUSH, 12, 1, 62))),
    ("older version", add(arrival(SIMPLEPUSH, 11, 2, 60.1))),
    ("replaced came", add(arrival(WEBPUSH, 12, 4, 60.1))),
    ("deleted came", add(arrival(WEBPUSH, 12, 6, 62))),
    ("kept too long", add(arrival(WEBPUSH, 12, 3, 62))),
    ("kept too long", replace_push(WEBPUSH, 2, ttl=4)),
    ("changed", replace_push(SIMPLEPUSH, 1, data="b")),
    ("changed", replace_push(WEBPUSH, 1, data="1 y")),
    ("invented", add(arrival(WEBPUSH, 12, 77, 62))),
    ("not replayed", drop(GOPUSH2, 4)),
    ("not replayed", drop(GOPUSH2, 3)),
    ("had already", add(arrival(GOPUSH2, 14, 3, 60.3))),
    ("behind newer", both(drop(GOPUSH2, 3), add(arrival(GOPUSH2, 14, 3, 60.7)))),
    ("event lost", drop(PUSHER, 1)),
    ("stale cache", both(late_event, without_the_newest)),
    ("stale cache", both(late_event, without_the_newest, one_more_event)),
    ("stale cache", lambda history: history.subscribed.append(Subscribed(13, ROOM, 60.2, 60.3, -1))),
    ("stale cache", both(late_event, without_the_newest, during(STOPPED, begin=58, end=61))),
    ("stale cache", both(subscribed(Subscribed(13, ROOM, 60.2, 60.3, -1)), during(STOPPED, begin=58, end=61))),
    ("member twice", lambda history: history.members.append(MemberChange(3, "presence-a", "u2", False, 3.0))),
    ("presence", lambda history: history.settled.append(Settled("presence-a", "u2", frozenset("ab"), frozenset("a")))),
    ("presence", lambda history: history.settled.append(Settled("presence-a", "u2", frozenset("a"), frozenset("ab")))),
    ("webhook", lambda history: history.webhooks.append(Told("channel_vacated", ROOM, 62.0))),
    ("webhook", lambda history: history.webhooks.clear()),
    ("uaid changed", lambda history: history.oddities.append(Oddity("uaid changed", "a became b", 3.0))),
]


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BROKEN)])
def test_a_promise_that_was_broken(rule: str, change: Change) -> None:
    history = good()
    change(history)
    assert rule in rules_broken(history)


def test_every_rule_can_fail() -> None:
    can_fail = set()
    for _, change in BROKEN:
        history = good()
        change(history)
        violations = check(history)
        for rule in RULES:
            alone = History(**{**vars(history), "oddities": []})
            found = list(rule(Index(alone)))
            if found:
                assert set(found) <= set(violations)
                can_fail.add(rule)
    assert can_fail == set(RULES)


def connection(number: int, **fields: object) -> Change:
    return lambda history: [setattr(history.connections[number], name, value) for name, value in fields.items()]


def unconfirmed(history: History) -> None:
    history.arrivals[0].confirmed = None


def subscribed_late(history: History) -> None:
    history.subscribed[0] = Subscribed(3, ROOM, 10.0, 10.05, -1)


def unfinished(history: History) -> None:
    history.complete = False


ACKED_AGAIN = add(arrival(SIMPLEPUSH, 11, 1, 60.1)), replace_push(SIMPLEPUSH, 3, status=0)
EXCUSED: list[tuple[str, Change]] = [
    ("an ack that nobody confirmed", both(unconfirmed, *ACKED_AGAIN)),
    ("an ack while the disk failed", both(during(STORE, begin=9, end=11), *ACKED_AGAIN)),
    ("200 for a connection that did not last", both(drop(SIMPLEPUSH, 1), connection(1, ended=10.2))),
    ("200 for a connection that nobody read from", both(drop(SIMPLEPUSH, 1), connection(1, left=5.0))),
    ("an event while the link was disturbed", both(drop(PUSHER, 1), during(LINK, begin=8, end=9))),
    ("an event to who came later", both(drop(PUSHER, 1), subscribed_late)),
    ("the place of what nobody answered", both(replace_push(WEBPUSH, 1, status=0), swap(WEBPUSH, 2, 1, 2))),
    ("what is sent now between two batches", one_more_webpush(sent=60.25)),
    ("TTL 0 after a standstill", both(add(arrival(WEBPUSH, 12, 3, 62)), during(STOPPED, begin=11, end=59))),
    ("a TTL by a wrong clock", both(replace_push(WEBPUSH, 2, ttl=4), during(CLOCK, begin=1, end=2))),
    (
        "a cache miss while the disk failed",
        both(subscribed(Subscribed(13, ROOM, 60.2, 60.3, -1)), during(STORE, begin=60, end=61)),
    ),
    ("an event that was on its way, the newest right behind it", late_event),
    (
        "an event from before a standstill, a newer one behind it",
        both(late_event, without_the_newest, one_more_event, during(STOPPED, begin=58, end=61)),
    ),
    (
        "a connection that did not wait for the newest",
        both(late_event, without_the_newest, connection(13, ended=61.0)),
    ),
    ("a message that nobody answered, and that never came", drop(GOPUSH2, 2)),
    ("what is not replayed yet", both(drop(GOPUSH2, 4), unfinished)),
    ("what has not come back yet", both(drop(SIMPLEPUSH, 3), unfinished)),
    ("a message that has expired", both(drop(WEBPUSH, 2), replace_push(WEBPUSH, 2, ttl=4))),
]


@pytest.mark.parametrize(("why", "change"), EXCUSED, ids=[why for why, _ in EXCUSED])
def test_what_was_not_promised(why: str, change: Change) -> None:
    history = good()
    change(history)
    assert check(history) == []


def test_the_longest_time_without_an_accepted_push() -> None:
    history = good()
    assert longest_gap(history, SIMPLEPUSH) == pytest.approx(45.0)
    assert longest_gap(history, PUSHER) == 0.0


def test_some_of_every_rule_are_explained() -> None:
    found = [Violation("event lost", "", float(at)) for at in range(30)] + [Violation("twice", "", 31.0)]
    first, others = chosen_first(found, 5)
    assert [(one.rule, one.at) for one in first] == [("event lost", at) for at in (0, 1, 2, 3)] + [("twice", 31.0)]
    assert [one.at for one in others] == list(range(4, 30))
    lines = rest(others).splitlines()
    assert lines[0] == "and 26 more: {'event lost': 26}"
    assert len(lines) == 27
