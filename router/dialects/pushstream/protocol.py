"""nginx push stream, what both sides share: settings, addresses, what a message is in a log, and what refuses.

Channel paths stand in `channels.py`, templates in `templates.py`, positions of subscribers in `positions.py`.

A message is an event of its channel's log (`LogEvent`): the text is its body, the publisher's Event-Id its id, time and
tag are the log's. `~id~` is its offset. A message that is not stored is in no log and has the offset 0: there `~id~`
stands in its headers, and so it does in the messages that the farm itself makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from router.common import messages as m
from router.common import option_texts as texts
from router.common.answers import Answer, CloseCode, Table
from router.common.auth_settings import auth_url_option
from router.common.operation import Operation
from router.common.options import Section, option

NAME: Final = "pushstream"
LONGEST_TIMER: Final = 900.0
"""Seconds: what is further off takes several timers, for a worker's are early beyond about a thousand."""
DEFAULT_TEMPLATE: Final = (
    '{"id":~id~,"channel":"~channel~","text":"~text~","tag":"~tag~","time":"~time~","eventid":"~event-id~"}'
)
"""What pushstream.js reads."""


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError(text)
    return text


def _origin(text: str) -> str:
    return text if text == "*" else texts.origin(text)


@dataclass(frozen=True)
class PushStreamOptions(Section):
    SECTION: ClassVar[str] = "pushstream"
    HELP: ClassVar[str] = "The push stream dialect: gogin, and publishers and subscribers of nginx push stream."

    admin_key: str = option(
        "",
        "key that publishers and readers of statistics give, as a bearer token or as admin_key in the query; empty: "
        "only programs on this host that come directly, without Forwarded and X-Forwarded-For, are answered, and no "
        "page of another site",
        secret=True,
    )
    one_port: bool = option(
        False,
        "publishers may come to the device port too: a connection that begins with POST, PUT, DELETE or OPTIONS, or "
        "with GET of /pub or /channels-stats, is passed to the router; every client of the device port then reaches "
        "all that the router port serves",
    )
    store_messages: bool = option(
        True,
        "keep messages, so that subscribers may have those that they missed; if not, a message is for those that are "
        "connected, and is answered before anything is durable",
    )
    message_ttl: int = option(1800, "how long a stored message is kept", unit="s", ge=1)
    max_messages_stored_per_channel: int = option(
        0, "messages kept for one channel; 0: as many as store.log_limit", unit="messages", ge=0
    )
    max_message_bytes: int = option(65_536, "one message", unit="bytes", ge=1)
    channel_info_on_publish: bool = option(True, "answer a publisher with the channel's numbers, as JSON")
    max_channels_a_request: int = option(
        100, "channels that one request may publish to or ask for", unit="channels", ge=1
    )
    max_channel_id_length: int = option(200, "id of a channel", unit="characters", ge=1, le=1000)
    max_number_of_channels: int = option(
        1_000_000,
        "channels that there may be, those with the wildcard prefix too; one that is published to takes about 450 "
        "bytes of the router's memory",
        unit="channels",
        ge=1,
    )
    channel_inactivity_time: int = option(
        30, "a channel without subscribers and stored messages is forgotten after this time", unit="s", ge=1
    )
    max_subscribers_per_channel: int = option(
        0, "subscribers of one channel, in the whole farm; 0: no limit", unit="subscribers", ge=0
    )
    max_channels_a_connection: int = option(100, "channels that one connection may subscribe to", unit="channels", ge=1)
    wildcard_channel_prefix: str = option(
        "", "channels whose id begins so are open to all, whatever authorized_channels_only says; empty: none"
    )
    wildcard_channel_max_qtd: int = option(
        0,
        "of these, so many for one connection, which needs another channel besides; 0: no limit",
        unit="channels",
        ge=0,
    )
    authorized_channels_only: bool = option(
        False, "subscribers may only come to channels that have a stored message; others are refused with 403"
    )
    subscriber_connection_ttl: int = option(
        0, "a subscriber is disconnected after this time; 0: it stays", unit="s", ge=0
    )
    longpolling_connection_ttl: int = option(
        0,
        "a long poll is answered after this time, if nothing came; 0: as subscriber_connection_ttl",
        unit="s",
        ge=0,
    )
    timeout_with_body: bool = option(
        False, "answer a long poll for which nothing came with 200 and a message with the id -3, and not with 304"
    )
    ping_message_interval: int = option(
        0, "time between two pings of a subscriber; 0: none", unit="s", ge=0, le=int(LONGEST_TIMER)
    )
    ping_message_text: str = option(" ", "text of these pings, whose id is -1, where they go through the template")
    message_template: str = option(
        DEFAULT_TEMPLATE,
        "a message as subscribers are sent it, with ~id~ ~channel~ ~text~ ~tag~ ~time~ ~event-id~ ~event-type~ ~size~ "
        "in it; what stands in quotes there is escaped for JSON",
    )
    content_type: str = option(
        "text/plain; charset=utf-8",
        "Content-Type of streams and of answers to polls; text/html where message_template writes scripts for a hidden "
        "frame",
        expects="a media type",
        check=_header_value,
    )
    header_template: str = option("", "what streams and long polls begin with")
    footer_template: str = option("", "what streams end with")
    missed_message: str = option(
        "",
        "text of a message with the id -4, sent to a subscriber when messages are missing behind its position, which "
        "the log does not hold any more; empty: it gets no such message, as from the module",
    )
    events_channel_id: str = option(
        "",
        "channel that gets a message when channels are created and destroyed, and when clients subscribe and "
        "unsubscribe; "
        "empty: none",
    )
    allow_connections_to_events_channel: bool = option(False, "subscribers may come to that channel")
    allowed_origins: tuple[str, ...] = option(
        (),
        "web pages that may read answers: origins (https://www.example.org) or *",
        expects="origins, or *",
        check=_origin,
    )
    websocket_allow_publish: bool = option(
        False, "what a WebSocket subscriber sends is published to all channels of its connection"
    )
    auth_url: str = auth_url_option()


