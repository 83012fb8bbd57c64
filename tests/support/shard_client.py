"""A device at a worker's sockets."""

from __future__ import annotations

import json
from typing import Any

import websocket

from support.shard import PATIENCE_S, Shard


class ShardClient:
    """Its connection. What protocol it speaks, and checks, is its subclass's."""

    def __init__(self, shard: Shard, path: str) -> None:
        self.fd, self._socket = shard.open(path)
        self.closed = False

    def go(self) -> None:
        self.closed = True
        self._socket.sock.close()

    def receive(self) -> None:
        """Take what is here."""
        if not self.closed:
            self._socket.sock.settimeout(0.0)
            self._receive()
        if not self.closed:
            self._socket.sock.settimeout(PATIENCE_S)

    def _receive(self) -> None:
        while not self.closed:
            try:
                frame = self._socket.recv_frame()
            except (BlockingIOError, TimeoutError, websocket.WebSocketTimeoutException):
                return
            except (OSError, websocket.WebSocketConnectionClosedException):
                self.go()
                return
            if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                self.go()
                return
            self._told(json.loads(frame.data))

    def _told(self, told: dict[str, Any]) -> None:
        raise NotImplementedError
