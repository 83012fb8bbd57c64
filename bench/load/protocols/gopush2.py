"""Devices of gopush2, over WebSocket or over its TCP protocol: each listens to one key, and goes on behind the last
message that it has."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.load import frames
from bench.load.dialect import Events, FanOut
from bench.load.frames import PeerError
from bench.load.http_bytes import Response, judged
from bench.load.protocols.base import DONE, PONG, Protocol, Received, Scenario, Step
from bench.load.samples import DATA_WRONG
from bench.load.transports import WEBSOCKET, Transport, delimited
from bench.load.wires import Wire, body_of

WS: Final = "ws"
TCP: Final = "tcp"
HEARTBEAT: Final = b"h"
_HEARTBEAT_BYTE: Final = HEARTBEAT[0]
_BULK_BYTE: Final = ord("$")
MOST_HEAD_BYTES: Final = 16
SILENCE_SECONDS: Final = 43_200
"""What devices ask for: they send heartbeats only if the bench is told to ping."""
REFUSED: Final = 500
"""The status of a push that was answered with 200 and another `ret` than 0."""


# ---- the TCP protocol: `$SIZE\r\n` and so many bytes, then `\r\n`; a heartbeat is a single byte


def _bulk_at(data: bytes, start: int) -> tuple[int, int]:
    """Where the message that begins here begins and ends; (0, 0) while it is not all there.

    Raises:
      PeerError: not a message.
    """
    line = data.find(b"\r\n", start, start + MOST_HEAD_BYTES)
    if line < 0:
        if len(data) - start >= MOST_HEAD_BYTES:
            raise PeerError("bad message")
        return 0, 0
    size = data[start + 1 : line]
    if data[start] != _BULK_BYTE or not size.isdigit():
        raise PeerError("bad message")
    begin, end = line + 2, line + 2 + int(size)
    if end + 2 > len(data):
        return 0, 0
    if data[end : end + 2] != b"\r\n":
        raise PeerError("bad message")
    return begin, end


def _bulk_end(data: bytes, start: int) -> int:
    if data[start] == _HEARTBEAT_BYTE:
        return start + 1
    _, end = _bulk_at(data, start)
    return end + 2 if end else 0


def _bulk_payload(message: bytes) -> bytes:
    return message if message == HEARTBEAT else message[message.find(b"\r\n") + 2 : -2]


BULK: Final = delimited("connect", None, _bulk_end, _bulk_payload, "closed")


# ---- devices


class Gopush2(Protocol):
    """Set up when the server's first heartbeat comes. A message's ID is the version of the push.

    Args:
      key: name of a channel: this, and its number.
      mode: `ws` or `tcp`.
    """

    steps = ("greeting",)

    def __init__(self, scenario: Scenario, *, key: str = "bench-", mode: str = WS) -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        if mode not in (WS, TCP):
            raise ValueError(f"no mode {mode!r}: one of {WS}, {TCP}")
        self._key = key
        self._tcp = mode == TCP
        self.transport: Transport = BULK if self._tcp else WEBSOCKET
        self.ping = HEARTBEAT if self._tcp else frames.client_frame(HEARTBEAT)

    def request(self, device: int) -> bytes:
        return self.resume(device, b"0")

    def resume(self, device: int, position: bytes) -> bytes:
        key = f"{self._key}{self.scenario.channel_of(device)}"
        if not self._tcp:
            path = f"/sub?key={key}&mid={position.decode()}&heartbeat={SILENCE_SECONDS}"
            return frames.upgrade_request(self.scenario.host, path, "")
        words = (b"sub", key.encode(), position, b"%d" % SILENCE_SECONDS)
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    def opened(self, device: int, identity: bytes) -> Step:
        return Step(b"", 0)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        if payload != HEARTBEAT:
            raise PeerError("a message before the greeting")
        return Step(b"", DONE)

    def received(self, device: int, payload: bytes) -> Received | None:
        if payload == HEARTBEAT:
            return PONG
        try:
            message = json.loads(payload)
            mid, text = message["mid"], message["msg"].encode()
        except (ValueError, LookupError, TypeError, AttributeError):
            raise PeerError("bad message") from None
        version, state = judged(text, self.scenario.payload)
        if mid != version:
            state = DATA_WRONG
        return Received(((self.scenario.channel_of(device), version, state),), position=b"%d" % version)


# ---- app servers


class Pub(Wire):
    """`POST /pub` of a message to one key, with the push's version as its ID."""

    method = b"POST"

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._between = f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: ".encode()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        body = body_of(version, payload)
        return b"POST %b&mid=%d%b%d\r\n\r\n%b" % (path, version, self._between, len(body), body)

    def response(self, data: bytes) -> Response | None:
        response = super().response(data)
        if response is None or response.status != 200:
            return response
        try:
            accepted = json.loads(data[data.find(b"\r\n\r\n") + 4 : response.size])["ret"] == 0
        except (ValueError, LookupError, TypeError):
            raise PeerError("an answer without ret") from None
        return response if accepted else response._replace(status=REFUSED)


class Gopush2FanOut(FanOut):
    """`POST`s to `/pub`, for devices of one key."""

    name = wire = "gopush2"
    title = "gopush2"
    set_up = "subscribe to one key; the server's first heartbeat"
    most_payload = "gopush2.max_message_bytes"
    modes = (WS, TCP)
    ports = MappingProxyType({TCP: "gopush2.tcp_port"})
    replays = True

    def settings(self, folder: Path, stored: int = 0) -> tuple[str, ...]:
        kept = (f"gopush2.max_stored_message={stored}",) if stored else ()
        return ("dialects.gopush2=true", "gopush2.auth=false", *kept)

    def events(self, prefix: str, apps: str = "") -> Events:
        return Events({"key": prefix}, f"/pub?key={prefix}{{channel}}")


PROTOCOL: Final = Gopush2
WIRES: Final = {"gopush2": Pub}
FAN_OUT: Final = Gopush2FanOut()
