"""Devices of two workers and several routers, whatever comes between: nothing is lost, nothing comes twice on one
connection, and the newest connection of a device stays."""

from __future__ import annotations

import json
import random
import uuid
from collections import defaultdict
from typing import Any

import pytest
import trio
from support.common import DELIVERY_TIMEOUT_S, Clock, Rig, settings_with
from support.often import often
from support.shard import Shard
from support.shard_client import ShardClient
from support.step_link import StepLink, turn

import farm.dialects.simplepush
from farm.dialects import Context, Dialect
from farm.worker.connection import CLOSING
from farm.worker.routes import Routes
from router.common.metrics import WorkerCounters
from router.common.poller import BROKEN
from router.common.token import Tokens
from router.core.pushes import DELIVERED, STORED

SEEDS = often(20)
WORKERS = 2
UAIDS = [uuid.UUID(int=number, version=4).hex for number in range(1, 7)]
KEYS = [bytes.fromhex(uaid) for uaid in UAIDS]
CHANNELS = [str(uuid.UUID(int=number, version=4)) for number in range(2)]
STEPS = {
    "hello": 12,
    "leave": 6,
    "push": 30,
    "ack": 20,
    "commit": 25,
    "up": 25,
    "down": 25,
    "turn": 20,
    "lapse": 5,
    "restart": 2,
    "rejoin": 10,
    "shut": 3,
}


def made(clock: Clock, counters: WorkerCounters) -> Dialect:
    return farm.dialects.simplepush.SIDE.make(Context(settings_with(), Tokens([b"k" * 32]), counters, clock.unix))


class Client(ShardClient):
    """A connection of a device, which checks what it is sent."""

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(worker.shard, "/")
        self.number = number
        self.attached = False
        self.unacked: list[tuple[str, int]] = []
        self.had: set[tuple[str, int]] = set()
        self._send(messageType="hello", uaid=UAIDS[number], channelIDs=[])

    def _send(self, **command: Any) -> None:
        self._socket.send(json.dumps(command))

    def ack(self) -> None:
        if self.unacked:
            self._send(
                messageType="ack", updates=[{"channelID": slot, "version": version} for slot, version in self.unacked]
            )
            self.unacked.clear()

    def _told(self, told: dict[str, Any]) -> None:
        if told["messageType"] == "hello":
            assert (told["status"], self.attached) == (200, False)
            self.attached = True
            return
        assert self.attached, "the reply to hello comes first"
        for one in told["updates"]:
            update = one["channelID"], one["version"]
            assert update not in self.had, f"{update} came twice on one connection"
            self.had.add(update)
            self.unacked.append(update)


class Worker:
    """One, with its links."""

    def __init__(self, number: int, rigs: list[Rig], routes: Routes) -> None:
        self.routes = routes
        self.shard = Shard(made=made, routes=routes)
        self.links = [StepLink(self.shard, rig, router, number) for router, rig in enumerate(rigs)]
        self.slow: set[int] = set()
        """Routers that do not keep up with it."""

    def turn(self) -> None:
        turn(self.shard, self.routes, self.links, self.slow)


