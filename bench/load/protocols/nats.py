"""Devices of a NATS server's WebSocket listener: each subscribes to one subject, whose messages are version numbers, or
begin with one."""

import json
import socket
from typing import Final

from bench.load import frames
from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import Response, judged
from bench.load.protocols.base import DONE, Protocol, Received, Scenario, Step
from bench.load.wires import Wire, body_of

CONNECT: Final = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 0}
GREETING_SECONDS: Final = 10.0
GREETING_BYTES: Final = 4096
MOST_ANSWER_BYTES: Final = 65_536
_GREETING: Final = b"CONNECT %b\r\n" % json.dumps(CONNECT, separators=(",", ":")).encode()
_PONG: Final = client_frame(b"PONG\r\n", frames.BINARY)


class Nats(Protocol):
    """Upgrade, then CONNECT, SUB and PING in one frame, as the server allows; set up by its PONG. A frame of the server
    holds whole lines, often several.

    Args:
      subject: of a channel: this, and its number.
      endpoint: where to push to the channel, up to its number.
    """

    steps = ("subscribe",)
    ping = client_frame(b"PING\r\n", frames.BINARY)

    def __init__(self, scenario: Scenario, *, subject: str = "d.", endpoint: str = "") -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        self._subject = subject
        self._endpoint = endpoint
        self._connect = _GREETING.decode()
        self._request = frames.upgrade_request(scenario.host, scenario.path, "")

    def request(self, device: int) -> bytes:
        return self._request

    def opened(self, device: int, identity: bytes) -> Step:
        lines = f"{self._connect}SUB {self._subject}{self.scenario.channel_of(device)} 1\r\nPING\r\n"
        return Step(client_frame(lines.encode(), frames.BINARY), 0)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        _, pings, pongs = _lines(payload)
        if pongs:
            channel = self.scenario.channel_of(device)
            endpoint = f"{self._endpoint}{channel}".encode() if self._endpoint else b""
            return Step(_PONG * pings, DONE, channel, endpoint)
        return Step(_PONG * pings, step) if pings else None

    def received(self, device: int, payload: bytes) -> Received | None:
        messages, pings, pongs = _lines(payload)
        channel = self.scenario.channel_of(device)
        mine = f"{self._subject}{channel}".encode()
        size = self.scenario.payload
        updates = tuple((channel, *judged(carried, size)) for subject, carried in messages if subject == mine)
        return Received(updates, _PONG * pings, len(messages) - len(updates), pong=pongs > 0)


def _lines(payload: bytes) -> tuple[list[tuple[bytes, bytes]], int, int]:
    """The messages (subject, payload) in a payload, and how many PINGs and PONGs.

    Raises:
      PeerError: an error that the server reports, or bytes that are not whole lines of its protocol.
    """
    messages = []
    pings = pongs = 0
    at = 0
    while at < len(payload):
        end = payload.find(b"\r\n", at)
        if end < 0:
            raise PeerError("a line without end")
        line = payload[at:end]
        at = end + 2
        if line.startswith(b"MSG "):
            words = line.split()
            try:
                end = at + int(words[-1])
                messages.append((words[1], payload[at:end]))
            except (ValueError, IndexError):
                raise PeerError("bad message") from None
            if payload[end : end + 2] != b"\r\n":
                raise PeerError("bad message")
            at = end + 2
        elif line == b"PING":
            pings += 1
        elif line == b"PONG":
            pongs += 1
        elif line.startswith(b"-ERR"):
            raise PeerError(line.decode("ascii", "replace"))
        elif not line.startswith((b"INFO ", b"+OK")):
            raise PeerError("bad line")
    return messages, pings, pongs


class Publish(Wire):
    """NATS over TCP: `PUB`, and `PING` after it, whose `PONG` says that the server has taken the message: what client
    libraries call a flush. The path of a push is a slash and the subject."""

    def greet(self, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as sock:
            try:
                sock.settimeout(GREETING_SECONDS)
                info = b""
                while b"\r\n" not in info:
                    more = sock.recv(GREETING_BYTES)
                    if not more or len(info) > MOST_ANSWER_BYTES:
                        raise ConnectionResetError("no INFO")
                    info += more
                sock.sendall(_GREETING + b"PING\r\n")
                answer = b""
                while b"PONG\r\n" not in answer:
                    more = sock.recv(GREETING_BYTES)
                    if not more or len(answer) > MOST_ANSWER_BYTES:
                        raise ConnectionResetError("no PONG")
                    answer += more
                sock.setblocking(False)
            finally:
                sock.detach()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        body = body_of(version, payload)
        return b"PUB %b %d\r\n%b\r\nPING\r\n" % (path[1:], len(body), body)

    def response(self, data: bytes) -> Response | None:
        # the server's own PING may stand before it or behind it; two may go unanswered, and they are far apart
        if data.endswith(b"\r\n"):
            lines = data.split(b"\r\n")
            if (error := next((line for line in lines if line.startswith(b"-ERR")), None)) is not None:
                raise PeerError(error.decode("ascii", "replace"))
            if b"PONG" in lines:
                return Response(200, len(data), closes=False)
        if len(data) > MOST_ANSWER_BYTES:
            raise PeerError("answer without end")
        return None


PROTOCOL: Final = Nats
WIRES: Final = {"nats": Publish}
