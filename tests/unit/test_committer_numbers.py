"""Numbers, clocks and positions of what is committed."""

from itertools import pairwise
from typing import Any

import pytest
from support.commits import CHANNEL, DEVICE, OTHER, event, item
from support.common import Rig, in_rig

from router.common.messages import FAILED, FULL, OK
from router.common.numbers import SECOND
from router.common.position import (
    ANY_EPOCH,
    MAX_EVENT_ID,
    MAX_HEADERS,
    AfterOffset,
    Last,
    LogSlice,
    Position,
)
from router.store.base import MAX_OFFSET


@pytest.mark.parametrize("step", [-3600, 0, 3600])
@in_rig()
async def test_after_a_restart_places_are_later_than_all_before_whatever_the_clock_does(rig: Rig, step: int) -> None:
    places = []
    for number in range(3):
        rig.push(DEVICE, f"{number}", rig.hub.messages.version())
        places.append(rig.hub.messages.sequence())
    versions = [rig.hub.messages.version()]
    await rig.settle()
    rig.clock.unix_s += step
    await rig.committer_restarts()
    rig.router_restarts()
    rig.hub.begin_after(rig.committer.newest)
    assert rig.committer.newest >= max(places)
    assert rig.hub.messages.sequence() > max(places)
    versions.append(rig.hub.messages.version())
    assert versions == sorted(versions)
    # It goes ahead of the clock by no more than seconds.
    assert rig.committer.newest < max(places) + 2 * SECOND
    # And every second has a version of its own.
    for _ in range(3):
        rig.clock.pass_by(1)
        versions.append(rig.hub.messages.version())
    assert len(set(versions[1:])) == 4 and versions == sorted(versions)


@pytest.mark.parametrize("steps", [[-3600], [3600, -7200], [-5, -5, 3, 7200, -1]])
@in_rig()
async def test_a_clock_that_is_set_while_it_serves_changes_no_order(rig: Rig, steps: list[int]) -> None:
    places, versions = [rig.hub.messages.sequence()], [rig.hub.messages.version()]
    for step in steps:
        rig.clock.unix_s += step
        for _ in range(2):
            rig.clock.pass_by(1)
            places.append(rig.hub.messages.sequence())
            versions.append(rig.hub.messages.version())
    assert all(before < after for before, after in pairwise(places))
    assert all(before < after for before, after in pairwise(versions))


@in_rig()
async def test_a_ceiling_that_failed_is_raised_with_the_next_item(rig: Rig) -> None:
    rig.store.failing = True
    rig.committer.put(DEVICE, item(rig, "a", 1, seq=100), lambda status: None)
    await rig.settle()
    rig.store.failing = False
    rig.committer.put(DEVICE, item(rig, "a", 1, seq=101), lambda status: None)
    await rig.settle()
    await rig.committer_restarts()
    assert rig.committer.newest > 101


@in_rig()
async def test_a_clock_that_is_set_forward_deletes_nothing_for_a_while(rig: Rig) -> None:
    async def sweep() -> int:
        rig.committer.sweep_soon(100)
        await rig.settle()
        return rig.committer.expired

    rig.committer.put(DEVICE, item(rig, "a", 1, ttl=600), lambda status: None)
    await rig.settle()
    rig.clock.unix_s += 3600
    assert await sweep() == 0
    rig.clock.pass_by(30)
    assert await sweep() == 0
    rig.clock.unix_s -= 3600  # it was a mistake
    assert await sweep() == 0
    assert await rig.inbox(DEVICE) == [("a", 1)]
    rig.clock.pass_by(600)
    assert await sweep() == 1
    rig.committer.put(DEVICE, item(rig, "a", 1, ttl=600), lambda status: None)
    await rig.settle()
    rig.clock.unix_s += 3600  # it was none
    assert await sweep() == 1
    rig.clock.pass_by(3601)
    assert await sweep() == 2


@in_rig()
async def test_a_read_sees_what_was_asked_before_it_and_only_its_own(rig: Rig) -> None:
    heard: dict[str, Any] = {}
    rig.committer.put(DEVICE, item(rig, "b", 1, seq=2), lambda status: None)
    rig.committer.put(DEVICE, item(rig, "a", 2, seq=1), lambda status: None)
    rig.committer.put(OTHER, item(rig, "c", 3), lambda status: None)
    rig.committer.read_inbox(DEVICE, lambda status, items: heard.update(one=(status, [i.slot for i in items])))
    rig.committer.read_inbox(b"n" * 16, lambda status, items: heard.update(none=(status, items)))
    rig.committer.read_inboxes([OTHER, b"n" * 16], lambda status, found: heard.update(many=(status, set(found))))
    await rig.settle()
    assert heard == {"one": (OK, ["a", "b"]), "none": (OK, []), "many": (OK, {OTHER})}


