"""Envelopes as bytes: every type comes back as it was, in each version that is spoken."""

import msgpack
import msgspec
import pytest
from support.common import LIMIT, Rig, in_rig, received_by_worker

from router.common import messages as m
from router.common.directory import Placement
from router.common.item import Item
from router.common.position import LogEvent
from router.common.wire import NEWEST, VERSIONS, WIRES, reply_payload

DEVICE, CHANNEL = b"d" * 16, b"c" * 16
LABEL = m.channel_label("talk", "app", "room")
QUESTION = m.Authorise(
    "talk", m.CONNECT, "GET", "/talk?a=1", [(b"cookie", b"a=\xe9")], "192.0.2.1", ["room"], "ann", '{"a":1}', "hello"
)

REQUESTS: list[m.Request] = [
    m.Attach(DEVICE, "space", m.EVERYTHING, 5000),
    m.Fetch(DEVICE, 7),
    m.Drop(DEVICE, "slot"),
    m.Subscribe(CHANNEL, LABEL),
    m.Record("space", DEVICE, b"value", 60),
    m.SetAdd("space", DEVICE, CHANNEL, b"head", 60, 5),
    m.SetRemove("space", DEVICE, CHANNEL),
    m.ReadLog(CHANNEL, (7, 3, 2)),
    m.Publish(CHANNEL, "body", 60, "1.2"),
    m.PresenceJoin(CHANNEL, "ann", "{}", 5),
    m.Invoke("talk", CHANNEL, b"arguments"),
    QUESTION,
]
TO_ROUTER: list[m.Message] = [
    *(m.Call(number, request) for number, request in enumerate(REQUESTS, 1)),
    *(request for request in REQUESTS if isinstance(request, m.Subscribe | m.Record | m.SetAdd | m.Publish)),
    m.PresenceJoin(CHANNEL, "ann", "{}", 5),
    m.Detach(DEVICE),
    m.Announce([DEVICE, CHANNEL], [(1, 0), (1, 7000)]),
    m.AnnounceChannels([m.HeldChannel(CHANNEL, LABEL, 2, [("ann", "{}")])]),
    m.Unsubscribe(CHANNEL),
    m.Ack(DEVICE, [("slot", 3)]),
    m.Result(2**63 - 1, m.WRITTEN),
    m.Counted(CHANNEL, 3),
    m.CountsSent(9),
    m.PresenceLeave(CHANNEL, "ann"),
    m.Happened(LABEL, "what", "detail"),
    m.Withdraw(12),
    m.Inspected(13, [m.Inspection(DEVICE, "talk", "192.0.2.1", 0.5, 7)], True),
]
TO_WORKER: list[m.Message] = [
    m.Reply(7, m.FULL, None),
    m.Deliver(0, DEVICE, "slot", 5, "\N{PUSHPIN}\0"),
    m.DeliverStored(DEVICE, [Item("slot", 5, 6, 2**40, 4, None)]),
    m.Disconnect(DEVICE),
    m.Event(CHANNEL, "body", ""),
    m.LoggedEvent(CHANNEL, 7, LogEvent(3, 1_700_000_000, 1, 2**40, "id", {"type": "t"}, "body"), "1.2"),
    m.Broadcast("space", "key", None),
    m.BroadcastsSent(),
    m.Members(CHANNEL, True, [("ann", "{}")], ["bob"]),
    m.Terminate(CHANNEL, 4009, "gone"),
    m.SendCounts(3),
    m.StoreState("full"),
    m.Inspect(13, b"", "192.0.2.1", 5),
    m.LetGo(DEVICE, "gone"),
    m.Placements([Placement(3, 2**60, "a", "10.0.0.2:7406", "10.0.0.2:7407", "key")]),
]


def types(union: object) -> set[type]:
    return set(union.__args__)  # type: ignore[attr-defined]


def test_every_type_is_tried_below() -> None:
    assert {type(one) for one in TO_ROUTER} == types(m.ToRouter)
    assert {type(one) for one in TO_WORKER} == types(m.ToWorker)
    assert {type(one) for one in REQUESTS} == types(m.AnyRequest)
    kinds = [
        one.__struct_config__.tag for union in (m.ToRouter, m.ToWorker, m.OfWorker, m.OfRouter) for one in types(union)
    ]
    assert len(kinds) == len(set(kinds)), "two have the same number"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_batch_comes_back_as_it_was(version: int) -> None:
    wire = WIRES[version]
    alone = m.Beat({"connections": 1}), m.AskStatus(3), m.Announced(3), m.Leave()
    for envelope in (m.WorkerBatch(3, list(TO_ROUTER)), *alone):
        assert wire.of_worker(wire.encode(envelope), LIMIT) == envelope
    for answer in (m.RouterBatch(3, list(TO_WORKER), [1, 2]), m.Rejoin(), m.Status(3, {"a": 1})):
        assert wire.of_router(wire.encode(answer), LIMIT) == answer


