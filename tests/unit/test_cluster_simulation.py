"""Many hosts that come, go, die and are cut, with a Redis that fails: each router finds its place, and stays there."""

from __future__ import annotations

import pytest
import trio
from support.cluster_records import Records
from support.cluster_simulation import LEASE, SimulatedHost, World, simulate
from support.often import often

BEAT = LEASE / 4


async def started(world: World, hosts: int) -> list[SimulatedHost]:
    """So many hosts, and all routers on them."""
    found = [world.start_host() for _ in range(hosts)]
    await world.until_settled(4 * LEASE + 8 * world.routers)
    return found


async def stays(world: World, seconds: float = 30.0) -> None:
    """Nothing moves."""
    before, moves = world.snapshot.placements, world.moves
    await trio.sleep(seconds)
    assert world.settled()
    assert (world.snapshot.placements, world.moves) == (before, moves)


@pytest.mark.parametrize(("hosts", "routers"), [(1, 1), (1, 8), (2, 3), (3, 3), (5, 3), (4, 20)])
def test_all_find_their_place(hosts: int, routers: int) -> None:
    async def play(world: World) -> None:
        first = [world.start_host()]
        await trio.sleep(world.random.uniform(0.0, 2 * BEAT))
        first += [world.start_host() for _ in range(hosts - 1)]
        await world.until_settled(2 * LEASE + 4.0 * routers)
        await stays(world)

    simulate(hosts, routers, play)


def test_what_a_host_had_that_died_is_elsewhere_soon() -> None:
    async def play(world: World) -> None:
        hosts = await started(world, 5)
        hosts[2].crash()
        # A lease, of which a part was over; the start of a process, and a beat until that is told.
        assert await world.until_settled(60) < LEASE + 1.5 + BEAT + 0.3
        await stays(world)
        world.start_host()
        await world.until_settled(60)
        await stays(world)

    for seed in range(often(2)):
        simulate(seed, 8, play)


def test_one_that_leaves_hands_over_one_after_another() -> None:
    async def play(world: World) -> None:
        hosts = await started(world, 3)
        hosts[0].change(leaving=True)
        while hosts[0].id in world.hosts:
            await trio.sleep(0.01)
            # On its way from one host to the next a router is placed all the time.
            assert all(one.host in world.snapshot.members for one in world.snapshot.placements.values())
        await world.until_settled(30)
        await stays(world)

    for seed in range(often(2)):
        simulate(seed, 7, play)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 4.0, 60.0])
@pytest.mark.parametrize("kept", [True, False])
def test_while_redis_is_away_nothing_moves(seconds: float, kept: bool) -> None:
    async def play(world: World) -> None:
        await started(world, 4)
        before = {number: (one.host, one.epoch) for number, one in world.snapshot.placements.items()}
        moves = world.moves
        world.up = False
        await trio.sleep(seconds)
        if not kept:
            world.fail_over(1e9)  # the next server has nothing at all
        world.up = True
        await world.until_settled(3 * LEASE)
        assert {number: (one.host, one.epoch) for number, one in world.snapshot.placements.items()} == before
        assert world.moves == moves
        await stays(world)

    for seed in range(often(1 if seconds > LEASE else 3)):
        simulate(seed, 6, play)


def test_a_server_that_has_lost_all_and_runs_on_is_told_anew() -> None:
    async def play(world: World) -> None:
        await started(world, 4)
        before, moves = world.snapshot.placements, world.moves
        world.records = Records()
        await trio.sleep(10 * LEASE)
        assert (world.snapshot.placements, world.moves) == (before, moves)
        assert world.settled()

    for seed in range(3):
        simulate(seed, 6, play)


@pytest.mark.parametrize("step", [-3600.0, -1.0, 2.0, 1e8])
def test_a_step_of_its_clock_moves_nothing(step: float) -> None:
    async def play(world: World) -> None:
        await started(world, 3)
        world.clock += step
        await stays(world)

    simulate(1, 6, play)


def test_a_supervisor_that_stood_still_begins_anew_with_what_is_left() -> None:
    async def play(world: World) -> None:
        hosts = await started(world, 3)
        hosts[0].asleep_until = trio.current_time() + 10 * LEASE
        await trio.sleep(9 * LEASE)
        assert not any(one.host == hosts[0].id for one in world.snapshot.placements.values())
        await world.until_settled(60)
        await stays(world)

    simulate(1, 6, play)


