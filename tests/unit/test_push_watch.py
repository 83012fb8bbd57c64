"""Pushes that are followed: what is told of each on its way through hub and store, for which request, and in which
lines of `log.pushes`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from support.common import DELIVERY_TIMEOUT_S, Clock, Rig, in_rig, settings_with
from support.hub_messages import DEVICE, attached

from router.common import messages as m
from router.common import peer_wire
from router.common.messages import peers as p
from router.common.metrics import RouterCounters
from router.common.settings import LinkOptions
from router.core.asking import Asking
from router.core.push_watch import Watched
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, STORED
from router.core.scope import Origin, Scope
from router.push_log import PushLog

A = b"a" * 16


class Told:
    """What a watch was told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.begun = 0

    def begins(self, push: Watched) -> None:
        self.begun += 1

    def undelivered(self, push: Watched) -> None:
        self.events.append(("undelivered", push.slot, push.version))

    def accepted(self, push: Watched) -> None:
        self.events.append(("accepted", push.slot, push.version, push.ttl, push.size, id_of(push)))

    def refused(self, push: Watched, why: str) -> None:
        self.events.append(("refused", push.slot, push.version, why))

    def delivered(self, push: Watched) -> None:
        self.events.append(("delivered", push.slot, push.version, id_of(push)))

    def acked(self, device: bytes, updates: Iterable[tuple[str, int]]) -> None:
        self.events.append(("acked", device, list(updates)))

    def gone(self, why: str, device: bytes, slot: str, version: int) -> None:
        self.events.append((why, device, slot, version))


def id_of(push: Watched) -> str:
    return "" if push.origin is None else push.origin.request_id


TOLD = Told()


@pytest.fixture(autouse=True)
def _nothing_told_yet() -> None:
    TOLD.events.clear()
    TOLD.begun = 0


@pytest.mark.parametrize("wait", [True, False])
@in_rig(watch=TOLD)
async def test_a_push_is_accepted_when_it_is_durable_and_delivered_when_its_worker_says_so(
    rig: Rig, wait: bool
) -> None:
    worker = await attached(rig)
    rig.store.hold()
    outcome: list[int] = []
    more = {"ttl": 60, "body": "hello", "wait": wait}
    rig.hub.scope.call(Origin("r1"), lambda: rig.hub.messages.push(DEVICE, "a", 7, outcome.append, **more))
    (deliver,) = worker.take()
    await rig.settle()
    assert TOLD.events == []
    rig.store.release()
    await rig.settle()
    assert TOLD.events == [("accepted", "a", 7, 60, 5, "r1")]
    assert outcome == ([] if wait else [STORED])
    worker.say(m.Result(deliver.number, m.WRITTEN))
    worker.say(m.Ack(DEVICE, [("a", 7)]))
    await rig.settle()
    assert TOLD.events[1:] == [("delivered", "a", 7, "r1"), ("acked", DEVICE, [("a", 7)])]
    assert outcome == [DELIVERED if wait else STORED]
    assert (rig.hub.counters.pushes_delivered, rig.hub.counters.pushes_stored) == ((1, 0) if wait else (0, 1))
    assert rig.hub.in_work == 0
    assert await rig.inbox(DEVICE) == []


@in_rig(watch=TOLD)
async def test_a_push_without_a_device_or_a_ttl_is_accepted_and_not_delivered(rig: Rig) -> None:
    rig.push(DEVICE, "a", 1)
    rig.push(DEVICE, "b", 2, ttl=0, wait=False)
    await rig.settle()
    assert sorted(TOLD.events) == [
        *[("accepted", "a", 1, 60, 0, ""), ("accepted", "b", 2, 0, 0, "")],
        *[("undelivered", "a", 1), ("undelivered", "b", 2)],
    ]
    worker = await attached(rig)
    rig.push(DEVICE, "c", 3, ttl=0, wait=False)
    (deliver,) = worker.take()
    worker.say(m.Result(deliver.number, m.WRITTEN))
    assert TOLD.events[4:] == [("accepted", "c", 3, 0, 0, ""), ("delivered", "c", 3, "")]
    rig.push(DEVICE, "d", 4, wait=False)
    (deliver,) = worker.take()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 1)
    rig.hub.tick(rig.clock.monotonic())
    await rig.settle()
    worker.say(m.Result(deliver.number, m.WRITTEN))  # too late
    assert sorted(TOLD.events[6:]) == [("accepted", "d", 4, 60, 0, ""), ("undelivered", "d", 4)]
    assert TOLD.begun == 4


