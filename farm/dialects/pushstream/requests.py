"""What a subscriber's request asks for: how it wants messages, of which channels, and from where on. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote

from farm.transports.request import Request
from router.common.position import AfterTime, Position
from router.dialects.pushstream.channels import Wanted, subscriber_path
from router.dialects.pushstream.positions import position
from router.dialects.pushstream.protocol import (
    BAD_CALLBACK,
    CALLBACK_ARGUMENT,
    CHANNELS_ARGUMENT,
    EVENT_ID_ARGUMENT,
    MODE,
    NO_UPGRADE,
    NOT_GRANTED,
    OTHER_VERSION,
    TAG_ARGUMENT,
    TIME_ARGUMENT,
    PushStreamOptions,
    Refused,
)

WEBSOCKET_MODE: Final = "websocket"
EVENT_SOURCE: Final = "eventsource"
STREAM: Final = "streaming"
LONG_POLL: Final = "long-polling"
POLL: Final = "polling"
POLLING_MODES: Final = (LONG_POLL, POLL)

PREFIXES: Final = {
    "/ws": WEBSOCKET_MODE,
    "/subscribe": WEBSOCKET_MODE,
    "/ev": EVENT_SOURCE,
    "/lp": LONG_POLL,
    "/sub": STREAM,
}
# Channels may be in the query alone; but `/sub` without them is another protocol's.
PATHS: Final = (
    *(f"{prefix}/**" for prefix in PREFIXES),
    "/ws",
    "/subscribe",
    "/ev",
    "/lp",
    f"/sub?{CHANNELS_ARGUMENT}",
)

_MODE_HEADER: Final = MODE.lower().encode()
_VERSION: Final = b"sec-websocket-version"
_UPGRADE: Final = (b"upgrade", b"connection", b"sec-websocket-key", _VERSION)
_CALLBACK: Final = re.compile(r"[A-Za-z_$][\w$]{0,99}(?:\.[A-Za-z_$][\w$]{0,99}|\[\d{1,9}\]){0,9}", re.ASCII)
_NO_ARGUMENTS: Final[dict[str, str]] = {}
_MAX_ARGUMENTS: Final = 100


class Asked(NamedTuple):
    """What a request asks for."""

    channels: list[Wanted]
    positions: list[Position]
    """Where each of them begins."""


def mode_of(request: Request) -> str:
    """How a client wants messages: the path says it, and for what is no WebSocket perhaps a header."""
    mode = PREFIXES["/" + request.path.split("/", 2)[1]]
    if mode != WEBSOCKET_MODE:
        wanted = request.headers.get(_MODE_HEADER)
        if wanted is not None and (name := wanted.decode("latin-1").lower()) in POLLING_MODES:
            return name
    return mode


def arguments(query: str) -> dict[str, str]:
    """The arguments of a query; the first of each name counts."""
    if not query:
        return _NO_ARGUMENTS
    try:
        return {name: values[0] for name, values in parse_qs(query, max_num_fields=_MAX_ARGUMENTS).items()}
    except ValueError:
        return _NO_ARGUMENTS


def callback_of(request: Request) -> str:
    """The function of a page that is to be called with the answer (JSONP); "" for none.

    Raises: Refused if it cannot be the name of one.
    """
    name = arguments(request.query).get(CALLBACK_ARGUMENT, "")
    if name and not _CALLBACK.fullmatch(name):
        raise Refused(BAD_CALLBACK)
    return name


def check_upgrade(request: Request) -> None:
    """What the module wants of an upgrade to WebSocket; its transport looks at the rest. Raises: Refused."""
    headers = request.headers
    if not all(name in headers for name in _UPGRADE):
        raise Refused(NO_UPGRADE)
    version = headers[_VERSION]
    if version == b"8":
        headers[_VERSION] = b"13"  # which has the same frames
    elif version != b"13":
        raise Refused(OTHER_VERSION)


def asked(request: Request, options: PushStreamOptions) -> Asked:
    """Of the channels that the main server grants only those that it asks for, if there are any. Raises: Refused."""
    given = arguments(request.query)
    granted = None if request.grant is None else request.grant.channels
    channels = named(request, options) if granted is None else _granted(request, options, granted)
    returned = _header(request, b"last-event-id")
    place = position(None, "", "", returned)
    if type(place) is AfterTime:
        # A browser comes again by itself, with the same path: a backtrack in that has been sent already.
        return Asked(channels, [place] * len(channels))
    time = given.get(TIME_ARGUMENT) or _header(request, b"if-modified-since")
    tag = given.get(TAG_ARGUMENT) or _header(request, b"if-none-match")
    event_id = given.get(EVENT_ID_ARGUMENT) or returned
    return Asked(channels, [position(wanted.backtrack, time, tag, event_id) for wanted in channels])


def named(request: Request, options: PushStreamOptions) -> list[Wanted]:
    """The channels that a request names. Raises: Refused."""
    return subscriber_path(_channel_path(request.path, request.query), options)


def redirected(target: str) -> list[str]:
    """The channels in a target that nginx would be told by X-Accel-Redirect, as they stand there. The argument counts
    more than the path, which may be that of any location."""
    path, _, query = target.partition("?")
    names = arguments(query).get(CHANNELS_ARGUMENT) or _channel_path(path, "")
    return [name for name in names.split("/") if name]


def granted_names(granted: Sequence[str], options: PushStreamOptions) -> set[str]:
    """The names of the channels that the main server grants. Raises: Refused."""
    return {wanted.name for wanted in subscriber_path("/".join(granted), options)}


def _channel_path(path: str, query: str) -> str:
    _, _, rest = path[1:].partition("/")
    return unquote(rest).strip("/") or arguments(query).get(CHANNELS_ARGUMENT, "")


def _granted(request: Request, options: PushStreamOptions, granted: Sequence[str]) -> list[Wanted]:
    if not any(granted):
        raise Refused(NOT_GRANTED)
    found = {wanted.name: wanted for wanted in subscriber_path("/".join(granted), options)}
    if not _channel_path(request.path, request.query):
        return list(found.values())
    both = [wanted for wanted in named(request, options) if wanted.name in found]
    return both or list(found.values())


def _header(request: Request, name: bytes) -> str:
    value = request.headers.get(name)
    # Browsers send an event's ID as UTF-8.
    return "" if value is None else value.decode("utf-8", "replace")
