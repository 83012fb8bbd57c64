"""Devices of other servers: upgrade (perhaps at a path of their own), perhaps subscribe, then receive messages that
are a version number, or begin with one. Nothing is acknowledged."""

import re
from collections.abc import Mapping
from typing import Final

from bench.load import frames
from bench.load.http_bytes import Response, judged, response_of
from bench.load.protocols.base import DONE, PONG, Protocol, Received, Scenario, Step
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG
from bench.load.wires import Wire, body_of

INDEX: Final = "{index}"
CHANNEL: Final = "{channel}"
_DIGITS: Final = re.compile(rb"\d+")


class Subscribe(Protocol):
    """One channel a device; every text may have the device's number in it as `{index}`, and its channel's as
    `{channel}`.

    Args:
      path: of the upgrade; by default the one of all.
      subprotocol: that the upgrade offers; empty: none.
      first: what the device sends once it is upgraded; empty: nothing.
      answer: it is set up when a message comes that contains this; empty: when it is upgraded and `first` is sent.
      after: the version begins after the first occurrence of this in a message; empty: at its start. A message
        without it is no update.
      endpoint: where to push to the device, reported as a device's push endpoint.
      binary: send binary frames, not text.
      replies: what to send when exactly such a message comes (`PING` to `PONG`, say).
      ping: its own ping, as a message, and `pong`: the message that answers it; by default WebSocket's.
    """

    steps = ("subscribe",)

    def __init__(
        self,
        scenario: Scenario,
        *,
        path: str = "",
        subprotocol: str = "",
        first: str = "",
        answer: str = "",
        after: str = "",
        endpoint: str = "",
        binary: bool = False,
        replies: Mapping[str, str] | None = None,
        ping: str = "",
        pong: str = "",
    ) -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        self._path = path or scenario.path
        self._subprotocol = subprotocol
        self._first = first
        self._answer = answer.encode()
        self._after = after.encode()
        self._endpoint = endpoint
        self._opcode = frames.BINARY if binary else frames.TEXT
        self._replies = {
            message.encode(): frames.client_frame(reply.encode(), self._opcode)
            for message, reply in (replies or {}).items()
        }
        self._pong = pong.encode()
        if ping:
            self.ping = frames.client_frame(ping.encode(), self._opcode)
        same = INDEX not in self._path and CHANNEL not in self._path
        self._request = frames.upgrade_request(scenario.host, self._path, subprotocol) if same else None

    def request(self, device: int) -> bytes:
        if self._request is not None:
            return self._request
        return frames.upgrade_request(self.scenario.host, self._filled(self._path, device), self._subprotocol)

    def opened(self, device: int, identity: bytes) -> Step:
        send = frames.client_frame(self._filled(self._first, device).encode(), self._opcode) if self._first else b""
        return Step(send, 0) if self._answer else self._done(device, send)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        if self._answer in payload:
            return self._done(device, b"")
        reply = self._replies.get(payload)
        return None if reply is None else Step(reply, step)

    def _done(self, device: int, send: bytes) -> Step:
        return Step(send, DONE, self.scenario.channel_of(device), self._filled(self._endpoint, device).encode())

    def _filled(self, text: str, device: int) -> str:
        return text.replace(INDEX, str(device)).replace(CHANNEL, str(self.scenario.channel_of(device)))

    def received(self, device: int, payload: bytes) -> Received | None:
        if self._pong and payload == self._pong:
            return PONG
        reply = self._replies.get(payload)
        if reply is not None:
            return Received(reply=reply)
        start = 0
        if self._after:
            start = payload.find(self._after) + len(self._after)
            if start < len(self._after):
                return None
        version = _DIGITS.match(payload, start)
        if version is None:
            return None
        size = self.scenario.payload
        data = DATA_RIGHT
        if size and self.scenario.shared:  # only such pushes repeat their version, so that all of it can be checked
            _, data = judged(payload[start:], size)
        elif size:
            carried = len(payload) - start
            data = DATA_RIGHT if carried >= size else DATA_WRONG if carried > len(version[0]) else DATA_MISSING
        return Received(((self.scenario.channel_of(device), int(version[0]), data),))


class Plain(Wire):
    """An HTTP endpoint that takes the version as the body (with a payload, as `payload_of` has it), and answers 200 (or
    201) once it wrote to the device."""

    method = b"PUT"

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._between = f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: ".encode()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        body = body_of(version, payload)
        return b"%b %b%b%d\r\n\r\n%b" % (self.method, path, self._between, len(body), body)

    def response(self, data: bytes) -> Response | None:
        response = response_of(data)
        return response._replace(status=200) if response is not None and response.status == 201 else response


class Post(Plain):
    """The same with `POST`: nchan, which answers 201 where a subscriber was there, 202 where none was."""

    method = b"POST"


PROTOCOL: Final = Subscribe
WIRES: Final = {"put": Plain, "post": Post}