@in_rig(watch=TOLD, store={"inbox_limit": 1})
async def test_what_is_refused_is_told_with_its_reason(rig: Rig) -> None:
    assert rig.push(DEVICE, "a", 1) == []
    await rig.settle()
    full = rig.push(DEVICE, "b", 2)
    await rig.settle()
    rig.store.failing = True
    failed = rig.push(DEVICE, "a", 3)
    await rig.settle()
    assert (full, failed) == ([REFUSED_FULL], [REFUSED_FAILED])
    assert [event for event in TOLD.events[1:] if event[0] != "undelivered"] == [
        ("accepted", "a", 1, 60, 0, ""),
        ("refused", "b", 2, "inbox full"),
        ("refused", "a", 3, "store failed or busy"),
    ]


@in_rig()
async def test_where_nobody_wants_to_know_pushes_are_as_they_are(rig: Rig) -> None:
    assert type(rig.hub.messages).__name__ == "Messages"
    assert rig.hub.messages.PUSH.__name__ == "Push"


@in_rig(watch=TOLD)
async def test_what_waits_for_the_store_is_still_of_its_request(rig: Rig) -> None:
    found: list[Origin | None] = []
    scope = rig.hub.scope

    def look() -> None:
        rig.hub.core.records.look_up("space", b"key", lambda status, value: found.append(scope.origin))

    origin = Origin("r2")
    scope.call(origin, look)
    assert (found, scope.origin) == ([], None)
    await rig.settle()
    assert (found, scope.origin) == ([origin], None)


def test_a_request_that_fails_leaves_no_origin() -> None:
    scope = Scope()
    with pytest.raises(ZeroDivisionError):
        scope.call(Origin("r"), lambda: 1 / 0)
    assert scope.origin is None


@pytest.mark.parametrize("version", peer_wire.PEER_VERSIONS)
def test_an_origin_goes_to_a_router_that_understands_it(version: int) -> None:
    clock = Clock()
    options = settings_with().get(LinkOptions)
    asking = Asking(0, 2, b"life-of-0", options, 3.0, RouterCounters(), clock.monotonic, clock.unix)
    owner = asking.owners[1]
    assert owner.envelope() is not None
    owner.sent()
    owner.received(peer_wire.encode(p.PeerWelcome(b"life-of-1", version, 0, 0)))
    scope = Scope()
    ask = scope.asking(asking.ask)
    scope.call(Origin("mine"), ask, 1, "talk", A, b"\x90", lambda status, reply: None)
    ask(1, "talk", A, b"\x90", lambda status, reply: None)
    data = owner.envelope()
    assert data is not None
    lengths = [len(operation) for operation in msgspec.msgpack.decode(data)[-1]]
    assert lengths == ([5, 4] if version >= p.ORIGINS else [4, 4])  # a version that does not know it refuses a fifth
    forwards = peer_wire.of_asker(data)
    assert isinstance(forwards, p.Forwards)
    origins = [scope.read(one.origin).request_id for one in forwards.operations]
    assert origins == ["mine" if version >= p.ORIGINS else "", ""]


def test_the_origin_of_another_router_has_its_trace() -> None:
    found = Origin("id", Traced("00-trace"))
    assert (found.text, Origin("", Traced("00-trace")).text, Origin("id").text, Origin("").text) == (
        *("id 00-trace", " 00-trace"),
        *("id", ""),
    )


