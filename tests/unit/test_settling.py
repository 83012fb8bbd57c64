"""A router that is new waits with what it can only do when all workers have announced what they hold."""

from __future__ import annotations

from typing import Any

import pytest
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, hold, in_rig

from router.common import messages as m
from router.common.operation import Operation, encoded
from router.core.operations import Done
from router.core.pushes import REFUSED_FAILED, STORED

CHANNEL, DEVICE = b"c" * 16, b"d" * 16
LABEL = m.channel_label("talk", "app", "room")
HOLDS = m.AnnounceChannels([m.HeldChannel(CHANNEL, LABEL, 1, [])])
LEASE_S = 5.0


class Say(Operation, tag=1):
    """Publish this."""

    SETTLED = True

    text: str


class Note(Operation, tag=2):
    """Something that needs no subscribers."""

    text: str


class Talk:
    """A dialect whose operations say what they are called with, in this order."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.performed: list[str] = []
        self.answers: dict[str, int] = {}
        rig.hub.core.operations.register("talk", {Say: self.say, Note: self.note})

    def say(self, key: bytes, asked: Say, done: Done) -> None:
        self.performed.append(asked.text)
        if asked.text == "refused":
            raise m.MessageError("refused")
        if asked.text == "fails":
            raise ValueError(asked.text)
        self.rig.hub.core.messages.publish(key, asked.text)
        done(m.OK)

    def note(self, key: bytes, asked: Note, done: Done) -> None:
        self.performed.append(asked.text)
        done(m.OK)

    def ask(self, *texts: str, kind: type[Any] = Say) -> None:
        for text in texts:
            self.rig.hub.core.operations.at(
                CHANNEL, kind(text), lambda status, _=None, text=text: self.answers.update({text: status})
            )


def texts(messages: list[Any]) -> list[str]:
    return [one.body for one in messages if isinstance(one, m.Event)]


@in_rig(workers=2)
async def test_an_event_goes_to_the_subscribers_of_all_workers_in_order(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("one")
    first, second = rig.worker(0), rig.worker(1)
    first.announces(HOLDS)
    talk.ask("two")
    second.say(HOLDS)
    talk.ask("three")
    talk.ask("now", kind=Note)
    rig.hub.tick()
    assert (talk.performed, rig.hub.counters.operations_held) == (["now"], 3)
    second.announces()
    assert talk.answers == dict.fromkeys(("one", "two", "three", "now"), m.OK)
    assert [texts(worker.take()) for worker in (first, second)] == [["one", "two", "three"]] * 2
    assert rig.hub.counters.operations_held == 0


@in_rig(workers=2)
async def test_afterwards_nothing_stands_between(rig: Rig) -> None:
    talk = Talk(rig)
    operations = rig.hub.core.operations
    assert operations._performers[Say] != talk.say
    rig.worker(0).announces()
    rig.worker(1).announces()
    assert operations._performers[Say] == talk.say
    late = Talk(rig)
    assert operations._performers[Say] == late.say


@in_rig(workers=2)
async def test_two_of_one_shard_are_not_all_and_one_more_is_waited_for(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("said")
    rig.worker(0).announces()
    leaving = rig.worker(2)  # of a shard that was replaced: its connections are still there
    rig.worker(0).announces()
    rig.worker(1).announces()
    assert not talk.answers
    leaving.announces()
    assert talk.answers == {"said": m.OK}


@in_rig(workers=2)
async def test_a_worker_that_dies_after_it_has_announced_is_waited_for_again(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("said")
    first = rig.worker(0)
    first.announces(HOLDS)
    rig.hub.lost(first.session, "test")
    rig.worker(1).announces()
    assert not talk.answers
    rig.worker(0).announces()
    assert talk.answers == {"said": m.OK}


@in_rig(workers=1)
async def test_a_mark_that_overtakes_a_lost_batch_does_not_count(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("said")
    worker = rig.worker()
    worker.send(m.Announced(1))
    assert not talk.answers
    worker.announces(HOLDS)
    assert (talk.answers, texts(worker.take())) == ({"said": m.OK}, ["said"])


@pytest.mark.parametrize("joins", [False, True])
@in_rig(workers=1, link={"forward_timeout": 10})
async def test_no_worker_is_waited_for_longer_than_its_lease(
    rig: Rig, joins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It never comes; or it speaks the version before, and sends no mark."""
    talk = Talk(rig)
    rig.clock.pass_by(60)  # the store is read: nobody is heard meanwhile
    rig.hub.tick()
    talk.ask("said")
    worker = rig.worker() if joins else None
    rig.clock.pass_by(LEASE_S - 0.1)
    if worker is not None:
        worker.say(HOLDS)
    rig.hub.tick()
    assert not talk.answers
    rig.clock.pass_by(0.2)
    rig.hub.tick(heard_until=rig.clock.monotonic() - 1)  # what they have sent lies unread
    assert not talk.answers
    rig.hub.tick()
    assert talk.answers == {"said": m.OK}
    assert "router.not_announced" in caplog.text
    if worker is not None:
        assert texts(worker.take()) == ["said"]