# ---------------------------------------------------------------------- channels and messages


def channel_address(name: str) -> bytes:
    """The address of a channel."""
    return m.channel_key(NAME, "", name)


def subscribers_address(name: str) -> bytes:
    """Another address of the channel, by which its subscribers are counted where there is a limit for them."""
    return m.channel_key(NAME, "subscribers", name)


def label(name: str) -> str:
    """What SUBSCRIBE says to the router of a channel: by it the statistics list channels."""
    return m.channel_label(NAME, "", name)


PING_ID: Final = -1
DELETED_ID: Final = -2
TIMED_OUT_ID: Final = -3
MISSED_ID: Final = -4
DELETED_TEXT: Final = "Channel deleted"
TIMED_OUT_TEXT: Final = "Timed out"

HEADER_ID: Final = "id"
"""Header of an event: `~id~`, where it is not the offset."""
HEADER_TYPE: Final = "type"
"""Header of an event: the publisher's Event-Type, if there is one."""

CHANNELS_ARGUMENT: Final = "channels"
TIME_ARGUMENT: Final = "time"
TAG_ARGUMENT: Final = "tag"
EVENT_ID_ARGUMENT: Final = "eventid"
CALLBACK_ARGUMENT: Final = "callback"

# What the device side asks of the router. The reply is the text of what refuses it, "" where nothing does.


class Admit(Operation, tag=1):
    """Whether these channels may be subscribed to, as far as authorized_channels_only and max_number_of_channels go."""

    REPLY = str

    names: list[str]


class Publish(Operation, tag=2):
    """What a WebSocket subscriber has sent, for all of its channels."""

    REPLY = str

    names: list[str]
    text: str


EXPLAIN: Final = "X-Nginx-PushStream-Explain"
MODE: Final = "X-Nginx-PushStream-Mode"

# ---------------------------------------------------------------------- what refuses

_WRONG: Final = "Does not send it again: the request is wrong."
_LATER: Final = "Sends it again after Retry-After."
_NEVER: Final = "Does not come back with this request."
_FULL: Final = "Comes back later."
_UNREAD: Final = "commands_refused"

