"""Channel paths: which channels a request names, and how many stored messages it wants of each. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from router.dialects.pushstream.protocol import (
    BAD_ID,
    LONG_ID,
    NO_CHANNEL,
    NO_EVENTS,
    NOT_AUTHORIZED,
    TOO_MANY_IDS,
    TOO_MANY_WILDCARDS,
    PushStreamOptions,
    Refused,
)

ALL: Final = "ALL"
"""As the id of a channel: every one, in statistics."""
MAX_BACKTRACK: Final = 2**31 - 1

_BACKTRACK: Final = re.compile(r"(.+)\.b([0-9]+)", re.DOTALL)
# U+FFFD is what decoding has put for bytes that are not UTF-8: two such ids would be one.
_BAD: Final = re.compile(r"[\x00-\x1f\x7f\ufffd]")


class Wanted(NamedTuple):
    """A channel of a path."""

    name: str
    backtrack: int | None = None
    """How many of the newest stored messages are wanted; None: it does not say."""


def subscriber_path(path: str, options: PushStreamOptions) -> list[Wanted]:
    """The channels that a subscriber wants, each once. path: `a.b3/c`, percent-decoded, with slashes around it or not.

    Raises: Refused.
    """
    found: dict[str, int | None] = {}
    for part in path.split("/"):
        if not part:
            continue
        match = _BACKTRACK.fullmatch(part)
        name, backtrack = part, None
        if match is not None:
            name, backtrack = match[1], min(int(match[2][:10]), MAX_BACKTRACK)
        check_id(name, options)
        if name == options.events_channel_id and not options.allow_connections_to_events_channel:
            raise Refused(NO_EVENTS)
        before = found.get(name)
        found[name] = backtrack if before is None else max(before, backtrack or 0)
    _check_number(len(found), options.max_channels_a_connection)
    _check_wildcards(found, options)
    return [Wanted(name, backtrack) for name, backtrack in found.items()]


def publisher_path(path: str, options: PushStreamOptions) -> list[str]:
    """The channels that a publisher names, each once. path: `a/c`, percent-decoded, with slashes around it or not.

    Raises: Refused.
    """
    names = list(dict.fromkeys(part for part in path.split("/") if part))
    _check_number(len(names), options.max_channels_a_request)
    for name in names:
        check_id(name, options)
    return names


def check_id(name: str, options: PushStreamOptions) -> None:
    """Raises: Refused if no channel can be called so."""
    if len(name) > options.max_channel_id_length:
        raise Refused(LONG_ID)
    if name == ALL or "*" in name:
        raise Refused(NOT_AUTHORIZED)
    if _BAD.search(name):
        raise Refused(BAD_ID)


def is_wildcard(name: str, options: PushStreamOptions) -> bool:
    """Whether a channel is open to all."""
    prefix = options.wildcard_channel_prefix
    return bool(prefix) and name.startswith(prefix)


def _check_number(number: int, most: int) -> None:
    if not number:
        raise Refused(NO_CHANNEL)
    if number > most:
        raise Refused(TOO_MANY_IDS)


def _check_wildcards(names: Sequence[str] | dict[str, int | None], options: PushStreamOptions) -> None:
    wildcards = sum(is_wildcard(name, options) for name in names)
    most = options.wildcard_channel_max_qtd
    alone = wildcards == len(names) and (most or options.authorized_channels_only)
    if alone or 0 < most < wildcards:
        raise Refused(TOO_MANY_WILDCARDS)
