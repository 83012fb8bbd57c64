"""WebPush, device side: commands in, replies and words for the router out."""

import base64
import gc
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from support.common import Clock, settings_with

import farm.dialects.simplepush
import farm.dialects.webpush
from farm.dialects import REGISTERED, Become, Binary, Call, Close, Context, DeviceSession, Effects
from farm.dialects.simplepush import SimplePushDialect, SimplePushSession
from farm.dialects.webpush import NOT_FOLLOWED, NOT_FOUND, WebPushDialect, WebPushSession
from farm.worker.broadcasts import STEP, BroadcastScan
from farm.worker.connection import OPEN, Connection
from farm.worker.shared_path import Undecided, by_path
from farm.worker.upgrade import Request
from router.common import messages as v
from router.common.metrics import WorkerCounters
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.dialects.webpush.protocol import (
    DEVICES,
    PURPOSE,
    WebPushOptions,
    device_address,
    plain_slot,
    topic_slot,
    wire_version,
)
from router.dialects.webpush.vapid import key_digest
from router.store.base import Item

UAID = "0123456789abcdef0123456789abcdef"
KEY = device_address(UAID)
CHANNEL = "11111111-2222-3333-4444-555555555555"
OTHER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
THIRD = "99999999-2222-3333-4444-555555555555"
BODY = '"data":"AAEC","headers":{"encoding":"aes128gcm"}'
REQUEST = Request(b"GET", "/", "", {}, (1, 1))


def member(channel: str) -> bytes:
    return uuid.UUID(channel).bytes


