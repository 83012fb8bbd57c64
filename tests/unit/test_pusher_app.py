"""Pusher, app-server side: requests through the routes and a real hub, answers and messages for the workers out."""

import hmac
import json
from collections.abc import Iterable
from functools import cache
from hashlib import md5
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, growth, in_rig, settings_with

from router.common import messages as m
from router.common.position import AfterOffset, LogSlice
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.pusher.app_server import routes
from router.dialects.pusher.applications import AppsError
from router.dialects.pusher.protocol import (
    PusherOptions,
    channel_address,
    is_cache,
    is_channel_name,
    is_encrypted,
    is_presence,
    is_private,
    is_socket_id,
    label,
)
from router.http.message import Request, Response
from router.http.routes import Router
from router.http.turns import Turns

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
APP = {"id": "3", "name": "three", "key": KEY, "secret": SECRET}
OTHER = {"id": "4", "name": "four", "key": "other", "secret": "othersecret"}
OFF = {"id": "5", "name": "five", "key": "off", "secret": "offsecret", "enabled": False}
OPEN = {"name": "open", "key": "openkey", "secret": "opensecret", "unsigned": True}
VECTOR_BODY = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
VECTOR_TIME = 1353088179
VECTOR_QUERY = (
    f"auth_key={KEY}&auth_timestamp={VECTOR_TIME}&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f"
    "&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
)
Json = dict[str, Any]


class App:
    """The routes over a rig, and app servers that sign."""

    def __init__(
        self, rig: Rig, tmp_path: Path, apps: Iterable[Json] = (APP, OTHER, OFF, OPEN), **options: Any
    ) -> None:
        self.rig = rig
        self._workers: list[FakeWorker] = []
        path = tmp_path / "apps.json"
        path.write_text(json.dumps({"applications": list(apps)}))
        settings = settings_with((PusherOptions, {"apps": str(path)} | options))
        self.turns = Turns()
        context = Context(rig.hub.core, Tokens((b"k" * 32,)), settings, rig.clock.unix, dict, self.turns)
        self.router = Router(routes(context))

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"") -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        answers: list[Response] = []
        handler = self.router.find(path.encode())
        assert handler is not None
        handler(Request(method.encode(), path.encode(), query.encode(), {b"host": b"push"}, body), answers.append)
        return answers

    def query(self, method: str, path: str, body: bytes = b"", app: Json = APP, **parameters: str | None) -> str:
        """The signed query of a request. A parameter that is None is left out; a given signature stays."""
        found: dict[str, str | None] = {
            "auth_key": app["key"],
            "auth_timestamp": str(int(self.rig.clock.unix())),
            "auth_version": "1.0",
        }
        if body:
            found["body_md5"] = md5(body).hexdigest()
        found |= parameters
        there = {name: value for name, value in found.items() if value is not None}
        if "auth_signature" not in there:
            there["auth_signature"] = signed(app, method, path, there)
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in there.items())

    def call(
        self, method: str, path: str, body: Any = None, app: Json = APP, **parameters: str | None
    ) -> list[Response]:
        """A request as a library makes it."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.ask(method, path, self.query(method, path, raw, app, **parameters), raw)

    async def answer(self, answers: list[Response]) -> tuple[int, Any]:
        """Status and body; of an error its text."""
        for worker in self._workers:
            worker.tell_counts()
        self.turns.run()
        await self.rig.settle()
        (answer,) = answers
        assert answer.content_type == "application/json"
        body = json.loads(answer.body)
        if answer.status < 400:
            return answer.status, body
        assert set(body) == {"error"}
        assert body["error"]["code"] == answer.status
        assert isinstance(body["error"]["message"], str)
        return answer.status, body["error"]["message"]

    async def post(self, body: Any, path: str = "/apps/3/events", **parameters: str | None) -> tuple[int, Any]:
        return await self.answer(self.call("POST", path, body, **parameters))

    async def get(self, path: str, **parameters: str | None) -> tuple[int, Any]:
        return await self.answer(self.call("GET", path, **parameters))

    def subscribe(self, *channels: str, shard: int = 0, app: str = "3") -> "Listener":
        """A shard with one subscriber in each of these channels."""
        worker = self.rig.worker(shard)
        self._workers.append(worker)
        for channel in channels:
            worker.say(m.Call(1, m.Subscribe(channel_address(app, channel), label(app, channel))))
        worker.take()
        return Listener(worker, app)


class Listener:
    """A worker with subscribers."""

    def __init__(self, worker: FakeWorker, app: str) -> None:
        self.worker = worker
        self._app = app

    def enter(self, channel: str, user: str, info: str = "") -> None:
        self.worker.say(m.Call(1, m.PresenceJoin(channel_address(self._app, channel), user, info, 100)))
        self.worker.take()

    def count(self, channel: str, subscribers: int) -> None:
        self.worker.say(m.Counted(channel_address(self._app, channel), subscribers))

    def hear(self) -> list[tuple[Json, str]]:
        """The frames said to it, and whom they are not for."""
        found = []
        for one in self.worker.take():
            if isinstance(one, m.Event | m.LoggedEvent):
                body = json.loads(one.body if isinstance(one, m.Event) else one.event.body)
                assert one.channel == channel_address(self._app, body["channel"])
                assert is_cache(body["channel"]) or isinstance(one, m.Event)
                found.append((body, one.exclude))
        return found


def signed(app: Json, method: str, path: str, parameters: dict[str, str]) -> str:
    """By the protocol's own words, not by ours."""
    text = "&".join(f"{name.lower()}={parameters[name]}" for name in sorted(parameters, key=str.lower))
    return hmac.new(app["secret"].encode(), f"{method}\n{path}\n{text}".encode(), "sha256").hexdigest()


