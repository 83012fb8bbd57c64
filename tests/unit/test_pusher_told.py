"""Webhooks over a router's death: whatever was told is followed by its opposite, and nothing is told twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.common import FakeWorker, Rig, in_rig

from router.common import messages as m
from router.common.partitions import PARTITIONS, fixed_owners, key_in, partition
from router.dialects.pusher.applications import App, Webhook
from router.dialects.pusher.protocol import PusherOptions, channel_address, label
from router.dialects.pusher.webhooks import outbox
from router.dialects.pusher.webhooks.elsewhere import Elsewhere
from router.dialects.pusher.webhooks.policy import Webhooks
from router.dialects.pusher.webhooks.told import SPACE, Told
from router.store.base import Reads, Writes

URL = "http://hooks.example/one"
ROOM = "presence-room"
GRACE_S = 1.0
HOLD_S = 3.0
EXISTENCE = frozenset(("channel_occupied", "channel_vacated", "member_added", "member_removed"))


class Site:
    """Webhooks at a router whose lives follow each other, and that waits for two workers."""

    def __init__(self, rig: Rig, events: frozenset[str] = EXISTENCE) -> None:
        self.rig = rig
        self.app = App("3", "three", "key", "secret", webhooks=(Webhook(URL, events),), subscription_count=True)
        self.begin()

    def begin(self) -> None:
        rig = self.rig
        options = PusherOptions(webhook_hold=HOLD_S)
        self.hooks = Webhooks([self.app], options, rig.hub.core, rig.clock.monotonic, rig.clock.unix)
        rig.hub.channels.observe("pusher", self.hooks)
        self.hooks.restore()
        self.workers = [FakeWorker(rig, shard) for shard in range(2)]

    async def restart(self) -> None:
        self.rig.router_restarts()
        self.begin()
        await self.rig.settle()

    def announce(self, *held: list[m.HeldChannel], settles: bool = True) -> None:
        """Each worker joins and announces this; then it is known."""
        for worker, channels in zip(self.workers, held or ([], []), strict=True):
            worker.join()
            worker.announces(m.AnnounceChannels(channels))
        if settles:
            self.pass_by(GRACE_S)

    def pass_by(self, seconds: float) -> None:
        self.rig.clock.pass_by(seconds)
        for worker in self.workers:
            if self.rig.hub.sessions.get(worker.identity) is not None:
                worker.send(m.Beat({}))
        self.rig.hub.tick()
        self.hooks.tick()

    async def told(self) -> list[tuple[str, str]]:
        """What the webhook is sent now: the name of each event, and the user or the channel."""
        await self.rig.settle()
        (box,) = self.hooks.outboxes
        found = []
        while body := box.take():
            events = json.loads(body)["events"]
            found += [(event["name"], event.get("user_id") or event["channel"]) for event in events]
            self.hooks.advance(box, box.taken())
        await self.rig.settle()
        return found

    async def kept(self) -> list[Any]:
        """What the store has of what was told."""
        await self.rig.settle()
        names = [(SPACE, key_in(number, b"told")) for number in range(PARTITIONS)]
        found = await self.rig.store.apply(Writes(), Reads(records=dict.fromkeys(names)), 0)
        return [value for name in names if (value := found.records.get(name))]


def address_of_outbox(site: Site) -> bytes:
    return outbox.address(site.app, Webhook(URL))


def address(channel: str) -> bytes:
    return channel_address("3", channel)


def subscribe(worker: FakeWorker, channel: str, user: str = "") -> None:
    worker.say(m.Subscribe(address(channel), label("3", channel)))
    if user:
        worker.say(m.PresenceJoin(address(channel), user, "", 100))


def held(channel: str, *users: str, subscribers: int = 1) -> m.HeldChannel:
    return m.HeldChannel(address(channel), label("3", channel), subscribers, [(user, "") for user in users])


async def begun(rig: Rig) -> Site:
    """A site with the channel `a` and a member at the first worker, `b` and another one at the second."""
    site = Site(rig)
    await rig.settle()
    site.announce()
    for worker, name in zip(site.workers, ("a", "b"), strict=True):
        subscribe(worker, name)
        subscribe(worker, ROOM, f"user-{name}")
    added = [("member_added", "user-a"), ("member_added", "user-b")]
    occupied = [("channel_occupied", name) for name in ("a", ROOM, "b")]
    assert sorted(await site.told()) == sorted(occupied + added)
    return site


@in_rig(workers=2)
async def test_what_went_with_a_worker_and_its_router_is_told_once(rig: Rig) -> None:
    site = await begun(rig)
    await site.restart()
    site.announce([held("a"), held(ROOM, "user-a")], [])
    assert await site.told() == []  # it may be back in a moment
    site.pass_by(HOLD_S)
    assert sorted(await site.told()) == [("channel_vacated", "b"), ("member_removed", "user-b")]
    for _ in range(2):
        await site.restart()
        site.announce([held("a"), held(ROOM, "user-a")], [])
        site.pass_by(HOLD_S)
        assert await site.told() == []


@in_rig(workers=2)
async def test_what_ended_while_the_router_was_away_is_told(rig: Rig) -> None:
    site = await begun(rig)
    await site.restart()
    first, second = site.workers
    first.join()
    first.say(m.Unsubscribe(address("a")), m.PresenceLeave(address(ROOM), "user-a"), m.Unsubscribe(address(ROOM)))
    first.announces()
    second.join()
    second.announces(m.AnnounceChannels([held("b"), held(ROOM, "user-b")]))
    site.pass_by(GRACE_S)
    site.pass_by(HOLD_S)
    assert sorted(await site.told()) == [("channel_vacated", "a"), ("member_removed", "user-a")]


@in_rig(workers=2)
async def test_what_is_back_in_time_has_never_gone_and_what_is_new_is_told(rig: Rig) -> None:
    site = await begun(rig)
    await site.restart()
    site.announce([held("a"), held(ROOM, "user-a")], [], settles=False)
    first, second = site.workers
    subscribe(second, "b")
    subscribe(second, "new")
    site.pass_by(GRACE_S)
    subscribe(first, ROOM, "user-b")
    site.pass_by(HOLD_S)
    assert await site.told() == [("channel_occupied", "new")]


@in_rig(workers=2)
async def test_nothing_is_told_before_all_have_announced(rig: Rig) -> None:
    """The one that comes first does not empty what the other has yet."""
    site = await begun(rig)
    await site.restart()
    first, second = site.workers
    first.join()
    first.announces(m.AnnounceChannels([held("b"), held(ROOM, "user-b", "new")]))
    first.say(m.Unsubscribe(address("b")), m.PresenceLeave(address(ROOM), "user-b"))
    first.say(m.PresenceLeave(address(ROOM), "new"))
    subscribe(first, "a")
    site.pass_by(HOLD_S)
    assert await site.told() == []
    second.join()
    second.announces(m.AnnounceChannels([held("a"), held("b"), held(ROOM, "user-a", "user-b")]))
    site.pass_by(GRACE_S)
    site.pass_by(HOLD_S)
    assert await site.told() == []


@in_rig(workers=2)
async def test_a_member_on_two_workers_of_which_one_is_lost_stays(rig: Rig) -> None:
    site = await begun(rig)
    subscribe(site.workers[1], ROOM, "user-a")
    await site.restart()
    site.announce([], [held(ROOM, "user-a", "user-b"), held("b")])
    site.pass_by(HOLD_S)
    assert await site.told() == [("channel_vacated", "a")]


class Afar(Elsewhere):
    """The events that another router sends: whether it has got them is not known for a while."""

    def tick(self) -> None:
        pass


@in_rig(workers=2)
async def test_what_may_not_have_been_told_is_told_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router dies while events are on their way to the router that sends them."""
    site = await begun(rig)
    with monkeypatch.context() as away:
        away.setattr("router.dialects.pusher.webhooks.policy.Elsewhere", Afar)
        away.setattr(rig.hub.core.operations.__class__, "owns", lambda self, key: key != address_of_outbox(site))
        await site.restart()
        site.announce([held("a"), held(ROOM, "user-a")], [held("b"), held(ROOM, "user-b")])
        for name in ("stays", "goes"):
            subscribe(site.workers[0], name)
        site.workers[1].say(m.Unsubscribe(address("b")))
        site.pass_by(HOLD_S)
        await rig.settle()
        assert (len(site.hooks.elsewhere), len(site.hooks.elsewhere[0])) == (1, 3)
    await site.restart()
    site.announce([held("a"), held("stays"), held(ROOM, "user-a")], [held(ROOM, "user-b")])
    again = [("channel_occupied", "stays"), ("channel_vacated", "b"), ("channel_vacated", "goes")]
    assert sorted(await site.told()) == again
    await site.restart()
    site.announce([held("a"), held("stays"), held(ROOM, "user-a")], [held(ROOM, "user-b")])
    site.pass_by(HOLD_S)
    assert await site.told() == []