def test_what_a_supervisor_asks_for_comes_back_as_it_was() -> None:
    asked = m.Manage(3, "device.show", {"device": "ab", "limit": 5})
    assert NEWEST.of_worker(NEWEST.encode(asked), LIMIT) == asked


def test_the_form_is_msgpack_and_a_message_is_an_array_that_begins_with_its_kind() -> None:
    packed = NEWEST.encode(m.WorkerBatch(3, [m.Call(9, m.Fetch(DEVICE, 7)), m.Ack(DEVICE, [("a", 1)])]))
    assert msgpack.unpackb(packed) == [2, 3, [[51, 9, [27, DEVICE, 7]], [28, DEVICE, [["a", 1]]]]]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_that_is_none_costs_that_message(version: int) -> None:
    wire = WIRES[version]
    bad = [[99], [], None, [28, DEVICE, [["a", -1]]], [51, 8, [27, DEVICE, 0]], [51, 9, [999, DEVICE]]]
    packed = msgspec.msgpack.encode([2, 1, [[21, DEVICE], *bad, [21, CHANNEL]]])
    batch = wire.of_worker(packed, LIMIT)
    assert isinstance(batch, m.WorkerBatch)
    first, *malformed, last = batch.messages
    assert (first, last) == (m.Detach(DEVICE), m.Detach(CHANNEL))
    assert [one.number for one in malformed] == [None, None, None, None, 8, 9]  # type: ignore[union-attr]


def test_the_payload_of_a_reply_is_of_the_type_that_its_request_names() -> None:
    item = Item("slot", 5, 6, 2**40, 4, None)
    reply = received_by_worker(m.RouterBatch(0, [m.Reply(1, m.OK, m.Attached([item], b"record"))], [])).messages[0]
    assert reply_payload(m.Attach, reply.payload) == m.Attached([item], b"record")
    assert reply_payload(m.Drop, 17) is None
    verdict = m.Verdict(403, None, "", "", 0, "", "text/html", b"no", [(b"retry-after", b"5")])
    reply = received_by_worker(m.RouterBatch(0, [m.Reply(1, m.OK, verdict)], [])).messages[0]
    assert reply_payload(m.Authorise, reply.payload) == verdict
    for request, payload in (
        (m.Authorise, [99]),
        (m.Authorise, [200, ["room", 5]]),
        (m.Attach, [[["slot"]], None]),
        (m.Fetch, None),
        (m.ReadLog, "text"),
        (m.PresenceJoin, []),
    ):
        with pytest.raises(m.MessageError):
            reply_payload(request, payload)


# ---- a worker and a router of different versions


@in_rig()
async def test_a_worker_of_the_oldest_version_is_spoken_to_in_that(rig: Rig) -> None:
    def sent(*envelope: object) -> None:
        rig.hub.received(b"w0", msgpack.packb(list(envelope)))

    def outbox() -> list[object]:
        session = rig.hub.sessions.get(b"w0")
        assert session is not None
        data = session.envelope()
        assert session.sent()
        return list(msgpack.unpackb(data)[2])

    before = m.LOWEST_PROTOCOL
    sent(1, before, 0, b"incarnat", 4711, before - 1)
    ((identity, welcome),) = rig.hub.take_direct()
    assert (identity, msgpack.unpackb(welcome)) == (b"w0", [11, b"router-1", before])
    rig.push(DEVICE, "before", 1)
    sent(2, 1, [[51, 7, [20, DEVICE, "", m.EVERYTHING, 0]], [26, "space", DEVICE, b"value", 60]])
    await rig.settle()
    ((kind, number, status, (items, record)),) = outbox()  # type: ignore[misc]
    assert (kind, number, status, [item[:2] for item in items], record) == (40, 7, m.OK, [["before", 1]], None)
    outcome = rig.push(DEVICE, "now", 2)
    ((kind, number, *rest),) = outbox()  # type: ignore[misc]
    assert (kind, rest) == (41, [DEVICE, "now", 2, None])
    sent(2, 2, [[31, number, m.WRITTEN], [28, DEVICE, [["before", 1]]], [51, 8, [29, DEVICE, "now"]], [51, 9, [999]]])
    await rig.settle()
    assert outcome == [0]
    assert sorted(outbox()) == [[40, 8, m.OK, None], [40, 9, m.FAILED, None]]
    assert await rig.inbox(DEVICE) == []
    assert rig.hub.counters.messages_refused == 1


@pytest.mark.parametrize(("highest", "lowest"), [(3, 2), (5, 5), (99, 90), (99, 99)])
@in_rig()
async def test_a_worker_without_a_version_in_common_is_told_the_routers(rig: Rig, highest: int, lowest: int) -> None:
    with pytest.raises(m.MessageError, match="versions"):
        rig.hub.received(b"w0", NEWEST.encode(m.Ready(highest, 0, b"incarnat", 1, lowest)))
    refused = [NEWEST.of_router(data, LIMIT) for _, data in rig.hub.take_direct()]
    assert refused == [m.Refused(VERSIONS[0], VERSIONS[-1])]
    assert len(rig.hub.sessions) == 0
