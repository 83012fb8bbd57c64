"""Inboxes that are full of messages of some urgency, in each store that collapses: who gives its place to whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from support.stores import (
    NOW,
    PRODUCTS,
    ROOMY,
    A,
    B,
    able,
    everything,
    in_store,
    inbox,
    item,
    new_store,
    puts,
    with_store,
)

from router.common.settings import StoreOptions
from router.common.store_kinds import Shape
from router.store.base import (
    LARGE_BODY,
    Reads,
    Results,
    Store,
    Writes,
)
from router.store.statements import FEW_EVICTED


async def fill(store: Store, *urgencies: int, body: str = "") -> None:
    """One message after the other, in slots named by their number and urgency."""
    for number, urgency in enumerate(urgencies):
        results = await store.apply(
            puts(A, item(f"{number}:{urgency}", number, urgency=urgency, body=body)), Reads(), NOW
        )
        assert (results.refused, results.evicted) == (set(), 0)


@pytest.mark.parametrize(
    ("stored", "urgency", "gone"),
    [
        ((3, 3, 3, 3, 3, 3), 3, "0:3"),
        ((3, 2, 1, 2, 1, 3), 4, "2:1"),
        ((3, 2, 4, 2, 4, 3), 3, "1:2"),
        ((0, 4, 0, 4, 2, 3), 4, "4:2"),
        ((1, 1, 1, 1, 1, 1), 1, "0:1"),
        ((0, 0, 0, 0, 0, 4), 4, "5:4"),
        ((4, 4, 4, 4, 4, 4), 3, None),
        ((0, 0, 0, 0, 0, 0), 4, None),
        ((4, 4, 0, 4, 2, 4), 1, None),
        ((1, 1, 1, 1, 1, 1), 0, None),
    ],
)
@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_the_least_urgent_and_of_those_the_oldest_gives_its_place(
    store: Store, stored: tuple[int, ...], urgency: int, gone: str | None
) -> None:
    await fill(store, *stored)
    before = await inbox(store, A)
    new = item("new", 100, urgency=urgency)
    results = await store.apply(puts(A, new), Reads(inboxes=everything(A)), NOW)
    if gone is None:
        assert (results.refused, results.evicted) == ({(A, "new")}, 0)
        assert results.inboxes[A] == before
    else:
        assert (results.refused, results.evicted) == (set(), 1)
        assert results.inboxes[A] == [i for i in before if i.slot != gone] + [new]
    # The next batch hears nothing of it.
    assert await store.apply(puts(B, new), Reads(), NOW) == Results()


@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_a_replaced_or_expired_message_makes_nobody_go(store: Store) -> None:
    await fill(store, 1, 1, 1, 1, 1)
    await store.apply(puts(A, item("short", 9, expires=NOW + 1, urgency=1)), Reads(), NOW)
    results = await store.apply(puts(A, item("3:1", 10, urgency=4)), Reads(), NOW)
    assert results == Results()
    results = await store.apply(puts(A, item("new", 11, urgency=1)), Reads(inboxes=everything(A)), NOW + 1)
    assert (results.refused, results.evicted) == (set(), 0)
    assert len(results.inboxes[A]) == 6


@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_within_one_batch_later_messages_take_the_place_of_earlier_ones(store: Store) -> None:
    writes = puts(A, *(item(f"{n:02}", n, urgency=2) for n in range(10)), item("low", 10, urgency=1))
    writes.puts[B, "b"] = item("b", 11, urgency=1)
    results = await store.apply(writes, Reads(inboxes=everything(A, B)), NOW)
    assert (results.refused, results.evicted) == ({(A, "low")}, 4)
    assert [i.slot for i in results.inboxes[A]] == ["04", "05", "06", "07", "08", "09"]
    for seq in (20, 21):  # each batch counts its own
        results_of_one = await store.apply(puts(A, item(f"{seq}", seq, urgency=2)), Reads(), NOW)
        assert (results_of_one.refused, results_of_one.evicted) == (set(), 1)
    assert [i.slot for i in results.inboxes[B]] == ["b"]


@pytest.mark.parametrize(
    ("length", "evicted", "refused"),
    [(LARGE_BODY - 4000, 0, False), (LARGE_BODY, 1, False), (12_577, 3, False), (3 * LARGE_BODY + 1, 0, True)],
)
@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_bodies_give_their_place_to_bodies(store: Store, length: int, evicted: int, refused: bool) -> None:
    await fill(store, 3, 1, 3, 1, 3, body="x" * 4000)  # 4576 bytes are left
    before = await inbox(store, A)
    new = item("new", 100, urgency=3, body="x" * length)
    results = await store.apply(puts(A, new), Reads(inboxes=everything(A)), NOW)
    assert results.evicted == evicted
    assert results.refused == ({(A, "new")} if refused else set())
    gone = ["1:1", "3:1", "0:3"][:evicted]
    left = [i for i in before if i.slot not in gone]
    assert results.inboxes[A] == (left if refused else [*left, new])


@pytest.mark.parametrize("number", [1, FEW_EVICTED - 1, FEW_EVICTED, FEW_EVICTED + 1, 2 * FEW_EVICTED, 39])
@in_store(StoreOptions(inbox_limit=100, inbox_bytes=40 * 1000), needs={Shape.COLLAPSE})
async def test_a_long_body_takes_the_place_of_many(store: Store, number: int) -> None:
    many = [item(f"{n:02}", n, urgency=1 + n % 2, body="x" * 1000) for n in range(40)]
    await store.apply(puts(A, *many), Reads(), NOW)
    new = item("new", 100, urgency=2, body="x" * (1000 * number))
    results = await store.apply(puts(A, new), Reads(inboxes=everything(A)), NOW)
    assert (results.refused, results.evicted) == (set(), number)
    assert results.inboxes[A] == [*sorted(sorted(many, key=lambda i: (i.urgency, i.seq))[number:]), new]


@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_if_it_would_not_suffice_nobody_goes(store: Store) -> None:
    await fill(store, 4, 4, 1, 4, 4, body="x" * 4000)
    before = await inbox(store, A)
    too_long = item("new", 100, urgency=3, body="x" * 8577)  # 8576 would do with the one of urgency 1 gone
    results = await store.apply(puts(A, too_long), Reads(inboxes=everything(A)), NOW)
    assert (results.refused, results.evicted, results.inboxes[A]) == ({(A, "new")}, 0, before)
    # What would replace a message, and finds no room, leaves it as it was.
    results = await store.apply(
        puts(A, too_long._replace(slot="0:4", body="x" * 12577)), Reads(inboxes=everything(A)), NOW
    )
    assert (results.refused, results.inboxes[A]) == ({(A, "0:4")}, before)
    results = await store.apply(
        puts(A, too_long._replace(slot="0:4", body="x" * 12576)), Reads(inboxes=everything(A)), NOW
    )
    assert (results.refused, results.evicted) == (set(), 1)


@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_bodies_are_measured_as_utf_8(store: Store) -> None:
    await fill(store, 1, 1, 1, body="é\0" * 2700)  # 8100 bytes each
    results = await store.apply(puts(A, item("fits", 3, urgency=1, body="x" * 276)), Reads(), NOW)
    assert results.evicted == 0
    results = await store.apply(puts(A, item("not", 4, urgency=1, body="x")), Reads(), NOW)
    assert results.evicted == 1


@in_store(ROOMY, needs={Shape.COLLAPSE})
async def test_few_messages_are_not_measured_unless_a_large_one_comes(store: Store) -> None:
    # One of urgency 0 is never measured, so this is over the limit already.
    await store.apply(puts(A, item("z", 1, body="x" * 4 * LARGE_BODY)), Reads(), NOW)
    results = await store.apply(puts(A, item("small", 2, urgency=4, body="x" * LARGE_BODY)), Reads(), NOW)
    assert results.refused == set()
    results = await store.apply(puts(A, item("large", 3, urgency=4, body="x" * (LARGE_BODY + 1))), Reads(), NOW)
    assert results.refused == {(A, "large")}


@pytest.mark.parametrize("kind", able({Shape.COLLAPSE}))
def test_a_store_tells_of_what_it_evicts_and_what_expires(kind: str, tmp_path: Path) -> None:
    gone: list[tuple[str, bytes, str, int]] = []

    async def test(store: Store) -> None:
        for number in range(6):
            await store.apply(puts(A, item(f"s{number}", number, urgency=1, version=number)), Reads(), NOW)
        writes = puts(A, item("new", 9, urgency=3, expires=NOW + 5, version=9))
        writes.removals[A, "s3"] = 3
        await store.apply(writes, Reads(), NOW)
        assert gone == []  # one was removed, so there was room
        await store.apply(puts(A, item("newer", 10, urgency=3, version=10)), Reads(), NOW)
        assert gone == [("evicted", A, "s0", 0)]
        await store.apply(Writes(removals={(A, "s1"): 1}), Reads(), NOW)
        await store.sweep(NOW + 5, 1000)
        # What expires in Redis goes by itself.
        assert gone[1:] == ([] if kind in PRODUCTS else [("expired", A, "new", 9)])

    store = new_store(kind, ROOMY, tmp_path)
    store.watch(lambda *one: gone.append(one))
    trio.run(with_store, store, test)
