"""WebPush, device side: what is said at all, hello, register, unregister."""

import base64
import json
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from support.webpush_device import CHANNEL, KEY, OTHER, UAID, Device, hello, item, member, note, refused

from farm.dialects import DeviceSession
from router.common import messages as m
from router.dialects.webpush.protocol import (
    DEVICES,
    PURPOSE,
    device_address,
)
from router.dialects.webpush.vapid import key_digest

# ---- what is not understood


@pytest.mark.parametrize(
    "data",
    [
        "",
        "x",
        "{",
        "[]",
        "null",
        "1",
        '"hello"',
        "{}x",
        "{{}}",
        '{"a":1}',
        '{"messageType":null}',
        '{"messageType":1}',
        '{"messageType":"HELLO","use_webpush":true}',
        '{"messagetype":"hello"}',
        '{"messageType":"purge"}',
        '{"messageType":"notification"}',
        "[" * 100_000,
        '{"messageType":"ack","updates":' + "[" * 100_000,
        '{"messageType":"\\ud800"}',
        json.dumps({"messageType": "\N{PUSHPIN}" * 1000}),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_nonsense_is_closed_with_1008(data: str, greeted: bool) -> None:
    refused(Device().greeted() if greeted else Device(), data)


@given(st.binary())
def test_anything_can_be_heard(data: bytes) -> None:
    for device in (Device(), Device().greeted()):
        assert len(device.send(data)) <= 1  # by chance it may even be a command
        assert device.closed is None or device.closed.code == 1008


@pytest.mark.parametrize("greeted", [False, True])
def test_binary_is_closed_with_1003(greeted: bool) -> None:
    device = Device().greeted() if greeted else Device()
    assert device.send(json.dumps(hello()), binary=True) == []
    assert device.closed is not None
    assert device.closed.code == 1003


@pytest.mark.parametrize(
    "command",
    [
        {"messageType": "register", "channelID": CHANNEL},
        {"messageType": "unregister", "channelID": CHANNEL},
        {"messageType": "ack", "updates": []},
        {"messageType": "nack", "version": "1", "code": 301},
        {"messageType": "broadcast_subscribe", "broadcasts": {}},
        {"messageType": "ping"},
        {},
    ],
)
def test_before_hello(command: dict[str, Any]) -> None:
    refused(Device(), command)


def test_hello_is_said_once() -> None:
    refused(Device().greeted(), hello())


# ---- hello


@pytest.mark.parametrize(
    "fields", [{}, {"channelIDs": []}, {"channelIDs": [CHANNEL, CHANNEL.upper()], "more": [1, {}]}]
)
def test_hello_of_a_known_device(fields: dict[str, Any]) -> None:
    device = Device(batch=7)
    assert device.send(hello(**fields)) == []
    assert device.request() == (KEY, DEVICES, 7)
    reply = {"messageType": "hello", "uaid": UAID, "status": 200, "use_webpush": True, "broadcasts": {}}
    assert device.answer(m.OK, [[], device.dialect.today()]) == [reply]
    assert device.messages == []
    assert device.session.key == KEY
    assert device.counters.hellos == 1


@pytest.mark.parametrize(
    "uaid", ["", None, "x", UAID.upper(), str(uuid.UUID(UAID)), UAID + "\n", UAID[1:], "\0" * 9999]
)
def test_a_uaid_that_is_none_of_ours_is_replaced_without_a_word(uaid: str | None) -> None:
    device = Device()
    assert device.send(hello(uaid)) == []
    key, needs, fetch = device.request()
    assert (needs, fetch) == ("", 0)
    (reply,) = device.answer(m.OK, [[], None])
    assert reply["status"] == 200
    assert device_address(reply["uaid"]) == key == device.session.key
    assert len(reply["uaid"]) == 32
    assert device.messages == []  # nothing is written before the first register


def test_an_unknown_uaid_is_replaced() -> None:
    device = Device()
    device.dialect.broadcasts.changed("b", "2")
    device.send(hello(broadcasts={"b": "1"}))
    assert device.answer(m.UNKNOWN) == []
    assert device.request()[0] != KEY
    assert device.request()[1:] == ("", 0)
    (reply,) = device.answer(m.OK, [[], None])
    assert reply["uaid"] != UAID
    assert reply["broadcasts"] == {"b": "2"}


@pytest.mark.parametrize(
    "fields",
    [
        {"uaid": 1},
        {"uaid": [UAID]},
        {"channelIDs": {}},
        {"channelIDs": [1]},
        {"channelIDs": [CHANNEL, "x"]},
        {"broadcasts": []},
        {"broadcasts": {"a": 1}},
        {"broadcasts": {"": "1"}},
        {"broadcasts": {"a" * 257: "1"}},
        {"broadcasts": {"a": "1" * 1025}},
    ],
)
def test_hello_with_fields_of_the_wrong_kind(fields: dict[str, Any]) -> None:
    refused(Device(), hello(**fields))


def test_the_record_of_a_known_device_is_written_anew_once_a_day() -> None:
    today = Device().dialect.today()
    late = Device(timeout_uaid=77)
    late.clock.pass_by(86_400)
    late.greeted(record=today + member(CHANNEL) + member(OTHER))
    assert late.messages == [m.SetAdd(DEVICES, KEY, member(CHANNEL), late.dialect.today(), 77, 0)]


def test_a_device_that_attached_elsewhere_meanwhile_is_let_go() -> None:
    device = Device()
    device.send(hello())
    assert device.answer(m.MOVED) == []
    assert device.closed is not None
    assert device.closed.code == 1001
    assert not isinstance(device.session, DeviceSession)


def test_a_hello_that_the_store_failed() -> None:
    device = Device()
    device.send(hello())
    assert device.answer(m.FAILED) == []
    assert device.closed is not None
    assert device.closed.code == 1013
    assert not isinstance(device.session, DeviceSession)


# ---- register and unregister


def test_register_without_a_key() -> None:
    device = Device(timeout_uaid=99, max_channels=5).greeted()
    assert device.send({"messageType": "register", "channelID": CHANNEL}) == []
    assert device.request() == m.SetAdd(DEVICES, KEY, member(CHANNEL), device.dialect.today(), 99, 5)
    (reply,) = device.answer()
    endpoint = reply.pop("pushEndpoint")
    assert reply == {"messageType": "register", "channelID": CHANNEL, "status": 200}
    base, _, token = endpoint.rpartition("/")
    assert base == "https://push.example.org/wpush/v1"
    assert device.tokens.open(PURPOSE, token.encode()) == KEY + member(CHANNEL)
    assert device.counters.registers == 1


def raw_key() -> bytes:
    return (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )


def test_keys_that_are_remembered_are_not_mixed_up() -> None:
    device = Device(key_cache=4).greeted()
    keys = [
        (base64.urlsafe_b64encode(raw).decode().rstrip("="), key_digest(raw)) for raw in (raw_key() for _ in range(9))
    ]
    for _ in range(2):
        for key, digest in keys + keys[-2:]:
            assert device.send({"messageType": "register", "channelID": CHANNEL, "key": key}) == []
            (reply,) = device.answer()
            token = reply["pushEndpoint"].rpartition("/")[2]
            assert device.tokens.open(PURPOSE, token.encode())[32:] == digest


@pytest.mark.parametrize("padding", ["", "="])
def test_register_with_a_key(padding: str) -> None:
    device = Device().greeted()
    raw = raw_key()
    key = base64.urlsafe_b64encode(raw).decode().rstrip("=") + padding
    assert device.send({"messageType": "register", "channelID": CHANNEL, "key": key}) == []
    (reply,) = device.answer()
    base, _, token = reply["pushEndpoint"].rpartition("/")
    assert base == "https://push.example.org/wpush/v2"
    assert device.tokens.open(PURPOSE, token.encode()) == KEY + member(CHANNEL) + key_digest(raw)


@pytest.mark.parametrize("key", ["", "x", "A" * 87, "B" + "A" * 86, "A" * 10_000, "\N{PUSHPIN}"])
def test_register_with_a_bad_key_is_told(key: str) -> None:
    device = Device().greeted()
    (reply,) = device.send({"messageType": "register", "channelID": CHANNEL, "key": key})
    assert (reply["messageType"], reply["channelID"], reply["status"]) == ("register", CHANNEL, 400)
    assert reply["pushEndpoint"]
    assert device.closed is None
    assert device.call is None


@pytest.mark.parametrize(("status", "told"), [(m.FAILED, 500), (m.FULL, 400)])
def test_a_register_that_could_not_be_done(status: int, told: int) -> None:
    device = Device().greeted()
    device.send({"messageType": "register", "channelID": CHANNEL})
    (reply,) = device.answer(status)
    assert (reply["channelID"], reply["status"]) == (CHANNEL, told)
    assert device.closed is None
    assert device.counters.registers == 0


BAD_CHANNELS = [
    "",
    "x",
    CHANNEL.upper().replace("1", "A"),
    CHANNEL.replace("-", ""),
    CHANNEL + "\n",
    None,
    1,
    [CHANNEL],
]


@pytest.mark.parametrize("channel", BAD_CHANNELS)
@pytest.mark.parametrize("name", ["register", "unregister"])
def test_a_channel_is_a_uuid_in_lower_case(name: str, channel: Any) -> None:
    refused(Device().greeted(), {"messageType": name, "channelID": channel})


@pytest.mark.parametrize("name", ["register", "unregister"])
def test_a_channel_must_be_named(name: str) -> None:
    assert "channelID" in refused(Device().greeted(), {"messageType": name})


@pytest.mark.parametrize("fields", [{}, {"code": 200}, {"code": 201}, {"code": 202}, {"code": None}])
def test_unregister(fields: dict[str, Any]) -> None:
    device = Device().greeted(item(1), item(2, OTHER))
    device.delivered(*item(3)[:2])
    command = {"messageType": "unregister", "channelID": CHANNEL, **fields}
    assert device.send(command) == []
    assert device.request() == m.SetRemove(DEVICES, KEY, member(CHANNEL))
    assert device.answer() == []
    assert device.request() == m.Fetch(KEY, m.EVERYTHING)
    waiting = [item(9, CHANNEL, "t"), item(1), item(2, OTHER), item(3)]
    reply = {"messageType": "unregister", "channelID": CHANNEL, "status": 200}
    assert device.answer(m.OK, waiting) == [reply]
    assert device.acked() == [tuple(item(9, CHANNEL, "t")[:2]), tuple(item(1)[:2]), tuple(item(3)[:2])]
    assert device.call is None
    assert device.counters.unregisters == 1


def test_unregister_of_what_nothing_waits_for() -> None:
    device = Device().greeted()
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    assert device.answer(m.OK, []) == [{"messageType": "unregister", "channelID": CHANNEL, "status": 200}]
    assert device.messages == []


def test_what_was_unregistered_is_not_waited_for() -> None:
    device = Device(batch=2).greeted(item(1), item(2))
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    assert len(device.answer(m.OK, [item(1), item(2), item(3, OTHER)])) == 1
    assert device.request() == m.Fetch(KEY, 2)
    assert device.answer(m.OK, [item(3, OTHER)]) == [note(3, OTHER)]


@pytest.mark.parametrize("answers", [[m.FAILED], [m.OK, m.FAILED]])
def test_an_unregister_that_could_not_be_done(answers: list[int]) -> None:
    device = Device().greeted()
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    for status in answers:
        replies = device.answer(status)
    assert replies == [{"messageType": "unregister", "channelID": CHANNEL, "status": 500}]
    assert device.closed is None
    assert device.messages == []
