"""Devices and subscribers: they connect, acknowledge, leave in every way there is, come back, and write it down."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import uuid
from typing import Any, Final

from torture.history import ENDED, PUSHER, SIMPLEPUSH, WEBPUSH, Arrival, Connection, MemberChange, Subscribed
from torture.wire import Gone, WebSocket
from torture.world import World

APP_ID: Final = "1"
APP_KEY: Final = "torture-key"
APP_SECRET: Final = "torture-secret"

_GREETING_S: Final = 15.0
_STAYS_S: Final = 20.0
_BACKOFF_S: Final = 0.2
_SLOW_S: Final = 3.0
_OUR_FAULT: Final = (1002, 1003, 1007, 1008, 1009)
"""Close codes for clients that break the protocol, which these do not."""


class Client:
    """One client that connects again and again. `order` is what it is to do with its connection next."""

    dialect = ""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = world.random(name)
        self.connection: Connection | None = None
        self.socket: WebSocket | None = None
        self._order = ""
        self._ordered = asyncio.Event()
        self._settling = asyncio.Event()

    # ------------------------------------------------------------------ what a protocol adds

    async def dial(self) -> WebSocket:
        """A new connection. Raises: Gone."""
        raise NotImplementedError

    async def greet(self, socket: WebSocket, dialled: float) -> Connection:
        """Send hello and whatever else comes first. Raises: Gone."""
        raise NotImplementedError

    def hear(self, connection: Connection, socket: WebSocket, message: dict[str, Any]) -> None:
        """One message."""
        raise NotImplementedError

    # ------------------------------------------------------------------ life

    @property
    def online(self) -> bool:
        """Whether it has a connection that was greeted."""
        return self.connection is not None

    def order(self, what: str) -> None:
        """close, reset, abandon or deafen: what becomes of the connection that it has."""
        self._order = what
        self._ordered.set()

    async def live(self) -> None:
        """Until the world closes."""
        while not self.world.closing:
            try:
                await self._one_connection()
            except Gone as gone:
                self.world.counts[f"{self.dialect} {gone}"[:60]] += 1
                if gone.code in _OUR_FAULT:
                    self.world.odd("closed for nothing", f"{self.name}: {gone}")
            except (LookupError, TypeError, ValueError) as error:
                self.world.odd("malformed", f"{self.name} cannot make sense of what it was sent: {error!r}")
            await asyncio.sleep(
                _BACKOFF_S if self.world.quiet else self.random.choice((0.0, 0.05, _BACKOFF_S, 0.5, 3.0))
            )

    async def _one_connection(self) -> None:
        self._order = ""
        self._ordered.clear()
        dialled = self.world.now()
        socket = await self.dial()
        try:
            async with asyncio.timeout(_GREETING_S):
                connection = await self.greet(socket, dialled)
        except TimeoutError:
            socket.reset()
            raise Gone("no greeting") from None
        except BaseException:
            socket.reset()
            raise
        self.connection, self.socket = connection, socket
        reading = asyncio.create_task(self._read(connection, socket))
        ordered = asyncio.create_task(self._ordered.wait())
        stays = None if self.world.quiet else self.random.expovariate(1 / _STAYS_S)
        try:
            await asyncio.wait({reading, ordered}, timeout=stays, return_when=asyncio.FIRST_COMPLETED)
            how = self._order or self.random.choice(("close", "reset", "abandon", "deafen"))
            ended = ENDED
            if how == "deafen" and not reading.done():
                await self._be_deaf(connection, socket, reading)
                how, ended = "close", f"{ENDED}, when it was deaf"
            self._leave(connection, socket, ended if reading.done() else how)
        finally:
            self.connection = self.socket = None
            reading.cancel()
            ordered.cancel()
            gone = (await asyncio.gather(reading, return_exceptions=True))[0]
            if connection.ended is None and connection.left is None:
                connection.ended = self.world.now()
        if isinstance(gone, Exception):
            raise gone

    async def _be_deaf(self, connection: Connection, socket: WebSocket, reading: asyncio.Task[None]) -> None:
        """A slow network: nothing is read for a while, then all of it."""
        deaf = self.world.now()
        socket.deafen()
        await asyncio.sleep(_SLOW_S)
        if not socket.listen():
            connection.left = deaf
        await asyncio.wait({reading}, timeout=_SLOW_S)

    def _leave(self, connection: Connection, socket: WebSocket, how: str) -> None:
        connection.how = how
        if how == "abandon" and not self.world.quiet:
            connection.left = self.world.now()
            self.world.abandon(socket, self.random.uniform(2, 15))
            return
        connection.ended = self.world.now()
        if how == "close":
            socket.close()
        else:
            socket.reset()

    async def _read(self, connection: Connection, socket: WebSocket) -> None:
        while True:
            self.hear(connection, socket, json.loads(await socket.receive()))

    async def settle(self) -> bool:
        """Wait until what it has sent has been handled. Returns: whether it has."""
        return True


class Device(Client):
    """A device with channels that it has registered; acknowledges what comes."""

    channel_count = 2

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.uaid = ""
        self.endpoints: dict[str, str] = {}
        self._waiting: dict[str, list[Arrival]] = {}  # acked before this question was asked

    async def greet(self, socket: WebSocket, dialled: float) -> Connection:
        socket.send(json.dumps(self.hello()))
        reply = json.loads(await socket.receive())
        if reply.get("messageType") != "hello" or reply.get("status") != 200:
            raise Gone(f"hello was answered {reply.get('status')}")
        connection = self.world.connected(self.name, dialled, socket.port)
        if self.endpoints and reply["uaid"] != self.uaid:
            self.world.odd("uaid changed", f"{self.name}: {self.uaid} became {reply['uaid']} on {connection.number}")
            self.endpoints = {}
        self.uaid = reply["uaid"]
        self._waiting = {}
        while len(self.endpoints) < self.channel_count:
            channel = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
            socket.send(json.dumps(self.register(channel)))
            while (reply := json.loads(await socket.receive())).get("messageType") != "register":
                self.hear(connection, socket, reply)
            if reply["status"] != 200:
                raise Gone(f"register was answered {reply['status']}")
            self.endpoints[channel] = reply["pushEndpoint"]
        return connection

    def hello(self) -> dict[str, Any]:
        """The first message."""
        raise NotImplementedError

    def register(self, channel: str) -> dict[str, Any]:
        """A registration."""
        return {"messageType": "register", "channelID": channel}

    def arrivals(self, connection: Connection, message: dict[str, Any]) -> list[tuple[Arrival, dict[str, Any]]]:
        """What a notification brings, with what acknowledges it."""
        raise NotImplementedError

    def hear(self, connection: Connection, socket: WebSocket, message: dict[str, Any]) -> None:
        kind = message.get("messageType")
        if kind == "notification":
            found = self.arrivals(connection, message)
            self.world.last_arrival = self.world.now()
            self.world.history.arrivals.extend(arrival for arrival, _ in found)
            wait = 0.0 if self.world.quiet or self.random.random() < 0.85 else self.random.uniform(0.05, 2)
            if wait:
                self.world.later(wait, lambda: self._acknowledge(connection, socket, found))
            else:
                self._acknowledge(connection, socket, found)
        elif kind == "unregister":
            done = self._waiting.pop(message["channelID"], [])
            if message["status"] == 200:
                for arrival in done:
                    arrival.confirmed = self.world.now()
                self._settling.set()

    def _acknowledge(
        self, connection: Connection, socket: WebSocket, found: list[tuple[Arrival, dict[str, Any]]]
    ) -> None:
        if self.connection is not None and self.connection is not connection:
            return
        for arrival, _ in found:
            arrival.acked = self.world.now()
        socket.send(json.dumps({"messageType": "ack", "updates": [update for _, update in found]}))
        if self.world.quiet or self.random.random() < 0.2:
            self._ask(socket, [arrival for arrival, _ in found])

    def _ask(self, socket: WebSocket, about: list[Arrival]) -> None:
        """A command whose answer shows that what came before it has been handled: a channel that does not exist."""
        channel = str(uuid.uuid4())
        self._waiting[channel] = about
        socket.send(json.dumps({"messageType": "unregister", "channelID": channel}))

    async def settle(self) -> bool:
        socket = self.socket
        if socket is None:
            return False
        self._settling.clear()
        self._ask(socket, [])
        try:
            async with asyncio.timeout(_GREETING_S):
                await self._settling.wait()
        except TimeoutError:
            return False
        return self.socket is socket


class SimplePushDevice(Device):
    """One that speaks SimplePush."""

    dialect = SIMPLEPUSH

    async def dial(self) -> WebSocket:
        return await WebSocket.dial(self.world.device_port, subprotocol="push-notification")

    def hello(self) -> dict[str, Any]:
        channels = list(self.endpoints)
        return {"messageType": "hello", "uaid": self.uaid if channels else "", "channelIDs": channels}

    def arrivals(self, connection: Connection, message: dict[str, Any]) -> list[tuple[Arrival, dict[str, Any]]]:
        now = self.world.now()
        found = []
        for update in message["updates"]:
            channel, version = update["channelID"], update["version"]
            arrival = Arrival(connection.number, self.name, channel, version, now, data=update.get("data"))
            found.append((arrival, {"channelID": channel, "version": version}))
        return found


class WebPushDevice(Device):
    """One that speaks WebPush as Firefox does. Its first channel wants signed messages."""

    dialect = WEBPUSH

    def __init__(self, world: World, name: str, key: str) -> None:
        super().__init__(world, name)
        self._key = key

    async def dial(self) -> WebSocket:
        return await WebSocket.dial(self.world.device_port, subprotocol="push-notification")

    def hello(self) -> dict[str, Any]:
        known = {"uaid": self.uaid} if self.endpoints else {}
        return {"messageType": "hello", "use_webpush": True, "broadcasts": {}, **known}

    def register(self, channel: str) -> dict[str, Any]:
        key = {} if self.endpoints else {"key": self._key}
        return super().register(channel) | key

    def arrivals(self, connection: Connection, message: dict[str, Any]) -> list[tuple[Arrival, dict[str, Any]]]:
        channel, version, data = message["channelID"], message["version"], message.get("data", "")
        try:
            body = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)).decode()
            number = int(body.partition(" ")[0])
        except (ValueError, binascii.Error):
            self.world.odd("changed", f"{self.name}: data that was never sent: {data[:80]}")
            return []
        arrival = Arrival(connection.number, self.name, channel, number, self.world.now(), data=body)
        return [(arrival, {"channelID": channel, "version": version, "code": 100})]


class Subscriber(Client):
    """A pusher-js, subscribed to the same channels on every connection."""

    dialect = PUSHER

    def __init__(self, world: World, name: str, channels: list[str]) -> None:
        super().__init__(world, name)
        self.channels = channels
        self.members: dict[str, set[str]] = {}
        self._socket_id = ""
        self._asked: dict[str, float] = {}
        self._awaits_cached: dict[str, float] = {}
        self.subscribed: set[str] = set()

    async def dial(self) -> WebSocket:
        return await WebSocket.dial(
            self.world.device_port, f"/app/{APP_KEY}?protocol=7&client=js&version=8.4.0&flash=false"
        )

    async def greet(self, socket: WebSocket, dialled: float) -> Connection:
        hello = json.loads(await socket.receive())
        if hello["event"] != "pusher:connection_established":
            raise Gone(f"greeted with {hello['event']} {hello.get('data')}")
        self._socket_id = json.loads(hello["data"])["socket_id"]
        connection = self.world.connected(self.name, dialled, socket.port)
        self.begin()
        for channel in self.channels:
            socket.send(json.dumps({"event": "pusher:subscribe", "data": self._subscription(channel)}))
        return connection

    def begin(self) -> None:
        """A connection on which it is about to ask for its channels."""
        self.members = {}
        self.subscribed = set()
        self._awaits_cached = {}
        self._asked = dict.fromkeys(self.channels, self.world.now())

    def _subscription(self, channel: str) -> dict[str, Any]:
        if not channel.startswith(("private-", "presence-")):
            return {"channel": channel}
        text, more = f"{self._socket_id}:{channel}", {}
        if channel.startswith("presence-"):
            more = {"channel_data": json.dumps({"user_id": self.name, "user_info": {"name": self.name}})}
            text += ":" + more["channel_data"]
        signature = hmac.new(APP_SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
        return {"channel": channel, "auth": f"{APP_KEY}:{signature}", **more}

    def hear(self, connection: Connection, socket: WebSocket, message: dict[str, Any]) -> None:
        event, channel, now = message["event"], message.get("channel", ""), self.world.now()
        data = message.get("data")
        if event == "tick":
            self._event(connection, channel, json.loads(data), data)
        elif event == "pusher:ping":
            socket.send('{"event":"pusher:pong","data":{}}')
        elif event == "pusher_internal:subscription_succeeded":
            self.subscribed.add(channel)
            if "cache-" in channel and channel not in self._awaits_cached:
                self._awaits_cached[channel] = now
            else:
                self.world.history.subscribed.append(Subscribed(connection.number, channel, self._asked[channel], now))
            if channel.startswith("presence-"):
                self.members[channel] = set()
                for user in json.loads(data)["presence"]["ids"]:
                    self._member(connection, channel, user, True)
        elif event == "pusher:cache_miss":
            self._cached(connection, channel, -1)
        elif event == "pusher_internal:member_added":
            self._member(connection, channel, json.loads(data)["user_id"], True)
        elif event == "pusher_internal:member_removed":
            self._member(connection, channel, json.loads(data)["user_id"], False)
        elif event in ("pusher:error", "pusher:subscription_error"):
            self.world.odd("refused", f"{self.name}: {json.dumps(message)[:300]}")

    def _event(self, connection: Connection, channel: str, told: dict[str, Any], data: str) -> None:
        number = told["n"]
        self.world.last_arrival = self.world.now()
        self.world.history.arrivals.append(
            Arrival(connection.number, self.name, channel, number, self.world.now(), data=data)
        )
        if "cache-" in channel and self._awaits_cached.get(channel, 0.0) >= 0:
            self._cached(connection, channel, number)

    def _cached(self, connection: Connection, channel: str, number: int) -> None:
        at = self._awaits_cached.get(channel, self.world.now())
        self._awaits_cached[channel] = -1.0
        asked = self._asked[channel]
        self.world.history.subscribed.append(Subscribed(connection.number, channel, asked, at, number))

    def _member(self, connection: Connection, channel: str, user: str, there: bool) -> None:
        self.world.history.members.append(MemberChange(connection.number, channel, user, there, self.world.now()))
        known = self.members.setdefault(channel, set())
        if there:
            known.add(user)
        else:
            known.discard(user)
