"""Subscribing from a position, with real hubs and stores behind a worker: nothing is missing, nothing comes twice."""

import fcntl
import random
import struct
import termios
from typing import Any

import pytest
import trio
from support.common import Clock, Rig
from support.often import often
from support.replay_farm import ReplayDevice, ReplayFarm, farm_of

from farm.worker import log_reads
from router.common.poller import BROKEN
from router.common.position import LIVE, AfterOffset, Last

SEEDS = often(20)
CHANNELS = "abc"
OF_A_LINK = {"commit", "lapse", "rejoin", "up", "down"}
KINDS = {
    "all at once": {},
    "pages": {"write_buffer_bytes": 1024},
    "slow": {"write_buffer_bytes": 16_384, "padding": 1500, "send_buffer": 4608},
}
STEPS = {
    "subscribe": 20,
    "leave": 3,
    "go": 5,
    "publish": 50,
    "commit": 16,
    "up": 16,
    "down": 20,
    "speak": 12,
    "lapse": 3,
    "rejoin": 10,
    "read": 20,
}


def step(chance: random.Random, routers: int) -> tuple[Any, ...]:
    (name,) = chance.choices(list(STEPS), list(STEPS.values()))
    device, channel = chance.randrange(4), chance.choice(CHANNELS)
    if name == "subscribe":
        channels = chance.sample(CHANNELS, chance.randint(1, 3))
        places = ["live", "resume", "resume", "all", "all", ("last", chance.randrange(9))]
        return name, device, {channel: chance.choice(places) for channel in channels}
    router = chance.randrange(routers) if routers > 1 else 0
    more: dict[str, tuple[Any, ...]] = {
        "leave": (device, channel),
        "go": (device,),
        "publish": (channel, chance.random() < 0.8),
        "commit": (router,),
        "up": (router,),
        "down": (router, chance.choice([1, 2, 3, 1000])),
        "read": (device,),
        "lapse": (router, chance.random() < 0.5, chance.random() < 0.5),
        "rejoin": (router,),
    }
    return name, *more.get(name, ())


def on_its_way(fd: int) -> bool:
    """Whether the kernel has bytes of this socket that the peer's has not."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    return size > 0


class World:
    """Devices that come and go; what each of them had of a channel outlives its connection."""

    def __init__(self, farm: ReplayFarm, slow: bool) -> None:
        """slow: devices read only when it is their turn."""
        self.farm = farm
        self.slow = slow
        self.pages = 0
        self.devices: dict[int, ReplayDevice] = {}
        self.had: dict[tuple[int, str], AfterOffset] = {}

    def subscribe(self, number: int, places: dict[str, Any]) -> None:
        one = self.devices.get(number)
        if one is None:
            one = self.devices[number] = ReplayDevice(self.farm, 4096 if self.slow else 0)
        one.receive()
        places = {name: place for name, place in places.items() if name not in one.channels}
        if not one.waiting and places:
            one.subscribe({name: self.position(number, name, place) for name, place in places.items()})

    def position(self, number: int, name: str, place: Any) -> Any:
        if place == "live":
            return LIVE
        if place == "all":
            return AfterOffset(0, 0)
        if place == "resume":
            return self.had.get((number, name), Last(0))
        return Last(place[1])

    def receive(self) -> None:
        for number in list(self.devices):
            self.read(number, not self.slow)

    def read(self, number: int, receive: bool = True) -> None:
        one = self.devices.get(number)
        if one is not None:
            gone = one.closed
            if receive or gone:
                one.receive()
            for result in one.results:
                if "epoch" in result:
                    self.had[number, result["name"]] = AfterOffset(result["epoch"], result["offset"])
            one.results.clear()
            for name, offset in one.channels.items():
                if offset is not None and (number, name) in self.had:
                    self.had[number, name] = self.had[number, name]._replace(offset=offset)
            self.pages += one.pages
            one.pages = 0
            if gone:
                del self.devices[number]

    async def do(self, name: str, *what: Any) -> None:
        farm = self.farm
        one = self.devices.get(what[0]) if what and type(what[0]) is int else None
        link = farm.links[what[0]] if name in OF_A_LINK else farm.links[0]
        if name == "subscribe":
            self.subscribe(*what)
        elif name == "leave" and one is not None and not one.waiting and what[1] in one.channels:
            one.leave(what[1])
        elif name == "go" and one is not None and not one.closed:
            self.read(what[0])
            if what[0] in self.devices:
                one.go()
                del self.devices[what[0]]
        elif name == "publish":
            farm.publish(*what)
        elif name == "commit":
            await farm.commit(link.router)
        elif name == "lapse" and not link.away:
            link.lapse(*what[1:])
        elif name == "rejoin" and link.away:
            farm.rejoin(link.router)
        elif name == "up" and not link.away:
            farm.up(link.router)
        elif name == "down" and not link.away:
            link.down(what[1])
        elif name == "speak":
            farm.shard.sockets.speak()
        elif name == "read":
            self.read(what[0])
        self.receive()

    async def settle(self) -> None:
        """Until there is nothing left to do, and nothing left to read."""
        farm, self.slow = self.farm, False
        sockets = farm.shard.sockets
        while True:
            await farm.settle()
            self.receive()
            for fd in set(sockets.connections) - {one.fd for one in self.devices.values()}:
                sockets.ready(fd, BROKEN)  # its device has gone, though it may not have been read
            connections = sockets.connections
            if farm.silent and not any(one.out or on_its_way(fd) for fd, one in connections.items()):
                self.receive()
                return

    def check(self) -> None:
        for one in self.devices.values():
            assert not one.closed
            assert not one.waiting
            for name, offset in one.channels.items():
                newest = len(self.farm.logs.get(name, ()))
                assert offset in (newest, None) or (newest == 0 and offset == 0)
            assert len(set(one.unlogged)) == len(one.unlogged)
        assert self.farm.shard.counters.connections_failed == self.farm.shard.counters.messages_failed == 0
        assert self.farm.shard.sockets.subscriptions.held_bytes == 0


@pytest.mark.parametrize("routers, seed", [(1 if seed % 2 else 1 + seed % 3, seed) for seed in range(SEEDS)])
def test_whatever_comes_between_each_device_has_every_event_once_and_in_order(
    routers: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(log_reads, "_RECOVERIES", chance.choice([1, 1000]))

    async def main() -> None:
        clock = Clock()
        rigs = [Rig(router=router, routers=routers, clock=clock) for router in range(routers)]
        kind = sorted(KINDS)[seed // 2 % len(KINDS)]
        most, slice_ = chance.choice([2, 1000]), chance.choice([1, 2, 256])
        async with farm_of(*rigs, most=most, fanout_slice=slice_, **KINDS[kind]) as farm:
            world = World(farm, kind == "slow")
            for _ in range(300):
                await world.do(*step(chance, routers))
            await world.settle()
            for name in CHANNELS:
                farm.publish(name)
            await world.settle()
            world.check()
            assert farm.dialect.texts > 10, "hardly anything has come"

    trio.run(main)
