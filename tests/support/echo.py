"""The echo dialect: what a test of the farm itself connects with, where any dialect would do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import websocket

from support.dialects import Close
from support.farm_fixture import PATIENCE_S, Farm, Json

SETTINGS: Final[Json] = {"dialects.echo": True}
CLOSES: Final = [Close("echo", "x" * 300_000, 1009), Close("echo", None, 1001, on_reload=True)]


class Echo:
    """A connection on websocket-client. Raises websocket.WebSocketBadStatusException where it is refused."""

    def __init__(self, farm: Farm, **options: Any) -> None:
        options = {"timeout": PATIENCE_S} | options
        self.socket = websocket.create_connection(f"{farm.device_url}echo", **options)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()  # close() leaves the socket open if the server has closed first

    def check(self) -> None:
        """What it sends comes back."""
        text = os.urandom(8).hex()
        self.socket.send(text)
        assert self.socket.recv() == text


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it; there is no app server."""
    with Echo(farm) as device:
        yield device.check
