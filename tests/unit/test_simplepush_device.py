"""SimplePush, device side: what is said at all, and hello."""

import json
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simplepush_device import (
    ASSIGNED,
    BAD_DEVICE,
    BAD_FIELDS,
    CHANNEL,
    HEADER,
    HYPHENS,
    INVALID,
    MISSING,
    OTHER,
    UAID,
    UNSUPPORTED,
    Device,
    item,
    refused,
    update,
)

from farm.dialects import Close, DeviceSession
from router.common import messages as m
from router.common.uuids import device_key
from router.dialects.simplepush.protocol import DEVICES

# ---- reading


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"{",
        b'{"messageType":"ping"',
        b"{}{}",
        b"{'messageType':'ping'}",
        b"\xff",
        b'{"messageType":"ping","x":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"[" * 100_000,
        b"1" * 5000,
        b"1e9999",
    ],
)
def test_what_is_not_json_closes_without_a_reply(data: bytes) -> None:
    for greeted in (False, True):
        device = Device()
        if greeted:
            device.greeted()
        assert device.send(data, binary=True) == []
        assert device.closed is not None
        assert device.closed.code == 1000


@pytest.mark.parametrize("data", ["1", "-1.5", "null", "true", '"hello"', '""'])
def test_json_that_is_no_object_closes_without_a_reply(data: str) -> None:
    device = Device()
    assert device.send(data) == []
    assert device.closed is not None


@pytest.mark.parametrize("data", ["[]", '[{"messageType":"ping"}]', " [1]"])
def test_an_array_is_answered_and_closed(data: str) -> None:
    device = Device()
    assert device.send(data) == [{"status": 401, "error": INVALID, "reason": HEADER}]
    assert device.closed is not None


def test_an_empty_message_is_ignored() -> None:
    device = Device()
    assert device.send(b"") == device.send(b"", binary=True) == []
    assert device.closed is None


def test_binary_is_read_like_text() -> None:
    device = Device()
    assert device.send(b'{"messageType":"ping"}', binary=True) == [{}]


def test_no_depth_of_nesting_does_more_than_be_refused() -> None:
    limit = sys.getrecursionlimit()
    # From where it is answered to where it is too deep to be read, one step at a time.
    for depth in range(limit - 200, limit + 1):
        device = Device()
        nested = '{"messageType":"nested","a":' + '{"a":' * depth + "1" + "}" * (depth + 1)
        *replies, last = device.session.received(nested.encode(), False, 0.0)
        assert isinstance(last, Close)
        assert last.code == 1000
        assert len(replies) <= 1


def test_an_ack_nested_too_deeply_is_refused() -> None:
    device = Device().greeted()
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    ack = b'{"messageType":"ack","updates":[{"channelID":"%s","version":1,"x":%s}]}' % (CHANNEL.encode(), deep)
    assert device.send(ack) == []
    assert device.closed is not None
    assert device.closed.code == 1000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_answered_or_closed(value: Any) -> None:
    device = Device()
    device.send(json.dumps(value))
    device.send(
        json.dumps({"messageType": "hello", "uaid": value, "channelIDs": value})
    ) if device.closed is None else None
    assert device.closed is not None or device.call is not None or value in ({}, "")


# ---- the header


@pytest.mark.parametrize("kind", [1, 1.5, True, [], {}, ["hello"], {"a": 1}])
def test_a_message_type_that_is_no_text(kind: Any) -> None:
    reply = refused(Device(), {"messageType": kind, "x": [1]}, 401, HEADER)
    assert reply == {"messageType": kind, "x": [1], "status": 401, "error": INVALID, "reason": HEADER}


@pytest.mark.parametrize(
    "command",
    [
        {"messageType": "nonsense"},
        {"messageType": " hello", "channelIDs": []},
        {"messageType": ""},
        {"messageType": None},
        {" messageType": "ping"},
        {"channelIDs": []},
        {"messageType": "notification"},
        {"messageType": "HELLO\0"},
    ],
)
def test_a_message_type_that_is_none_of_ours(command: dict[str, Any]) -> None:
    reply = refused(Device(), command, 401, UNSUPPORTED)
    kind = command.get("messageType")
    echoed = {**command, **({"messageType": kind.lower()} if kind else {})}
    assert reply == {**echoed, "status": 401, "error": INVALID, "reason": UNSUPPORTED}


