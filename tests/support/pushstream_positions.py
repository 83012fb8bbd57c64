"""Two routers and one worker in one process, and clients of push stream that have one position for channels of both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from farm.worker.routes import Routes
from router.dialects.pushstream.protocol import NAME, channel_address
from router.store.base import Append
from support.common import Clock, Rig
from support.plain_http import Client, get
from support.pushstream_shard import Answer, made
from support.shard import Shard
from support.step_link import StepLink

ROUTERS = 2
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
STEP_S = 0.001
ROUTES = Routes(ROUTERS)


def _name_of(router: int, number: int) -> str:
    names = (f"c{n}" for n in range(1000))
    return [name for name in names if ROUTES.owner(channel_address(name)) == router][number]


CHANNELS = (_name_of(0, 0), _name_of(1, 0), _name_of(0, 1))
"""Two of them are of the first router."""


class PositionFarm:
    """The links carry what they are told to, when they are told to, and the stores commit when they are told to."""

    def __init__(self, **worker: Any) -> None:
        self.clock = Clock()
        self.rigs = [Rig(router=router, routers=ROUTERS, clock=self.clock) for router in range(ROUTERS)]
        dialect = made()
        paths = dict.fromkeys(("/lp/**", "/ev/**"), dialect)
        self.shard = Shard({"next_request_timeout": 60, **worker}, more=paths, named={NAME: dialect}, routes=ROUTES)
        self.links = [StepLink(self.shard, rig, router) for router, rig in enumerate(self.rigs)]
        self.published = dict.fromkeys(CHANNELS, 0)

    def publish(self, name: str) -> None:
        """The next event of a channel: its text is its number."""
        self.clock.pass_by(STEP_S)
        key = channel_address(name)
        messages = self.rigs[ROUTES.owner(key)].hub.messages
        self.published[name] += 1
        expires = int(self.clock.unix()) + 3600
        messages.publish_logged(Append(key, messages.sequence(), expires, f"{self.published[name]}", most=1000))

    def send_unlogged(self, name: str, text: str) -> None:
        """An event for those that are there."""
        key = channel_address(name)
        messages = self.rigs[ROUTES.owner(key)].hub.messages
        messages.publish_unlogged(Append(key, messages.sequence(), 0, text))

    async def commit(self, router: int) -> None:
        """What waits for this router's store is made durable."""
        rig = self.rigs[router]
        rig.store.release()
        await rig.settle()
        rig.store.hold()

    def up(self, router: int) -> None:
        """What the worker has to say reaches this router, later than all that has come to the worker."""
        self.clock.pass_by(STEP_S)
        self._sort()
        self.links[router].up()

    def _sort(self) -> None:
        for message in self.shard.said():
            self.links[ROUTES.of(message)].messages.append(message)

    def down(self, router: int, most: int = 1_000_000) -> None:
        """Some of what this router has to say reaches the worker."""
        self.links[router].down(most)
        while self.shard.sockets.speaking:
            self.shard.sockets.speak()

    def rejoin(self, router: int) -> None:
        """The link is new."""
        self._sort()
        self.links[router].rejoin()

    async def settle(self) -> None:
        """Until there is nothing left to do."""
        for link in self.links:
            if link.away:
                self.rejoin(link.router)
        for _ in range(12):
            for router in range(ROUTERS):
                self.up(router)
                await self.commit(router)
                self.down(router)
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def farm_of_two(**worker: Any) -> AsyncIterator[PositionFarm]:
    """It runs. worker: its options."""
    farm = PositionFarm(**worker)
    for rig in farm.rigs:
        rig.store.hold()
    try:
        async with trio.open_nursery() as nursery:
            for rig in farm.rigs:
                nursery.start_soon(rig.committer.run, rig.flushed)
            yield farm
            nursery.cancel_scope.cancel()
    finally:
        farm.shard.close()


class Reader:
    """A client that comes back whenever it is told to, or answered, with the position that it has."""

    def __init__(self, farm: PositionFarm, *headers: str) -> None:
        self._farm = farm
        self._headers = headers
        self._client: Client | None = None
        self.had = dict.fromkeys(CHANNELS, 0)
        self.doubles = 0
        self.comes()

    def comes(self) -> None:
        """Unless it is there."""
        if self._client is None:
            self._client = Client(self._farm.shard, get(self.path + "/".join(CHANNELS), *self._headers, *self.place))

    def goes(self) -> None:
        """It ends its connection."""
        if self._client is not None:
            self._client.socket.close()
            self._client.look()
            self._client = None

    @property
    def path(self) -> str:
        """Where it comes to."""
        raise NotImplementedError

    @property
    def place(self) -> Sequence[str]:
        """The headers that say where it stands."""
        raise NotImplementedError

    def receive(self) -> None:
        """It takes what is there."""
        raise NotImplementedError

    def take(self, message: Any) -> None:
        """Nothing of a channel is missing."""
        name, number = message["channel"], int(message["text"])
        assert number <= self.had[name] + 1, f"{number} of {name} behind {self.had[name]}"
        self.doubles += number <= self.had[name]
        self.had[name] = max(self.had[name], number)


class Poller(Reader):
    """One that polls."""

    path = "/lp/"
    place: Sequence[str] = (f"If-Modified-Since: {EPOCH}", "If-None-Match: 0")

    def receive(self) -> None:
        if self._client is None or self._client.nothing():
            return
        answer = Answer(self._client)
        assert answer.status in (200, 304), answer.body
        rest = answer.body.decode()
        while rest:
            message, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()
            self.take(message)
        time, tag = answer.place
        self.place = (f"If-Modified-Since: {time}", f"If-None-Match: {tag}")
        self.goes()


class Source(Reader):
    """An EventSource. Its doubles come when it comes back, and are read before it goes."""

    path = "/ev/"
    place: Sequence[str] = ("Last-Event-ID: 0:0",)

    def __init__(self, farm: PositionFarm) -> None:
        self._rest = b""
        super().__init__(farm)

    def comes(self) -> None:
        if self._client is None:
            self._rest = b""
        super().comes()

    def receive(self) -> None:
        while self._client is not None and not self._client.nothing():
            self._rest += self._client.socket.recv(65536)
        *blocks, self._rest = self._rest.split(b"\r\n\r\n")
        for block in blocks:
            lines = [line.partition(b": ")[::2] for line in block.split(b"\r\n")]
            found = {name: value.decode() for name, value in lines if name in (b"id", b"data")}
            if b"data" in found:
                self.take(json.loads(found[b"data"]))
            if b"id" in found:
                self.place = (f"Last-Event-ID: {found[b'id']}",)


def complete(farm: PositionFarm, readers: Sequence[Reader]) -> bool:
    """Whether all of them have everything."""
    return all(reader.had == farm.published for reader in readers)
