"""What a batch makes of entries of memcached, whatever they hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.stores import LATER, NOW, A, B, everything, item, puts

from router.common.item import Item
from router.store.base import Append, Reads, Renewal, Results, Writes
from router.store.changes import UNCHANGED, Changed, PutIfAbsent, SetAdd, Take
from router.store.memcached_protocol import Entry
from router.store.memcached_work import CEILING, Layout, Work, Write, ceiling, check, layout_in, works

LAYOUT = Layout("farm:", 3)
INBOX = b"farm:i:" + A.hex().encode()
RECORD = b"farm:r:s:" + A.hex().encode()
TAKEN = b"farm:r:s%23taken:" + A.hex().encode()
NAME = ("s", A)
ROOM = 2**20
NEVER_VALID = [b"", b"\xc1", b"\x93", b"\x91\x01", b"somebody else's", msgspec.msgpack.encode([["slot", "1"]])]


def inbox_entry(*items: Item) -> dict[bytes, Entry]:
    return {INBOX: Entry(msgspec.msgpack.encode(items), 5)}


def record(value: bytes, expires: int) -> Entry:
    return Entry(expires.to_bytes(8, "big") + value, 5)


def only_work(writes: Writes, reads: Reads | None = None) -> Work:
    (work,) = works(LAYOUT, writes, reads or Reads(), False)
    return work


def results_of(work: Work, changes: int = 0) -> Results:
    results = Results(changes=[Changed(UNCHANGED)] * changes)
    work.done(results)
    return results


def items_in(write: Write) -> list[Item]:
    assert write.value is not None
    return msgspec.msgpack.decode(write.value, type=list[Item])


@pytest.mark.parametrize("value", NEVER_VALID)
def test_an_entry_of_somebody_else_counts_as_none(value: bytes) -> None:
    found = {INBOX: Entry(value, 5), RECORD: Entry(value[:7], 5)}
    reads = Reads(everything(A), {NAME})
    for work in works(LAYOUT, Writes(), reads, False):
        assert work.make(found, NOW, ROOM) == []
        assert results_of(work) == Results()
    work = only_work(puts(A, item("x", 1)))
    (write,) = work.make(found, NOW, ROOM)
    assert items_in(write) == [item("x", 1)]


def test_nothing_is_written_where_nothing_changes() -> None:
    stored = item("x", 1, version=5)
    for writes in (
        Writes(removals={(A, "x"): 4, (A, "y"): 9}),
        puts(A, item("new", 9)),
        Writes(),
        Writes(renewals=[Renewal("s", [A], LATER, NOW + 1)]),
        Writes(records={NAME: None}),
        Writes(records={NAME: (b"v", LATER)}),
    ):
        full = [stored, item("y", 2, version=10), item("z", 3)]
        for work in works(LAYOUT, writes, Reads(everything(A)), False):
            found = inbox_entry(*full) | ({RECORD: record(b"v", LATER)} if writes.records.get(NAME) else {})
            assert work.make(found, NOW, ROOM) == []


def test_an_inbox_that_is_empty_goes_and_one_that_was_not_there_is_not_deleted() -> None:
    work = only_work(Writes(removals={(A, "x"): 1}))
    assert work.make(inbox_entry(item("x", 1)), NOW, ROOM) == [Write(INBOX, None, 0)]
    assert work.make({}, NOW, ROOM) == []
    # The item that is put has expired: it replaces, and is not kept.
    work = only_work(puts(A, item("x", 2, expires=NOW)))
    assert work.make(inbox_entry(item("x", 1)), NOW, ROOM) == [Write(INBOX, None, 0)]
    assert work.make({}, NOW, ROOM) == []


def test_an_entry_lives_as_long_as_what_is_in_it() -> None:
    work = only_work(puts(A, item("x", 1, expires=NOW + 5)))
    assert [write.ttl for write in work.make({}, NOW, ROOM)] == [5]
    assert [write.ttl for write in work.make(inbox_entry(item("y", 2, expires=NOW + 7)), NOW, ROOM)] == [7]
    for expires, ttl in ((0, 0), (NOW + 9, 9), (NOW - 9, 1)):
        work = only_work(Writes(records={NAME: (b"v", expires)}))
        assert [write.ttl for write in work.make({}, NOW, ROOM)] == [ttl]


def test_work_is_made_again_of_what_is_there_then() -> None:
    work = only_work(puts(A, item("a", 1), item("b", 2)), Reads(everything(A)))
    full = [item(slot, 0) for slot in "xyz"]
    assert work.make(inbox_entry(*full), NOW, ROOM) == []
    assert results_of(work) == Results(refused={(A, "a"), (A, "b")}, inboxes={A: full})
    (write,) = work.make(inbox_entry(*full[:2]), NOW, ROOM)
    assert [i.slot for i in items_in(write)] == ["a", "x", "y"]
    assert results_of(work).refused == {(A, "b")}
    change = only_work(Writes(changes=[(NAME, PutIfAbsent(b"v", 0))]))
    assert len(change.make({}, NOW, ROOM)) == 1
    assert change.make({RECORD: record(b"w", 0)}, NOW, ROOM) == []
    assert results_of(change, 1).changes == [Changed(UNCHANGED)]


@pytest.mark.parametrize("room", range(150, 400, 7))
def test_an_inbox_takes_no_more_than_an_entry_may_have(room: int) -> None:
    stored = item("x", 1, body="x" * 100)
    new = [item("x", 2, body="y" * 90), item("long", 3, body="l" * 200), item("s", 4, body=""), item("t", 5, body="é")]
    work = only_work(puts(A, *new), Reads(everything(A)))
    writes = work.make(inbox_entry(stored), NOW, room)
    results = results_of(work)
    kept = {i.slot for i in results.inboxes[A]}
    assert all(len(write.value or b"") <= room for write in writes)
    assert kept | {slot for _, slot in results.refused} == {"x", "long", "s", "t"}
    # What was refused would not have found room.
    left = [i for i in new if i.slot in kept]
    for i in new:
        if i.slot not in kept and len(left) < LAYOUT.inbox_limit:
            assert len(msgspec.msgpack.encode([*left, i])) + 5 > room


def test_what_is_smaller_than_before_is_put_though_there_is_no_room() -> None:
    found = inbox_entry(item("x", 1, body="x" * 300))
    work = only_work(puts(A, item("x", 2, body="x" * 200)))
    assert len(work.make(found, NOW, 100)) == 1
    assert results_of(work).refused == set()


def test_a_record_is_kept_under_its_taker_before_it_goes() -> None:
    work = only_work(Writes(changes=[(NAME, Take(b"n" * 16))]))
    assert list(work.keys) == [RECORD, TAKEN]
    writes = work.make({RECORD: record(b"token", 0)}, NOW, ROOM)
    assert [(write.key, write.value is None) for write in writes] == [(TAKEN, False), (RECORD, True)]


def test_the_first_write_marks_that_something_is_kept() -> None:
    def names(writes: Writes, mark: bool) -> set[Any]:
        return {getattr(work, "name", None) for work in works(LAYOUT, writes, Reads(everything(A)), mark)}

    assert names(puts(A, item("x", 1)), True) == {None, CEILING}
    assert names(puts(A, item("x", 1)), False) == {None}
    assert names(Writes(), True) == {None}
    assert names(Writes(removals={(A, "x"): 1}), True) == {None}


def test_a_ceiling_is_only_raised() -> None:
    key = LAYOUT.record(CEILING)
    work = only_work(Writes(ceiling=7))
    (write,) = work.make({}, NOW, ROOM)
    assert write.value is not None
    assert (write.key, write.ttl, ceiling(Entry(write.value, 1))) == (key, 0, 7)
    assert work.make({key: record((8).to_bytes(8, "big"), 0)}, NOW, ROOM) == []
    assert ceiling(None) == 0


@pytest.mark.parametrize(
    "writes",
    [
        Writes(logs=[Append(A, 1, LATER, "")]),
        puts(A, item("\ud800", 1)),
        puts(A, item("x", 2**70)),
        Writes(records={NAME: (b"x" * ROOM, 0)}),
        Writes(records={("s" * 250, A): (b"", 0)}),
        Writes(changes=[(NAME, Take(b"short"))]),
        Writes(changes=[(NAME, SetAdd(B, b"", 0, 1))]),
    ],
)
def test_what_can_never_be_written_is_seen_before_anything_is(writes: Writes) -> None:
    with pytest.raises((ValueError, OverflowError)):
        check(LAYOUT, writes, NOW, ROOM)


def test_keys_are_what_memcached_takes() -> None:
    name = ("a space: \0\n%é", b"\x00\xff")
    assert LAYOUT.record(name) == b"farm:r:a%20space%3A%20%00%0A%25%C3%A9:00ff"
    assert len(LAYOUT.record(("s" * 50, A))) < 250


@pytest.mark.parametrize("value", [b"2", b"9" * 10, b"1" * 100_000])
def test_a_layout_that_is_too_new_is_told_however_long_its_number_is(value: bytes) -> None:
    assert layout_in(Entry(value, 1)) > layout_in(None) == layout_in(Entry(b"x" + value, 1)) == 1