@in_rig(workers=2)
async def test_what_was_lost_just_before_all_have_announced_is_told_and_its_end(rig: Rig) -> None:
    site = Site(rig)
    await rig.settle()
    site.announce(settles=False)
    subscribe(site.workers[1], "b")
    site.pass_by(0.9)
    rig.hub.lost(site.workers[1].session, "test")
    site.pass_by(0.1)
    assert await site.told() == [("channel_occupied", "b")]
    subscribe(site.workers[0], "b")
    site.pass_by(GRACE_S)
    site.pass_by(HOLD_S)
    assert await site.told() == []


@in_rig(workers=2)
async def test_a_store_that_forgets_has_what_was_there_before_count_as_told(rig: Rig) -> None:
    site = await begun(rig)
    for name in [name for name in rig.store._records if name[0] == SPACE]:
        del rig.store._records[name]
    await site.restart()
    site.announce([held("a"), held(ROOM, "user-a")], [], settles=False)
    subscribe(site.workers[1], "new")
    site.pass_by(GRACE_S)
    assert await site.told() == [("channel_occupied", "new")]
    await site.restart()
    site.announce([], [held("new")])
    site.pass_by(HOLD_S)
    expected = [("channel_vacated", "a"), ("channel_vacated", ROOM), ("member_removed", "user-a")]
    assert sorted(await site.told()) == sorted(expected)


