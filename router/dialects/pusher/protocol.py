"""Pusher Channels (protocol 7), what both sides share: settings, the kinds of channels, events, and how the last event
of a cache channel is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from router.common import messages as m
from router.common.answers import Answer, CloseCode, Table
from router.common.auth_settings import auth_url_option
from router.common.option_texts import path_or_none
from router.common.options import Section, option

NAME = "pusher"
SERVER_TO_USER = "#server-to-user-"
"""Prefix of the channel that only one signed-in user receives."""


@dataclass(frozen=True)
class PusherOptions(Section):
    SECTION: ClassVar[str] = "pusher"
    HELP: ClassVar[str] = "The Pusher dialect: pusher-js, laravel-echo, and the server libraries of Pusher Channels."

    apps: str = option(
        "",
        "JSON file of the applications, with their keys and secrets; empty: there are none",
        expects="the path of a file",
        check=path_or_none,
    )
    unsigned: bool = option(
        False,
        "take requests of app servers without a signature, as MicroNotifier does: whatever reaches the router port may "
        "publish to every application, list its channels and close its users' connections",
    )
    one_port: bool = option(
        False,
        "app servers may come to the device port too, as with MicroNotifier: a connection that begins with POST, PUT, "
        "DELETE or OPTIONS, or with GET or HEAD of /apps or /metrics, is passed to the router; whatever reaches the "
        "device port then reaches all that the router port serves, and may ask for the names of the applications",
    )
    timestamp_window: int = option(600, "how far the auth_timestamp of a request may be from our clock", unit="s", ge=1)
    activity_timeout: int = option(
        120, "silence after which a device and the farm look whether the other is there", unit="s", ge=1
    )
    pong_timeout: int = option(
        30, "how much longer a silent device may take to answer before it is closed (4201)", unit="s", ge=1
    )
    authorization_timeout: int = option(
        30,
        "where the application wants authorized connections: time to sign in or to subscribe to a private channel",
        unit="s",
        ge=1,
    )
    max_channels_a_connection: int = option(100, "channels one device may be subscribed to", unit="channels", ge=1)
    max_channel_name: int = option(200, "name of a channel, with its prefix", unit="characters", ge=1, le=512)
    max_event_name: int = option(200, "name of an event", unit="characters", ge=1)
    max_data_bytes: int = option(10_240, "data of one event", unit="bytes", ge=0)
    max_channels_an_event: int = option(100, "channels one event may go to", unit="channels", ge=1)
    max_batch: int = option(10, "events in one batch_events request", unit="events", ge=1)
    max_members: int = option(100, "users in one presence channel", unit="users", ge=1)
    max_user_id: int = option(128, "id of a user", unit="characters", ge=1, le=m.MAX_USER_ID)
    max_user_info_bytes: int = option(1024, "user_info of a user, as JSON", unit="bytes", ge=2)
    max_watchlist: int = option(
        100, "users whose coming and going one signed-in user may watch", unit="users", ge=0, le=100
    )
    client_events_a_second: int = option(10, "client events of one device", unit="events", ge=0)
    cache_ttl: int = option(1800, "how long a cache channel keeps its last event", unit="s", ge=1)
    subscription_count_many: int = option(
        100, "subscribers beyond which a channel's count is sent no more often than subscription_count_interval", ge=0
    )
    subscription_count_interval: float = option(
        5.0, "time between two counts of a channel with many subscribers", unit="s", ge=0.1
    )
    subscription_count_queue: int = option(
        20_000,
        "channels whose count was sent in that time, or soon is; for more, the one sent longest ago is forgotten, and "
        "a count of it that waits is sent at once",
        unit="channels",
        ge=1,
    )
    webhook_hold: float = option(
        3.0, "how long channel_vacated and member_removed wait for subscribers to be back", unit="s", ge=0
    )
    webhook_retry: int = option(300, "how long a webhook is tried again when its server fails", unit="s", ge=0)
    webhook_timeout: float = option(10.0, "how long a webhook's server may take to answer", unit="s", ge=0.1)
    webhook_batch: int = option(50, "events in one webhook request", unit="events", ge=1)
    webhook_queue: int = option(
        10_000, "events that may wait for one webhook; beyond, new ones are dropped", unit="events", ge=1
    )
    webhook_parallel: int = option(20, "webhook requests under way at once", unit="requests", ge=1)
    auth_url: str = auth_url_option()


# ---------------------------------------------------------------------- channels and events

_CHANNEL: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]+")
_CACHED: Final = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
_SOCKET_ID: Final = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")
_encode = msgspec.json.Encoder().encode


def is_channel_name(name: str, most: int) -> bool:
    """Whether a channel may have this name; never one that begins with SERVER_TO_USER."""
    return len(name) <= most and _CHANNEL.fullmatch(name) is not None


def is_socket_id(text: str) -> bool:
    """Whether this may be a socket ID."""
    return _SOCKET_ID.fullmatch(text) is not None


def is_private(name: str) -> bool:
    """Whether a subscription needs a signature; true of encrypted channels too, not of presence channels."""
    return name.startswith("private-")


def is_presence(name: str) -> bool:
    """Whether the channel has members."""
    return name.startswith("presence-")


def is_encrypted(name: str) -> bool:
    """Whether only app servers and devices can read the events."""
    return name.startswith("private-encrypted-")


def is_cache(name: str) -> bool:
    """Whether the channel keeps its last event for later subscribers."""
    return name.startswith(_CACHED)


def channel_address(app: str, name: str) -> bytes:
    """The address of an application's channel."""
    return m.channel_key(NAME, app, name)