@in_rig(workers=None, link={"forward_timeout": 10})
async def test_if_nobody_knows_how_many_there_are_the_time_decides(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk(rig)
    rig.hub.tick()
    rig.worker().announces()
    talk.ask("said")
    rig.hub.tick()
    assert not talk.answers
    rig.clock.pass_by(LEASE_S)
    rig.hub.tick()
    assert talk.answers == {"said": m.OK}
    assert "router.not_announced" not in caplog.text


@in_rig(workers=1, link={"max_forwarded": 2, "lease": 60, "forward_timeout": 3})
async def test_what_waits_has_a_limit_and_a_deadline(rig: Rig) -> None:
    talk = Talk(rig)
    rig.hub.tick()
    talk.ask("one")
    rig.clock.pass_by(1)
    talk.ask("two", "three")
    assert talk.answers == {"three": m.UNREACHED}
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 2)
    rig.hub.tick()
    assert talk.answers == {"three": m.UNREACHED, "one": m.UNREACHED}
    rig.worker().announces()
    assert (talk.answers["two"], talk.performed) == (m.OK, ["two"])


@in_rig(workers=1, link={"max_forwarded_bytes": 65_536, "lease": 60.0})
async def test_what_waits_has_a_limit_of_bytes(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("a" * 40_000, "b" * 40_000, "c" * 20_000)
    assert talk.answers == {"b" * 40_000: m.UNREACHED}
    worker = rig.worker()
    worker.say(m.Call(1, m.Publish(CHANNEL, "d" * 6_000, 0, "")))
    assert worker.take() == [m.Reply(1, m.FAILED, None)]
    rig.hub.tick()
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 3)
    rig.hub.tick()
    talk.ask("e" * 60_000)  # those before were given up
    worker.announces()
    assert (talk.answers["a" * 40_000], talk.answers["e" * 60_000]) == (m.UNREACHED, m.OK)


@in_rig(workers=1, link={"queue_limit": 10})
async def test_what_waits_comes_in_parts_for_which_a_worker_has_room(rig: Rig) -> None:
    talk = Talk(rig)
    worker = rig.worker()
    waited = [str(number) for number in range(30)]
    talk.ask(*waited)
    worker.announces(HOLDS)
    assert not rig.hub.settling.over
    talk.ask("later")  # has to come behind what waits
    got: list[str] = []
    while not rig.hub.settling.over:
        rig.hub.outgoing()  # ends a session whose queue is full
        got += texts(worker.take())
        rig.hub.tick()
    rig.hub.outgoing()
    talk.ask("last")
    assert got + texts(worker.take()) == [*waited, "later", "last"]
    assert talk.answers == dict.fromkeys((*waited, "later", "last"), m.OK)
    assert (worker.session.announced, rig.hub.counters.operations_held) == (True, 0)


@in_rig(workers=1)
async def test_one_that_fails_costs_itself(rig: Rig) -> None:
    talk = Talk(rig)
    talk.ask("refused", "fails", "good")
    rig.worker().announces()
    assert talk.answers == {"refused": m.FAILED, "fails": m.FAILED, "good": m.OK}


