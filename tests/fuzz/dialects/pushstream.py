"""push stream: the requests of publishers; paths, templates and positions; subscribers; messages of the queue.

A subscriber's input is lines: the target, Last-Event-Id, If-Modified-Since, If-None-Match, the mode, then what it sends
or "!": `!log N` answers its Subscribe, `!reply N` its call, `!event N` is an event of its first channel, `!tick`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import h11
from support.common import Rig
from support.pushstream_shard import logged, made

import farm.dialects.pushstream
import farm.dialects.pushstream.polls
import farm.dialects.pushstream.requests
import farm.dialects.pushstream.sessions
import farm.dialects.pushstream.transports
import router.dialects.pushstream.channels
import router.dialects.pushstream.nats.notification
import router.dialects.pushstream.positions
import router.dialects.pushstream.templates
from farm.dialects import (
    Admission,
    Become,
    Call,
    Close,
    Effects,
    Event,
    Ping,
    Respond,
    Session,
    Subscribe,
    Subscribed,
    Tick,
)
from farm.dialects.pushstream import PushStreamDialect
from farm.dialects.pushstream.requests import PATHS
from farm.transports.event_stream import place
from farm.transports.request import Refusal, Request
from farm.transports.websocket import WEBSOCKET
from fuzz.engine import Target
from fuzz.structures import json_lines
from router.common import messages as m
from router.common.operation import encoded
from router.common.position import AfterTime, Last, Live, LogEvent, LogSlice, position
from router.common.token import Tokens
from router.dialects.pushstream.channels import publisher_path, subscriber_path
from router.dialects.pushstream.nats.notification import NotificationError, notification
from router.dialects.pushstream.positions import position as subscriber_position
from router.dialects.pushstream.protocol import DEFAULT_TEMPLATE, PushStreamOptions, Refused, refusal_text
from router.dialects.pushstream.templates import Message, Template

_OPTIONS: Final = PushStreamOptions(wildcard_channel_prefix="all_", wildcard_channel_max_qtd=2)
_TEMPLATE: Final = Template(DEFAULT_TEMPLATE)
_ADMITTED = encoded(refusal_text(None))


def texts(data: bytes) -> None:
    """A line each: path, time, tag, id of an event, template, and a text, which may have more of them."""
    path, time, tag, event_id, template, text = (data.decode("utf-8", "replace").split("\n", 5) + [""] * 5)[:6]
    try:
        wanted = subscriber_path(path, _OPTIONS)
    except Refused as refused:
        assert 400 <= refused.answer.status < 500
        assert len(json.loads(refused.close_reason)) == 2
    else:
        assert len({one.name for one in wanted}) == len(wanted) > 0
        names = [one.name for one in wanted]
        assert publisher_path("/".join(names), _OPTIONS) == names
        for one in wanted:
            found = subscriber_position(one.backtrack, time, tag, event_id)
            assert position(list(found)) == found
            assert not one.backtrack or found == Last(one.backtrack)
    message = Message(1, path, text, 784_111_777, len(data), event_id, time)
    shown = json.loads(_TEMPLATE.fill(message))
    assert (shown["channel"], shown["text"], shown["eventid"]) == (path, text, event_id)
    assert Template(template).fill(message).decode() is not None
    own = place(LogEvent(1, 784_111_777, len(data), 784_111_778, event_id, {}, text))
    assert subscriber_position(None, "", "", own) == AfterTime(784_111_777, len(data))


def notifications(data: bytes) -> None:
    """A message of the queue."""
    try:
        names, text = notification(data, _OPTIONS)
    except NotificationError:
        return
    assert 0 < len(names) == len(set(names))
    assert publisher_path("/".join(names), _OPTIONS) == names
    again = json.dumps({"channel": "/".join(names), "message": text})
    assert notification(again.encode(), _OPTIONS) == notification(json.dumps(again).encode(), _OPTIONS) == (names, text)


_MODES: Final = {b"p": b"polling", b"l": b"long-polling"}
_SITES: Final = tuple(
    made(
        websocket_allow_publish=number % 2 == 0,
        max_subscribers_per_channel=number,
        authorized_channels_only=number == 2,
        timeout_with_body=number == 1,
        header_template="begin" * (number == 1),
        footer_template="end" * (number == 1),
        missed_message="missed" * (number == 2),
        allowed_origins=("*",) * (number == 2),
        ping_message_interval=number * 20,
        subscriber_connection_ttl=number * 30,
    )
    for number in range(3)
)


class _Subscriber:
    """One connection, and all that is written to it."""

    def __init__(self, site: PushStreamDialect, request: Request) -> None:
        self.transport = site.transport(request)
        self.transport.check(request)
        site.wanted(request)
        opened = site.opened(request)
        if isinstance(opened, Admission):
            opened = site.admitted(request, opened.call.context, m.OK, _ADMITTED)
        assert isinstance(opened, Session)
        self.session: Any = opened
        self.open: Subscribe | Call | None = None
        self.closed = False
        self.written = self.transport.head(request, None, ())
        self.take(self.session.begun(0.0))

    def take(self, effects: Effects) -> None:
        """Carry effects out, as a worker does."""
        transport, parts, close = self.transport, list[bytes](), None
        for effect in effects:
            assert close is None, f"{effect} after the close"
            if isinstance(effect, bytes):
                parts.append(transport.text(effect))
            elif isinstance(effect, Event):
                parts.append(transport.event(*effect))
            elif isinstance(effect, Respond):
                if (head := transport.respond(*effect)) is not None:
                    parts.insert(0, head)
                    self.transport = transport = transport.responded
            elif isinstance(effect, Ping):
                parts.append(transport.ping(effect.payload))
            elif isinstance(effect, Close):
                close = effect
            elif isinstance(effect, Subscribe | Call):
                assert self.open is None
                self.open = effect
            elif isinstance(effect, Become):
                self.session = effect.session
            else:
                assert isinstance(effect, Tick) and effect.seconds > 0
        self.write(parts, close)

    def write(self, parts: list[bytes], close: Close | None) -> None:
        transport = self.transport
        self.closed = close is not None or (transport.once and bool(parts))
        if close is not None:
            assert len(close.reason.encode()) <= 123
            assert close.code in (1000, 1005, 1008, 1009, 1013)
        code, reason = (0, "") if close is None else close
        if transport.once:
            self.written += transport.answer(parts, code, reason) if self.closed else b""
        else:
            self.written += b"".join(parts) + (b"" if close is None else transport.close(code, reason))

    def happens(self, line: bytes, site: PushStreamDialect) -> None:
        what, _, rest = line.partition(b" ")
        number = int(rest[:3]) if rest[:3].isdigit() else 0
        events = [logged(offset, f"text {offset}", id="x" * (offset % 2)) for offset in range(1, number % 5 + 1)]
        if what == b"!log" and isinstance(self.open, Subscribe):
            status = (m.OK, m.OK, m.OK, m.FULL, m.FAILED)[number % 5]
            log = None if number % 7 == 6 else LogSlice(7, len(events), number % 2 == 0, events, number % 3 == 2)
            wanted, self.open = self.open.channels, None
            found = [Subscribed(one, status, log=None if type(one.position) is Live else log) for one in wanted]
            self.take(self.session.subscribed(found, 0.0))
        elif what == b"!reply" and isinstance(self.open, Call):
            context, self.open = self.open.context, None
            self.take(self.session.replied(context, (m.OK, m.FAILED)[number % 2], (b"", None)[number % 3 == 2], 0.0))
        elif what == b"!event" and self.open is None:
            for event in events[:1]:
                self.write([self.transport.event(site.event_text("a", event), event)], None)
        elif what == b"!tick":
            effects, again = self.session.tick(0.0)
            assert again >= 0
            self.take(effects)
        elif self.open is None and self.transport is WEBSOCKET:
            self.take(self.session.received(line, number % 9 == 8 or not _is_text(line), 0.0))


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def subscribers(data: bytes) -> None:
    """Connections of subscribers: what they are answered can be read by a client that is not ours."""
    target, *fields, mode = (*data.split(b"\n")[:5], b"", b"", b"", b"", b"")[:5]
    names = (b"last-event-id", b"if-modified-since", b"if-none-match")
    headers = {name: value for name, value in zip(names, fields, strict=True) if value}
    if mode[:1] in _MODES:
        headers[b"x-nginx-pushstream-mode"] = _MODES[mode[:1]]
    path, _, query = target.decode("ascii", "replace").partition("?")
    prefix = PATHS[len(target) % len(PATHS)].removesuffix("/**").partition("?")[0]
    request = Request(b"GET", prefix + "/" + path, query, headers | _UPGRADE, (1, 1), socket_id="1.2", keep_alive=True)
    site = _SITES[len(data) % 3]
    try:
        one = _Subscriber(site, request)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500
        _read(refusal.encode())
        return
    for line in data.split(b"\n")[5:40]:
        if one.closed:
            break
        one.happens(line, site)
    if one.transport is not WEBSOCKET and one.written:
        assert _read(one.written) or not one.closed


_UPGRADE: Final = {
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
}


def _read(data: bytes) -> bool:
    """Read an answer. Returns: whether it has ended."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "push")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            return False
        if isinstance(event, h11.EndOfMessage):
            return True


