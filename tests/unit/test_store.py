"""Both stores against the contract of `router.store.base`, against each other, and SQLite against crashes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.common.messages import EVERYTHING
from router.common.options import defaults
from router.common.settings import SECTIONS, Data, StoreOptions
from router.store.base import (
    ANY_VERSION,
    LARGE_BODY,
    BadBatchError,
    Event,
    Item,
    Reads,
    Renewal,
    Results,
    Store,
    StoreError,
    Writes,
)
from router.store.changes import (
    KEEP_EXPIRY,
    Change,
    Put,
    PutIfAbsent,
    PutIfNewer,
    SetAdd,
    SetRemove,
    Take,
)
from router.store.memory import HEAD_GRACE, MemoryStore
from router.store.select import open_store
from router.store.sqlite import SqliteStore
from router.store.statements import FEW_EVICTED, READ, RENEW, SCHEMA_VERSION, WRITE, WRITE_NUL

A, B, C = b"a" * 16, b"\x00\xff" * 8, b"c" * 16
NOW = 1_000_000
LATER = NOW + 100
OPTIONS = StoreOptions(inbox_limit=3, log_limit=4)

T = TypeVar("T")
Test = Callable[[Store], Awaitable[None]]
Run = Callable[[Test], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite3"


@pytest.fixture(params=["memory", "sqlite"])
def run(request: pytest.FixtureRequest, path: Path) -> Run:
    """Runs an async function with an open store of each kind."""

    def runner(test: Test) -> None:
        store = MemoryStore(OPTIONS) if request.param == "memory" else SqliteStore(OPTIONS, path)
        trio.run(with_store, store, test)

    return runner


async def with_store(store: Store, test: Callable[[Store], Awaitable[T]]) -> T:
    await store.open()
    try:
        return await test(store)
    finally:
        await store.close()


def in_sqlite(path: Path, test: Callable[[Store], Awaitable[T]], options: StoreOptions = OPTIONS) -> T:
    return trio.run(with_store, SqliteStore(options, path), test)


def item(
    slot: str, seq: int, version: int = 1, expires: int = LATER, body: str | None = "body", urgency: int = 0
) -> Item:
    return Item(slot, version, seq, expires, urgency, body)


def everything(*devices: bytes) -> dict[bytes, int]:
    return dict.fromkeys(devices, EVERYTHING)


def puts(device: bytes, *items: Item) -> Writes:
    return Writes(puts={(device, i.slot): i for i in items})


async def inbox(store: Store, device: bytes, now: int = NOW) -> list[Item]:
    return (await store.apply(Writes(), Reads(inboxes=everything(device)), now)).inboxes.get(device, [])


# --- inbox


def test_inbox_in_order_of_slot(run: Run) -> None:
    async def test(store: Store) -> None:
        first, second, other = item("z", 1, body=None), item("a", 2, version=0), item("a", 3)
        writes = Writes(puts={(A, "a"): second, (A, "z"): first, (B, "a"): other})
        results = await store.apply(writes, Reads(inboxes=everything(A, B, C)), NOW)
        assert results == Results(inboxes={A: [second, first], B: [other]})
        assert await inbox(store, C) == []

    run(test)


def test_newer_item_replaces(run: Run) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1), item("y", 2)), Reads(), NOW)
        newer = item("x", 3, version=2, body="newer")
        await store.apply(puts(A, newer), Reads(), NOW)
        assert await inbox(store, A) == [newer, item("y", 2)]
        same_version = item("x", 4, version=2, body="again")
        await store.apply(puts(A, same_version), Reads(), NOW)
        assert await inbox(store, A) == [same_version, item("y", 2)]

    run(test)


def test_last_write_wins_whatever_its_version(run: Run) -> None:
    async def test(store: Store) -> None:
        newer = item("x", 1, version=5)
        await store.apply(puts(A, newer), Reads(), NOW)
        older = item("x", 2, version=4, expires=LATER + 100)
        results = await store.apply(puts(A, older), Reads(inboxes=everything(A)), NOW)
        assert results == Results(inboxes={A: [older]})

    run(test)


@pytest.mark.parametrize(("version", "gone"), [(4, False), (5, True), (6, True), (ANY_VERSION, True), (-1, False)])
def test_removal_by_version(run: Run, version: int, gone: bool) -> None:
    async def test(store: Store) -> None:
        kept = item("y", 2)
        await store.apply(puts(A, item("x", 1, version=5), kept), Reads(), NOW)
        writes = Writes(removals={(A, "x"): version, (A, "none"): ANY_VERSION, (C, "x"): ANY_VERSION})
        results = await store.apply(writes, Reads(inboxes=everything(A)), NOW)
        assert [i.slot for i in results.inboxes[A]] == (["y"] if gone else ["x", "y"])

    run(test)


def test_removal_of_greatest_version(run: Run) -> None:
    async def test(store: Store) -> None:
        greatest = item("x", 2**62, version=ANY_VERSION, expires=ANY_VERSION)
        await store.apply(puts(A, greatest), Reads(), NOW)
        assert await inbox(store, A) == [greatest]
        await store.apply(Writes(removals={(A, "x"): ANY_VERSION - 1}), Reads(), NOW)
        assert await inbox(store, A) == [greatest]
        await store.apply(Writes(removals={(A, "x"): ANY_VERSION}), Reads(), NOW)
        assert await inbox(store, A) == []

    run(test)


def test_full_inbox_refuses_only_what_is_too_much(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_removals_make_room_for_puts_of_the_same_batch(run: Run) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1), item("y", 2), item("z", 3)), Reads(), NOW)
        writes = puts(A, item("new", 4))
        writes.removals[A, "y"] = ANY_VERSION
        results = await store.apply(writes, Reads(inboxes=everything(A)), NOW)
        assert results.refused == set()
        assert [i.slot for i in results.inboxes[A]] == ["new", "x", "z"]

    run(test)


def test_expired_items_take_no_room_and_are_not_returned(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


@pytest.mark.parametrize("text", ["", "\0", "a\0b\0", "\\u0000", "\\\\u0000\0", '"\\', "é😀\u2028", "\x7f\x1f"])
def test_text_comes_back_as_it_was(run: Run, text: str) -> None:
    async def test(store: Store) -> None:
        stored, plain = item(text, 1, body=text), item("plain", 2)
        writes = puts(A, stored, plain)
        writes.events = [(A, LATER, text)]
        writes.records["space", B] = (text.encode(), 0)
        results = await store.apply(writes, Reads(everything(A), {("space", B)}, {A: 0}), NOW)
        assert results.inboxes == {A: sorted([stored, plain])}
        assert results.logs[A].events == [Event(1, LATER, text)]
        assert results.records == {("space", B): text.encode()}
        await store.apply(Writes(removals={(A, text): ANY_VERSION}), Reads(), NOW)
        assert await inbox(store, A) == [plain]

    run(test)


# --- inboxes that are full of messages of some urgency

ROOMY = StoreOptions(inbox_limit=6, inbox_bytes=3 * LARGE_BODY)


@pytest.fixture(params=["memory", "sqlite"])
def run_roomy(request: pytest.FixtureRequest, path: Path) -> Run:
    """As `run`, with room for six messages, and for three times LARGE_BODY bytes of bodies."""

    def runner(test: Test) -> None:
        store = MemoryStore(ROOMY) if request.param == "memory" else SqliteStore(ROOMY, path)
        trio.run(with_store, store, test)

    return runner


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
def test_the_least_urgent_and_of_those_the_oldest_gives_its_place(
    run_roomy: Run, stored: tuple[int, ...], urgency: int, gone: str | None
) -> None:
    async def test(store: Store) -> None:
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

    run_roomy(test)


def test_a_replaced_or_expired_message_makes_nobody_go(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
        await fill(store, 1, 1, 1, 1, 1)
        await store.apply(puts(A, item("short", 9, expires=NOW + 1, urgency=1)), Reads(), NOW)
        results = await store.apply(puts(A, item("3:1", 10, urgency=4)), Reads(), NOW)
        assert results == Results()
        results = await store.apply(puts(A, item("new", 11, urgency=1)), Reads(inboxes=everything(A)), NOW + 1)
        assert (results.refused, results.evicted) == (set(), 0)
        assert len(results.inboxes[A]) == 6

    run_roomy(test)


def test_within_one_batch_later_messages_take_the_place_of_earlier_ones(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, *(item(f"{n:02}", n, urgency=2) for n in range(10)), item("low", 10, urgency=1))
        writes.puts[B, "b"] = item("b", 11, urgency=1)
        results = await store.apply(writes, Reads(inboxes=everything(A, B)), NOW)
        assert (results.refused, results.evicted) == ({(A, "low")}, 4)
        assert [i.slot for i in results.inboxes[A]] == ["04", "05", "06", "07", "08", "09"]
        for seq in (20, 21):  # each batch counts its own
            results_of_one = await store.apply(puts(A, item(f"{seq}", seq, urgency=2)), Reads(), NOW)
            assert (results_of_one.refused, results_of_one.evicted) == (set(), 1)
        assert [i.slot for i in results.inboxes[B]] == ["b"]

    run_roomy(test)


@pytest.mark.parametrize(
    ("length", "evicted", "refused"),
    [(LARGE_BODY - 4000, 0, False), (LARGE_BODY, 1, False), (12_577, 3, False), (3 * LARGE_BODY + 1, 0, True)],
)
def test_bodies_give_their_place_to_bodies(run_roomy: Run, length: int, evicted: int, refused: bool) -> None:
    async def test(store: Store) -> None:
        await fill(store, 3, 1, 3, 1, 3, body="x" * 4000)  # 4576 bytes are left
        before = await inbox(store, A)
        new = item("new", 100, urgency=3, body="x" * length)
        results = await store.apply(puts(A, new), Reads(inboxes=everything(A)), NOW)
        assert results.evicted == evicted
        assert results.refused == ({(A, "new")} if refused else set())
        gone = ["1:1", "3:1", "0:3"][:evicted]
        left = [i for i in before if i.slot not in gone]
        assert results.inboxes[A] == (left if refused else [*left, new])

    run_roomy(test)


@pytest.mark.parametrize("number", [1, FEW_EVICTED - 1, FEW_EVICTED, FEW_EVICTED + 1, 2 * FEW_EVICTED, 39])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_long_body_takes_the_place_of_many(path: Path, kind: str, number: int) -> None:
    options = StoreOptions(inbox_limit=100, inbox_bytes=40 * 1000)
    store = MemoryStore(options) if kind == "memory" else SqliteStore(options, path)

    async def test(store: Store) -> None:
        many = [item(f"{n:02}", n, urgency=1 + n % 2, body="x" * 1000) for n in range(40)]
        await store.apply(puts(A, *many), Reads(), NOW)
        new = item("new", 100, urgency=2, body="x" * (1000 * number))
        results = await store.apply(puts(A, new), Reads(inboxes=everything(A)), NOW)
        assert (results.refused, results.evicted) == (set(), number)
        assert results.inboxes[A] == [*sorted(sorted(many, key=lambda i: (i.urgency, i.seq))[number:]), new]

    trio.run(with_store, store, test)


def test_if_it_would_not_suffice_nobody_goes(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
        await fill(store, 4, 4, 1, 4, 4, body="x" * 4000)
        before = await inbox(store, A)
        too_long = item("new", 100, urgency=3, body="x" * 8577)  # 8576 would do with the one of urgency 1 gone
        results = await store.apply(puts(A, too_long), Reads(inboxes=everything(A)), NOW)
        assert (results.refused, results.evicted, results.inboxes[A]) == ({(A, "new")}, 0, before)
        # What would replace a message, and finds no room, leaves it as it was.
        results = await store.apply(puts(A, too_long._replace(slot="0:4", body="x" * 12577)), KNOWN, NOW)
        assert (results.refused, results.inboxes[A]) == ({(A, "0:4")}, before)
        results = await store.apply(puts(A, too_long._replace(slot="0:4", body="x" * 12576)), KNOWN, NOW)
        assert (results.refused, results.evicted) == (set(), 1)

    run_roomy(test)


def test_bodies_are_measured_as_utf_8(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
        await fill(store, 1, 1, 1, body="é\0" * 2700)  # 8100 bytes each
        results = await store.apply(puts(A, item("fits", 3, urgency=1, body="x" * 276)), Reads(), NOW)
        assert results.evicted == 0
        results = await store.apply(puts(A, item("not", 4, urgency=1, body="x")), Reads(), NOW)
        assert results.evicted == 1

    run_roomy(test)


def test_few_messages_are_not_measured_unless_a_large_one_comes(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
        # One of urgency 0 is never measured, so this is over the limit already.
        await store.apply(puts(A, item("z", 1, body="x" * 4 * LARGE_BODY)), Reads(), NOW)
        results = await store.apply(puts(A, item("small", 2, urgency=4, body="x" * LARGE_BODY)), Reads(), NOW)
        assert results.refused == set()
        results = await store.apply(puts(A, item("large", 3, urgency=4, body="x" * (LARGE_BODY + 1))), Reads(), NOW)
        assert results.refused == {(A, "large")}

    run_roomy(test)


def test_what_an_older_release_stored_is_read_as_it_was(path: Path) -> None:
    """It did not keep the length of bodies, and had none of messages that may take the place of others."""

    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await fill(store, 3, 0, body="x" * 4000)
        store._db().execute("UPDATE inbox SET urgency = urgency & 7")
        assert [(i.urgency, len(i.body or "")) for i in await inbox(store, A)] == [(3, 4000), (0, 4000)]
        assert await store.apply(puts(A, item("new", 3, urgency=3, body="x" * LARGE_BODY)), Reads(), NOW) == Results()

    in_sqlite(path, test, ROOMY)


# --- parts of inboxes


def test_a_part_is_the_first_by_slot(run_roomy: Run) -> None:
    async def test(store: Store) -> None:
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

    run_roomy(test)


@pytest.mark.parametrize("urgency", [0, 2])
def test_bodies_of_a_batch_keep_their_bounds(run: Run, urgency: int) -> None:
    bodies = ["x" * 9000, None, "", "é€\U0001f600", None, "\0", "a\0b", '"\\u0000"', "", "last"]

    async def test(store: Store) -> None:
        for some in (bodies, ["", ""], [None, ""]):
            items = {bytes([n]) * 16: item("slot", n, body=body, urgency=urgency) for n, body in enumerate(some)}
            writes = Writes(puts={(device, "slot"): one for device, one in items.items()})
            results = await store.apply(writes, Reads(inboxes=everything(*items)), NOW)
            assert results.inboxes == {device: [one] for device, one in items.items()}

    run(test)


# --- table


def test_records(run: Run) -> None:
    async def test(store: Store) -> None:
        keys = {("s", A), ("s", B), ("t", A)}
        writes = Writes(records={("s", A): (b"\x00\xff", 0), ("s", B): (b"", NOW + 1), ("t", C): None})
        results = await store.apply(writes, Reads(records=keys), NOW)
        assert results.records == {("s", A): b"\x00\xff", ("s", B): b""}
        results = await store.apply(Writes(), Reads(records=keys), NOW + 1)
        assert results.records == {("s", A): b"\x00\xff"}
        writes = Writes(records={("s", A): None, ("s", B): (b"new", LATER), ("t", A): (b"1", 0)})
        results = await store.apply(writes, Reads(records=keys), NOW + 1)
        assert results.records == {("s", B): b"new", ("t", A): b"1"}

    run(test)


def test_a_record_that_keeps_its_expiry(run: Run) -> None:
    async def test(store: Store) -> None:
        keys = {("s", A), ("s", B), ("s", C)}
        writes = Writes(records={("s", A): (b"1", NOW + 2), ("s", B): (b"1", 0)})
        await store.apply(writes, Reads(), NOW)
        writes = Writes(records={("s", key): (b"2", KEEP_EXPIRY) for key in (A, B, C)})
        results = await store.apply(writes, Reads(records=keys), NOW + 1)
        assert results.records == {("s", A): b"2", ("s", B): b"2"}
        results = await store.apply(Writes(), Reads(records=keys), NOW + 2)
        assert results.records == {("s", B): b"2"}

    run(test)


# --- log


def test_a_renewal_raises_the_expiry_of_what_is_there(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_highest_place(run: Run) -> None:
    async def test(store: Store) -> None:
        assert await store.highest() == 0
        await store.apply(puts(A, item("x", 7), item("y", 2**62)), Reads(), NOW)
        assert await store.highest() == 2**62

    run(test)


def test_what_is_used_grows_and_shrinks(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_log_offsets_and_positions(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_log_keeps_the_newest(run: Run) -> None:
    async def test(store: Store) -> None:
        events = [(A, LATER, str(n)) for n in range(1, 8)]
        results = await store.apply(Writes(events=events), Reads(logs={A: 2}), NOW)
        assert results.offsets == [1, 2, 3, 4, 5, 6, 7]
        assert results.logs[A][1:] == (4, 7, [Event(n, LATER, str(n)) for n in range(4, 8)])

    run(test)


def test_log_expiry_leaves_gaps_and_the_position(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_log_that_begins_anew_has_a_new_epoch(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


def test_position_goes_before_its_events_are_swept(run: Run) -> None:
    async def test(store: Store) -> None:
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

    run(test)


# --- sweep


def test_sweep_deletes_what_expired_and_nothing_else(run: Run) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, item("x", 1, expires=NOW + 1), item("y", 2))
        writes.puts[B, "x"] = item("x", 3, expires=NOW + 1)
        writes.records = {("s", A): (b"", NOW + 1), ("s", B): (b"kept", 0), ("s", C): (b"kept", LATER)}
        writes.events = [(A, NOW + 1, "gone"), (A, LATER, "kept")]
        await store.apply(writes, Reads(), NOW)
        assert await store.sweep(NOW, 1000) == 0
        assert await store.sweep(NOW + 1, 1000) == 4
        assert await store.sweep(NOW + 1, 1000) == 0
        # Read with an earlier clock: what is gone is gone, not just hidden.
        reads = Reads(everything(A, B), {("s", A), ("s", B), ("s", C)}, {A: 0})
        results = await store.apply(Writes(), reads, NOW)
        assert results.inboxes == {A: [item("y", 2)]}
        assert results.records == {("s", B): b"kept", ("s", C): b"kept"}
        assert results.logs[A].events == [Event(2, LATER, "kept")]

    run(test)


@pytest.mark.parametrize("budget", [1, 3, 4, 1000])
def test_sweep_goes_on_where_it_stopped(run: Run, budget: int) -> None:
    async def test(store: Store) -> None:
        writes = Writes()
        for n in range(10):
            key = bytes([n]) * 16
            expires = NOW + 1 if n % 2 else LATER
            writes.puts[key, "s"] = item("s", n, expires=expires)
            writes.puts[A, f"s{n % 3}"] = item(f"s{n % 3}", n, expires=NOW + 1)
            writes.records["r", key] = (b"", expires)
            writes.events.append((key, expires, ""))
        await store.apply(writes, Reads(), NOW)
        counts = []
        # 33 entries and 10 positions, 18 of them expired: a round is over at the latest after so many sweeps.
        for _ in range(43 // budget + 2):
            counts.append(await store.sweep(NOW + 1, budget))
            # What comes between two sweeps does not disturb the round.
            await store.apply(puts(B, item("new", 100 + len(counts))), Reads(), NOW)
        assert sum(counts) == 18
        assert max(counts) <= budget

    run(test)


def test_sweep_comes_round_again(run: Run) -> None:
    async def test(store: Store) -> None:
        for turn in range(3):
            await store.apply(puts(A, item("x", turn, expires=NOW + 1)), Reads(), NOW)
            assert sum([await store.sweep(NOW + 1, 1) for _ in range(3)]) == 1

    run(test)


# --- the stores against each other

DEVICES = st.sampled_from([A, B])
TIMES = st.integers(NOW, NOW + 12)
TEXTS = st.one_of(st.sampled_from(["", "\0", "\\u0000", "é"]), st.text(max_size=5))
LONG_TEXTS = st.sampled_from(["x" * 3000, "x" * LARGE_BODY, "é" * 4000, "é\0" * 4000])
SLOTS = st.sampled_from(["", "a", "b", "c", "d\0"])
RECORDS = st.tuples(st.sampled_from(["s", "t"]), DEVICES)
KNOWN = Reads({A: EVERYTHING, B: 2, C: 1}, {(space, key) for space in "st" for key in (A, B)}, {A: 0, B: 2, C: 0})


EXPIRIES = st.sampled_from([0, KEEP_EXPIRY]) | TIMES
MEMBERS = st.sampled_from([bytes([n]) * 16 for n in range(3)])
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(Put, st.none() | st.binary(max_size=4), EXPIRIES),
    st.builds(PutIfAbsent, st.binary(max_size=4), TIMES),
    st.builds(PutIfNewer, st.binary(min_size=8, max_size=9), EXPIRIES),
    st.builds(Take, MEMBERS),
    st.builds(SetAdd, MEMBERS, st.binary(min_size=4, max_size=4), TIMES, st.integers(0, 2)),
    st.builds(SetRemove, MEMBERS),
)


@st.composite
def batches(draw: st.DrawFn) -> Writes:
    writes = Writes()
    keys = draw(st.lists(st.tuples(DEVICES, SLOTS), unique=True, max_size=8))
    for key in keys:
        if draw(st.booleans()):
            version, expires = draw(st.integers(0, 3)), draw(TIMES)
            writes.puts[key] = Item(
                key[1], version, 0, expires, draw(st.integers(0, 4)), draw(st.none() | TEXTS | LONG_TEXTS)
            )
        else:
            writes.removals[key] = draw(st.integers(-1, 3) | st.just(ANY_VERSION))
    values = st.none() | st.tuples(st.binary(max_size=4), EXPIRIES)
    writes.records = draw(st.dictionaries(RECORDS, values, max_size=3))
    changes = st.lists(st.tuples(RECORDS, CHANGES), max_size=6)
    writes.changes = [(name, change) for name, change in draw(changes) if name not in writes.records]
    writes.events = draw(st.lists(st.tuples(DEVICES, TIMES, TEXTS), max_size=7))
    renewals = st.builds(Renewal, st.sampled_from("st"), st.lists(DEVICES, max_size=2), TIMES, TIMES)
    writes.renewals = draw(st.lists(renewals, max_size=2))
    return writes


class StoresAgree(RuleBasedStateMachine):
    """The same batches to both stores: the same answers, whenever a sweep comes and whenever SQLite is reopened."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        options = StoreOptions(inbox_limit=3, log_limit=4, inbox_bytes=20_000, synchronous="normal")
        self.memory = MemoryStore(options)
        self.sqlite = SqliteStore(options, self.file)
        self.now = NOW
        self.seq = 0

    @property
    def file(self) -> Path:
        return self.folder / "store.sqlite3"

    @initialize()
    def open(self) -> None:
        trio.run(self.sqlite.open)

    def apply(self, writes: Writes) -> None:
        ours = trio.run(self.sqlite.apply, writes, KNOWN, self.now)
        model = trio.run(self.memory.apply, writes, KNOWN, self.now)
        for results in (ours, model):
            results.logs = {channel: log._replace(epoch=0) for channel, log in results.logs.items()}
        assert ours == model

    @rule(writes=batches())
    def write(self, writes: Writes) -> None:
        for key, put in writes.puts.items():
            self.seq += 1
            writes.puts[key] = put._replace(seq=self.seq)
        self.apply(writes)

    @rule(seconds=st.integers(1, 5))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(budget=st.integers(1, 20))
    def sweep(self, budget: int) -> None:
        trio.run(self.sqlite.sweep, self.now, budget)
        trio.run(self.memory.sweep, self.now, budget)

    @precondition(lambda self: self.seq > 0)
    @rule()
    def reopen(self) -> None:
        trio.run(self.sqlite.close)
        trio.run(self.sqlite.open)

    @invariant()
    def same(self) -> None:
        if self.sqlite._connection is not None:
            self.apply(Writes())

    def teardown(self) -> None:
        trio.run(self.sqlite.close)
        shutil.rmtree(self.folder)


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- SQLite only