def label(app: str, name: str) -> str:
    """The label of a channel in SUBSCRIBE: the HTTP API lists channels by it."""
    return m.channel_label(NAME, app, name)


_NUMERIC: Final = "#"  # begins no JSON


def member_info(user_info: str, numeric: bool) -> str:
    """What presence keeps beside a user's ID: user_info as JSON or "", and whether the ID was given as a number."""
    return _NUMERIC + user_info if numeric else user_info


def shown_member(user: str, info: str) -> tuple[bytes, bytes]:
    """A member's ID as JSON, a number if it was given as one, and user_info as JSON or b""."""
    if info.startswith(_NUMERIC):
        return user.encode(), info[1:].encode()
    return _encode(user), info.encode()


CACHE_MISS: Final = "cache_miss"
"""HAPPENED: a device has subscribed to a cache channel that holds no event. Its detail is ""."""


def event_frame(event: str, channel: str, data: str) -> str:
    """The text message by which subscribers receive an app server's event."""
    return event_start(event) + _encode(channel).decode() + event_end(data)


def event_start(event: str) -> str:
    """The part of that message before the channel."""
    return f'{{"event":{_encode(event).decode()},"channel":'


def event_end(data: str) -> str:
    """The part of that message after the channel."""
    return f',"data":{_encode(data).decode()}}}'


# ---------------------------------------------------------------------- what refuses

_NEVER: Final = "Does not come back."
_WRONG: Final = "Does not send it again: the request is wrong."
_LATER: Final = "Sends it again after Retry-After."
_UNREAD: Final = "commands_refused"

NO_APP: Final = CloseCode(4001, "Could not find app by key", _NEVER)
DISABLED: Final = CloseCode(4003, "The app is not enabled", _NEVER)
OVER_QUOTA: Final = CloseCode(4004, "The app is over its connection quota", _NEVER)
NO_PATH: Final = CloseCode(4005, "Path not found: /app/KEY is expected", _NEVER)
BAD_VERSION: Final = CloseCode(4006, "Invalid version string format", _NEVER)
OTHER_VERSION: Final = CloseCode(4007, "Unsupported protocol version", _NEVER)
NO_VERSION: Final = CloseCode(4008, "No protocol version was supplied", _NEVER)
UNAUTHORIZED: Final = CloseCode(4009, "Connection not authorized in time", _NEVER, "timeouts")
DENIED: Final = CloseCode(4009, "The main server does not allow this any more", _NEVER, "grants_ended")
TERMINATED: Final = CloseCode(4009, "You were disconnected by the application", _NEVER)
TRY_AGAIN: Final = CloseCode(4100, "the server cannot do it now", "Comes back after a second.")
LEAVING: Final = CloseCode(4100, "the server goes away: connect again", "Comes back after a second.")
NO_PONG: Final = CloseCode(4201, "Pong reply not received in time", "Comes back at once.", "timeouts")
CLOSES: Final = Table(
    "Close codes",
    (
        NO_APP,
        DISABLED,
        OVER_QUOTA,
        NO_PATH,
        BAD_VERSION,
        OTHER_VERSION,
        NO_VERSION,
        UNAUTHORIZED,
        DENIED,
        TERMINATED,
        TRY_AGAIN,
        LEAVING,
        NO_PONG,
    ),
    "worker",
)

