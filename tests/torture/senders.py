"""App servers: each sends to channels of its own, one message after the other, and writes down every answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from torture.clients import APP_ID, APP_KEY, APP_SECRET, SimplePushDevice, WebPushDevice
from torture.history import PUSHER, SIMPLEPUSH, WEBPUSH, Push, Told
from torture.wire import Answer, Http
from torture.world import World

if TYPE_CHECKING:
    from support.webpush_vapid import Sender as VapidKey

_DAY_S: Final = 86_400
_VAPID_S: Final = 1_800


class Sender:
    """One app server, at a rate."""

    def __init__(self, world: World, name: str, rate: float) -> None:
        self.world = world
        self.random = world.random(name)
        self.http = Http(world.router_port)
        self._period = 1 / rate
        self._numbers: dict[str, int] = {}

    async def send(self) -> None:
        """One message, or a few."""
        raise NotImplementedError

    async def run(self) -> None:
        """Until the world is quiet."""
        due = self.world.now()
        while not self.world.quiet:
            due = max(due + self._period * self.random.uniform(0.5, 1.5), self.world.now() - 1)
            await asyncio.sleep(max(0.0, due - self.world.now()))
            await self.send()
        self.http.close()

    def next_number(self, channel: str) -> int:
        """Grows with every message of the channel."""
        self._numbers[channel] = number = self._numbers.get(channel, 0) + 1
        return number

    def begun(self, push: Push) -> Push:
        """It is about to be sent."""
        self.world.history.pushes.append(push)
        return push

    def answered(self, push: Push, status: int, text: bytes) -> None:
        """It was answered."""
        push.status = status
        push.answered = self.world.now()
        if not push.accepted:
            push.error = text[:200].decode(errors="replace")


class SimplePushSender(Sender):
    """PUT, and now and then a batch."""

    def __init__(self, world: World, name: str, rate: float, devices: Sequence[SimplePushDevice]) -> None:
        super().__init__(world, name, rate)
        self._devices = devices

    async def send(self) -> None:
        ready = [device for device in self._devices if device.endpoints]
        if not ready:
            return
        if self.random.random() < 0.2:
            await self._batch(ready)
            return
        push, endpoint = self._push(self.random.choice(ready))
        form = f"version={push.number}" + (f"&data={push.data}" if push.data else "")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self.http.request("PUT", urlsplit(endpoint).path, form.encode(), headers)
        self.answered(push, answer.status, answer.body)

    async def _batch(self, ready: list[SimplePushDevice]) -> None:
        chosen = [self._push(device) for device in self.random.sample(ready, min(len(ready), 5))]
        lines = []
        for push, endpoint in chosen:
            line: dict[str, str | int] = {"endpoint": endpoint, "version": push.number}
            lines.append(json.dumps(line | ({"data": push.data} if push.data else {})))
        answer = await self.http.request("POST", "/v1/push", "\n".join(lines).encode())
        results = answer.body.splitlines() if answer.status == 200 else []
        for number, (push, _) in enumerate(chosen):
            if number < len(results):
                self.answered(push, json.loads(results[number])["status"], results[number])
            else:
                self.answered(push, answer.status if answer.status != 200 else 599, answer.body)

    def _push(self, device: SimplePushDevice) -> tuple[Push, str]:
        channel = self.random.choice(list(device.endpoints))
        number = self.next_number(channel)
        data = f"d{number}-" + "x" * self.random.randrange(40) if self.random.random() < 0.5 else None
        push = Push(SIMPLEPUSH, device.name, channel, number, self.world.now(), data=data)
        return self.begun(push), device.endpoints[channel]


class WebPushSender(Sender):
    """POST with every kind of TTL, Topic and Urgency; now and then a message is deleted again."""

    def __init__(self, world: World, name: str, rate: float, devices: Sequence[WebPushDevice], key: VapidKey) -> None:
        super().__init__(world, name, rate)
        self._devices = devices
        self._key = key
        self._signed = (float("-inf"), "")

    async def send(self) -> None:
        ready = [device for device in self._devices if device.endpoints]
        if not ready:
            return
        device = self.random.choice(ready)
        channel = self.random.choice(list(device.endpoints))
        number = self.next_number(channel)
        topic = self.random.choice(("", "", "", "", "news", "mail"))
        ttl = _DAY_S if topic else self.random.choice((_DAY_S,) * 8 + (0, 4))
        body = f"{number} " + "y" * self.random.choice((0, 10, 100, 1500))
        path = urlsplit(device.endpoints[channel]).path
        headers = {"TTL": str(ttl), "Content-Encoding": "aes128gcm", "Urgency": self._urgency()}
        if topic:
            headers["Topic"] = topic
        if path.startswith("/wpush/v2/"):
            headers["Authorization"] = self.authorization()
        push = Push(WEBPUSH, device.name, channel, number, self.world.now(), ttl=ttl, topic=topic, data=body)
        self.begun(push)
        answer = await self.http.request("POST", path, body.encode(), headers)
        self.answered(push, answer.status, answer.body)
        if push.accepted and self.random.random() < 0.05:
            await self._delete(push, urlsplit(answer.headers["location"]).path)

    def _urgency(self) -> str:
        return self.random.choice(("very-low", "low", "normal", "high"))

    async def _delete(self, push: Push, path: str) -> None:
        push.deleting = self.world.now()
        answer = await self.http.request("DELETE", path)
        if answer.status == 204:
            push.deleted = self.world.now()
        elif answer.status not in (0, 503):
            self.world.odd("answers", f"DELETE of message {push.number} was answered {answer.status}")

    def authorization(self) -> str:
        """The header, made anew now and then."""
        now = self.world.farm_time()
        if abs(now - self._signed[0]) > _VAPID_S:
            claims = {
                "aud": f"http://127.0.0.1:{self.world.router_port}",
                "exp": int(now) + _DAY_S // 2,
                "sub": "mailto:a@b.c",
            }
            self._signed = (now, self._key.vapid(claims).decode())
        return self._signed[1]


def signed(world: World, method: str, path: str, body: bytes = b"", **more: str) -> str:
    """A request of Pusher's HTTP API, signed as its libraries sign it. Returns: path and query."""
    query = {"auth_key": APP_KEY, "auth_timestamp": str(int(world.farm_time())), "auth_version": "1.0", **more}
    if body:
        query["body_md5"] = hashlib.md5(body).hexdigest()
    text = "&".join(f"{name}={query[name]}" for name in sorted(query))
    signature = hmac.new(APP_SECRET.encode(), f"{method}\n{path}\n{text}".encode(), hashlib.sha256).hexdigest()
    return f"{path}?{text}&auth_signature={signature}"


