"""Pusher's own clients against a whole farm: pusher-js and laravel-echo in Chromium, those for Python and Node.js.

One farm of two workers and one Chromium serve all tests. A page is a tab with its own cookies, so that two pages are
two users; the test's web server serves them and is the application that decides who may subscribe to what.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from pusher import Pusher
from pusher.errors import PusherBadAuth
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import Farm, running_farm, until
from support.pusher_pages import APP, APPLICATIONS, COUNTING, INFO, TEXT, AppSite, NodeSdk, Page, Row, python_sdk

RECONNECT_S: Final = 60.0
"""pusher-js reconnects a second after its server has ended, and again a second later if that was too soon."""


@pytest.fixture(scope="module")
def program() -> str:
    return find_chromium()


@pytest.fixture(scope="module")
def farm(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": APPLICATIONS}))
    with running_farm(folder / "data", {"pusher.apps": apps}) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(program, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def site(farm: Farm) -> Iterator[AppSite]:
    with AppSite(farm) as found:
        yield found


@pytest.fixture(scope="module")
def sdk(farm: Farm) -> Pusher:
    return python_sdk(farm)


@pytest.fixture(scope="module")
def node(farm: Farm) -> NodeSdk:
    return NodeSdk(farm)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """What no other test calls its channels."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture(params=["8", "4"])
def version(request: pytest.FixtureRequest) -> str:
    """Versions of pusher-js: today's, and the one MicroNotifier was tested with."""
    return str(request.param)


Opener = Callable[..., Page]


@pytest.fixture
def blank(chromium: Chromium, site: AppSite) -> Iterator[Opener]:
    """Opens a page of a kind for a user; it makes no client yet. All are closed after the test."""
    with ExitStack() as stack:
        yield lambda kind, user="ada": Page(stack.enter_context(Tab(chromium)), site.url(f"/{kind}/{user}"))


@pytest.fixture
def connected(blank: Opener, farm: Farm) -> Opener:
    """Opens a page of a kind for a user, with a client that is connected."""

    def opened(kind: str, user: str = "ada", key: str = APP["key"], **options: Any) -> Page:
        page = blank(kind, user)
        page.connect(key, **client_options(farm, kind) | options)
        return page

    return opened


def client_options(farm: Farm, kind: str) -> dict[str, Any]:
    """What MicroNotifier's README has, and what pusher-js needs besides since 5 (cluster) and 7 (forceTLS)."""
    sample = {"wsHost": "localhost", "wsPort": farm.device_port}
    return sample if kind == "4" else sample | {"cluster": "none", "forceTLS": False, "enabledTransports": ["ws"]}


