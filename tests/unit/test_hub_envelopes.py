"""What is sent to the hub, by whomever: what is none of its messages costs nothing else."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.common import LIMIT, Rig, array, in_rig
from support.hub_messages import CHANNEL, DEVICE, OTHER, attach, attached
from support.often import often

from router.common import messages as m
from router.common.wire import NEWEST
from router.core.pushes import DELIVERED


@in_rig()
async def test_the_supervisor_is_told_the_status(rig: Rig) -> None:
    rig.hub.on_status(lambda host: {"of": host})
    rig.hub.received(b"supervisor", NEWEST.encode(m.AskStatus(5, "a")))
    assert list(rig.hub.take_direct()) == [(b"supervisor", NEWEST.encode(m.Status(5, {"of": "a"})))]


@pytest.mark.parametrize(
    "message",
    [
        [99],
        array(m.RouterBatch, 0, []),
        ["1"],
        [None],
        array(m.Ready),
        array(m.Ready, m.PROTOCOL + 1, 0, b"i", 1, m.PROTOCOL + 1),
        array(m.Ready, [], 0, b"i", 1, []),
        array(m.Ready, m.PROTOCOL, "0", b"i", 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, "text", 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, b"i" * 65, 1, m.PROTOCOL),
        array(m.Ready, m.PROTOCOL, 0, b"i", {}, m.PROTOCOL),
        array(m.WorkerBatch),
        array(m.WorkerBatch, 1),
        array(m.WorkerBatch, "1", []),
        array(m.WorkerBatch, 1.5, []),
        array(m.WorkerBatch, 1, {}),
        array(m.WorkerBatch, 1, [], 0),
        array(m.Beat),
        array(m.Beat, []),
        array(m.Beat, {1: 2}),
        array(m.Beat, {"connections": "many"}),
        array(m.Beat, {str(number): number for number in range(1001)}),
        array(m.AskStatus),
        array(m.AskStatus, "1"),
        array(m.SetBroadcast, 1, "space", b"key", "value"),
        array(m.SetBroadcast, 1, None, "key", "value"),
        array(m.SetBroadcast, 1, "space", "key", 1),
    ],
)
@in_rig()
async def test_a_message_that_is_not_our_vocabulary_is_refused(rig: Rig, message: list[Any]) -> None:
    worker = rig.worker()
    with pytest.raises(m.MessageError):
        worker.send(message)
    assert worker.session.lease.alive


REFUSED_WORDS: list[Any] = [
    [],
    None,
    7,
    "word",
    [99],
    [None],
    [[]],
    array(m.Reply, 1, m.OK, None),
    array(m.Result),
    array(m.Result, [], m.WRITTEN),
    array(m.Result, 1),
    array(m.Result, 1, m.WRITTEN, 0),
    array(m.Ack, "no bytes but text", [["a", 1]]),
    array(m.Ack, b"short", [["a", 1]]),
    array(m.Ack, DEVICE, None),
    array(m.Ack, DEVICE, [["kept", 1], ["a"]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", 1, 1]]),
    array(m.Ack, DEVICE, [["kept", 1], [b"a", 1]]),
    array(m.Ack, DEVICE, [["kept", 1], ("a", "1")]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", float("nan")]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", 2**63]]),
    array(m.Ack, DEVICE, [["kept", 1], ["a", -1]]),
    array(m.Detach),
    array(m.Detach, []),
    array(m.Announce, DEVICE, [[1, 0]]),
    array(m.Announce, [OTHER]),
    array(m.Announce, [OTHER, "text"], [[2, 0]]),
    array(m.Announce, [OTHER, b"short"], [[2, 0]]),
    array(m.Announce, [OTHER] * (m.ANNOUNCE_CHUNK + 1), [[m.ANNOUNCE_CHUNK + 1, 0]]),
    array(m.Announce, [b"f" * 16, b"g" * 16], [[1, 0]]),
    array(m.Announce, [b"f" * 16], [[1, -1]]),
    array(m.Announce, [b"f" * 16], [[1, 0, 0]]),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, -2, "")),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, "no label")),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, "a\0b\0" + "x" * m.MAX_LABEL)),
    array(m.Call, 1, array(m.Subscribe, CHANNEL, 2**63, "")),
    array(m.Unsubscribe, {}),
    array(m.AnnounceChannels, [[CHANNEL, "", 1]]),
    array(m.AnnounceChannels, [[CHANNEL, "", 1, []], [b"f" * 16, "no label", 1, []]]),
    array(m.AnnounceChannels, [[CHANNEL, "a\0b\0c", 1, [("ann", "{}"), ["bob"]]]]),
    array(m.AnnounceChannels, [[CHANNEL, "a\0b\0c", "1", []]]),
    array(m.Call, 1, array(m.Record, "s", OTHER, "text", 60)),
    array(m.Call, 1, array(m.Record, "s", OTHER, b"x", 2**62)),
    array(m.Call, 1, array(m.Record, ["s"], OTHER, b"x", 60)),
    array(m.Call, 1, array(m.Fetch, OTHER, 0)),
    array(m.Call, 1, array(m.Fetch, OTHER, "1")),
    array(m.Call, 1, array(m.Drop, OTHER, None)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", -1, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, [], 0, 0)),
    array(m.Call, 1, array(m.Attach, b"short", "", 0, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0.5, 0)),
    array(m.Call, 1, array(m.Attach, OTHER, "", 0, "0")),
    array(m.Call, 1, array(m.Publish, CHANNEL, b"body", 0, "")),
    array(m.Call, 1, array(m.Publish, CHANNEL, "body", 2**60, "")),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, b"short", b"head", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, "no bytes but text", b"head", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, OTHER, b"short", 0, 1)),
    array(m.Call, 1, array(m.SetAdd, "s", OTHER, OTHER, b"head", 0, None)),
    array(m.Call, 1, array(m.SetRemove, "s", OTHER, b"")),
    array(m.Counted, CHANNEL, "5"),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, "x" * (m.MAX_USER_ID + 1), "", 1)),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, 7, "", 1)),
    array(m.Call, 1, array(m.PresenceJoin, CHANNEL, "ann", "", None)),
    array(m.PresenceLeave, CHANNEL, []),
    array(m.Call, 1, array(m.ReadLog, {}, CHANNEL)),
    array(m.Happened, 1, 2, 3),
]


@pytest.mark.parametrize("word", REFUSED_WORDS, ids=repr)
@in_rig()
async def test_a_word_that_is_not_our_vocabulary_costs_that_word_only(rig: Rig, word: Any) -> None:
    worker = await attached(rig)
    rig.push(DEVICE, "kept", 1, wait=False)
    await rig.settle()
    worker.take()
    number = worker.say(attach(OTHER, 70), word, m.Call(71, m.Drop(OTHER, "a")))
    await rig.settle()
    answers = {one.number: one.status for one in worker.take()}
    asks = {1: m.FAILED} if type(word) is list and word[:2] == array(m.Call, 1) else {}
    assert answers == {70: m.OK, 71: m.OK} | asks
    assert worker.session.confirmed == number
    assert rig.hub.counters.messages_refused == 1
    # Nothing of it has been acted on.
    assert await rig.inbox(DEVICE) == [("kept", 1)]
    assert (len(rig.hub.map), len(rig.hub.channels)) == (2, 0)
    assert rig.committer.failures == 0


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.sampled_from([DEVICE, CHANNEL, "a\0b\0c", 0, 1, 2**31 - 1, 2**63 - 1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(0, 9), inner, max_size=2)
    ),
    max_leaves=6,
)
_messages = st.tuples(st.integers(0, 60), st.lists(_values, max_size=6)).map(lambda one: [one[0], *one[1]])


@settings(max_examples=often(50), deadline=None)
@given(st.lists(_messages | _values, max_size=12))
def test_whatever_a_worker_says_the_router_and_the_others_go_on(words: list[Any]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        worker, other = rig.worker(0), await attached(rig, 1, OTHER)
        number = worker.say(*words)
        await rig.settle()
        rig.hub.tick()
        assert worker.session.confirmed == number
        for word in words:
            if type(word) is list and word and type(word[0]) is int:
                with suppress(m.MessageError):
                    worker.send(word)
        await rig.settle()
        other.take()
        outcome = rig.push(OTHER, "a", 1)
        (deliver,) = other.take()
        other.say(m.Result(deliver.number, m.WRITTEN))
        await rig.settle()
        assert outcome == [DELIVERED]
        rig.clock.pass_by(10 * rig.link.lease)
        rig.hub.tick()
        rig.hub.map.sweep(100)
        rig.hub.tick()
        assert (len(rig.hub.sessions), rig.hub.sessions.dirty, len(rig.hub.channels)) == (0, {}, 0)

    scenario()


@in_rig(link={"max_workers": 2, "max_direct": 3})
async def test_of_too_many_workers_and_of_too_many_answers_some_are_not_heard(rig: Rig) -> None:
    for shard in range(2):
        rig.worker(shard)
    with pytest.raises(m.MessageError, match="max_workers"):
        rig.worker(2)
    rig.worker(1)
    for number in range(5):
        rig.hub.received(b"supervisor", NEWEST.encode(m.AskStatus(number)))
    assert [NEWEST.of_router(data, LIMIT).number for _, data in rig.hub.take_direct()] == [2, 3, 4]
    assert rig.hub.counters.link_dropped == 5