@in_rig()
async def test_what_is_acknowledged_before_its_commit_never_reaches_the_store(rig: Rig) -> None:
    rig.store.hold()
    rig.committer.put(DEVICE, item(rig, "other", 1), lambda status: None)
    await rig.settle()
    statuses: list[int] = []
    rig.committer.put(DEVICE, item(rig, "a", 5), statuses.append)
    rig.committer.remove(DEVICE, "a", 5)
    rig.store.release()
    await rig.settle()
    assert statuses == [OK]
    assert rig.store.batches[1].puts == {}
    assert await rig.inbox(DEVICE) == [("other", 1)]


@pytest.mark.parametrize("acked", [4, 5, 6])
@in_rig()
async def test_an_ack_of_an_older_version_removes_nothing(rig: Rig, acked: int) -> None:
    rig.committer.put(DEVICE, item(rig, "a", 5), lambda status: None)
    await rig.settle()
    rig.committer.remove(DEVICE, "a", acked)
    await rig.settle()
    assert await rig.inbox(DEVICE) == ([("a", 5)] if acked < 5 else [])


@in_rig(store={"inbox_limit": 2})
async def test_a_full_inbox_refuses_its_own_puts_alone(rig: Rig) -> None:
    heard: list[tuple[str, int]] = []
    for device, slot in ((DEVICE, "a"), (DEVICE, "b"), (DEVICE, "c"), (OTHER, "d"), (DEVICE, "a")):
        rig.committer.put(device, item(rig, slot, 1), lambda status, slot=slot: heard.append((slot, status)))
    await rig.settle()
    assert sorted(heard) == [("a", OK), ("a", OK), ("b", OK), ("c", FULL), ("d", OK)]


@in_rig()
async def test_a_failed_commit_fails_everything_in_it_and_the_next_may_succeed(rig: Rig) -> None:
    heard: list[Any] = []

    def everything() -> None:
        rig.committer.put(DEVICE, item(rig, "a", 1), heard.append)
        rig.committer.append(event(rig, "x"), lambda status, end: heard.append((status, end and end.offset)))
        rig.committer.read_inbox(DEVICE, lambda status, items: heard.append((status, len(items))))
        rig.committer.read_inboxes([DEVICE], lambda status, found: heard.append((status, len(found))))
        rig.committer.read_record("space", DEVICE, lambda *result: heard.append(result))
        rig.committer.when_durable(heard.append)

    rig.store.failing = True
    everything()
    await rig.settle()
    assert heard == [FAILED, (FAILED, 0), (FAILED, 0), (FAILED, None), (FAILED, None), FAILED]
    assert not rig.committer.healthy
    assert rig.committer.commits == 0
    heard.clear()
    rig.store.failing = False
    everything()
    await rig.settle()
    assert heard == [OK, (OK, 1), (OK, 1), (OK, None), (OK, 1), OK]
    assert rig.committer.healthy
    assert rig.committer.failures == 1


@in_rig()
async def test_a_store_that_failed_is_well_again_once_it_has_written(rig: Rig) -> None:
    rig.store.failing = True
    rig.committer.put(DEVICE, item(rig, "a", 1), lambda status: None)
    await rig.settle()
    rig.store.failing = False
    rig.committer.read_inbox(DEVICE, lambda status, items: None)
    await rig.settle()
    assert not rig.committer.healthy
    rig.committer.probe()
    await rig.settle()
    assert rig.committer.healthy


@in_rig()
async def test_records_are_kept_until_they_expire_or_are_deleted(rig: Rig) -> None:
    async def read(key: bytes) -> bytes | None:
        found: list[bytes | None] = []
        rig.committer.read_record("space", key, lambda status, value: found.append(value))
        await rig.settle()
        return found[0]

    now = int(rig.clock.unix())
    rig.committer.record("space", DEVICE, b"old", now + 10)
    rig.committer.record("space", DEVICE, b"new", now + 10)
    rig.committer.record("space", OTHER, b"for ever", 0)
    rig.committer.record("elsewhere", DEVICE, b"elsewhere", 0)
    assert await read(DEVICE) == b"new"
    rig.clock.pass_by(10)
    assert await read(DEVICE) is None
    rig.clock.pass_by(10**9)
    assert await read(OTHER) == b"for ever"
    rig.committer.record("space", OTHER, None, 0)
    assert await read(OTHER) is None