class PusherSender(Sender):
    """Events, one at a time or a few in a batch."""

    def __init__(self, world: World, name: str, rate: float, channels: Sequence[str]) -> None:
        super().__init__(world, name, rate)
        self.channels = channels

    async def send(self) -> None:
        batch = self.random.random() < 0.15
        channels = (
            self.random.sample(self.channels, min(3, len(self.channels)))
            if batch
            else [self.random.choice(self.channels)]
        )
        pushes = [self.push(channel) for channel in channels]
        if batch:
            events = [{"name": "tick", "data": push.data, "channel": push.channel} for push in pushes]
            path, body = f"/apps/{APP_ID}/batch_events", json.dumps({"batch": events}).encode()
        else:
            path = f"/apps/{APP_ID}/events"
            body = json.dumps({"name": "tick", "data": pushes[0].data, "channels": channels}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await self.http.request("POST", signed(self.world, "POST", path, body), body, headers)
        for push in pushes:
            self.answered(push, answer.status, answer.body)

    def push(self, channel: str) -> Push:
        """An event that is about to be sent."""
        number = self.next_number(channel)
        data = json.dumps({"n": number, "pad": "z" * self.random.randrange(100)})
        return self.begun(Push(PUSHER, "", channel, number, self.world.now(), data=data))


async def users(world: World, http: Http, channel: str) -> frozenset[str] | None:
    """The members of a presence channel by the HTTP API; None without a good answer."""
    answer: Answer = await http.request("GET", signed(world, "GET", f"/apps/{APP_ID}/channels/{channel}/users"))
    if answer.status != 200:
        return None
    return frozenset(user["id"] for user in json.loads(answer.body)["users"])


class WebhookSite:
    """The server that webhooks are sent to. It refuses some, until the world is quiet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random("webhooks")
        self._server: asyncio.Server | None = None
        self.host = "127.0.0.1"
        """Where farms reach it."""
        self.port = 0

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields["content-length"]))
                expected = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
                if fields.get("x-pusher-signature") != expected:
                    self._world.odd("webhook", "its signature is wrong")
                fails = not self._world.quiet and self._random.random() < 0.05
                if not fails:
                    for event in json.loads(body)["events"]:
                        if event["name"] in ("channel_occupied", "channel_vacated"):
                            self._world.history.webhooks.append(
                                Told(event["name"], event["channel"], self._world.now())
                            )
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % (b"500 No" if fails else b"200 OK"))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
