"""A dialect for those that speak no WebSocket, and its transports: HTTP streaming, long polling, and lines over TCP.

It is registered by the test alone: given to a shard, or put where a farm finds its dialects. What its path says is
done: `/plain/stream/join?hello` is a stream that says hello and subscribes to the channel; `poll` and `ws` instead of
`stream`; `asked` asks the router first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from farm.dialects import (
    Accept,
    Admission,
    Call,
    Close,
    DeviceSide,
    Dialect,
    Effects,
    FurtherListener,
    Opened,
    Ping,
    Respond,
    Session,
    Subscribe,
    Subscribed,
    Subscription,
)
from farm.transports import BytesReader, Headers, PeerError, Reader, ResponseHead, Transport
from farm.transports.frames import TEXT
from farm.transports.request import Refusal, Request, Response, header_lines, response_head
from farm.transports.websocket import WEBSOCKET
from router.common import messages as m
from router.common.close_codes import NORMAL
from router.common.options import Section, option
from router.common.position import LogEvent
from router.dialects import DialectSpec

NAME: Final = "presence-room"
ROOM: Final = m.channel_key("talk", "app", NAME)
LABEL: Final = m.channel_label("talk", "app", NAME)
OTHER: Final = b"o" * 16
"""The channels of `support.shard`."""
MAX_BODY: Final = 1000
MAX_LINE: Final = 100
QUESTION = m.Invoke("plain", ROOM, b"may it?")


class Chunks(Transport):
    """A stream: each message is a chunk (RFC 9112 section 7.1)."""

    __slots__ = ()

    max_waiting = 200_000

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        usual = (("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked"), ("Connection", "close"))
        return response_head(200, (*usual, *headers))

    def text(self, payload: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(payload), payload) if payload else b""

    def binary(self, payload: bytes) -> bytes:
        return self.text(payload)

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        return self.text(b"event " + text)

    def ping(self, payload: bytes) -> bytes:
        return self.text(b"ping")

    def close(self, code: int, reason: str) -> bytes:
        return self.text(f"closed {code} {reason}".encode()) + b"0\r\n\r\n"


class Part(bytes):
    """An event of a channel in an answer."""


class LongPoll(Transport):
    """What is said first is the answer. Its Etag is the number of events in it."""

    __slots__ = ("keeps_alive",)

    once = True

    def __init__(self, keeps_alive: bool) -> None:
        self.keeps_alive = keeps_alive  # type: ignore[misc]

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        return b""

    def text(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        return Part(self.text(text))

    def respond(self, status: int, headers: Headers) -> ResponseHead:
        return ResponseHead(f"HTTP/1.1 {status} \r\n".encode() + header_lines(headers))

    def answer(self, parts: Sequence[bytes], code: int, reason: str) -> bytes:
        if not (parts and isinstance(parts[0], ResponseHead)):
            events = sum(isinstance(part, Part) for part in parts)
            parts = (self.respond(200 if parts else 304, (("Etag", str(events)),)), *parts)
        body = b"".join(parts[1:])
        headers = [] if self.keeps_alive else [("Connection", "close")]
        return parts[0] + header_lines([*headers, ("Content-Length", str(len(body)))]) + b"\r\n" + body


class LineReader(BytesReader):
    """Lines that are not whole."""

    __slots__ = ()

    def feed(self, data: bytes, most: int) -> list[tuple[int, bytes]]:
        *lines, self._kept = (self._kept + data).split(b"\r\n", most)
        if len(self._kept) > MAX_LINE and b"\r\n" not in self._kept:
            self.error = PeerError(1009, "long line")
        self.taken = len(lines)
        self.more = b"\r\n" in self._kept
        return [(TEXT, line) for line in lines]


class Lines(Transport):
    """No HTTP at all: the first line is the path, then each message is a line."""

    __slots__ = ()

    request_timeout = 5.0
    for_pages = False

    def request(self, data: bytes, max_bytes: int, max_headers: int, seen: int) -> tuple[Request, bytes] | None:
        line, end, rest = data.partition(b"\r\n")
        if len(line) > MAX_LINE:
            raise Refusal(414, "long line")
        return (Request(b"GET", line.decode("ascii"), "", {}, (1, 1)), rest) if end else None

    def refusal(self, refusal: Refusal, request: Request | None) -> bytes:
        return f"refused {refusal.status}\r\n".encode()

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        return b"welcome\r\n"

    def reader(self, max_message: int, max_fragments: int) -> Reader:
        return LineReader()

    def text(self, payload: bytes) -> bytes:
        return payload + b"\r\n"

    def close(self, code: int, reason: str) -> bytes:
        return f"bye {code}\r\n".encode()


CHUNKS: Final = Chunks()
LINES: Final = Lines()
POLLS: Final = {keeps_alive: LongPoll(keeps_alive) for keeps_alive in (False, True)}


class PlainSession(Session):
    """Says what its query says, and echoes."""

    def __init__(self, request: Request) -> None:
        self._parts = request.path.split("/")[2:]
        self._says = request.query
        self._channels: tuple[bytes, ...] = ()
        self._socket_id = request.socket_id
        self.closes = 0

    @property
    def channels(self) -> tuple[bytes, ...]:
        return self._channels

    @property
    def socket_id(self) -> str:
        return self._socket_id

    def begun(self, now: float) -> Effects:
        if self._says:
            yield from map(str.encode, self._says.split("&"))
        if "end" in self._parts:
            yield Close(NORMAL, "end")
        if "nothing" in self._parts:
            yield Respond(304, (("Etag", "none"),))
            yield Close(NORMAL, "nothing")
        if "join" in self._parts:
            self._channels = (ROOM,)
            yield Subscribe((Subscription(ROOM, LABEL),))
        if "both" in self._parts:
            self._channels = (ROOM, OTHER)
            yield Subscribe((Subscription(ROOM, LABEL), Subscription(OTHER)))

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        return ()

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if message == b"ping":
            return (Ping(b"anyone?"),)
        if message.startswith(b"publish "):
            return (m.Publish(ROOM, message[8:].decode(), 0, ""),)
        if message == b"leave":
            return (b"going", Close(1005))
        return (message,)

    def tick(self, silent: float) -> tuple[Effects, float]:
        if "tick" in self._parts:
            return (Respond(200, (("X-Why", "timeout"),)), b"timed out", Close(NORMAL, "timed out")), 0
        return (b"tick",), 0

    def unanswered(self) -> Effects:
        return (b"come again",) if "stops" in self._parts else ()

    def closed(self) -> None:
        self.closes += 1


class Plain(Dialect):
    """Its requests and sessions stay in `requests` and `sessions`, if it is to keep them."""

    methods = (b"GET", b"HEAD", b"POST")

    def __init__(self, keeps: bool = True) -> None:
        self._keeps = keeps
        self.sessions: list[PlainSession] = []
        self.requests: list[Request] = []

    @property
    def max_body(self) -> int:
        return MAX_BODY

    @property
    def first_tick(self) -> float:
        return 30.0

    def transport(self, request: Request) -> Transport:
        if request.path.startswith("/plain/lines"):
            return LINES
        for part, transport in (("ws", WEBSOCKET), ("poll", POLLS[request.keep_alive])):
            if part in request.path.split("/"):
                return transport
        return CHUNKS

    def opened(self, request: Request) -> Opened:
        if self._keeps:
            self.requests.append(request)
        if request.method == b"POST" and "asked" not in request.path:
            return Response(200, request.body, (("X-Address", request.address),), "application/octet-stream")
        if "asked" in request.path:
            return Admission(Call(QUESTION, "may it?"))
        if "wrong" in request.path:
            return Admission(Call(m.Attach(ROOM, "", 0, 0), "wrong"))
        if "defect" in request.path:
            raise ZeroDivisionError
        if "two-lines" in request.path:
            return Accept(self._session(request), (("X-Split", "a\r\nSet-Cookie: b"),))
        return self._session(request)

    def admitted(self, request: Request, context: Any, status: int, payload: Any) -> Opened:
        assert context == "may it?"
        if status != m.OK:
            raise Refusal(503, "nobody knows", Retry_After="7")
        if payload == b"no":
            return Response(403, b'{"error":"no"}', (("X-Reason", "secret"),), "application/json")
        if payload == b"elsewhere":
            return Response(302, headers=(("Location", "/plain/login"),))
        if payload == b"again":
            return Admission(Call(QUESTION, context))
        if payload == b"defect":
            raise ZeroDivisionError
        if payload == b"poll":
            return Accept(self._session(request), transport=POLLS[True])
        user = payload.decode() if isinstance(payload, bytes) else "nobody"
        return Accept(self._session(request), (("Set-Cookie", f"user={user}"),))

    def _session(self, request: Request) -> PlainSession:
        session = PlainSession(request)
        if self._keeps:
            self.sessions.append(session)
        return session


@dataclass(frozen=True)
class PlainOptions(Section):
    SECTION: ClassVar[str] = "plain"
    HELP: ClassVar[str] = "A dialect of the tests."
    AT_START: ClassVar[frozenset[str]] = frozenset(("lines_port",))

    lines_port: int = option(0, "port of its own for lines over TCP; 0: none", ge=0, le=65535)


SIDE: Final = DeviceSide(
    spec=DialectSpec(name="plain", on=False, sections=(PlainOptions,)),
    make=lambda context: Plain(keeps=False),
    paths=("/plain/**",),
    listeners=(FurtherListener("plain.lines_port", lambda settings: settings.get(PlainOptions).lines_port, LINES),),
)
