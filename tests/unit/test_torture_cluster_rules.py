"""What `make test-cluster` holds against a run besides, and the times that it takes from one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torture.checker import Index, check
from torture.cluster_rules import devices_stay, times, until_back, until_served
from torture.history import ENDED, LINK, SIMPLEPUSH, WIRE, Connection, Fault, History, Push

LOST = Fault("kill-host", 100.0, 110.0, frozenset({LINK}), "b", frozenset({"b"}), frozenset({1}))


def ended(at: float, host: str, how: str = ENDED) -> Connection:
    return Connection(7, "d", 10.0, 10.1, ended=at, how=how, host=host)


@pytest.mark.parametrize(
    ("connection", "fault"),
    [
        (ended(100.1, "b"), LOST),
        (ended(114.0, "b"), LOST),
        (ended(50.0, "b", "reset"), LOST),
        (ended(50.0, ""), LOST),  # it was too short to know where it went
        (ended(140.0, "b"), Fault("cut-devices", 100.0, 110.0, frozenset({WIRE}), hosts=frozenset({"b"}))),
        (Connection(7, "d", 10.0, 10.1, ended=50.0, left=40.0, how=ENDED, host="b"), LOST),
    ],
)
def test_a_device_may_lose_its_connection(connection: Connection, fault: Fault) -> None:
    assert not list(devices_stay(Index(History({7: connection}, faults=[fault]))))


@pytest.mark.parametrize("connection", [ended(100.1, "a"), ended(50.0, "b"), ended(120.0, "b")])
def test_a_device_may_not_lose_its_connection(connection: Connection) -> None:
    history = History({7: connection}, faults=[LOST])
    assert [found.rule for found in check(history, (devices_stay,))] == ["cut off"]
    assert check(history) == []


@pytest.mark.parametrize(("at", "kept"), [(100.1, True), (130.0, False)])
def test_who_comes_back_with_a_position_may_be_let_go_when_a_link_was_lost(at: float, kept: bool) -> None:
    history = History({7: ended(at, "a")}, faults=[LOST], follows={"d": ["channel"]})
    assert (list(devices_stay(Index(history))) == []) is kept


def pushes(good: Callable[[float], bool], channel: str = "1") -> list[Push]:
    moments = [90 + number / 10 for number in range(300)]
    return [Push(SIMPLEPUSH, "d", channel, 1, at, at + 0.05, 200 if good(at) else 503) for at in moments]


def owner(push: Push) -> int:
    return int(push.channel)


def test_the_time_until_pushes_are_accepted_again() -> None:
    history = History(pushes=pushes(lambda at: not 100 <= at < 104.95))
    history.pushes += pushes(lambda at: False, "2")  # those of another router do not count
    assert until_served(history, LOST, owner) == pytest.approx(5.0)
    single = History(pushes=pushes(lambda at: at < 100 or at == 102 or at > 105.95))
    assert until_served(single, LOST, owner) == pytest.approx(6.0)  # one that succeeds in between is not enough
    assert until_served(History(pushes=pushes(lambda at: at < 100)), LOST, owner) is None
    waits = History(pushes=pushes(lambda at: True))
    for push in waits.pushes:  # those of the first three seconds are answered when these are over
        push.answered = max(push.sent + 0.05, 103.0)
    assert until_served(waits, LOST, owner) == pytest.approx(2.1)


def test_the_time_until_devices_are_back() -> None:
    history = History(faults=[LOST], pushes=pushes(lambda at: not 100 <= at < 104.95))
    for number, (end, back) in enumerate(((100.1, 101.0), (100.1, 104.0), (105.0, 106.0)), 1):
        history.connections[number] = Connection(number, f"d{number}", 1, 1, ended=end, how=ENDED, host="b")
        history.connections[number + 10] = Connection(number + 10, f"d{number}", back, back)
    history.connections[20] = Connection(20, "d20", 1, 1, ended=100.1, how="reset", host="b")
    assert until_back(history, LOST) == pytest.approx([1.0, 4.0, 6.0])
    shown = times(history, owner)
    assert shown.startswith("  100.0 s  kill-host b: 95 % of pushes to routers 1 2xx again after 5.0 s; 3 devices back")
    assert shown.endswith("all: 6.0)")
