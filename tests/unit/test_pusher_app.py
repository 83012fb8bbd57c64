"""Pusher, app-server side: requests through the routes and a real hub, answers and messages for the workers out."""

import json
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import Rig, in_rig, settings_with
from support.pusher_app import (
    APP,
    OPEN,
    App,
    Json,
    event,
)

from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.pusher.app_server import routes
from router.dialects.pusher.protocol import (
    PusherOptions,
    is_cache,
    is_channel_name,
    is_encrypted,
    is_presence,
    is_private,
    is_socket_id,
)
from router.http.message import Request
from router.http.routes import Router


@pytest.mark.parametrize("name", ["a", "A-z_0=9@,.;", "private-x", "x" * 200])
def test_channel_names(name: str) -> None:
    assert is_channel_name(name, 200)


@pytest.mark.parametrize("name", ["", "x" * 201, "a b", "a/b", "#a", "#server-to-user-1", "ä", "a\n", "a:b", "a%20b"])
def test_what_no_channel_is_called(name: str) -> None:
    assert not is_channel_name(name, 200)


def test_kinds_of_channels() -> None:
    names = ("cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a")
    assert all(map(is_cache, names))
    assert not any(map(is_cache, ("a", "acache-a", "private-a", "presence-a", "private-encrypted-a", "cache")))
    assert [is_private(name) for name in names] == [False, True, True, False]
    assert [is_encrypted(name) for name in names] == [False, False, True, False]
    assert [is_presence(name) for name in names] == [False, False, False, True]


def test_socket_ids() -> None:
    assert is_socket_id("1.2")
    assert is_socket_id("4294967295.18446744073709551615")
    for text in ("", "1", "1.", ".1", "1.2.3", "a.b", "1.2\n", "-1.2", "1" * 21 + ".1", "\u0661.\u0661"):
        assert not is_socket_id(text)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/apps/3/events", 405),
        ("GET", "/apps/3/batch_events", 405),
        ("POST", "/apps/3/channels", 405),
        ("DELETE", "/apps/3/channels/a", 405),
        ("POST", "/apps/3/channels/presence-a/users", 405),
        ("GET", "/apps/3/channels/a/events", 405),
        ("GET", "/apps/3/users/1/terminate_connections", 405),
        ("GET", "/apps/", 404),
        ("GET", "/apps/3", 404),
        ("GET", "/apps/3/", 404),
        ("GET", "/apps/3/nothing", 404),
        ("GET", "/apps/3/channels/", 404),
        ("GET", "/apps/3/channels/a/", 200),
        ("GET", "/apps/3/channels/a/nothing", 404),
        ("GET", "/apps/3/channels/a/users/more", 404),
        ("GET", "/apps/3/users/1", 404),
        ("POST", "/apps/3/users//terminate_connections", 404),
        ("GET", "/users/", 404),
        ("GET", "/users/1", 404),
        ("GET", "/users/1/nothing", 404),
        ("POST", "/users//terminate_connections", 404),
        ("GET", "/users/1/terminate_connections", 405),
        ("GET", "/users/a/users", 404),
        ("POST", "/users/1/terminate_connections/more", 404),
    ],
)
@in_rig()
async def test_paths_and_methods(rig: Rig, tmp_path: Path, method: str, path: str, status: int) -> None:
    app = App(rig, tmp_path)
    answers = app.call(method, path)
    assert (await app.answer(answers))[0] == status
    assert any(name == "Allow" for name, _ in answers[0].headers) == (status == 405)


