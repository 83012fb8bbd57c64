"""The app-server side of Pusher with a hub, a committer and a store, and the signed requests of an application."""

import hmac
import json
from collections.abc import Iterable
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote

from router.common import messages as m
from router.common.limit_settings import LimitOptions
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.pusher.app_server import routes
from router.dialects.pusher.protocol import (
    PusherOptions,
    channel_address,
    is_cache,
    label,
)
from router.http.message import Request, Response
from router.http.routes import Router
from router.http.turns import Turns
from support.common import FakeWorker, Rig, settings_with

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
        self,
        rig: Rig,
        tmp_path: Path,
        apps: Iterable[Json] = (APP, OTHER, OFF, OPEN),
        limits: Json | None = None,
        **options: Any,
    ) -> None:
        self.rig = rig
        self._workers: list[FakeWorker] = []
        path = tmp_path / "apps.json"
        path.write_text(json.dumps({"applications": list(apps)}))
        settings = settings_with((PusherOptions, {"apps": str(path)} | options), (LimitOptions, limits or {}))
        self.turns = Turns()
        self.context = context = Context(
            rig.hub.core, Tokens((b"k" * 32,)), settings, rig.clock.unix, dict, self.turns, limits=rig.push_limits
        )
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
        self.have_turns()
        for worker in self._workers:
            worker.tell_counts()
        self.have_turns()
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

    def have_turns(self) -> None:
        """What waits for a turn has it."""
        while self.turns.waiting:
            self.turns.run()

    def subscribe(self, *channels: str, shard: int = 0, app: str = "3") -> "Listener":
        """A shard with one subscriber in each of these channels."""
        worker = self.rig.worker(shard)  # the next one of this shard, if there was one
        self._workers = [*(one for one in self._workers if one.shard != shard), worker]
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
