"""A worker's sockets with push stream's device side, and a router that answers what the test wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import websocket

from farm.dialects import Context
from farm.dialects.pushstream.dialect import PushStreamDialect
from router.common import messages as m
from router.common.metrics import WorkerCounters
from router.common.poller import INPUT
from router.common.position import LogEvent, LogSlice
from router.common.token import Tokens
from router.dialects.pushstream.protocol import NAME, PushStreamOptions, channel_address
from support.common import Clock, settings_with
from support.plain_http import Client, get
from support.shard import Shard

EPOCH = 7
TIME = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
NO_EVENTS: Mapping[str, Sequence[LogEvent]] = {}


def logged(offset: int, text: str = "", **more: Any) -> LogEvent:
    """An event, `offset` microseconds or so behind TIME."""
    event = LogEvent(offset, TIME, offset, TIME + 60, "", {}, text or f"text {offset}")
    return event._replace(**more)


def made(**options: Any) -> PushStreamDialect:
    """The dialect with these settings."""
    settings = settings_with((PushStreamOptions, options))
    return PushStreamDialect(Context(settings, Tokens([b"k" * 32]), WorkerCounters(), Clock().unix))


class Site:
    """The shard, and its clients."""

    def __init__(self, shard: Shard, dialect: PushStreamDialect) -> None:
        self.shard = shard
        self.dialect = dialect
        self.asked: dict[str, Any] = {}
        """The positions from which logs were read, by channel."""
        self._names: dict[bytes, str] = {}

    def plain(self, path: str, *headers: str, method: str = "GET", version: str = "1.1") -> Client:
        """A client that has sent this request."""
        sent = get(path, *headers, method=method).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
        return Client(self.shard, sent)

    def socket(self, path: str) -> websocket.WebSocket:
        """An upgraded WebSocket."""
        return self.shard.open(path)[1]

    def answer(
        self,
        logs: Mapping[str, Sequence[LogEvent]] = NO_EVENTS,
        recovered: Sequence[str] | None = None,
        status: int = m.OK,
        full: type[m.Request] | None = None,
    ) -> None:
        """Reply to all that was asked. logs: what each holds after the position. recovered: channels of which nothing
        is missing; None: all. full: requests that are refused so."""
        known = {channel_address(name): name for name in ("a", "b", "c", *logs)}
        self.asked.clear()
        for message in self.shard.said():
            if not isinstance(message, m.Call):
                continue
            payload: Any = None
            if isinstance(message.request, m.ReadLog):
                name = known[message.request.channel]
                self.asked[name] = message.request.position
                events = list(logs.get(name, ()))
                offset = events[-1].offset if events else 0
                payload = LogSlice(EPOCH, offset, recovered is None or name in recovered, events)
            told = m.FULL if type(message.request) is full else status
            payload = {} if isinstance(message.request, m.PresenceJoin) else payload
            self.shard.sockets.received([m.Reply(message.number, told, payload)])
        self.shard.sockets.speak()

    def publish(self, name: str, event: LogEvent, speak: bool = True) -> None:
        """An event comes. speak: whether what waits has its turn."""
        self.shard.sockets.received([m.LoggedEvent(channel_address(name), EPOCH, event, "")])
        if speak:
            self.shard.sockets.speak()

    def look(self) -> None:
        """What clients have sent is read."""
        for connection in self.shard.sockets.open_connections():
            self.shard.sockets.ready(connection.fd, INPUT)

    def pass_by(self, seconds: float) -> None:
        """Time."""
        for _ in range(int(seconds * 4) + 2):
            self.shard.clock.pass_by(0.25)
            self.shard.sockets.tick()


@contextmanager
def site(fanout_slice: int = 256, **options: Any) -> Iterator[Site]:
    """A shard with these settings of push stream."""
    dialect = made(**options)
    paths = dict.fromkeys(("/ws/**", "/subscribe/**", "/ev/**", "/lp/**", "/sub/**", "/ws", "/ev", "/lp"), dialect)
    worker = {"next_request_timeout": 60, "fanout_slice": fanout_slice}
    shard = Shard(worker, more=paths, named={NAME: dialect})
    try:
        yield Site(shard, dialect)
    finally:
        shard.close()


class Answer:
    """One whole answer of a poll."""

    def __init__(self, client: Client) -> None:
        head = client.until(b"\r\n\r\n").decode("latin-1")
        status, *lines = head.split("\r\n")
        _, number, self.phrase = status.split(" ", 2)
        self.status = int(number)
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = b""
        length = int(self.headers.get("content-length", 0))
        while len(self.body) < length:
            self.body += client.socket.recv(length - len(self.body))

    @property
    def place(self) -> tuple[str | None, str | None]:
        """What the client sends again."""
        return self.headers.get("last-modified"), self.headers.get("etag")
