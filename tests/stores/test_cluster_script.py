"""The script with the records of a cluster, on real servers, against what the simulations have instead of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from support.cluster_records import Records
from support.redis_servers import PRODUCTS, RedisServer, shared_server

from router.cluster import records
from router.cluster.membership import FREE, Host, Mine, State
from router.cluster.records import Action, Command
from router.common.redis_address import Address
from router.store.redis_connection import Reply, checked, connect

LEASE = 3.0
HOSTS = [Host(letter * 16, letter, f"{letter}:7400", "k") for letter in "abcd"]
DAMAGE = ("", "x", "1 2", "99999999999999999999 - ready -", "-1 - ready -", "5 nobody flying -", "1 2 3 4", "9" * 15)
_TIME = "local time = call('TIME')\nlocal now = time[1] * 1000 + floor(time[2] / 1000)"


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest) -> RedisServer:
    return shared_server(request.param)


def step(rng: random.Random, prefix: str, model: Records, now: int) -> Command:
    """What a host, or one that is none yet, may call."""
    host = rng.choice(HOSTS)
    if rng.random() < 0.1:
        return rng.choice((records.look(prefix, LEASE), records.leave(prefix, LEASE, host.id)))
    epochs = {key: text.split(" ")[0] for key, text in model.routers.items()}

    def epoch(number: int) -> int:
        found = epochs.get(f"{number}", "")
        return (int(found) if found.isdigit() and len(found) < 17 else now * 1000) + rng.choice((0, 0, 0, 0, -800, 900))

    mine = {number: Mine(epoch(number), rng.random() < 0.8) for number in rng.sample(range(5), rng.randrange(3))}
    actions = []
    for _ in range(rng.randrange(3)):
        number, to = rng.randrange(5), rng.choice((FREE, *(one.id for one in HOSTS)))
        actions.append(Action(rng.choice(("take", "give", "give", "gave")), number, epoch(number), to))
    return records.beat(prefix, LEASE, host, mine, actions)


def in_order(reply: Reply) -> object:
    """Hashes have none."""
    if not isinstance(reply, list):
        return reply
    now, clock, members, places = reply
    return now, clock, grouped(members, 4), grouped(places, 2)


def grouped(flat: Sequence[object], width: int) -> list[tuple[object, ...]]:
    return sorted(zip(*(flat[at::width] for at in range(width)), strict=True), key=repr)


@pytest.mark.parametrize("seed", range(2))
def test_it_does_what_the_simulation_has(server: RedisServer, seed: int) -> None:
    text = records.cluster_script().text
    assert _TIME in text
    text = text.replace(_TIME, "local now = tonumber(table.remove(ARGV))")
    rng = random.Random(seed)
    prefix = f"script-{seed}"

    async def main() -> dict[str, int]:
        model, now = Records(), 1_700_000_000_000
        connection = await connect(Address("127.0.0.1", server.port), 5.0)
        name = await connection.ask("SCRIPT", "LOAD", text)
        seen: Counter[str] = Counter()
        for _ in range(200):
            now += rng.choice((0, 1, 90, 90, 200, 200, 300, 750, 750, 2000, 9000, -5000))
            if rng.random() < 0.05:  # somebody writes into it
                of_routers, damage = rng.random() < 0.5, rng.choice(DAMAGE)
                field = rng.choice(("0", "3", "x", "1000") if of_routers else ("clock", "seen", "grace", "h:x"))
                await connection.ask("HSET", records.keys(prefix)[1 if of_routers else 2], field, damage)
                (model.routers if of_routers else model.farm)[field] = damage
            command = step(rng, prefix, model, now)
            expected = in_order(model.call(command, now))
            got = checked(await connection.ask("EVALSHA", name, *command[2:], now), "")
            assert in_order(got) == expected
            seen.update(text.split()[2] for text in model.routers.values())
        connection.abandon()
        return seen

    seen = trio.run(main)
    assert min(seen[state] for state in State) > 5, "the steps reach too little"
