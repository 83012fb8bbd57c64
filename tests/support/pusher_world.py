"""Pusher over several routers and workers of which any may die, in one process: both sides of the dialect and all of
the core, with links, stores, clocks and deaths that a test carries step by step. Everything that is seen is checked."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from farm.worker.connection import CLOSING
from farm.worker.routes import Routes
from router.common import messages as m
from router.common.poller import BROKEN
from router.core.operations import Operations
from router.dialects.pusher.applications import App as Application
from router.dialects.pusher.applications import Webhook
from router.dialects.pusher.protocol import PusherOptions, channel_address
from router.dialects.pusher.webhooks.policy import Webhooks
from router.http.message import Response
from support.common import Clock, Rig
from support.pusher_app import APP, KEY, App
from support.pusher_device import made
from support.pusher_socket import Client
from support.shard import Shard
from support.step_link import StepLink, turn

PUBLIC = [f"room-{number}" for number in range(4)]
PRESENCE = [f"presence-{number}" for number in range(3)]
USERS = [f"user-{number}" for number in range(4)]
EXISTENCE = ("channel_occupied", "channel_vacated", "member_added", "member_removed")
OPPOSITE = {"channel_vacated": "channel_occupied", "member_removed": "member_added"}
LEASE_S, GRACE_S, HOLD_S = 5.0, 1.0, 2.0
Fact = tuple[str, str]
"""A channel and "", or a channel and one of its members."""


class Device(Client):
    """A client of a worker."""

    def __init__(self, worker: Worker, user: str) -> None:
        super().__init__(worker.shard, user)
        self.worker = worker


class Worker:
    """One life of a worker, with its links."""

    def __init__(self, world: World, number: int, life: int) -> None:
        self.routes = world.routes
        dialect = made(world.folder)
        self.shard = Shard(more={"/app/*": dialect}, named={"pusher": dialect}, routes=world.routes)
        rigs = [place.rig for place in world.places]
        self.links = [StepLink(self.shard, rig, router, number, life) for router, rig in enumerate(rigs)]
        self.lapsed = [0] * len(rigs)
        """How often each router gave it up, or lost what was on its way: then events may be missing."""
        self.out: set[int] = set()
        """Routers that know all workers, gave this one up, and do not know it yet."""

    def lapse(self, place: Place, arrives: bool) -> None:
        """A router gives it up."""
        self.lapsed[place.number] += 1
        if place.rig.hub.settling.over:
            self.out.add(place.number)
        self.links[place.number].lapse(arrives, False)

    def rejoin(self, number: int) -> None:
        """It joins this router."""
        self.turn()
        self.links[number].rejoin()
        self.out.discard(number)

    def turn(self) -> None:
        turn(self.shard, self.routes, self.links)


class Place:
    """A router's number: its lives follow each other, here or on another host, on one store."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.rig = Rig(router=number, routers=world.routers, clock=world.clock, workers=world.workers_expected)
        self.rig.store.hold()
        self.alive = False
        self.asked: dict[int, Callable[[int, bytes], None]] = {}
        """Operations of other routers that are not answered."""
        self.lives = 0
        self.since = 0.0
        self._running = trio.CancelScope()

    async def begin(self) -> None:
        """The next life."""
        rig, world = self.rig, self.world
        if self.lives:
            rig.store.release()
            await rig.committer_restarts()
            rig.store.hold()
            rig.router_restarts()
        else:
            await rig.committer.open()
        self.lives += 1
        self.alive = True
        self.since = world.clock.monotonic()
        rig.hub.core.operations._ask = world.ask
        self.app = App(rig, world.folder, [APP])
        options = PusherOptions(webhook_hold=HOLD_S, webhook_retry=100_000)
        self.hooks = Webhooks([world.application], options, rig.hub.core, world.clock.monotonic, world.clock.unix)
        add = self.hooks._add

        def told(app: str, event: str, fields: dict[str, Any], *kept: Callable[[], None]) -> None:
            world.tells(self, event, fields)
            add(app, event, fields, *kept)

        self.hooks._add = told  # type: ignore[method-assign]
        rig.hub.channels.observe("pusher", self.hooks)
        self.hooks.restore()
        self._running = trio.CancelScope()
        world.nursery.start_soon(self._run)
        await self.commit()

    async def _run(self) -> None:
        with self._running:
            await self.rig.committer.run(self.rig.flushed)

    def die(self) -> None:
        """What was not committed is lost, and so is what waits to be sent, and what came for it."""
        self.alive = False
        self._running.cancel()
        asked, self.asked = self.asked, {}
        for answered in asked.values():  # who has asked finds out
            answered(m.UNREACHED, b"")

    async def commit(self) -> None:
        if self.alive:
            self.rig.store.release()
            await self.rig.settle()
            self.rig.store.hold()

    def tick(self) -> None:
        if self.alive:
            self.rig.hub.tick()
            self.hooks.tick()
            self.app.have_turns()

    def take_webhooks(self) -> None:
        """The webhook's server is there for a moment."""
        for outbox in self.hooks.outboxes if self.alive else ():
            while body := outbox.take():
                for event in json.loads(body)["events"]:
                    self.world.received.append((event["name"], event["channel"], event.get("user_id", "")))
                self.hooks.advance(outbox, outbox.taken())


