"""An application of Pusher with a web site: pages in Chromium with stock pusher-js, and a server with stock SDKs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from pusher import Pusher

from support.chromium import Tab
from support.farm_fixture import PATIENCE_S, Farm, until
from support.installed import npm_file, run_npm
from support.web_site import Reply, Request, Site

APP: Final = {"id": "4711", "name": "browsers", "key": "278d425bdf160c739803", "secret": "7ad3773142a6692b25b8"}
COUNTING: Final = {"id": "4712", "name": "counting", "key": "0123456789abcdef", "secret": "fedcba9876543210"}
APPLICATIONS: Final = [APP | {"client_messages": True, "watchlists": True}, COUNTING | {"subscription_count": True}]
MASTER_KEY: Final = "ZUhQVldIZzduRkdZVkJzS2pPRkRYV1JyaWJJUjJiMGI="
"""32 bytes in base64; the keys of the encrypted channels are made of it."""

INFO: Final = {"ada": {"name": "Ada"}, "bo": {"name": "Bo", "age": 7}}
WATCHED: Final = {"watcher": ["watched"]}

TEXT: Final = 'Grüße, 世界 " \\ \u2028 ' + "x" * 1000

SCRIPTS: Final = {
    "8": ["pusher-js/dist/web/pusher.min.js"],
    "8-encrypted": ["pusher-js/dist/web/pusher-with-encryption.min.js"],
    "4": ["pusher-js-4/dist/web/pusher.min.js"],
    "echo": ["pusher-js/dist/web/pusher-with-encryption.min.js", "laravel-echo/dist/echo.iife.js"],
}
"""The libraries of each kind of page: files of npm packages, as they are."""

# What a page has seen is a list of [channel, event, data]; the connection, the signed-in user, the watchlist and what
# laravel-echo says are channels here too. `wire` has the messages as they came.
PAGE: Final = """
const seen = [], wire = [];
let pusher, echo;
function note(channel, event, data) { seen.push(JSON.parse(JSON.stringify([channel, event, data ?? null]))); }
function follow(client) {
  pusher = client;
  pusher.connection.bind("state_change", ({ current }) => note("connection", current));
  pusher.connection.bind("error", ({ data, error }) => note("connection", "error", data ?? error?.data));
  pusher.connection.bind("message", (message) => wire.push(message));
}
function connect(key, options) { follow(new Pusher(key, options)); }
function subscribe(name) { pusher.subscribe(name).bind_global((event, data) => note(name, event, data)); }
function unsubscribe(name) { pusher.unsubscribe(name); }
function trigger(name, event, data) { return pusher.channel(name).trigger(event, data); }
function members(name) { return pusher.channel(name).members.members; }
function followSenders(name, event) {
  pusher.channel(name).bind(event, (data, { user_id }) => note(name, `${event} by`, user_id));
}
function signin() {
  pusher.bind("pusher:signin_success", (data) => note("user", "pusher:signin_success", data));
  pusher.user.bind_global((event, data) => note("user", event, data));
  for (const name of ["online", "offline"]) pusher.user.watchlist.bind(name, (event) => note("watchlist", name, event));
  pusher.signin();
}
function ofUser() { return Boolean(pusher.user.serverToUserChannel?.subscribed); }
function startEcho(options, name) {
  echo = new Echo.default(options);
  follow(echo.connector.pusher);
  const noting = (channel, event) => (data) => note(channel, event, data);
  echo.channel(name).subscribed(noting("public", "subscribed")).listen("OrderShipped", noting("public", "shipped"));
  echo.private(name).subscribed(noting("private", "subscribed")).listen(".update", noting("private", "update"))
    .listenForWhisper("typing", noting("private", "whisper"));
  echo.encryptedPrivate(name).subscribed(noting("encrypted", "subscribed"))
    .listen(".update", noting("encrypted", "update"));
  echo.join(name).here(noting("room", "here")).joining(noting("room", "joining")).leaving(noting("room", "leaving"));
}
"""

Row = list[Any]
T = TypeVar("T")


def python_sdk(farm: Farm, app: dict[str, str] = APP, **changes: str) -> Pusher:
    """The PyPI package `pusher`."""
    server = {"host": "127.0.0.1", "port": farm.router_port, "ssl": False, "encryption_master_key_base64": MASTER_KEY}
    who = {"app_id": app["id"], "key": app["key"], "secret": app["secret"]}
    return Pusher(**who | server | changes, proxies={"no_proxy": "127.0.0.1"})  # no proxy of this machine


class NodeSdk:
    """The npm package `pusher`."""

    def __init__(self, farm: Farm, **changes: str) -> None:
        server = {"host": "127.0.0.1", "port": str(farm.router_port), "useTLS": False}
        who = {"appId": APP["id"], "key": APP["key"], "secret": APP["secret"], "encryptionMasterKeyBase64": MASTER_KEY}
        self._options = who | server | changes

    def call(self, *calls: Row) -> list[Any]:
        """Call methods, each given as [name, argument, ...]. Returns: what they have come to."""
        found: list[Any] = run_npm("pusher.mjs", "pusher", {"options": self._options, "calls": calls})
        return found

    def send(self, *calls: Row) -> None:
        """Call methods whose requests must succeed."""
        for answer in self.call(*calls):
            assert answer["status"] == 200, answer


class AppSite(Site):
    """The application's pages, and where pusher-js (/pusher, or /node for signatures by the npm package) and
    laravel-echo (/broadcasting) ask for signatures. Who asks is in a cookie.
    """

    def __init__(self, farm: Farm) -> None:
        super().__init__()
        for path in {path for paths in SCRIPTS.values() for path in paths}:
            npm_file(path)  # the test is skipped here, not while a browser waits for the page
        self._python = python_sdk(farm)
        self._forger = python_sdk(farm, secret="not the secret")
        self._node = NodeSdk(farm)

    def get(self, request: Request) -> Reply:
        if request.path.startswith("/npm/"):
            return Reply(npm_file(request.path.removeprefix("/npm/")).read_text(), "text/javascript")
        _, kind, user = request.path.split("/")
        scripts = "".join(f'<script src="/npm/{path}"></script>' for path in SCRIPTS[kind])
        text = f'<!doctype html><title>test</title><link rel="icon" href="data:,">{scripts}<script>{PAGE}</script>'
        return Reply(text, headers={"Set-Cookie": f"user={user}; Path=/"})

    def post(self, request: Request) -> Reply:
        _, signer, what = request.path.split("/")
        user = request.headers["cookie"].removeprefix("user=")
        form = dict(parse_qsl(request.body))
        socket_id, channel = form["socket_id"], form.get("channel_name", "")
        data = {"id": user, "user_info": INFO.get(user, {}), "watchlist": WATCHED.get(user, [])}
        member = {"user_id": user, "user_info": INFO.get(user, {})} if channel.startswith("presence-") else None
        if signer == "node":
            call = ["authorizeChannel", socket_id, channel, member]
            (answer,) = self._node.call(["authenticateUser", socket_id, data] if what == "user-auth" else call)
        else:
            sdk = self._forger if "forged" in channel else self._python
            if what == "user-auth":
                answer = sdk.authenticate_user(socket_id, data)
            else:
                answer = sdk.authenticate(channel, socket_id, member)
        # The library for Python has the secret in bytes.
        return Reply(json.dumps(answer, default=bytes.decode), "application/json")


class Page:
    """One user's page."""

    def __init__(self, tab: Tab, url: str) -> None:
        self.tab = tab
        tab.open(url)

    def connect(self, key: str, **options: Any) -> None:
        """Make a client with these options. Returns when it is connected."""
        self.tab.call("connect", key, options)
        self.expect("connection", "connected")

    def subscribe(self, channel: str) -> Any:
        """Returns: what the subscription succeeded with."""
        self.tab.call("subscribe", channel)
        return self.expect(channel, "pusher:subscription_succeeded")

    def trigger(self, channel: str, event: str, data: object) -> None:
        """Send a client event."""
        assert self.tab.call("trigger", channel, event, data)

    def sign_in(self) -> None:
        """Returns when events for the user arrive here."""
        self.tab.call("signin")
        self.expect("user", "pusher:signin_success")
        self.expect_user()

    def socket_id(self) -> str:
        return str(self.tab.evaluate("pusher.connection.socket_id"))

    def close(self) -> None:
        """Close it as its user does."""
        self.tab.close()

    # ------------------------------------------------------------------ what it sees

    def seen(self, channel: str) -> list[Row]:
        """All rows of a channel, [event, data]."""
        rows: list[Row] = self.tab.evaluate("seen")
        return [row for name, *row in rows if name == channel]

    def wire(self, event: str) -> list[dict[str, Any]]:
        """All messages with an event as they came, but for their data, which is decoded."""
        messages: list[dict[str, Any]] = self.tab.evaluate("wire")
        return [message for message in messages if message["event"] == event]

    def expect(self, channel: str, event: str, count: int = 1, patience: float = PATIENCE_S) -> Any:
        """Wait until an event has been seen so many times. Returns: the data of the last."""

        def found() -> list[Any]:
            data = [data for name, data in self.seen(channel) if name == event]
            return data if len(data) >= count else []

        return self._until(found, f"{event} of {channel}, {count} times", patience)[-1]

    def expect_data(self, channel: str, event: str, data: object) -> None:
        """Wait until an event with this data has been seen."""
        self._until(lambda: [event, data] in self.seen(channel), f"{event} of {channel} with {data}")

    def expect_user(self) -> None:
        """Wait until the channel of the signed-in user is subscribed to."""
        self._until(lambda: self.tab.call("ofUser"), "the channel of the signed-in user")

    def heard(self, channel: str, count: int) -> list[Row]:
        """Wait for so many events that are not the protocol's own. Returns: all that have come, [event, data]."""

        def found() -> list[Row]:
            return [row for row in self.seen(channel) if not row[0].startswith("pusher:")]

        self._until(lambda: len(found()) >= count, f"{count} events of {channel}")
        return found()

    def _until(self, found: Callable[[], T], what: str, patience: float = PATIENCE_S) -> T:
        try:
            return until(found, what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page has seen {self.tab.evaluate('seen')}") from None
