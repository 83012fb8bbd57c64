"""Logs of channels, in each store that has them: what is kept, and what is read from each kind of position."""

from __future__ import annotations

import pytest
from support.stores import ALL, LATER, NOW, TEXTS, A, B, C, bodies, event, in_store, read_log

from router.common.numbers import SECOND
from router.common.position import (
    ANY_EPOCH,
    LIVE,
    OWN_OFFSETS,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    LogEvent,
    Position,
)
from router.common.settings import StoreOptions
from router.common.store_kinds import Shape
from router.store.base import MAX_OFFSET, Append, ExpireLog, LogName, LogSize, Reads, Store, Writes
from router.store.memory import HEAD_GRACE

START = NOW * SECOND


async def write(store: Store, *writes: Append | ExpireLog, now: int = NOW) -> list[int | None]:
    """Returns: the offsets of what was appended."""
    results = await store.apply(Writes(logs=list(writes)), Reads(), now)
    return [None if end is None else end.offset for end in results.appended]


async def spell(store: Store, channel: bytes, text: str, **more: object) -> None:
    """An event a letter, each in its own batch and a second after the one before."""
    for number, letter in enumerate(text):
        await write(store, event(channel, letter, sequence=START + number * SECOND, id=letter.upper()))


async def after(store: Store, position: Position, now: int = NOW) -> tuple[str, bool]:
    part = await read_log(store, A, position, now)
    return bodies(part), part.recovered


@in_store(needs={Shape.LOG})
async def test_offsets_count_from_one_in_each_channel(store: Store) -> None:
    logs: list[Append | ExpireLog] = [event(A, "a1"), event(B, "b1"), event(A, "a2")]
    results = await store.apply(Writes(logs=logs), Reads(logs={LogName(channel, ALL) for channel in (A, B, C)}), NOW)
    a, b, c = (results.logs[LogName(channel, ALL)] for channel in (A, B, C))
    assert results.appended == [AfterOffset(a.epoch, 1), AfterOffset(b.epoch, 1), AfterOffset(a.epoch, 2)]
    assert (a.offset, b.offset, c.offset) == (2, 1, 0)
    assert [bodies(part) for part in (a, b, c)] == ["a1a2", "b1", ""]
    assert await write(store, event(A, "a3")) == [3]


@pytest.mark.parametrize("text", TEXTS)
@in_store(needs={Shape.LOG})
async def test_a_body_comes_back_as_it_was(store: Store, text: str) -> None:
    await write(store, event(A, text))
    assert bodies(await read_log(store, A)) == text


@in_store(needs={Shape.LOG})
async def test_an_event_comes_back_as_it_was(store: Store) -> None:
    given = Append(A, START + 5 * SECOND + 77, LATER, "nul \0 \\u0000 é", "id é", {"a": 'x"\n', "": "é"})
    await write(store, given, event(A, "plain"))
    first, second = (await read_log(store, A)).events
    assert first == LogEvent(1, NOW + 5, 77, LATER, given.id, given.headers, given.body)
    assert second == LogEvent(2, NOW, 0, LATER, "", {}, "plain")


@pytest.mark.parametrize(
    ("position", "found"),
    [
        (LIVE, ("", True)),
        (Last(0), ("", True)),
        (Last(2), ("de", True)),
        (Last(100), ("abcde", True)),
        (AfterOffset(ANY_EPOCH, 0), ("abcde", True)),
        (AfterOffset(ANY_EPOCH, 3), ("de", True)),
        (AfterOffset(ANY_EPOCH, 5), ("", True)),
        (AfterOffset(ANY_EPOCH, 6), ("abcde", False)),  # from a log that was lost
        (AfterOffset(OWN_OFFSETS, 3), ("de", True)),
        (AfterOffset(OWN_OFFSETS, 6), ("", True)),
        (AfterOffset(1, 3), ("abcde", False)),
        (AfterId("B"), ("cde", True)),
        (AfterId("E"), ("", True)),
        (AfterId("?"), ("abcde", False)),
        (AfterId(""), ("abcde", False)),
        (AfterId("?", NOW + 2), ("de", True)),
        (AfterId("?", NOW + 9), ("", True)),
        (AfterId("D", NOW + 1), ("cde", True)),  # the oldest that is either begins it
        (AfterId("B", NOW + 3), ("cde", True)),
        (AfterTime(NOW + 1), ("cde", True)),
        (AfterTime(NOW + 1, 0), ("cde", True)),
        (AfterTime(NOW), ("bcde", True)),
        (AfterTime(NOW + 4), ("", True)),
        (AfterTime(NOW - 1), ("abcde", False)),  # the log began later
    ],
)
@in_store(StoreOptions(), needs={Shape.LOG})
async def test_each_position_of_a_whole_log(store: Store, position: Position, found: tuple[str, bool]) -> None:
    await spell(store, A, "abcde")
    assert await after(store, position) == found


