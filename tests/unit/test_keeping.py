"""Devices that stay connected for longer than their records live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import Rig, hold, in_rig

from router.common import messages as m
from router.common.last_seen import stamp
from router.core import keeping
from router.core.keeping import Keeper
from router.store.base import Reads, Writes

TTL = 60
KNOWN, OTHER, GONE = b"k" * 16, b"o" * 16, b"g" * 16


def keeper(rig: Rig, *kept: tuple[str, int]) -> Keeper:
    return Keeper(rig.committer, rig.hub.map, kept, rig.clock.unix, rig.clock.monotonic)


def write(rig: Rig, space: str, key: bytes, ttl: int, value: bytes = b"x") -> None:
    rig.committer.record(space, key, value, int(rig.clock.unix()) + ttl if ttl else 0)


async def there(rig: Rig, space: str, *keys: bytes) -> set[bytes]:
    reads = Reads(records={(space, key) for key in keys})
    return {key for _, key in (await rig.store.apply(Writes(), reads, int(rig.clock.unix()))).records}


async def live(rig: Rig, keep: Keeper, seconds: float, step: float = 1.0) -> None:
    for _ in range(int(seconds / step)):
        rig.clock.pass_by(step)
        keep.tick()
        await rig.settle()


@pytest.mark.parametrize("ttl", [2, 3, 6, TTL])
@in_rig()
async def test_who_is_connected_is_known_for_as_long_as_that_lasts(rig: Rig, ttl: int) -> None:
    keep = keeper(rig, ("a", ttl), ("b", 1000 * ttl), ("c", 0))
    worker = rig.worker()
    worker.say(hold(KNOWN), m.Call(1, m.Attach(OTHER, "", 0, 0)), m.Call(2, m.Attach(GONE, "", 0, 0)))
    for key in (KNOWN, OTHER, GONE):
        write(rig, "a", key, ttl)
    write(rig, "b", KNOWN, 1000 * ttl)
    await rig.settle()
    worker.say(m.Detach(GONE))
    await live(rig, keep, 5 * ttl, 0.25)
    assert await there(rig, "a", KNOWN, OTHER, GONE) == {KNOWN, OTHER}
    assert await there(rig, "b", KNOWN) == {KNOWN}
    worker.say(m.Detach(OTHER))
    await live(rig, keep, 2 * ttl, 0.25)
    assert await there(rig, "a", KNOWN, OTHER) == {KNOWN}
    rig.hub.lost(worker.session, "it is tested")
    await live(rig, keep, 2 * ttl, 0.25)
    assert await there(rig, "a", KNOWN) == set()


@in_rig()
async def test_only_what_is_near_its_end_is_written_and_what_is_not_there_does_not_come(rig: Rig) -> None:
    keep = keeper(rig, ("a", TTL))
    rig.worker().say(hold(KNOWN, OTHER))
    write(rig, "a", KNOWN, TTL)
    await live(rig, keep, 10 * TTL)
    renewals = sum(len(batch.renewals) for batch in rig.store.batches)
    assert 3 * 10 - 2 <= renewals <= 3 * 10 + 2
    assert await there(rig, "a", KNOWN, OTHER) == {KNOWN}


@in_rig()
async def test_the_writes_of_a_round_are_spread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_CHUNK", 10)
    keep = keeper(rig, ("a", 300))
    keys = [number.to_bytes(16, "big") for number in range(95)]
    rig.worker().say(hold(*keys))
    for key in keys:
        write(rig, "a", key, 300)
    await rig.settle()
    await live(rig, keep, 30)
    sizes = []
    for _ in range(100):
        before = len(rig.store.batches)
        await live(rig, keep, 1)
        sizes.append(sum(len(r.keys) for batch in rig.store.batches[before:] for r in batch.renewals))
    assert sum(sizes) in (85, 95)  # the first of them may have gone before
    assert max(sizes) == 10
    await live(rig, keep, 900)
    assert await there(rig, "a", *keys) == set(keys)


@in_rig()
async def test_a_store_that_cannot_write_gets_it_when_it_can(rig: Rig) -> None:
    keep = keeper(rig, ("a", TTL))
    rig.worker().say(hold(KNOWN))
    write(rig, "a", KNOWN, TTL)
    await live(rig, keep, 15)
    rig.store.failing = True
    write(rig, "a", OTHER, TTL)
    await live(rig, keep, 30)
    rig.store.failing = False
    rig.committer.probe()
    await live(rig, keep, 60)
    assert await there(rig, "a", KNOWN) == {KNOWN}


@in_rig()
async def test_without_records_that_expire_nothing_is_done(rig: Rig) -> None:
    keep = keeper(rig, ("a", 0))
    rig.worker().say(hold(KNOWN))
    write(rig, "a", KNOWN, 0)
    await live(rig, keep, 100)
    assert not any(batch.renewals for batch in rig.store.batches)


@given(st.integers(1, 10**7), st.floats(0, 2**32), st.floats(0, 10**7))
def test_a_record_with_the_same_stamp_has_two_thirds_of_its_time_left(ttl: int, now: float, passed: float) -> None:
    if stamp(now, ttl) == stamp(now + passed, ttl):
        assert passed < max(1, ttl / 3)
    assert len(stamp(now, ttl)) == 4
