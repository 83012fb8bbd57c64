"""SimplePush, device side: commands in, replies and words for the router out."""

import json
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import Clock, settings_with

from farm.dialects import REGISTERED, Become, Binary, Call, Close, Context, DeviceSession, Effects, Tick
from farm.dialects.simplepush import SimplePushDialect
from farm.worker.upgrade import Request
from router.common import messages as v
from router.common.metrics import WorkerCounters
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.common.uuids import device_key
from router.dialects.simplepush.protocol import DEVICES, PURPOSE, SimplePushOptions
from router.store.base import Item

UAID = "0123456789abcdef0123456789abcdef"
HYPHENS = str(uuid.UUID(UAID))
CHANNEL = "11111111-2222-3333-4444-555555555555"
OTHER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
PLAIN_CHANNEL = "AAAAAAAABBBBCCCCDDDDEEEEEEEEEEEE"
INVALID = "Invalid Command"

HEADER = "Invalid command header"
UNSUPPORTED = "Unsupported command type"
BAD_DEVICE = "Invalid device ID"
BAD_CHANNEL = "Invalid channel ID"
MISSING = "Missing one or more required command fields"
BAD_FIELDS = "Command contains one or more invalid fields"
NO_HANDSHAKE = "Command requires handshake"
ASSIGNED = "Device ID already assigned to this client"
FLOOD = "Client sent too many pings"


class Device:
    """One session, and what came of it: replies to the device, words for the router, the question that is open."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.counters = WorkerCounters()
        self.tokens = Tokens([b"k" * 32])
        settings = settings_with((SimplePushOptions, options), (EndpointOptions, {"url": "https://push.example.org"}))
        self.dialect = SimplePushDialect(
            Context(settings, self.tokens, self.counters, self.clock.unix)
        )
        request = Request(b"GET", "/", "", {}, (1, 1))
        self.session: Any = self.dialect.opened(request)
        self.words: list[tuple[Any, ...]] = []
        self.call: Call | None = None
        self.closed: Close | None = None
        self.registered = 0
        self.next_tick = self.dialect.first_tick

    def _take(self, effects: Effects) -> list[Any]:
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
            elif isinstance(effect, Tick):
                self.next_tick = effect.seconds
            elif effect is REGISTERED:
                self.registered += 1
            else:
                assert type(effect) is tuple
                assert not isinstance(effect, Binary)
                self.words.append(effect)
        return replies

    def send(self, command: Any, binary: bool = False) -> list[Any]:
        """A command as an object, a JSON text or bytes. Returns: the replies."""
        if isinstance(command, (dict, list)):
            command = json.dumps(command)
        if isinstance(command, str):
            command = command.encode()
        return self._take(self.session.received(command, binary, self.clock.monotonic()))

    def answer(self, status: int = v.OK, payload: Any = None) -> list[Any]:
        """The router's answer to the open question. Returns: the replies."""
        assert self.call is not None
        call, self.call = self.call, None
        return self._take(self.session.replied(call.context, status, payload, self.clock.monotonic()))

    def word(self) -> tuple[Any, ...]:
        """The word of the open question."""
        assert self.call is not None
        return self.call.word

    def greeted(self, uaid: str = UAID, items: tuple[Any, ...] = (), record: bytes | None = None) -> "Device":
        """After a hello that the router agreed to."""
        self.send({"messageType": "hello", "uaid": uaid, "channelIDs": []})
        assert self.answer(v.OK, [list(items), record])[0]["status"] == 200
        return self

    def delivered(self, slot: str, version: int, body: str | None = None) -> Any:
        return json.loads(self.session.delivered(slot, version, body))

    def stored(self, *items: Item) -> list[Any]:
        return self._take(self.session.stored(list(items), self.clock.monotonic()))

    def tick(self, silent: float) -> tuple[list[Any], float]:
        effects, again = self.session.tick(silent)
        return self._take(effects), again


def item(slot: str = CHANNEL, version: int = 1) -> list[Any]:
    """An item as it comes over the link."""
    return list(Item(slot, version, 1, 2_000_000_000, 0, None))


def update(channel: str, version: int) -> dict[str, Any]:
    return {"channelID": channel, "version": version}


def refused(device: Device, command: Any, status: int, text: str) -> dict[str, Any]:
    """The command gets this error, and the connection ends. Returns: the reply."""
    (reply,) = device.send(command)
    assert reply["status"] == status
    assert reply["reason"] == text
    assert reply["error"] == (INVALID if status == 401 else text)
    assert device.closed is not None
    assert device.closed.code == 1000
    assert device.call is None
    assert device.words == []
    assert device.counters.commands_refused == 1
    return dict(reply)


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
    assert device.word() == (v.ATTACH, 0, device_key(UAID), "", v.EVERYTHING)
    assert device.answer(v.OK, [[], None]) == [{"messageType": "hello", "uaid": UAID, "status": 200}]


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
    kind, _, key, needs, fetch = device.word()
    assert (kind, needs, fetch) == (v.ATTACH, "", 0)
    assert device.answer(v.OK, [[], None]) == [{"messageType": "hello", "uaid": key.hex(), "status": 200}]
    refused(Device(malformed_uaid="fresh"), {"messageType": "hello", "uaid": 1, "channelIDs": []}, 401, BAD_FIELDS)


