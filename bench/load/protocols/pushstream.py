"""Subscribers of push stream in each of its ways: WebSocket, event stream, HTTP stream and long polling. Each listens
to one channel, and goes on behind the last message that it has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from bench.load import frames
from bench.load.dialect import Events, FanOut
from bench.load.frames import PeerError
from bench.load.http_bytes import judged, response_of
from bench.load.protocols.base import DONE, Protocol, Received, Scenario, Step
from bench.load.transports import WEBSOCKET, Transport
from bench.load.transports.answers import LONG_POLL
from bench.load.transports.chunks import EVENT_STREAM, STREAM, fields_of

WS: Final = "ws"
SSE: Final = "sse"
HTTP_STREAM: Final = "stream"
POLL: Final = "long-poll"
_WAYS: Final[dict[str, tuple[str, Transport]]] = {
    WS: ("/ws/", WEBSOCKET),
    SSE: ("/ev/", EVENT_STREAM),
    HTTP_STREAM: ("/sub/", STREAM),
    POLL: ("/lp/", LONG_POLL),
}
_MODIFIED: Final = re.compile(rb"\r\nlast-modified:[ \t]*([^\r]+)\r\n", re.IGNORECASE)
_ETAG: Final = re.compile(rb"\r\netag:[ \t]*([^\r]+)\r\n", re.IGNORECASE)
_AT_ONCE: Final = b"X-Nginx-PushStream-Mode: polling\r\n"
"""Asks for an answer that does not wait for a message."""
MOST_KNOWN: Final = 64


class PushStream(Protocol):
    """Set up when the server has accepted the request; a long poll when it has answered one that does not wait.

    Args:
      channel: name of a channel: this, and its number.
      mode: `ws`, `sse`, `stream` or `long-poll`.
    """

    steps = ("poll",)

    def __init__(self, scenario: Scenario, *, channel: str = "bench-", mode: str = WS) -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        if mode not in _WAYS:
            raise ValueError(f"no mode {mode!r}: one of {', '.join(_WAYS)}")
        self._channel = channel
        self._mode = mode
        self._path, self.transport = _WAYS[mode]
        self._known: dict[tuple[int, bytes], Received] = {}  # many subscribers get the same answer

    def request(self, device: int) -> bytes:
        return self._request(device, _AT_ONCE if self._mode == POLL else b"")

    def resume(self, device: int, position: bytes) -> bytes:
        return self._request(device, position)

    def _request(self, device: int, position: bytes) -> bytes:
        """`position`: what the path ends with, or lines of the head."""
        path = f"{self._path}{self._name(device)}"
        if self._mode == WS:
            return frames.upgrade_request(self.scenario.host, path + position.decode(), "")
        if self._mode == HTTP_STREAM:
            path, position = path + position.decode(), b""
        return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path.encode(), self.scenario.host.encode(), position)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        response = response_of(payload)
        if response is None or response.status not in (200, 304):
            raise PeerError(f"HTTP {response.status if response else 0}")
        return Step(b"", DONE, again=True)

    def received(self, device: int, payload: bytes) -> Received | None:
        if self._mode == POLL:
            known = self._known.get((channel := self.scenario.channel_of(device), payload))
            if known is None:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                known = self._known[channel, payload] = self._polled(device, payload)
            return known
        text, place = fields_of(payload) if self._mode == SSE else (payload, b"")
        if not text.strip():
            return None
        updates, strays, message = self._updates(device, text)
        if not updates:
            return Received(strays=strays) if strays else None
        position = b"Last-Event-Id: %b\r\n" % place if self._mode == SSE else _behind(message)
        return Received(updates, strays=strays, position=position)

    def _polled(self, device: int, answer: bytes) -> Received:
        """An answer to a poll; the next poll goes on where it ends."""
        response = response_of(answer)
        if response is None or response.status not in (200, 304):
            raise PeerError(f"HTTP {response.status if response else 0}")
        end = answer.find(b"\r\n\r\n")
        modified, etag = (pattern.search(answer, 0, end + 2) for pattern in (_MODIFIED, _ETAG))
        position = b""
        if modified and etag:
            position = b"If-Modified-Since: %b\r\nIf-None-Match: %b\r\n" % (modified[1], etag[1])
        updates, strays, _ = self._updates(device, answer[end + 4 :])
        return Received(updates, self._request(device, position), strays, position=position)

    def _updates(self, device: int, text: bytes) -> tuple[tuple[tuple[int, int, int], ...], int, dict[str, Any]]:
        """The updates in a text, how many were for another channel, and the last message."""
        updates: list[tuple[int, int, int]] = []
        strays = 0
        message: dict[str, Any] = {}
        for message in _messages(text):
            try:
                if message["id"] < 0:  # a ping, say
                    continue
                channel, data = message["channel"], message["text"].encode()
            except (LookupError, TypeError, AttributeError):
                raise PeerError("bad message") from None
            if channel != self._name(device):
                strays += 1
                continue
            updates.append((self.scenario.channel_of(device), *judged(data, self.scenario.payload)))
        return tuple(updates), strays, message

    def _name(self, device: int) -> str:
        return f"{self._channel}{self.scenario.channel_of(device)}"


def _messages(text: bytes) -> Iterator[dict[str, Any]]:
    """JSON objects one behind the other.

    Raises:
      PeerError: something else.
    """
    decoder = json.JSONDecoder()
    try:
        rest = text.decode().strip()
        while rest:
            message, end = decoder.raw_decode(rest)
            if not isinstance(message, dict):
                raise PeerError("not a JSON object")
            yield message
            rest = rest[end:].lstrip()
    except ValueError:
        raise PeerError("not JSON") from None


def _behind(message: dict[str, Any]) -> bytes:
    """The position behind a message, as arguments of a path."""
    return f"?tag={message.get('tag', '')}&time={quote(str(message.get('time', '')))}&eventid=".encode()


class PushStreamFanOut(FanOut):
    """`POST`s to `/pub`, for subscribers of one channel."""

    name = "pushstream"
    title = "push stream"
    wire = "post"
    set_up = "subscribe to one channel"
    most_payload = "pushstream.max_message_bytes"
    modes = (WS, SSE, HTTP_STREAM, POLL)
    replays = True

    def settings(self, folder: Path, stored: int = 0) -> tuple[str, ...]:
        kept = (f"pushstream.max_messages_stored_per_channel={stored}",) if stored else ()
        return ("dialects.pushstream=true", *kept)

    def events(self, prefix: str, apps: str = "") -> Events:
        return Events({"channel": prefix}, f"/pub?id={prefix}{{channel}}")


PROTOCOL: Final = PushStream
FAN_OUT: Final = PushStreamFanOut()
