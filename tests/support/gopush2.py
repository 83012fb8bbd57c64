"""The two sides of gopush2 for the end-to-end tests: devices on websocket-client and on plain sockets, app servers by
curl."""

from __future__ import annotations

import json
import socket
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest
import websocket

from support.dialects import Close
from support.farm_fixture import PATIENCE_S, Farm, Json, curl, until

ON: Final[Json] = {"dialects.gopush2": True}
CRASH: Final[Json] = {"link.lease": 2, "farm.restart_max": 0.1}


def new_key() -> str:
    return uuid.uuid4().hex


def answered(farm: Farm, method: str, path: str, body: str = "", **query: object) -> Json:
    """A request of an app server. Returns: the envelope of its answer."""
    sent = ["--data-binary", "@-"] if method == "POST" else []
    answer = curl("--request", method, *sent, farm.url(f"{path}?{urlencode(query)}"), stdin=body.encode())
    assert answer.status == 200, answer
    found: Json = answer.json()
    assert set(found) == {"msg", "ret"}
    return found


def create(farm: Farm, key: str, *tokens: str) -> None:
    """Create the channel of a key, with these tokens."""
    for token in tokens:
        assert answered(farm, "GET", "/ch", key=key, token=token) == {"msg": "ok", "ret": 0}


def push(farm: Farm, key: str, message: str, mid: int = 0, **more: object) -> None:
    """Send a message. mid: 0: the farm's own."""
    query = {"key": key, "expire": 600} | ({"mid": mid} if mid else {}) | more
    assert answered(farm, "POST", "/pub", message, **query) == {"msg": "ok", "ret": 0}


class Gone(Exception):
    """The server has closed the connection, with this code; 0: without a close frame."""


class Device:
    """A device on websocket-client, which blocks."""

    def __init__(
        self,
        farm: Farm,
        key: str,
        mid: int = 0,
        token: str = "",
        receive_buffer: int = 0,
        greets: bool = True,
        **more: object,
    ) -> None:
        """greets: whether it waits for the first heartbeat."""
        query = urlencode({"key": key, "mid": mid} | ({"token": token} if token else {}) | more)
        options = ((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer),) if receive_buffer else ()
        # Its own check of UTF-8 is a step of Python for each byte; decoding checks as strictly.
        self.socket = websocket.create_connection(
            f"{farm.device_url}sub?{query}", timeout=PATIENCE_S, sockopt=options, skip_utf8_validation=True
        )
        self.mid = mid  # the last that it has
        if greets:
            try:
                assert self.text() == "h"
            except BaseException:
                self.socket.shutdown()
                raise

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown()

    def text(self) -> str:
        """The next message as it comes. Raises: Gone."""
        opcode, payload = self.socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Gone(struct.unpack(">H", payload[:2])[0] if payload else 0)
        assert opcode == websocket.ABNF.OPCODE_TEXT
        return str(payload, "utf-8")

    def message(self) -> str:
        """The next message. Raises: Gone."""
        found = json.loads(self.text())
        assert set(found) == {"mid", "msg"}
        self.mid = found["mid"]
        message: str = found["msg"]
        return message

    def beat(self, payload: str = "h") -> None:
        """A heartbeat there and back, with nothing else between."""
        self.socket.send(payload)
        assert self.text() == payload

    def code(self) -> int:
        """Of the close, which must be what comes next."""
        with pytest.raises(Gone) as gone:
            print("instead of a close:", self.text())
        code: int = gone.value.args[0]
        return code


class TcpDevice:
    """A device on a plain socket."""

    def __init__(self, farm: Farm, key: str, mid: int = 0, heartbeat: int = 30, token: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(str(farm.settings["gopush2.tcp_port"]))), PATIENCE_S)
        arguments = [b"sub", key.encode(), b"%d" % mid, b"%d" % heartbeat, *([token.encode()] if token else [])]
        parts = (b"$%d\r\n%s\r\n" % (len(one), one) for one in arguments)
        self.socket.sendall(b"*%d\r\n" % len(arguments) + b"".join(parts))
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> TcpDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def beat(self) -> None:
        """A heartbeat there and back."""
        self.socket.sendall(b"h")
        self.greeted()

    def greeted(self) -> None:
        """A heartbeat comes."""
        assert self._file.read(1) == b"h"

    def message(self) -> tuple[int, str]:
        """The next message: ID and text."""
        length = self._file.readline()
        assert length.startswith(b"$") and length.endswith(b"\r\n"), length
        found = json.loads(self._file.read(int(length[1:-2])))
        assert self._file.read(2) == b"\r\n"
        return found["mid"], found["msg"]

    def ended(self) -> bool:
        """Whether nothing comes but the end."""
        return self._file.read() == b""


def settings(folder: Path) -> Json:
    """As `support.dialects` has it: devices need no token."""
    return {"gopush2.auth": False}


CLOSES: Final = [Close("sub?key=a&mid=x", None, 4400), Close("sub?key=closes&mid=0", None, 1001, on_reload=True)]


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it."""
    key = new_key()
    with Device(farm, key) as device:

        def check() -> None:
            mark = new_key()
            push(farm, key, mark)
            until(lambda: device.message() == mark, "the message comes")

        yield check
