"""Broadcasts: set through the hub, kept by a real committer and store, sent to every worker."""

import pytest
from support.common import LIMIT, Rig, in_rig

from router.common import messages as m
from router.common.wire import NEWEST
from router.core import broadcasts


def set_broadcast(rig: Rig, key: str, value: str | None, space: str = "webpush", number: int = 7) -> None:
    rig.hub.received(b"supervisor", NEWEST.encode(m.SetBroadcast(number, space, key, value)))


def outcomes_of(rig: Rig) -> list[tuple[int, dict[str, str]]]:
    """Of broadcasts that were set or asked for."""
    sent = [NEWEST.of_router(data, LIMIT) for data in rig.direct(b"supervisor")]
    assert all(status.number == 7 for status in sent)
    return [(status.answer["outcome"], status.answer["broadcasts"]) for status in sent]


@in_rig()
async def test_broadcasts_are_kept_and_said_to_every_worker(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    first = rig.worker(0)
    assert first.take() == [m.BroadcastsSent()]
    set_broadcast(rig, "a", "1")
    assert outcomes_of(rig) == []
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"a": "1"})]
    assert first.take() == [m.Broadcast("webpush", "a", "1")]
    set_broadcast(rig, "b", '"2"', "other")
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"b": '"2"'})]
    second = rig.worker(1)
    assert second.direct() == [m.Welcome(b"router-1", m.PROTOCOL)]
    assert second.take() == [
        m.Broadcast("webpush", "a", "1"),
        m.Broadcast("other", "b", '"2"'),
        m.BroadcastsSent(),
    ]
    first.take()
    set_broadcast(rig, "a", None)
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {})]
    assert first.take() == second.take() == [m.Broadcast("webpush", "a", None)]
    set_broadcast(rig, "", None, "other")
    assert outcomes_of(rig) == [(m.OK, {"b": '"2"'})]


@in_rig()
async def test_what_changes_nothing_is_not_written_nor_said(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    worker = rig.worker()
    set_broadcast(rig, "a", "1")
    set_broadcast(rig, "a", "1")
    set_broadcast(rig, "none", None)
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"a": "1"})] * 3
    assert worker.take() == [m.BroadcastsSent(), m.Broadcast("webpush", "a", "1")]
    assert rig.committer.written == 1


@in_rig()
async def test_several_set_at_once_are_set_in_order(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    worker = rig.worker()
    for key, value in (("a", "1"), ("b", "1"), ("a", "2"), ("b", None)):
        set_broadcast(rig, key, value)
    set_broadcast(rig, "", None)
    await rig.settle()
    assert outcomes_of(rig) == [
        (m.OK, {}),
        (m.OK, {"a": "1"}),
        (m.OK, {"a": "1", "b": "1"}),
        (m.OK, {"a": "2", "b": "1"}),
        (m.OK, {"a": "2"}),
    ]
    assert [(one.key, one.value) for one in worker.take()[1:]] == [("a", "1"), ("b", "1"), ("a", "2"), ("b", None)]


@in_rig()
async def test_broadcasts_outlive_a_router(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    set_broadcast(rig, "early", "1")
    assert outcomes_of(rig) == [(m.FAILED, {})]  # it cannot know yet what there is
    await rig.settle()
    set_broadcast(rig, "a", "1")
    await rig.settle()
    rig.router_restarts()
    set_broadcast(rig, "a", "2")
    set_broadcast(rig, "", None)
    assert outcomes_of(rig) == [(m.FAILED, {}), (m.FAILED, {})]
    early = rig.worker(0)
    assert early.take() == []
    rig.hub.broadcasts.load()
    await rig.settle()
    late = rig.worker(1)
    assert early.take() == late.take() == [m.Broadcast("webpush", "a", "1"), m.BroadcastsSent()]


@in_rig(link={"max_broadcasts": 2})
async def test_broadcasts_have_limits(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    worker = rig.worker()
    long_key, long_value = "k" * m.MAX_BROADCAST_KEY, "v" * m.MAX_BROADCAST_VALUE
    for key, value, space, expected in (
        ("a", "1", "s", m.OK),
        (long_key, long_value, "t", m.OK),
        ("b", "1", "s", m.FULL),
        ("b", "1", "u", m.FULL),
        ("a", "2", "s", m.OK),
        ("a", long_value + "v", "s", m.FULL),
        ("a", None, "s", m.OK),
        (long_key + "k", "1", "s", m.FULL),
        ("a", "1", long_key + "s", m.FULL),
        ("b", "1", "u", m.OK),
    ):
        set_broadcast(rig, key, value, space)
        await rig.settle()
        assert [status for status, _ in outcomes_of(rig)] == [expected]
    assert len(worker.take()) == 1 + 5


@in_rig(link={"max_broadcast_changes": 2})
async def test_so_many_changes_of_broadcasts_wait(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    rig.store.hold()
    for key in ("a", "b", "c"):
        set_broadcast(rig, key, "1")
    set_broadcast(rig, "", None)  # to ask changes nothing
    assert outcomes_of(rig) == [(m.FAILED, {}), (m.OK, {})]
    rig.store.release()
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"a": "1"}), (m.OK, {"a": "1", "b": "1"})]
    set_broadcast(rig, "c", "1")
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"a": "1", "b": "1", "c": "1"})]


@in_rig()
async def test_a_broadcast_that_the_store_failed_is_not_said(rig: Rig) -> None:
    rig.hub.broadcasts.load()
    await rig.settle()
    worker = rig.worker()
    rig.store.failing = True
    set_broadcast(rig, "a", "1")
    await rig.settle()
    assert (outcomes_of(rig), worker.take()) == ([(m.FAILED, {})], [m.BroadcastsSent()])
    rig.store.failing = False
    set_broadcast(rig, "b", "1")
    await rig.settle()
    assert (outcomes_of(rig), worker.take()) == ([(m.OK, {"b": "1"})], [m.Broadcast("webpush", "b", "1")])


@in_rig()
async def test_broadcasts_that_could_not_be_read_are_read_again(rig: Rig) -> None:
    rig.committer.record(broadcasts.SPACE, broadcasts.KEY, b'{"webpush":{"a":"1"}}', 0)
    await rig.settle()
    worker = rig.worker()
    rig.store.failing = True
    rig.hub.broadcasts.load()
    await rig.settle()
    rig.hub.tick()
    await rig.settle()
    assert worker.take() == []
    rig.store.failing = False
    rig.hub.tick()
    await rig.settle()
    assert worker.take() == [m.Broadcast("webpush", "a", "1"), m.BroadcastsSent()]


@pytest.mark.parametrize("value", [b"", b"no", b"[]", b'{"webpush": {"a": 1}}', b'{"\xff": {}}'])
@in_rig()
async def test_broadcasts_that_nobody_understands_are_as_none(rig: Rig, value: bytes) -> None:
    rig.committer.record(broadcasts.SPACE, broadcasts.KEY, value, 0)
    rig.hub.broadcasts.load()
    await rig.settle()
    set_broadcast(rig, "a", "1")
    await rig.settle()
    assert outcomes_of(rig) == [(m.OK, {"a": "1"})]