class World:
    def __init__(self, routers: int, chance: random.Random, nursery: trio.Nursery) -> None:
        clock = Clock()
        self.nursery = nursery
        self.running: dict[Rig, trio.CancelScope] = {}
        self.chance = chance
        self.routes = Routes(routers)
        self.rigs = [Rig(router=router, routers=routers, clock=clock) for router in range(routers)]
        for rig in self.rigs:
            rig.store.hold()
            self.run(rig)
        self.workers = [Worker(number, self.rigs, self.routes) for number in range(WORKERS)]
        self.clients: list[Client] = []
        self.versions = 0
        self.pushes: list[tuple[int, str, int, list[int]]] = []
        self.received: dict[tuple[int, str], int] = defaultdict(int)

    def run(self, rig: Rig) -> None:
        """Have its committer run."""
        scope = self.running[rig] = trio.CancelScope()

        async def run() -> None:
            with scope:
                await rig.committer.run(rig.flushed)

        self.nursery.start_soon(run)

    async def restart(self, rig: Rig) -> None:
        """Another life of a router: what was not committed is lost with the one before."""
        self.running[rig].cancel()
        rig.store.release()
        await rig.committer_restarts()
        rig.store.hold()
        rig.router_restarts()
        rig.hub.begin_after(rig.committer.newest)
        self.run(rig)

    def close(self) -> None:
        for worker in self.workers:
            worker.shard.close()

    def link(self) -> StepLink:
        return self.chance.choice(self.chance.choice(self.workers).links)

    async def do(self, step: str) -> None:
        chance = self.chance
        worker = chance.choice(self.workers)
        link = chance.choice(worker.links)
        if step == "hello" and len(self.clients) < 20:
            for each in self.workers:
                each.shard.clock.pass_by(0.01)
            self.clients.append(Client(worker, chance.randrange(len(UAIDS))))
        elif step == "leave" and self.clients:
            chance.choice(self.clients).go()
        elif step == "push":
            self.push(chance.randrange(len(UAIDS)), chance.choice(CHANNELS))
        elif step == "ack" and self.clients:
            chance.choice(self.clients).ack()
        elif step == "commit":
            await self.commit(chance.choice(self.rigs))
        elif step == "up" and not link.away:
            link.up()
        elif step == "down" and not link.away:
            link.down(chance.choice([1, 2, 1000]))
        elif step == "turn":
            worker.turn()
        elif step == "lapse" and not link.away:
            link.lapse(chance.random() < 0.5, False)
        elif step == "restart":
            for each in self.workers:
                if not each.links[link.router].away:
                    each.links[link.router].lapse(chance.random() < 0.5, False)
            await self.restart(link.rig)
        elif step == "rejoin" and link.away:
            worker.turn()
            link.rejoin()
        elif step == "shut":
            worker.slow ^= {link.router}
        self.read()

    def push(self, number: int, slot: str) -> None:
        self.versions += 1
        rig = self.rigs[self.routes.owner(KEYS[number])]
        self.pushes.append((number, slot, self.versions, rig.push(KEYS[number], slot, self.versions)))

    async def commit(self, *rigs: Rig) -> None:
        for rig in rigs:
            rig.store.release()
        await rigs[0].settle()
        for rig in rigs:
            rig.store.hold()

    def read(self) -> None:
        for client in self.clients:
            client.receive()
            for slot, version in client.had:
                self.received[client.number, slot] = max(self.received[client.number, slot], version)
        self.clients = [client for client in self.clients if not client.closed]

    async def settle(self) -> None:
        """Until there is nothing left to do."""
        quiet = 0
        while quiet < 3:
            for worker in self.workers:
                worker.slow.clear()
                worker.turn()
                for link in worker.links:
                    if link.away:
                        link.rejoin()
                    link.up()
            await self.commit(*self.rigs)
            for worker in self.workers:
                for link in worker.links:
                    link.down(1000)
                worker.turn()
                sockets = worker.shard.sockets
                open_here = {client.fd for client in self.clients}
                for fd, connection in list(sockets.connections.items()):
                    if connection.phase == CLOSING or fd not in open_here:
                        sockets.ready(fd, BROKEN)  # its client has gone
                worker.turn()
            self.read()
            links = [link for worker in self.workers for link in worker.links]
            quiet = quiet + 1 if all(link.quiet for link in links) else 0

    async def check(self) -> None:
        by_device: dict[int, list[Client]] = defaultdict(list)
        for client in self.clients:
            assert client.attached
            by_device[client.number].append(client)
        for number, key in enumerate(KEYS):
            clients = by_device[number]
            assert len(clients) <= 1, "an older connection has stayed"
            for router, rig in enumerate(self.rigs):
                there = rig.hub.map.device(key) is not None
                assert there == (bool(clients) and router == self.routes.owner(key))
        for worker in self.workers:
            attachments = worker.shard.sockets._attachments
            assert not attachments._calls and not attachments._attaching
            assert not worker.shard.sockets._backpressure.waiting
            assert worker.shard.counters.connections_failed == worker.shard.counters.messages_failed == 0
        inboxes = [dict(await self.rigs[self.routes.owner(key)].inbox(key)) for key in KEYS]
        accepted = 0
        for number, slot, version, outcomes in self.pushes:
            assert len(outcomes) <= 1
            if outcomes and outcomes[0] in (DELIVERED, STORED):  # one whose router has died has none
                accepted += 1
                newest = max(self.received[number, slot], inboxes[number].get(slot, 0))
                assert newest >= version, f"{version} of {slot} is lost"
        assert accepted > 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_comes_between_each_device_has_what_was_accepted_for_it(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(1 + seed % 3, chance, nursery)
            try:
                for _ in range(300):
                    await world.do(*chance.choices(list(STEPS), list(STEPS.values())))
                await world.settle()
                for number in range(len(UAIDS)):
                    world.push(number, CHANNELS[0])
                await world.settle()
                world.rigs[0].clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)  # no report of a worker is waited for any longer
                for rig in world.rigs:
                    rig.hub.tick()
                    rig.store.release()
                await world.check()
            finally:
                world.close()
                nursery.cancel_scope.cancel()

    trio.run(main)
