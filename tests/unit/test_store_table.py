"""Records, in both stores, and what is counted of all that is stored."""

from __future__ import annotations

from support.stores import (
    LATER,
    NOW,
    A,
    B,
    C,
    in_store,
)

from router.store.base import (
    Reads,
    Store,
    Writes,
)
from router.store.changes import KEEP_EXPIRY


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
