"""Which requests of app servers Pusher accepts: signatures, their age, and applications that are off or unsigned."""

import json
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from support.common import Rig, growth, in_rig, settings_with
from support.pusher_app import (
    APP,
    KEY,
    OFF,
    OTHER,
    VECTOR_BODY,
    VECTOR_QUERY,
    VECTOR_TIME,
    App,
    event,
)

from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.pusher.app_server import routes
from router.dialects.pusher.applications import AppsError
from router.dialects.pusher.protocol import (
    PusherOptions,
    channel_address,
)


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
