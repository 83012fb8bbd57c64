"""A farm's application in the eyes of PyPI `pusher`, and a device of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import websocket
from pusher import Pusher

from support.farm_fixture import PATIENCE_S, Farm, Json

APP: Final = {"id": "3", "name": "shop", "key": "278d425bdf160c739803", "secret": "7ad3773142a6692b25b8"}


OFF: Final = {"id": "5", "name": "off", "key": "offkey", "secret": "offsecret", "enabled": False}


MASTER: Final = b"0123456789abcdef0123456789abcdef"


def library(farm: Farm, app: Json = APP, **changes: Any) -> Pusher:
    """The app server's side."""
    options = {"app_id": app["id"], "key": app["key"], "secret": app["secret"]}
    options |= {"host": "127.0.0.1", "port": farm.router_port, "ssl": False}
    options["encryption_master_key_base64"] = base64.b64encode(MASTER).decode()
    return Pusher(**options | changes)


class Device:
    """A device that subscribes as it is asked to, and receives events in order."""

    def __init__(self, farm: Farm, app: Json = APP, certificate: Path | None = None) -> None:
        """certificate: the farm's, which is trusted."""
        url = f"{farm.device_url}app/{app['key']}?protocol=7&client=js&version=8.6.0&flash=false"
        trusted = {} if certificate is None else {"ca_certs": str(certificate)}
        self._socket = websocket.create_connection(url, timeout=PATIENCE_S, sslopt=trusted)
        greeting = self.hear("pusher:connection_established")
        self.id: str = json.loads(greeting["data"])["socket_id"]

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, event: str, **data: Any) -> None:
        self._socket.send(json.dumps({"event": event, "data": data}))

    def next(self) -> Json:
        found: Json = json.loads(self._socket.recv())
        return found

    def hear(self, event: str) -> Json:
        """The next event, which must have this name."""
        found = self.next()
        assert found["event"] == event, found
        return found

    def data(self, event: str) -> Any:
        """The data of the next event, which must have this name."""
        return json.loads(self.hear(event)["data"])

    def subscribe(self, channel: str, **auth: Any) -> Json:
        self.say("pusher:subscribe", channel=channel, **{"auth": ""} | auth)
        found = self.hear("pusher_internal:subscription_succeeded")
        assert found["channel"] == channel
        return found

    def nothing_more(self) -> None:
        """Everything that was sent to this device has been received."""
        self.say("pusher:ping")
        self.hear("pusher:pong")

    def close_code(self) -> int:
        while True:
            opcode, payload = self._socket.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(payload[:2], "big")


def allowed(server: Pusher, device: Device, channel: str, data: Json | None = None) -> Json:
    """What the app server's auth endpoint answers."""
    answer: Json = server.authenticate(channel, device.id, data)
    return {name: answer[name] for name in ("auth", "channel_data") if name in answer}