class Device:
    """One session, and what came of it: replies to the device, words for the router, the question that is open."""

    def __init__(self, dialect_: WebPushDialect | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.tokens = Tokens([b"k" * 32])
        settings = settings_with((WebPushOptions, options), (EndpointOptions, {"url": "https://push.example.org"}))
        made = WebPushDialect(Context(settings, self.tokens, WorkerCounters(), self.clock.unix))
        self.dialect: WebPushDialect = dialect_ or made
        self.counters = self.dialect.counters
        self.session: Any = self.dialect.opened(REQUEST)
        self.words: list[tuple[Any, ...]] = []
        self.call: Call | None = None
        self.closed: Close | None = None
        self.registered = 0

    def take(self, effects: Effects) -> list[Any]:
        replies = []
        for effect in effects:
            assert self.closed is None
            if isinstance(effect, bytes):
                replies.append(json.loads(effect))
            elif isinstance(effect, Call):
                assert self.call is None
                self.call = effect
            elif isinstance(effect, Become):
                assert effect.message is None
                self.session = effect.session
            elif isinstance(effect, Close):
                self.closed = effect
            elif effect is REGISTERED:
                self.registered += 1
            else:
                assert type(effect) is tuple
                assert not isinstance(effect, Binary)
                self.words.append(effect)
        return replies

    def send(self, command: Any, binary: bool = False) -> list[Any]:
        """A command as an object, a JSON text or bytes. Returns: the replies."""
        assert self.call is None
        if isinstance(command, (dict, list)):
            command = json.dumps(command)
        if isinstance(command, str):
            command = command.encode()
        return self.take(self.session.received(command, binary, self.clock.monotonic()))

    def answer(self, status: int = v.OK, payload: Any = None) -> list[Any]:
        """The router's answer to the open question. Returns: the replies."""
        assert self.call is not None
        call, self.call = self.call, None
        return self.take(self.session.replied(call.context, status, payload, self.clock.monotonic()))

    def word(self) -> tuple[Any, ...]:
        """The word of the open question."""
        assert self.call is not None
        return self.call.word

    def greeted(self, *items: Any, record: bytes | None = None, broadcasts: Any = None) -> "Device":
        """After a hello that the router agreed to."""
        self.send(hello(broadcasts=broadcasts))
        reply, *self.notes = self.answer(v.OK, [list(items), record or self.dialect.today()])
        assert (reply["messageType"], reply["status"], reply["uaid"]) == ("hello", 200, UAID)
        self.told = reply["broadcasts"]
        return self

    def delivered(self, slot: str, version: int, body: str | None = BODY) -> Any:
        text = self.session.delivered(slot, version, body)
        return text if text is None else json.loads(text)

    def stored(self, *items: Any) -> list[Any]:
        return self.take(self.session.stored([Item(*item) for item in items], self.clock.monotonic()))

    def ack(self, *notes: Any) -> list[Any]:
        """Acknowledge notifications."""
        updates = [{"channelID": n["channelID"], "version": n["version"], "code": 100} for n in notes]
        return self.send({"messageType": "ack", "updates": updates})

    def news(self) -> list[Any]:
        return self.take(self.dialect.broadcasts.notify(self.session))

    def acked(self) -> list[tuple[str, int]]:
        """What has been said to the router to be acknowledged."""
        return [pair for word in self.words if word[0] == v.ACK for pair in word[2]]


def hello(uaid: str | None = UAID, **fields: Any) -> dict[str, Any]:
    return {"messageType": "hello", "uaid": uaid, "use_webpush": True, **fields}


def item(number: int, channel: str = CHANNEL, topic: str = "", body: str | None = BODY) -> list[Any]:
    """An item as it comes over the link."""
    slot = topic_slot(channel, topic) if topic else plain_slot(number, channel)
    return list(Item(slot, number, number, 2_000_000_000, 3, body))


def note(number: int, channel: str = CHANNEL, topic: str = "") -> dict[str, Any]:
    """The notification of that item."""
    slot, version, *_ = item(number, channel, topic)
    return {
        "messageType": "notification",
        "channelID": channel,
        "version": wire_version(slot, version),
        "data": "AAEC",
        "headers": {"encoding": "aes128gcm"},
    }


def refused(device: Device, command: Any, code: int = 1008) -> str:
    """The connection ends with this code. Returns: the reason."""
    assert device.send(command) == []
    assert device.closed is not None
    assert device.closed.code == code
    assert device.call is None
    assert device.words == []
    assert device.counters.commands_refused == 1
    assert device.closed.reason
    return device.closed.reason


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
        assert device.send(data) in ([], [{}])
        assert device.dialect.claims(data) is False


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
    assert device.word() == (v.ATTACH, 0, KEY, DEVICES, 7)
    reply = {"messageType": "hello", "uaid": UAID, "status": 200, "use_webpush": True, "broadcasts": {}}
    assert device.answer(v.OK, [[], device.dialect.today()]) == [reply]
    assert device.words == []
    assert device.session.key == KEY
    assert device.counters.hellos == 1


@pytest.mark.parametrize(
    "uaid", ["", None, "x", UAID.upper(), str(uuid.UUID(UAID)), UAID + "\n", UAID[1:], "\0" * 9999]
)
def test_a_uaid_that_is_none_of_ours_is_replaced_without_a_word(uaid: str | None) -> None:
    device = Device()
    assert device.send(hello(uaid)) == []
    kind, _, key, needs, fetch = device.word()
    assert (kind, needs, fetch) == (v.ATTACH, "", 0)
    (reply,) = device.answer(v.OK, [[], None])
    assert reply["status"] == 200
    assert device_address(reply["uaid"]) == key == device.session.key
    assert len(reply["uaid"]) == 32
    assert device.words == []  # nothing is written before the first register


def test_an_unknown_uaid_is_replaced() -> None:
    device = Device()
    device.dialect.broadcasts.changed("b", "2")
    device.send(hello(broadcasts={"b": "1"}))
    assert device.answer(v.UNKNOWN) == []
    assert device.word()[2] != KEY
    assert device.word()[3:] == ("", 0)
    (reply,) = device.answer(v.OK, [[], None])
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
    assert late.words == [(v.SET_ADD, 0, DEVICES, KEY, member(CHANNEL), late.dialect.today(), 77, 0)]


def test_a_device_that_attached_elsewhere_meanwhile_is_let_go() -> None:
    device = Device()
    device.send(hello())
    assert device.answer(v.MOVED) == []
    assert device.closed is not None
    assert device.closed.code == 1001
    assert not isinstance(device.session, DeviceSession)


def test_a_hello_that_the_store_failed() -> None:
    device = Device()
    device.send(hello())
    assert device.answer(v.FAILED) == []
    assert device.closed is not None
    assert device.closed.code == 1013
    assert not isinstance(device.session, DeviceSession)


# ---- register and unregister


def test_register_without_a_key() -> None:
    device = Device(timeout_uaid=99, max_channels=5).greeted()
    assert device.send({"messageType": "register", "channelID": CHANNEL}) == []
    assert device.word() == (v.SET_ADD, 0, DEVICES, KEY, member(CHANNEL), device.dialect.today(), 99, 5)
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


@pytest.mark.parametrize(("status", "told"), [(v.FAILED, 500), (v.FULL, 400)])
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
    assert device.word() == (v.SET_REMOVE, 0, DEVICES, KEY, member(CHANNEL))
    assert device.answer() == []
    assert device.word() == (v.FETCH, 0, KEY, v.EVERYTHING)
    waiting = [item(9, CHANNEL, "t"), item(1), item(2, OTHER), item(3)]
    reply = {"messageType": "unregister", "channelID": CHANNEL, "status": 200}
    assert device.answer(v.OK, waiting) == [reply]
    assert device.acked() == [tuple(item(9, CHANNEL, "t")[:2]), tuple(item(1)[:2]), tuple(item(3)[:2])]
    assert device.call is None
    assert device.counters.unregisters == 1


def test_unregister_of_what_nothing_waits_for() -> None:
    device = Device().greeted()
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    assert device.answer(v.OK, []) == [{"messageType": "unregister", "channelID": CHANNEL, "status": 200}]
    assert device.words == []


def test_what_was_unregistered_is_not_waited_for() -> None:
    device = Device(batch=2).greeted(item(1), item(2))
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    device.answer()
    assert len(device.answer(v.OK, [item(1), item(2), item(3, OTHER)])) == 1
    assert device.word() == (v.FETCH, 0, KEY, 2)
    assert device.answer(v.OK, [item(3, OTHER)]) == [note(3, OTHER)]


@pytest.mark.parametrize("answers", [[v.FAILED], [v.OK, v.FAILED]])
def test_an_unregister_that_could_not_be_done(answers: list[int]) -> None:
    device = Device().greeted()
    device.send({"messageType": "unregister", "channelID": CHANNEL})
    for status in answers:
        replies = device.answer(status)
    assert replies == [{"messageType": "unregister", "channelID": CHANNEL, "status": 500}]
    assert device.closed is None
    assert device.words == []


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
    assert device.word() == (v.FETCH, 0, KEY, 3)
    assert device.answer(v.OK, [item(3), item(4)]) == [note(3), note(4)]
    assert device.ack(note(3), note(4)) == []
    assert device.call is None  # the last part was not full
    pairs = [tuple(item(*what)[:2]) for what in ((1,), (9, CHANNEL, "t"), (2, OTHER), (3,), (4,))]
    assert device.acked() == pairs


def test_a_full_batch_may_have_been_the_last() -> None:
    device = Device(batch=1).greeted(item(1))
    device.ack(note(1))
    assert device.answer(v.OK, []) == []
    assert device.call is None
    assert device.delivered(*item(2)[:2]) == note(2)
    device.ack(note(2))
    assert device.call is None


def test_a_batch_that_the_store_failed_ends_the_connection() -> None:
    device = Device(batch=1).greeted(item(1))
    device.ack(note(1))
    device.answer(v.FAILED)
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
    assert device.words == []
    assert device.closed is None


def test_an_ack_of_nothing_is_none() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "ack", "updates": []}) == []
    assert device.words == []


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
    assert device.words == []
    assert device.closed is None


