"""Webhooks: what happens in channels through a real hub and committer; requests to a real HTTP server out."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from pusher import Pusher
from support.common import Clock, FakeWorker, Rig, in_rig
from support.pusher_webhook_site import site

from router.common import messages as m
from router.dialects.pusher.applications import WEBHOOK_EVENTS, App, Webhook
from router.dialects.pusher.protocol import CACHE_MISS, PusherOptions, channel_address, label
from router.dialects.pusher.webhooks.outbox import Outbox
from router.dialects.pusher.webhooks.policy import Webhooks
from router.dialects.pusher.webhooks.sender import Sender

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
URL = "http://hooks.example/one"
Json = dict[str, Any]


def app(*hooks: Webhook, number: str = "3", **changes: Any) -> App:
    return App(number, "three", KEY, SECRET, webhooks=hooks or (Webhook(URL),), subscription_count=True, **changes)


class World:
    """Channels with subscribers, and the webhooks that observe them."""

    def __init__(self, rig: Rig, *apps: App, **options: Any) -> None:
        self.rig = rig
        self.options = PusherOptions(**options)
        self.apps = apps or (app(),)
        self.start()

    def start(self) -> None:
        """As a router does that has just begun."""
        rig = self.rig
        self.hooks = Webhooks(self.apps, self.options, rig.hub.core, rig.clock.monotonic, rig.clock.unix)
        rig.hub.channels.observe("pusher", self.hooks)
        self.hooks.restore()

    def pass_by(self, seconds: float) -> None:
        self.rig.clock.pass_by(seconds)
        self.hooks.tick()

    async def told(self, index: int = 0) -> list[Json]:
        """The events that one webhook would be sent now, all of them taken."""
        await self.rig.settle()
        outbox = self.hooks.outboxes[index]
        found = []
        while body := outbox.take():
            found += json.loads(body)["events"]
            self.hooks.advance(outbox, outbox.taken())
        return found

    async def names(self) -> list[str]:
        return [event["name"] for event in await self.told()]


def subscribe(worker: FakeWorker, channel: str, number: str = "3") -> None:
    worker.say(m.Subscribe(channel_address(number, channel), label(number, channel)))


def unsubscribe(worker: FakeWorker, channel: str) -> None:
    worker.say(m.Unsubscribe(channel_address("3", channel)))


def enter(worker: FakeWorker, channel: str, user: str) -> None:
    worker.say(m.PresenceJoin(channel_address("3", channel), user, "", 100))


def leave(worker: FakeWorker, channel: str, user: str) -> None:
    worker.say(m.PresenceLeave(channel_address("3", channel), user))


# ---- what happens


@in_rig()
async def test_occupied_and_vacated(rig: Rig) -> None:
    world = World(rig)
    one, two = rig.worker(0), rig.worker(1)
    subscribe(one, "a")
    subscribe(two, "a")
    assert [event for event in await world.told() if event["name"] == "channel_occupied"] == [
        {"name": "channel_occupied", "channel": "a"}
    ]
    unsubscribe(one, "a")
    world.pass_by(60)
    await world.told()
    unsubscribe(two, "a")
    world.pass_by(2.9)
    assert await world.names() == []
    world.pass_by(0.2)
    assert await world.told() == [{"name": "channel_vacated", "channel": "a"}]


@in_rig()
async def test_who_is_back_in_time_was_never_away(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset(WEBHOOK_EVENTS) - {"subscription_count"})))
    worker = rig.worker()
    subscribe(worker, "presence-a")
    enter(worker, "presence-a", "jim")
    assert await world.told() == [
        {"name": "channel_occupied", "channel": "presence-a"},
        {"name": "member_added", "channel": "presence-a", "user_id": "jim"},
    ]
    for _ in range(3):
        leave(worker, "presence-a", "jim")
        unsubscribe(worker, "presence-a")
        world.pass_by(2)
        subscribe(worker, "presence-a")
        enter(worker, "presence-a", "jim")
        world.pass_by(2)
    assert await world.told() == []
    leave(worker, "presence-a", "jim")
    enter(worker, "presence-a", "joe")
    unsubscribe(worker, "presence-a")
    world.pass_by(3)
    assert await world.told() == [
        {"name": "member_added", "channel": "presence-a", "user_id": "joe"},
        {"name": "member_removed", "channel": "presence-a", "user_id": "jim"},
        {"name": "member_removed", "channel": "presence-a", "user_id": "joe"},
        {"name": "channel_vacated", "channel": "presence-a"},
    ]


@in_rig(link={"lease": 1.0, "member_grace": 0.5})
async def test_members_of_a_dead_worker_are_removed(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"member_removed", "channel_vacated"}))))
    rig.clock.pass_by(10)
    rig.hub.tick()
    worker = rig.worker()
    subscribe(worker, "presence-a")
    enter(worker, "presence-a", "jim")
    for _ in range(3):
        rig.clock.pass_by(2)
        rig.hub.tick()
        world.hooks.tick()
    world.pass_by(3)
    assert sorted(await world.names()) == ["channel_vacated", "member_removed"]


@in_rig()
async def test_a_client_event(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"client_event"}))))
    worker = rig.worker()
    subscribe(worker, "presence-a")
    key = channel_address("3", "presence-a")
    frames = (
        ('{"event":"client-x","channel":"presence-a","data":"te\\"xt","user_id":"jim"}', 'te"xt', "jim"),
        ('{"event":"client-x","channel":"presence-a","data":{"a":[1, 2]}}', '{"a":[1, 2]}', None),
        ('{"event":"client-x","channel":"presence-a"}', "", None),
        ('{"event":"client-x","channel":"presence-a","data":1,"user_id":7}', "1", "7"),
        ('{"event":"client-x","channel":"presence-a","data":1,"user_id":%s}' % ("9" * 128), "1", "9" * 128),
    )
    for frame, data, user in frames:
        worker.say(m.Publish(key, frame, 0, "1.2"))
        told = {"name": "client_event", "channel": "presence-a", "event": "client-x", "data": data, "socket_id": "1.2"}
        assert await world.told() == [told if user is None else told | {"user_id": user}]
    worker.say(m.Publish(key, "no frame", 0, "1.2"))
    assert rig.hub.counters.messages_refused == 1


@in_rig()
async def test_cache_misses_are_told_once(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({CACHE_MISS}))))
    worker = rig.worker()
    for name in ("cache-a", "cache-b", "cache-a"):
        worker.say(m.Happened(label("3", name), CACHE_MISS, ""))
    worker.say(m.Happened(label("3", "cache-a"), "something else", ""))
    assert await world.told() == [
        {"name": CACHE_MISS, "channel": "cache-a"},
        {"name": CACHE_MISS, "channel": "cache-b"},
    ]
    world.pass_by(3)
    worker.say(m.Happened(label("3", "cache-a"), CACHE_MISS, ""))
    assert await world.told() == [{"name": CACHE_MISS, "channel": "cache-a"}]


@in_rig()
async def test_so_many_misses_are_remembered(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({CACHE_MISS}))), webhook_queue=2)
    worker = rig.worker()

    async def told(*names: str) -> list[str]:
        for name in names:
            worker.say(m.Happened(label("3", name), CACHE_MISS, ""))
        return [event["channel"] for event in await world.told()]

    assert await told("cache-a", "cache-b") == ["cache-a", "cache-b"]
    assert await told("cache-c") == ["cache-c"]
    assert await told("cache-b", "cache-a") == ["cache-a"]


@in_rig()
async def test_counts(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"subscription_count"}))), subscription_count_many=10)
    worker = rig.worker()
    for name in ("a", "presence-a"):
        subscribe(worker, name)

    def count(subscribers: int, name: str = "a") -> None:
        worker.say(m.Counted(channel_address("3", name), subscribers))

    async def counts() -> list[int]:
        events = await world.told()
        assert {event["channel"] for event in events} <= {"a"}
        return [event["subscription_count"] for event in events]

    count(5, "presence-a")
    assert await counts() == []
    world.pass_by(0.2)
    assert await counts() == [1]
    for subscribers in (2, 3, 20):
        count(subscribers)
    assert await counts() == []
    world.pass_by(1)
    assert await counts() == [20]
    count(21)
    world.pass_by(4.9)
    assert await counts() == []
    world.pass_by(0.2)
    assert await counts() == [21]
    world.pass_by(10)
    assert await counts() == []
    count(22)
    world.pass_by(0.2)
    count(23)
    unsubscribe(worker, "a")
    world.pass_by(10)
    assert await counts() == [22]


@in_rig()
async def test_counts_only_where_the_application_wants_them(rig: Rig) -> None:
    world = World(rig, App("3", "three", KEY, SECRET, webhooks=(Webhook(URL),)))
    subscribe(rig.worker(), "a")
    assert await world.names() == ["channel_occupied"]


@in_rig()
async def test_each_webhook_gets_what_it_asked_for(rig: Rig) -> None:
    hooks = (
        Webhook(URL, frozenset({"channel_occupied"})),
        Webhook(URL + "2", frozenset({"channel_vacated"})),
        Webhook(URL, frozenset({"member_added"})),
    )
    world = World(rig, app(*hooks), app(Webhook(URL), number="4"))
    worker = rig.worker()
    subscribe(worker, "presence-a")
    enter(worker, "presence-a", "jim")
    unsubscribe(worker, "presence-a")
    subscribe(worker, "#server-to-user-1")
    subscribe(worker, "a", number="5")
    world.pass_by(3)
    assert len(world.hooks.outboxes) == 3
    assert [event["name"] for event in await world.told(0)] == ["channel_occupied", "member_added"]
    assert [event["name"] for event in await world.told(1)] == ["channel_vacated"]
    assert await world.told(2) == []


@in_rig()
async def test_without_webhooks_nothing_is_kept(rig: Rig) -> None:
    world = World(rig, App("3", "three", KEY, SECRET, subscription_count=True))
    worker = rig.worker()
    subscribe(worker, "presence-a")
    enter(worker, "presence-a", "jim")
    unsubscribe(worker, "presence-a")
    await rig.settle()
    assert world.hooks.outboxes == []
    assert not any(map(len, rig.store.batches))


@in_rig()
async def test_no_more_are_held_back_than_may_wait(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"channel_vacated"}))), webhook_queue=2)
    worker = rig.worker()
    for name in "abcd":
        subscribe(worker, name)
        unsubscribe(worker, name)
    assert [event["channel"] for event in await world.told()] == ["a", "b"]
    world.hooks.release()
    assert [event["channel"] for event in await world.told()] == ["c", "d"]


# ---- one outbox


def outbox(clock: Clock, **options: Any) -> Outbox:
    one = app()
    return Outbox(one, one.webhooks[0], PusherOptions(**options), clock.monotonic, clock.unix)


@pytest.mark.parametrize("step", [0, -3600, 3600])
def test_batches_and_when_they_are_given_up(step: int) -> None:
    clock = Clock()
    clock.unix_s = 1000.5
    box = outbox(clock, webhook_batch=2, webhook_retry=300)
    for number in (1, 2, 3):
        box.put(number, f'{{"name":"{number}"}}')
    first = box.take()
    assert json.loads(first) == {"time_ms": 1000500, "events": [{"name": "1"}, {"name": "2"}]}
    clock.unix_s += step  # which is no time that has passed
    waits = []
    while True:
        wait, offset = box.failed()
        if not wait:
            break
        waits.append(wait)
        clock.pass_by(wait)
        assert box.take() == first
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert sum(waits) == 300
    assert (offset, box.dropped) == (2, 2)
    assert box.take() == b""  # what waited behind it all that time is as old
    assert (box.dropped, box.sent, len(box)) == (3, 0, 0)


def test_what_is_taken() -> None:
    box = outbox(Clock())
    box.put(7, "{}")
    box.put(0, "{}")
    assert json.loads(box.take())["events"] == [{}, {}]
    assert (box.taken(), box.sent, len(box)) == (7, 2, 0)
    assert box.take() == b""


def test_a_full_queue_takes_no_more() -> None:
    box = outbox(Clock(), webhook_queue=2)
    for number in (1, 2, 3):
        box.put(number, "{}")
    assert (len(box), box.dropped) == (2, 1)


# ---- a restart


@in_rig()
async def test_what_was_not_heard_is_told_after_a_restart(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"channel_occupied"}))), webhook_batch=1)
    worker = rig.worker()
    for name in "abc":
        subscribe(worker, name)
    await rig.settle()
    box = world.hooks.outboxes[0]
    assert json.loads(box.take())["events"][0]["channel"] == "a"
    world.hooks.advance(box, box.taken())
    box.take()  # b is on its way when the router ends
    await rig.settle()
    rig.router_restarts()
    world.start()
    subscribe(rig.worker(1), "d")
    assert [event["channel"] for event in await world.told()] == ["b", "c", "d"]
    rig.router_restarts()
    world.start()
    assert await world.told() == []
    rig.clock.pass_by(301)
    rig.router_restarts()
    world.start()
    assert await world.told() == []


@in_rig()
async def test_a_store_that_fails_or_is_full_stops_no_event(rig: Rig) -> None:
    world = World(rig, app(Webhook(URL, frozenset({"channel_occupied"}))))
    await rig.settle()
    rig.store.failing = True
    subscribe(rig.worker(), "a")
    assert await world.names() == ["channel_occupied"]


# ---- the sender


async def sending(world: World, use: Callable[[], None], may_send: Callable[[], bool] = lambda: True) -> None:
    """Have the sender run while `use` waits for what comes, in a thread."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Sender(world.hooks, world.options, may_send).run)
        await trio.to_thread.run_sync(use)
        nursery.cancel_scope.cancel()