class Traced:
    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent


# ---- lines


class Pipe:
    """Takes whole lines while it is open."""

    def __init__(self) -> None:
        self.open = True
        self.written: list[bytes] = []

    def write(self, lines: bytes, level: str) -> bool:
        if self.open:
            assert all(json.loads(line)["level"] == level for line in lines.splitlines())
            assert lines.endswith(b"\n") and len(lines) <= 4096
            self.written.append(lines)
        return self.open

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.written).splitlines()]


def watched(slot: str = "s", request_id: str = "r") -> Watched:
    return Watched(TOLD, Origin(request_id), b"\x01" * 16, slot, 7, 60, 5, lambda outcome: None, False)


def test_a_line_of_each_event() -> None:
    pipe = Pipe()
    log = PushLog(65_536, {"process": "router", "router": 1}, lambda: 1_700_000_000.25, pipe.write)
    log.accepted(watched())
    log.delivered(watched())
    log.refused(watched(), "inbox full")
    log.acked(b"\x02" * 16, [("a", 1), ("b", 2)])
    log.gone("expired", b"\x03" * 16, "c", 3)
    assert pipe.written == []
    log.flush()
    assert len(pipe.written) == 1
    head = {"time": "2023-11-14T22:13:20.250Z", "level": "info", "process": "router", "router": 1}
    push = {"device": "01" * 16, "slot": "s", "version": 7, "request_id": "r"}
    assert pipe.lines == [
        {**head, "event": "push.accepted", **push, "ttl": 60, "size": 5},
        {**head, "event": "push.delivered", **push},
        {**head, "event": "push.refused", **push, "why": "inbox full"},
        {**head, "event": "push.acked", "device": "02" * 16, "slot": "a", "version": 1},
        {**head, "event": "push.acked", "device": "02" * 16, "slot": "b", "version": 2},
        {**head, "event": "push.expired", "device": "03" * 16, "slot": "c", "version": 3},
    ]


def test_a_reader_that_stands_still_costs_lines_and_they_are_counted() -> None:
    pipe = Pipe()
    pipe.open = False
    log = PushLog(65_536, {"process": "router"}, lambda: 1_700_000_000.0, pipe.write)
    for number in range(1000):
        log.acked(A, [(f"slot-{number}", number)])
        log.flush()
    assert 0 < log.lost < 1000
    pipe.open = True
    log.flush()
    log.flush()
    *kept, told = pipe.lines
    assert [line["version"] for line in kept] == list(range(1000 - log.lost))
    assert (told["event"], told["lines"], told["level"]) == ("push.lines_lost", log.lost, "warning")
    before = len(pipe.lines)
    log.acked(A, [("after", 1)])
    log.flush()
    assert [line["slot"] for line in pipe.lines[before:]] == ["after"]


@pytest.mark.parametrize("slot", ["\ud800", "a\nb", '"\\', "x" * 10_000, "\x1b[31m\u2028"])
def test_any_slot_is_one_line_that_a_pipe_takes_whole(slot: str) -> None:
    pipe = Pipe()
    log = PushLog(65_536, {}, lambda: 0.0, pipe.write)
    log.accepted(watched(slot, "r" * 128))
    log.flush()
    (line,) = pipe.lines
    assert line["event"] == "push.accepted"


def test_a_store_may_tell_of_what_goes_while_lines_are_written() -> None:
    pipe = Pipe()
    log = PushLog(10_000_000, {}, lambda: 0.0, pipe.write)
    thread = threading.Thread(target=lambda: [log.gone("expired", A, "s", number) for number in range(5000)])
    thread.start()
    while thread.is_alive():
        log.flush()
    thread.join()
    log.flush()
    assert [line["version"] for line in pipe.lines] == list(range(5000))