def test_direct_messages_are_sent_beside_those_that_are_not_acknowledged_up_to_the_window() -> None:
    device = Device(batch=2, max_unacked=4).greeted(item(1), item(2))
    assert device.delivered(*item(3)[:2]) == note(3)
    assert device.delivered(*item(4)[:2]) == note(4)
    assert device.delivered(*item(5)[:2]) is None
    device.ack(note(1))
    assert device.delivered(*item(6)[:2]) == note(6)
    device.ack(note(2), note(3), note(4), note(6))
    assert device.word() == (v.FETCH, 0, KEY, 2)
    assert device.answer(v.OK, [item(5)]) == [note(5)]
    device.ack(note(5))
    assert device.call is None


def test_a_message_that_was_refused_is_fetched_though_the_store_held_no_more() -> None:
    device = Device(batch=2, max_unacked=1).greeted()
    device.delivered(*item(1)[:2])
    assert device.delivered(*item(2)[:2]) is None
    device.ack(note(1))
    assert device.answer(v.OK, [item(2)]) == [note(2)]


def test_nothing_is_sent_twice_on_one_connection() -> None:
    device = Device(batch=2).greeted(item(1), item(2))
    device.ack(note(1), note(2))
    assert device.delivered(*item(3)[:2]) == note(3)  # said while the next batch is read, which has it too
    assert device.answer(v.OK, [item(3), item(4)]) == [note(4)]
    assert device.delivered(*item(3)[:2]) is None
    assert device.stored(item(3), item(4)) == []
    device.ack(note(3), note(4))
    assert device.word() == (v.FETCH, 0, KEY, 2)
    assert device.answer(v.OK, []) == []


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
    assert device.word() == (v.FETCH, 0, KEY, 2)
    # While that question is open, the router may come back once more.
    assert device.stored(item(3), item(4), item(5)) == [note(3), note(4)]
    assert device.answer(v.OK, [item(3), item(4)]) == []
    device.ack(note(3), note(4))
    assert device.answer(v.OK, [item(5)]) == [note(5)]


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
    assert device.answer(v.OK, [[], None])[0]["broadcasts"] == {"b": "2"}
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
    assert device.answer(v.OK, [])[0]["status"] == 200
    assert device.send({"messageType": "ping", **more}) == [{}]
    assert device.closed is None


