"""Sweeps, in the stores that are swept: they delete what has expired, within their budget, and nothing else."""

from __future__ import annotations

import pytest
from support.stores import (
    ALL,
    LATER,
    NOW,
    SWEPT,
    A,
    B,
    C,
    bodies,
    event,
    everything,
    in_store,
    item,
    puts,
)

from router.store.base import (
    LogName,
    Reads,
    Store,
    Writes,
)


@in_store(kinds=SWEPT)
async def test_sweep_deletes_what_expired_and_nothing_else(store: Store) -> None:
    writes = puts(A, item("x", 1, expires=NOW + 1), item("y", 2))
    writes.puts[B, "x"] = item("x", 3, expires=NOW + 1)
    writes.records = {("s", A): (b"", NOW + 1), ("s", B): (b"kept", 0), ("s", C): (b"kept", LATER)}
    writes.logs = [event(A, "gone", NOW + 1), event(A, "kept")]
    await store.apply(writes, Reads(), NOW)
    assert await store.sweep(NOW, 1000) == 0
    assert await store.sweep(NOW + 1, 1000) == 4
    assert await store.sweep(NOW + 1, 1000) == 0
    # Read with an earlier clock: what is gone is gone, not just hidden.
    reads = Reads(everything(A, B), {("s", A), ("s", B), ("s", C)}, {LogName(A, ALL)})
    results = await store.apply(Writes(), reads, NOW)
    assert results.inboxes == {A: [item("y", 2)]}
    assert results.records == {("s", B): b"kept", ("s", C): b"kept"}
    assert bodies(results.logs[LogName(A, ALL)]) == "kept"


@pytest.mark.parametrize("budget", [1, 3, 4, 1000])
@in_store(kinds=SWEPT)
async def test_sweep_goes_on_where_it_stopped(store: Store, budget: int) -> None:
    writes = Writes()
    for n in range(10):
        key = bytes([n]) * 16
        expires = NOW + 1 if n % 2 else LATER
        writes.puts[key, "s"] = item("s", n, expires=expires)
        writes.puts[A, f"s{n % 3}"] = item(f"s{n % 3}", n, expires=NOW + 1)
        writes.records["r", key] = (b"", expires)
        writes.logs.append(event(key, "", expires))
    await store.apply(writes, Reads(), NOW)
    counts = []
    # 33 entries and 10 positions, 18 of them expired: a round is over at the latest after so many sweeps.
    for _ in range(43 // budget + 2):
        counts.append(await store.sweep(NOW + 1, budget))
        # What comes between two sweeps does not disturb the round.
        await store.apply(puts(B, item("new", 100 + len(counts))), Reads(), NOW)
    assert sum(counts) == 18
    assert max(counts) <= budget


@in_store(kinds=SWEPT)
async def test_sweep_comes_round_again(store: Store) -> None:
    for turn in range(3):
        await store.apply(puts(A, item("x", turn, expires=NOW + 1)), Reads(), NOW)
        assert sum([await store.sweep(NOW + 1, 1) for _ in range(3)]) == 1