@in_store(needs={Shape.LOG})
async def test_the_end_of_a_slice_is_a_position(store: Store) -> None:
    await spell(store, A, "abc")
    end = (await read_log(store, A)).end
    assert await after(store, end) == ("", True)
    await spell(store, A, "d")
    assert await after(store, end) == ("d", True)


@in_store(needs={Shape.LOG})
async def test_of_the_same_second_the_tag_decides(store: Store) -> None:
    for tag in (3, 5, 9):
        await write(store, event(A, f"{tag}", sequence=START + tag))
    assert await after(store, AfterTime(NOW, 5)) == ("9", True)
    assert await after(store, AfterTime(NOW, 4)) == ("59", True)
    assert await after(store, AfterTime(NOW)) == ("", True)
    assert await after(store, AfterId("?", NOW, 5)) == ("9", True)


@in_store(needs={Shape.LOG})  # four events are kept
async def test_what_had_to_go_is_missed_by_those_who_stand_before_it(store: Store) -> None:
    await spell(store, A, "abcdef")
    for position, found in (
        (AfterOffset(ANY_EPOCH, 1), ("cdef", False)),
        (AfterOffset(ANY_EPOCH, 2), ("cdef", True)),
        (AfterOffset(ANY_EPOCH, 3), ("def", True)),
        (AfterId("B"), ("cdef", False)),
        (AfterId("C"), ("def", True)),
        (AfterId("?", NOW), ("cdef", False)),
        (AfterId("?", NOW + 1), ("cdef", True)),
        (AfterTime(NOW), ("cdef", False)),
        (AfterTime(NOW + 1), ("cdef", True)),
        (Last(9), ("cdef", True)),
    ):
        assert await after(store, position) == found, position


@in_store(needs={Shape.LOG})
async def test_what_expires_is_missed_too_swept_or_not(store: Store) -> None:
    for body, expires in (("a", NOW + 1), ("b", NOW + 3), ("c", NOW + 1), ("d", NOW + 2)):
        await write(store, event(A, body, expires, START + ord(body)))
    for swept in (False, True):
        if swept:
            assert await store.sweep(NOW + 2, 1000) == 3
        part = await read_log(store, A, ALL, NOW + 2)
        assert (part.offset, bodies(part), part.recovered) == (4, "b", False)
        assert await after(store, AfterOffset(ANY_EPOCH, 3), NOW + 2) == ("", False)
        assert await after(store, AfterOffset(ANY_EPOCH, 4), NOW + 2) == ("", True)
        assert await after(store, AfterTime(NOW, ord("c")), NOW + 2) == ("", False)
        assert await after(store, AfterTime(NOW, ord("d")), NOW + 2) == ("", True)
    assert await after(store, ALL, NOW + 3) == ("", False)
    assert await write(store, event(A, "e"), now=NOW + 3) == [5]
    assert await after(store, AfterOffset(ANY_EPOCH, 4), NOW + 3) == ("e", True)


