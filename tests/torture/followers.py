"""Subscribers that come back with the position of what they had last, and app servers that send to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from router.common.partitions import fixed_owners, partition
from torture.clients import Client
from torture.history import GOPUSH2, PUSHSTREAM, Arrival, Connection, Push
from torture.senders import Sender
from torture.wire import Answer, Gone, WebSocket
from torture.world import World

ADMIN_KEY: Final = "torture-admin-key"
_START: Final = ("Thu, 01 Jan 1970 00:00:00 GMT", "0")
_STORE_REFUSED: Final = 5
"""gopush2's ret."""


class Follower(Client):
    """One that follows the same channels on every connection, from what it had last."""

    def __init__(self, world: World, name: str, channels: Sequence[str]) -> None:
        super().__init__(world, name)
        self.channels = list(channels)
        world.history.follows[name] = self.channels

    async def greet(self, socket: WebSocket, dialled: float) -> Connection:
        return self.world.connected(self.name, dialled, socket.port)

    def arrived(self, connection: Connection, channel: str, text: str) -> int:
        """A message. Returns: its number."""
        number = int(text.partition(" ")[0])
        self.world.last_arrival = self.world.now()
        arrival = Arrival(connection.number, self.name, channel, number, self.world.now(), data=text)
        self.world.history.arrivals.append(arrival)
        return number


class Gopush2Follower(Follower):
    """A client of gopush2, which creates the channel of its key."""

    dialect = GOPUSH2

    def __init__(self, world: World, name: str, key: str) -> None:
        super().__init__(world, name, [key])
        self.created = False
        self._mid = 0

    async def dial(self) -> WebSocket:
        path = f"/sub?key={self.channels[0]}&mid={self._mid}&heartbeat=3600"
        return await WebSocket.dial(self.world.device_port, path)

    async def greet(self, socket: WebSocket, dialled: float) -> Connection:
        if (greeting := await socket.receive()) != "h":
            raise Gone(f"greeted with {greeting[:40]}")
        self.created = True
        return await super().greet(socket, dialled)

    def hear(self, connection: Connection, socket: WebSocket, message: dict[str, Any]) -> None:
        number = self.arrived(connection, self.channels[0], message["msg"])
        if message["mid"] != number:
            self.world.odd("changed", f"{self.name}: message {number} has the ID {message['mid']}")
        self._mid = max(self._mid, number)


def with_one_position(names: Sequence[str], routers: Sequence[int]) -> list[list[str]]:
    """The channels that have the same owner, whichever of these numbers of routers the farm has: only for those is one
    time and tag exact (docs/architecture.md, "Positions")."""
    from router.dialects.pushstream.protocol import channel_address  # which goes with the dialect

    groups: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        place = partition(channel_address(name))
        groups.setdefault(tuple(fixed_owners(number)[place] for number in routers), []).append(name)
    return list(groups.values())


class PushStreamFollower(Follower):
    """A pushstream.js over WebSocket: it knows one time and tag for all of its channels, which belong to one router."""

    dialect = PUSHSTREAM

    def __init__(self, world: World, name: str, channels: Sequence[str]) -> None:
        super().__init__(world, name, channels)
        self._place = _START

    async def dial(self) -> WebSocket:
        time, tag = self._place
        path = f"/ws/{'/'.join(self.channels)}?time={quote(time)}&tag={tag}&eventid="
        return await WebSocket.dial(self.world.device_port, path)

    def hear(self, connection: Connection, socket: WebSocket, message: dict[str, Any]) -> None:
        self.arrived(connection, message["channel"], message["text"])
        self._place = (message["time"], message["tag"])


class FollowedSender(Sender):
    """Sends to channels that are followed."""

    dialect = ""

    def __init__(self, world: World, name: str, rate: float, channels: Sequence[str]) -> None:
        super().__init__(world, name, rate)
        self._channels = channels

    async def send(self) -> None:
        channel = self.random.choice(self._channels)
        number = self.next_number(channel)
        text = f"{number} " + "z" * self.random.choice((0, 10, 100, 4000))
        push = self.begun(Push(self.dialect, "", channel, number, self.world.now(), data=text))
        await self.post(push, text.encode())

    async def post(self, push: Push, body: bytes) -> None:
        """Send it, and write down the answer."""
        raise NotImplementedError

    async def posted(self, path: str, body: bytes) -> Answer:
        """The answer to a POST with the key of publishers."""
        return await self.http.request("POST", path, body, {"Authorization": f"Bearer {ADMIN_KEY}"})


class Gopush2Sender(FollowedSender):
    """Its `ret` is the answer. A channel is created by its first client, and nothing is sent to it before."""

    dialect = GOPUSH2

    def __init__(self, world: World, name: str, rate: float, followers: Sequence[Gopush2Follower]) -> None:
        super().__init__(world, name, rate, ())
        self._followers = followers

    async def send(self) -> None:
        self._channels = sorted({key for one in self._followers if one.created for key in one.channels})
        if self._channels:
            await super().send()

    async def post(self, push: Push, body: bytes) -> None:
        answer = await self.posted(f"/pub?key={push.channel}&mid={push.number}", body)
        ret = json.loads(answer.body)["ret"] if answer.status == 200 else 0
        self.answered(push, {0: answer.status, _STORE_REFUSED: 503}.get(ret, 599), answer.body)


class PushStreamSender(FollowedSender):
    """POST /pub."""

    dialect = PUSHSTREAM

    async def post(self, push: Push, body: bytes) -> None:
        answer = await self.posted(f"/pub?id={push.channel}", body)
        self.answered(push, answer.status, answer.body)
