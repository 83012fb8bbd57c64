"""The app-server side of WebPush with a hub and a store, without sockets."""

import json
from typing import Any

from router.common import id_set
from router.common import messages as m
from router.common.item import Item
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.webpush.app_server import routes
from router.dialects.webpush.protocol import (
    DEVICES,
    WebPushOptions,
    endpoint,
)
from router.dialects.webpush.vapid import key_digest
from router.http.message import Request, Response
from router.http.routes import Router
from support.common import FakeWorker, Rig, settings_with
from support.webpush_vapid import Sender, b64

URL = "https://push.example.org/farm"
ORIGIN = "https://push.example.org"
DEVICE, ABSENT = bytes(range(16)), b"a" * 16
CHID, OTHER_CHID = "0a1b2c3d-2222-3333-4444-555555555555", "ffffffff-2222-3333-4444-555555555555"
MEMBER, OTHER_MEMBER = bytes.fromhex(CHID.replace("-", "")), bytes.fromhex(OTHER_CHID.replace("-", ""))
HEAD = b"\x00\x00\x4c\xe0"
KEY, OLD_KEY = b"k" * 32, b"o" * 32
SENDER, OTHER = Sender(), Sender()
POINT = b64(SENDER.raw)
AES128GCM = {"content-encoding": "aes128gcm"}


class App:
    """The routes over a rig in which one device has one channel."""

    def __init__(self, rig: Rig, keys: tuple[bytes, ...] = (KEY,), **options: Any) -> None:
        self.rig = rig
        self.tokens = Tokens(keys)
        settings = settings_with((WebPushOptions, options), (EndpointOptions, {"url": URL}))
        self.context = Context(rig.hub.core, self.tokens, settings, rig.clock.unix, dict, limits=rig.push_limits)
        self.router = Router(routes(self.context))
        self.register(MEMBER)

    def register(self, *channels: bytes, device: bytes = DEVICE) -> None:
        """The device has these channels and no others."""
        record = HEAD
        for channel in channels:
            record = id_set.added(record, HEAD, channel)
        self.rig.committer.record(DEVICES, device, record, 0)

    def path(self, sender: Sender | None = None, device: bytes = DEVICE, member: bytes = MEMBER) -> str:
        """Of an endpoint; with a sender, of one that is bound to its key."""
        digest = key_digest(sender.raw) if sender is not None else b""
        return endpoint("", self.tokens, device, member, digest)

    def vapid(self, sender: Sender = SENDER, **changes: Any) -> str:
        claims = {"aud": ORIGIN, "exp": int(self.rig.clock.unix()) + 3600} | changes
        return sender.vapid(claims).decode()

    def ask(
        self, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: bytes = b"POST"
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes."""
        answers: list[Response] = []
        handler = self.router.find(path.encode("latin-1"))
        assert handler is not None
        found = {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
        handler(Request(method, path.encode("latin-1"), b"", {b"host": b"push"} | found, body), answers.append)
        return answers

    def post(self, body: bytes = b"", path: str | None = None, **headers: str) -> list[Response]:
        """A push; a TTL of 60 s where none is given. Underscores stand for hyphens; an empty TTL is left out."""
        found = {"ttl": "60"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if found["ttl"] == "none":
            del found["ttl"]
        return self.ask(path or self.path(), body, found)

    async def settled(self, answers: list[Response]) -> Response:
        """The one answer. Every one of this dialect may be read by web pages."""
        await self.rig.settle()
        (answer,) = answers
        assert ("Access-Control-Allow-Origin", "*") in answer.headers
        return answer

    async def outcome(self, answers: list[Response]) -> tuple[int, int | None]:
        """Status and errno."""
        answer = await self.settled(answers)
        if answer.status in (200, 201, 204, 404):
            assert answer.body == b""
            return answer.status, None
        body = json.loads(answer.body)
        assert answer.content_type == "application/json"
        assert set(body) == {"code", "errno", "error", "message", "more_info"}
        assert body["code"] == answer.status
        assert isinstance(body["message"], str)
        return answer.status, body["errno"]

    async def waiting(self, device: bytes = DEVICE) -> list[Item]:
        """What the store has for a device, in the order of delivery."""
        await self.rig.settle()
        found: list[list[Item]] = []
        self.rig.committer.read_inbox(device, lambda status, items: found.append(items), most=1000)
        await self.rig.settle()
        return found[0]

    def live(self) -> "Listener":
        worker = self.rig.worker()
        worker.say(m.Call(1, m.Attach(DEVICE, "", 0, 0)))
        worker.take()
        return Listener(worker)


class Listener:
    """The device's worker. It does not say whether a message was written: nobody waits for that."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker

    def hear(self) -> list[tuple[str, int, str | None]]:
        """Slot, version and body of what was said to it."""
        sent = [one for one in self._worker.take() if isinstance(one, m.Deliver)]
        assert all((one.number, one.device) == (0, DEVICE) for one in sent)
        return [(one.slot, one.version, one.body) for one in sent]


def headers_of(answer: Response) -> dict[str, str]:
    return dict(answer.headers)


def said(body: str | None) -> Any:
    """What a device makes of a stored body."""
    assert body is not None
    assert body.isascii()
    return json.loads("{" + body + "}")
