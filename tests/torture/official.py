"""Clients and app servers by the libraries that the protocols' own makers, or most of their users, take."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Sequence
from typing import Any, Final

from support.farm_fixture import environ
from support.installed import NPM, find_program

from torture.clients import APP_ID, APP_KEY, APP_SECRET, Subscriber, WebPushDevice
from torture.history import ENDED, WEBPUSH, Arrival, Connection, Push
from torture.senders import PusherSender, WebPushSender
from torture.world import World

_PATIENCE_S: Final = 15.0
_DAY_S: Final = 86_400
PUSHER_JS: Final = NPM / "node_modules" / "pusher-js" / "package.json"


class PusherLibrarySender(PusherSender):
    """An app server with PyPI `pusher`."""

    def __init__(self, world: World, name: str, rate: float, channels: Sequence[str]) -> None:
        from pusher import Pusher

        super().__init__(world, name, rate, channels)
        where = {"host": "127.0.0.1", "port": world.router_port, "ssl": False, "timeout": _PATIENCE_S}
        self._library = Pusher(app_id=APP_ID, key=APP_KEY, secret=APP_SECRET, **where)

    async def send(self) -> None:
        from pusher.errors import PusherBadStatus
        from requests import RequestException

        push = self.push(self.random.choice(self.channels))
        assert push.data is not None
        try:
            await asyncio.to_thread(self._library.trigger, push.channel, "tick", push.data)
        except PusherBadStatus as error:
            self.answered(push, int(str(error).partition(":")[0]), str(error).encode())
        except RequestException as error:
            self.answered(push, 0, repr(error).encode())
        else:
            self.answered(push, 200, b"")


class WebPushLibraryDevice(WebPushDevice):
    """A device with keys: what it is sent is encrypted, as browsers have it."""

    def __init__(self, world: World, name: str, key: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        super().__init__(world, name, key)
        self._private = ec.generate_private_key(ec.SECP256R1())
        public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._secret = secrets.token_bytes(16)
        self.keys = {"p256dh": _b64(public), "auth": _b64(self._secret)}

    def arrivals(self, connection: Connection, message: dict[str, Any]) -> list[tuple[Arrival, dict[str, Any]]]:
        import http_ece

        sealed = base64.urlsafe_b64decode(message["data"] + "=" * (-len(message["data"]) % 4))
        opened = http_ece.decrypt(sealed, private_key=self._private, auth_secret=self._secret, version="aes128gcm")
        return super().arrivals(connection, message | {"data": _b64(opened)})


class WebPushLibrarySender(WebPushSender):
    """An app server with PyPI `pywebpush`."""

    def __init__(self, world: World, name: str, rate: float, devices: Sequence[WebPushLibraryDevice], key: Any) -> None:
        super().__init__(world, name, rate, devices, key)
        self._subscribed = devices

    async def send(self) -> None:
        ready = [device for device in self._subscribed if device.endpoints]
        if not ready:
            return
        device = self.random.choice(ready)
        channel, endpoint = self.random.choice(list(device.endpoints.items()))
        number = self.next_number(channel)
        body = f"{number} " + "y" * self.random.choice((0, 10, 100, 1500))
        signed = {"Authorization": self.authorization()} if "/wpush/v2/" in endpoint else {}
        push = self.begun(Push(WEBPUSH, device.name, channel, number, self.world.now(), ttl=_DAY_S, data=body))
        status, text = await asyncio.to_thread(self._post, endpoint, device.keys, body, signed)
        self.answered(push, status, text)

    def _post(self, endpoint: str, keys: dict[str, str], body: str, headers: dict[str, str]) -> tuple[int, bytes]:
        import pywebpush
        from requests import RequestException

        subscription = {"endpoint": endpoint, "keys": keys}
        try:
            answer = pywebpush.WebPusher(subscription).send(
                body.encode(), headers, ttl=_DAY_S, content_encoding="aes128gcm", timeout=_PATIENCE_S
            )
        except RequestException as error:
            return 0, repr(error).encode()
        return answer.status_code, answer.content


class PusherJs(Subscriber):
    """A subscriber with npm's `pusher-js`, which reconnects as it likes."""

    async def live(self) -> None:
        order = {"key": APP_KEY, "port": self.world.device_port, "user": self.name, "secret": APP_SECRET}
        process = await asyncio.create_subprocess_exec(
            find_program("node"),
            "pusher-js.mjs",
            json.dumps(order | {"channels": self.channels}),
            cwd=NPM,
            env=environ(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdin is not None and process.stdout is not None
        self._orders = process.stdin
        try:
            dialled = self.world.now()
            while line := await process.stdout.readline():
                message = json.loads(line)
                if message["event"] == "connecting":
                    dialled = self.world.now()
                elif message["event"] == "connected":
                    self.begin()
                    self.connection = self.world.connected(self.name, dialled)
                elif message["event"] == "disconnected":
                    self._gone()
                elif self.connection is not None:
                    if message["event"] == "tick":  # as it was sent
                        message["data"] = json.dumps(json.loads(message["data"]))
                    self.hear(self.connection, None, message)
            if not self.world.closing:
                self.world.odd("client error", f"{self.name}: node has ended with {await process.wait()}")
        finally:
            self._gone()
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _gone(self) -> None:
        if self.connection is not None:
            self.connection.ended, self.connection.how = self.world.now(), ENDED
            self.connection = None

    def order(self, what: str) -> None:
        self._orders.write(b"leave\n" if self.world.closing else b"again\n")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