@pytest.mark.parametrize("fields", [{}, {"uaid": ""}, {"uaid": None}])
@pytest.mark.parametrize("channels", [[], [CHANNEL], ["anything", 1, None]])
def test_a_hello_without_a_uaid_gets_a_fresh_one(fields: dict[str, Any], channels: list[Any]) -> None:
    device = Device()
    device.send({"messageType": "hello", "channelIDs": channels, **fields})
    kind, _, key, needs, fetch = device.word()
    assert (kind, needs, fetch) == (v.ATTACH, "", 0)
    assert not isinstance(device.session, DeviceSession)
    (reply,) = device.answer(v.OK, [[], None])
    assert reply == {"messageType": "hello", "uaid": key.hex(), "status": 200}
    assert uuid.UUID(reply["uaid"]).version == 4
    assert device.session.key == key


def test_two_fresh_uaids_differ() -> None:
    keys = set()
    for _ in range(20):
        device = Device()
        device.send({"messageType": "hello", "channelIDs": []})
        keys.add(device.word()[2])
    assert len(keys) == 20


@pytest.mark.parametrize("uaid", [UAID, HYPHENS, UAID.upper(), HYPHENS.upper()])
def test_a_hello_without_channels_takes_any_uaid_in_its_own_spelling(uaid: str) -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": uaid, "channelIDs": []})
    assert device.word() == (v.ATTACH, 0, device_key(uaid), "", v.EVERYTHING)
    assert device.answer(v.OK, [[], None]) == [{"messageType": "hello", "uaid": uaid, "status": 200}]


def test_a_hello_with_channels_needs_a_uaid_that_is_known() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL]})
    assert device.word() == (v.ATTACH, 0, device_key(UAID), DEVICES, v.EVERYTHING)
    assert device.answer(v.UNKNOWN) == []
    kind, _, key, needs, fetch = device.word()
    assert (kind, needs, fetch) == (v.ATTACH, "", 0)
    assert key != device_key(UAID)
    assert device.answer(v.OK, [[], None]) == [{"messageType": "hello", "uaid": key.hex(), "status": 200}]


@pytest.mark.parametrize(("count", "fresh"), [(3, False), (4, True)])
def test_a_hello_with_too_many_channels_gets_a_fresh_uaid_and_deletes_nothing(count: int, fresh: bool) -> None:
    device = Device(max_channels=3)
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL] * count})
    assert (device.word()[2] != device_key(UAID)) is fresh
    device.answer(v.OK, [[], None])
    assert device.words == []


def test_a_malformed_uaid_is_told_before_its_channels_are_counted() -> None:
    refused(Device(max_channels=1), {"messageType": "hello", "uaid": "x", "channelIDs": [1, 2]}, 503, BAD_DEVICE)


def test_hello_is_followed_by_what_waits_in_one_notification_without_data() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": []})
    hello, note = device.answer(v.OK, [[item(CHANNEL, 5), item(OTHER, 0)], b"long ago"])
    assert hello["status"] == 200
    now = int(device.clock.unix())
    assert note == {"messageType": "notification", "updates": [update(CHANNEL, 5), update(OTHER, now)]}


def test_the_record_of_a_known_device_is_written_anew_once_a_day() -> None:
    today = Device().dialect.today()
    assert Device().greeted(record=today).words == []
    assert Device().greeted(record=None).words == []
    late = Device(timeout_uaid=77)
    late.clock.pass_by(86_400)
    late.greeted(record=today)
    assert late.words == [(v.RECORD, 0, DEVICES, device_key(UAID), late.dialect.today(), 77)]
    assert late.dialect.today() != today


@pytest.mark.parametrize("fields", [{}, {"uaid": ""}, {"uaid": None}, {"uaid": UAID}])
def test_a_second_hello_of_the_same_device_repeats_what_waits(fields: dict[str, Any]) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "hello", "channelIDs": [], **fields}) == []
    assert device.word() == (v.FETCH, 0, device_key(UAID), v.EVERYTHING)
    hello, note = device.answer(v.OK, [item(CHANNEL, 5)])
    assert hello == {"messageType": "hello", "uaid": UAID, "status": 200}
    assert note["updates"] == [update(CHANNEL, 5)]
    device.send({"messageType": "hello", "channelIDs": []})
    assert len(device.answer(v.OK, [item(CHANNEL, 5)])) == 2


