"""Many hosts of a cluster and their Redis, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import trio
import trio.testing
from trio._core import _run

from router.cluster.membership import Give, Host, Mine, Snapshot, State, Take, decide, duties, isolated
from router.cluster.records import Command, snapshot
from router.cluster.registry import Registry
from router.cluster.server import Answer
from router.common.options import Settings, defaults
from router.common.redis_settings import RedisOptions
from router.common.settings import SECTIONS, RouterOptions
from router.store.base import StoreError
from support.cluster_records import Records

LEASE = 3.0
_EPOCH = 1_700_000_000.0


@dataclass
class Faults:
    """What may go wrong, and how often."""

    lost: float = 0.0
    """Of commands, and of answers."""
    late: float = 0.0
    """Of commands that fail: those that are done all the same, some time later."""


class World:
    """A cluster of so many routers, and everything that it hangs on."""

    def __init__(self, seed: int, routers: int) -> None:
        self.random = random.Random(seed)
        self.routers = routers
        self.settings: Settings = (
            defaults(SECTIONS).replace(RedisOptions, lease=LEASE).replace(RouterOptions, routers=routers)
        )
        self.records = Records()
        self.run = 1
        self.up = True
        self.clock = _EPOCH
        """What Redis' clock says at the beginning."""
        self.faults = Faults()
        self.hosts: dict[str, SimulatedHost] = {}
        self.cut: set[frozenset[str]] = set()
        """Pairs of hosts that do not reach each other."""
        self.places: dict[tuple[int, int], str] = {}
        """The host of each placement that ever ran, by number and epoch."""
        self.moves = 0
        """Processes that were started."""
        self._past: list[tuple[float, Records]] = []
        self._ids = iter(range(1, 10_000))
        self.nursery: trio.Nursery

    # ------------------------------------------------------------------ Redis

    @property
    def now(self) -> int:
        """Milliseconds of Redis' clock."""
        return int((self.clock + trio.current_time()) * 1000)

    def call(self, command: Command) -> list[object] | bytes:
        """Have it done."""
        reply = self.records.call(command, self.now)
        self._past = [*self._past[-40:], (trio.current_time(), self.records.copy())]
        moving = [entry for entry in self.records.routers.values() if entry.split(" ")[2:] not in (["giving", "-"],)]
        assert sum(entry.split(" ")[2] == "giving" for entry in moving) <= 1, "several routers move at once"
        return reply

    def fail_over(self, loss: float) -> None:
        """Another server serves, which has not got what was written in the last `loss` seconds."""
        self.run += 1
        until = trio.current_time() - loss
        self.records = next((found for at, found in reversed(self._past) if at <= until), Records()).copy()

    def part(self, hosts: list[SimulatedHost]) -> None:
        """A replica is promoted, and these hosts still take the old server for the primary, which has no replica."""
        old, run = self.records.copy(), self.run
        self.fail_over(0.0)
        for host in hosts:
            host.old = old, run

    # ------------------------------------------------------------------ hosts

    def start_host(self, **more: object) -> SimulatedHost:
        """A new one, with an ID of its own."""
        number = next(self._ids)
        name = f"{self.random.randrange(16**8):08x}{number:08x}"
        record = msgspec.structs.replace(Host(name, f"h{number}", f"h{number}:7400", "k"), **more)
        host = self.hosts[name] = SimulatedHost(self, record)
        self.nursery.start_soon(host.run)
        return host

    def split(self, *sides: list[SimulatedHost]) -> None:
        """Hosts of different sides do not reach each other from now on."""
        self.cut = {frozenset((one.id, two.id)) for a in sides for one in a for b in sides if b is not a for two in b}

    @property
    def snapshot(self) -> Snapshot:
        """What is in Redis now. It changes nothing."""
        entries = [part.encode() for key, text in self.records.routers.items() for part in (key, text)]
        members: list[object] = []
        for name, text in self.records.hosts.items():
            _, last, first = self.records.farm[f"h:{name}"].split(" ")
            members += [name.encode(), text, last.encode(), first.encode()]
        return snapshot([b"%d" % self.now, b"0", members, entries], self.routers, True)

    def settled(self) -> bool:
        """Whether every router is ready on one host that lives and may have it, all have their share, and no other
        process runs."""
        found = self.snapshot
        able = {
            host.id
            for host in self.hosts.values()
            if host.record.fit and not host.record.leaving and host.id not in isolated(found)
        }
        if found.members.keys() != self.hosts.keys() or len(found.placements) < self.routers:
            return False
        if not all(one.state is State.READY and one.host in able for one in found.placements.values()):
            return False
        for host in self.hosts.values():
            here = {number: one.epoch for number, one in found.placements.items() if one.host == host.id}
            if {number: process.epoch for number, process in host.processes.items()} != here:
                return False
        counts = [len(self.hosts[name].processes) for name in able]
        return max(counts) - min(counts) <= 1

    async def until_settled(self, seconds: float) -> float:
        """Wait for that. Returns: how long it took."""
        begin = trio.current_time()
        while not self.settled():
            assert trio.current_time() - begin < seconds, self.snapshot
            await trio.sleep(0.05)
        return trio.current_time() - begin


