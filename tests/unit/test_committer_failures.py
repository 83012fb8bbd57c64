"""What the committer does when its store fails, and with what no store can hold."""

from typing import Any

import pytest
from support.commits import DEVICE, OTHER, event, item
from support.common import GatedStore, Rig, in_rig

from router.common.messages import EVERYTHING, FAILED, OK
from router.common.position import (
    AfterOffset,
)
from router.store.base import Append, BadBatchError, Reads, Results, StoreError, Writes

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
    rig.committer.probe()
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
        rig.committer.probe()
        await rig.settle()
        put(4)
        await rig.settle()
    rig.committer.probe()
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