@in_store(needs={Shape.LOG})
async def test_what_has_expired_takes_no_room_swept_or_not(store: Store) -> None:
    for body, expires in (("a", LATER), ("b", NOW + 1), ("c", NOW + 1), ("d", LATER)):
        await write(store, event(A, body, expires))
    await write(store, event(A, "e"), event(A, "f"), now=NOW + 1)
    assert bodies(await read_log(store, A, ALL, NOW + 1)) == "adef"
    await write(store, event(A, "g"), now=NOW + 1)
    assert bodies(await read_log(store, A, ALL, NOW + 1)) == "defg"


@in_store(StoreOptions(log_limit=100, log_bytes=1000), needs={Shape.LOG})
async def test_a_channel_keeps_so_many_events_and_bytes(store: Store) -> None:
    for letter in "abcdef":
        await write(store, event(A, letter, most=3))
    assert bodies(await read_log(store, A)) == "def"
    await write(store, *(event(B, letter * 100, most_bytes=250) for letter in "abcdef"))
    assert bodies(await read_log(store, B)) == "e" * 100 + "f" * 100
    # The store's own limits are not exceeded, whatever is asked for; what is more than all of it is not kept.
    await write(store, *(event(C, letter * 400, most=999, most_bytes=99_999) for letter in "abc"))
    assert bodies(await read_log(store, C)) == "b" * 400 + "c" * 400
    assert await write(store, event(C, "x" * 1001)) == [4]
    part = await read_log(store, C)
    assert (part.offset, part.events, part.recovered) == (4, [], False)


@in_store(StoreOptions(log_limit=100), needs={Shape.LOG})
async def test_a_log_is_read_in_parts_of_so_many_bytes(store: Store) -> None:
    await write(store, *(event(A, letter * 50) for letter in "abcdef"), event(A, "gone", NOW + 1), event(A, "h" * 50))
    whole = await read_log(store, A, now=NOW + 1)
    found, position, pages = [], ALL, 0
    while True:  # each counts 150 bytes
        page = await read_log(store, A, position, NOW + 1, most=300)
        assert page.offset == whole.offset
        found += page.events
        pages += 1
        if not page.more:
            break
        assert len(page.events) == 2
        position = page.end
        assert position.offset == page.events[-1].offset
    assert (found, pages, page.end.offset) == (whole.events, 4, 8)
    one = await read_log(store, A, ALL, most=1)
    assert (bodies(one), one.more) == ("a" * 50, True)
    # Of the newest it is the oldest that come first, whatever others ask for.
    names = [LogName(A, Last(number), most) for number, most in ((5, 300), (1, 300), (2, 300), (5, 0), (0, 300))]
    results = await store.apply(Writes(), Reads(logs=set(names)), NOW + 1)
    parts = [results.logs[name] for name in names]
    assert ["".join(sorted(set(bodies(part)))) for part in parts] == ["cd", "h", "fh", "cdefh", ""]
    assert [part.more for part in parts] == [True, False, False, False, False]


@in_store(StoreOptions(log_limit=100, log_bytes=65_536), needs={Shape.LOG})
async def test_one_event_may_take_the_place_of_many(store: Store) -> None:
    for _ in range(2):
        await write(store, *(event(A, "x" * 600) for _ in range(100)))
    await write(store, event(A, "y" * 60_000))
    part = await read_log(store, A)
    assert [len(one.body) for one in part.events] == [600] * 9 + [60_000]
    assert await write(store, event(A, "z", most=2)) == [202]
    assert [one.offset for one in (await read_log(store, A)).events] == [201, 202]


@in_store(needs={Shape.LOG})
async def test_ids_and_headers_count_as_bytes_and_all_in_utf_8(store: Store) -> None:
    await write(store, event(A, "é" * 5, id="é", headers={"é": "é"}, most_bytes=16))
    assert len((await read_log(store, A)).events) == 1
    await write(store, event(A, "é" * 5, id="é", headers={"é": "éx"}, most_bytes=16))
    assert (await read_log(store, A)).events == []


