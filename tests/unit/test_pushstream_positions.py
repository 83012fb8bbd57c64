"""Clients with one time and tag for channels of several routers, whose events come in any order: they miss nothing."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from support.often import often
from support.pushstream_positions import CHANNELS, Poller, PositionFarm, Reader, Source, complete, farm_of_two

SEEDS = often(4)
STEPS = {"publish": 30, "commit": 20, "up": 20, "down": 25, "comes": 12, "goes": 2, "lapse": 1, "rejoin": 4}
IMMEDIATELY = "X-Nginx-PushStream-Mode: polling"
KINDS: dict[str, Callable[[PositionFarm], Reader]] = {
    "long polls": Poller,
    "polls": lambda farm: Poller(farm, IMMEDIATELY),
    "event sources": Source,
}


async def walk(farm: PositionFarm, readers: list[Reader], chance: random.Random, steps: int) -> None:
    for _ in range(steps):
        (name,) = chance.choices(list(STEPS), list(STEPS.values()))
        router, reader = chance.randrange(2), chance.choice(readers)
        away = farm.links[router].away
        if name == "publish":
            farm.publish(chance.choice(CHANNELS))
        elif name == "commit":
            await farm.commit(router)
        elif name == "up" and not away:
            farm.up(router)
        elif name == "down" and not away:
            farm.down(router, chance.choice((1, 2, 1000)))
        elif name == "comes":
            reader.comes()
        elif name == "goes":
            reader.goes()
        elif name == "lapse" and not away:
            farm.links[router].lapse(chance.random() < 0.5, chance.random() < 0.5)
        elif name == "rejoin" and away:
            farm.rejoin(router)
        for one in readers:
            one.receive()


async def end(farm: PositionFarm, readers: list[Reader]) -> None:
    """They come until they have everything."""
    for _ in range(60):
        for reader in readers:
            reader.comes()
        await farm.settle()
        for reader in readers:
            reader.receive()
        if complete(farm, readers):
            return
    raise AssertionError([(reader.had, farm.published) for reader in readers])


async def run(kind: str, seed: int, **worker: Any) -> list[Reader]:
    async with farm_of_two(**worker) as farm:
        readers = [KINDS[kind](farm) for _ in range(3)]
        await farm.settle()
        await walk(farm, readers, random.Random(seed), 400)
        await end(farm, readers)
        return readers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", [65536, 1024])
def test_nothing_is_missing(kind: str, page: int) -> None:
    for seed in range(SEEDS):
        readers = trio.run(partial(run, kind, seed, write_buffer_bytes=page))
        if kind != "event sources":
            assert not any(reader.doubles for reader in readers)


async def an_event_that_is_in_no_log() -> None:
    async with farm_of_two() as farm:
        poller = Poller(farm)
        farm.publish(CHANNELS[0])
        await farm.settle()
        poller.receive()
        before = poller.place
        poller.comes()
        await farm.settle()
        farm.publish(CHANNELS[1])
        await farm.commit(1)  # and is not here yet
        farm.send_unlogged(CHANNELS[0], "1")
        farm.down(0)
        poller.receive()
        assert (poller.doubles, poller.place) == (1, before)
        await end(farm, [poller])


def test_an_event_that_is_in_no_log_is_the_answer_at_once_and_leaves_the_client_where_it_is() -> None:
    trio.run(an_event_that_is_in_no_log)