@in_rig()
async def test_each_reader_of_a_log_gets_what_is_after_its_own_position(rig: Rig) -> None:
    ends: list[AfterOffset | None] = []
    for number in range(5):
        rig.committer.append(event(rig, f"e{number + 1}"), lambda _, end: ends.append(end))
    slices: dict[Position, LogSlice | None] = {}
    positions = {AfterOffset(ANY_EPOCH, since): since for since in (3, 0, 5, 4)} | {Last(2): 3}
    for position in positions:
        rig.committer.read_log(CHANNEL, position, lambda _, part, name=position: slices.update({name: part}))
    await rig.settle()
    assert [end and end.offset for end in ends] == [1, 2, 3, 4, 5]
    for position, since in positions.items():
        part = slices[position]
        assert part is not None
        assert (part.end, part.recovered) == (ends[-1], True)
        assert [one.body for one in part.events] == [f"e{number}" for number in range(since + 1, 6)]


@in_rig()
async def test_writes_to_a_log_are_made_in_order_and_what_is_refused_says_so(rig: Rig) -> None:
    heard: list[tuple[int, int]] = []

    def note(status: int, end: AfterOffset | None) -> None:
        heard.append((status, 0 if end is None else end.offset))

    rig.committer.append(event(rig, "a")._replace(offset=5, exact=True), note)
    rig.committer.append(event(rig, "again")._replace(offset=5, exact=True), note)
    rig.committer.expire_log(CHANNEL, int(rig.clock.unix()))
    rig.committer.append(event(rig, "b"), note)
    await rig.settle()
    assert heard == [(OK, 5), (OK, 0), (OK, 1)]


@pytest.mark.parametrize(
    "bad",
    [
        {"exact": True},
        {"exact": True, "offset": MAX_OFFSET + 1},
        {"id": "x" * (MAX_EVENT_ID + 1)},
        {"id": "a\0"},
        {"headers": {"a": "\0"}},
        {"headers": {str(n): "" for n in range(MAX_HEADERS + 1)}},
    ],
)
@in_rig()
async def test_an_event_that_no_log_can_hold_is_refused_at_once(rig: Rig, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="event"):
        rig.committer.append(event(rig, "x")._replace(**bad), None)
    assert rig.committer.settled


@in_rig()
async def test_a_sweep_runs_between_commits(rig: Rig) -> None:
    rig.committer.put(DEVICE, item(rig, "short", 1, ttl=5), lambda status: None)
    rig.committer.put(DEVICE, item(rig, "long", 1, ttl=50), lambda status: None)
    await rig.settle()
    rig.clock.pass_by(5)
    rig.committer.sweep_soon(100)
    await rig.settle()
    assert rig.committer.expired == 1
    assert dict(rig.store.sizes())["inbox"] == 1


@in_rig()
async def test_readers_of_one_inbox_get_each_what_they_asked_for(rig: Rig) -> None:
    for seq, slot in enumerate("cadb"):
        rig.committer.put(DEVICE, item(rig, slot, 1, seq=seq), lambda status: None)
    heard: list[str] = []
    for most in (2, None, 3, 10):
        more = {} if most is None else {"most": most}
        rig.committer.read_inbox(DEVICE, lambda _, items: heard.append("".join(i.slot for i in items)), **more)
    rig.committer.read_inboxes([DEVICE], lambda _, found: heard.append("".join(i.slot for i in found[DEVICE])))
    await rig.settle()
    assert heard == ["ab", "cadb", "abc", "abcd", "cadb"]
    rig.committer.read_inbox(DEVICE, lambda _, items: heard.append("".join(i.slot for i in items)), 1)
    await rig.settle()
    assert heard[5:] == ["a"]


@in_rig(store={"inbox_limit": 2})
async def test_it_counts_what_gave_its_place_to_others(rig: Rig) -> None:
    statuses: list[int] = []
    for number in range(5):
        rig.committer.put(DEVICE, item(rig, f"{number}", 1, seq=number)._replace(urgency=3), statuses.append)
    await rig.settle()
    assert (statuses, rig.committer.evicted) == ([OK] * 5, 3)
    assert await rig.inbox(DEVICE) == [("3", 1), ("4", 1)]
