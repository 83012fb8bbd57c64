"""The app-server side of push stream with a hub, a committer and a store; publishers and workers with subscribers."""

import json
from collections.abc import Callable
from typing import Any

from router.common import messages as m
from router.common.token import Tokens
from router.dialects.app_server import Context
from router.dialects.pushstream.app_server import routes
from router.dialects.pushstream.protocol import EXPLAIN, Admit, Publish, PushStreamOptions, channel_address, label
from router.dialects.pushstream.service import Housekeeping
from router.dialects.pushstream.state import state
from router.dialects.pushstream.templates import Message, message_of
from router.http.message import PendingResponse, Request, Response
from router.http.routes import Router
from router.http.turns import Turns
from support.common import FakeWorker, Rig, settings_with

LOCAL = "127.0.0.1"
STATISTICS = "/channels-stats"


class Connection:
    """Where a request comes from."""

    def __init__(self, address: str) -> None:
        self._address = address

    def address_of(self, headers: dict[bytes, bytes]) -> str:
        return self._address

    def answer(self, pending: PendingResponse, size: int) -> None:
        """Nobody asks: answers are taken from the routes."""

    def defer(self, pending: PendingResponse, make: Callable[[], None]) -> bool:
        return False


class PushApp:
    """The routes over a rig. A router that is new on the same store is another of these."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        self.rig = rig
        self.listeners: list[Listener] = []
        settings = settings_with((PushStreamOptions, options))
        self.turns = Turns()
        self.context = context = Context(
            rig.hub.core,
            Tokens((b"k" * 32,)),
            settings,
            rig.clock.unix,
            self._status,
            self.turns,
            limits=rig.push_limits,
        )
        self.router = Router(routes(context))
        self.service = Housekeeping(context)
        self.state = context.shared(state)

    def _status(self) -> dict[str, Any]:
        rows = [{"pid": 4000 + one.worker.shard, "shard": one.worker.shard, "running": 7.5} for one in self.listeners]
        return {"workers": rows}

    def ask(
        self, method: str, path: str, body: bytes | str = b"", address: str = LOCAL, **headers: str
    ) -> list[Response]:
        """Returns: a list that gets the answer when it comes. headers: with _ for -."""
        answers: list[Response] = []
        where, _, query = path.partition("?")
        handler = self.router.find(where.encode())
        assert handler is not None
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        pending = PendingResponse(Connection(address), True, False, 0)
        request = Request(method.encode(), where.encode(), query.encode(), named, data, pending)
        handler(request, answers.append)
        return answers

    async def call(self, method: str, path: str, body: bytes | str = b"", **more: Any) -> Response:
        """The answer, once the workers have sent their counts and the store has done its work."""
        answers = self.ask(method, path, body, **more)
        await self.have_turns()
        for one in self.listeners:
            one.worker.tell_counts()
        await self.rig.settle()
        await self.have_turns()
        (answer,) = answers
        return answer

    async def have_turns(self) -> None:
        """What waits for a turn has it, and then the next."""
        while self.turns.waiting:
            self.turns.run()
            await self.rig.settle()

    async def publish(self, channel: str, text: str = "text", **headers: str) -> Any:
        """The numbers of the channel afterwards."""
        answer = await self.call("POST", f"/pub?id={channel}", text, **headers)
        assert answer.status == 200
        return json.loads(answer.body) if answer.body else None

    async def refused(self, method: str, path: str, body: bytes | str = b"", **more: Any) -> tuple[int, str]:
        """Status and reason of an answer that refuses."""
        answer = await self.call(method, path, body, **more)
        assert answer.body == b""
        return answer.status, dict(answer.headers).get(EXPLAIN, "")

    async def info(self, channel: str) -> tuple[int, int, int] | None:
        """Published, stored and subscribers; None: there is no such channel."""
        answer = await self.call("GET", f"/pub?id={channel}")
        if answer.status == 404:
            return None
        told = json.loads(answer.body)
        assert told.pop("channel") == channel
        assert list(told) == ["published_messages", "stored_messages", "subscribers"]
        published, stored, subscribers = told.values()
        return published, stored, subscribers

    async def statistics(self, query: str = "", **headers: str) -> Any:
        answer = await self.call("GET", STATISTICS + query, **headers)
        assert answer.status == 200
        return json.loads(answer.body)

    async def perform(self, asked: Admit | Publish) -> tuple[int, str | None]:
        """As the device side asks."""
        replies: list[tuple[int, str | None]] = []
        key = channel_address(asked.names[0])
        self.rig.hub.core.operations.at(key, asked, lambda status, reply=None: replies.append((status, reply)))
        await self.rig.settle()
        (reply,) = replies
        return reply

    def subscribe(self, *channels: str, shard: int = 0) -> "Listener":
        """A shard with one subscriber in each of these channels."""
        listener = Listener(self.rig.worker(shard))
        self.listeners.append(listener)
        listener.subscribe(*channels)
        return listener

    async def pass_by(self, seconds: float) -> None:
        """Time passes, and then the router looks after its channels."""
        self.rig.clock.pass_by(seconds)
        self.state.look()
        await self.rig.settle()

    async def load(self) -> None:
        """The names of channels are read from the store."""
        self.state.names.read(self.state.found, lambda: None)
        await self.rig.settle()


class Listener:
    """A worker with subscribers."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def subscribe(self, *channels: str) -> list[int]:
        """Returns: the statuses."""
        for channel in channels:
            self.worker.say(m.Call(1, m.Subscribe(channel_address(channel), label(channel))))
        return [one.status for one in self.worker.take() if isinstance(one, m.Reply)]

    def leave(self, channel: str) -> None:
        self.worker.say(m.Unsubscribe(channel_address(channel)))

    def count(self, channel: str, subscribers: int) -> None:
        self.worker.say(m.Counted(channel_address(channel), subscribers))

    def hear(self) -> list[Message | m.Terminate]:
        """The messages that came, without their time, and what closes subscribers."""
        found: list[Message | m.Terminate] = []
        for one in self.worker.take():
            if isinstance(one, m.LoggedEvent):
                found.append(message_of("", one.event)._replace(time=0, tag=0))
            elif isinstance(one, m.Terminate):
                found.append(one)
        return found

    def texts(self) -> list[str]:
        return [one.text for one in self.hear() if isinstance(one, Message)]
