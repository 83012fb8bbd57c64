"""Router, store, link and one worker in one process, step by step, and devices that check what they are sent."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import websocket

from farm.transports.frames import CLOSE
from farm.worker.connection import CLOSING
from farm.worker.routes import Routes
from router.common import messages as m
from router.common.poller import READ, WRITE
from router.common.position import AfterOffset
from router.store.base import Append
from support.common import Rig
from support.replay import NAME, ReplayDialect, key_of
from support.shard import Shard
from support.step_link import StepLink

AFTER_OFFSET = 2
ALL = AfterOffset(0, 0)
"""The position before everything."""

Scenario = Callable[..., Any]


class ReplayFarm:
    """A worker's sockets and a hub, with a link between them that carries what it is told to, when it is told to; or
    several hubs, each with a link."""

    def __init__(self, *rigs: Rig, most: int = 1000, padding: int = 0, send_buffer: int = 0, **worker: Any) -> None:
        """rigs: of the routers, by their numbers."""
        self.rig = rigs[0]
        self.padding = padding  # characters of each event besides
        self.most = most  # events that a log keeps
        self.dialect = ReplayDialect()
        self.routes = Routes(len(rigs))
        self.shard = Shard(
            worker,
            more={"/replay/*": self.dialect},
            named={NAME: self.dialect},
            send_buffer=send_buffer,
            routes=self.routes,
        )
        self.links = [StepLink(self.shard, rig, router) for router, rig in enumerate(rigs)]
        self.logs: dict[str, list[str]] = {}  # what each log has been given, from offset 1 on
        self.unlogged = 0

    def close(self) -> None:
        self.shard.close()

    def link_of(self, channel: str) -> StepLink:
        return self.links[self.routes.owner(key_of(channel))]

    # ---- what app servers do

    def publish(self, channel: str, logged: bool = True, body: str = "") -> None:
        rig = self.link_of(channel).rig
        hub = rig.hub
        if not logged:
            self.unlogged += 1
            text = json.dumps({"channel": channel, "unlogged": self.unlogged})
            if self.unlogged % 2:
                hub.messages.publish(key_of(channel), text)
            else:
                hub.messages.publish_unlogged(Append(key_of(channel), hub.messages.sequence(), 0, text))
            return
        log = self.logs.setdefault(channel, [])
        body = body or f"{channel} {len(log) + 1}" + "." * self.padding
        log.append(body)
        expires = int(rig.clock.unix()) + 3600
        event = Append(key_of(channel), hub.messages.sequence(), expires, body, most=self.most)
        hub.messages.publish_logged(event)

    async def commit(self, router: int | None = None) -> None:
        """What waits for the stores, or for that of one router, is made durable."""
        rigs = [link.rig for link in self.links if router in (None, link.router)]
        for rig in rigs:
            rig.store.release()
        await self.rig.settle()
        for rig in rigs:
            rig.store.hold()

    # ---- the links

    def up(self, router: int | None = None) -> None:
        """What the worker has to say reaches the routers, or one of them."""
        self._sort()
        for link in self.links:
            if router in (None, link.router):
                link.up()

    def _sort(self) -> None:
        for message in self.shard.said():
            self.links[self.routes.of(message)].messages.append(message)

    def down(self, most: int = 1_000_000, router: int | None = None) -> None:
        """Some of what the routers, or one of them, have to say reaches the worker."""
        for link in self.links:
            if router in (None, link.router):
                link.down(most)

    def lapse(self, arrives: bool, restarts: bool, router: int = 0) -> None:
        """As `StepLink.lapse`."""
        self.links[router].lapse(arrives, restarts)

    def rejoin(self, router: int = 0) -> None:
        """The link is new."""
        self._sort()
        self.links[router].rejoin()

    @property
    def silent(self) -> bool:
        """Whether the worker has nothing to say."""
        return not self.shard.messages and not any(link.messages for link in self.links)

    async def settle(self) -> None:
        """Until there is nothing left to do."""
        for link in self.links:
            if link.away:
                self.rejoin(link.router)
        rounds = 6
        while rounds or not self.silent:
            rounds = max(rounds - 1, 0)
            self.up()
            await self.commit()
            self.down()
            self.speak()

    def speak(self) -> None:
        while self.shard.sockets.speaking:
            self.shard.sockets.speak()


class ReplayDevice:
    """A subscriber that knows what it has been sent, and checks that nothing is missing of it and nothing twice."""

    def __init__(self, farm: ReplayFarm, receive_buffer: int = 0) -> None:
        self._farm = farm
        self.fd, self._client = farm.shard.open("/replay/x", receive_buffer)
        self.channels: dict[str, int | None] = {}  # with the offset of the last event; None: none has come
        self.results: list[dict[str, Any]] = []
        self.gaps: list[str] = []
        self.unlogged: list[int] = []
        self.waiting = False
        self.code = 0  # with which it was closed
        self._asked: dict[str, Any] = {}
        self.pages = 0  # that it has been given and that were not the last
        self.last = self.newest = [0, 0]  # time and tag of the last event that came, and of the newest
        self._told: set[str] = set()  # channels of which it was told that something is missing in what comes now
        # Channels without a position, which may miss something when the link is away: how often it had been when the
        # device asked for them.
        self._live: dict[str, int] = {}

    def _tell(self, what: Any) -> None:
        self._client.send(json.dumps(what))
        self._farm.shard.sockets.ready(self.fd, READ)

    def subscribe(self, channels: dict[str, Any]) -> None:
        self.waiting = True
        self._asked = channels
        for name in channels:
            self._live[name] = self._farm.link_of(name).lapses
        self._tell({"subscribe": channels})

    def leave(self, channel: str) -> None:
        self._tell({"leave": channel})

    def go(self) -> None:
        self._client.sock.close()
        self._farm.shard.sockets.ready(self.fd, READ)

    @property
    def closed(self) -> bool:
        return self.fd not in self._farm.shard.sockets.connections

    @property
    def closing(self) -> bool:
        """Whether the worker has closed it."""
        connection = self._farm.shard.sockets.connections.get(self.fd)
        return connection is None or connection.phase == CLOSING

    def receive(self) -> None:
        """Take what is here, and what waits for it in the worker."""
        sockets = self._farm.shard.sockets
        connection = sockets.connections.get(self.fd)
        if connection is None or connection.out is None:
            self._told.clear()
        self._read()
        while (connection := sockets.connections.get(self.fd)) is not None and connection.out:
            before = len(connection.out)
            sockets.ready(self.fd, WRITE)
            self._read()
            if connection.out is not None and len(connection.out) == before:
                return

    def _read(self) -> None:
        self._client.sock.settimeout(0.0)
        while not self.code:
            try:
                frame = self._client.recv_frame()
                if frame.opcode == CLOSE:
                    self.code = int.from_bytes(frame.data[:2], "big")
                else:
                    self._take(json.loads(frame.data))
            except (BlockingIOError, websocket.WebSocketTimeoutException, TimeoutError):
                return
            except (ConnectionError, websocket.WebSocketConnectionClosedException):
                assert self.closed
                return

    def _take(self, told: dict[str, Any]) -> None:
        if "subscribed" in told:
            self.waiting = False
            for result in told["subscribed"]:
                self._subscribed(result)
        elif "left" in told:
            self.channels.pop(told["left"], None)  # it may have said so twice
        elif "missed" in told:
            self.gaps.append(told["missed"])
        elif "unlogged" in told:
            assert told["channel"] in self.channels
            self.unlogged.append(told["unlogged"])
        elif "offset" in told:
            self._event(told["channel"], told["offset"], told["body"], told["at"])
        else:
            assert "said" in told

    def _subscribed(self, result: dict[str, Any]) -> None:
        self.results.append(result)
        name = result["name"]
        assert result["status"] == m.OK
        if "events" not in result:
            self.channels[name] = None
            return
        del self._live[name]
        place = self._asked[name]
        self.channels[name] = place[1] if place[-1] == AFTER_OFFSET and result["recovered"] else None
        self.pages += result["more"]
        for (offset, body), at in zip(result["events"], result["at"], strict=True):
            if not result["recovered"] and self.channels[name] is not None:
                self.gaps.append(name)  # wherever it is among these
            self._event(name, offset, body, at)
        self.gaps = [gap for gap in self.gaps if gap != name]
        if result["recovered"] or not result["events"]:
            self.channels[name] = result["offset"]
        assert self.channels[name] == result["offset"]

    def _event(self, channel: str, offset: int, body: str, at: list[int]) -> None:
        assert channel in self.channels, "no event comes of what it is not subscribed to"
        before = self.channels[channel]
        assert body == self._farm.logs[channel][offset - 1]
        if before is not None:
            assert offset > before, f"{offset} of {channel} came behind {before}"
            lapses = self._farm.link_of(channel).lapses
            if offset != before + 1 and self._live.get(channel, lapses) == lapses:
                told = channel in self.gaps or channel in self._told
                assert told, f"between {before} and {offset} of {channel} something is missing"
                self.gaps = [gap for gap in self.gaps if gap != channel]
                self._told.add(channel)
        self.channels[channel] = offset
        self.last = at
        self.newest = max(self.newest, at)


# ---- tests of it, as coroutine functions


@asynccontextmanager
async def farm_of(*rigs: Rig, **options: Any) -> AsyncIterator[ReplayFarm]:
    """rigs: of the routers; none: there is one."""
    rigs = rigs or (Rig(),)
    for rig in rigs:
        rig.store.hold()
    farm = ReplayFarm(*rigs, **options)
    try:
        async with trio.open_nursery() as nursery:
            for rig in rigs:
                nursery.start_soon(rig.committer.run, rig.flushed)
            yield farm
            nursery.cancel_scope.cancel()
    finally:
        farm.close()


def offsets(result: dict[str, Any]) -> list[int]:
    return [offset for offset, _ in result["events"]]


async def subscribed(farm: ReplayFarm, **channels: Any) -> ReplayDevice:
    device = ReplayDevice(farm)
    device.subscribe(channels)
    await farm.settle()
    device.receive()
    assert not device.waiting
    return device


def in_farm(**options: Any) -> Callable[[Scenario], Callable[[], None]]:
    """Make a test of a coroutine function that takes a farm."""

    def decorate(scenario: Scenario) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                async with farm_of(**options) as farm:
                    await scenario(farm)

            trio.run(main)

        test.__name__ = scenario.__name__
        return test

    return decorate
