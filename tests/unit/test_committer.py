"""The committer over a real store: batching must change nothing but the number of commits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.common import Clock, GatedStore, Rig, in_rig

from router.common import messages as m
from router.common.item import Item
from router.common.messages import EVERYTHING, FAILED, FULL, OK
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
from router.common.settings import StoreOptions
from router.core.committer import GroupCommitter
from router.core.pushes import REFUSED_OVER, STORED
from router.store.base import ANY_VERSION, MAX_OFFSET, Append, BadBatchError, Reads, Results, StoreError, Writes
from router.store.changes import KEEP_EXPIRY
from router.store.sqlite import SqliteStore

DEVICE, OTHER = b"d" * 16, b"e" * 16
CHANNEL = b"c" * 16


def event(rig: Rig, body: str) -> Append:
    return Append(CHANNEL, rig.hub.messages.sequence(), int(rig.clock.unix()) + 60, body)


def item(rig: Rig, slot: str, version: int, ttl: int = 60, seq: int = 1) -> Item:
    return Item(slot, version, seq, int(rig.clock.unix()) + ttl, 0, None)


@in_rig()
async def test_nothing_is_called_back_before_the_commit(rig: Rig) -> None:
    rig.store.hold()
    heard: list[Any] = []
    rig.committer.put(DEVICE, item(rig, "a", 1), lambda status: heard.append(("put", status)))
    rig.committer.when_durable(lambda status: heard.append(("durable", status)))
    await rig.settle()
    assert heard == []
    assert not rig.committer.settled
    rig.store.release()
    await rig.settle()
    assert heard == [("put", OK), ("durable", OK)]
    assert rig.committer.settled
    # Written besides: up to where places in the order of arrival may be given out.
    assert (rig.committer.commits, rig.committer.written, rig.committer.waiting) == (1, 2, 0)


@in_rig()
async def test_what_comes_during_a_commit_goes_with_the_next_in_one(rig: Rig) -> None:
    rig.store.hold()
    statuses: list[int] = []
    rig.committer.put(DEVICE, item(rig, "first", 1), statuses.append)
    await rig.settle()
    for number in range(50):
        rig.committer.put(DEVICE, item(rig, f"slot-{number}", 1), statuses.append)
    rig.store.release()
    await rig.settle()
    assert statuses == [OK] * 51
    assert [len(writes.puts) for writes in rig.store.batches] == [1, 50]


@in_rig(store={"batch_limit": 10})
async def test_a_batch_has_a_limit(rig: Rig) -> None:
    order: list[int] = []
    for number in range(25):
        rig.committer.put(DEVICE, item(rig, f"slot-{number}", 1), lambda _, n=number: order.append(n))
    await rig.settle()
    assert [len(writes.puts) for writes in rig.store.batches] == [10, 10, 5]
    assert order == list(range(25))


@in_rig(store={"queue_limit": 3})
async def test_it_is_full_until_a_commit_has_made_room(rig: Rig) -> None:
    rig.store.hold()
    for number in range(3):
        assert not rig.committer.full
        rig.committer.put(DEVICE, item(rig, f"slot-{number}", 1), lambda status: None)
    assert rig.committer.full
    assert "queue_limit" in rig.committer.refusing
    assert rig.committer.waiting == 3
    rig.store.release()
    await rig.settle()
    assert not rig.committer.full
    assert rig.committer.refusing == ""


@in_rig(store={"queue_bytes": 65_536})
async def test_bodies_that_wait_are_counted_too(rig: Rig) -> None:
    rig.store.hold()
    rig.committer.put(DEVICE, item(rig, "a", 1)._replace(body="x" * 65_000), lambda status: None)
    rig.committer.append(event(rig, "x" * 535), None)
    assert not rig.committer.full
    rig.committer.record("space", DEVICE, b"x", 0, push=True)
    assert rig.committer.full
    rig.store.release()
    await rig.settle()
    assert not rig.committer.full


@in_rig(store={"queue_limit": 10, "batch_limit": 100})
async def test_what_devices_say_refuses_no_pushes(rig: Rig) -> None:
    rig.store.hold()
    for number in range(500):
        rig.committer.remove(DEVICE, f"slot-{number}", 1)
        rig.committer.record("space", DEVICE, b"", 0)
        rig.committer.read_inbox(OTHER, lambda status, items: None)
    assert rig.committer.waiting >= 1500
    assert not rig.committer.full
    for _ in range(10):  # what an app server wants removed is his
        rig.committer.remove(OTHER, "a", push=True)
    assert rig.committer.full
    rig.store.release()
    await rig.settle()
    assert rig.committer.waiting == 0


@in_rig(store={"batch_limit": 80})
async def test_a_device_that_acknowledges_without_end_lets_others_pass(rig: Rig) -> None:
    rig.store.hold()
    rig.committer.when_durable(lambda status: None)
    await rig.settle()
    done: list[str] = []
    assert not rig.committer.acknowledged(OTHER, [("a", 1)] * 5)
    assert rig.committer.acknowledged(DEVICE, [(f"slot-{number}", 1) for number in range(95)])
    rig.committer.when_durable(lambda status: done.append("acks"), DEVICE)
    rig.committer.put(OTHER, item(rig, "a", 1), lambda status: done.append("other"))
    rig.committer.put(DEVICE, item(rig, "slot-94", 2), lambda status: done.append("own"))
    heard: list[Any] = []
    rig.committer.read_inbox(DEVICE, lambda status, items: heard.append([i.version for i in items]))
    rig.committer.read_inboxes([DEVICE, OTHER], lambda status, found: heard.append(set(found)))
    rig.committer.when_durable(lambda status: done.append("others"))
    rig.store.release()
    await rig.settle()
    batches = rig.store.batches[1:]
    assert [len(batch.removals) for batch in batches] == [*[10] * 9, 4]
    assert list(batches[0].puts) == [(OTHER, "a")]
    assert done[:2] == ["other", "others"] and set(done[2:]) == {"own", "acks"}
    assert heard == [[2], {DEVICE, OTHER}]
    # Afterwards it is one like all others.
    assert not rig.committer.acknowledged(DEVICE, [("a", 1)])
    rig.committer.put(DEVICE, item(rig, "b", 1), lambda status: None)
    await rig.settle()
    assert len(rig.store.batches) == 1 + len(batches) + 1


@in_rig(store={"inbox_bytes": 2**25, "batch_limit": 2000})
async def test_large_inboxes_are_read_a_few_at_a_time(rig: Rig) -> None:
    devices = [number.to_bytes(16, "big") for number in range(400)]
    read: list[int] = []
    apply = rig.store.apply

    async def counting(writes: Writes, reads: Reads, now: int) -> Results:
        read.append(len(reads.inboxes))
        return await apply(writes, reads, now)

    rig.store.apply = counting  # type: ignore[method-assign]

    async def storm() -> list[int]:
        read.clear()
        rig.store.hold()
        rig.committer.when_durable(lambda status: None)
        await rig.settle()
        for device in devices:
            rig.committer.read_inbox(device, lambda status, items: None)
        rig.store.release()
        await rig.settle()
        return [count for count in read if count]

    assert max(await storm()) <= 33  # nothing is known of them
    assert await storm() == [400]  # they were empty
    body = "x" * 1_000_000
    for device in devices:
        rig.committer.put(device, item(rig, "a", 1)._replace(body=body), lambda status: None)
    await rig.settle()
    await storm()
    assert max(await storm()) <= 40
    for device in devices:
        rig.committer.remove(device, "a")
    await storm()
    await storm()
    assert await storm() == [400]


@in_rig()
async def test_a_removal_that_is_said_again_is_one(rig: Rig) -> None:
    rig.store.hold()
    rig.committer.when_durable(lambda status: None)
    await rig.settle()
    for version in (3, 1, 4, 1, 5, 5):
        rig.committer.remove(DEVICE, "a", version)
    assert rig.committer.waiting == 1
    rig.store.release()
    await rig.settle()
    assert rig.store.batches[1].removals == {(DEVICE, "a"): 5}


@in_rig(store={"kind": "memory", "max_bytes": 2000})
async def test_a_store_that_holds_what_it_may_takes_no_more_until_something_has_gone(rig: Rig) -> None:
    for number in range(3):
        assert not rig.committer.full
        rig.committer.put(DEVICE, item(rig, f"{number}", 1)._replace(body="x" * 600), lambda status: None)
        await rig.settle()
    assert rig.committer.full and rig.committer.over
    assert "store.max_bytes" in rig.committer.refusing
    assert rig.push(DEVICE, "3", 1) == [REFUSED_OVER]
    assert (rig.hub.counters.pushes_refused, rig.hub.counters.pushes_over) == (1, 1)
    rig.committer.remove(DEVICE, "1")
    await rig.settle()
    assert not rig.committer.full
    outcomes = rig.push(DEVICE, "3", 1)
    await rig.settle()
    assert outcomes == [STORED]


@in_rig(store={"max_bytes": 1000})
async def test_registrations_need_room_and_renewals_do_not(rig: Rig) -> None:
    worker = rig.worker()
    member, other = b"m" * 16, b"n" * 16
    worker.say(m.Call(1, m.SetAdd("space", DEVICE, member, b"head", 60, 10)))
    await rig.settle()
    rig.committer.append(event(rig, "x" * 1000), None)
    await rig.settle()
    assert rig.committer.over
    worker.take()
    worker.say(
        m.Call(1, m.Record("space", OTHER, b"new", 60)),
        m.Call(2, m.SetAdd("space", DEVICE, other, b"head", 60, 10)),
        m.Call(3, m.SetAdd("space", DEVICE, member, b"HEAD", 60, 10)),
        m.Call(4, m.SetRemove("space", DEVICE, other)),
    )
    await rig.settle()
    answers = {one.number: one.status for one in worker.take() if isinstance(one, m.Reply)}
    assert answers == {1: FAILED, 2: FAILED, 3: OK, 4: OK}


def test_a_store_on_disk_that_holds_what_it_may_is_of_use_again_when_something_has_gone(tmp_path: Path) -> None:
    options = StoreOptions(max_bytes=400_000, inbox_limit=100_000)
    clock = Clock()

    async def main() -> None:
        committer = GroupCommitter(
            SqliteStore(options, tmp_path / "store.sqlite3"), options, clock.unix, clock.monotonic
        )
        await committer.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run, lambda: None)

            async def durable() -> int:
                statuses: list[int] = []
                done = trio.Event()
                committer.when_durable(lambda status: (statuses.append(status), done.set()))
                await done.wait()
                return statuses[0]

            for turn in range(2):
                number = 0
                while not committer.full:
                    assert number < 200
                    new = Item(f"{turn}-{number}", 1, 0, int(clock.unix()) + 60, 0, "x" * 4000)
                    committer.put(DEVICE, new, lambda status: None)
                    assert await durable() == OK
                    number += 1
                assert number > 50
                assert committer.used >= options.max_bytes and "store.max_bytes" in committer.refusing
                committer.acknowledged(DEVICE, [(f"{turn}-{n}", 1) for n in range(number)])
                assert await durable() == OK
                assert not committer.full and committer.used < options.max_bytes / 4
            nursery.cancel_scope.cancel()

    trio.run(main)


@in_rig()
async def test_a_callback_that_raises_costs_nobody_else_his(rig: Rig) -> None:
    heard: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def done(*_: object) -> None:
            heard.append(name)
            raise RuntimeError(name)

        return done

    rig.flush = note("flush")
    for _ in range(2):
        rig.committer.put(DEVICE, item(rig, "a", 1), note("put"))
        rig.committer.append(event(rig, "x"), note("event"))
        rig.committer.read_inbox(DEVICE, note("inbox"))
        rig.committer.read_inboxes([DEVICE], note("inboxes"))
        rig.committer.read_record("space", DEVICE, note("record"))
        rig.committer.read_log(CHANNEL, 0, note("log"))
        rig.committer.when_durable(note("durable"))
        await rig.settle()
    assert heard == ["put", "inbox", "inboxes", "record", "event", "log", "durable", "flush"] * 2
    assert rig.committer.settled and rig.committer.waiting == 0


class Unknown(Exception):
    """What no store has raised yet."""


@pytest.mark.parametrize("error", [StoreError("x"), OSError(5, "x"), MemoryError(), TypeError("x"), Unknown("x")])
@in_rig()
async def test_whatever_the_store_raises_is_survived(rig: Rig, error: Exception) -> None:
    async def fail(*_: object) -> Results:
        raise error

    statuses: list[int] = []
    apply, sweep = rig.store.apply, rig.store.sweep
    rig.store.apply, rig.store.sweep = fail, fail  # type: ignore[method-assign, assignment]
    for _ in range(2):
        rig.committer.put(DEVICE, item(rig, "a", 1), statuses.append)
        rig.committer.when_durable(statuses.append)
        rig.committer.sweep_soon(10)
        await rig.settle()
    assert statuses == [FAILED] * 4
    assert not rig.committer.healthy
    assert rig.committer.refusing == (str(error) or "MemoryError")
    rig.store.apply, rig.store.sweep = apply, sweep  # type: ignore[method-assign]
    rig.committer.sweep_soon(10)
    await rig.settle()
    assert rig.committer.healthy and rig.committer.refusing == ""


# ---- what no store can hold


class PickyStore(GatedStore):
    """It cannot hold what is called "bad", and says so before it writes anything."""

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        bad = any(item.body == "bad" for item in writes.puts.values())
        bad |= any(isinstance(one, Append) and one.body == "bad" for one in writes.logs)
        bad |= any(slot == "bad" for _, slot in writes.removals) or any(space == "bad" for space, _ in writes.records)
        if bad:
            raise BadBatchError("bad")
        return await super().apply(writes, reads, now)


@pytest.mark.parametrize("bad_record", [False, True])
@pytest.mark.parametrize("at", [0, 1, 5, 9])
@in_rig()
async def test_what_cannot_be_written_fails_alone(rig: Rig, at: int, bad_record: bool) -> None:
    rig.store.__class__ = PickyStore
    puts: list[int] = []
    events: list[tuple[int, AfterOffset | None]] = []
    rest: list[Any] = []
    for number in range(10):
        body = "bad" if number == at else "good"
        rig.committer.put(DEVICE, item(rig, f"{number}", 1, seq=number)._replace(body=body), puts.append)
        rig.committer.append(event(rig, body), lambda *heard: events.append(heard))
    rig.committer.record("bad" if bad_record else "good", DEVICE, b"value", 0)
    rig.committer.read_inbox(DEVICE, lambda status, items: rest.append((status, len(items))))
    rig.committer.read_record("good", DEVICE, lambda *heard: rest.append(heard))
    rig.committer.when_durable(rest.append)
    await rig.settle()
    assert puts == [FAILED if number == at else OK for number in range(10)]
    assert [status for status, _ in events] == puts
    assert [end.offset for status, end in events if status == OK and end] == list(range(1, 10))
    value = None if bad_record else b"value"
    assert rest == [(OK, 9), (OK, value), FAILED if bad_record else OK]
    assert rig.committer.unwritable == 2 + bad_record
    assert rig.committer.healthy


# ---- removals that failed


@in_rig()
async def test_a_removal_that_failed_is_made_when_the_store_is_well_again(rig: Rig) -> None:
    for slot in "abc":
        rig.committer.put(DEVICE, item(rig, slot, 5), lambda status: None)
    await rig.settle()
    rig.store.failing = True
    rig.committer.remove(DEVICE, "a", 5)
    rig.committer.remove(DEVICE, "b", 4)
    await rig.settle()
    assert rig.committer.unremoved == 2
    rig.store.failing = False
    heard: list[Any] = []
    for most in (EVERYTHING, 2, 1):
        rig.committer.read_inbox(DEVICE, lambda _, items: heard.append([i.slot for i in items]), most)
    rig.committer.read_inboxes([DEVICE], lambda _, found: heard.append(sorted(i.slot for i in found[DEVICE])))
    await rig.settle()
    # Nobody is given what was acknowledged, and the length of a part is right all the same.
    assert [sorted(slots) for slots in heard] == [["b", "c"], ["b", "c"], ["b"], ["b", "c"]]
    assert dict(await rig.inbox(DEVICE)) == {"a": 5, "b": 5, "c": 5}
    rig.committer.sweep_soon(1)
    await rig.settle()
    assert rig.committer.unremoved == 0
    assert dict(await rig.inbox(DEVICE)) == {"b": 5, "c": 5}


@pytest.mark.parametrize("when", ["same batch", "waiting", "later", "afterwards"])
@in_rig(store={"batch_limit": 2})
async def test_a_removal_that_failed_spares_what_came_after_it(rig: Rig, when: str) -> None:
    def put(version: int) -> None:
        rig.committer.put(DEVICE, item(rig, "a", version), lambda status: None)

    put(5)
    await rig.settle()
    apply = rig.store.apply

    async def fail_once(writes: Writes, reads: Reads, now: int) -> Results:
        rig.store.apply = apply  # type: ignore[method-assign]
        await apply(Writes(), Reads(), now)
        raise StoreError("once")

    rig.store.apply = fail_once  # type: ignore[method-assign]
    rig.store.hold()
    rig.committer.remove(DEVICE, "a")
    if when == "same batch":
        put(4)
    await rig.settle()
    rig.committer.remove(OTHER, "b")
    if when == "waiting":
        put(4)
    if when == "later":
        rig.flush = lambda: put(4) if rig.committer.failures and not rig.committer.healthy else None
    rig.store.release()
    await rig.settle()
    if when == "afterwards":
        rig.committer.sweep_soon(1)
        await rig.settle()
        put(4)
        await rig.settle()
    rig.committer.sweep_soon(1)
    rig.committer.record("space", DEVICE, b"", 0)
    await rig.settle()
    assert rig.committer.failures == 1
    assert rig.committer.unremoved == 0
    assert dict(await rig.inbox(DEVICE)) == ({} if when == "same batch" else {"a": 4})


@in_rig(store={"queue_limit": 3})
async def test_no_more_failed_removals_are_kept_than_may_wait(rig: Rig) -> None:
    rig.store.failing = True
    for number in range(10):
        rig.committer.remove(DEVICE, f"{number}")
    await rig.settle()
    assert rig.committer.unremoved == 3


# ---- numbers and clocks


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
    rig.committer.sweep_soon(10)
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


# ---- what is remembered of records


class Lookups:
    """Look-ups of one record, and whether they were answered at once."""

    def __init__(self, rig: Rig, key: bytes = DEVICE) -> None:
        self.rig = rig
        self.key = key

    async def __call__(self) -> tuple[int, bytes | None, bool]:
        heard: list[tuple[int, bytes | None]] = []
        self.rig.committer.look_up("space", self.key, lambda status, value: heard.append((status, value)))
        at_once = bool(heard)
        await self.rig.settle()
        ((status, value),) = heard
        return status, value, at_once


@in_rig()
async def test_what_was_looked_up_is_remembered_for_a_minute_and_what_is_not_there_is_not(rig: Rig) -> None:
    look_up = Lookups(rig)
    assert await look_up() == (OK, None, False)
    assert await look_up() == (OK, None, False)
    rig.committer.record("space", DEVICE, b"1", 0)
    assert await look_up() == (OK, b"1", False)
    assert await look_up() == (OK, b"1", True)
    commits = rig.committer.commits
    rig.clock.pass_by(19)
    assert await look_up() == (OK, b"1", True)
    assert rig.committer.commits == commits
    rig.clock.pass_by(60)
    assert await look_up() == (OK, b"1", False)


@in_rig(store={"record_cache": 0})
async def test_nothing_is_remembered_without_room(rig: Rig) -> None:
    rig.committer.record("space", DEVICE, b"1", 0)
    look_up = Lookups(rig)
    for _ in range(2):
        assert await look_up() == (OK, b"1", False)


@in_rig()
async def test_a_write_is_seen_at_once(rig: Rig) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"1", 0)
    await look_up()
    rig.committer.record("space", DEVICE, b"2", 0)
    assert await look_up() == (OK, b"2", True)
    rig.committer.record("space", DEVICE, None, 0)
    assert await look_up() == (OK, None, False)


@pytest.mark.parametrize("value", [b"new", None])
@in_rig()
async def test_a_write_that_crosses_with_the_look_up_is_seen_by_the_next(rig: Rig, value: bytes | None) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"old", 0)
    await rig.settle()
    rig.store.hold()
    crossed: list[Any] = []
    rig.committer.look_up("space", DEVICE, lambda *heard: crossed.append(heard))
    await rig.settle()  # the read is under way
    rig.committer.record("space", DEVICE, value, 0)
    rig.store.release()
    await rig.settle()
    assert crossed == [(OK, b"old")]
    assert await look_up() == (OK, value, False)


@in_rig()
async def test_a_write_that_failed_is_forgotten(rig: Rig) -> None:
    look_up = Lookups(rig)
    rig.committer.record("space", DEVICE, b"1", 0)
    await look_up()
    rig.store.failing = True
    rig.committer.record("space", DEVICE, b"2", 0)
    await rig.settle()
    assert await look_up() == (FAILED, None, False)
    rig.store.failing = False
    assert await look_up() == (OK, b"1", False)
    assert await look_up() == (OK, b"1", True)


@in_rig()
async def test_a_record_written_without_an_expiry_keeps_its_own_in_the_same_batch_too(rig: Rig) -> None:
    now = int(rig.clock.unix())
    look_up, other = Lookups(rig), Lookups(rig, OTHER)
    rig.committer.record("space", OTHER, b"there", 0)
    await rig.settle()
    rig.committer.record("space", DEVICE, b"1", now + 100)
    rig.committer.record("space", DEVICE, b"2", KEEP_EXPIRY)
    rig.committer.record("space", OTHER, None, 0)
    rig.committer.record("space", OTHER, b"gone", KEEP_EXPIRY)
    assert await look_up() == (OK, b"2", False)
    assert await other() == (OK, None, False)
    rig.clock.pass_by(100)
    assert await look_up() == (OK, None, False)


# ---- merging

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab"), st.integers(1, 4)),
        st.tuples(st.just("ack"), st.sampled_from("ab"), st.integers(1, 4)),
        st.tuples(st.just("drop"), st.sampled_from("ab"), st.just(0)),
        st.tuples(st.just("acks"), st.sampled_from("ab"), st.integers(1, 4)),
        st.tuples(st.just("commit"), st.just(""), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(_steps, st.sampled_from([1, 3, 8, 1000]))
@example([("put", "a", 4), ("commit", "", 0), ("put", "a", 2), ("ack", "a", 2)], 1000)
@example([("put", "a", 4), ("commit", "", 0), ("ack", "a", 4), ("put", "a", 2)], 1000)
def test_merging_is_as_if_each_word_had_a_commit_of_its_own(steps: list[tuple[str, str, int]], limit: int) -> None:
    @in_rig(store={"batch_limit": limit})
    async def scenario(rig: Rig) -> None:
        model: dict[str, int] = {}
        for step, slot, version in steps:
            if step == "put":
                rig.committer.put(DEVICE, item(rig, slot, version), lambda status: None)
                model[slot] = version
            elif step == "ack":
                rig.committer.remove(DEVICE, slot, version)
                if model.get(slot, ANY_VERSION) <= version:
                    del model[slot]
            elif step == "acks":
                rig.committer.acknowledged(DEVICE, [("x", 1), (slot, version), ("y", 1), ("z", version)])
                if model.get(slot, ANY_VERSION) <= version:
                    del model[slot]
            elif step == "drop":
                rig.committer.remove(DEVICE, slot)
                model.pop(slot, None)
            elif step == "commit":
                await rig.settle()
                assert dict(await rig.inbox(DEVICE)) == model
        await rig.settle()
        assert dict(await rig.inbox(DEVICE)) == model

    scenario()