REJECTED: Final = Answer(0, "The client event is not allowed", "Tells the page.", _UNREAD, 4301)
TRUNCATED: Final = Answer(0, "The watchlist is cut", "Tells the page: pusher.max_watchlist.", "", 4302)
NOT_SIGNED_IN: Final = Answer(0, "The sign-in is not allowed", "Tells the page.", _UNREAD, 4009)
NOT_UNDERSTOOD: Final = Answer(0, "The command is unknown or malformed", "Tells the page.", _UNREAD)
EVENTS: Final = Table(
    "Codes of `pusher:error` that close nothing", (REJECTED, TRUNCATED, NOT_SIGNED_IN, NOT_UNDERSTOOD), "worker"
)

INVALID_CHANNEL: Final = Answer(400, "InvalidChannel", "Tells the page.", _UNREAD)
INVALID_DATA: Final = Answer(400, "InvalidData", "Tells the page.", _UNREAD)
AUTH_ERROR: Final = Answer(401, "AuthError", "Tells the page.", _UNREAD)
LIMIT_REACHED: Final = Answer(403, "LimitReached", "Tells the page.", _UNREAD)
INFO_TOO_LONG: Final = Answer(413, "LimitReached", "Tells the page: pusher.max_user_info_bytes.", _UNREAD)
SUBSCRIPTIONS: Final = Table(
    "Types of `pusher:subscription_error`",
    (INVALID_CHANNEL, INVALID_DATA, AUTH_ERROR, LIMIT_REACHED, INFO_TOO_LONG),
    "worker",
)

BAD_REQUEST: Final = Answer(400, "What is wrong with the request", _WRONG, "pushes_invalid")
UNSIGNED: Final = Answer(401, "What is wrong with the signature", "Looks at key, secret and clock.", "pushes_rejected")
APP_DISABLED: Final = Answer(403, "The application is disabled", _WRONG)
OVER_STORE: Final = Answer(
    403,
    "The application has too much in the store (limits.store_bytes_per_application)",
    "Sends less to cache channels, or waits until earlier events have expired.",
    "limited_store_bytes_per_application",
)
NO_ROUTE: Final = Answer(404, "There is no such path", _WRONG)
APP_UNKNOWN: Final = Answer(404, "There is no such application", _WRONG)
BAD_METHOD: Final = Answer(405, "This path takes another method", _WRONG)
TOO_LONG: Final = Answer(413, "The data content of this event exceeds the allowed maximum", _WRONG, "pushes_too_long")
FROM_ADDRESS: Final = Answer(429, "Too many events from this address", _LATER, "limited_pushes_per_address")
OF_APP: Final = Answer(429, "Too many events of this application", _LATER, "limited_pushes_per_application")
TO_CHANNEL: Final = Answer(429, "Too many events for this channel", _LATER, "limited_pushes_per_endpoint")
FAILED: Final = Answer(500, "Internal Server Error", "Sends it again; the router's log has a trace.")
NO_ROOM: Final = Answer(503, "The store is full, or too much waits for it", _LATER, "pushes_refused")
NOT_KEPT: Final = Answer(503, "The event was sent, but the store could not keep it", _LATER)
NOT_READ: Final = Answer(503, "The store could not read it", _LATER)
APP_SERVERS: Final = Table(
    "Errors of app servers' requests",
    (
        BAD_REQUEST,
        UNSIGNED,
        APP_DISABLED,
        OVER_STORE,
        NO_ROUTE,
        APP_UNKNOWN,
        BAD_METHOD,
        TOO_LONG,
        FROM_ADDRESS,
        OF_APP,
        TO_CHANNEL,
        FAILED,
        NO_ROOM,
        NOT_KEPT,
        NOT_READ,
    ),
    "router",
)
TABLES: Final = (CLOSES, EVENTS, SUBSCRIPTIONS, APP_SERVERS)