def test_an_error_echoes_the_whole_request_with_its_type_in_lower_case() -> None:
    command = {
        "MessageType": "HeLLo",
        "uaid": UAID,
        "x": {"y": [1, None, 2**70, "\N{PUSHPIN}\0"]},
        "status": 200,
        "error": 1,
    }
    reply = refused(Device(), command, 401, MISSING)
    assert reply == {
        "messageType": "hello",
        "uaid": UAID,
        "x": command["x"],
        "status": 401,
        "error": INVALID,
        "reason": MISSING,
    }


@pytest.mark.parametrize("kind", ["hello", "HELLO", "HeLLo"])
@pytest.mark.parametrize("key", ["messageType", "messagetype", "MESSAGETYPE", "MessageType"])
def test_keys_and_types_in_any_case(kind: str, key: str) -> None:
    device = Device()
    device.send({key: kind, "UaiD": UAID, "CHANNELids": []})
    assert device.request() == (device_key(UAID), "", m.EVERYTHING)
    assert device.answer(m.OK, [[], None]) == [{"messageType": "hello", "uaid": UAID, "status": 200}]


def test_keys_are_not_trimmed() -> None:
    refused(Device(), {"messageType": "hello", " channelIDs": []}, 401, MISSING)
    refused(Device(), {"messageType": "hello", "channelIDs ": []}, 401, MISSING)


# ---- hello


@pytest.mark.parametrize("fields", [{}, {"channelIDs": None}, {"uaid": UAID}, {"channels": []}])
def test_a_hello_must_list_its_channels(fields: dict[str, Any]) -> None:
    refused(Device(), {"messageType": "hello", **fields}, 401, MISSING)


@pytest.mark.parametrize(
    "fields",
    [
        {"channelIDs": "x"},
        {"channelIDs": {}},
        {"channelIDs": 0},
        {"channelIDs": [], "uaid": 1},
        {"channelIDs": [], "uaid": []},
        {"channelIDs": [], "uaid": False},
    ],
)
def test_a_hello_with_a_field_of_the_wrong_kind(fields: dict[str, Any]) -> None:
    refused(Device(), {"messageType": "hello", **fields}, 401, BAD_FIELDS)


MALFORMED = ["x", "0" * 31, "0" * 33, "0" * 128_000, UAID[:-1] + "g", UAID + " ", "\0", "\N{PUSHPIN}"]


@pytest.mark.parametrize("uaid", MALFORMED)
def test_a_hello_with_a_malformed_uaid(uaid: str) -> None:
    reply = refused(Device(), {"messageType": "hello", "uaid": uaid, "channelIDs": []}, 503, BAD_DEVICE)
    assert reply["uaid"] == uaid
    assert reply["channelIDs"] == []


@pytest.mark.parametrize("uaid", MALFORMED)
def test_a_malformed_uaid_may_get_a_fresh_one(uaid: str) -> None:
    device = Device(malformed_uaid="fresh")
    device.send({"messageType": "hello", "uaid": uaid, "channelIDs": [CHANNEL]})
    key, needs, fetch = device.request()
    assert (needs, fetch) == ("", 0)
    assert device.answer(m.OK, [[], None]) == [{"messageType": "hello", "uaid": key.hex(), "status": 200}]
    refused(Device(malformed_uaid="fresh"), {"messageType": "hello", "uaid": 1, "channelIDs": []}, 401, BAD_FIELDS)


@pytest.mark.parametrize("fields", [{}, {"uaid": ""}, {"uaid": None}])
@pytest.mark.parametrize("channels", [[], [CHANNEL], ["anything", 1, None]])
def test_a_hello_without_a_uaid_gets_a_fresh_one(fields: dict[str, Any], channels: list[Any]) -> None:
    device = Device()
    device.send({"messageType": "hello", "channelIDs": channels, **fields})
    key, needs, fetch = device.request()
    assert (needs, fetch) == ("", 0)
    assert not isinstance(device.session, DeviceSession)
    (reply,) = device.answer(m.OK, [[], None])
    assert reply == {"messageType": "hello", "uaid": key.hex(), "status": 200}
    assert uuid.UUID(reply["uaid"]).version == 4
    assert device.session.key == key


def test_two_fresh_uaids_differ() -> None:
    keys = set()
    for _ in range(20):
        device = Device()
        device.send({"messageType": "hello", "channelIDs": []})
        keys.add(device.request()[0])
    assert len(keys) == 20


