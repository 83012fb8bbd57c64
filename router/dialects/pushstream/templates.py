"""Templates: what subscribers are sent of a message. Pure.

`~text~` and the other words are put in as they are where the template does not quote them. Where they stand in a text
in double quotes they are escaped as JSON wants it, and between two single quotes as a script in a page wants it. The
module puts in everything as it is, so that a quote in a message breaks the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from router.common.position import LogEvent
from router.dialects.pushstream.positions import http_time
from router.dialects.pushstream.protocol import HEADER_ID, HEADER_TYPE

_encode = msgspec.json.Encoder().encode
_WORD: Final = re.compile("~(id|channel|text|tag|time|event-id|event-type|size)~")


class Message(NamedTuple):
    """What a template shows."""

    id: int
    channel: str
    text: str
    time: int = 0
    """Unix seconds."""
    tag: int = 0
    event_id: str = ""
    event_type: str = ""


def message_of(channel: str, event: LogEvent) -> Message:
    """The message that an event of a channel's log is."""
    headers = event.headers
    own = headers.get(HEADER_ID) if headers else None
    number = event.offset if own is None else int(own)
    return Message(number, channel, event.body, event.time, event.tag, event.id, headers.get(HEADER_TYPE, ""))


_FIELDS: Final[dict[str, Callable[[Message], bytes]]] = {
    "id": lambda message: b"%d" % message.id,
    "channel": lambda message: message.channel.encode(),
    "text": lambda message: message.text.encode(),
    "tag": lambda message: b"%d" % message.tag,
    "time": lambda message: http_time(message.time).encode() if message.time else b"",
    "event-id": lambda message: message.event_id.encode(),
    "event-type": lambda message: message.event_type.encode(),
    "size": lambda message: b"%d" % len(message.text.encode()),
}
_TEXTS: Final[dict[str, Callable[[Message], str]]] = {
    "channel": lambda message: message.channel,
    "text": lambda message: message.text,
    "event-id": lambda message: message.event_id,
    "event-type": lambda message: message.event_type,
}
"""What may hold anything: the others need no escape."""


class Template:
    """A template that was taken apart."""

    __slots__ = ("_end", "_parts")

    def __init__(self, text: str) -> None:
        parts: list[tuple[bytes, Callable[[Message], bytes]]] = []
        at = 0
        quoted = False
        for word in _WORD.finditer(text):
            literal = text[at : word.start()]
            quoted ^= _quotes(literal)
            parts.append((literal.encode(), _part(word, quoted)))
            at = word.end()
        self._parts = tuple(parts)
        self._end = text[at:].encode()

    def fill(self, message: Message) -> bytes:
        """The bytes, in UTF-8."""
        filled: list[bytes] = []
        for literal, part in self._parts:
            filled += (literal, part(message))
        filled.append(self._end)
        return b"".join(filled)


def _quotes(literal: str) -> bool:
    """Whether a text in double quotes begins or ends here."""
    return len(re.findall(r'(?<!\\)(?:\\\\)*"', literal)) % 2 == 1


def _part(word: re.Match[str], quoted: bool) -> Callable[[Message], bytes]:
    get = _TEXTS.get(word[1])
    if get is not None and quoted:
        return lambda message: _encode(get(message))[1:-1]
    around = word.string[max(word.start() - 1, 0) : word.start()] + word.string[word.end() : word.end() + 1]
    if get is not None and around == "''":
        return lambda message: _encode(get(message))[1:-1].replace(b"'", rb"\u0027").replace(b"<", rb"\u003c")
    return _FIELDS[word[1]]