@in_rig()
async def test_an_event_goes_once_to_each_shard(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    first, second, other = app.subscribe("a", "b"), app.subscribe("a", shard=1), app.subscribe("a", shard=2, app="4")
    data = '{"text":"\u00fc\U0001f600 \\"quoted\\" \\u2028"}\n\x00'
    assert await app.post(event("a", channels=["a", "b", "a"], data=data, name='gr\u00fc\u00df"e')) == (200, {})
    frames = [({"event": 'gr\u00fc\u00df"e', "channel": name, "data": data}, "") for name in "ab"]
    assert first.hear() == frames
    assert second.hear() == frames[:1]
    assert other.hear() == []
    assert not any(map(len, rig.store.batches))  # nothing of it is stored


@in_rig()
async def test_the_event_s_sender_is_left_out(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a")
    assert await app.post(event(socket_id="123.456")) == (200, {})
    assert listener.hear()[0][1] == "123.456"
    for nobody in ("", None):
        assert await app.post(event(socket_id=nobody)) == (200, {})
        assert listener.hear()[0][1] == ""
    for wrong in ("123", "123.456:a", "x", "1.2\n"):
        assert (await app.post(event(socket_id=wrong)))[0] == 400
    assert listener.hear() == []


@in_rig()
async def test_channel_instead_of_channels(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "b")
    assert await app.post({"name": "x", "data": "", "channel": "a"}) == (200, {})
    assert await app.post({"name": "x", "data": "", "channel": "a", "channels": []}) == (200, {})
    assert await app.post({"name": "x", "data": "", "channel": "a", "channels": ["b"], "more": 1}) == (200, {})
    assert [frame["channel"] for frame, _ in listener.hear()] == ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"name":"\xff","data":"","channel":"a"}',
        b"[" * 100_000,
        b'{"name":"x","data":"\\ud800","channel":"a"}',
        {"data": "", "channel": "a"},
        {"name": "x", "channel": "a"},
        {"name": "x", "data": ""},
        event(name=""),
        event(name="x" * 201),
        event(name=5),
        event(name=None),
        event(data={"hello": "world"}),
        event(data=None),
        event(data=7),
        event(channels=[]),
        event(channels="a"),
        event(channels=[1]),
        event(channels=["a", "b c"]),
        event(channels=["x" * 201]),
        event(channels=[f"c{number}" for number in range(101)]),
        event(channels=["a"] * 101),
        event(channels=["#a"]),
        event(channels=["#server-to-user-"]),
        event(channels=["#server-to-user-" + "x" * 129]),
        event(channels=["a", "private-encrypted-b"]),
        event(channels=["private-encrypted-a", "private-encrypted-b"]),
        event(socket_id=5),
        event(info=5),
        event(info="nonsense"),
    ],
)
@in_rig()
async def test_events_that_are_none(rig: Rig, tmp_path: Path, body: Any) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "b", "#a")
    assert (await app.post(body))[0] == 400
    assert listener.hear() == []
    assert rig.hub.counters.pushes_invalid == 1


@in_rig()
async def test_limits_of_an_event(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    assert (await app.post(event(name="\u00fc" * 200)))[0] == 200
    assert (await app.post(event(channels=[f"c{number}" for number in range(100)])))[0] == 200
    assert (await app.post(event(channels=["x" * 200])))[0] == 200
    assert (await app.post(event(data="x" * 10_240)))[0] == 200
    assert (await app.post(event(data="\u00fc" * 5120)))[0] == 200
    assert (await app.post(event(data="x" * 10_241)))[0] == 413
    assert (await app.post(event(data="\u00fc" * 5121)))[0] == 413
    assert rig.hub.counters.pushes_too_long == 2


@in_rig()
async def test_the_limits_are_settings(rig: Rig, tmp_path: Path) -> None:
    app = App(
        rig, tmp_path, max_event_name=3, max_data_bytes=4, max_channels_an_event=2, max_channel_name=5, max_batch=1
    )
    ok = {"name": "abc", "data": "1234", "channels": ["abcde", "b"]}
    assert (await app.post(ok))[0] == 200
    changes: tuple[Json, ...] = (
        {"name": "abcd"},
        {"data": "12345"},
        {"channels": ["a", "b", "c"]},
        {"channels": ["abcdef"]},
    )
    assert [(await app.post(ok | change))[0] for change in changes] == [400, 413, 400, 400]
    one = {"name": "a", "data": "", "channel": "a"}
    assert (await app.post({"batch": [one]}, "/apps/3/batch_events"))[0] == 200
    assert (await app.post({"batch": [one, one]}, "/apps/3/batch_events"))[0] == 400


@in_rig()
async def test_an_encrypted_channel_alone(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("private-encrypted-a")
    data = '{"nonce":"AAAA","ciphertext":"BBBB"}'
    assert await app.post(event("private-encrypted-a", data=data)) == (200, {})
    assert await app.post(event(channels=["private-encrypted-a"] * 2, data=data)) == (200, {})
    assert [frame["data"] for frame, _ in listener.hear()] == [data, data]


@in_rig()
async def test_an_event_for_one_user(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe('#server-to-user-"j\u00fcrgen"')
    assert await app.post(event('#server-to-user-"j\u00fcrgen"')) == (200, {})
    assert [frame["channel"] for frame, _ in listener.hear()] == ['#server-to-user-"j\u00fcrgen"']


@in_rig()
async def test_an_event_that_asks_for_counts(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-a")
    listener.count("a", 5)
    listener.enter("presence-a", "jim")
    listener.enter("presence-a", "joe")
    other = app.subscribe("a", "presence-a", shard=1)
    other.enter("presence-a", "joe")
    body = event(channels=["a", "presence-a", "empty"], info="user_count,subscription_count")
    assert await app.post(body) == (
        200,
        {
            "channels": {
                "a": {"subscription_count": 6},
                "presence-a": {"user_count": 2, "subscription_count": 2},
                "empty": {"subscription_count": 0},
            }
        },
    )
    assert await app.post(event("presence-b", info=" user_count ")) == (
        200,
        {"channels": {"presence-b": {"user_count": 0}}},
    )
    assert await app.post(event(info="")) == (200, {})


@in_rig()
async def test_a_batch(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-b")
    listener.enter("presence-b", "jim")
    batch = [
        {"name": "x", "data": "1", "channel": "a", "socket_id": "1.2"},
        {"name": "y", "data": "2", "channel": "presence-b"},
        {"name": "z", "data": "3", "channel": "private-encrypted-c"},
    ]
    assert await app.post({"batch": batch}, "/apps/3/batch_events") == (200, {})
    assert listener.hear() == [
        ({"event": "x", "channel": "a", "data": "1"}, "1.2"),
        ({"event": "y", "channel": "presence-b", "data": "2"}, ""),
    ]
    batch[1]["info"] = "user_count,subscription_count"
    assert await app.post({"batch": batch}, "/apps/3/batch_events") == (
        200,
        {"batch": [{}, {"user_count": 1, "subscription_count": 1}, {}]},
    )
    assert await app.post({"batch": []}, "/apps/3/batch_events") == (200, {})
    assert await app.post({"batch": [batch[0]] * 10}, "/apps/3/batch_events") == (200, {})


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"name": "x", "data": "", "channel": "a b"}, 400),
        ({"name": "x", "data": "", "channels": ["a", "b"]}, 400),
        ({"name": "x", "data": ""}, 400),
        ({"name": "", "data": "", "channel": "a"}, 400),
        ({"name": "x", "data": {}, "channel": "a"}, 400),
        ({"name": "x", "data": "x" * 10_241, "channel": "a"}, 413),
        ({"name": "x", "data": "", "channel": "a", "socket_id": "1"}, 400),
        ({"name": "x", "data": "", "channel": "a", "info": "x"}, 400),
        (5, 400),
    ],
)
@in_rig()
async def test_one_wrong_event_stops_the_whole_batch(rig: Rig, tmp_path: Path, wrong: Any, status: int) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "b")
    batch = [{"name": "x", "data": "", "channel": "a"}, wrong]
    assert (await app.post({"batch": batch}, "/apps/3/batch_events"))[0] == status
    assert listener.hear() == []