NO_CHANNEL: Final = Answer(400, "No channel id provided.", _WRONG)
EMPTY_POST: Final = Answer(400, "Empty post requests are not allowed.", _WRONG, "pushes_invalid")
LONG_ID: Final = Answer(400, "Channel id is too large.", _WRONG)
BAD_ID: Final = Answer(400, "Channel id has control characters, or is not UTF-8.", _WRONG)
BAD_CALLBACK: Final = Answer(400, "The callback is not the name of a function.", _WRONG)
NO_UPGRADE: Final = Answer(
    400,
    "Don't have at least one of the mandatory headers: Connection, Upgrade, Sec-WebSocket-Key and "
    "Sec-WebSocket-Version",
    _WRONG,
    _UNREAD,
)
OTHER_VERSION: Final = Answer(400, "Version not supported. Supported versions: 8, 13", _WRONG, _UNREAD)
TOO_MANY_IDS: Final = Answer(400, "Too many channels in one request.", _WRONG)
NOT_UTF8: Final = Answer(400, "The message is not UTF-8.", _WRONG, "pushes_invalid")
BAD_EVENT: Final = Answer(400, "Event-Id and Event-Type have at most 1024 characters.", _WRONG, "pushes_invalid")
NOT_AUTHORIZED: Final = Answer(403, "Channel id not authorized for this method.", _WRONG)
NOT_GRANTED: Final = Answer(403, "The main server grants no channel.", _NEVER)
ONLY_INTERNAL: Final = Answer(403, "Only internal routines can change events channel.", _WRONG)
NO_EVENTS: Final = Answer(403, "Subscription to events channel is not allowed.", _NEVER)
TOO_MANY_WILDCARDS: Final = Answer(403, "Subscribed too much wildcard channels.", _NEVER)
TOO_MANY_SUBSCRIBERS: Final = Answer(403, "Subscribers limit per channel has been exceeded.", _FULL)
CANNOT_CREATE: Final = Answer(403, "Subscriber could not create channels.", _FULL)
TOO_MANY_CHANNELS: Final = Answer(403, "Number of channels were exceeded.", "Looks at max_number_of_channels.")
NO_SUCH_CHANNEL: Final = Answer(404, "", "Knows that there is no such channel.")
BAD_METHOD: Final = Answer(405, "", _WRONG)
TOO_LONG: Final = Answer(413, "The message is too large.", _WRONG, "pushes_too_long")
TOO_OFTEN: Final = Answer(429, "Too many messages for this channel.", _LATER, "limited_pushes_per_endpoint")
FAILED: Final = Answer(500, "Internal Server Error", "Sends it again; the router's log has a trace.")
NO_ROOM: Final = Answer(503, "The store is full, or too much waits for it.", _LATER, "pushes_refused")
NOT_KEPT: Final = Answer(503, "The store could not keep it.", _LATER, "pushes_refused")
NOT_READ: Final = Answer(503, "The store could not be read.", _LATER)
PUBLISHERS: Final = Table(
    "Errors of publishers' requests; the text is in X-Nginx-PushStream-Explain",
    (
        NO_CHANNEL,
        EMPTY_POST,
        LONG_ID,
        BAD_ID,
        TOO_MANY_IDS,
        NOT_UTF8,
        BAD_EVENT,
        NOT_AUTHORIZED,
        ONLY_INTERNAL,
        TOO_MANY_CHANNELS,
        NO_SUCH_CHANNEL,
        BAD_METHOD,
        TOO_LONG,
        TOO_OFTEN,
        FAILED,
        NO_ROOM,
        NOT_KEPT,
        NOT_READ,
    ),
    "router",
)

# The same rows, counted by the worker.
SUBSCRIBERS: Final = Table(
    "Errors of subscribers' requests; WebSockets are closed with them as the reason",
    tuple(
        answer._replace(metric=_UNREAD)
        for answer in (
            NO_CHANNEL,
            LONG_ID,
            BAD_ID,
            TOO_MANY_IDS,
            BAD_CALLBACK,
            NOT_AUTHORIZED,
            NOT_GRANTED,
            NO_EVENTS,
            TOO_MANY_WILDCARDS,
            TOO_MANY_SUBSCRIBERS,
            CANNOT_CREATE,
            TOO_MANY_CHANNELS,
        )
    ),
    "worker",
)
UPGRADES: Final = Table("Errors of what should be an upgrade to WebSocket", (NO_UPGRADE, OTHER_VERSION), "worker")
REFUSED: Final = CloseCode(1008, '{"http_status": 403, "explain": "..."}', "Comes back after a minute.", _UNREAD)
DELETED: Final = CloseCode(1005, "", "Comes back, or knows that its channel was deleted.")
CLOSES: Final = Table("Close codes", (REFUSED, DELETED), "worker")
TABLES: Final = (CLOSES, PUBLISHERS, SUBSCRIBERS, UPGRADES)


class Refused(Exception):
    """A request that is answered with an error of the tables."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.text)
        self.answer = answer

    @property
    def close_reason(self) -> str:
        """What a WebSocket is closed with."""
        return f'{{"http_status": {self.answer.status}, "explain":"{self.answer.text}"}}'


_BY_TEXT: Final = {row.text: row for row in (*PUBLISHERS.rows, *SUBSCRIBERS.rows) if isinstance(row, Answer)}


def refusal_text(answer: Answer | None) -> str:
    """What refuses, as a reply has it."""
    return "" if answer is None else answer.text


_text: Final = msgspec.msgpack.Decoder(str).decode


def refusal_of(reply: bytes) -> Answer | None:
    """The answer that a reply of the router names; None for the empty text: there is none. NOT_READ where it is no
    reply that is known here."""
    try:
        text = _text(reply)
    except msgspec.MsgspecError:
        return NOT_READ
    return _BY_TEXT.get(text, NOT_READ) if text else None