CHILD = textwrap.dedent("""
    import sys
    from pathlib import Path
    import trio
    from router.common.settings import StoreOptions
    from router.store.base import Item, Reads, Writes
    from router.store.sqlite import SqliteStore

    async def main() -> None:
        store = SqliteStore(StoreOptions(), Path(sys.argv[1]))
        await store.open()
        for number in range(1_000_000):
            device = number.to_bytes(16, "big")
            writes = Writes(events=[(b"c" * 16, 2_000_000, str(number))])
            for n in range(20):
                writes.puts[device, str(n)] = Item(str(n), 1, n, 2_000_000, 0, "x" * 100)
            writes.records["last", b"k"] = (str(number).encode(), 0)
            await store.apply(writes, Reads(), 1_000_000)
            print(number, flush=True)

    trio.run(main)
""")


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_kill_loses_nothing_that_was_reported(path: Path, synchronous: str) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=root, text=True)
    assert child.stdout is not None
    reported = [int(child.stdout.readline()) for _ in range(100)]
    child.send_signal(signal.SIGKILL)
    reported += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    last = reported[-1]

    async def test(store: Store) -> None:
        devices = {number.to_bytes(16, "big") for number in range(last + 2)}
        results = await store.apply(Writes(), Reads(everything(*devices), {("last", b"k")}, {C: last}), NOW)
        whole = [len(results.inboxes.get(number.to_bytes(16, "big"), [])) for number in reported]
        assert whole == [20] * len(reported)
        # One batch more may have been committed and not reported; it is there as a whole or not at all.
        kept = int(results.records["last", b"k"])
        assert kept in {last, last + 1}
        assert len(results.inboxes) == results.logs[C].last == kept + 1
        assert len(results.inboxes.get((last + 1).to_bytes(16, "big"), [])) == (20 if kept > last else 0)

    in_sqlite(path, test, StoreOptions(synchronous=synchronous))


