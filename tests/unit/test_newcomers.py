"""A device that has just got its uaid: its first register is written without a look at the store, and only then."""

from typing import Any

from support.common import Rig, in_rig

from router.common import messages as v
from router.core.newcomers import MOMENT_MS, Newcomers
from router.store.base import Reads, Results, Writes

DEVICE, OTHER = b"d" * 16, b"e" * 16
SPACE = "webpush.device"
ONE, TWO = b"1" * 16, b"2" * 16
HEAD = b"day1"
NOW_MS = 1_000_000  # of the rig's clock


def enlist(ask: int, member: bytes) -> tuple[Any, ...]:
    return (v.SET_ADD, ask, SPACE, DEVICE, member, HEAD, 60, 10)


def fresh(ask: int, since: int = NOW_MS) -> tuple[Any, ...]:
    return (v.ATTACH, ask, DEVICE, "", 0, since)


def known(ask: int, since: int = NOW_MS) -> tuple[Any, ...]:
    return (v.ATTACH, ask, DEVICE, SPACE, 10, since)


async def record_of(rig: Rig) -> bytes | None:
    found = await rig.store.apply(Writes(), Reads(records={(SPACE, DEVICE)}), int(rig.clock.unix()))
    return found.records.get((SPACE, DEVICE))


def count_record_reads(rig: Rig) -> list[int]:
    """How many records each commit reads, from now on."""
    found: list[int] = []
    apply = rig.store.apply

    async def counted(writes: Writes, reads: Reads, now: int) -> Results:
        found.append(len(reads.records))
        return await apply(writes, reads, now)

    rig.store.apply = counted  # type: ignore[method-assign]
    return found


@in_rig()
async def test_the_first_register_of_a_new_device_is_one_commit_without_a_read(rig: Rig) -> None:
    worker = rig.worker()
    reads = count_record_reads(rig)
    worker.say(fresh(1))
    await rig.settle()
    reads.clear()
    worker.say(enlist(2, ONE))
    await rig.settle()
    assert reads == [0]
    assert [word[1:3] for word in worker.take() if word[0] == v.ANSWER] == [[1, v.OK], [2, v.OK]]
    assert await record_of(rig) == HEAD + ONE
    reads.clear()
    worker.say(enlist(3, TWO))
    await rig.settle()
    assert sum(reads) == 1, "it is not new any more"
    assert await record_of(rig) == HEAD + ONE + TWO


@in_rig()
async def test_registers_at_once_of_a_new_device_are_all_kept(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(fresh(1), enlist(2, ONE), enlist(3, TWO))
    await rig.settle()
    assert await record_of(rig) == HEAD + ONE + TWO


@in_rig()
async def test_what_a_worker_repeats_makes_no_device_new_again(rig: Rig) -> None:
    worker, other = rig.worker(0), rig.worker(1)
    worker.say(fresh(1), enlist(2, ONE))
    await rig.settle()
    # Meanwhile it is elsewhere, registers more, and goes; the first worker has not heard that it was confirmed.
    other.say(known(1, NOW_MS + 1), enlist(2, TWO), (v.DETACH, DEVICE))
    await rig.settle()
    worker.join()
    worker.say(fresh(1), enlist(2, ONE))
    await rig.settle()
    assert await record_of(rig) == HEAD + ONE + TWO
    rig.clock.pass_by(0.5)
    rig.router_restarts()
    again = rig.worker(0)
    again.say(fresh(1), enlist(2, ONE))
    await rig.settle()
    assert await record_of(rig) == HEAD + ONE + TWO


@in_rig(link={"max_new": 0})
async def test_it_can_be_off(rig: Rig) -> None:
    worker = rig.worker()
    reads = count_record_reads(rig)
    worker.say(fresh(1), enlist(2, ONE))
    await rig.settle()
    assert sum(reads) == 1
    assert await record_of(rig) == HEAD + ONE


def test_a_device_is_new_once() -> None:
    newcomers = Newcomers(10, 500)
    newcomers.came(DEVICE, 1000, 1001)
    assert newcomers.taken(DEVICE)
    assert not newcomers.taken(DEVICE)
    newcomers.came(DEVICE, 1002, 1003)
    assert not newcomers.taken(DEVICE)
    newcomers.came(OTHER, 1002, 1003)
    newcomers.known(OTHER)
    assert not newcomers.taken(OTHER)


def test_a_device_that_came_before_this_router_or_long_ago_is_not_new() -> None:
    newcomers = Newcomers(10, 500)
    newcomers.came(DEVICE, 499, 501)
    newcomers.came(OTHER, 2000, 2001 + MOMENT_MS)
    assert not newcomers.taken(DEVICE)
    assert not newcomers.taken(OTHER)


def test_the_last_that_came_are_remembered() -> None:
    newcomers = Newcomers(3, 0)
    devices = [bytes([number]) * 16 for number in range(5)]
    for device in devices:
        newcomers.came(device, 1, 1)
    assert [newcomers.taken(device) for device in devices] == [False, False, True, True, True]
