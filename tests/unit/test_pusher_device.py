"""Pusher, device side: what a device says in, events and effects for the worker out."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pusher_device import (
    KEY,
    SOCKET,
    Device,
    address,
    auth,
    denied,
    error,
    event,
    made,
    request,
    succeeded,
)

from farm.dialects import Close, Members, Subscription
from farm.dialects.pusher.dialect import PusherDialect, RejectedSession
from farm.dialects.pusher.session import PusherSession, _shared_address
from router.common import messages as m
from router.common.position import LIVE, Last, LogEvent, LogSlice
from router.dialects.pusher.protocol import (
    label,
)


@pytest.fixture
def plain(tmp_path: Path) -> PusherDialect:
    return made(tmp_path)


@pytest.fixture
def talkative(tmp_path: Path) -> PusherDialect:
    """Client events are on, and a webhook hears of what is not in a cache."""
    hook = {"url": "http://127.0.0.1:9/", "events": ["cache_miss"]}
    return made(tmp_path, {"client_messages": True, "webhooks": [hook]})


def test_the_greeting_is_what_pusher_js_wants(plain: PusherDialect) -> None:
    session = plain.opened(request())
    assert isinstance(session, PusherSession)
    (greeting,) = session.begun(0.0)
    assert isinstance(greeting, bytes)
    found = json.loads(greeting)
    assert found["event"] == "pusher:connection_established"
    assert json.loads(found["data"]) == {"socket_id": SOCKET, "activity_timeout": 120}
    assert session.socket_id == SOCKET
    assert session.farewell[0] == 4100


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"path": "/app/nobody"}, 4001),
        ({"path": "/app/"}, 4005),
        ({"path": f"/app/{KEY}/more"}, 4005),
        ({"path": f"/app/{KEY}%2Fmore"}, 4005),
        ({"query": ""}, 4008),
        ({"query": "client=js"}, 4008),
        ({"query": "protocol="}, 4008),
        ({"query": "protocol=seven"}, 4006),
        ({"query": "protocol=-7"}, 4006),
        ({"query": "protocol=%C2%B2"}, 4006),
        ({"query": "protocol=" + "7" * 5000}, 4006),
        ({"query": "protocol=4"}, 4007),
        ({"query": "protocol=8"}, 4007),
    ],
)
def test_who_cannot_be_served_is_told_and_closed(plain: PusherDialect, how: dict[str, str], code: int) -> None:
    device = Device(plain, **how)
    assert error(device.greeting)[0] == code
    assert device.closed is not None
    assert device.closed.code == code
    session = device.session
    assert isinstance(session, RejectedSession)
    assert session.received(b"{}", False, 0.0) == ()
    assert session.tick(1000.0) == ((), 0)


@pytest.mark.parametrize("protocol", [5, 6, 7])
def test_older_protocols_are_spoken_too(plain: PusherDialect, protocol: int) -> None:
    assert Device(plain, query=f"protocol={protocol}").closed is None


def test_a_key_may_stand_in_the_path_as_browsers_write_it(tmp_path: Path) -> None:
    assert Device(made(tmp_path, {"key": "ä b"}), path="/app/%C3%A4%20b").closed is None


def test_an_application_that_is_off(tmp_path: Path) -> None:
    device = Device(made(tmp_path, {"enabled": False}))
    assert error(device.greeting)[0] == 4003


def test_an_application_has_its_quota(tmp_path: Path) -> None:
    of = made(tmp_path, {"connections_a_worker": 2})
    devices = [Device(of), Device(of)]
    full = Device(of)
    assert (error(full.greeting)[0], full.closed.code if full.closed else 0) == (4004, 4004)
    devices.pop().session.closed()
    assert Device(of).closed is None


@pytest.mark.parametrize("where", [{}, {"channel": None}, {"data": None}, {"data": None, "channel": None}])
def test_null_is_as_good_as_nothing(plain: PusherDialect, where: dict[str, Any]) -> None:
    device = Device(plain)
    assert device.raw(json.dumps({"event": "pusher:ping", **where}).encode()) == [{"event": "pusher:pong", "data": {}}]
    assert device.raw(json.dumps({"event": "pusher:pong", **where}).encode()) == []
    said = {"channel": "a", "auth": None, "channel_data": None, "more": None}
    assert device.send("pusher:subscribe", said, channel=None, user_id=None) == []
    assert device.answer() == [succeeded("a")]
    assert error(device.send("client-a", None, channel=None))[0] == 4301
    assert device.send("pusher:unsubscribe", {"channel": "a"}, channel=None) == []
    assert device.parted == [address("a")]


def test_names_too_long_for_a_channel_are_not_remembered(plain: PusherDialect) -> None:
    device = Device(plain)
    device.send("pusher:unsubscribe", {"channel": "a"})
    before = _shared_address.cache_info()
    for number in range(10):
        name = "private-" + f"{number:d}" * 200_000
        assert device.send("pusher:unsubscribe", {"channel": name}) == []
        device.subscribe(name)
        device.send("client-a", 1, channel=name)
    assert _shared_address.cache_info() == before


def test_ping_is_answered_at_once(plain: PusherDialect) -> None:
    device = Device(plain)
    assert device.send("pusher:ping", {}) == [{"event": "pusher:pong", "data": {}}]
    assert device.raw(b'{"event":"pusher:ping"}') == [{"event": "pusher:pong", "data": {}}]
    assert device.send("pusher:pong", {}) == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"{}",
        b'{"event":5}',
        b'{"event":"pusher:sub"}',
        b'{"event":"pusher:subscribe"}',
        b'{"event":"pusher:subscribe","data":5}',
        b'{"event":"pusher:subscribe","data":"{"}',
        b'{"event":"pusher:subscribe","data":{"channel":5}}',
        b'{"event":"pusher:subscribe","data":{"channel":"a","auth":{}}}',
        b'{"event":"pusher:unsubscribe","data":{"channel":[]}}',
        b'{"event":"pusher:signin","data":{"auth":"x"}}',
        b'{"event":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"event":"\xff"}',
    ],
)
def test_what_is_not_understood_costs_nothing_but_an_error(plain: PusherDialect, message: bytes) -> None:
    device = Device(plain)
    assert error(device.raw(message))[0] is None
    assert device.subscribe("a") == [succeeded("a")]


def test_binary_is_not_understood(plain: PusherDialect) -> None:
    assert error(Device(plain).raw(b'{"event":"pusher:ping"}', binary=True))[0] is None


def test_silence_is_asked_about_once_and_then_ends_the_connection(plain: PusherDialect) -> None:
    session = Device(plain).session
    assert session.tick(20.0) == ((), 130.0)
    effects, again = session.tick(150.2)
    assert [event(e)["event"] for e in effects if isinstance(e, bytes)] == ["pusher:ping"]
    assert again == pytest.approx(29.8)
    (close,), again = session.tick(179.9)  # the wheel may be a little early
    assert isinstance(close, Close)
    assert (close.code, again) == (4201, 0)


def test_who_answers_the_ping_stays(plain: PusherDialect) -> None:
    session = Device(plain).session
    session.tick(150.0)
    assert session.tick(29.0) == ((), 121.0)


def test_an_application_may_want_authorized_connections(tmp_path: Path) -> None:
    of = made(tmp_path, {"authorized_connections": True})
    stranger = Device(of)
    assert stranger.ticks == [30]
    stranger.subscribe("public")
    effects, _ = stranger.session.tick(1.0)
    assert error(stranger.take(effects))[0] == 4009
    assert stranger.closed is not None
    assert stranger.closed.code == 4009
    for let_in in (Device(of).signed_in("7"), Device(of), Device(of)):
        if isinstance(let_in.session, PusherSession) and not let_in.channels():
            let_in.subscribe("private-a", auth=auth("private-a"))
        assert let_in.session.tick(1.0) == ((), 149.0)


def test_a_public_channel(plain: PusherDialect) -> None:
    device = Device(plain)
    assert device.send("pusher:subscribe", {"channel": "news", "auth": ""}) == []
    assert device.open == Subscription(address("news"), label("3", "news"))
    assert device.channels() == {address("news")}
    assert device.answer() == [succeeded("news")]
    assert device.send("pusher:unsubscribe", {"channel": "news"}) == []
    assert (device.parted, device.channels()) == ([address("news")], set())
    assert device.send("pusher:unsubscribe", {"channel": "news"}) == []
    assert device.parted == [address("news")]


def test_data_may_be_a_text_that_holds_json(plain: PusherDialect) -> None:
    device = Device(plain)
    device.send("pusher:subscribe", json.dumps({"channel": "news"}))
    assert device.answer() == [succeeded("news")]


def test_subscribers_of_a_channel_share_its_address(plain: PusherDialect) -> None:
    keys = []
    for _ in range(2):
        device = Device(plain)
        device.subscribe("news")
        assert isinstance(device.session, PusherSession)
        keys.append(device.session.channels[0])
    assert keys[0] is keys[1]


def test_the_same_channel_twice(plain: PusherDialect) -> None:
    device = Device(plain)
    device.subscribe("news")
    assert error(device.subscribe("news")) == (None, "Existing subscription to channel news")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "#a", "#server-to-user", "a" * 201, "a" * 5000])
def test_a_name_that_no_channel_has(plain: PusherDialect, name: str) -> None:
    assert denied(Device(plain).subscribe(name)) == (name[:200], "InvalidChannel", 400)


def test_a_name_of_every_character(plain: PusherDialect) -> None:
    name = "azAZ09_-=@,.;".ljust(200, "x")
    assert Device(plain).subscribe(name) == [succeeded(name)]


def test_a_connection_has_so_many_channels(tmp_path: Path) -> None:
    device = Device(made(tmp_path, max_channels_a_connection=2))
    device.subscribe("a")
    device.subscribe("b")
    assert denied(device.subscribe("c")) == ("c", "LimitReached", 403)
    device.send("pusher:unsubscribe", {"channel": "a"})
    assert device.subscribe("c") == [succeeded("c")]


@pytest.mark.parametrize("name", ["private-a", "private-encrypted-a", "private-cache-a", "private-"])
def test_a_private_channel_needs_its_signature(plain: PusherDialect, name: str) -> None:
    device = Device(plain)
    for wrong in (None, "", "x", auth("private-b"), auth(name, secret="x"), auth(name, data="{}"), auth(name)[:-1]):
        assert denied(device.subscribe(name, auth=wrong)) == (name, "AuthError", 401)
    assert denied(device.subscribe(name)) == (name, "AuthError", 401)
    assert device.channels() == set()
    device.send("pusher:subscribe", {"channel": name, "auth": auth(name)})
    assert device.open == Subscription(address(name), label("3", name), position=Last(1) if "cache" in name else LIVE)


@pytest.mark.parametrize("name", ["private-a", "private-encrypted-a", "private-cache-a"])
def test_the_signature_of_a_private_channel_may_cover_data(plain: PusherDialect, name: str) -> None:
    data = '{"user_id":"u1"}'
    for signed, said in ((data, data), (None, data), (None, None), (None, ""), ("", "")):
        device = Device(plain)
        device.send("pusher:subscribe", {"channel": name, "auth": auth(name, signed), "channel_data": said})
        assert isinstance(device.open, Subscription)
        assert device.open[:3] == (address(name), label("3", name), None)  # it makes no member of it
    for signed, said in ((data, '{"user_id":"u2"}'), (data, None), (data, ""), ("", None)):
        told = Device(plain).subscribe(name, auth=auth(name, signed), channel_data=said)
        assert denied(told) == (name, "AuthError", 401)


def test_the_vector_of_the_documentation_is_accepted(plain: PusherDialect) -> None:
    vector = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    device = Device(plain)
    assert device.subscribe("private-foobar", auth=f"{KEY}:{vector}") == [succeeded("private-foobar")]


def test_when_the_router_cannot_the_device_comes_back(plain: PusherDialect) -> None:
    device = Device(plain)
    device.send("pusher:subscribe", {"channel": "a"})
    device.answer(m.FAILED)
    assert device.closed is not None
    assert device.closed.code == 4100
    assert device.channels() == set()


def log_of(*bodies: str) -> LogSlice:
    return LogSlice(7, len(bodies), True, [LogEvent(1, 1, 1, 2_000_000_000, "", {}, body) for body in bodies])


def asks(device: Device, name: str, **data: Any) -> None:
    """It subscribes to a channel, from the newest event of its log on."""
    assert device.send("pusher:subscribe", {"channel": name, "auth": auth(name)} | data) == []
    assert device.open == Subscription(address(name), label("3", name), position=Last(1))


def missed(name: str) -> dict[str, Any]:
    return {"event": "pusher:cache_miss", "channel": name, "data": {}}


def test_a_cache_channel_gives_its_last_event(talkative: PusherDialect) -> None:
    device = Device(talkative)
    asks(device, "cache-a")
    frame = '{"event":"price","channel":"cache-a","data":"{\\"is\\":5}"}'
    assert device.answer(log=log_of(frame)) == [succeeded("cache-a"), event(frame)]
    assert device.messages == []


@pytest.mark.parametrize("name", ["cache-a", "private-cache-a", "private-encrypted-cache-a"])
def test_a_cache_channel_without_event_is_missed(talkative: PusherDialect, name: str) -> None:
    device = Device(talkative)
    asks(device, name)
    assert device.answer(log=log_of()) == [succeeded(name), missed(name)]
    assert device.messages == [m.Happened(label("3", name), "cache_miss", "")]


def test_presence_and_cache_together(plain: PusherDialect) -> None:
    device = Device(plain)
    data = json.dumps({"user_id": "7"})
    device.send(
        "pusher:subscribe",
        {"channel": "presence-cache-a", "auth": auth("presence-cache-a", data), "channel_data": data},
    )
    told, cached = device.answer(m.OK, Members([("7", "")]), log_of())
    assert told["data"]["presence"]["ids"] == ["7"]
    assert cached == missed("presence-cache-a")
    assert device.messages == []  # nobody wants to hear of it


def test_a_store_that_fails_is_a_miss_that_nobody_is_told_of(talkative: PusherDialect) -> None:
    device = Device(talkative)
    asks(device, "cache-a")
    assert device.answer() == [succeeded("cache-a"), missed("cache-a")]
    assert device.messages == []


def test_a_client_event_goes_to_the_others(talkative: PusherDialect) -> None:
    device = Device(talkative)
    device.subscribe("private-a", auth=auth("private-a"))
    assert device.send("client-moved", {"x": 1.5}, channel="private-a") == []
    (published,) = device.messages
    assert published == m.Publish(address("private-a"), published.body, 0, SOCKET)
    assert json.loads(published.body) == {"event": "client-moved", "channel": "private-a", "data": {"x": 1.5}}


def test_a_client_event_in_a_presence_channel_says_whose_it_is(talkative: PusherDialect) -> None:
    device = Device(talkative)
    device.enter("presence-a", 7, "7")
    device.send("client-moved", "north", channel="presence-a")
    (published,) = device.messages
    assert json.loads(published.body) == {
        "event": "client-moved",
        "channel": "presence-a",
        "data": "north",
        "user_id": 7,
    }


def test_a_client_event_without_data(talkative: PusherDialect) -> None:
    device = Device(talkative)
    device.subscribe("private-a", auth=auth("private-a"))
    assert device.raw(b'{"event":"client-a","channel":"private-a"}') == []
    assert json.loads(device.messages[0].body)["data"] is None


def test_client_events_that_are_rejected(talkative: PusherDialect) -> None:
    device = Device(talkative)
    for name in ("private-a", "private-encrypted-a"):
        device.subscribe(name, auth=auth(name))
    device.subscribe("public")
    for channel in ("public", "private-encrypted-a", "private-b", "presence-a", "", "#server-to-user-7"):
        assert error(device.send("client-a", 1, channel=channel))[0] == 4301
    assert error(device.send("client-" + "a" * 194, 1, channel="private-a"))[0] == 4301
    assert error(device.send("client-a", "x" * 10_239, channel="private-a"))[0] == 4301
    assert device.messages == []
    assert device.send("client-" + "a" * 193, "x" * 10_238, channel="private-a") == []
    device.send("pusher:unsubscribe", {"channel": "private-a"})
    assert error(device.send("client-a", 1, channel="private-a"))[0] == 4301


def test_client_events_are_off_by_default(plain: PusherDialect) -> None:
    device = Device(plain)
    device.subscribe("private-a", auth=auth("private-a"))
    code, message = error(device.send("client-a", 1, channel="private-a"))
    assert code == 4301
    assert "not enabled" in message


def test_so_many_client_events_a_second(talkative: PusherDialect) -> None:
    device = Device(talkative)
    device.subscribe("private-a", auth=auth("private-a"))
    for _ in range(10):
        assert device.send("client-a", 1, channel="private-a") == []
    assert error(device.send("client-a", 1, channel="private-a")) == (4301, "At most 10 client events a second")
    device.clock.pass_by(1)
    assert device.send("client-a", 1, channel="private-a") == []


@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), max_size=5))
def test_no_message_breaks_a_session(tmp_path_factory: pytest.TempPathFactory, messages: list[bytes]) -> None:
    device = Device(_shared(tmp_path_factory))
    for message in messages:
        device.raw(message)
    assert device.closed is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["private-a", "presence-a", KEY]),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(["channel", "auth", "channel_data", "user_data", "event", "id"]), inside, max_size=4
        )
    ),
    max_leaves=8,
)
_EVENTS = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin", "pusher:ping", "client-a", "pusher:pong", "x"]
)


@given(st.lists(st.tuples(_EVENTS, _JSON, _JSON), max_size=6))
def test_no_json_breaks_a_session(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, Any, Any]]) -> None:
    device = Device(_shared(tmp_path_factory))
    for name, channel, data in said:
        device.send(name, data, channel=channel)
        if device.open is not None:
            device.answer(m.OK, {})
        device.open = None
    assert device.closed is None


_MADE: list[PusherDialect] = []


def _shared(folders: pytest.TempPathFactory) -> PusherDialect:
    if not _MADE:
        _MADE.append(made(folders.mktemp("apps"), {"client_messages": True}))
    return _MADE[0]


def test_a_subscribed_session_is_small(plain: PusherDialect) -> None:
    def subscribed(number: int) -> Any:
        session = plain.opened(request(socket_id=f"4294967295.{number}"))
        assert isinstance(session, PusherSession)
        session.begun(0.0)
        session.received(b'{"event":"pusher:subscribe","data":{"channel":"news"}}', False, 0.0)
        return session

    session = subscribed(0)
    parts = [session, session.channels, session.socket_id]
    assert all(part is None or part in parts for part in (session._extra,))
    assert sum(map(sys.getsizeof, parts)) <= 260
