"""Pusher over two routers: requests at one of them, about channels of both."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
from support.pusher_app import App, event
from support.routers import Routers

from router.common import messages as m
from router.dialects.pusher.applications import App as Application
from router.dialects.pusher.applications import Webhook
from router.dialects.pusher.protocol import PusherOptions, channel_address, label
from router.dialects.pusher.webhooks.policy import Webhooks

NAMES = [f"room-{number}" for number in range(10)]
URL = "http://hooks.example/one"


class Site:
    """An application that two routers serve; requests come to the first."""

    def __init__(self, tmp_path: Path) -> None:
        self.routers = Routers(2)
        self.apps = []
        for number, rig in enumerate(self.routers.rigs):
            folder = tmp_path / str(number)
            folder.mkdir()
            self.apps.append(App(rig, folder))

    def app_of(self, channel: str) -> App:
        rig = self.routers.owner(channel_address("3", channel))
        return next(app for app in self.apps if app.rig is rig)

    def subscribe(self, *channels: str) -> dict[str, Any]:
        """A subscriber each. Returns: who listens to each channel."""
        return {
            channel: self.app_of(channel).subscribe(channel, shard=number) for number, channel in enumerate(channels)
        }

    async def call(self, method: str, path: str, body: Any = None, **parameters: str) -> tuple[int, Any]:
        """The answer of the first router, once both have had their turns and their workers have sent counts."""
        answers = self.apps[0].call(method, path, body, **parameters)
        for _ in range(4):
            for app in self.apps:
                app.have_turns()
                for worker in app._workers:
                    worker.tell_counts()
                await app.rig.settle()
        (answer,) = answers
        return answer.status, json.loads(answer.body)


def at_two_routers(scenario: Callable[[Site], Awaitable[None]]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def main() -> None:
            site = Site(tmp_path)
            async with trio.open_nursery() as nursery:
                for rig in site.routers.rigs:
                    nursery.start_soon(rig.committer.run, rig.flushed)
                await scenario(site)
                nursery.cancel_scope.cancel()

        trio.run(main)

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@at_two_routers
async def test_an_event_goes_to_the_channels_of_both(site: Site) -> None:
    assert len({id(site.app_of(name)) for name in NAMES}) == 2
    listeners = site.subscribe(*NAMES)
    body = event("a", channels=NAMES, info="subscription_count")
    assert await site.call("POST", "/apps/3/events", body) == (
        200,
        {"channels": {name: {"subscription_count": 1} for name in NAMES}},
    )
    for name, listener in listeners.items():
        ((frame, _),) = listener.hear()
        assert frame["channel"] == name


@at_two_routers
async def test_the_counts_of_a_batch_are_in_its_order(site: Site) -> None:
    site.subscribe(*NAMES[::2])
    batch = [
        {"name": "x", "data": str(number), "channel": name} | ({"info": "subscription_count"} if number % 3 else {})
        for number, name in enumerate(NAMES)
    ]
    expected = [{"subscription_count": int(number % 2 == 0)} if number % 3 else {} for number in range(len(NAMES))]
    assert await site.call("POST", "/apps/3/batch_events", {"batch": batch}) == (200, {"batch": expected})


@at_two_routers
async def test_events_for_a_channel_keep_their_order(site: Site) -> None:
    listeners = site.subscribe(*NAMES)
    for number in range(5):
        batch = [{"name": "x", "data": f"{number}", "channel": name} for name in NAMES]
        assert (await site.call("POST", "/apps/3/batch_events", {"batch": batch}))[0] == 200
    for listener in listeners.values():
        assert [frame["data"] for frame, _ in listener.hear()] == ["0", "1", "2", "3", "4"]


@at_two_routers
async def test_a_listing_has_the_channels_of_both_or_is_none(site: Site) -> None:
    site.subscribe(*NAMES)
    status, found = await site.call("GET", "/apps/3/channels", info="subscription_count", filter_by_prefix="room-")
    assert (status, found) == (200, {"channels": {name: {"subscription_count": 1} for name in NAMES}})
    site.routers.away.add(1)
    assert (await site.call("GET", "/apps/3/channels"))[0] == 503


@at_two_routers
async def test_an_event_that_one_router_did_not_take_is_not_accepted(site: Site) -> None:
    listeners = site.subscribe(*NAMES)
    site.routers.away.add(1)
    status, answer = await site.call("POST", "/apps/3/events", event("a", channels=NAMES))
    assert (status, "some of it may have been" in answer["error"]["message"]) == (503, True)
    for name in NAMES:
        mine = site.app_of(name) is site.apps[0]
        assert len(listeners[name].hear()) == mine
        assert (await site.call("POST", "/apps/3/events", event(name)))[0] == (200 if mine else 503)


@at_two_routers
async def test_one_channel_is_looked_at_where_it_is(site: Site) -> None:
    for name in ("cache-a", "cache-b", "cache-c", "cache-d"):
        site.subscribe(name)
        path = f"/apps/3/channels/{name}"
        assert await site.call("GET", path, info="cache") == (200, {"occupied": True, "cache": None})
        assert (await site.call("POST", "/apps/3/events", event(name, data="kept")))[0] == 200
        status, found = await site.call("GET", path, info="cache,subscription_count")
        assert (status, found["subscription_count"], found["cache"]["data"]) == (200, 1, "kept")
    site.routers.away.add(1)
    far = next(name for name in NAMES if site.app_of(name) is site.apps[1])
    assert (await site.call("GET", f"/apps/3/channels/{far}"))[0] == 503


@at_two_routers
async def test_members_and_users(site: Site) -> None:
    for name in (f"presence-{number}" for number in range(6)):
        (listener,) = site.subscribe(name).values()
        listener.enter(name, "7", '#{"name":"Eve"}')
        path = f"/apps/3/channels/{name}/users"
        assert await site.call("GET", path, with_user_info="1") == (
            200,
            {"users": [{"id": 7, "user_info": {"name": "Eve"}}]},
        )
    for number in range(6):
        assert await site.call("POST", f"/apps/3/users/{number}/terminate_connections") == (200, {})


# ---------------------------------------------------------------------- webhooks


class Hooks:
    """The webhooks of an application at both routers: one has the outbox, the other hands over."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.site = site
        app = Application("3", "three", "key", "secret", webhooks=(Webhook(URL),))
        self.at = []
        for rig in site.routers.rigs:
            hooks = Webhooks([app], PusherOptions(**options), rig.hub.core, rig.clock.monotonic, rig.clock.unix)
            rig.hub.channels.observe("pusher", hooks)
            hooks.restore()
            self.at.append(hooks)
        ((self.owner, self.other),) = [(one, two) for one, two in (self.at, self.at[::-1]) if one.outboxes]

    def occupy(self, channel: str) -> None:
        app = self.site.app_of(channel)
        app.rig.worker(len(app._workers)).say(m.Subscribe(channel_address("3", channel), label("3", channel)))

    async def told(self) -> list[str]:
        """The channels of the events that the webhook would be sent now."""
        for rig in self.site.routers.rigs:
            await rig.settle()
        (outbox,) = self.owner.outboxes
        found = []
        while body := outbox.take():
            found += [told["channel"] for told in json.loads(body)["events"] if told["name"] == "channel_occupied"]
            self.owner.advance(outbox, outbox.taken())
        return found