@pytest.mark.parametrize(
    "body", [{}, [], {"batch": {}}, {"batch": [{"name": "x", "data": "", "channel": "a"}] * 11}, b"", event()]
)
@in_rig()
async def test_what_is_no_batch(rig: Rig, tmp_path: Path, body: Any) -> None:
    app = App(rig, tmp_path)
    assert (await app.post(body, "/apps/3/batch_events"))[0] == 400


@in_rig()
async def test_the_old_route(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "private-encrypted-a")
    path = "/apps/3/channels/a/events"
    assert await app.post(b'{"hello":"world"}', path, name="greet", socket_id="1.2") == (202, {})
    assert listener.hear() == [({"event": "greet", "channel": "a", "data": '{"hello":"world"}'}, "1.2")]
    assert await app.post(b"", path, name="nothing") == (202, {})
    assert await app.post(b"{}", "/apps/3/channels/private-encrypted-a/events", name="x") == (202, {})
    assert len(listener.hear()) == 2
    assert (await app.post(b"{}", path))[0] == 400
    assert (await app.post(b"{}", path, name="x", socket_id="1"))[0] == 400
    assert (await app.post(b"\xff", path, name="x"))[0] == 400
    assert (await app.post(b"x" * 10_241, path, name="x"))[0] == 413
    assert (await app.post(b"{}", "/apps/3/channels/a%20b/events", name="x"))[0] == 400
    assert listener.hear() == []


@given(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["/apps/3/", "/apps/3/channels/", "/users/", "/apps/open/", "/apps/open/channels/presence-a/"]),
    st.text(st.characters(codec="ascii", exclude_characters="?#"), max_size=20),
    st.text(st.characters(codec="ascii"), max_size=60),
    st.binary(max_size=40),
)
def test_nothing_that_comes_breaks_it(method: str, start: str, rest: str, query: str, body: bytes) -> None:
    statuses: list[int] = []
    path = (start + rest).encode()
    handler = _anything().find(path)
    assert handler is not None
    handler(Request(method.encode(), path, query.encode(), {}, body), lambda answer: statuses.append(answer.status))
    assert len(statuses) == 1
    assert statuses[0] in (200, 400, 401, 404, 405)


@cache
def _anything() -> Router:
    with NamedTemporaryFile("w") as file:
        json.dump({"applications": [APP, OPEN]}, file)
        file.flush()
        settings = settings_with((PusherOptions, {"apps": file.name}))
        rig = Rig()
        return Router(routes(Context(rig.hub.core, Tokens((b"k" * 32,)), settings, rig.clock.unix, dict)))
