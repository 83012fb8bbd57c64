"""Inboxes, in each store: what is put replaces, is removed, expires and finds room."""

from __future__ import annotations

import pytest
from support.stores import (
    LATER,
    NOW,
    ROOMY,
    TEXTS,
    A,
    B,
    C,
    everything,
    in_store,
    inbox,
    item,
    puts,
)

from router.common.messages import EVERYTHING
from router.store.base import (
    ANY_VERSION,
    Reads,
    Results,
    Store,
    Writes,
)


@in_store()
async def test_inbox_in_order_of_slot(store: Store) -> None:
    first, second, other = item("z", 1, body=None), item("a", 2, version=0), item("a", 3)
    writes = Writes(puts={(A, "a"): second, (A, "z"): first, (B, "a"): other})
    results = await store.apply(writes, Reads(inboxes=everything(A, B, C)), NOW)
    assert results == Results(inboxes={A: [second, first], B: [other]})
    assert await inbox(store, C) == []


@in_store()
async def test_newer_item_replaces(store: Store) -> None:
    await store.apply(puts(A, item("x", 1), item("y", 2)), Reads(), NOW)
    newer = item("x", 3, version=2, body="newer")
    await store.apply(puts(A, newer), Reads(), NOW)
    assert await inbox(store, A) == [newer, item("y", 2)]
    same_version = item("x", 4, version=2, body="again")
    await store.apply(puts(A, same_version), Reads(), NOW)
    assert await inbox(store, A) == [same_version, item("y", 2)]


@in_store()
async def test_last_write_wins_whatever_its_version(store: Store) -> None:
    newer = item("x", 1, version=5)
    await store.apply(puts(A, newer), Reads(), NOW)
    older = item("x", 2, version=4, expires=LATER + 100)
    results = await store.apply(puts(A, older), Reads(inboxes=everything(A)), NOW)
    assert results == Results(inboxes={A: [older]})


@pytest.mark.parametrize(("version", "gone"), [(4, False), (5, True), (6, True), (ANY_VERSION, True), (-1, False)])
@in_store()
async def test_removal_by_version(store: Store, version: int, gone: bool) -> None:
    kept = item("y", 2)
    await store.apply(puts(A, item("x", 1, version=5), kept), Reads(), NOW)
    writes = Writes(removals={(A, "x"): version, (A, "none"): ANY_VERSION, (C, "x"): ANY_VERSION})
    results = await store.apply(writes, Reads(inboxes=everything(A)), NOW)
    assert [i.slot for i in results.inboxes[A]] == (["y"] if gone else ["x", "y"])


@in_store()
async def test_removal_of_greatest_version(store: Store) -> None:
    greatest = item("x", 2**62, version=ANY_VERSION, expires=ANY_VERSION)
    await store.apply(puts(A, greatest), Reads(), NOW)
    assert await inbox(store, A) == [greatest]
    await store.apply(Writes(removals={(A, "x"): ANY_VERSION - 1}), Reads(), NOW)
    assert await inbox(store, A) == [greatest]
    await store.apply(Writes(removals={(A, "x"): ANY_VERSION}), Reads(), NOW)
    assert await inbox(store, A) == []


@in_store()
async def test_full_inbox_refuses_only_what_is_too_much(store: Store) -> None:
    await store.apply(puts(A, item("x", 1), item("y", 2)), Reads(), NOW)
    writes = puts(A, item("z", 3), item("more", 4), item("x", 5, version=2), item("much", 6))
    writes.puts[B, "more"] = item("more", 7)
    results = await store.apply(writes, Reads(inboxes=everything(A, B)), NOW)
    assert results.refused == {(A, "more"), (A, "much")}
    assert [i.slot for i in results.inboxes[A]] == ["x", "y", "z"]
    assert [i.slot for i in results.inboxes[B]] == ["more"]
    # The next batch hears nothing of it; neither a replacement nor an older version is refused.
    results = await store.apply(puts(A, item("z", 8), item("x", 9, version=0)), Reads(), NOW)
    assert results.refused == set()
    results = await store.apply(puts(A, item("again", 10)), Reads(), NOW)
    assert results.refused == {(A, "again")}