@in_rig(workers=1)
async def test_what_devices_ask_for_waits_too_and_is_confirmed_only_then(rig: Rig) -> None:
    talk = Talk(rig)
    worker = rig.worker()
    sequence = worker.say(m.Call(1, m.Invoke("talk", CHANNEL, encoded(Say("said")))))
    worker.say(m.Call(2, m.Subscribe(CHANNEL, LABEL)))
    await rig.settle()
    assert (worker.take(), worker.session.confirmed) == ([m.Reply(2, m.OK, None)], sequence - 1)
    worker.announces(HOLDS)
    await rig.settle()
    assert worker.take() == [m.Event(CHANNEL, "said", ""), m.Reply(1, m.OK, b"")]
    assert (talk.performed, worker.session.confirmed) == (["said"], sequence + 2)


@in_rig(workers=2)
async def test_what_devices_publish_reaches_all(rig: Rig) -> None:
    first, second = rig.worker(0), rig.worker(1)
    first.announces(HOLDS)
    first.say(m.Publish(CHANNEL, "plain", 0, ""), m.Call(1, m.Publish(CHANNEL, "called", 0, "")))
    await rig.settle()
    assert first.take() == []
    second.announces(HOLDS)
    assert first.take() == [m.Event(CHANNEL, "plain", ""), m.Event(CHANNEL, "called", ""), m.Reply(1, m.OK, 0)]
    assert texts(second.take()) == ["plain", "called"]
    first.say(m.Publish(CHANNEL, "later", 0, ""))
    assert texts(second.take()) == ["later"]


@in_rig(workers=1, link={"max_forwarded": 1})
async def test_a_push_without_a_time_to_live_waits_for_its_device(rig: Rig) -> None:
    outcome, over = (rig.push(DEVICE, slot, 1, ttl=0, wait=False, body="b") for slot in "ab")
    kept = rig.push(DEVICE, "kept", 1, wait=False)
    await rig.settle()
    assert (outcome, over, kept) == ([], [REFUSED_FAILED], [STORED])
    worker = rig.worker()
    worker.announces(hold(DEVICE))
    await rig.settle()
    assert outcome == [STORED]
    found = worker.take()
    assert [one.slot for one in found if isinstance(one, m.Deliver)] == ["a"]
    assert [item.slot for one in found if isinstance(one, m.DeliverStored) for item in one.items] == ["kept"]


@in_rig(workers=2)
async def test_members_leave_a_moment_after_all_have_announced(rig: Rig) -> None:
    """Somebody who was on a worker that died with the router is sent as gone, once it could be back."""
    first, second = rig.worker(0), rig.worker(1)
    first.announces(m.AnnounceChannels([m.HeldChannel(CHANNEL, LABEL, 1, [("ann", "")])]))
    second.announces()
    rig.clock.pass_by(0.9)
    rig.hub.tick()
    assert first.take() == []
    second.say(m.Subscribe(CHANNEL, LABEL), m.PresenceJoin(CHANNEL, "bob", "", 9))
    rig.clock.pass_by(0.2)
    rig.hub.tick()
    assert first.take()[-1] == m.Members(CHANNEL, True, [("ann", ""), ("bob", "")], [])


def of(rig: Rig, host: str, shard: int) -> FakeWorker:
    """A worker of a host of a cluster."""
    worker = FakeWorker(rig, shard)
    worker.identity = worker.incarnation = f"{host}-{shard}".encode()
    worker.host = host
    worker.join()
    return worker


@in_rig(workers=2)
async def test_in_a_cluster_the_workers_of_all_hosts_are_waited_for(rig: Rig) -> None:
    talk = Talk(rig)
    rig.hub.settling.expect({"here": 2, "there": 1})
    talk.ask("said")
    of(rig, "here", 0).announces(HOLDS)
    of(rig, "here", 1).announces(HOLDS)
    assert not talk.answers
    of(rig, "there", 0).announces(HOLDS)
    assert talk.answers == {"said": m.OK}


@in_rig(workers=2)
async def test_a_host_that_is_not_there_any_more_is_not_waited_for(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk(rig)
    rig.hub.settling.expect({})  # nothing is known yet
    talk.ask("said")
    of(rig, "here", 0).announces(HOLDS)
    rig.hub.tick()
    assert not talk.answers
    rig.hub.settling.expect({"here": 1, "gone": 4})
    rig.hub.tick()
    assert not talk.answers
    rig.hub.settling.expect({"here": 1})
    assert talk.answers == {"said": m.OK}
    assert "router.not_announced" not in caplog.text