class Asked:
    """A request of an app server at one life of a router."""

    def __init__(
        self, world: World, place: Place, kind: str, channel: str, event: int, answers: list[Response]
    ) -> None:
        self.kind = kind
        self.channel = channel
        self.event = event
        self.answers = answers
        self.life = place, place.lives
        self.steady = world.steady()


class World:
    """Everything. `steady` is what must be seen: clients that have been subscribed all the time, of workers that no
    router has given up."""

    def __init__(self, seed: int, folder: Path, nursery: trio.Nursery) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.nursery = nursery
        self.clock = Clock()
        routers, workers = 1 + seed % 3, 2 + seed % 2
        self.routers = routers
        self.routes = Routes(routers)
        self.workers_expected = workers
        hook = Webhook("http://hooks.example/one", frozenset(EXISTENCE))
        self.application = Application("3", "three", KEY, APP["secret"], webhooks=(hook,))
        self.places: list[Place] = []
        self.places += [Place(self, number) for number in range(routers)]
        self.workers: list[Worker | None] = [None] * workers
        self.lives = 0
        self.clients: list[Device] = []
        self.asked: list[Asked] = []
        self.events = 0
        self.forwards = 0
        self.published: list[tuple[Asked, dict[tuple[Device, str], tuple[int, ...]]]] = []
        self.told: dict[Fact, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
        self.wrong: list[str] = []
        """What was seen where nothing can be raised."""
        self.received: list[tuple[str, str, str]] = []
        self.statuses: dict[str, int] = defaultdict(int)

    async def begin(self) -> None:
        for place in self.places:
            await place.begin()
            place.hooks.told.begun = True  # as of a farm that was there before
        for number in range(len(self.workers)):
            self.start_worker(number)

    def close(self) -> None:
        for worker in self.workers:
            if worker is not None:
                worker.shard.close()

    # ------------------------------------------------------------------ routers ask each other

    def ask(
        self, owner: int, dialect: str, key: bytes, operation: bytes, answered: Callable[[int, bytes], None]
    ) -> None:
        place = self.places[owner]
        if not place.alive:
            answered(m.UNREACHED, b"")
            return
        operations: Operations = place.rig.hub.core.operations
        number = self.forwards = self.forwards + 1
        place.asked[number] = answered

        def reply(status: int, reply: bytes | None) -> None:
            if place.asked.pop(number, None) is not None:
                answered(status, reply or b"")

        operations.perform(dialect, key, operation, reply)

    # ------------------------------------------------------------------ what happens

    def start_worker(self, number: int) -> None:
        self.workers[number] = Worker(self, number, self.lives)
        self.lives += 1

    def kill_worker(self, number: int) -> None:
        worker = self.workers[number]
        if worker is not None:
            self.workers[number] = None
            for client in self.clients:
                if client.worker is worker:
                    client.go()
            worker.shard.close()

    def kill_router(self, place: Place) -> None:
        if not place.alive:
            return
        place.die()
        for worker in self.there():
            arrives = self.chance.random() < 0.5
            link = worker.links[place.number]
            worker.out.discard(place.number)
            if not arrives:
                worker.lapsed[place.number] += 1
            if not link.away:
                link.lapse(arrives, False)

    def there(self) -> list[Worker]:
        return [worker for worker in self.workers if worker is not None]

    def links(self) -> list[tuple[Worker, StepLink]]:
        """Those to routers that live."""
        return [(worker, link) for worker in self.there() for link in worker.links if self.places[link.router].alive]

    def pass_by(self, seconds: float) -> None:
        self.clock.pass_by(seconds)
        for worker in self.there():
            worker.shard.clock.pass_by(seconds)
            worker.shard.sockets.tick()
        for _, link in self.links():
            if not link.away:
                link.beat()
        for place in self.places:
            place.tick()

    def request(self, kind: str, channel: str) -> None:
        place = self.chance.choice(self.places)
        if not place.alive:
            return
        self.events += 1
        asked = Asked(self, place, kind, channel, self.events, [])
        if kind == "publish":
            body = {"name": "news", "channel": channel, "data": str(self.events)}
            asked.answers = place.app.call("POST", "/apps/3/events", body)
        elif kind == "list":
            asked.answers = place.app.call("GET", "/apps/3/channels", info="subscription_count")
        else:
            asked.answers = place.app.call("GET", f"/apps/3/channels/{channel}/users")
        self.asked.append(asked)

    # ------------------------------------------------------------------ what must be

    def owner(self, channel: str) -> Place:
        return self.places[self.routes.owner(channel_address("3", channel))]

    def steady(self) -> dict[tuple[Device, str], tuple[int, ...]]:
        """Clients in channels whose owners know them, or will not answer before they do; with what changes if not."""
        found: dict[tuple[Device, str], tuple[int, ...]] = {}
        for client in self.clients:
            for channel in client.joined:
                place = self.owner(channel)
                link = client.worker.links[place.number]
                known = place.alive and not link.away
                waited_for = self.clock.monotonic() - place.since < LEASE_S or not place.alive
                if place.number not in client.worker.out and (known or waited_for):
                    found[client, channel] = (client.worker.lapsed[place.number], client.since[channel])
        return found

    def still(self, before: dict[tuple[Device, str], tuple[int, ...]]) -> dict[str, list[Device]]:
        """By channel, those that were steady then and are now."""
        now = self.steady()
        found: dict[str, list[Device]] = defaultdict(list)
        for (client, channel), lapsed in before.items():
            if now.get((client, channel)) == lapsed:
                found[channel].append(client)
        return found

    def look(self) -> None:
        """After each step: what routers have for workers is taken before they answer, as their shells do; all that is
        seen is checked."""
        assert not self.wrong, self.wrong
        for _, link in self.links():
            if not link.away:
                link._take()
        for client in self.clients:
            client.receive()
        self.clients = [client for client in self.clients if not client.closed]
        open_requests = []
        for asked in self.asked:
            place, life = asked.life
            if asked.answers:
                self.check_answer(asked, asked.answers[0])
            elif place.alive and place.lives == life:
                open_requests.append(asked)
        self.asked = open_requests

    def check_answer(self, asked: Asked, answer: Response) -> None:
        assert answer.status in (200, 503), answer
        self.statuses[f"{asked.kind} {answer.status}"] += 1
        if answer.status != 200:
            return
        still = self.still(asked.steady)
        if asked.kind == "publish":
            steady = {
                (client, channel): lapsed
                for (client, channel), lapsed in asked.steady.items()
                if channel == asked.channel
            }
            self.published.append((asked, steady))
        elif asked.kind == "list":
            found = json.loads(answer.body)["channels"]
            for channel, clients in still.items():
                assert channel in found, f"{channel} is missing in a listing"
                if channel in PUBLIC:
                    assert found[channel]["subscription_count"] >= len(clients)
        else:
            users = {user["id"] for user in json.loads(answer.body)["users"]}
            assert {client.user for client in still[asked.channel]} <= users, "a member is missing"

    def tells(self, place: Place, event: str, fields: dict[str, Any]) -> None:
        """A webhook is told something now."""
        channel, user = fields["channel"], fields.get("user_id", "")
        lives = tuple(place.lives for place in self.places)
        told = self.told[channel, user]
        there = any(joined == channel and user in ("", client.user) for client, joined in self.steady())
        if event in OPPOSITE and there:
            self.wrong.append(f"{event} of {channel} {user}, which is there")
        if told:
            last, when = told[-1]
            if last == event and when == lives:
                self.wrong.append(f"{event} of {channel} {user} was told twice")
        told.append((event, lives))

    # ------------------------------------------------------------------ the end

    async def settle(self) -> None:
        """Until all is well and nothing is left to do."""
        for place in self.places:
            if not place.alive:
                await place.begin()
        for number, worker in enumerate(self.workers):
            if worker is None:
                self.start_worker(number)
        for _ in range(40):
            for worker in self.there():
                worker.turn()
                for link in worker.links:
                    if link.away:
                        worker.rejoin(link.router)
                    link.up()
            for place in self.places:
                await place.commit()
                place.take_webhooks()
            self.look()
            for _, link in self.links():
                link.down(1000)
            for worker in self.there():
                worker.turn()
                sockets = worker.shard.sockets
                open_here = {client.fd for client in self.clients if client.worker is worker}
                for fd, connection in list(sockets.connections.items()):
                    if connection.phase == CLOSING or fd not in open_here:
                        sockets.ready(fd, BROKEN)
                worker.turn()
            self.pass_by(0.5)
            self.look()

    async def check(self) -> None:
        """What is seen in the end, when all is well."""
        present: dict[str, set[str]] = {channel: set() for channel in (*PUBLIC, *PRESENCE)}
        occupied: dict[str, int] = defaultdict(int)
        for client in self.clients:
            assert set(client.joined) == client.asked
            for channel in client.joined:
                occupied[channel] += 1
                present[channel].add(client.user)
        for client in self.clients:
            for channel, members in client.joined.items():
                assert members == (present[channel] if channel in PRESENCE else set()), (channel, members, present)
        for place in self.places:
            channels = place.rig.hub.channels
            assert not place.rig.hub.counters.operations_held
            for channel in (*PUBLIC, *PRESENCE):
                key, mine = channel_address("3", channel), self.owner(channel) is place
                assert channels.count(key) == (occupied[channel] if mine else 0), channel
                assert set(channels.members(key)) == (present[channel] if mine and channel in PRESENCE else set())
        for asked, steady in self.published:
            for client in self.still(steady)[asked.channel]:
                assert asked.event in client.had, f"event {asked.event} of {asked.channel} did not come"
        self.check_webhooks(occupied, present)
        for worker in self.there():
            assert worker.shard.counters.connections_failed == worker.shard.counters.messages_failed == 0

    def check_webhooks(self, occupied: dict[str, int], present: dict[str, set[str]]) -> None:
        last: dict[Fact, str] = {}
        for name, channel, user in self.received:
            last[channel, user] = name
        for channel in (*PUBLIC, *PRESENCE):
            there = last.get((channel, "")) == "channel_occupied"
            assert there == bool(occupied[channel]), (channel, occupied[channel], self.told[channel, ""])
        for channel in PRESENCE:
            for user in USERS:
                there = last.get((channel, user)) == "member_added"
                assert there == (user in present[channel]), (channel, user, self.told[channel, user])