def event(channel: str = "a", **changes: Any) -> Json:
    return {"name": "greet", "data": '{"hello":"world"}', "channels": [channel]} | changes


# ---- names and records


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


# ---- signatures


@in_rig()
async def test_the_signature_of_the_documentation(rig: Rig, tmp_path: Path) -> None:
    rig.clock.unix_s = VECTOR_TIME
    app = App(rig, tmp_path)
    listener = app.subscribe("project-3")
    assert await app.answer(app.ask("POST", "/apps/3/events", VECTOR_QUERY, VECTOR_BODY)) == (200, {})
    assert listener.hear() == [({"event": "foo", "channel": "project-3", "data": '{"some":"data"}'}, "")]


@pytest.mark.parametrize(
    ("path", "method", "body", "query"),
    [
        ("/apps/3/events", "POST", VECTOR_BODY + b" ", VECTOR_QUERY),
        ("/apps/3/events", "POST", b"", VECTOR_QUERY),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace("da454", "da455")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace("da454", "DA454")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY[:-1]),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY + "&info=user_count"),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace(str(VECTOR_TIME), str(VECTOR_TIME + 1))),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace("1.0", "2.0")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.partition("&auth_signature")[0]),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace("body_md5=ec", "body_md5=ed")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace(KEY, "other")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace(KEY, "%FF\u00e9")),
        ("/apps/3/events", "POST", VECTOR_BODY, VECTOR_QUERY.replace("=da454", "=%C3%A9")),
        ("/apps/3/events", "POST", VECTOR_BODY, ""),
        ("/apps/3/batch_events", "POST", VECTOR_BODY, VECTOR_QUERY),
        ("/apps/4/events", "POST", VECTOR_BODY, VECTOR_QUERY),
        ("/apps/5/events", "POST", VECTOR_BODY, VECTOR_QUERY),
        ("/apps/3/channels/a/events", "POST", VECTOR_BODY, VECTOR_QUERY),
        ("/apps/%33/events", "POST", VECTOR_BODY, VECTOR_QUERY + "x"),
        ("/apps/3/channels", "GET", VECTOR_BODY, VECTOR_QUERY),
    ],
)
@in_rig()
async def test_a_request_that_is_not_as_it_was_signed(
    rig: Rig, tmp_path: Path, path: str, method: str, body: bytes, query: str
) -> None:
    rig.clock.unix_s = VECTOR_TIME
    app = App(rig, tmp_path)
    listener = app.subscribe("project-3", "a")
    status, _ = await app.answer(app.ask(method, path, query, body))
    assert status == 401
    assert rig.hub.counters.pushes_rejected == 1
    assert listener.hear() == []


