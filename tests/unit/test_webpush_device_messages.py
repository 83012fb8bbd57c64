"""WebPush, device side: notifications and what acknowledges them; pings and time."""

from typing import Any

import pytest
from support.webpush_device import CHANNEL, KEY, OTHER, Device, hello, item, note, refused

from farm.dialects import DeviceSession
from router.common import messages as m

# ---- notifications and acks


def test_a_notification_is_one_message() -> None:
    device = Device().greeted()
    assert device.delivered(*item(5)[:2]) == note(5)
    assert device.delivered(*item(6, OTHER, "topic")[:2]) == note(6, OTHER, "topic")
    assert note(5)["version"] != note(6, OTHER, "topic")["version"]
    empty = device.delivered(*item(7)[:2], None)
    assert empty == {"messageType": "notification", "channelID": CHANNEL, "version": note(7)["version"]}
    assert device.counters.updates_sent == 3


def test_hello_is_followed_by_the_first_batch_and_each_ack_of_all_by_the_next() -> None:
    device = Device(batch=3).greeted(item(9, CHANNEL, "t"), item(1), item(2, OTHER))
    assert device.notes == [note(9, CHANNEL, "t"), note(1), note(2, OTHER)]
    assert device.ack(note(1)) == device.ack(note(9, CHANNEL, "t")) == []
    assert device.call is None
    assert device.ack(note(2, OTHER)) == []
    assert device.request() == m.Fetch(KEY, 3)
    assert device.answer(m.OK, [item(3), item(4)]) == [note(3), note(4)]
    assert device.ack(note(3), note(4)) == []
    assert device.call is None  # the last part was not full
    pairs = [tuple(item(*what)[:2]) for what in ((1,), (9, CHANNEL, "t"), (2, OTHER), (3,), (4,))]
    assert device.acked() == pairs


def test_a_full_batch_may_have_been_the_last() -> None:
    device = Device(batch=1).greeted(item(1))
    device.ack(note(1))
    assert device.answer(m.OK, []) == []
    assert device.call is None
    assert device.delivered(*item(2)[:2]) == note(2)
    device.ack(note(2))
    assert device.call is None


def test_a_batch_that_the_store_failed_ends_the_connection() -> None:
    device = Device(batch=1).greeted(item(1))
    device.ack(note(1))
    device.answer(m.FAILED)
    assert device.closed is not None
    assert device.closed.code == 1013


@pytest.mark.parametrize("code", [100, 101, 102, None, 7])
def test_codes_of_an_ack(code: int | None) -> None:
    device = Device().greeted(item(1))
    update = {"channelID": CHANNEL, "version": note(1)["version"], "code": code}
    assert device.send({"messageType": "ack", "updates": [update]}) == []
    assert device.acked() == [tuple(item(1)[:2])]


def test_what_was_sent_on_an_older_connection_can_be_acknowledged() -> None:
    device = Device().greeted()
    device.ack(note(1), note(2, OTHER, "t"))
    assert device.acked() == [tuple(item(1)[:2]), tuple(item(2, OTHER, "t")[:2])]


@pytest.mark.parametrize("version", ["", "x", "1", "0" * 16 + "#", "0" * 16 + "#a b", "f" * 16, "0" * 17, "\n"])
def test_the_ack_of_an_unknown_version_is_passed_over(version: str) -> None:
    device = Device().greeted(item(1))
    device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": version}]})
    assert device.messages == []
    assert device.closed is None


def test_an_ack_of_nothing_is_none() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "ack", "updates": []}) == []
    assert device.messages == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"updates": None},
        {"updates": {}},
        {"updates": [1]},
        {"updates": [{}]},
        {"updates": [{"channelID": CHANNEL}]},
        {"updates": [{"version": "1"}]},
        {"updates": [{"channelID": CHANNEL, "version": 1}]},
        {"updates": [{"channelID": CHANNEL.upper().replace("1", "A"), "version": "1"}]},
        {"updates": [{"channelID": CHANNEL, "version": "1", "code": "100"}]},
    ],
)
def test_an_ack_with_fields_of_the_wrong_kind(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "ack", **fields})


