"""Subscribers of other servers by an event stream, as a browser's EventSource is one: each listens to one channel, and
goes on behind the last event that it has."""

from typing import Final

from bench.load.http_bytes import judged
from bench.load.protocols.base import Protocol, Received, Scenario
from bench.load.transports.chunks import BARE_EVENT_STREAM, EVENT_STREAM, fields_of

CHANNEL: Final = "{channel}"


class EventSource(Protocol):
    """Set up when its request is accepted.

    Args:
      path: of the stream; `{channel}` stands for the channel's number.
      chunked: whether the server sends its body in chunks.
    """

    def __init__(self, scenario: Scenario, *, path: str = "/" + CHANNEL, chunked: bool = True) -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        self._path = path
        self.transport = EVENT_STREAM if chunked else BARE_EVENT_STREAM

    def request(self, device: int) -> bytes:
        return self.resume(device, b"")

    def resume(self, device: int, position: bytes) -> bytes:
        path = self._path.replace(CHANNEL, str(self.scenario.channel_of(device)))
        last = f"Last-Event-ID: {position.decode()}\r\n" if position else ""
        host = self.scenario.host
        return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{last}\r\n".encode()

    def received(self, device: int, payload: bytes) -> Received | None:
        data, identity = fields_of(payload)
        if not data:
            return None
        version, state = judged(data, self.scenario.payload)
        return Received(((self.scenario.channel_of(device), version, state),), position=identity)


PROTOCOL: Final = EventSource
