"""WebPush, device side: broadcasts."""

import json
from typing import Any

import pytest
from support.webpush_device import Device, hello, refused, tracker

from farm.dialects.webpush.broadcasts import NOT_FOLLOWED, NOT_FOUND
from farm.dialects.webpush.dialect import WebPushDialect
from farm.worker import broadcasts as scan
from farm.worker.broadcasts import BroadcastScan
from farm.worker.connection import OPEN, Connection

STEP = 50


def test_hello_tells_what_differs_and_what_is_unknown() -> None:
    device = Device(tracker(a="1", b="2", c="3")).greeted(broadcasts={"a": "1", "b": "1", "d": "9"})
    assert device.told == {"b": "2", "errors": {"d": NOT_FOUND}}


@pytest.mark.parametrize("broadcasts", [None, {}])
def test_who_names_no_broadcast_is_told_none(broadcasts: Any) -> None:
    device = Device(tracker(a="1")).greeted(broadcasts=broadcasts)
    assert device.told == {}
    device.dialect.broadcasts.changed("a", "2")
    assert device.news() == []


def test_followers_are_told_what_changed_and_each_change_once() -> None:
    made = tracker(a="1", b="1")
    device = Device(made).greeted(broadcasts={"a": "1", "b": "1", "late": "1"})
    assert device.news() == []
    assert made.broadcasts.changed("a", "2")
    assert made.broadcasts.changed("a", "3")
    assert made.broadcasts.changed("other", "1")
    assert device.news() == [{"messageType": "broadcast", "broadcasts": {"a": "3"}}]
    assert device.news() == []
    assert made.broadcasts.changed("late", "1")
    assert made.broadcasts.changed("b", "2")
    assert device.news() == [{"messageType": "broadcast", "broadcasts": {"b": "2", "late": "1"}}]
    # Who says hello after a change has heard of it in the reply.
    assert Device(made).greeted(broadcasts={"a": "1"}).news() == []


def test_what_the_router_says_again_is_no_news() -> None:
    made = tracker(a="1")
    assert not made.broadcasts.changed("a", "1")
    assert not made.broadcasts.changed("a", None)
    assert not made.broadcasts.changed("never", None)
    assert Device(made).greeted(broadcasts={"a": "1"}).told == {"errors": {"a": NOT_FOUND}}
    assert made.broadcasts.changed("a", "1")


def test_what_a_router_that_came_back_does_not_tell_has_gone() -> None:
    made = tracker(a="1", b="1", c="1")
    news = BroadcastScan({"webpush": made.broadcasts})
    table = connections(made, 1, {"a": "1", "b": "1", "c": "1"})
    news.renewed()
    news.broadcast_changed("webpush", "a", "1")
    news.broadcast_changed("webpush", "c", "2")
    assert made.broadcasts.compare({"b": "1"}) == ({}, {})
    news.complete()
    news.complete()
    told = [json.loads(effect) for _, effects in news.step(table) for effect in effects]
    assert told == [{"messageType": "broadcast", "broadcasts": {"c": "2"}}]
    device = Device(made).greeted(broadcasts={"a": "1", "b": "1"})
    assert device.told == {"errors": {"b": NOT_FOUND}}


def test_broadcast_subscribe() -> None:
    made = tracker(a="1", b="2")
    device = Device(made).greeted(broadcasts={"a": "1"})
    assert device.send({"messageType": "broadcast_subscribe", "broadcasts": {"b": "2"}}) == []
    (reply,) = device.send({"messageType": "broadcast_subscribe", "broadcasts": {"b": "1", "c": "1"}})
    assert reply == {"messageType": "broadcast", "broadcasts": {"b": "2", "errors": {"c": NOT_FOUND}}}
    assert device.send({"messageType": "broadcast_subscribe", "broadcasts": {}}) == []
    for broadcast in "abc":
        made.broadcasts.changed(broadcast, "new")
    assert device.news() == [{"messageType": "broadcast", "broadcasts": {"a": "new", "b": "new", "c": "new"}}]
    refused(device, {"messageType": "broadcast_subscribe", "broadcasts": ["a"]})


def test_a_device_follows_so_many_and_no_more() -> None:
    most = {f"{number}": "" for number in range(3)}
    assert len(Device(max_broadcasts=3).greeted(broadcasts=most).told["errors"]) == 3
    refused(Device(max_broadcasts=3), hello(broadcasts=most | {"one more": ""}))
    device = Device(max_broadcasts=3).greeted(broadcasts=most)
    device.send({"messageType": "broadcast_subscribe", "broadcasts": {"0": "", "1": ""}})
    assert device.closed is None
    refused(device, {"messageType": "broadcast_subscribe", "broadcasts": {"one more": ""}})


def test_a_set_is_kept_once_and_only_while_somebody_follows_it() -> None:
    made = Device(max_broadcast_sets=2).dialect
    made.broadcasts.changed("a", "1")
    first = Device(made).greeted(broadcasts={"a": "1", "b": "1"})
    same = Device(made).greeted(broadcasts={"b": "2", "a": "2"})
    assert first.session._follows is same.session._follows
    second = Device(made).greeted(broadcasts={"c": "1"})
    third = Device(made).greeted(broadcasts={"a": "0"})
    assert third.told == {"a": "1", "errors": {"a": NOT_FOLLOWED}}
    assert third.session._follows is None
    del second
    (reply,) = third.send({"messageType": "broadcast_subscribe", "broadcasts": {"a": "0"}})
    assert reply["broadcasts"] == {"a": "1"}
    assert third.session._follows is not None


def connections(dialect_: WebPushDialect, count: int, broadcasts: dict[str, str]) -> dict[int, Connection]:
    found = {}
    for fd in range(3, 3 + count):
        connection = Connection(fd, 0, 0.0)
        connection.phase = OPEN
        connection.session = Device(dialect_).greeted(broadcasts=broadcasts).session
        found[fd] = connection
    return found


def test_a_walk_tells_everybody_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STEP", STEP)
    made = tracker(a="1")
    table = connections(made, STEP + 10, {"a": "1"})
    news = BroadcastScan({"webpush": made.broadcasts})
    assert list(news.step(table)) == []
    news.broadcast_changed("elsewhere", "a", "2")
    assert list(news.step(table)) == []
    news.broadcast_changed("webpush", "a", "2")
    heard = [[connection.fd for connection, effects in news.step(table) if list(effects)] for _ in range(3)]
    assert [len(part) for part in heard] == [STEP - 3, 13, 0]
    assert sorted(heard[0] + heard[1]) == sorted(table)


def test_what_changes_behind_a_walk_is_told_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "STEP", STEP)
    made = tracker(a="1")
    table = connections(made, STEP, {"a": "1"})
    news = BroadcastScan({"webpush": made.broadcasts})
    news.broadcast_changed("webpush", "a", "2")
    told: dict[int, list[Any]] = {}
    changed = False
    for _ in range(5):
        for connection, effects in news.step(table):
            told.setdefault(connection.fd, []).extend(json.loads(one)["broadcasts"]["a"] for one in effects)
        if not changed:
            changed = True
            news.broadcast_changed("webpush", "a", "3")
            del table[STEP + 2]  # and somebody goes meanwhile
    assert told.pop(3) == ["2", "3"]
    assert told.pop(STEP + 1) == ["3"]
    assert STEP + 2 not in told
    assert list(news.step(table)) == []