def test_the_ack_of_a_replaced_message_does_not_acknowledge_the_newer() -> None:
    device = Device().greeted(item(1, CHANNEL, "t"))
    assert device.delivered(*item(2, CHANNEL, "t")[:2]) == note(2, CHANNEL, "t")
    device.ack(note(1, CHANNEL, "t"))
    assert device.acked() == [tuple(item(1, CHANNEL, "t")[:2])]
    assert device.stored(item(2, CHANNEL, "t")) == []
    device.ack(note(2, CHANNEL, "t"))
    assert device.session._flow is None


@pytest.mark.parametrize(("code", "counter"), [(301, "301"), (302, "302"), (303, "303"), (9, "other"), (None, "other")])
def test_a_nack_is_counted_and_changes_nothing(code: int | None, counter: str) -> None:
    device = Device().greeted(item(1))
    assert device.send({"messageType": "nack", "version": note(1)["version"], "code": code}) == []
    assert device.dialect.counts() == {f"nacks_{name}": name == counter for name in ("301", "302", "303", "other")}
    assert device.messages == []
    assert device.closed is None


def test_direct_messages_are_sent_beside_those_that_are_not_acknowledged_up_to_the_window() -> None:
    device = Device(batch=2, max_unacked=4).greeted(item(1), item(2))
    assert device.delivered(*item(3)[:2]) == note(3)
    assert device.delivered(*item(4)[:2]) == note(4)
    assert device.delivered(*item(5)[:2]) is None
    device.ack(note(1))
    assert device.delivered(*item(6)[:2]) == note(6)
    device.ack(note(2), note(3), note(4), note(6))
    assert device.request() == m.Fetch(KEY, 2)
    assert device.answer(m.OK, [item(5)]) == [note(5)]
    device.ack(note(5))
    assert device.call is None


def test_a_message_that_was_refused_is_fetched_though_the_store_held_no_more() -> None:
    device = Device(batch=2, max_unacked=1).greeted()
    device.delivered(*item(1)[:2])
    assert device.delivered(*item(2)[:2]) is None
    device.ack(note(1))
    assert device.answer(m.OK, [item(2)]) == [note(2)]


def test_nothing_is_sent_twice_on_one_connection() -> None:
    device = Device(batch=2).greeted(item(1), item(2))
    device.ack(note(1), note(2))
    assert device.delivered(*item(3)[:2]) == note(3)  # said while the next batch is read, which has it too
    assert device.answer(m.OK, [item(3), item(4)]) == [note(4)]
    assert device.delivered(*item(3)[:2]) is None
    assert device.stored(item(3), item(4)) == []
    device.ack(note(3), note(4))
    assert device.request() == m.Fetch(KEY, 2)
    assert device.answer(m.OK, []) == []


def test_nothing_older_follows_what_was_sent() -> None:
    device = Device(batch=4, max_unacked=2).greeted()
    assert device.delivered(*item(5, CHANNEL, "t")[:2]) == note(5, CHANNEL, "t")  # and refused by the store
    assert device.delivered(*item(4, CHANNEL, "t")[:2]) is None
    assert device.stored(item(3, CHANNEL, "t"), item(1)) == [note(1)]
    assert device.delivered(*item(6, CHANNEL, "t")[:2]) == note(6, CHANNEL, "t")  # it takes the place of the older
    assert device.delivered(*item(7)[:2]) is None


def test_what_was_read_again_is_sent_as_far_as_a_batch_goes() -> None:
    device = Device(batch=2).greeted(item(1))
    assert device.stored(item(4), item(1), item(3), item(2)) == [note(2)]  # however they came, in their order
    assert device.stored(item(1), item(2), item(3), item(4)) == []
    device.ack(note(1), note(2))
    assert device.request() == m.Fetch(KEY, 2)
    # While that question is open, the router may come back once more.
    assert device.stored(item(3), item(4), item(5)) == [note(3), note(4)]
    assert device.answer(m.OK, [item(3), item(4)]) == []
    device.ack(note(3), note(4))
    assert device.answer(m.OK, [item(5)]) == [note(5)]