@pytest.mark.parametrize(("events", "kept"), [(frozenset(("member_added",)), 2), (frozenset(("client_event",)), 0)])
@in_rig(workers=2)
async def test_only_what_somebody_wants_to_know_is_kept(rig: Rig, events: frozenset[str], kept: int) -> None:
    site = Site(rig, events)
    await rig.settle()
    site.announce()
    subscribe(site.workers[0], ROOM, "user-a")
    subscribe(site.workers[1], ROOM, "user-b")
    assert len(await site.told()) == kept
    assert len(list(site.hooks.told)) == kept
    assert len(await site.kept()) == (1 if kept else 0)


@in_rig(workers=2)
async def test_what_the_store_fails_to_write_is_written_when_it_can(rig: Rig) -> None:
    site = await begun(rig)
    rig.store.failing = True
    subscribe(site.workers[0], "failed")
    await rig.settle()
    rig.store.failing = False
    site.pass_by(0.1)
    await rig.settle()
    await site.restart()
    site.announce([held("a"), held(ROOM, "user-a")], [held(ROOM, "user-b"), held("b")])
    site.pass_by(HOLD_S)
    assert ("channel_vacated", "failed") in await site.told()


@in_rig(workers=2)
async def test_a_store_that_is_slow_to_read_is_waited_for(rig: Rig) -> None:
    site = await begun(rig)
    rig.store.hold()
    await site.restart()
    site.announce([held("a"), held(ROOM, "user-a")], [])
    site.pass_by(HOLD_S)
    subscribe(site.workers[1], "b")
    rig.store.release()
    await rig.settle()
    site.pass_by(0.1)
    site.pass_by(HOLD_S)
    assert await site.told() == [("member_removed", "user-b")]