def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.dialects.pusher.webhooks.outbox._FIRST_WAIT_S", 0.01)


@in_rig()
async def test_a_request_that_the_library_of_pusher_believes(rig: Rig) -> None:
    with site() as there:
        hook = Webhook(there.url, frozenset({"channel_occupied"}))
        world = World(rig, app(hook))
        rig.clock.unix_s = time.time()
        subscribe(rig.worker(), "a")
        await sending(world, lambda: there.wait(1))
    ((headers, body),) = there.requests
    assert headers["Content-Type"] == "application/json"
    library = Pusher("3", KEY, SECRET)
    found = library.validate_webhook(headers["X-Pusher-Key"], headers["X-Pusher-Signature"], body)
    assert found is not None
    assert found["events"] == [{"name": "channel_occupied", "channel": "a"}]
    assert library.validate_webhook(KEY, "0" * 64, body) is None


@in_rig()
async def test_it_is_tried_again_until_it_is_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waits(monkeypatch)
    with site() as there:
        there.answers = [500, None, 302, 404]
        world = World(rig, app(Webhook(there.url, frozenset({"channel_occupied"}))))
        subscribe(rig.worker(), "a")
        await sending(world, lambda: there.wait(5))
        assert len({body for _, body in there.requests}) == 1
        assert len(there.requests) == 5


@in_rig()
async def test_one_that_fails_does_not_hold_up_another(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waits(monkeypatch)
    with site() as there:
        hooks = (Webhook("http://127.0.0.1:1/", frozenset({"channel_occupied"})), Webhook(there.url))
        world = World(rig, app(*hooks))
        worker = rig.worker()
        for name in "abc":
            subscribe(worker, name)
        await sending(world, lambda: there.wait(1))
        assert world.hooks.outboxes[0].sent == 0
        assert len(world.hooks.outboxes[0]) == 3


@in_rig()
async def test_nothing_is_sent_while_the_router_may_not(rig: Rig) -> None:
    asked: list[int] = []

    def may_send() -> bool:
        asked.append(len(there.requests))
        return len(asked) > 3

    with site() as there:
        world = World(rig, app(Webhook(there.url, frozenset({"channel_occupied"}))))
        subscribe(rig.worker(), "a")
        await sending(world, lambda: there.wait(1), may_send)
    assert asked == [0, 0, 0, 0]


@in_rig()
async def test_it_does_not_run_without_webhooks(rig: Rig) -> None:
    world = World(rig, App("3", "three", KEY, SECRET))
    await Sender(world.hooks, world.options).run()