@in_store(needs={Shape.LOG})
async def test_a_dialect_may_give_the_offsets_in_any_order(store: Store) -> None:
    async def give(offset: int, body: str) -> list[int | None]:
        return await write(store, event(A, body, offset=offset, exact=True))

    assert [await give(10, "j"), await give(5, "e"), await give(7, "g")] == [[10], [5], [7]]
    assert await give(7, "again") == [None]
    assert await after(store, ALL) == ("egj", True)
    assert await after(store, AfterOffset(ANY_EPOCH, 5)) == ("gj", True)
    assert await after(store, AfterOffset(ANY_EPOCH, 6)) == ("gj", True)
    # The lowest of the others goes.
    assert await give(12, "l") == [12]
    assert await give(1, "a") == [1]
    assert await after(store, AfterOffset(ANY_EPOCH, 5)) == ("gjl", True)
    assert await after(store, ALL) == ("agjl", False)
    assert await give(11, "k") == [11]
    assert await after(store, AfterOffset(ANY_EPOCH, 5)) == ("gjkl", True)
    assert await after(store, AfterOffset(ANY_EPOCH, 4)) == ("gjkl", False)
    # What comes without is the highest.
    assert await write(store, event(A, "m")) == [13]


@in_store(StoreOptions(), needs={Shape.LOG})
async def test_an_event_with_an_offset_of_its_own_stays_though_it_is_the_lowest(store: Store) -> None:
    for offset in range(10, 50):
        await write(store, event(A, "x", offset=offset, exact=True, most=40, most_bytes=40))
    assert await write(store, event(A, "y" * 20, offset=5, exact=True, most=40, most_bytes=40)) == [5]
    assert await after(store, ALL) == ("y" * 20 + "x" * 20, False)
    assert await write(store, event(A, "z", offset=4, exact=True, most=2)) == [4]
    assert await after(store, ALL) == ("zx", False)
    assert await write(store, event(A, "w" * 41, offset=3, exact=True, most_bytes=40)) == [None]
    assert await after(store, ALL) == ("zx", False)
    assert await write(store, event(A, "w" * 40, offset=3, exact=True, most_bytes=40)) == [3]
    assert await after(store, ALL) == ("w" * 40, False)


@in_store(needs={Shape.LOG})
async def test_an_offset_may_have_a_floor(store: Store) -> None:
    assert await write(store, event(A, offset=1000), event(A, offset=5), event(A, offset=2000)) == [1000, 1001, 2000]


@in_store(needs={Shape.LOG})
async def test_no_offset_is_above_what_javascript_can_have(store: Store) -> None:
    assert await write(store, event(A, "a", offset=MAX_OFFSET - 1, exact=True), event(A, "b")) == [
        MAX_OFFSET - 1,
        MAX_OFFSET,
    ]
    assert await write(store, event(A, "no"), event(A, "c", offset=5, exact=True), event(A, "no", offset=5)) == [
        None,
        5,
        None,
    ]
    assert await after(store, ALL) == ("cab", True)


@in_store(needs={Shape.LOG})
async def test_a_log_may_end_at_a_time_of_its_own(store: Store) -> None:
    await write(store, event(A, "a"), ExpireLog(A, NOW + 5), event(A, "b"))
    epoch = (await read_log(store, A, ALL, NOW + 4)).epoch
    await write(store, ExpireLog(A, NOW + 6), now=NOW + 4)
    assert bodies(await read_log(store, A, ALL, NOW + 5)) == "ab"
    gone = await read_log(store, A, AfterOffset(epoch, 2), NOW + 6)
    assert (gone.offset, gone.events) == (0, [])
    # What comes then is in a new log, with none of the old one's limits in time.
    assert await write(store, event(A, "c"), now=NOW + 6) == [1]
    part = await read_log(store, A, AfterOffset(epoch, 2), NOW + 60)
    assert (bodies(part), part.recovered) == ("c", False)
    assert part.epoch > epoch


@in_store(needs={Shape.LOG})
async def test_a_log_ends_at_once_and_may_be_kept_for_good_again(store: Store) -> None:
    await write(store, event(A, "a"), event(B, "b"), ExpireLog(B, NOW + 5), ExpireLog(B, 0), ExpireLog(C, 0))
    assert await write(store, ExpireLog(A, NOW), event(A, "again")) == [None, 1]
    assert await after(store, ALL) == ("again", True)
    assert bodies(await read_log(store, B, ALL, NOW + 6)) == "b"
    await write(store, ExpireLog(A, NOW - 1), ExpireLog(C, NOW))
    assert await after(store, ALL) == ("", True)


