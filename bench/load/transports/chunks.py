"""Streams over HTTP: a 200 whose body has no end, and mostly comes in chunks (RFC 9112 section 7.1). Pure.

`STREAM` takes each chunk for a message, `EVENT_STREAM` each event of an event stream, however it is cut into chunks.
`BARE_EVENT_STREAM` is one of a server that does without chunks.
"""

import re
from dataclasses import replace
from typing import Final

from bench.load.frames import CLOSE, MAX_RESPONSE_HEAD_BYTES, TEXT, Message, PeerError
from bench.load.transports import as_it_is, delimited

MOST_SIZE_DIGITS: Final = 8
_NEW_LINE: Final = b"\r\n"
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\n\n")


def body_begin(data: bytes, chunked: bool) -> int:
    """Where the body of an accepted stream begins; 0 while the head is incomplete.

    Raises:
      PeerError: another answer than a 200, or in chunks where it should not be, or the other way round.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_RESPONSE_HEAD_BYTES:
            raise PeerError("response head without end")
        return 0
    if not data.startswith(b"HTTP/1.1 200"):
        raise PeerError(f"HTTP {data[9:12].decode('ascii', 'replace')}" if data.startswith(b"HTTP/") else "not HTTP")
    if (b"\r\ntransfer-encoding: chunked\r\n" in data[: end + 2].lower()) != chunked:
        raise PeerError("a stream without chunks" if chunked else "a stream in chunks")
    return end + 4


def chunk_at(data: bytes, start: int) -> tuple[int, int]:
    """Where the contents of the chunk that begins here begin and end; (0, 0) while it is not all there.

    Raises:
      PeerError: not a chunk.
    """
    line = data.find(_NEW_LINE, start, start + MOST_SIZE_DIGITS + 2)
    if line < 0:
        if len(data) - start >= MOST_SIZE_DIGITS + 2:
            raise PeerError("bad chunk")
        return 0, 0
    try:
        size = int(data[start:line], 16)
    except ValueError:
        raise PeerError("bad chunk") from None
    begin, end = line + 2, line + 2 + size
    if end + 2 > len(data):
        return 0, 0
    if data[end : end + 2] != _NEW_LINE:
        raise PeerError("bad chunk")
    return begin, end


def fields_of(event: bytes) -> tuple[bytes, bytes]:
    """The data of an event of an event stream, and its ID; of both what came last if there are several lines."""
    data = identity = b""
    for line in event.splitlines():
        name, _, value = line.partition(b": ")
        if name == b"data":
            data = value
        elif name == b"id":
            identity = value
    return data, identity


def _end(data: bytes, start: int) -> int:
    _, end = chunk_at(data, start)
    return end + 2 if end and data[start] != 0x30 else 0  # the last chunk is none, and no size begins with 0


def _event_end(data: bytes, start: int) -> int:
    begin, end = chunk_at(data, start)
    blank = _BLANK_LINE.search(data, begin, end)
    return end + 2 if blank is not None and blank.end() == end else 0  # one event in one chunk


def _payload(chunk: bytes) -> bytes:
    return chunk[chunk.find(_NEW_LINE) + 2 : -2]


def _split(data: bytes, parts: list[bytes]) -> tuple[list[Message], bytes]:
    found: list[Message] = []
    at = 0
    while at < len(data):
        begin, end = chunk_at(data, at)
        if not begin:
            break
        at = end + 2
        found.append(Message(TEXT if end > begin else CLOSE, data[begin:end]))
    return found, data[at:]


def _split_events(data: bytes, parts: list[bytes]) -> tuple[list[Message], bytes]:
    chunks, rest = _split(data, parts)
    found: list[Message] = []
    text = b"".join(parts)
    parts.clear()
    for chunk in chunks:
        if chunk.opcode == CLOSE:
            found.append(chunk)
            continue
        text += chunk.payload
        at = 0
        while (blank := _BLANK_LINE.search(text, at)) is not None:
            found.append(Message(TEXT, text[at : blank.end()]))
            at = blank.end()
        text = text[at:]
    if text:
        parts.append(text)
    return found, rest


def _bare_end(data: bytes, start: int) -> int:
    blank = _BLANK_LINE.search(data, start)
    return blank.end() if blank is not None else 0


def _begin(data: bytes) -> int:
    return body_begin(data, chunked=True)


def _bare_begin(data: bytes) -> int:
    return body_begin(data, chunked=False)


_ENDED: Final = "the stream ended"
_BROKEN_OFF: Final = "closed in the stream"
STREAM: Final = replace(
    delimited("request", _begin, _end, _payload, _BROKEN_OFF, _ENDED),
    split=_split,  # its last chunk is a close
)
EVENT_STREAM: Final = replace(
    delimited("request", _begin, _event_end, _payload, _BROKEN_OFF, _ENDED),
    split=_split_events,  # an event may be in several chunks
)
BARE_EVENT_STREAM: Final = delimited("request", _bare_begin, _bare_end, as_it_is, _BROKEN_OFF, _ENDED)
