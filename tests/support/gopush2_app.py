"""The app-server side of gopush2 with a hub, a committer and a store, and its app servers."""

import json
from typing import Any

from router.common import messages as m
from router.common.position import OWN_OFFSETS, AfterOffset, LogEvent, LogSlice
from router.common.settings import Listen
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.gopush2.app_server import routes
from router.dialects.gopush2.protocol import (
    Entry,
    Gopush2Options,
    channel_address,
    enter,
    entered,
    look,
)
from router.http.http1 import HttpConnection
from router.http.message import Response
from router.http.routes import Router
from router.store.base import LogName, Reads, Writes
from support.common import FakeWorker, Rig, settings_with
from support.http1 import options as endpoint_options

KEY = "Terry-Mao"
OK = {"msg": "ok", "ret": 0}
NO_SUBSCRIBER = {"msg": "can't get a subscriber", "ret": 3}
TOKEN_FAILED = {"msg": "add token failed", "ret": 4}
PUSH_FAILED = {"msg": "push msg failed", "ret": 5}
PARAM_ERROR = {"msg": "param error", "ret": 65534}
TAKER = b"t" * 16


class App:
    """The routes over a rig."""

    def __init__(self, rig: Rig, status: dict[str, Any] | None = None, host: str = "0.0.0.0", **options: Any) -> None:
        self.rig = rig
        settings = settings_with((Gopush2Options, options), (Listen, {"host": host}))
        self.context = context = Context(
            rig.hub.core, Tokens((b"k" * 32,)), settings, rig.clock.unix, lambda: status or {}, limits=rig.push_limits
        )
        self.router = Router(routes(context))

    def ask(
        self, method: str, target: str, body: bytes = b"", *headers: str, address: str = "127.0.0.1"
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        http = HttpConnection(endpoint_options())
        http.address = address
        lines = (f"{method} {target} HTTP/1.1", "Host: push", f"Content-Length: {len(body)}", *headers, "", "")
        ((request, _),) = http.receive("\r\n".join(lines).encode() + body)
        answers: list[Response] = []
        handler = self.router.find(request.path)
        if handler is None:
            return [Response(404)]
        handler(request, answers.append)
        return answers

    async def answer(
        self, method: str, target: str, body: bytes = b"", *headers: str, address: str = "127.0.0.1"
    ) -> Response:
        """The answer."""
        answers = self.ask(method, target, body, *headers, address=address)
        await self.rig.settle()
        (answer,) = answers
        return answer

    async def envelope(self, method: str, target: str, body: bytes = b"") -> Any:
        """The JSON of an answer with 200."""
        answer = await self.answer(method, target, body)
        assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
        return json.loads(answer.body)

    async def ch(self, token: str = "token", key: str = KEY) -> Any:
        return await self.envelope("GET", f"/ch?key={key}&token={token}")

    async def pub(self, message: str = "hello", more: str = "", key: str = KEY) -> Any:
        return await self.envelope("POST", f"/pub?key={key}{more}", message.encode())

    async def stat(self, kind: str) -> Any:
        return await self.envelope("GET", f"/stat?type={kind}")

    # ------------------------------------------------------------------ devices

    async def entry(self, worker: FakeWorker, token: str = "token", key: str = KEY, taker: bytes = TAKER) -> Entry:
        """What becomes of a device that wants to come in."""
        return await self._entry(worker, enter(channel_address(key), token, taker))

    async def look(self, worker: FakeWorker, key: str = KEY) -> Entry:
        """Whether the channel is there."""
        return await self._entry(worker, look(channel_address(key)))

    async def _entry(self, worker: FakeWorker, request: m.Invoke) -> Entry:
        worker.take()
        worker.say(m.Call(7, request))
        await self.rig.settle()
        (reply,) = [one for one in worker.take() if isinstance(one, m.Reply)]
        assert (reply.number, reply.status) == (7, m.OK)
        entry = entered(reply.payload)
        assert entry is not None
        return entry

    async def stored(self, key: str = KEY, mid: int = 0) -> list[tuple[int, str]]:
        """The messages after this one, as (mid, message)."""
        return [(event.offset, json.loads(event.body)) for event in (await self.slice(key, mid)).events]

    async def slice(self, key: str = KEY, mid: int = 0) -> LogSlice:
        """The log after this message."""
        name = LogName(channel_address(key), AfterOffset(OWN_OFFSETS, mid))
        found = await self.rig.store.apply(Writes(), Reads(logs={name}), int(self.rig.clock.unix()))
        return found.logs[name]

    def listener(self, shard: int = 0, key: str = KEY) -> "Listener":
        """A shard with a subscriber of the key."""
        worker = self.rig.worker(shard)
        worker.say(m.Call(1, m.Subscribe(channel_address(key), "")))
        worker.take()
        return Listener(worker)


class Listener:
    """A worker with a subscriber."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def events(self) -> list[LogEvent]:
        """What has come for it."""
        return [one.event for one in self.worker.take() if isinstance(one, m.LoggedEvent)]

    def messages(self) -> list[tuple[int, str]]:
        """The same, as (mid, message)."""
        return [(event.offset, json.loads(event.body)) for event in self.events()]