def test_who_has_an_old_primary_takes_nothing_with_it() -> None:
    async def play(world: World) -> None:
        hosts = await started(world, 4)
        world.part(hosts[:1])
        await trio.sleep(2 * LEASE)
        before = {n: (one.host, one.epoch) for n, one in world.snapshot.placements.items()}
        assert not any(host == hosts[0].id for host, _ in before.values())
        hosts[0].old = None
        for _ in range(20):  # what the three had they keep, but for what is given to the fourth
            await trio.sleep(BEAT)
            found = world.snapshot.placements
            assert all(one.host == hosts[0].id or (one.host, one.epoch) == before[n] for n, one in found.items())
        await world.until_settled(60)
        assert sum(one.host == hosts[0].id for one in world.snapshot.placements.values()) == 2
        await stays(world)

    for seed in range(often(2)):
        simulate(seed, 8, play)


@pytest.mark.parametrize(("left", "right"), [(2, 3), (3, 2), (2, 2), (1, 1)])
def test_of_a_network_that_is_cut_one_side_serves(left: int, right: int) -> None:
    async def play(world: World) -> None:
        hosts = await started(world, left + right)
        sides = hosts[:left], hosts[left:]
        world.split(*sides)
        await trio.sleep(2 * LEASE)
        await world.until_settled(60)
        placed = {one.host for one in world.snapshot.placements.values()}
        serving = min(sides, key=lambda side: (-len(side), min(host.id for host in side)))
        assert placed <= {host.id for host in serving}
        await stays(world)
        world.cut.clear()
        await trio.sleep(2 * LEASE)
        await world.until_settled(120)
        assert {one.host for one in world.snapshot.placements.values()} == world.hosts.keys()
        await stays(world)

    simulate(left, 8, play)


@pytest.mark.parametrize("seed", range(often(8)))
def test_whatever_happens_they_come_to_rest(seed: int) -> None:
    async def play(world: World) -> None:
        rng = world.random
        await started(world, rng.randint(1, 6))
        world.faults.lost, world.faults.late = rng.choice(((0.0, 0.0), (0.02, 0.5), (0.2, 0.5)))
        for _ in range(25):
            await _something(world)
            await trio.sleep(rng.choice((0.0, 0.1, 0.5, 2.0, 5.0)))
        world.faults.lost = 0.0
        world.up = True
        world.cut.clear()
        for host in world.hosts.values():
            host.away, host.asleep_until, host.old = False, 0.0, None
            host.change(fit=True)
        if all(host.record.leaving for host in world.hosts.values()):
            world.start_host()
        await trio.sleep(6 * LEASE)
        await world.until_settled(8.0 * world.routers)
        await stays(world)

    simulate(seed, 1 + seed % 9, play)


async def _something(world: World) -> None:
    """One of the things that happen to a cluster."""
    rng, hosts = world.random, list(world.hosts.values())
    match rng.randrange(13):
        case 0 if hosts:
            rng.choice(hosts).crash()
        case 1 if len(hosts) < 8:
            world.start_host()
        case 2 if hosts:
            rng.choice(hosts).change(leaving=True)
        case 3:
            world.up = False
            await trio.sleep(rng.choice((0.2, 1.0, 5.0, 10.0)))
            world.up = True
        case 4:
            world.fail_over(rng.choice((0.0, 0.1, 1.0, 1e9)))
        case 5:
            world.clock += rng.choice((-3600.0, -2.0, 2.0, 3600.0))
        case 6 if hosts:
            rng.choice(hosts).away = True
        case 7:
            for host in hosts:
                host.away, host.old = False, None
        case 8 if hosts:
            rng.choice(hosts).asleep_until = trio.current_time() + rng.choice((1.0, 4.0, 20.0))
        case 9 if hosts:
            rng.shuffle(hosts)
            world.split(hosts[: len(hosts) // 2], hosts[len(hosts) // 2 :])
        case 10:
            world.cut.clear()
        case 11 if hosts:
            rng.choice(hosts).change(fit=rng.random() < 0.5)
        case 12 if hosts:
            world.part(rng.sample(hosts, rng.randrange(len(hosts))))
        case _:
            pass