@at_two_routers
async def test_a_webhook_s_events_are_sent_by_the_owner_of_its_outbox_alone(site: Site) -> None:
    hooks = Hooks(site)
    assert (len(hooks.owner.outboxes), len(hooks.owner.elsewhere)) == (1, 0)
    assert (len(hooks.other.outboxes), len(hooks.other.elsewhere)) == (0, 1)
    for name in NAMES:
        hooks.occupy(name)
    assert sorted(await hooks.told()) == sorted(NAMES)
    assert len(hooks.other.elsewhere[0]) == 0


@at_two_routers
async def test_events_for_a_router_that_is_away_wait_and_one_may_come_twice(site: Site) -> None:
    hooks = Hooks(site, webhook_queue=100)
    far = [name for name in NAMES if site.routers.rigs[hooks.at.index(hooks.other)] is site.app_of(name).rig]
    assert len(far) > 2
    owner = hooks.at.index(hooks.owner)
    site.routers.away.add(owner)
    for name in far[1:]:
        hooks.occupy(name)
    assert (await hooks.told(), len(hooks.other.elsewhere[0])) == ([], len(far) - 1)
    site.routers.away.clear()
    site.routers.lost.add(owner)
    site.routers.rigs[0].clock.pass_by(1.1)
    hooks.other.tick()
    assert (sorted(await hooks.told()), len(hooks.other.elsewhere[0])) == (sorted(far[1:]), len(far) - 1)
    site.routers.lost.clear()
    hooks.occupy(far[0])
    site.routers.rigs[0].clock.pass_by(1.1)
    hooks.other.tick()
    assert (sorted(await hooks.told()), len(hooks.other.elsewhere[0])) == (sorted(far), 0)


@at_two_routers
async def test_what_waits_for_a_router_that_is_away_has_a_limit_and_an_end(site: Site) -> None:
    hooks = Hooks(site, webhook_queue=2, webhook_retry=10)
    far = [name for name in NAMES if site.routers.rigs[hooks.at.index(hooks.other)] is site.app_of(name).rig]
    site.routers.away.add(hooks.at.index(hooks.owner))
    for name in far[:4]:
        hooks.occupy(name)
    await hooks.told()
    (elsewhere,) = hooks.other.elsewhere
    assert (len(elsewhere), elsewhere.dropped) == (2, len(far[:4]) - 2)
    site.routers.rigs[0].clock.pass_by(11)
    hooks.other.tick()
    assert (len(elsewhere), elsewhere.dropped) == (0, len(far[:4]))
