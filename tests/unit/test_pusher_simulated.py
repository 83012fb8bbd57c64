"""Several routers and workers of which any may die at any moment, and devices and app servers that go on: what each of
them sees. Each seed is one history."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import trio
from support.often import often
from support.pusher_world import PRESENCE, PUBLIC, USERS, Device, World

SEEDS = often(10)
STEPS = {
    "connect": 10,
    "subscribe": 25,
    "unsubscribe": 8,
    "leave": 4,
    "publish": 20,
    "list": 6,
    "users": 6,
    "commit": 25,
    "up": 40,
    "down": 40,
    "turn": 40,
    "time": 15,
    "webhook": 5,
    "lapse": 1,
    "kill router": 2,
    "kill worker": 1,
    "kill host": 1,
    "start": 10,
    "rejoin": 20,
}


async def step(world: World, kind: str) -> None:
    chance = world.chance
    number = chance.randrange(len(world.workers))
    worker = world.workers[number]
    place = chance.choice(world.places)
    channel = chance.choice((*PUBLIC, *PRESENCE))
    link = None if worker is None or not place.alive else worker.links[place.number]
    if kind == "connect" and worker is not None and len(world.clients) < 12:
        world.clients.append(Device(worker, chance.choice(USERS)))
    elif kind in ("subscribe", "unsubscribe", "leave") and world.clients:
        client = chance.choice(world.clients)
        if kind == "subscribe":
            client.subscribe(channel)
        elif kind == "unsubscribe":
            client.unsubscribe(channel)
        else:
            client.go()
    elif kind in ("publish", "list"):
        world.request(kind, channel)
    elif kind == "users":
        world.request(kind, chance.choice(PRESENCE))
    elif kind == "commit":
        await place.commit()
    elif kind == "turn" and worker is not None:
        worker.turn()
    elif kind == "time":
        world.pass_by(chance.choice((0.1, 0.1, 0.5)))
    elif kind == "webhook":
        place.take_webhooks()
    elif kind == "kill router":
        world.kill_router(place)
    elif kind == "kill worker":
        world.kill_worker(number)
    elif kind == "kill host":
        world.kill_worker(number)
        world.kill_router(place)
    elif kind == "start":
        if not place.alive:
            await place.begin()
        if worker is None:
            world.start_worker(number)
    elif link is not None and worker is not None:
        if kind == "rejoin" and link.away:
            worker.rejoin(place.number)
        elif kind == "up" and not link.away:
            link.up()
        elif kind == "down" and not link.away:
            link.down(chance.choice((1, 3, 1000)))
        elif kind == "lapse" and not link.away:
            worker.lapse(place, chance.random() < 0.5)
    world.look()


async def history(seed: int, folder: Path, steps: int = 400) -> World:
    async with trio.open_nursery() as nursery:
        world = World(seed, folder, nursery)
        try:
            await world.begin()
            for _ in range(steps):
                await step(world, *world.chance.choices(list(STEPS), list(STEPS.values())))
            await world.settle()
            await world.check()
        finally:
            world.close()
            nursery.cancel_scope.cancel()
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whoever_dies_all_see_what_is_there(seed: int, tmp_path: Path) -> None:
    trio.run(history, seed, tmp_path)


def test_the_histories_have_all_that_may_happen(tmp_path: Path) -> None:
    """What the seeds above show would be little if no request was answered well, or no webhook told anything."""
    statuses: dict[str, int] = defaultdict(int)
    received: set[str] = set()
    lives = 0
    for seed in range(3):
        world = trio.run(history, seed, tmp_path)
        for name, number in world.statuses.items():
            statuses[name] += number
        received |= {name for name, _, _ in world.received}
        lives += sum(place.lives for place in world.places)
    assert min(statuses[f"{kind} 200"] for kind in ("publish", "list", "users")) > 5
    assert len(received) == 4
    assert lives > 10