@dataclass
class Process:
    """A router's."""

    epoch: int
    ready_at: float
    ends_at: float = float("inf")
    killed: bool = False


@dataclass
class SimulatedHost:
    """A supervisor with its routers' processes."""

    world: World
    record: Host
    processes: dict[int, Process] = field(default_factory=dict)
    away: bool = False
    """It does not reach Redis."""
    asleep_until: float = 0.0
    """Its supervisor stands still; its processes do not."""
    old: tuple[Records, int] | None = None
    """A server that is no primary any more, which it takes for one."""
    joined: bool = False
    end: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.registry = Registry(self.world.settings, self.record, server=self, monotonic=trio.current_time)

    @property
    def id(self) -> str:
        return self.record.id

    def change(self, **more: object) -> None:
        """Something in its record."""
        self.record = msgspec.structs.replace(self.record, **more)

    def crash(self) -> None:
        """It ends at once, and all its processes."""
        self.end.cancel()
        del self.world.hosts[self.id]

    # ------------------------------------------------------------------ the way to Redis

    async def ask(self, command: Command) -> Answer:
        """As `router.cluster.server.Server` has it."""
        for _ in range(2):
            with suppress(StoreError):
                return await self._attempt(command)
            await trio.sleep(0.05)
        return await self._attempt(command)

    async def _attempt(self, command: Command) -> Answer:
        world, rng = self.world, self.world.random
        await trio.sleep(rng.uniform(0.0005, 0.02))
        if self.away or not world.up or rng.random() < world.faults.lost:
            if world.up and rng.random() < world.faults.late:
                world.nursery.start_soon(self._late, command)
            await trio.sleep(rng.uniform(0.0, LEASE / 3))
            raise StoreError("lost")
        if self.old is not None:
            records, run = self.old
            return Answer(records.call(command, world.now), f"{run}", trio.current_time() + _EPOCH, False)
        reply = world.call(command)
        at = trio.current_time() + _EPOCH
        await trio.sleep(rng.uniform(0.0005, 0.02))
        if rng.random() < world.faults.lost:
            raise StoreError("the answer was lost")
        return Answer(reply, f"{world.run}", at, True)

    async def _late(self, command: Command) -> None:
        await trio.sleep(self.world.random.uniform(0.0, 5.0))
        if self.world.up:
            self.world.call(command)

    def close(self) -> None:
        """There is nothing to be closed."""

    # ------------------------------------------------------------------ what its supervisor does

    async def run(self) -> None:
        """Until it has left, or is ended."""
        with self.end:
            await self._retried(self.registry.join)
            self.joined = True
            while True:
                await trio.sleep(max(0.0, self.asleep_until - trio.current_time()))
                try:
                    if await self._turn():
                        break
                except StoreError:
                    pass
                await trio.sleep(self.registry.pause * self.world.random.uniform(0.9, 1.1))
            await self._retried(self.registry.leave)
            del self.world.hosts[self.id]

    async def _retried(self, call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
                return
            except StoreError:
                await trio.sleep(0.2)

    async def _turn(self) -> bool:
        now = trio.current_time()
        self._reap(now)
        self.change(cut=frozenset(other for pair in self.world.cut if self.id in pair for other in pair - {self.id}))
        found = await self.registry.beat(
            self.record, {n: Mine(one.epoch, now >= one.ready_at) for n, one in self.processes.items()}
        )
        found = await self._carry_out(found)
        wishes = decide(found, self.id)
        if numbers := [wish.number for wish in wishes if isinstance(wish, Take)]:
            await self._carry_out(await self.registry.take(*numbers))
        for wish in wishes:
            if isinstance(wish, Give):
                await self._carry_out(await self.registry.give(wish.number, wish.to))
        held = any(one.host == self.id for one in found.placements.values())
        others = any(not host.record.leaving for host in self.world.hosts.values())
        return self.record.leaving and not self.processes and not (held and others)

    def _reap(self, now: float) -> None:
        for number in [n for n, one in self.processes.items() if one.ends_at <= now]:
            del self.processes[number]

    async def _carry_out(self, found: Snapshot) -> Snapshot:
        rng, now = self.world.random, trio.current_time()
        self._reap(now)
        todo = duties(found, self.id, {number: one.epoch for number, one in self.processes.items()})
        for place in todo.start:
            owner = self.world.places.setdefault((place.number, place.epoch), self.id)
            assert owner == self.id, "one placement, two hosts"
            self.processes[place.number] = Process(place.epoch, now + rng.uniform(0.2, 1.5))
            self.world.moves += 1
        for number in todo.stop:
            process = self.processes[number]
            process.ends_at = min(process.ends_at, now + rng.uniform(0.0, 0.3))
        for number in todo.hand_over:
            if number in self.processes:
                process = self.processes[number]
                process.ends_at = min(process.ends_at, now + rng.uniform(0.1, 1.5))
            else:
                found = await self.registry.gave(number)
        return found


def simulate(seed: int, routers: int, play: Callable[[World], Awaitable[None]]) -> World:
    """Run `play` in a world of its own, in no time. The same seed gives the same course."""
    world = World(seed, routers)
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # what trio has for Hypothesis
    _run._r.seed(seed)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world.nursery = nursery
            await play(world)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return world