def test_a_public_event(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    page = connected(version)
    page.subscribe(name)
    assert sdk.trigger(name, "update", {"text": TEXT}) == {}
    sdk.trigger([f"{name}-2", name], "plain", TEXT)
    assert page.heard(name, 2) == [["update", {"text": TEXT}], ["plain", TEXT]]


def test_a_private_event(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    channel = f"private-{name}"
    page = connected(version)
    page.subscribe(channel)
    sdk.trigger(channel, "update", [1, {"two": None}])
    assert page.heard(channel, 1) == [["update", [1, {"two": None}]]]


def test_a_forged_signature_is_refused(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    """The connection and its other channels stay."""
    page = connected(version)
    page.subscribe(name)
    for channel in (f"private-forged-{name}", f"presence-forged-{name}"):
        page.tab.call("subscribe", channel)
        assert page.expect(channel, "pusher:subscription_error")["status"] == 401
        sdk.trigger(channel, "secret", 1)
    sdk.trigger(name, "update", 2)
    assert page.heard(name, 1) == [["update", 2]]
    assert page.wire("secret") == []
    assert page.expect("connection", "connected") is None


def test_after_an_unsubscribe_nothing_comes(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    page = connected(version)
    page.subscribe(name)
    page.subscribe(f"{name}-stays")
    page.tab.call("unsubscribe", name)
    until(lambda: not sdk.channel_info(name)["occupied"], "nobody in the channel")
    sdk.trigger([name, f"{name}-stays"], "update", 1)
    assert page.heard(f"{name}-stays", 1) == [["update", 1]]
    assert [message["channel"] for message in page.wire("update")] == [f"{name}-stays"]


def test_the_sender_is_left_out(connected: Opener, sdk: Pusher, name: str) -> None:
    sender, other = connected("8"), connected("8")
    sender.subscribe(name)
    other.subscribe(name)
    sdk.trigger(name, "mine", 1, sender.socket_id())
    sdk.trigger(name, "everybody's", 2)
    assert other.heard(name, 2) == [["mine", 1], ["everybody's", 2]]
    assert sender.heard(name, 1) == [["everybody's", 2]]


def member(user: str) -> dict[str, Any]:
    """A member as pusher-js has it."""
    return {"id": user, "info": INFO[user]}


def test_presence(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    room = f"presence-{name}"
    ada, bo = connected(version, "ada"), connected(version, "bo")
    alone = {"members": {"ada": INFO["ada"]}, "count": 1, "myID": "ada", "me": member("ada")}
    assert ada.subscribe(room) == alone
    assert bo.subscribe(room) == {"members": INFO, "count": 2, "myID": "bo", "me": member("bo")}
    assert ada.expect(room, "pusher:member_added") == member("bo")
    sdk.trigger(room, "update", 1)
    assert ada.heard(room, 1) == bo.heard(room, 1) == [["update", 1]]
    bo.close()
    assert ada.expect(room, "pusher:member_removed") == member("bo")
    events = ["pusher:subscription_succeeded", "pusher:member_added", "update", "pusher:member_removed"]
    assert [event for event, _ in ada.seen(room)] == events
    assert sdk.users_info(room) == {"users": [{"id": "ada"}]}


def test_a_user_with_two_pages_comes_and_goes_once(
    farm: Farm, connected: Opener, sdk: Pusher, name: str, version: str
) -> None:
    room = f"presence-{name}"
    ada, first, second = connected(version, "ada"), connected(version, "bo"), connected(version, "bo")
    ada.subscribe(room)
    first.subscribe(room)
    assert second.subscribe(room)["count"] == 2
    until(lambda: farm.counter("connections") >= 3, "three connections")
    before = farm.counter("connections")
    first.close()
    until(lambda: farm.counter("connections") < before, "the first page's connection has gone")
    assert {user["id"] for user in sdk.users_info(room)["users"]} == {"ada", "bo"}
    second.close()
    ada.expect(room, "pusher:member_removed")
    assert ada.seen(room)[1:] == [["pusher:member_added", member("bo")], ["pusher:member_removed", member("bo")]]


def test_client_events_between_two_pages(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    channel = f"private-{name}"
    ada, bo = connected(version, "ada"), connected(version, "bo")
    ada.subscribe(channel)
    bo.subscribe(channel)
    ada.trigger(channel, "client-typing", {"text": TEXT})
    assert bo.heard(channel, 1) == [["client-typing", {"text": TEXT}]]
    sdk.trigger(channel, "last", 1)
    assert ada.heard(channel, 1) == [["last", 1]]  # its own does not come back


def test_members_see_whose_client_event_it_is(connected: Opener, name: str, version: str) -> None:
    room = f"presence-{name}"
    ada, bo = connected(version, "ada"), connected(version, "bo")
    ada.subscribe(room)
    bo.subscribe(room)
    bo.tab.call("followSenders", room, "client-typing")
    ada.trigger(room, "client-typing", {"at": 1})
    assert bo.expect(room, "client-typing") == {"at": 1}
    assert bo.expect(room, "client-typing by") == "ada"


def test_an_encrypted_channel(connected: Opener, sdk: Pusher, name: str) -> None:
    channel = f"private-encrypted-{name}"
    page = connected("8-encrypted")
    page.subscribe(channel)
    sdk.trigger(channel, "secret", {"text": TEXT})
    assert page.heard(channel, 1) == [["secret", {"text": TEXT}]]
    (message,) = page.wire("secret")
    assert sorted(message["data"]) == ["ciphertext", "nonce"]


def test_a_cache_channel(connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    channel = f"cache-{name}"
    early, late = connected(version), connected(version)
    early.subscribe(channel)
    early.expect(channel, "pusher:cache_miss")
    sdk.trigger(channel, "price", 1)
    sdk.trigger(channel, "price", 2)
    late.subscribe(channel)
    assert late.heard(channel, 1) == [["price", 2]]
    sdk.trigger(channel, "price", 3)
    assert late.heard(channel, 2) == [["price", 2], ["price", 3]]
    assert early.heard(channel, 3) == [["price", 1], ["price", 2], ["price", 3]]
    assert "pusher:cache_miss" not in [event for event, _ in late.seen(channel)]


def test_an_encrypted_cache_channel(connected: Opener, sdk: Pusher, name: str) -> None:
    channel = f"private-encrypted-cache-{name}"
    sdk.trigger(channel, "secret", {"text": TEXT})
    page = connected("8-encrypted")
    page.subscribe(channel)
    assert page.heard(channel, 1) == [["secret", {"text": TEXT}]]


def test_signin_and_send_to_user(connected: Opener, sdk: Pusher, name: str) -> None:
    user = f"user-{name}"
    first, second, other = connected("8", user), connected("8", user), connected("8", "other")
    for page in (first, second, other):
        page.sign_in()
    sdk.send_to_user(user, "hello", {"text": TEXT})
    sdk.send_to_user("other", "hello", "you")
    for page in (first, second):
        assert page.heard("user", 1) == [["hello", {"text": TEXT}]]
    assert other.heard("user", 1) == [["hello", "you"]]


def test_a_user_is_disconnected(connected: Opener, sdk: Pusher, name: str) -> None:
    """For good: pusher-js does not come back by itself."""
    user = f"user-{name}"
    pages = connected("8", user), connected("8", user)
    other = connected("8", "other")
    for page in (*pages, other):
        page.sign_in()
    assert sdk.terminate_user_connections(user) == {}
    for page in pages:
        page.expect("connection", "disconnected")
        assert page.expect("connection", "error")["code"] == 4009
    sdk.send_to_user("other", "hello", 1)
    assert other.heard("user", 1) == [["hello", 1]]


def test_a_watchlist(connected: Opener) -> None:
    watcher = connected("8", "watcher")
    watcher.sign_in()
    watched = connected("8", "watched")
    watched.sign_in()
    assert watcher.expect("watchlist", "online") == {"name": "online", "user_ids": ["watched"]}
    watched.close()
    assert watcher.expect("watchlist", "offline", 1) == {"name": "offline", "user_ids": ["watched"]}


def test_the_subscription_count_for_app_servers(farm: Farm, connected: Opener, name: str) -> None:
    first, second = connected("8", key=COUNTING["key"]), connected("8", key=COUNTING["key"])
    first.subscribe(name)
    second.subscribe(name)
    counting = python_sdk(farm, COUNTING)
    counted = {"occupied": True, "subscription_count": 2}
    until(lambda: counting.channel_info(name, ["subscription_count"]) == counted, "both are counted")


def test_the_subscription_count_for_pages(connected: Opener, name: str) -> None:
    first, second = connected("8", key=COUNTING["key"]), connected("8", key=COUNTING["key"])
    first.subscribe(name)
    assert first.expect(name, "pusher:subscription_count") == {"subscription_count": 1}
    second.subscribe(name)
    first.expect_data(name, "pusher:subscription_count", {"subscription_count": 2})
    second.close()
    until(lambda: first.seen(name)[-1] == ["pusher:subscription_count", {"subscription_count": 1}], "the count is down")


def test_an_unknown_key_is_refused_for_good(blank: Opener, farm: Farm, version: str) -> None:
    page = blank(version)
    page.tab.call("connect", "nobody", client_options(farm, version))
    page.expect("connection", "disconnected")
    assert page.expect("connection", "error")["code"] == 4001


def test_the_client_finds_the_connection_alive(connected: Opener, version: str) -> None:
    """pusher-js asks after a silence, here of half a second, and would connect anew if there were no answer."""
    page = connected(version, **{"activity_timeout" if version == "4" else "activityTimeout": 500})
    until(lambda: len(page.wire("pusher:pong")) >= 2, "two pongs")
    assert page.seen("connection") == [["connected", None]]


def test_the_farm_restarts(farm: Farm, connected: Opener, sdk: Pusher, name: str, version: str) -> None:
    """The page comes back by itself, after a second at the earliest, to all its channels and as the same user."""
    room = f"presence-{name}"
    page = connected(version)
    page.subscribe(name)
    page.subscribe(room)
    if version == "8":
        page.sign_in()
    farm.stop()
    farm.start()
    page.expect(name, "pusher:subscription_succeeded", 2, RECONNECT_S)
    assert page.expect(room, "pusher:subscription_succeeded", 2)["members"] == {"ada": INFO["ada"]}
    errors = [data for event, data in page.seen("connection") if event == "error" and data]
    assert {error["code"] for error in errors} == {4100}  # pusher-js reports a close twice
    sdk.trigger(name, "update", 1)
    assert page.heard(name, 1) == [["update", 1]]
    if version == "8":
        page.expect_user()
        sdk.send_to_user("ada", "hello", 1)
        assert page.heard("user", 1) == [["hello", 1]]


def test_the_workers_are_killed(farm: Farm, connected: Opener, sdk: Pusher, name: str) -> None:
    room = f"presence-{name}"
    ada, bo = connected("8", "ada"), connected("8", "bo")
    pages = (ada, bo)
    for page in pages:
        page.subscribe(room)
    for shard in range(farm.workers):
        os.kill(farm.worker_pid(shard), signal.SIGKILL)
    for page in pages:
        page.expect(room, "pusher:subscription_succeeded", 2, RECONNECT_S)
    for page in pages:
        until(lambda page=page: page.tab.call("members", room) == INFO, "both members in both pages")
    assert {user["id"] for user in sdk.users_info(room)["users"]} == {"ada", "bo"}
    sdk.trigger(room, "update", 1)
    for page in pages:
        assert page.heard(room, 1) == [["update", 1]]


def test_laravel_echo(blank: Opener, farm: Farm, sdk: Pusher, name: str) -> None:
    ada, bo = blank("echo", "ada"), blank("echo", "bo")
    for page in (ada, bo):
        options = {"broadcaster": "pusher", "key": APP["key"], **client_options(farm, "echo")}
        page.tab.call("startEcho", options, name)
        for channel in ("public", "private", "encrypted"):
            page.expect(channel, "subscribed")
        page.expect("room", "here")
    assert ada.expect("room", "here") == [INFO["ada"]]
    assert sorted(bo.expect("room", "here"), key=str) == sorted(INFO.values(), key=str)
    assert ada.expect("room", "joining") == INFO["bo"]

    sdk.trigger(name, "App\\Events\\OrderShipped", {"order": 7})
    sdk.trigger(f"private-{name}", "update", {"text": TEXT})
    sdk.trigger(f"private-encrypted-{name}", "update", {"text": TEXT})
    for page in (ada, bo):
        assert page.expect("public", "shipped") == {"order": 7}
        assert page.expect("private", "update") == page.expect("encrypted", "update") == {"text": TEXT}

    ada.tab.evaluate(f"echo.private({json.dumps(name)}).whisper('typing', {{at: 1}}) && null")
    assert bo.expect("private", "whisper") == {"at": 1}
    bo.tab.evaluate(f"echo.leave({json.dumps(name)})")
    assert ada.expect("room", "leaving") == INFO["bo"]


def test_the_library_for_python(farm: Farm, connected: Opener, sdk: Pusher, name: str) -> None:
    """What the other tests do not ask of it."""
    room = f"presence-{name}"
    page = connected("8")
    page.subscribe(name)
    page.subscribe(room)
    batch = [{"channel": channel, "name": "update", "data": {"for": channel}} for channel in (name, room)]
    assert sdk.trigger_batch(batch) == {}
    for channel in (name, room):
        assert page.heard(channel, 1) == [["update", {"for": channel}]]
    assert sdk.channels_info(room, ["user_count"]) == {"channels": {room: {"user_count": 1}}}
    assert name in sdk.channels_info()["channels"]
    assert sdk.channel_info(room, ["user_count"]) == {"occupied": True, "user_count": 1}
    assert sdk.channel_info(f"{name}-empty") == {"occupied": False}
    with pytest.raises(PusherBadAuth):
        python_sdk(farm, secret="not the secret").trigger(name, "update", 1)


def test_the_library_for_node(farm: Farm, connected: Opener, node: NodeSdk, name: str) -> None:
    """It signs here too."""
    room, encrypted, user = f"presence-{name}", f"private-encrypted-{name}", f"user-{name}"
    signed = {"authEndpoint": "/node/auth", "userAuthentication": {"endpoint": "/node/user-auth"}}
    page, other = connected("8-encrypted", user, **signed), connected("8-encrypted", "bo", **signed)
    for channel in (name, room, encrypted):
        page.subscribe(channel)
    other.subscribe(name)
    page.sign_in()
    node.send(
        ["trigger", [name, room], "both", {"text": TEXT}],
        ["trigger", name, "others", 1, {"socket_id": page.socket_id()}],
        ["triggerBatch", [{"channel": channel, "name": "batch", "data": TEXT} for channel in (name, room, encrypted)]],
        ["trigger", encrypted, "secret", {"text": TEXT}],
        ["sendToUser", user, "hello", {"text": TEXT}],
    )
    both, batch = ["both", {"text": TEXT}], ["batch", TEXT]
    assert other.heard(name, 3) == [both, ["others", 1], batch]
    assert page.heard(name, 2) == page.heard(room, 2) == [both, batch]
    assert page.heard(encrypted, 2) == [batch, ["secret", {"text": TEXT}]]
    assert page.heard("user", 1) == [["hello", {"text": TEXT}]]

    questions: list[Row] = [
        ["get", {"path": "/channels", "params": {"filter_by_prefix": room, "info": "user_count"}}],
        ["get", {"path": f"/channels/{name}"}],
        ["get", {"path": f"/channels/{room}/users"}],
    ]
    answers = [(answer["status"], json.loads(answer["body"])) for answer in node.call(*questions)]
    counts = {"channels": {room: {"user_count": 1}}}
    assert answers == [(200, counts), (200, {"occupied": True}), (200, {"users": [{"id": user}]})]
    (refused,) = NodeSdk(farm, secret="not the secret").call(questions[0])
    assert refused["status"] == 401

    node.send(["terminateUserConnections", user])
    page.expect("connection", "disconnected")
    assert page.expect("connection", "error")["code"] == 4009
