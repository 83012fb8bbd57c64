"""A SimplePush device whose bytes the test writes itself."""

from __future__ import annotations

import json
from typing import Any

import websocket
from websocket import ABNF
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from support.farm_fixture import Farm, Json, Raw


def masked(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """One frame of a client."""
    frame = ABNF(1 if fin else 0, 0, 0, 0, opcode, 1, payload)
    frame.get_mask_key = lambda _: mask
    return frame.format()


def text(command: object) -> bytes:
    return masked(ABNF.OPCODE_TEXT, command if isinstance(command, bytes) else json.dumps(command).encode())


def hello(uaid: str = "", channels: tuple[str, ...] = ()) -> Json:
    return {"messageType": "hello", "uaid": uaid, "channelIDs": list(channels)}


class RawDevice(Raw):
    """A device whose bytes the test writes itself; wsproto reads the upgrade, websocket-client the frames."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm.device_port)
        upgrade = WSConnection(ConnectionType.CLIENT)
        self.send(upgrade.send(Request(host="push", target="/")))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        upgrade.receive_data(answer)
        assert isinstance(next(upgrade.events()), AcceptConnection)
        self._frames = websocket.WebSocket()
        self._frames.sock = self.socket
        self._frames.connected = True

    def receive(self) -> Any:
        """One text message, decoded."""
        opcode, payload = self._frames.recv_data()
        assert opcode == ABNF.OPCODE_TEXT, (opcode, payload)
        return json.loads(payload)

    def frame(self) -> tuple[int, bytes]:
        """One frame of any kind."""
        frame = self._frames.recv_frame()
        return frame.opcode, frame.data

    def close_code(self) -> int:
        """The code of the close frame, which must be next."""
        opcode, payload = self.frame()
        assert opcode == ABNF.OPCODE_CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big")