@pytest.mark.parametrize("fields", [{"min": "low"}, {"min": None}, {}, {"min": [7]}])
def test_the_least_urgency_that_is_wanted_changes_nothing(fields: dict[str, Any]) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "urgency", **fields}) == [{"messageType": "urgency", "status": 501}]
    assert (device.closed, device.words, device.call) == (None, [], None)


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


# ---- broadcasts


def tracker(**versions: str) -> WebPushDialect:
    """A dialect whose router has told these broadcasts."""
    made = Device().dialect
    for broadcast, version in versions.items():
        assert made.broadcasts.changed(broadcast, version)
    return made


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
    news.told()
    news.told()
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


def test_a_walk_tells_everybody_a_part_at_a_time() -> None:
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


def test_what_changes_behind_a_walk_is_told_by_another() -> None:
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


# ---- beside SimplePush on one path


def simplepush() -> SimplePushDialect:
    context = Context(settings_with(), Tokens([b"k" * 32]), WorkerCounters(), lambda: 0.0)
    return farm.dialects.simplepush.SimplePushDialect(context)


@pytest.mark.parametrize(
    ("first", "claimed"),
    [
        (hello(), True),
        ({"messageType": "hello", "broadcasts": {}, "use_webpush": True}, True),
        ({"messageType": "hello", "use_webpush": False}, False),
        ({"messageType": "hello", "use_webpush": 1}, False),
        ({"messageType": "register", "use_webpush": True}, False),
        ({"messageType": "hello", "uaid": "", "channelIDs": []}, False),
        (["use_webpush"], False),
        ({}, False),
    ],
)
def test_only_a_hello_with_use_webpush_is_claimed(first: Any, claimed: bool) -> None:
    device = Device()
    path = by_path([(farm.dialects.simplepush.SIDE, simplepush()), (farm.dialects.webpush.SIDE, device.dialect)])["/"]
    session = path.opened(REQUEST)
    assert isinstance(session, Undecided)
    message = json.dumps(first).encode()
    (effect,) = session.received(message, False, 0.0)
    assert isinstance(effect, Become)
    assert isinstance(effect.session, (farm.dialects.webpush if claimed else farm.dialects.simplepush).Unidentified)
    assert effect.message == message
    assert path.first_tick == simplepush().first_tick


