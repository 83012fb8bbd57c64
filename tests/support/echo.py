"""The echo dialect: what a test of the farm itself connects with, where it matters not what a device speaks."""

from __future__ import annotations

import os
from typing import Any, Final

import websocket

from support.farm_fixture import PATIENCE_S, Farm, Json

SETTINGS: Final[Json] = {"dialects.echo": True}


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