@in_rig(workers=2)
async def test_a_record_that_is_damaged_costs_what_is_in_it(rig: Rig) -> None:
    site = await begun(rig)
    name = SPACE, key_in(partition(address("b")), b"told")
    rig.hub.core.records.put(*name, b"\xc1", 0)
    await rig.settle()
    await site.restart()
    site.announce([held("a")], [])
    site.pass_by(HOLD_S)
    gone = [("channel_vacated", ROOM), ("member_removed", "user-a"), ("member_removed", "user-b")]
    assert sorted(await site.told()) == gone


@in_rig(workers=2)
async def test_a_long_record_is_written_a_few_times_a_second(rig: Rig) -> None:
    site = await begun(rig)
    for number in range(300):
        site.workers[0].say(m.PresenceJoin(address(ROOM), str(number), "", 1000))
    await rig.settle()
    before = len(rig.store.batches)
    for number in range(100):
        site.workers[0].say(m.PresenceLeave(address(ROOM), str(number)))
        await rig.settle()
    assert [one for batch in rig.store.batches[before:] for one in batch.records if one[0] == SPACE] == []
    site.pass_by(0.1)
    await rig.settle()
    await site.restart()
    site.announce([], [])
    site.pass_by(HOLD_S)
    assert len([name for name, _ in await site.told() if name == "member_removed"]) == 300 - 100 + 2 + 100


@in_rig(workers=2)
async def test_a_very_long_record_is_written_now_and_then(rig: Rig) -> None:
    site = await begun(rig)
    for number in range(12_000):
        site.workers[0].say(m.PresenceJoin(address(ROOM), str(number), "", 100_000))
    before = len(rig.store.batches)
    for number in range(30):
        site.workers[0].say(m.PresenceJoin(address(ROOM), f"new-{number}", "", 100_000))
        site.pass_by(0.1)
        await rig.settle()
    written = [one for batch in rig.store.batches[before:] for one in batch.records if one[0] == SPACE]
    assert 10 <= len(written) <= 16
    site.workers[0].say(m.PresenceJoin(address(ROOM), "last", "", 100_000))
    site.hooks.release()
    await site.restart()
    assert ("3", ROOM, "last") in site.hooks.told


@in_rig()
async def test_each_router_keeps_what_is_its_own(rig: Rig) -> None:
    owners = fixed_owners(3)
    found = [Told(rig.hub.core.records, lambda key, n=n: owners[partition(key)] == n)._partitions for n in range(3)]
    assert sorted(number for numbers in found for number in numbers) == list(range(PARTITIONS))
    assert all(owners[number] == n for n, numbers in enumerate(found) for number in numbers)


@in_rig(workers=2)
async def test_a_number_of_subscribers_is_not_told_before_all_have_announced(rig: Rig) -> None:
    site = Site(rig, frozenset(("subscription_count",)))
    await rig.settle()
    first, second = site.workers
    first.join()
    first.announces()
    subscribe(first, "a")
    site.pass_by(2)
    assert await site.told() == []
    second.join()
    second.announces(m.AnnounceChannels([held("a", subscribers=5)]))
    site.pass_by(GRACE_S)
    site.pass_by(0.2)
    assert await site.told() == [("subscription_count", "a")]
    counts = [json.loads(json.loads(one.body)["data"]) for one in second.take() if isinstance(one, m.Event)]
    assert counts == [{"subscription_count": 6}]
