"""Logs of channels, in both stores."""

from __future__ import annotations

from support.stores import (
    LATER,
    NOW,
    A,
    B,
    C,
    in_store,
    item,
    puts,
)

from router.store.base import (
    ANY_VERSION,
    Event,
    Reads,
    Renewal,
    Store,
    Writes,
)
from router.store.memory import HEAD_GRACE


@in_store()
async def test_a_renewal_raises_the_expiry_of_what_is_there(store: Store) -> None:
    records = {("s", A): (b"a", NOW + 10), ("s", B): (b"b", NOW + 60), ("t", A): (b"t", NOW + 10)}
    records["s", C] = (b"c", 0)
    await store.apply(Writes(records=dict(records)), Reads(), NOW)
    renewal = Renewal("s", [A, B, C, b"n" * 16], NOW + 100, NOW + 50)
    await store.apply(Writes(renewals=[renewal]), Reads(), NOW + 1)
    known = {*records, ("s", b"n" * 16)}
    seen = [set((await store.apply(Writes(), Reads(records=known), now)).records) for now in (NOW + 10, NOW + 60)]
    assert seen == [{("s", A), ("s", B), ("s", C)}, {("s", A), ("s", C)}]
    # What has expired does not come back.
    await store.apply(Writes(renewals=[renewal._replace(expires=NOW + 999, before=NOW + 999)]), Reads(), NOW + 100)
    assert set((await store.apply(Writes(), Reads(records=known), NOW + 100)).records) == {("s", C)}


@in_store()
async def test_highest_place(store: Store) -> None:
    assert await store.highest() == 0
    await store.apply(puts(A, item("x", 7), item("y", 2**62)), Reads(), NOW)
    assert await store.highest() == 2**62


@in_store()
async def test_what_is_used_grows_and_shrinks(store: Store) -> None:
    empty = store.used
    writes = puts(A, *(item(f"{n}", n, body="x" * 5000) for n in range(3)))
    writes.events = [(A, NOW + 1, "x" * 5000)] * 4
    writes.records["s", A] = (b"x" * 5000, NOW + 1)
    await store.apply(writes, Reads(), NOW)
    full = store.used
    assert full >= empty + 40_000
    await store.apply(Writes(removals={(A, f"{n}"): ANY_VERSION for n in range(3)}), Reads(), NOW)
    await store.sweep(NOW + HEAD_GRACE + 2, 1000)
    assert store.used <= empty + 4096


@in_store()
async def test_log_offsets_and_positions(store: Store) -> None:
    events = [(A, LATER, "a1"), (B, LATER, "b1"), (A, LATER, "a2")]
    results = await store.apply(Writes(events=events), Reads(logs={A: 0, B: 1, C: 7}), NOW)
    assert results.offsets == [1, 1, 2]
    a = results.logs[A]
    assert (a.first, a.last, a.events) == (1, 2, [Event(1, LATER, "a1"), Event(2, LATER, "a2")])
    assert results.logs[B][1:] == (1, 1, [])
    assert results.logs[C][1:] == (0, 0, [])
    results = await store.apply(Writes(events=[(A, LATER, "a3")]), Reads(logs={A: 2}), NOW)
    assert results.offsets == [3]
    assert results.logs[A] == (a.epoch, 1, 3, [Event(3, LATER, "a3")])


@in_store()
async def test_log_keeps_the_newest(store: Store) -> None:
    events = [(A, LATER, str(n)) for n in range(1, 8)]
    results = await store.apply(Writes(events=events), Reads(logs={A: 2}), NOW)
    assert results.offsets == [1, 2, 3, 4, 5, 6, 7]
    assert results.logs[A][1:] == (4, 7, [Event(n, LATER, str(n)) for n in range(4, 8)])


@in_store()
async def test_log_expiry_leaves_gaps_and_the_position(store: Store) -> None:
    events = [(A, NOW + 1, "1"), (A, NOW + 3, "2"), (A, NOW + 1, "3"), (A, NOW + 2, "4")]
    await store.apply(Writes(events=events), Reads(), NOW)
    for swept in (False, True):
        if swept:
            assert await store.sweep(NOW + 2, 1000) == 3
        log = (await store.apply(Writes(), Reads(logs={A: 0}), NOW + 2)).logs[A]
        assert log[1:] == (2, 4, [Event(2, NOW + 3, "2")])
    log = (await store.apply(Writes(), Reads(logs={A: 0}), NOW + 3)).logs[A]
    assert log[1:] == (0, 4, [])
    results = await store.apply(Writes(events=[(A, LATER, "5")]), Reads(logs={A: 4}), NOW + 3)
    assert results.offsets == [5]
    assert results.logs[A] == (log.epoch, 5, 5, [Event(5, LATER, "5")])


@in_store()
async def test_log_that_begins_anew_has_a_new_epoch(store: Store) -> None:
    # A channel's position stays for as long as its event that lives longest, and a while.
    events = [(A, LATER, "1"), (A, NOW + 1, "2"), (B, LATER + HEAD_GRACE, "b")]
    before = (await store.apply(Writes(events=events), Reads(logs={A: 0, B: 0, C: 0}), NOW)).logs
    assert before[C].epoch == before[A].epoch
    await store.sweep(LATER + HEAD_GRACE - 1, 1000)
    after = (await store.apply(Writes(), Reads(logs={A: 0}), LATER + HEAD_GRACE)).logs
    assert after[A] == (before[A].epoch, 0, 2, [])
    await store.sweep(LATER + HEAD_GRACE, 1000)
    now, expires = LATER + HEAD_GRACE, LATER + HEAD_GRACE + 1
    results = await store.apply(Writes(events=[(A, expires, "new")]), Reads(logs={A: 0, B: 0}), now)
    assert results.offsets == [1]
    assert results.logs[A][1:] == (1, 1, [Event(1, expires, "new")])
    assert results.logs[A].epoch > before[A].epoch
    assert results.logs[B] == (before[B].epoch, 0, 1, [])


@in_store()
async def test_position_goes_before_its_events_are_swept(store: Store) -> None:
    async def append(channel: bytes) -> int:
        return (await store.apply(Writes(events=[(channel, NOW, "")]), Reads(), now)).offsets[0]

    now = NOW + HEAD_GRACE
    assert [await append(A), await append(b"z" * 16)] == [1, 1]
    await store.sweep(now, 1)
    await store.sweep(now, 1)
    # In SQLite the round is past A's events and comes to the positions next; in memory A has begun anew.
    assert await append(A) in {1, 2}
    await store.sweep(now, 1)
    # Begun anew or not, the channel takes events.
    assert await append(A) + 1 == await append(A)
