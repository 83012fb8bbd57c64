"""The app-server side of SimplePush with a hub and a store, without sockets."""

import json
from typing import Any

from router.common import messages as m
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.simplepush.app_server import routes
from router.dialects.simplepush.protocol import PURPOSE, SimplePushOptions
from router.http.message import Request, Response
from router.http.routes import Router
from router.http.turns import Turns
from support.common import FakeWorker, Rig, settings_with

DEVICE = bytes(range(16))
CHANNEL = "11111111-2222-3333-4444-555555555555"
KEY, OLD_KEY = b"k" * 32, b"o" * 32
FORM = b"application/x-www-form-urlencoded"


class App:
    """The routes over a rig."""

    def __init__(
        self, rig: Rig, keys: tuple[bytes, ...] = (KEY,), endpoint: dict[str, Any] | None = None, **options: Any
    ):
        self.rig = rig
        self.tokens = Tokens(keys)
        self.state: dict[str, Any] = {"workers": [], "age": 12.5}
        settings = settings_with((SimplePushOptions, options), (EndpointOptions, endpoint or {}))
        self.turns = Turns()
        self.context = Context(
            rig.hub.core, self.tokens, settings, rig.clock.unix, self.status, self.turns, limits=rig.push_limits
        )
        self.router = Router(routes(self.context))

    def status(self) -> dict[str, Any]:
        counters = self.rig.hub.counters.snapshot() | {"store_ok": self.rig.committer.healthy}
        return {**self.state, "router": counters}

    def token(self, channel: str = CHANNEL, device: bytes = DEVICE) -> str:
        return self.tokens.seal(PURPOSE, device + channel.encode())

    def ask(
        self, path: str, body: bytes = b"", method: bytes = b"PUT", kind: bytes | None = None, query: bytes = b""
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        answers: list[Response] = []
        handler = self.router.find(path.encode("latin-1"))
        assert handler is not None
        headers = {b"host": b"push"} | ({b"content-type": kind} if kind is not None else {})
        handler(Request(method, path.encode("latin-1"), query, headers, body), answers.append)
        return answers

    def put(self, body: bytes = b"", kind: bytes | None = FORM, query: bytes = b"", **more: Any) -> list[Response]:
        return self.ask("/update/" + self.token(), body, kind=kind, query=query, **more)

    async def settled(self, answers: list[Response]) -> tuple[int, Any]:
        """Status and body of the one answer."""
        self.turns.run()
        await self.rig.settle()
        (answer,) = answers
        assert answer.content_type == "application/json"
        return answer.status, json.loads(answer.body) if answer.body else None

    async def live(self) -> "Listener":
        worker = self.rig.worker()
        worker.say(m.Call(1, m.Attach(DEVICE, "", 0, 0)))
        worker.take()
        return Listener(worker)


class Listener:
    """The device's worker: hears one update, and says that it was written."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def hear(self, outcome: int | None = m.WRITTEN) -> tuple[str, int, str | None]:
        (deliver,) = self.worker.take()
        assert (type(deliver), deliver.device) == (m.Deliver, DEVICE)
        if outcome is not None:
            self.worker.say(m.Result(deliver.number, outcome))
        return deliver.slot, deliver.version, deliver.body


def multipart(**fields: str) -> tuple[bytes, bytes]:
    """Body and Content-Type."""
    parts = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    return (parts + "--edge--\r\n").encode(), b"multipart/form-data; boundary=edge"
