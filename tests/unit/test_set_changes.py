"""Changes of the members of a set, asked for by workers: each is made on what the one before it left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import FakeWorker, Rig, during_each_commit, in_rig

from router.common import messages as m
from router.store.base import Reads, Writes

DEVICE, OTHER = b"d" * 16, b"e" * 16
SPACE = "webpush.device"
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
HEAD, LATER = b"day1", b"day2"


def enlist(ask: int, member: bytes, *, head: bytes = HEAD, ttl: int = 60, most: int = 10) -> tuple[Any, ...]:
    return m.Call(ask, m.SetAdd(SPACE, DEVICE, member, head, ttl, most))


def delist(ask: int, member: bytes) -> tuple[Any, ...]:
    return m.Call(ask, m.SetRemove(SPACE, DEVICE, member))


def attach(device: bytes, ask: int, needs: str) -> tuple[Any, ...]:
    return m.Call(ask, m.Attach(device, needs, m.EVERYTHING, 0))


async def members_of(rig: Rig) -> bytes | None:
    results = await rig.store.apply(Writes(), Reads(records={(SPACE, DEVICE)}), int(rig.clock.unix()))
    return results.records.get((SPACE, DEVICE))


def answers(worker: FakeWorker) -> dict[int, int]:
    return {one.number: one.status for one in worker.take() if isinstance(one, m.Reply)}


@in_rig()
async def test_members_of_a_record_come_and_go(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(delist(1, ONE))
    await rig.settle()
    assert (answers(worker), await members_of(rig)) == ({1: m.OK}, None)
    worker.say(enlist(2, ONE))
    await rig.settle()
    assert (answers(worker), await members_of(rig)) == ({2: m.OK}, HEAD + ONE)
    worker.say(enlist(3, ONE, head=LATER))
    await rig.settle()
    assert (answers(worker), await members_of(rig)) == ({3: m.OK}, LATER + ONE)
    worker.say(delist(4, ONE))
    await rig.settle()
    assert (answers(worker), await members_of(rig)) == ({4: m.OK}, LATER)


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_many_changes_of_one_record_at_once_lose_nothing(limit: int) -> None:
    @in_rig(store={"batch_limit": limit})
    async def scenario(rig: Rig) -> None:
        first, second = rig.worker(0), rig.worker(1)
        rig.store.hold()
        first.say(enlist(1, ONE), enlist(2, TWO), delist(3, ONE), enlist(4, TWO), enlist(5, THREE))
        await rig.settle()
        second.say(enlist(1, b"4" * 16), delist(2, TWO), enlist(3, ONE, head=LATER))
        first.say(delist(6, b"5" * 16), enlist(7, b"6" * 16))
        assert (answers(first), answers(second)) == ({}, {})
        rig.store.release()
        await rig.settle()
        assert answers(first) == dict.fromkeys(range(1, 8), m.OK)
        assert answers(second) == dict.fromkeys(range(1, 4), m.OK)
        assert await members_of(rig) == HEAD + THREE + b"4" * 16 + ONE + b"6" * 16

    scenario()


@in_rig()
async def test_a_change_that_comes_at_whatever_moment_of_another_is_made(rig: Rig) -> None:
    worker = rig.worker()
    members = [b"%016d" % number for number in range(10)]
    said = 0

    def say_another() -> None:
        nonlocal said
        if said < len(members):
            said += 1
            worker.say(enlist(said, members[said - 1], most=100))

    during_each_commit(rig, say_another)
    say_another()
    await rig.settle()
    assert answers(worker) == dict.fromkeys(range(1, 11), m.OK)
    assert await members_of(rig) == HEAD + b"".join(members)
    assert worker.session.confirmed == 10


@in_rig()
async def test_a_record_has_only_so_many_members(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE, most=2), enlist(2, TWO, most=2), enlist(3, THREE, most=2))
    worker.say(enlist(4, ONE, head=LATER, most=2), delist(5, TWO), enlist(6, THREE, most=2))
    worker.say(m.Call(7, m.SetAdd(SPACE, OTHER, ONE, HEAD, 0, 0)))
    await rig.settle()
    assert answers(worker) == {1: m.OK, 2: m.OK, 3: m.FULL, 4: m.OK, 5: m.OK, 6: m.OK, 7: m.FULL}
    assert await members_of(rig) == HEAD + ONE + THREE


@in_rig()
async def test_a_record_written_between_two_changes_is_written_between_them(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE), m.Call(2, m.Record(SPACE, DEVICE, LATER + TWO, 60)), enlist(3, THREE, head=LATER))
    await rig.settle()
    assert answers(worker) == dict.fromkeys((1, 2, 3), m.OK)
    assert await members_of(rig) == LATER + TWO + THREE
    worker.say(m.Record(SPACE, DEVICE, HEAD, 60), enlist(4, ONE), m.Record(SPACE, DEVICE, None, 0))
    await rig.settle()
    assert (answers(worker), await members_of(rig)) == ({4: m.OK}, None)
    assert worker.session.confirmed == 2


@in_rig()
async def test_a_record_loses_a_member_and_keeps_its_time(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE, ttl=10), enlist(2, TWO, ttl=10))
    await rig.settle()
    rig.clock.pass_by(5)
    worker.say(delist(3, ONE))
    await rig.settle()
    rig.clock.pass_by(4.9)
    assert await members_of(rig) == HEAD + TWO
    rig.clock.pass_by(0.1)
    assert await members_of(rig) is None


@in_rig()
async def test_a_change_that_the_store_failed_is_answered_so_and_the_next_may_succeed(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE))
    await rig.settle()
    worker.take()
    known: list[Any] = []
    rig.committer.look_up(SPACE, DEVICE, lambda *heard: known.append(heard))
    await rig.settle()

    rig.store.failing = True
    number = worker.say(enlist(2, TWO), delist(3, ONE))
    await rig.settle()
    assert answers(worker) == {2: m.FAILED, 3: m.FAILED}
    assert worker.session.confirmed == number
    rig.store.failing = False
    rig.committer.look_up(SPACE, DEVICE, lambda *heard: known.append(heard))
    await rig.settle()
    worker.say(enlist(4, THREE))
    await rig.settle()
    assert answers(worker) == {4: m.OK}
    assert known == [(m.OK, HEAD + ONE)] * 2
    assert await members_of(rig) == HEAD + ONE + THREE


@in_rig()
async def test_a_push_sees_a_change_at_once(rig: Rig) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE))
    known: list[bytes | None] = []

    async def look_up() -> bytes | None:
        rig.committer.look_up(SPACE, DEVICE, lambda _, value: known.append(value))
        await rig.settle()
        return known[-1]

    assert await look_up() in (None, HEAD + ONE)
    assert await look_up() == HEAD + ONE
    worker.say(enlist(2, TWO))
    await rig.settle()
    assert await look_up() == HEAD + ONE + TWO
    worker.say(delist(3, ONE))
    await rig.settle()
    assert await look_up() == HEAD + TWO


@pytest.mark.parametrize(
    "word",
    [enlist(9, TWO), enlist(9, TWO, most=0), delist(9, ONE), attach(DEVICE, 9, SPACE), attach(OTHER, 9, SPACE)],
)
@in_rig()
async def test_a_batch_is_not_confirmed_before_what_it_asked_is_answered(rig: Rig, word: tuple[Any, ...]) -> None:
    worker = rig.worker()
    worker.say(enlist(1, ONE))
    await rig.settle()
    worker.take()
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        answered = any(isinstance(said, m.Reply) for said in worker.session.outbox)
        seen.append((worker.session.confirmed >= number, answered))

    number = worker.say(word)
    later = worker.say(m.Ack(DEVICE, [["a", 1]]))
    rig.flush = look
    await rig.settle()
    assert seen[-1] == (True, True)
    assert not [confirmed for confirmed, answered in seen if confirmed and not answered]
    assert worker.session.confirmed == later


_steps = st.sampled_from(["enlist", "delist", "put", "delete", "hold", "release"])
_changes = st.lists(st.tuples(_steps, st.integers(0, 1), st.sampled_from([ONE, TWO, THREE])), max_size=30)


@given(_changes, st.sampled_from([1, 3, 1000]))
def test_changes_are_as_if_made_one_after_the_other(steps: list[tuple[str, int, bytes]], limit: int) -> None:
    @in_rig(store={"batch_limit": limit})
    async def scenario(rig: Rig) -> None:
        workers = [rig.worker(0), rig.worker(1)]
        expected: list[dict[int, int]] = [{}, {}]
        model: list[bytes] = []
        written = False
        for ask, (step, shard, member) in enumerate(steps, 1):
            if step == "enlist":
                workers[shard].say(enlist(ask, member, most=2))
                full = member not in model and len(model) >= 2
                expected[shard][ask] = m.FULL if full else m.OK
                if not full:
                    model += [] if member in model else [member]
                    written = True
            elif step == "delist":
                workers[shard].say(delist(ask, member))
                expected[shard][ask] = m.OK
                model = [other for other in model if other != member]
            elif step in ("put", "delete"):
                value = HEAD + member if step == "put" else None
                workers[shard].say(m.Call(ask, m.Record(SPACE, DEVICE, value, 60)))
                expected[shard][ask] = m.OK
                model, written = [member] if value else [], value is not None
            else:
                (rig.store.hold if step == "hold" else rig.store.release)()
                await rig.settle()
        rig.store.release()
        await rig.settle()
        assert [answers(worker) for worker in workers] == expected
        assert await members_of(rig) == (HEAD + b"".join(model) if written else None)

    scenario()