def test_all_shapes_survive_a_restart(path: Path) -> None:
    async def write(store: Store) -> Results:
        writes = puts(A, item("x", 1, body="kept\0"))
        writes.records["s", A] = (b"kept", 0)
        writes.events = [(A, LATER, "kept")]
        return await store.apply(writes, Reads(everything(A), {("s", A)}, {A: 0, B: 0}), NOW)

    async def read(store: Store) -> Results:
        return await store.apply(Writes(), Reads(everything(A), {("s", A)}, {A: 0, B: 0}), NOW)

    before = in_sqlite(path, write)
    before.offsets.clear()
    assert in_sqlite(path, read) == before


def test_files_are_private(path: Path) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        files = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
        assert files.pop(path.name) == 0o600
        assert files.pop(path.name + "-wal") == 0o600
        assert set(files.values()) == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700

    mask = os.umask(0)
    try:
        in_sqlite(path, test)
    finally:
        os.umask(mask)


def test_second_opener_is_refused_and_harms_nothing(path: Path) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        second = SqliteStore(OPTIONS, path)
        with pytest.raises(StoreError, match=rf"another router uses it \(process {os.getpid()}\)"):
            await second.open()
        assert [i.slot for i in await inbox(store, A)] == ["x"]

    in_sqlite(path, test)
    # The lock goes with the store that held it.
    assert [i.slot for i in in_sqlite(path, partial(inbox, device=A))] == ["x"]