@pytest.mark.parametrize("first", [b"use_webpush", b"\xff use_webpush", b"[" * 100_000 + b"use_webpush"])
def test_what_cannot_be_read_is_not_claimed(first: bytes) -> None:
    assert not Device().dialect.claims(first)
    assert not Device(bare_hello=True).dialect.claims(first)


@pytest.mark.parametrize(
    ("first", "claimed"),
    [
        ({"messageType": "hello"}, True),
        ({"messageType": "hello", "uaid": None, "channelIDs": None, "broadcasts": None}, True),
        ({"messageType": "hello", "channelIDs": []}, False),
        ({"messageType": "hello", "use_webpush": False}, False),
        ({"messageType": "ping"}, False),
        ({}, False),
    ],
)
def test_a_bare_hello_is_claimed_if_the_settings_say_so(first: Any, claimed: bool) -> None:
    message = json.dumps(first).encode()
    assert Device(bare_hello=True).dialect.claims(message) is claimed
    assert not Device().dialect.claims(message)


def test_the_subprotocol() -> None:
    assert Device().dialect.subprotocol(["a", "push-notification"]) == "push-notification"
    assert Device().dialect.subprotocol(["a"]) is None


# ---- memory


def own_bytes(make: Callable[[int], Any]) -> int:
    """Bytes that one more session costs: itself and what it refers to, but not what another one refers to as well."""
    session, other = make(1), make(2)
    shared = {id(found) for found in gc.get_referents(other)}
    own = {id(found): found for found in gc.get_referents(session) if id(found) not in shared}
    return sys.getsizeof(session) + sum(map(sys.getsizeof, own.values()))


def test_an_idle_device_costs_no_more_than_one_of_simplepush() -> None:
    webpush, other = tracker(a="1"), simplepush()

    def firefox(number: int) -> WebPushSession:
        device = Device(webpush)
        device.clock.pass_by(number)  # or the time of the ping would be the same object in both
        device.send(hello(number.to_bytes(16, "big").hex(), broadcasts={"a": "1", "b": "2"}))
        device.answer(v.OK, [[item(1), item(2)], device.dialect.today() + member(CHANNEL)])
        device.send({"messageType": "register", "channelID": OTHER})
        device.answer()
        device.send("{}")
        device.delivered(*item(3)[:2])
        device.ack(note(1), note(2), note(3))
        assert device.call is None
        return device.session

    def simple(number: int) -> SimplePushSession:
        session = other.opened(REQUEST)
        command = {"messageType": "hello", "uaid": number.to_bytes(16, "big").hex(), "channelIDs": []}
        (call,) = session.received(json.dumps(command).encode(), False, 0.0)
        assert isinstance(call, Call)
        become, *_ = session.replied(call.context, v.OK, [[], other.today()], 0.0)
        assert isinstance(become, Become)
        identified = become.session
        assert isinstance(identified, SimplePushSession)
        identified.received(b"{}", False, number + 0.5)
        return identified

    assert own_bytes(firefox) <= own_bytes(simple)
