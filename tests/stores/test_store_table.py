"""Records, in each store, and what is counted of all that is stored."""

from __future__ import annotations

from support.stores import LATER, NOW, SWEPT, A, B, C, event, in_store, item, puts

from router.store.base import ANY_VERSION, Reads, Renewal, Store, Writes
from router.store.changes import KEEP_EXPIRY
from router.store.memory import HEAD_GRACE


@in_store()
async def test_records(store: Store) -> None:
    keys = {("s", A), ("s", B), ("t", A)}
    writes = Writes(records={("s", A): (b"\x00\xff", 0), ("s", B): (b"", NOW + 1), ("t", C): None})
    results = await store.apply(writes, Reads(records=keys), NOW)
    assert results.records == {("s", A): b"\x00\xff", ("s", B): b""}
    results = await store.apply(Writes(), Reads(records=keys), NOW + 1)
    assert results.records == {("s", A): b"\x00\xff"}
    writes = Writes(records={("s", A): None, ("s", B): (b"new", LATER), ("t", A): (b"1", 0)})
    results = await store.apply(writes, Reads(records=keys), NOW + 1)
    assert results.records == {("s", B): b"new", ("t", A): b"1"}


@in_store()
async def test_a_record_that_keeps_its_expiry(store: Store) -> None:
    keys = {("s", A), ("s", B), ("s", C)}
    writes = Writes(records={("s", A): (b"1", NOW + 2), ("s", B): (b"1", 0)})
    await store.apply(writes, Reads(), NOW)
    writes = Writes(records={("s", key): (b"2", KEEP_EXPIRY) for key in (A, B, C)})
    results = await store.apply(writes, Reads(records=keys), NOW + 1)
    assert results.records == {("s", A): b"2", ("s", B): b"2"}
    results = await store.apply(Writes(), Reads(records=keys), NOW + 2)
    assert results.records == {("s", B): b"2"}


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


@in_store(kinds=SWEPT)
async def test_highest_place_of_all(store: Store) -> None:
    assert await store.highest() == 0
    await store.apply(puts(A, item("x", 7), item("y", 2**62)), Reads(), NOW)
    assert await store.highest() == 2**62  # by looking through all of it


@in_store()
async def test_highest_place(store: Store) -> None:
    assert await store.highest() == 0
    for ceiling in (2**62 + 5, 2**63 - 1):
        await store.apply(Writes(ceiling=ceiling), Reads(), NOW)
        await store.apply(puts(B, item("x", 8)), Reads(), NOW)
        assert await store.highest() == ceiling


@in_store(kinds=SWEPT)
async def test_what_is_used_grows_and_shrinks(store: Store) -> None:
    async def fill_and_empty(now: int) -> tuple[int, int]:
        writes = puts(A, *(item(f"{n}", n, expires=now + 9, body="x" * 50_000) for n in range(3)))
        writes.logs = [event(A, "x" * 50_000, now + 1)] * 4
        writes.records["s", A] = (b"x" * 50_000, now + 1)
        await store.apply(writes, Reads(), now)
        full = store.used
        await store.apply(Writes(removals={(A, f"{n}"): ANY_VERSION for n in range(3)}), Reads(), now)
        await store.sweep(now + HEAD_GRACE + 2, 1000)
        return full, store.used

    empty = store.used
    first, left = await fill_and_empty(NOW)  # a server takes memory for itself when it is used for the first time
    second, again = await fill_and_empty(NOW + HEAD_GRACE + 2)
    assert first >= empty + 400_000
    assert second >= left + 400_000
    assert again <= left + 40_960