def test_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    in_sqlite(path, partial(inbox, device=A))
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}"):
        in_sqlite(path, partial(inbox, device=A))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    db.close()


@pytest.mark.parametrize("content", [b"not a database, " * 400, None])
def test_foreign_file_is_refused_and_left_alone(path: Path, content: bytes | None) -> None:
    path.parent.mkdir()
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="move it away"):
        in_sqlite(path, partial(inbox, device=A))
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [-1, 1])
def test_a_database_with_a_number_of_ours_and_other_tables_is_refused(path: Path, version: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.executescript(f"CREATE TABLE theirs (x); PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(StoreError, match="move it away"):
        in_sqlite(path, partial(inbox, device=A))


def test_folder_that_cannot_be_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"{tmp_path / 'file'} is not a folder"):
        in_sqlite(tmp_path / "file" / "store.sqlite3", partial(inbox, device=A))


def test_read_only_folder() -> None:
    with pytest.raises(StoreError, match="user may write the folder"):
        in_sqlite(Path("/proc/store.sqlite3"), partial(inbox, device=A))  # not even root may write there


def test_full_disk_fails_the_batch_as_a_whole_and_passes(path: Path) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        # SQLite itself keeps this limit, and fails with the code of a full disk.
        db = store._db()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        writes = puts(A, item("y", 2), item("long", 3, body="x" * 100_000))
        with pytest.raises(StoreError, match="free some space"):
            await store.apply(writes, Reads(), NOW)
        assert [i.slot for i in await inbox(store, A)] == ["x"]
        db.execute("PRAGMA max_page_count = 1000000").fetchone()
        assert (await store.apply(writes, Reads(), NOW)).refused == set()
        assert [i.slot for i in await inbox(store, A)] == ["long", "x", "y"]

    in_sqlite(path, test)


def test_lock_held_by_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.store.sqlite.BUSY_TIMEOUT_S", 0)

    async def test(store: Store) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process keeps the database locked"):
            await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        with pytest.raises(StoreError, match="another process keeps the database locked"):
            await store.sweep(NOW, 10)
        other.execute("ROLLBACK")
        other.close()
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        assert [i.slot for i in await inbox(store, A)] == ["x"]

    in_sqlite(path, test)


@pytest.mark.parametrize("bad", [item("x", 2, version=2**63), item("x", 2, body="\ud800")])
def test_what_cannot_be_stored_fails_the_batch_as_a_whole(path: Path, bad: Item) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, item("good", 1), bad)
        writes.records["s", A] = (b"", 0)
        with pytest.raises(BadBatchError):
            await store.apply(writes, Reads(), NOW)
        results = await store.apply(Writes(), Reads(everything(A), {("s", A)}), NOW)
        assert results == Results()

    in_sqlite(path, test)


