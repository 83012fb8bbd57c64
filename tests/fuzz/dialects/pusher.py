"""Pusher: what a device sends, the requests of app servers, and the file of applications."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from support.common import Rig

import farm.dialects.pusher
import router.dialects.pusher.applications
from fuzz.engine import Target
from fuzz.sessions import SOCKET, WORDS, Driver, context, target
from fuzz.structures import check_problems, json_lines
from router.common.item import Item
from router.common.token import Tokens
from router.dialects.pusher.applications import AppsError
from router.dialects.pusher.protocol import PusherOptions
from router.dialects.pusher.signatures import socket_signature, user_signature

_folder = tempfile.TemporaryDirectory(prefix="fuzz-")
_apps = Path(_folder.name) / "apps.json"
_APP: Final = {"id": "3", "name": "shop", "key": "k", "secret": "s"}
_HOOK: Final = {"url": "http://127.0.0.1:1/", "events": ["cache_miss"]}


_apps.write_text(
    json.dumps({"applications": [_APP | {"client_messages": True, "watchlists": True, "webhooks": [_HOOK]}]})
)


_pusher_dialect = farm.dialects.pusher.SIDE.make(context((PusherOptions, {"apps": str(_apps), "max_watchlist": 3})))


def _pusher(data: bytes) -> None:
    Driver(_pusher_dialect, "/app/k", [Item("a", 1, 1, 2_000_000_000, 0, None)], [None]).run(data)


def _subscribe(channel: str, data: str | None = None) -> dict[str, Any]:
    more = {} if data is None else {"channel_data": data}
    auth = f"k:{socket_signature('s', SOCKET, channel, data)}"
    return {"event": "pusher:subscribe", "data": {"channel": channel, "auth": auth, **more}}


def _sign_in(**user: Any) -> dict[str, Any]:
    data = json.dumps({"id": "7", **user})
    return {"event": "pusher:signin", "data": {"auth": f"k:{user_signature('s', SOCKET, data)}", "user_data": data}}


_SEEDS: Final[list[list[Any]]] = [
    [
        _subscribe("private-a"),
        "!answer 0",
        {"event": "client-x", "channel": "private-a", "data": {"a": 1}},
        {"event": "pusher:unsubscribe", "data": {"channel": "private-a"}},
        {"event": "pusher:ping", "data": {}, "channel": None},
    ],
    [
        _subscribe("presence-a", '{"user_id":"7","user_info":{"a":1}}'),
        "!answer 0",
        "!tick 500",
        {"event": "pusher:pong"},
    ],
    [_subscribe("cache-a"), "!answer 0", "!answer 1", _subscribe("cache-b"), "!answer 0", "!answer 0"],
    [
        _sign_in(watchlist=["a", "b"]),
        "!answer 0",
        "!answer 0",
        "!answer 0",
        "!answer 3",
        _subscribe("#server-to-user-7"),
    ],
    [_sign_in(id=7), "!answer 0", _subscribe("presence-b"), "!answer 5"],
    [
        _subscribe("private-b", '{"user_id":1}'),
        "!answer 0",
        '{"event":"pusher:subscribe","data":"{\\"channel\\":\\"a\\"}"}',
    ],
]

SETTINGS: Final = ((PusherOptions, {"apps": str(_apps), "unsigned": True}),)
_EVENT: Final = {"name": "e", "data": "{}", "channels": ["news", "cache-a"], "info": "subscription_count,user_count"}
_BATCH: Final = {"batch": [{"name": "e", "data": "d", "channel": "news"}]}
REQUESTS: Final = (
    ["POST", "/apps/3/events", "", {}, json.dumps(_EVENT)],
    ["POST", "/apps/3/batch_events", "", {}, json.dumps(_BATCH)],
    ["GET", "/apps/3/channels", "filter_by_prefix=presence-&info=user_count", {}, ""],
    ["GET", "/apps/3/channels/presence-a/users", "", {}, ""],
    ["GET", "/apps/3/channels/cache-a", "info=cache,user_count", {}, ""],
    ["POST", "/apps/3/users/7/terminate_connections", "", {}, ""],
    ["POST", "/apps/3/channels/news/events", "name=e", {}, "data"],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """Nothing."""
    return {}


def apps(data: bytes) -> None:
    """A file of applications."""
    try:
        found = router.dialects.pusher.applications.parse(data, "apps.json")
    except AppsError as error:
        check_problems(error.problems)
    else:
        for app in found.apps:
            assert app.id and app.key and app.secret


_APPS: Final = tuple(
    json.dumps(one).encode()
    for one in (
        {"applications": [{"id": "1", "name": "a", "key": "k", "secret": "s", "client_messages": True}]},
        {"Applications": [{"name": "a", "key": "k", "secret": "s", "webhooks": [{"url": "http://a/", "events": []}]}]},
        {"host": "a", "port": 1, "certificate": None, "redis": {"address": ""}, "applications": []},
    )
)

TARGETS = (
    target("pusher", _pusher, farm.dialects.pusher, _SEEDS, [*WORDS, "pusher:subscribe", "presence-", "cache-"]),
    Target(
        "pusher-apps",
        apps,
        (router.dialects.pusher.applications,),
        _APPS,
        (b"applications", b"null", b'"id"'),
        json_lines(),
    ),
)