@pytest.mark.parametrize("uaid", ["0" * 32, HYPHENS, UAID.upper(), "malformed"])
def test_a_second_hello_with_another_uaid_is_refused(uaid: str) -> None:
    refused(Device().greeted(), {"messageType": "hello", "uaid": uaid, "channelIDs": []}, 503, ASSIGNED)


def test_a_second_hello_must_list_its_channels_too() -> None:
    refused(Device().greeted(), {"messageType": "hello", "uaid": UAID}, 401, MISSING)


def test_a_device_that_attached_elsewhere_meanwhile_is_let_go() -> None:
    device = Device()
    device.send({"messageType": "hello", "uaid": UAID, "channelIDs": []})
    assert device.answer(v.MOVED) == []
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
        (reply,) = device.answer(v.FAILED)
        assert (reply["messageType"], reply["status"]) == (name, 503)
        assert reply["error"] == reply["reason"] == "Error updating channel record"
        assert device.closed is not None
        assert device.closed.code == 1013


# ---- register and unregister


@pytest.mark.parametrize("channel", [CHANNEL, CHANNEL.upper(), PLAIN_CHANNEL, PLAIN_CHANNEL.lower()])
@pytest.mark.parametrize("uaid", [UAID, HYPHENS])
def test_register(channel: str, uaid: str) -> None:
    device = Device(timeout_uaid=99).greeted(uaid)
    assert device.send({"messageType": "register", "channelID": channel, "uaid": "ignored"}) == []
    assert device.word() == (v.RECORD, 0, DEVICES, device_key(uaid), device.dialect.today(), 99)
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
    device.answer(v.OK, [[], b"long ago"])
    device.words.clear()
    register = {"messageType": "register", "channelID": OTHER}
    assert [device.send(register)[0]["status"] for _ in range(2)] == [200, 200]
    for _ in range(2):
        text = "The device has too many channels"
        refusal = {"messageType": "register", "channelID": OTHER, "status": 413, "error": text, "reason": text}
        assert device.send(register) == [refusal]
    assert device.counters.commands_refused == 2
    assert (device.words, device.closed) == ([], None)
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


@pytest.mark.parametrize("status", [v.OK, v.FAILED])
@pytest.mark.parametrize("key", ["channelID", "channelid"])
def test_unregister_is_always_answered_200(status: int, key: str) -> None:
    device = Device().greeted()
    assert device.send({"messageType": "UNREGISTER", key: CHANNEL}) == []
    assert device.word() == (v.DROP, 0, device_key(UAID), CHANNEL)
    assert device.answer(status) == [{"messageType": "unregister", "status": 200, "channelID": CHANNEL}]
    assert device.closed is None


def test_unregister_of_what_can_be_no_channel_is_answered_at_once() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "unregister", "channelID": "x"}) == [
        {"messageType": "unregister", "status": 200, "channelID": "x"}
    ]
    assert device.words == []


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
    assert device.words == [(v.ACK, device_key(UAID), [(CHANNEL, 5), (OTHER, 6)])]
    assert device.call is None


def test_an_ack_without_a_version_is_one_of_version_0() -> None:
    device = Device().greeted()
    device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL}]})
    assert device.words == [(v.ACK, device_key(UAID), [(CHANNEL, 0)])]


def test_an_ack_of_a_version_below_0_takes_no_other_with_it() -> None:
    device = Device().greeted()
    acks = [update(CHANNEL, 7), update(OTHER, -1)]
    device.send({"messageType": "ack", "updates": acks[1:]})
    device.send({"messageType": "ack", "updates": acks})
    assert device.words == [(v.ACK, device_key(UAID), [(CHANNEL, 7)])]


def test_an_ack_of_expired_channels_alone() -> None:
    device = Device().greeted()
    assert device.send({"messageType": "ack", "updates": [], "expired": [CHANNEL]}) == []
    assert device.words == []
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
    assert device.answer(v.OK, [[], None])[0]["status"] == 200
    device.send({"MESSAGETYPE": "register", "channelid": CHANNEL, "channelID": None})
    assert device.answer()[0]["channelID"] == CHANNEL
    device.send({"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": None}], "expired": None})
    assert device.words == [(v.ACK, device.session.key, [(CHANNEL, 0)])]


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
    assert device.words == [(v.ACK, device_key(UAID), [(CHANNEL, 5)])]
    assert device.word() == (v.FETCH, 0, device_key(UAID), v.EVERYTHING)
    assert device.answer(v.OK, [item(OTHER, 6)]) == [{"messageType": "notification", "updates": [update(OTHER, 6)]}]
    device.send({"messageType": "ack", "expired": [CHANNEL]})
    assert device.answer(v.OK, []) == []


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
        assert device.words == []


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
    assert device.word() == (v.FETCH, 0, device.session.key, v.EVERYTHING)
    kept = [item(channels[0], 2), item(channels[3], 1), item(channels[4], 1)]
    assert device.answer(v.OK, kept)[0]["updates"] == [update(channels[4], 1)]
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