@pytest.mark.parametrize(
    ("statement", "unreadable"),
    [
        ("UPDATE inbox SET body = CAST(x'ff' AS TEXT) WHERE slot = 'y'", {A}),
        ("UPDATE record SET value = '*' WHERE space = 's'", {("s", A)}),
        ("UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE body = 'e'", {A}),
    ],
)
def test_what_is_damaged_is_missed_by_who_asked_for_it_alone(
    path: Path, statement: str, unreadable: set[object]
) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        writes = puts(A, item("x", 1), item("y", 2)) if "inbox" in statement else Writes()
        writes.puts |= puts(B, item("z", 3)).puts
        writes.records = {("s", A): (b"1", 0), ("t", A): (b"2", 0)}
        writes.events = [(A, LATER, "e"), (B, LATER, "f")] if "event" in statement else [(B, LATER, "f")]
        await store.apply(writes, Reads(), NOW)
        store._db().execute(statement)
        logs = {A: 0, B: 0} if "event" in statement else {B: 0}
        more = Writes(events=[(C, LATER, "g"), (C, LATER, "h")])
        found = await store.apply(more, Reads(everything(A, B), {("s", A), ("t", A)}, logs), NOW)
        assert found.unreadable == unreadable
        assert found.offsets == [1, 2]
        assert [i.slot for i in found.inboxes[B]] == ["z"]
        assert found.records["t", A] == b"2" and (("s", A) in found.records) is ("record" not in statement)
        assert [event.body for event in found.logs[B].events] == ["f"]

    in_sqlite(path, test)


