"""The two sides of WebPush for the end-to-end tests: a user agent and an application server."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import websocket
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.farm_fixture import PATIENCE_S, Farm, HttpAnswer, Json, new_channel, until


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class UserAgent:
    """A device, as RFC 8030 calls it, on websocket-client, which blocks. What comes between a command and its reply is
    kept for later."""

    def __init__(self, farm: Farm, uaid: str | None = None, broadcasts: Json | None = None) -> None:
        self.socket = websocket.create_connection(
            farm.device_url, subprotocols=["push-notification"], timeout=PATIENCE_S
        )
        self._kept: deque[Json] = deque()
        hello: Json = {"messageType": "hello", "broadcasts": broadcasts or {}, "use_webpush": True}
        self.send(hello if uaid is None else hello | {"uaid": uaid})
        self.greeting = self.receive()
        assert self.greeting["messageType"] == "hello", self.greeting
        assert self.greeting["use_webpush"] is True
        assert self.greeting["status"] == 200
        self.uaid: str = self.greeting["uaid"]

    def __enter__(self) -> UserAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()  # close() leaves the socket open if the server has closed first

    def send(self, command: Json) -> None:
        self.socket.send(json.dumps(command))

    def receive(self) -> Json:
        message: Json = json.loads(self.socket.recv())
        return message

    def ask(self, **command: Any) -> Json:
        """One command and its reply."""
        self.send(command)
        while (message := self.receive()).get("messageType") in ("notification", "broadcast"):
            self._kept.append(message)
        return message

    def register(self, key: str | None = None, channel: str = "") -> tuple[str, str]:
        """Returns: the channel and its endpoint."""
        channel = channel or new_channel()
        fields = {} if key is None else {"key": key}
        reply = self.ask(messageType="register", channelID=channel, **fields)
        assert (reply["messageType"], reply["channelID"], reply["status"]) == ("register", channel, 200), reply
        return channel, reply["pushEndpoint"]

    def unregister(self, channel: str) -> None:
        reply = self.ask(messageType="unregister", channelID=channel, code=200)
        assert reply == {"messageType": "unregister", "channelID": channel, "status": 200}

    def message(self) -> Json:
        """The next message that is no reply."""
        return self._kept.popleft() if self._kept else self.receive()

    def notes(self, count: int) -> list[Json]:
        """So many notifications."""
        found = [self.message() for _ in range(count)]
        assert all(note["messageType"] == "notification" for note in found), found
        assert all(list(note)[:3] == ["messageType", "channelID", "version"] for note in found), found
        return found

    def bodies(self, count: int) -> list[str]:
        """The bodies of so many notifications, which are acknowledged."""
        found = self.notes(count)
        self.ack(*found)
        return list(map(body_of, found))

    def ack(self, *notes: Json) -> None:
        for note in notes:
            update = {"channelID": note["channelID"], "version": note["version"], "code": 100}
            self.send({"messageType": "ack", "updates": [update]})

    def nothing(self) -> None:
        """Everything sent so far has been handled, in the store too, and nothing has come of it."""
        self.unregister(new_channel())
        assert not self._kept

    def close_code(self) -> int | None:
        """Read on until the server's close frame. Returns: its code."""
        while True:
            opcode, payload = self.socket.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else None


def body_of(note: Json) -> str:
    """The text that the sender sent."""
    assert note["headers"] == {"encoding": "aes128gcm"}
    return decode(note["data"]).decode()


def request(method: str, url: str, body: bytes = b"", **headers: str) -> HttpAnswer:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, parts.path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return HttpAnswer(answer.status, found, answer.read())


def post(endpoint: str, text: str = "", **headers: str) -> HttpAnswer:
    """Push a text."""
    headers = {"TTL": "3600"} | headers
    if text:
        headers = {"Content_Encoding": "aes128gcm"} | headers
    return request("POST", endpoint, text.encode(), **headers)


def pushed(endpoint: str, text: str = "", **headers: str) -> str:
    """Push a text that is taken. Returns: where the message is."""
    answer = post(endpoint, text, **headers)
    assert answer.status == 201, answer
    assert answer.body == b""
    return answer.headers["location"]


def error(answer: HttpAnswer) -> tuple[int, int]:
    """Status and errno of a refusal."""
    body = answer.json()
    assert body["code"] == answer.status
    return body["code"], body["errno"]


class Sender:
    """An application server with a VAPID key."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        raw = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.key = encode(raw)

    def jwt(self, endpoint: str, **claims: Any) -> str:
        parts = urlsplit(endpoint)
        body = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": int(time.time()) + 600, "sub": "mailto:a@example.org"}
        signed = ".".join(encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, body | claims))
        r, s = decode_dss_signature(self._private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def vapid(self, endpoint: str, **claims: Any) -> Json:
        """The headers of RFC 8292."""
        return {"Authorization": f"vapid t={self.jwt(endpoint, **claims)}, k={self.key}"}

    def draft(self, endpoint: str) -> Json:
        """The headers of the draft before it."""
        return {"Authorization": f"WebPush {self.jwt(endpoint)}", "Crypto_Key": f"p256ecdsa={self.key}"}


def away(farm: Farm, device: UserAgent) -> None:
    """The device goes."""

    def held() -> int:
        return sum(row["addresses"] for row in farm.status()["routers"])

    before = held()
    device.__exit__()
    until(lambda: held() < before, "the farm knows that the device is away")


def set_broadcast(farm: Farm, broadcast: str, version: str | None) -> int:
    """Set a broadcast, or remove it (None), over the admin port. Returns: the status."""
    url = f"http://127.0.0.1:{farm.admin_port}/broadcasts/{broadcast}"
    if version is None:
        return request("DELETE", url).status
    return request("PUT", url, version.encode()).status


def broadcasts(farm: Farm) -> Json:
    """What the admin port lists."""
    status, body = farm.admin("/broadcasts")
    assert status == 200
    found: Json = json.loads(body)
    return found


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it."""
    with UserAgent(farm) as device:
        _, endpoint = device.register()

        def check() -> None:
            text = new_channel()
            pushed(endpoint, text)
            assert device.bodies(1) == [text]

        yield check