@in_store(needs={Shape.LOG})
async def test_a_log_may_have_its_end_before_its_first_event(store: Store) -> None:
    await write(store, ExpireLog(A, NOW + HEAD_GRACE + 5))
    epoch = (await read_log(store, A)).epoch
    await store.sweep(NOW + HEAD_GRACE + 4, 1000)
    assert (await read_log(store, A, ALL, NOW + HEAD_GRACE + 4)).epoch == epoch
    late = NOW + HEAD_GRACE + 9
    assert await write(store, event(A, "a", late), now=NOW + HEAD_GRACE + 4) == [1]
    assert bodies(await read_log(store, A, ALL, NOW + HEAD_GRACE + 5)) == ""
    await store.sweep(NOW + HEAD_GRACE + 5, 1000)
    # With an earlier clock: it is gone, not just hidden.
    assert bodies(await read_log(store, A)) == ""


@in_store(needs={Shape.LOG})
async def test_a_log_that_begins_anew_has_a_new_epoch(store: Store) -> None:
    # A channel's position stays for as long as its event that lives longest, and a while.
    await write(store, event(A, "1", LATER), event(A, "2", NOW + 1), event(B, "b", LATER + HEAD_GRACE))
    before = {channel: await read_log(store, channel) for channel in (A, B, C)}
    assert before[C].epoch == before[A].epoch
    await store.sweep(LATER + HEAD_GRACE - 1, 1000)
    part = await read_log(store, A, ALL, LATER + HEAD_GRACE)
    assert (part.epoch, part.offset, part.events) == (before[A].epoch, 2, [])
    await store.sweep(LATER + HEAD_GRACE, 1000)
    now = LATER + HEAD_GRACE
    assert await write(store, event(A, "new", now + 1), now=now) == [1]
    part = await read_log(store, A, AfterOffset(before[A].epoch, 2), now)
    assert (bodies(part), part.offset, part.recovered) == ("new", 1, False)
    assert part.epoch > before[A].epoch
    part = await read_log(store, B, ALL, now)
    assert (part.epoch, part.offset) == (before[B].epoch, 1)


@in_store(needs={Shape.LOG})
async def test_a_position_goes_before_its_events_are_swept(store: Store) -> None:
    async def append(channel: bytes) -> int:
        (offset,) = await write(store, event(channel, "", NOW), now=now)
        assert offset is not None
        return offset

    now = NOW + HEAD_GRACE
    assert [await append(A), await append(b"z" * 16)] == [1, 1]
    await store.sweep(now, 1)
    await store.sweep(now, 1)
    # In SQLite the round is past A's events and comes to the positions next; in memory A has begun anew.
    assert await append(A) in {1, 2}
    await store.sweep(now, 1)
    # Begun anew or not, the channel takes events.
    assert await append(A) + 1 == await append(A)


@in_store(StoreOptions(log_limit=3), needs={Shape.LOG})
async def test_how_much_a_log_holds_is_known_without_reading_it(store: Store) -> None:
    await spell(store, A, "abcd")
    await write(store, event(B, "b", expires=NOW + 5), event(B, "b"), ExpireLog(C, LATER))
    now_and_then = [(await store.apply(Writes(), Reads(log_sizes={A, B, C}), now)).log_sizes for now in (NOW, NOW + 5)]
    assert now_and_then == [
        {A: LogSize(4, 3, LATER), B: LogSize(2, 2, LATER), C: LogSize(0, 0, 0)},
        {A: LogSize(4, 3, LATER), B: LogSize(2, 1, LATER), C: LogSize(0, 0, 0)},
    ]
    results = await store.apply(Writes(logs=[ExpireLog(A, NOW), event(B, "c")]), Reads(log_sizes={A, B}), NOW)
    assert results.log_sizes == {B: LogSize(3, 3, LATER)}
