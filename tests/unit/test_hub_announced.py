"""What the hub does with devices that a worker announces: their inboxes are read, and pushes meanwhile wait behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, hold, in_rig
from support.often import often

from router.common import messages as m
from router.core.pushes import DELIVERED, STORED
from router.core.unread import Unread

DEVICE, OTHER, THIRD = b"d" * 16, b"e" * 16, b"f" * 16


def attach(ask: int, fetch: int = m.EVERYTHING, since: int = 1000) -> tuple[Any, ...]:
    return m.Call(ask, m.Attach(DEVICE, "", fetch, since))


def slots(items: list[Any]) -> list[tuple[str, int]]:
    return [(item[0], item[1]) for item in items]


def told(words: list[Any]) -> list[tuple[bytes, list[tuple[str, int]]]]:
    """What devices hear, in order: (device, its messages)."""
    heard = []
    for word in words:
        if isinstance(word, m.DeliverStored):
            heard.append((word.device, slots(word.items)))
        elif isinstance(word, m.Deliver):
            heard.append((word.device, [(word.slot, word.version)]))
        else:
            assert isinstance(word, m.Disconnect | m.Reply)
    return heard


async def announced(rig: Rig, *devices: bytes) -> FakeWorker:
    """A worker has announced devices for which a message waits; the store stands still."""
    for device in devices:
        rig.push(device, "old", 1)
    await rig.settle()
    worker = rig.worker()
    rig.store.hold()
    worker.say(hold(*devices))
    return worker


@in_rig(link={"announced_read": 2})
async def test_announced_inboxes_are_read_some_at_a_time_and_then_the_batch_is_confirmed(rig: Rig) -> None:
    devices = [bytes([number]) * 16 for number in range(5)]
    for device in devices:
        rig.push(device, "a", 1)
    await rig.settle()
    worker = rig.worker()
    rig.store.hold()
    number = worker.say(hold(*devices), hold(DEVICE))
    worker.say(m.Detach(devices[4]))
    await rig.settle()
    assert worker.session.confirmed == 0
    commits = rig.committer.commits
    rig.store.release()
    await rig.settle()
    assert [one.device for one in worker.take() if isinstance(one, m.DeliverStored)] == devices[:4]
    assert rig.committer.commits - commits == 4
    assert worker.session.confirmed == number + 1


@in_rig(link={"announced_read": 1, "max_message_bytes": 65_536})
async def test_announced_inboxes_wait_while_much_is_not_sent(rig: Rig) -> None:
    devices = [bytes([number]) * 16 for number in range(3)]
    for device in devices:
        rig.push(device, "a", 1, body="x" * 5000)
    await rig.settle()
    worker = rig.worker()
    number = worker.say(hold(*devices))
    for device in devices:
        for _ in range(3):
            await rig.settle()
            rig.hub.tick()  # it has not been sent yet
        assert worker.session.confirmed == (number if device is devices[-1] else 0)
        (stored,) = worker.take()
        assert (stored.device, slots(stored.items)) == (device, [("a", 1)])
        rig.hub.tick()
    assert not worker.session.unread.devices


@in_rig()
async def test_announced_inboxes_that_could_not_be_read_are_read_when_they_can(rig: Rig) -> None:
    rig.push(DEVICE, "a", 1)
    await rig.settle()
    worker = rig.worker()
    rig.store.failing = True
    number = worker.say(hold(DEVICE, OTHER))
    await rig.settle()
    assert worker.session.confirmed == number  # its devices need not wait for the store
    rig.hub.tick()
    await rig.settle()
    assert worker.take() == []
    rig.store.failing = False
    rig.hub.tick()
    await rig.settle()
    (stored,) = worker.take()
    assert (stored.device, slots(stored.items)) == (DEVICE, [("a", 1)])
    rig.hub.tick()
    await rig.settle()
    assert worker.take() == []


# ---- pushes to a device whose inbox has not been read yet


@pytest.mark.parametrize("ttl", [60, 0])
@in_rig()
async def test_what_waits_comes_before_what_is_pushed_meanwhile(rig: Rig, ttl: int) -> None:
    worker = await announced(rig, DEVICE)
    first = rig.push(DEVICE, "new", 2, wait=ttl > 0, ttl=ttl)
    second = rig.push(DEVICE, "newer", 3)
    await rig.settle()
    assert worker.take() == []
    rig.store.release()
    await rig.settle()
    words = worker.take()
    assert told(words) == [(DEVICE, [("old", 1)]), (DEVICE, [("new", 2)]), (DEVICE, [("newer", 3)])]
    for word in words[1:]:
        worker.say(m.Result(word.number, m.WRITTEN))
    await rig.settle()
    assert (first, second) == ([DELIVERED if ttl else STORED], [DELIVERED])
    rig.push(DEVICE, "last", 4)
    assert told(worker.take()) == [(DEVICE, [("last", 4)])]


@in_rig(link={"announced_read": 1})
async def test_who_is_pushed_to_is_read_first(rig: Rig) -> None:
    worker = await announced(rig, DEVICE, OTHER, THIRD)
    rig.push(THIRD, "new", 2)
    rig.store.release()
    await rig.settle()
    assert told(worker.take()) == [
        (DEVICE, [("old", 1)]),
        (THIRD, [("old", 1)]),
        (THIRD, [("new", 2)]),
        (OTHER, [("old", 1)]),
    ]
    assert not worker.session.unread.devices


@in_rig()
async def test_a_newer_version_that_is_pushed_meanwhile_replaces_what_waits(rig: Rig) -> None:
    worker = await announced(rig, DEVICE)
    rig.push(DEVICE, "old", 2)
    rig.store.release()
    await rig.settle()
    assert told(worker.take()) == [(DEVICE, [("old", 2)])]


@in_rig()
async def test_a_push_waits_for_a_store_that_cannot_read(rig: Rig) -> None:
    worker = await announced(rig, DEVICE)
    rig.store.failing = True
    rig.store.release()
    await rig.settle()
    rig.store.failing = False
    outcome = rig.push(DEVICE, "new", 2)  # kept, while the inbox is still unread
    await rig.settle()
    rig.hub.tick()
    await rig.settle()
    words = worker.take()
    assert told(words) == [(DEVICE, [("old", 1)]), (DEVICE, [("new", 2)])]
    worker.say(m.Result(words[1].number, m.WRITTEN))
    assert outcome == [DELIVERED]


@pytest.mark.parametrize("gone", ["left", "lost", "joined again"])
@in_rig()
async def test_a_push_to_a_device_that_goes_meanwhile_is_stored(rig: Rig, gone: str) -> None:
    worker = await announced(rig, DEVICE)
    outcome = rig.push(DEVICE, "new", 2)
    if gone == "left":
        worker.say(m.Detach(DEVICE))
    elif gone == "lost":
        rig.hub.lost(worker.session, "test")
    else:
        worker.join()
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    assert worker.take() == []
    assert rig.hub.in_work == 0
    assert await rig.inbox(DEVICE) == [("old", 1), ("new", 2)]


@pytest.mark.parametrize("fetch", [m.EVERYTHING, 10])
@pytest.mark.parametrize("shard", [0, 1])
@in_rig()
async def test_a_connection_that_attaches_meanwhile_gets_all_of_it_once(rig: Rig, shard: int, fetch: int) -> None:
    worker = await announced(rig, DEVICE)
    outcome = rig.push(DEVICE, "new", 2)
    newer = rig.worker(1) if shard else worker
    newer.say(attach(7, fetch))
    rig.store.release()
    await rig.settle()
    words = newer.take()
    answer = next(word for word in words if isinstance(word, m.Reply))
    came = slots(answer.payload[0]) + [item for _, items in told(words) for item in items]
    # A part of an inbox is in the order of its slots.
    assert came == ([("old", 1), ("new", 2)] if fetch == m.EVERYTHING else [("new", 2), ("old", 1)])
    if shard:
        assert worker.take() == [m.Disconnect(DEVICE)]
    if fetch == m.EVERYTHING:
        newer.say(m.Result(words[-1].number, m.WRITTEN))
        assert outcome == [DELIVERED]
    else:
        assert outcome == [STORED]  # it is in the answer
    rig.push(DEVICE, "last", 3)
    assert told(newer.take()) == [(DEVICE, [("last", 3)])]


@in_rig()
async def test_a_connection_that_attaches_without_its_inbox_leaves_no_push_without_an_owner(rig: Rig) -> None:
    older = await announced(rig, DEVICE)
    outcome = rig.push(DEVICE, "new", 2)
    newer = rig.worker(1)
    newer.say(attach(7, 0, since=10_000))
    assert older.take() == [m.Disconnect(DEVICE)]
    rig.store.release()
    await rig.settle()
    assert newer.take() == [m.Reply(7, m.OK, [[], None])]
    assert outcome == [STORED]
    assert (rig.hub.in_work, rig.hub.attachments.held) == (0, 0)


@in_rig()
async def test_a_younger_announcement_takes_what_is_held_back_with_it(rig: Rig) -> None:
    older = await announced(rig, DEVICE, OTHER)
    outcome = rig.push(DEVICE, "new", 2)
    younger = rig.worker(1)
    younger.say(hold(DEVICE, since=5000))
    rig.store.release()
    await rig.settle()
    words = younger.take()
    assert told(words) == [(DEVICE, [("old", 1)]), (DEVICE, [("new", 2)])]
    first, second = older.take()
    assert (first, second.device) == (m.Disconnect(DEVICE), OTHER)
    younger.say(m.Result(words[-1].number, m.WRITTEN))
    assert outcome == [DELIVERED]


@in_rig(link={"max_held": 1})
async def test_what_is_held_back_is_counted_and_let_go(rig: Rig) -> None:
    worker = await announced(rig, DEVICE)
    for number in range(3):
        rig.push(DEVICE, f"unkept-{number}", 1, ttl=0, wait=False)  # beyond the limit they are not held
    rig.store.release()
    await rig.settle()
    assert told(worker.take()) == [(DEVICE, [("old", 1)]), (DEVICE, [("unkept-0", 1)])]
    again = await announced(rig, OTHER)
    rig.push(OTHER, "unkept", 1, ttl=0, wait=False)
    again.say(m.Detach(OTHER))
    rig.store.release()
    await rig.settle()
    third = await announced(rig, THIRD)
    rig.push(THIRD, "unkept", 1, ttl=0, wait=False)  # there is room again
    rig.store.release()
    await rig.settle()
    assert told(third.take()) == [(THIRD, [("old", 1)]), (THIRD, [("unkept", 1)])]


@in_rig()
async def test_nobody_waits_for_an_inbox_longer_than_for_a_delivery(rig: Rig) -> None:
    worker = await announced(rig, DEVICE)
    rig.store.failing = True
    rig.store.release()
    await rig.settle()
    rig.store.failing = False
    outcome = rig.push(DEVICE, "new", 2)
    rig.store.hold()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    worker.send(m.Beat({}))
    rig.hub.tick()
    rig.store.release()
    await rig.settle()
    assert outcome == [STORED]
    rig.hub.tick()
    await rig.settle()
    assert told(worker.take()) == [(DEVICE, [("old", 1)]), (DEVICE, [("new", 2)])]


@given(st.data())
@settings(max_examples=often(40), deadline=None)
def test_each_device_is_said_once_and_before_what_is_pushed_to_it(data: st.DataObject) -> None:
    devices = [bytes([number]) * 16 for number in range(8)]

    @in_rig(link={"announced_read": 2})
    async def scenario(rig: Rig) -> None:
        worker = await announced(rig, *devices)
        pushed: dict[bytes, int] = {}
        for _ in range(data.draw(st.integers(1, 12))):
            device = data.draw(st.sampled_from(devices))
            pushed[device] = pushed.get(device, 1) + 1
            rig.push(device, f"new-{pushed[device]}", pushed[device])
            if data.draw(st.booleans()):
                rig.store.failing = data.draw(st.booleans())
                rig.store.release()
                await rig.settle()
                rig.store.failing = False
                rig.store.hold()
        rig.store.release()
        for _ in range(len(devices)):
            await rig.settle()
            rig.hub.tick()
        heard: dict[bytes, list[int]] = {device: [] for device in devices}
        for device, items in told(worker.take()):
            heard[device] += [version for _, version in items]
        for versions in heard.values():
            assert versions[0] == 1
            assert versions == sorted(set(versions))
        assert not worker.session.unread.devices

    scenario()


def test_parts_are_as_large_as_may_be_read_at_once() -> None:
    unread = Unread()
    done: list[int] = []
    unread.announce([DEVICE, OTHER, THIRD], 2, lambda: done.append(1))
    assert unread.devices == {DEVICE, OTHER, THIRD}
    assert unread.next_part(2) == ([DEVICE, OTHER], None)
    unread.urge(THIRD)
    assert unread.next_part(2) == ([THIRD], None)
    assert unread.drop(THIRD)
    assert not unread.drop(THIRD)
    devices, called = unread.next_part(2)
    assert devices == [THIRD]
    assert called is not None
    unread.failed([DEVICE, OTHER, THIRD])
    assert unread.next_part(2) == ([DEVICE, OTHER], None)
    assert not unread.waiting
    unread.urge(OTHER)
    assert unread.clear() == [OTHER]
    assert not unread.waiting
    assert not unread.devices