@in_store()
async def test_removals_make_room_for_puts_of_the_same_batch(store: Store) -> None:
    await store.apply(puts(A, item("x", 1), item("y", 2), item("z", 3)), Reads(), NOW)
    writes = puts(A, item("new", 4))
    writes.removals[A, "y"] = ANY_VERSION
    results = await store.apply(writes, Reads(inboxes=everything(A)), NOW)
    assert results.refused == set()
    assert [i.slot for i in results.inboxes[A]] == ["new", "x", "z"]


@in_store()
async def test_expired_items_take_no_room_and_are_not_returned(store: Store) -> None:
    batch = puts(A, item("x", 1, expires=NOW + 1), item("y", 2), item("z", 3))
    await store.apply(batch, Reads(), NOW)
    assert [i.slot for i in await inbox(store, A, NOW)] == ["x", "y", "z"]
    assert [i.slot for i in await inbox(store, A, NOW + 1)] == ["y", "z"]
    results = await store.apply(puts(A, item("new", 4)), Reads(), NOW + 1)
    assert results.refused == set()
    # Its own old item has expired, so this is one more in a full inbox.
    results = await store.apply(puts(A, item("x", 5)), Reads(inboxes=everything(A)), NOW + 1)
    assert results.refused == {(A, "x")}
    assert [i.slot for i in results.inboxes[A]] == ["new", "y", "z"]


@pytest.mark.parametrize("text", TEXTS)
@in_store()
async def test_text_comes_back_as_it_was(store: Store, text: str) -> None:
    stored, plain = item(text, 1, body=text), item("plain", 2)
    writes = puts(A, stored, plain)
    writes.records["space", B] = (text.encode(), 0)
    results = await store.apply(writes, Reads(everything(A), {("space", B)}), NOW)
    assert results.inboxes == {A: sorted([stored, plain])}
    assert results.records == {("space", B): text.encode()}
    await store.apply(Writes(removals={(A, text): ANY_VERSION}), Reads(), NOW)
    assert await inbox(store, A) == [plain]


@in_store(ROOMY)
async def test_a_part_is_the_first_by_slot(store: Store) -> None:
    await store.apply(
        puts(A, *(item(s, n, expires=NOW + 1 if s == "b" else LATER) for n, s in enumerate("fbdeca"))), Reads(), NOW
    )
    await store.apply(puts(B, item("z", 1), item("", 2), item("é", 3)), Reads(), NOW)

    async def read(reads: dict[bytes, int]) -> dict[bytes, str]:
        results = await store.apply(Writes(), Reads(inboxes=reads), NOW + 1)
        return {device: "".join(i.slot or "-" for i in items) for device, items in results.inboxes.items()}

    assert await read({A: 1}) == {A: "a"}
    assert await read({A: 2, B: 1, C: 3}) == {A: "ac", B: "-"}
    assert await read({A: EVERYTHING, B: 2}) == {A: "acdef", B: "-z"}
    assert await read({A: 4, B: EVERYTHING}) == {A: "acde", B: "-zé"}
    for most in (5, 6, 1000, EVERYTHING - 1, EVERYTHING):
        assert await read({A: most}) == {A: "acdef"}


@pytest.mark.parametrize("urgency", [0, 2])
@in_store()
async def test_bodies_of_a_batch_keep_their_bounds(store: Store, urgency: int) -> None:
    bodies = ["x" * 9000, None, "", "é€\U0001f600", None, "\0", "a\0b", '"\\u0000"', "", "last"]
    for some in (bodies, ["", ""], [None, ""]):
        items = {bytes([n]) * 16: item("slot", n, body=body, urgency=urgency) for n, body in enumerate(some)}
        writes = Writes(puts={(device, "slot"): one for device, one in items.items()})
        results = await store.apply(writes, Reads(inboxes=everything(*items)), NOW)
        assert results.inboxes == {device: [one] for device, one in items.items()}
