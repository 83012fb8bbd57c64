"""The committer over a real store: batching must change nothing but the number of commits."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.commits import CHANNEL, DEVICE, OTHER, event, item
from support.common import Clock, Rig, in_rig
from support.often import often

from router.common import messages as m
from router.common.item import Item
from router.common.messages import FAILED, OK
from router.common.position import Last
from router.common.settings import StoreOptions
from router.core.committer import GroupCommitter
from router.core.pushes import REFUSED_OVER, STORED
from router.store.base import ANY_VERSION, Reads, Results, StoreError, Writes
from router.store.sqlite import SqliteStore


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
    assert (rig.committer.commits, rig.committer.written, rig.committer.answered) == (1, 2, 1)
    assert rig.committer.waiting == 0


@in_rig()
async def test_what_is_answered_is_counted_where_nothing_is_written_too(rig: Rig) -> None:
    heard: list[Any] = []
    for _ in range(3):  # of which the store makes one read
        rig.committer.read_record("space", b"k" * 16, lambda status, value: heard.append((status, value)))
    await rig.settle()
    assert heard == [(OK, None)] * 3
    assert (rig.committer.written, rig.committer.answered) == (0, 3)


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


Storm = Callable[[], Awaitable[list[int]]]


def storm_of(rig: Rig, ask: Callable[[], None]) -> Storm:
    """What has many reads asked for at once, and gives how many went into each commit."""
    read: list[int] = []
    apply = rig.store.apply

    async def counting(writes: Writes, reads: Reads, now: int) -> Results:
        read.append(len(reads))
        return await apply(writes, reads, now)

    rig.store.apply = counting  # type: ignore[method-assign]

    async def storm() -> list[int]:
        read.clear()
        rig.store.hold()
        rig.committer.when_durable(lambda status: None)
        await rig.settle()
        ask()
        rig.store.release()
        await rig.settle()
        return [count for count in read if count]

    return storm


@in_rig(store={"batch_limit": 2000})
async def test_large_parts_of_logs_are_read_a_few_at_a_time(rig: Rig) -> None:
    channels = [number.to_bytes(16, "big") for number in range(400)]

    def read_all() -> None:
        for channel in channels:
            rig.committer.read_log(channel, Last(1), lambda status, part: None)

    storm = storm_of(rig, read_all)
    assert max(await storm()) <= 33  # nothing is known of them
    for _ in range(2):
        await storm()
    assert await storm() == [400]  # they were empty
    for channel in channels:
        rig.committer.append(event(rig, "x" * 1_000_000)._replace(channel=channel), None)
    await rig.settle()
    await storm()
    assert max(await storm()) <= 40
    for channel in channels:
        rig.committer.expire_log(channel, 1)
    for _ in range(2):
        await storm()
    assert await storm() == [400]


@in_rig(store={"inbox_bytes": 2**25, "batch_limit": 2000})
async def test_large_inboxes_are_read_a_few_at_a_time(rig: Rig) -> None:
    devices = [number.to_bytes(16, "big") for number in range(400)]

    def read_all() -> None:
        for device in devices:
            rig.committer.read_inbox(device, lambda status, items: None)

    storm = storm_of(rig, read_all)
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
    rig.committer.probe()
    await rig.settle()
    assert rig.committer.healthy and rig.committer.refusing == ""


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


@settings(max_examples=often(100))
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