def test_a_connection_that_keeps_failing_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.store.sqlite.REOPEN_AFTER_S", 0)

    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        store._db().close()  # as good as broken: every call fails from now on
        for _ in range(2):
            with pytest.raises(StoreError):
                await inbox(store, A)
        assert [i.slot for i in await inbox(store, A)] == ["x"]
        with pytest.raises(StoreError, match="another router uses it"):
            await SqliteStore(OPTIONS, path).open()

    in_sqlite(path, test)


def test_cancelled_apply_is_done_or_not_begun(path: Path) -> None:
    async def test(store: Store) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        assert scope.cancelled_caught
        assert await inbox(store, A) == []

    in_sqlite(path, test)


def test_closed_store_says_so_and_closes_again(path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(OPTIONS, path)
        await store.close()
        with pytest.raises(StoreError, match="not open"):
            await store.apply(Writes(events=[(A, LATER, "")]), Reads(), NOW)
        await store.open()
        await store.close()
        await store.close()

    trio.run(main)


@pytest.mark.parametrize(("statement", "values"), [(WRITE, 6), (WRITE_NUL, 7), (READ, 6)])
def test_no_statement_of_a_batch_scans_a_table(path: Path, statement: str, values: int) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        plan = store._db().execute(f"EXPLAIN QUERY PLAN {statement}", (b"[]",) * 4 + (0,) * (values - 4))
        scans = {row[3] for row in plan if row[3].startswith("SCAN")}
        assert {s for s in scans if "VIRTUAL TABLE" not in s} <= {"SCAN CONSTANT ROW", "SCAN meta"}

    in_sqlite(path, test)


def test_a_renewal_finds_its_records_by_their_key(path: Path) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        plan = [row[3] for row in store._db().execute(f"EXPLAIN QUERY PLAN {RENEW}", ("s", b"[]", 1, 1, 1))]
        assert any("SEARCH record USING PRIMARY KEY (space=? AND key=?)" in step for step in plan)

    in_sqlite(path, test)


# --- choice and sizes


def test_settings_choose_the_store(tmp_path: Path) -> None:
    tree = defaults(SECTIONS).replace(Data, dir=str(tmp_path / "new"))
    assert isinstance(open_store(tree.replace(StoreOptions, kind="memory")), MemoryStore)
    store = open_store(tree)
    assert isinstance(store, SqliteStore)
    trio.run(with_store, store, partial(inbox, device=A))
    assert (tmp_path / "new" / "store.sqlite3").exists()


def test_memory_store_counts_what_it_holds() -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, MemoryStore)
        writes = puts(A, item("x", 1), item("y", 2, expires=NOW + 1))
        writes.records["s", A] = (b"", 0)
        writes.events = [(A, LATER, "")] * 3
        await store.apply(writes, Reads(), NOW)
        await store.apply(puts(A, item("x", 3)), Reads(), NOW)
        assert dict(store.sizes()) == {"inbox": 2, "log": 3, "table": 1}
        await store.sweep(NOW + 1, 100)
        await store.apply(Writes(removals={(A, "x"): ANY_VERSION}), Reads(), NOW)
        assert dict(store.sizes()) == {"inbox": 0, "log": 3, "table": 1}

    trio.run(with_store, MemoryStore(OPTIONS), test)