def test_nothing_is_sent_before_hello_is_answered() -> None:
    device = Device()
    device.send(hello())
    assert not isinstance(device.session, DeviceSession)  # which alone is told what waits


# ---- members


def test_null_is_as_good_as_nothing_and_unknown_members_are_passed_over() -> None:
    more = {"urgency": "low", "more": [{"x": [None]}], "use_webpush": None, "status": None}
    device = Device(min_ping_interval=0)
    device.dialect.broadcasts.changed("b", "2")
    device.dialect.broadcasts.changed("c", "2")
    device.send({"messageType": "hello", "channelIDs": None, "broadcasts": {"b": "1", "c": None}, "uaid": None, **more})
    assert device.answer(m.OK, [[], None])[0]["broadcasts"] == {"b": "2"}
    assert device.send({"messageType": "register", "channelID": CHANNEL, "key": None, **more}) == []
    assert device.answer()[0]["status"] == 200
    device.delivered(*item(1)[:2])
    update = {"channelID": CHANNEL, "version": note(1)["version"], "code": None, **more}
    assert device.send({"messageType": "ack", "updates": [update], **more}) == []
    assert device.acked() == [tuple(item(1)[:2])]
    assert device.send({"messageType": "nack", "version": "x", "code": None, **more}) == []
    said = {"messageType": "broadcast_subscribe", "broadcasts": {"b": None, "c": "1"}, **more}
    assert device.send(said) == [{"messageType": "broadcast", "broadcasts": {"c": "2"}}]
    assert device.send({"messageType": "unregister", "channelID": CHANNEL, "code": None, **more}) == []
    device.answer()
    assert device.answer(m.OK, [])[0]["status"] == 200
    assert device.send({"messageType": "ping", **more}) == [{}]
    assert device.closed is None


@pytest.mark.parametrize("fields", [{"min": "low"}, {"min": None}, {}, {"min": [7]}])
def test_the_least_urgency_that_is_wanted_changes_nothing(fields: dict[str, Any]) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "urgency", **fields}) == [{"messageType": "urgency", "status": 501}]
    assert (device.closed, device.messages, device.call) == (None, [], None)


@pytest.mark.parametrize(
    ("options", "most"), [({"max_unacked": 3, "batch": 2}, 3), ({"max_unacked": 1, "batch": 2}, 2)]
)
def test_no_ack_holds_more_than_can_be_under_way(options: dict[str, int], most: int) -> None:
    for count, closed in ((most, False), (most + 1, True)):
        device = Device(**options).greeted()
        device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": "x"}] * count})
        assert (device.closed is not None) is closed


# ---- ping and time


@pytest.mark.parametrize("ping", ["{}", " { \t\r\n} ", '{"messageType":"ping"}', '{"messageType":"ping","x":1}'])
def test_pings(ping: str) -> None:
    device = Device(min_ping_interval=45).greeted()
    assert device.send(ping) == [{}]
    device.clock.pass_by(45)
    assert device.send(ping) == [{}]
    device.clock.pass_by(44.9)
    assert "ping" in refused(device, ping)
    assert (device.counters.pings, device.counters.pings_too_many) == (2, 1)


def test_without_an_interval_any_number_of_pings() -> None:
    device = Device(min_ping_interval=0).greeted()
    assert [device.send("{}") for _ in range(10)] == [[{}]] * 10


def test_without_hello_in_time_it_is_closed() -> None:
    device = Device(hello_timeout=5)
    assert device.dialect.first_tick == 5
    effects, again = device.session.tick(5)
    assert device.take(effects) == []
    assert again == 0
    assert device.closed is not None
    assert device.closed.code == 1008
    assert device.counters.timeouts == 1
    assert Device().greeted().session.tick(5) == ((), 0)
