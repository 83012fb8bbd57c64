"""The two sides of push stream for the end-to-end tests: publishers by curl; subscribers by curl, on websocket-client
and on http.client.
"""

from __future__ import annotations

import http.client
import json
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pytest
import websocket

from support.dialects import Close
from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, curl, until

ON: Final[Json] = {"dialects.pushstream": True}
CRASH: Final[Json] = {"link.lease": 2, "farm.restart_max": 0.1}
CLOSES: Final = [Close("ws/ALL", None, 1008), Close("subscribe/closes", None, 1001, on_reload=True)]


def new_channel() -> str:
    return f"channel-{uuid.uuid4().hex}"


def publish(farm: Farm, channel: str, text: str, **headers: str) -> Json:
    """Publish a message. headers: with _ for -. Returns: what the publisher is told of the channel."""
    more = [part for name, value in headers.items() for part in ("--header", f"{name.replace('_', '-')}: {value}")]
    answer = curl("--data-binary", "@-", *more, farm.url(f"/pub?id={quote(channel)}"), stdin=text.encode())
    assert answer.status == 200, answer
    found: Json = answer.json()
    return found


def device_url(farm: Farm, path: str) -> str:
    return f"http://127.0.0.1:{farm.device_port}/{path}"


class Gone(Exception):
    """The server has closed the WebSocket, with this code; 0: without one."""


class Socket:
    """A subscriber on websocket-client, which blocks."""

    def __init__(self, farm: Farm, path: str) -> None:
        # Its own check of UTF-8 is a step of Python for each byte; decoding checks as strictly.
        self.socket = websocket.create_connection(
            f"{farm.device_url}{path}", timeout=PATIENCE_S, skip_utf8_validation=True
        )

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown()

    def message(self) -> Json:
        """The next one. Raises: Gone."""
        opcode, payload = self.socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Gone(struct.unpack(">H", payload[:2])[0] if payload else 0)
        assert opcode == websocket.ABNF.OPCODE_TEXT
        found: Json = json.loads(payload.decode())
        return found

    def code(self) -> int:
        """Of the close, which must be what comes next."""
        with pytest.raises(Gone) as gone:
            print("instead of a close:", self.message())
        code: int = gone.value.args[0]
        return code


class Event(NamedTuple):
    """What a browser would dispatch."""

    id: str
    type: str
    data: str

    @property
    def message(self) -> Any:
        """The data, decoded."""
        return json.loads(self.data)


class Stream:
    """A subscriber on http.client, whose answer goes on."""

    def __init__(self, farm: Farm, path: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", farm.device_port, timeout=PATIENCE_S)
        self._connection.request("GET", f"/{path}", headers={k.replace("_", "-"): v for k, v in headers.items()})
        self.answer = self._connection.getresponse()
        self.last_id = ""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._connection.close()

    def line(self) -> str:
        """The next line of the body; "" at its end."""
        return self.answer.readline().decode()

    def message(self) -> Any:
        """The next message of a stream."""
        return json.loads(self.line())

    def event(self) -> Event:
        """The next event of an event source."""
        kind, data, last = "message", [], self.last_id
        while line := self.line():
            field, _, value = line.rstrip("\r\n").partition(": ")
            if field == "id":
                last = value
            elif field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif not line.strip():
                self.last_id = last
                if data:
                    return Event(last, kind, "\n".join(data))
        raise EOFError


class Poller:
    """A client that polls, by curl, and goes on where its last answer ended."""

    def __init__(self, farm: Farm, path: str, *options: str) -> None:
        self._command = (*options, device_url(farm, path))
        self._place: tuple[str, ...] = ()

    def poll(self) -> HttpAnswer:
        """The next answer."""
        answer = curl("--max-time", f"{PATIENCE_S:g}", *self._place, *self._command)
        named = (("last-modified", "If-Modified-Since"), ("etag", "If-None-Match"))
        found = [f"{theirs}: {answer.headers[ours]}" for ours, theirs in named if ours in answer.headers]
        if found:
            self._place = tuple(part for header in found for part in ("--header", header))
        return answer


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it: over WebSocket, as an event source, and as a stream."""
    name = new_channel()
    with ExitStack() as stack:
        socket = stack.enter_context(Socket(farm, f"ws/{name}"))
        source = stack.enter_context(Stream(farm, f"ev/{name}"))
        stream = stack.enter_context(Stream(farm, f"sub/{name}"))
        until(lambda: subscribers(farm, name) == 3, "three subscribers")
        count = 0

        def check() -> None:
            nonlocal count
            count += 1
            publish(farm, name, f"{count}")
            found = [socket.message(), source.event().message, stream.message()]
            assert [message["text"] for message in found] == [f"{count}"] * 3

        yield check


def subscribers(farm: Farm, channel: str) -> int:
    """How many a channel has, in the whole farm."""
    answer = curl(farm.url(f"/channels-stats?id={quote(channel)}"))
    if answer.status == 404:
        return 0
    found: int = int(answer.json()["subscribers"])
    return found
