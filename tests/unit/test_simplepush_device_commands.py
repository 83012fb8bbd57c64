"""SimplePush, device side: register, unregister, ack, ping; notifications; time."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simplepush_device import (
    BAD_CHANNEL,
    BAD_FIELDS,
    CHANNEL,
    FLOOD,
    HYPHENS,
    INVALID,
    MISSING,
    NO_HANDSHAKE,
    OTHER,
    PLAIN_CHANNEL,
    UAID,
    Device,
    item,
    refused,
    update,
)

from router.common import messages as m
from router.common.item import Item
from router.common.uuids import device_key
from router.dialects.simplepush.protocol import DEVICES, PURPOSE

# ---- register and unregister


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL.upper(), PLAIN_CHANNEL, PLAIN_CHANNEL.lower()])
@pytest.mark.parametrize("uaid", [UAID, HYPHENS])
def test_register(channel: str, uaid: str) -> None:
    device = Device(timeout_uaid=99).greeted(uaid)
    assert device.send({"messageType": "register", "channelID": channel, "uaid": "ignored"}) == []
    assert device.request() == m.Record(DEVICES, device_key(uaid), device.dialect.today(), 99)
    (reply,) = device.answer()
    endpoint = reply.pop("pushEndpoint")
    assert reply == {"messageType": "register", "uaid": uaid, "status": 200, "channelID": channel}
    base, _, token = endpoint.rpartition("/")
    assert base == "https://push.example.org/update"
    opened = device.tokens.open(PURPOSE, token.encode())
    assert (opened[:16], opened[16:].decode()) == (device_key(uaid), channel)


def test_only_the_first_register_waits_for_the_store_and_each_gives_another_token() -> None:
    device = Device().greeted()
    device.send({"messageType": "register", "channelID": CHANNEL})
    replies = device.answer()
    replies += device.send({"messageType": "register", "channelID": OTHER})
    replies += device.send({"messageType": "register", "channelID": CHANNEL})
    assert [reply["channelID"] for reply in replies] == [CHANNEL, OTHER, CHANNEL]
    assert len({reply["pushEndpoint"] for reply in replies}) == 3


def test_a_device_with_a_record_registers_at_once() -> None:
    device = Device()
    device.greeted(record=device.dialect.today())
    assert len(device.send({"messageType": "register", "channelID": CHANNEL})) == 1


def test_a_device_has_the_channels_of_its_hello_and_its_registers_and_no_more() -> None:
    device = Device(max_channels=3)
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL]})
    device.answer(m.OK, [[], b"long ago"])
    device.messages.clear()
    register = {"messageType": "register", "channelID": OTHER}
    assert [device.send(register)[0]["status"] for _ in range(2)] == [200, 200]
    for _ in range(2):
        text = "The device has too many channels"
        refusal = {"messageType": "register", "channelID": OTHER, "status": 413, "error": text, "reason": text}
        assert device.send(register) == [refusal]
    assert device.counters.commands_refused == 2
    assert (device.messages, device.closed) == ([], None)
    assert device.delivered(OTHER, 7)["updates"] == [update(OTHER, 7)]
    device.send({"messageType": "unregister", "channelID": OTHER})
    device.answer()
    assert [device.send(register)[0]["status"] for _ in range(2)] == [200, 413]


def test_channels_count_from_the_first_register_on_and_a_refused_one_does_not() -> None:
    device = Device(max_channels=1).greeted()
    device.send({"messageType": "unregister", "channelID": OTHER})  # of none it leaves none
    device.answer()
    device.send({"messageType": "register", "channelID": CHANNEL})
    device.answer()
    assert [device.send({"messageType": "register", "channelID": CHANNEL})[0]["status"] for _ in range(3)] == [413] * 3
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    assert device.send({"messageType": "register", "channelID": CHANNEL})[0]["status"] == 200


@pytest.mark.parametrize(
    "fields",
    [{}, {"channelID": ""}, {"channelID": None}, {"channelID": 1}, {"channelID": "x"}, {"channelIDs": [CHANNEL]}],
)
def test_register_without_a_valid_channel(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "register", **fields}, 401, BAD_FIELDS)


@pytest.mark.parametrize("status", [m.OK, m.FAILED])
@pytest.mark.parametrize("key", ["channelID", "channelid"])
def test_unregister_is_always_answered_200(status: int, key: str) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "UNREGISTER", key: CHANNEL}) == []
    assert device.request() == m.Drop(device_key(UAID), CHANNEL)
    assert device.answer(status) == [{"messageType": "unregister", "status": 200, "channelID": CHANNEL}]
    assert device.closed is None


def test_unregister_of_what_can_be_no_channel_is_answered_at_once() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "unregister", "channelID": "x"}) == [
        {"messageType": "unregister", "status": 200, "channelID": "x"}
    ]
    assert device.messages == []


@pytest.mark.parametrize("fields", [{}, {"channelID": ""}, {"channelID": None}])
def test_unregister_without_a_channel(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "unregister", **fields}, 401, MISSING)


def test_unregister_with_a_channel_of_the_wrong_kind() -> None:
    refused(Device().greeted(), {"messageType": "unregister", "channelID": [CHANNEL]}, 401, BAD_FIELDS)


@pytest.mark.parametrize(
    "command",
    [
        {"messageType": "register", "channelID": CHANNEL},
        {"messageType": "register"},
        {"messageType": "unregister", "channelID": CHANNEL},
        {"messageType": "ack", "updates": [update(CHANNEL, 1)]},
        {"messageType": "ACK"},
    ],
)
def test_before_hello(command: dict[str, Any]) -> None:
    refused(Device(), command, 401, NO_HANDSHAKE)


# ---- ack


def test_an_ack_names_versions_and_is_not_answered() -> None:
    device = Device().greeted()
    command = {
        "messageType": "ack",
        "updates": [update(CHANNEL, 5), {"CHANNELID": OTHER, "Version": 6}],
        "expired": [OTHER],
    }
    assert device.send(command) == []
    assert device.messages == [m.Ack(device_key(UAID), [(CHANNEL, 5), (OTHER, 6)])]
    assert device.call is None


def test_an_ack_without_a_version_is_one_of_version_0() -> None:
    device = Device().greeted()
    device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL}]})
    assert device.messages == [m.Ack(device_key(UAID), [(CHANNEL, 0)])]


def test_an_ack_of_a_version_below_0_takes_no_other_with_it() -> None:
    device = Device().greeted()
    acks = [update(CHANNEL, 7), update(OTHER, -1)]
    device.send({"messageType": "ack", "updates": acks[1:]})
    device.send({"messageType": "ack", "updates": acks})
    assert device.messages == [m.Ack(device_key(UAID), [(CHANNEL, 7)])]


def test_an_ack_of_expired_channels_alone() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "ack", "updates": [], "expired": [CHANNEL]}) == []
    assert device.messages == []
    assert device.closed is None


@pytest.mark.parametrize(
    "fields", [{}, {"updates": []}, {"updates": None, "expired": None}, {"updates": [], "expired": []}]
)
def test_an_ack_of_nothing(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "ack", **fields}, 401, MISSING)


@pytest.mark.parametrize(
    "fields",
    [
        {"updates": {}},
        {"updates": "x"},
        {"updates": [1]},
        {"updates": [[]]},
        {"updates": [{"channelID": 1, "version": 1}]},
        {"updates": [{"channelID": CHANNEL, "version": "1"}]},
        {"updates": [{"channelID": CHANNEL, "version": 1.5}]},
        {"updates": [{"channelID": CHANNEL, "version": 5.0}]},
        {"updates": [{"channelID": CHANNEL, "version": True}]},
        {"updates": [{"channelID": CHANNEL, "version": 2**63}]},
        {"updates": [{"channelID": CHANNEL, "version": -(2**63) - 1}]},
        {"updates": [update(CHANNEL, 1), 5]},
        {"expired": {}},
        {"expired": [1]},
    ],
)
def test_an_ack_with_fields_of_the_wrong_kind(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "ack", **fields}, 401, BAD_FIELDS)


@pytest.mark.parametrize(
    "fields",
    [
        {"updates": [update("x", 1)]},
        {"updates": [{"version": 1}]},
        {"updates": [{"channelID": None, "version": 1}]},
        {"expired": ["x"]},
    ],
)
def test_an_ack_of_what_is_no_channel(fields: dict[str, Any]) -> None:
    refused(Device().greeted(), {"messageType": "ack", **fields}, 503, BAD_CHANNEL)


def test_null_is_as_good_as_nothing() -> None:
    device = Device()
    hello = {"messageType": None, "messagetype": "hello", "channelids": [], "channelIDs": None, "uaid": None, "x": None}
    device.send(hello)
    assert device.answer(m.OK, [[], None])[0]["status"] == 200
    device.send({"MESSAGETYPE": "register", "channelid": CHANNEL, "channelID": None})
    assert device.answer()[0]["channelID"] == CHANNEL
    device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": None}], "expired": None})
    assert device.messages == [m.Ack(device.session.key, [(CHANNEL, 0)])]


@pytest.mark.parametrize("number", ["9" * 40, "-" + "9" * 4000, "1e300", "0.1", "1E-9"])
def test_an_error_gives_every_member_back_as_it_came(number: str) -> None:
    device = Device()
    (reply,) = device.session.received(b'{"messageType":"x","n":%s,"s":"\\u0000\\u00e4"}' % number.encode(), False, 0)[
        :1
    ]
    assert isinstance(reply, bytes)
    assert b'"n":%s,' % number.encode() in reply
    assert json.loads(reply)["s"] == "\0\xe4"


def test_with_resend_on_ack_what_still_waits_is_sent_again() -> None:
    device = Device(resend_on_ack=True).greeted()
    assert device.send({"messageType": "ack", "updates": [update(CHANNEL, 5)]}) == []
    assert device.messages == [m.Ack(device_key(UAID), [(CHANNEL, 5)])]
    assert device.request() == m.Fetch(device_key(UAID), m.EVERYTHING)
    assert device.answer(m.OK, [item(OTHER, 6)]) == [{"messageType": "notification", "updates": [update(OTHER, 6)]}]
    device.send({"messageType": "ack", "expired": [CHANNEL]})
    assert device.answer(m.OK, []) == []


# ---- ping and purge


@pytest.mark.parametrize("ping", ["{}", " { \t\r\n} ", '{"messageType":"ping"}', '{"MESSAGETYPE":"Ping","x":1}'])
@pytest.mark.parametrize("greeted", [False, True])
def test_ping(ping: str, greeted: bool) -> None:
    device = Device().greeted() if greeted else Device()
    assert device.send(ping) == [{}]
    long = Device(long_pongs=True)
    assert long.send(ping) == [{"messageType": "ping", "status": 200}]


@pytest.mark.parametrize("ping", ["{}", '{"messageType":"ping"}'])
def test_pings_too_close_to_each_other(ping: str) -> None:
    device = Device(min_ping_interval=20)
    assert device.send(ping) == [{}]
    device.clock.pass_by(20)
    assert device.send(ping) == [{}]
    device.clock.pass_by(19.9)
    reply = refused(device, ping, 401, FLOOD)
    assert reply == {**json.loads(ping), "status": 401, "error": INVALID, "reason": FLOOD}
    assert (device.counters.pings, device.counters.pings_too_many) == (2, 1)


def test_without_an_interval_any_number_of_pings() -> None:
    device = Device(min_ping_interval=0)
    assert [device.send("{}") for _ in range(10)] == [[{}]] * 10


def test_purge_is_accepted_and_does_nothing() -> None:
    for device in (Device(), Device().greeted()):
        assert device.send({"messageType": "purge"}) == []
        assert device.closed is device.call is None
        assert device.messages == []


# ---- notifications


def test_a_live_update_is_a_notification_of_its_own() -> None:
    device = Device().greeted()
    assert device.delivered(CHANNEL, 7) == {"messageType": "notification", "updates": [update(CHANNEL, 7)]}
    assert device.delivered(CHANNEL, 0)["updates"] == [update(CHANNEL, 0)]
    assert device.delivered(CHANNEL, 2**63 - 1)["updates"] == [update(CHANNEL, 2**63 - 1)]


@given(st.text())
def test_data_is_escaped(data: str) -> None:
    note = Device().greeted().delivered(CHANNEL, 7, data)
    assert note == {"messageType": "notification", "updates": [{**update(CHANNEL, 7), "data": data}]}


def test_what_was_read_again_is_sent_unless_it_was_sent_already() -> None:
    device = Device().greeted(items=(item(OTHER, 1),))
    device.delivered(CHANNEL, 7)
    sent, older, newer = Item(*item(CHANNEL, 7)), Item(*item(OTHER, 1)), Item(*item(OTHER, 2))
    assert device.stored(sent, older) == []
    assert device.stored(sent, newer) == [{"messageType": "notification", "updates": [update(OTHER, 2)]}]
    assert device.stored(sent, newer) == []
    assert device.stored() == []


def test_what_is_read_again_is_never_older_than_what_was_sent() -> None:
    device = Device().greeted()
    device.delivered(CHANNEL, 7)  # and refused by the store, which holds the one before
    assert device.stored(Item(*item(CHANNEL, 6)), Item(*item(OTHER, 0))) == [
        {"messageType": "notification", "updates": [update(OTHER, device.clock.unix())]}
    ]
    assert device.stored(Item(*item(CHANNEL, 8)))[0]["updates"] == [update(CHANNEL, 8)]


def test_what_is_not_acknowledged_is_bounded_and_the_rest_comes_when_there_is_room() -> None:
    device = Device(max_unacked=4).greeted()
    channels = [f"{number:08x}-2222-3333-4444-555555555555" for number in range(6)]
    for channel in channels[:4]:
        device.delivered(channel, 1)
    assert device.session.delivered(channels[4], 1, None) is None
    assert device.delivered(channels[0], 2)["updates"] == [update(channels[0], 2)]  # it has its place
    assert len(device.session._unacked or ()) == 4
    device.send({"messageType": "ack", "updates": [update(channels[1], 1)]})
    assert device.call is None
    device.send({"messageType": "ack", "updates": [update(channels[2], 1)]})
    assert device.request() == m.Fetch(device.session.key, m.EVERYTHING)
    kept = [item(channels[0], 2), item(channels[3], 1), item(channels[4], 1)]
    assert device.answer(m.OK, kept)[0]["updates"] == [update(channels[4], 1)]
    device.send({"messageType": "ack", "updates": [update(channels[4], 1)]})
    assert device.call is None


def test_what_was_acknowledged_is_not_remembered() -> None:
    device = Device().greeted()
    device.delivered(CHANNEL, 7)
    device.delivered(OTHER, 7)
    device.send({"messageType": "ack", "updates": [update(CHANNEL, 7), update(OTHER, 6)]})
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    again = [Item(*item(CHANNEL, 7)), Item(*item(OTHER, 7))]
    assert device.stored(*again) == [{"messageType": "notification", "updates": [update(CHANNEL, 7)]}]


# ---- time


def test_without_hello_in_time_it_is_closed_silently() -> None:
    device = Device(hello_timeout=30)
    assert device.dialect.first_tick == 30
    device.send("{}")
    assert device.tick(0.5) == ([], 0)
    assert device.closed is not None
    assert device.closed.code == 1000
    assert device.counters.timeouts == 1


def test_after_hello_nothing_ticks_unless_the_server_pings() -> None:
    assert Device(hello_timeout=30).greeted().tick(30) == ([], 0)


def test_the_server_pings_who_is_silent() -> None:
    device = Device(hello_timeout=30, pong_interval=60)
    assert device.next_tick == 30
    device.greeted()
    assert device.next_tick == 60
    assert device.tick(29) == ([], 31)
    assert device.tick(59.5) == ([], 0.5)
    assert device.tick(60) == ([{}], 60)
    assert device.tick(120) == ([{}], 60)
    assert device.closed is None


def test_the_server_pings_where_hello_has_no_deadline_too() -> None:
    device = Device(hello_timeout=0, pong_interval=60)
    assert device.next_tick == 0
    device.greeted()
    assert device.next_tick == 60
    assert device.tick(60) == ([{}], 60)
    assert Device(hello_timeout=0, pong_interval=0).dialect.first_tick == 0


# ---- the upgrade


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ([], None),
        (["push-notification"], "push-notification"),
        (["a", "push-notification"], "push-notification"),
        (["a"], None),
    ],
)
def test_the_subprotocol(offered: list[str], taken: str | None) -> None:
    assert Device().dialect.subprotocol(offered) == taken


def test_every_number_is_counted() -> None:
    device = Device().greeted(items=(item(),))
    device.send({"messageType": "register", "channelID": CHANNEL})
    device.answer()
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    device.send({"messageType": "ack", "updates": [update(CHANNEL, 1)]})
    device.delivered(CHANNEL, 2)
    device.send("{}")
    counters = device.counters
    assert (counters.hellos, counters.registers, counters.unregisters, counters.acks) == (1, 1, 1, 1)
    assert (counters.updates_sent, counters.pings, counters.commands_refused) == (2, 1, 0)
