"""How a bench process and the one that started it talk: over a socket pair, a line of JSON and then raw
bytes.

The samples of a run are arrays of millions of numbers; they travel as the bytes they are. The end of the
stream tells either side that the other is gone: a load process then ends at once, so nothing outlives a
bench that was killed.
"""

import json
import socket
from array import array
from typing import Any, Final, NamedTuple

READ_BYTES: Final = 262_144


class Message(NamedTuple):
    """One message on a link."""

    kind: str
    fields: dict[str, Any]
    blobs: list[bytes]

    def numbers(self, position: int, code: str) -> "array[Any]":
        """A blob as an array of the type that was sent."""
        values: array[Any] = array(code)
        values.frombytes(self.blobs[position])
        return values


class LinkClosedError(Exception):
    """The process at the other end is gone."""


class MessageReader:
    """Bytes in, messages out; pure."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        self._data += data
        messages = []
        while (message := self._take()) is not None:
            messages.append(message)
        return messages

    def _take(self) -> Message | None:
        end = self._data.find(b"\n")
        if end < 0:
            return None
        fields = json.loads(self._data[:end])
        sizes = fields.pop("sizes")
        at = end + 1
        if len(self._data) < at + sum(sizes):
            return None
        blobs = []
        for size in sizes:
            blobs.append(bytes(self._data[at : at + size]))
            at += size
        del self._data[:at]
        return Message(fields.pop("kind"), fields, blobs)


def encode(kind: str, fields: dict[str, Any], blobs: tuple[bytes, ...]) -> bytes:
    line = json.dumps({"kind": kind, **fields, "sizes": [len(blob) for blob in blobs]})
    return b"".join((line.encode(), b"\n", *blobs))


class Link:
    """One end. Sending blocks until the other end took it; reading happens when the socket is readable."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = MessageReader()
        self._waiting: list[Message] = []

    def send(self, kind: str, *blobs: bytes, **fields: Any) -> None:
        """Send one message.

        Raises:
          LinkClosedError: the other end is gone.
        """
        try:
            self.sock.sendall(encode(kind, fields, blobs))
        except OSError:
            raise LinkClosedError from None

    def read(self) -> list[Message]:
        """What one read brings; call it when the socket is readable.

        Raises:
          LinkClosedError: the other end is gone.
        """
        try:
            data = self.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            raise LinkClosedError
        messages, self._waiting = self._waiting + self._reader.feed(data), []
        return messages

    def wait(self) -> Message:
        """The next message, however long it takes. For the child's side, before its own loop runs.

        Raises:
          LinkClosedError: the other end is gone.
        """
        while not self._waiting:
            self._waiting = self.read()
        return self._waiting.pop(0)