@pytest.mark.parametrize(("off", "status"), [(600, 200), (-600, 200), (601, 401), (-601, 401), (10**9, 401)])
@in_rig()
async def test_how_old_a_request_may_be(rig: Rig, tmp_path: Path, off: int, status: int) -> None:
    app = App(rig, tmp_path)
    stamp = str(int(rig.clock.unix()) + off)
    assert (await app.post(event(), auth_timestamp=stamp))[0] == status


@in_rig()
async def test_the_window_is_a_setting(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, timestamp_window=5)
    assert (await app.post(event(), auth_timestamp=str(int(rig.clock.unix()) - 6)))[0] == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_timestamp": ""},
        {"auth_timestamp": "now"},
        {"auth_timestamp": "1" * 5000},
        {"auth_timestamp": "-1"},
        {"auth_timestamp": "\u0661"},
        {"auth_timestamp": None},
        {"auth_version": None},
        {"auth_version": "1.1"},
        {"auth_key": None},
        {"auth_key": ""},
        {"auth_signature": ""},
        {"body_md5": None},
        {"body_md5": ""},
        {"body_md5": "D41D8CD98F00B204E9800998ECF8427E"},
    ],
)
@in_rig()
async def test_parts_of_a_signature_that_cannot_be(rig: Rig, tmp_path: Path, changes: dict[str, str | None]) -> None:
    app = App(rig, tmp_path)
    assert (await app.post(event(), **changes))[0] == 401


@in_rig()
async def test_parameters_are_signed_as_they_are_meant(rig: Rig, tmp_path: Path) -> None:
    """Escaped or not, in any order, their names in any case; with the md5 of no body, as a library has it."""
    app = App(rig, tmp_path)
    path = "/apps/3/channels"
    parameters = {"filter_by_prefix": "presence-", "info": "user_count,subscription_count"}
    empty = md5(b"").hexdigest()
    query = app.query("GET", path, body_md5=empty, **parameters)
    assert "%2C" in query
    assert await app.answer(app.ask("GET", path, query)) == (200, {"channels": {}})
    for other in (
        query.replace("%2C", ","),
        "&".join(reversed(query.split("&"))),
        query.replace("info=", "Info="),
        query + "&",
    ):
        assert (await app.answer(app.ask("GET", path, other)))[0] == (401 if other.endswith("&") else 200)