SETTINGS: Final = (
    (
        PushStreamOptions,
        {"admin_key": "k", "events_channel_id": "events", "max_number_of_channels": 4, "allowed_origins": ("*",)},
    ),
)
REQUESTS: Final[tuple[list[Any], ...]] = (
    ["POST", "/pub", "id=a&admin_key=k", {"Event-Id": "e", "Event-Type": "t"}, "hello"],
    ["PUT", "/pub", "id=a/b%2Fc&admin_key=k", {"Accept": "application/xml"}, "hello"],
    ["GET", "/pub", "id=a&admin_key=k", {"Accept": "text/plain"}, ""],
    ["DELETE", "/pub", "id=a/b&admin_key=k", {}, "gone"],
    ["OPTIONS", "/pub", "id=a", {"Origin": "https://a.example"}, ""],
    ["GET", "/channels-stats", "id=ALL&admin_key=k", {"Accept": "application/yaml"}, ""],
    ["GET", "/channels-stats", "id=a*&admin_key=k", {}, ""],
    ["GET", "/channels-stats", "admin_key=k", {"Authorization": "Bearer k"}, ""],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """Nothing."""
    return {}


TARGETS = (
    Target(
        "pushstream-texts",
        texts,
        (
            router.dialects.pushstream.channels,
            router.dialects.pushstream.positions,
            router.dialects.pushstream.templates,
        ),
        (
            b'a.b3/all_c\nSun, 06 Nov 1994 08:49:37 GMT\nW/12\n\n{"x":"~text~",\'~channel~\'}\nsay "hi"',
            b"/ALL/\n\n\n784111777:3\n~id~~tag~~time~~size~\n",
            b"a\n\n12\nown\n'~text~'\n</script>'",
        ),
        (b"/", b".b", b"*", b"all_", b"~text~", b"~event-id~", b'"', b"'", b"\\", b"W/", b":"),
    ),
    Target(
        "pushstream-notifications",
        notifications,
        (router.dialects.pushstream.nats.notification,),
        (b'{"channel":7,"message":"text"}', b'"{\\"channel\\":\\"a/b\\",\\"message\\":\\"\\\\u00e9\\"}"', b'"{}"'),
        (b'"channel"', b'"message"', b"\\u0000", b"\\ud800", b"/", b"*", b"ALL", b"null", b"1e9"),
    ),
    Target(
        "pushstream-subscribers",
        subscribers,
        (
            farm.dialects.pushstream,
            farm.dialects.pushstream.polls,
            farm.dialects.pushstream.requests,
            farm.dialects.pushstream.sessions,
            farm.dialects.pushstream.transports,
        ),
        (
            b"a.b3/b?tag=&time=&eventid=\n\n\n\n\n!log 3\n!event 1\nhello\n!reply 0\n!tick",
            b"a\n784111777:3\n\n\n\n!log 4\n!event 2\n!tick\n!tick\n!tick",
            b"a/c?callback=took\nown\nSun, 06 Nov 1994 08:49:37 GMT\nW/12\np\n!log 0",
            b"a\n\nSun, 06 Nov 1994 08:49:37 GMT\nW/12\nl\n!log 0\n!tick\n!tick",
            b"ALL\n\n\n\n\n",
        ),
        (b"/", b".b", b"?channels=", b"callback=", b"!log ", b"!event ", b"!reply ", b"!tick", b"eventid=", b"%2F"),
        json_lines(["!log 0", "!log 3", "!log 14", "!reply 0", "!reply 1", "!event 1", "!tick", "a/b", "hello", ""]),
    ),
)