@pytest.mark.parametrize("uaid", [UAID, HYPHENS, UAID.upper(), HYPHENS.upper()])
def test_a_hello_without_channels_takes_any_uaid_in_its_own_spelling(uaid: str) -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": uaid, "channelIDs": []})
    assert device.request() == (device_key(uaid), "", m.EVERYTHING)
    assert device.answer(m.OK, [[], None]) == [{"messageType": "hello", "uaid": uaid, "status": 200}]


def test_a_hello_with_channels_needs_a_uaid_that_is_known() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL]})
    assert device.request() == (device_key(UAID), DEVICES, m.EVERYTHING)
    assert device.answer(m.UNKNOWN) == []
    key, needs, fetch = device.request()
    assert (needs, fetch) == ("", 0)
    assert key != device_key(UAID)
    assert device.answer(m.OK, [[], None]) == [{"messageType": "hello", "uaid": key.hex(), "status": 200}]


@pytest.mark.parametrize(("count", "fresh"), [(3, False), (4, True)])
def test_a_hello_with_too_many_channels_gets_a_fresh_uaid_and_deletes_nothing(count: int, fresh: bool) -> None:
    device = Device(max_channels=3)
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL] * count})
    assert (device.request()[0] != device_key(UAID)) is fresh
    device.answer(m.OK, [[], None])
    assert device.messages == []


def test_a_malformed_uaid_is_told_before_its_channels_are_counted() -> None:
    refused(Device(max_channels=1), {"messageType": "hello", "uaid": "x", "channelIDs": [1, 2]}, 503, BAD_DEVICE)


def test_hello_is_followed_by_what_waits_in_one_notification_without_data() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": []})
    hello, note = device.answer(m.OK, [[item(CHANNEL, 5), item(OTHER, 0)], b"long ago"])
    assert hello["status"] == 200
    now = int(device.clock.unix())
    assert note == {"messageType": "notification", "updates": [update(CHANNEL, 5), update(OTHER, now)]}


def test_the_record_of_a_known_device_is_written_anew_once_a_day() -> None:
    today = Device().dialect.today()
    assert Device().greeted(record=today).messages == []
    assert Device().greeted(record=None).messages == []
    late = Device(timeout_uaid=77)
    late.clock.pass_by(86_400)
    late.greeted(record=today)
    assert late.messages == [m.Record(DEVICES, device_key(UAID), late.dialect.today(), 77)]
    assert late.dialect.today() != today


@pytest.mark.parametrize("fields", [{}, {"uaid": ""}, {"uaid": None}, {"uaid": UAID}])
def test_a_second_hello_of_the_same_device_repeats_what_waits(fields: dict[str, Any]) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "hello", "channelIDs": [], **fields}) == []
    assert device.request() == m.Fetch(device_key(UAID), m.EVERYTHING)
    hello, note = device.answer(m.OK, [item(CHANNEL, 5)])
    assert hello == {"messageType": "hello", "uaid": UAID, "status": 200}
    assert note["updates"] == [update(CHANNEL, 5)]
    device.send({"messageType": "hello", "channelIDs": []})
    assert len(device.answer(m.OK, [item(CHANNEL, 5)])) == 2


@pytest.mark.parametrize("uaid", ["0" * 32, HYPHENS, UAID.upper(), "malformed"])
def test_a_second_hello_with_another_uaid_is_refused(uaid: str) -> None:
    refused(Device().greeted(), {"messageType": "hello", "uaid": uaid, "channelIDs": []}, 503, ASSIGNED)


def test_a_second_hello_must_list_its_channels_too() -> None:
    refused(Device().greeted(), {"messageType": "hello", "uaid": UAID}, 401, MISSING)


def test_a_device_that_attached_elsewhere_meanwhile_is_let_go() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": []})
    assert device.answer(m.MOVED) == []
    assert device.closed is not None
    assert device.closed.code == 1001
    assert not isinstance(device.session, DeviceSession)


# ---- when the store fails


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ({"messageType": "hello", "channelIDs": []}, "hello"),
        ({"messageType": "register", "channelID": CHANNEL}, "register"),
    ],
)
def test_a_command_that_the_store_failed(command: dict[str, Any], name: str) -> None:
    for device in (Device(), Device().greeted()) if name == "hello" else (Device().greeted(),):
        device.send(command)
        (reply,) = device.answer(m.FAILED)
        assert (reply["messageType"], reply["status"]) == (name, 503)
        assert reply["error"] == reply["reason"] == "Error updating channel record"
        assert device.closed is not None
        assert device.closed.code == 1013