@in_rig()
async def test_one_parameter_cannot_be_made_of_two(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    path = "/apps/3/channels"
    query = app.query("GET", path, filter_by_prefix="presence-", info="user_count")
    joined = query.replace(
        "filter_by_prefix=presence-&info=user_count", "filter_by_prefix=presence-%26info%3Duser_count"
    )
    assert joined != query
    assert (await app.answer(app.ask("GET", path, joined)))[0] == 401


@in_rig()
async def test_a_path_may_be_signed_before_it_is_escaped(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("#server-to-user-a b\u00e9")
    plain, escaped = "/apps/3/users/a b\u00e9/terminate_connections", "/apps/3/users/a%20b%C3%A9/terminate_connections"
    for signed_path in (plain, escaped):
        assert (await app.answer(app.ask("POST", escaped, app.query("POST", signed_path, b"{}"), b"{}")))[0] == 200
        (sent,) = listener.worker.take()
        assert (sent.channel, sent.code) == (channel_address("3", "#server-to-user-a b\u00e9"), 4009)
    # What was signed as a%2Fb, for a/b, is no leave to name the user a%2Fb.
    query = app.query("POST", "/apps/3/users/a%2Fb/terminate_connections", b"{}")
    assert (await app.answer(app.ask("POST", "/apps/3/users/a%2Fb/terminate_connections", query, b"{}")))[0] == 200
    assert (await app.answer(app.ask("POST", "/apps/3/users/a%252Fb/terminate_connections", query, b"{}")))[0] == 401


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda n: ("/apps/3/events", "&a=" + "%" * n), id="percents"),
        pytest.param(lambda n: ("/apps/3/events", "&a=" + "%41" * (n // 3)), id="escapes"),
        pytest.param(lambda n: ("/apps/3/events", "&" * n), id="nothing"),
        pytest.param(lambda n: ("/apps/3/events", "".join(f"&{i}" for i in range(n // 4))), id="parameters"),
        pytest.param(lambda n: ("/apps/" + "%" * n + "/events", ""), id="application"),
        pytest.param(lambda n: ("/apps/3/" + "/" * n, ""), id="slashes"),
        pytest.param(lambda n: ("/apps/3/users/" + "%" * n + "/terminate_connections", ""), id="user"),
        pytest.param(lambda n: ("/users/" + "%" * n + "/terminate_connections", ""), id="user of a key"),
    ],
)
@in_rig()
async def test_what_is_four_times_as_long_takes_four_times_as_long(rig: Rig, tmp_path: Path, made: Any) -> None:
    app = App(rig, tmp_path)
    stamp = int(rig.clock.unix())
    wrong = f"auth_key={KEY}&auth_timestamp={stamp}&auth_version=1.0&auth_signature={'0' * 64}"

    def act(size: int) -> None:
        path, query = made(size)
        assert app.ask("POST", path, wrong + query, b"{}")[0].status in (401, 404)

    assert growth(act, 4000) < 10


@in_rig()
async def test_an_application_that_is_off_and_one_that_is_not(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    assert (await app.post(event(), "/apps/5/events", app=OFF))[0] == 403
    assert (await app.post(event(), "/apps/6/events"))[0] == 404
    assert (await app.post(event(), "/apps//events"))[0] == 404
    assert (await app.post(event(), "/apps/%FF/events"))[0] == 404


@in_rig()
async def test_an_application_that_takes_what_is_not_signed(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", app="open")
    body = json.dumps(event()).encode()
    for query in ("", "auth_key=x&auth_signature=y", VECTOR_QUERY):
        assert await app.answer(app.ask("POST", "/apps/open/events", query, body)) == (200, {})
    assert len(listener.hear()) == 3
    assert await app.answer(app.ask("GET", "/apps")) == (200, {"applications": ["open"]})
    assert (await app.answer(app.ask("POST", "/apps/3/events", "", body)))[0] == 401


@in_rig()
async def test_unsigned_for_all(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, apps=(APP, OTHER), unsigned=True)
    assert (await app.answer(app.ask("POST", "/apps/3/events", "", json.dumps(event()).encode())))[0] == 200
    assert await app.answer(app.ask("GET", "/apps")) == (200, {"applications": ["three", "four"]})
    assert (await app.answer(app.ask("POST", "/apps")))[0] == 405


@in_rig()
async def test_on_one_port_names_are_told_as_micronotifier_does(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, apps=(APP, OTHER), one_port=True)
    assert await app.answer(app.ask("GET", "/apps")) == (200, {"applications": ["three", "four"]})
    assert (await app.answer(app.ask("POST", "/apps/3/events", "", json.dumps(event()).encode())))[0] == 401


@in_rig()
async def test_no_names_without_leave(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, apps=(APP,))
    assert (await app.answer(app.ask("GET", "/apps")))[0] == 404


@in_rig()
async def test_without_a_file_there_is_no_application(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, apps=())
    assert (await app.post(event()))[0] == 404
    settings = settings_with((PusherOptions, {"apps": str(tmp_path / "missing.json")}))
    with pytest.raises(AppsError, match=r"missing\.json: cannot be read"):
        routes(Context(rig.hub.core, Tokens((b"k" * 32,)), settings, rig.clock.unix, dict))


# ---- paths


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


# ---- events


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


# ---- batches


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


# ---- the old route


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


@in_rig()
async def test_what_a_channel_cannot_have_is_left_out(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    app.subscribe("a")
    assert await app.post(event("a", info="user_count,cache,subscription_count")) == (
        200,
        {"channels": {"a": {"subscription_count": 1}}},
    )
    for info in ("user_count", "cache", "user_count,cache"):
        assert await app.get("/apps/3/channels/a", info=info) == (200, {"occupied": True})
    assert await app.get("/apps/3/channels", info="cache") == (200, {"channels": {"a": {}}})


@in_rig()
async def test_errors_are_in_the_words_that_libraries_look_for(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    one = {"name": "a", "data": "", "channel": "a"}
    for path, body, status, words in (
        ("/apps/3/events", event(data="x" * 11_264), 413, "content of this event"),
        ("/apps/3/batch_events", {"batch": [one | {"data": "x" * 11_264}]}, 413, "content of this event"),
        ("/apps/3/batch_events", {"batch": [one] * 11}, 400, "Batch too large"),
    ):
        found, told = await app.post(body, path)
        assert (found, words in told) == (status, True)


@in_rig()
async def test_null_is_as_good_as_nothing(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    nothing = {"socket_id": None, "info": None, "more": None}
    one = {"name": "a", "data": "", "channel": "a", "channels": None, **nothing}
    assert await app.post(one) == (200, {})
    assert await app.post(one | {"channel": None, "channels": ["a"]}) == (200, {})
    assert await app.post({"batch": [one, one], "more": None}, "/apps/3/batch_events") == (200, {})
    assert (await app.post(one | {"channel": None}))[0] == 400


@in_rig()
async def test_users_have_the_ids_that_they_were_given(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("presence-a")
    for user, info in (("7", '#{"name":"Eve"}'), ("8", "#"), ("9", '{"x":1}'), ("a", "")):
        listener.enter("presence-a", user, info)
    path = "/apps/3/channels/presence-a/users"
    assert await app.get(path) == (200, {"users": [{"id": 7}, {"id": 8}, {"id": "9"}, {"id": "a"}]})
    with_info = [{"id": 7, "user_info": {"name": "Eve"}}, {"id": 8}, {"id": "9", "user_info": {"x": 1}}, {"id": "a"}]
    assert await app.get(path, with_user_info="1") == (200, {"users": with_info})


@in_rig()
async def test_who_is_subscribed_by_now_is_counted(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    one, two = app.subscribe("a"), app.subscribe("a", "b", shard=1)
    batch = {"batch": [{"name": "x", "data": "", "channel": "a", "info": "subscription_count"}]}
    for number, (method, path, body, parameters, asked) in enumerate(
        (
            ("GET", "/apps/3/channels/a", None, {"info": "subscription_count"}, 2),
            ("GET", "/apps/3/channels", None, {"info": "subscription_count", "filter_by_prefix": "a"}, 2),
            ("POST", "/apps/3/events", event("a", info="subscription_count"), {}, 2),
            ("POST", "/apps/3/batch_events", batch, {}, 2),
            ("GET", "/apps/3/channels/b", None, {"info": "subscription_count"}, 1),
            ("GET", "/apps/3/channels/nobody", None, {"info": "subscription_count"}, 0),
            ("GET", "/apps/3/channels/a", None, {}, 0),
            ("POST", "/apps/3/events", event("a"), {}, 0),
        ),
        10,
    ):
        answers = app.call(method, path, body, **parameters)
        assert bool(answers) is (asked == 0)
        late = m.Counted(channel_address("3", "a"), number)
        assert one.worker.tell_counts(late) == (asked == 2)
        assert two.worker.tell_counts(late) == (asked > 0)
        status, told = await app.answer(answers)
        assert status == 200
        if asked == 2:
            assert f'"subscription_count": {2 * number}' in json.dumps(told)
    assert len(rig.hub.recount) == 0


@in_rig(link={"max_recounts": 2})
async def test_a_worker_that_does_not_say_is_not_waited_for_long(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a")
    path = "/apps/3/channels/a"
    late, lost, beyond = (app.call("GET", path, info="subscription_count") for _ in range(3))
    assert (late, lost, len(beyond)) == ([], [], 1)
    rig.hub.tick()
    assert late == []
    rig.hub.lose(listener.worker.peer, "a test")
    rig.hub.tick()
    assert [json.loads(answers[0].body) for answers in (late, lost)] == [
        {"occupied": False, "subscription_count": 0}
    ] * 2
    listener = app.subscribe("a")
    late = app.call("GET", path, info="subscription_count")
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
    rig.hub.tick()
    assert json.loads(late[0].body) == {"occupied": True, "subscription_count": 1}
    assert listener.worker.tell_counts() == 1  # too late: it changes nothing


# ---- cache channels


@in_rig()
async def test_a_cache_channel_keeps_its_last_event(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("cache-a")
    path = "/apps/3/channels/cache-a"
    assert await app.get(path, info="cache") == (200, {"occupied": True, "cache": None})
    rig.store.hold()
    first = app.call("POST", "/apps/3/events", event("cache-a", data="1"))
    await rig.settle()
    assert listener.hear() == first == []  # until it is durable
    rig.store.release()
    assert await app.answer(first) == (200, {})
    assert listener.hear() == [({"event": "greet", "channel": "cache-a", "data": "1"}, "")]
    assert await app.post(event("cache-a", data="2\u00fc")) == (200, {})
    rig.clock.pass_by(100)
    assert await app.get(path, info="cache,subscription_count") == (
        200,
        {"occupied": True, "subscription_count": 1, "cache": {"data": "2\u00fc", "ttl": 1700}},
    )
    found: list[LogSlice | None] = []
    rig.committer.read_log(channel_address("3", "cache-a"), AfterOffset(0, 0), lambda _, log: found.append(log))
    await rig.settle()
    assert found[0] is not None
    assert [json.loads(one.body) for one in found[0].events] == [
        {"event": "greet", "channel": "cache-a", "data": "2\u00fc"}
    ]
    rig.clock.pass_by(1700)
    assert await app.get(path, info="cache") == (200, {"occupied": True, "cache": None})


@in_rig()
async def test_every_way_into_a_cache(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, cache_ttl=60)
    names = ["cache-a", "private-cache-a", "presence-cache-a", "private-encrypted-cache-a"]
    assert (await app.post(event(channels=[*names[:3], "plain"])))[0] == 200
    assert (await app.post(b"old", f"/apps/3/channels/{names[3]}/events", name="x"))[0] == 202
    batch = [{"name": "x", "data": "batch", "channel": "cache-b"}, {"name": "x", "data": "", "channel": "plain"}]
    assert (await app.post({"batch": batch}, "/apps/3/batch_events"))[0] == 200
    found = [(await app.get(f"/apps/3/channels/{name}", info="cache"))[1] for name in [*names, "cache-b"]]
    data = [event()["data"]] * 3 + ["old", "batch"]
    assert found == [{"occupied": False, "cache": {"data": text, "ttl": 60}} for text in data]


@in_rig(store={"queue_limit": 1})
async def test_a_store_that_cannot(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "cache-a")
    rig.store.failing = True
    assert (await app.post(event("cache-a")))[0] == 503
    assert (await app.get("/apps/3/channels/cache-a", info="cache"))[0] == 503
    rig.store.failing = False
    listener.hear()
    rig.store.hold()
    app.call("POST", "/apps/3/events", event("cache-a"))
    assert rig.committer.full
    listener.hear()
    batch = {"batch": [{"name": "x", "data": "", "channel": name} for name in ("a", "cache-a")]}
    assert (await app.post(event(channels=["a", "cache-a"])))[0] == 503
    assert (await app.post(batch, "/apps/3/batch_events"))[0] == 503
    assert (await app.post(b"", "/apps/3/channels/cache-a/events", name="x"))[0] == 503
    assert listener.hear() == []
    assert (await app.post(event("a")))[0] == 200  # which nothing keeps


# ---- what is there


@in_rig()
async def test_channels(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-b", "presence-c", "#server-to-user-1")
    app.subscribe("secret", shard=1, app="4")
    listener.enter("presence-b", "jim")
    listener.count("presence-b", 3)
    path = "/apps/3/channels"
    assert await app.get(path) == (200, {"channels": {"a": {}, "presence-b": {}, "presence-c": {}}})
    assert await app.get(path, filter_by_prefix="presence-") == (
        200,
        {"channels": {"presence-b": {}, "presence-c": {}}},
    )
    assert await app.get(path, filter_by_prefix="presence-b", info="user_count,subscription_count") == (
        200,
        {"channels": {"presence-b": {"user_count": 1, "subscription_count": 3}}},
    )
    assert await app.get(path, info="subscription_count", filter_by_prefix="a") == (
        200,
        {"channels": {"a": {"subscription_count": 1}}},
    )
    for wrong in ({"info": "user_count"}, {"info": "user_count", "filter_by_prefix": "p"}, {"info": "x"}):
        assert (await app.get(path, **wrong))[0] == 400
    listener.worker.say(m.Unsubscribe(channel_address("3", "presence-c")))
    assert "presence-c" not in (await app.get(path))[1]["channels"]


@in_rig()
async def test_of_lists_of_channels_one_is_made_in_a_turn(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    app.subscribe("a")
    answers = [app.call("GET", "/apps/3/channels") for _ in range(3)]
    made = []
    while app.turns.waiting:
        app.turns.run()
        made.append(sum(map(len, answers)))
    assert made == [1, 2, 3]
    assert {json.loads(answer.body)["channels"].popitem()[0] for (answer,) in answers} == {"a"}


@in_rig()
async def test_one_channel(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-b")
    listener.enter("presence-b", "jim")
    path = "/apps/3/channels/"
    assert await app.get(path + "a") == (200, {"occupied": True})
    assert await app.get(path + "nobody") == (200, {"occupied": False})
    assert await app.get(path + "nobody", info="subscription_count") == (
        200,
        {"occupied": False, "subscription_count": 0},
    )
    assert await app.get(path + "presence-b", info="user_count,subscription_count") == (
        200,
        {"occupied": True, "user_count": 1, "subscription_count": 1},
    )
    assert await app.get(path + "presence-x", info="user_count") == (200, {"occupied": False, "user_count": 0})
    assert await app.get("/apps/3/channels") == (200, {"channels": {"a": {}, "presence-b": {}}})  # asking makes none
    for name, info in (("a", "user_count,nonsense"), ("a", "nonsense"), ("a%20b", ""), ("x" * 201, "")):
        assert (await app.get(path + name, info=info))[0] == 400


@in_rig()
async def test_users(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("presence-a")
    listener.enter("presence-a", "jim", '{"name":"Jim"}')
    listener.enter("presence-a", "joe")
    path = "/apps/3/channels/presence-a/users"
    assert await app.get(path) == (200, {"users": [{"id": "jim"}, {"id": "joe"}]})
    assert await app.get(path, with_user_info="1") == (
        200,
        {"users": [{"id": "jim", "user_info": {"name": "Jim"}}, {"id": "joe"}]},
    )
    assert await app.get("/apps/3/channels/presence-none/users") == (200, {"users": []})
    assert (await app.get("/apps/3/channels/a/users"))[0] == 400
    assert (await app.get("/apps/3/channels/presence-a%20/users"))[0] == 400


# ---- terminate


@in_rig()
async def test_terminate_and_its_alias(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    first, second = app.subscribe("#server-to-user-jim"), app.subscribe("#server-to-user-jim", shard=1)
    other = app.subscribe("#server-to-user-jim", shard=2, app="4")
    for path in ("/apps/3/users/jim/terminate_connections", "/users/jim/terminate_connections"):
        assert await app.post({}, path) == (200, {})
        for listener in (first, second):
            (sent,) = listener.worker.take()
            reason = sent.reason
            assert sent == m.Terminate(channel_address("3", "#server-to-user-jim"), 4009, reason)
            assert reason
        assert other.worker.take() == []
    assert await app.post({}, "/users/nobody/terminate_connections") == (200, {})
    assert (await app.post({}, f"/users/{'x' * 129}/terminate_connections"))[0] == 400
    assert (await app.post({}, "/users/jim/terminate_connections", auth_key="unknown"))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", auth_key=None))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", auth_signature="0" * 64))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", app=OFF))[0] == 403
    assert first.worker.take() == []
    assert await app.post({}, "/users/jim/terminate_connections", app=OTHER) == (200, {})
    assert len(other.worker.take()) == 1


# ---- whatever comes


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
