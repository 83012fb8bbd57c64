"""Push stream over two routers: requests at one of them, about channels of both."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from support.pushstream_app import STATISTICS, PushApp
from support.routers import Routers

from router.dialects.pushstream.protocol import channel_address
from router.http.message import Response

NAMES = [f"room-{number}" for number in range(8)]
MANY = "/".join(NAMES)


class Site:
    """A push stream that two routers serve; requests come to the first."""

    def __init__(self, **options: Any) -> None:
        self.routers = Routers(2)
        self.apps = [PushApp(rig, **options) for rig in self.routers.rigs]

    def app_of(self, channel: str) -> PushApp:
        rig = self.routers.owner(channel_address(channel))
        return next(app for app in self.apps if app.rig is rig)

    def subscribe(self, *channels: str) -> dict[str, Any]:
        return {name: self.app_of(name).subscribe(name, shard=number) for number, name in enumerate(channels)}

    async def call(self, method: str, path: str, body: str = "", **headers: str) -> Response:
        answers = self.apps[0].ask(method, path, body, **headers)
        for _ in range(4):
            for app in self.apps:
                await app.have_turns()
                for one in app.listeners:
                    one.worker.tell_counts()
                await app.rig.settle()
        (answer,) = answers
        return answer

    async def json(self, method: str, path: str, body: str = "") -> Any:
        answer = await self.call(method, path, body, accept="application/json")
        assert answer.status == 200, answer
        return json.loads(answer.body)


def at_two_routers(**options: Any) -> Callable[[Callable[[Site], Awaitable[None]]], Callable[[], None]]:
    def decorate(scenario: Callable[[Site], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                site = Site(**options)
                async with trio.open_nursery() as nursery:
                    for rig in site.routers.rigs:
                        nursery.start_soon(rig.committer.run, rig.flushed)
                    await scenario(site)
                    nursery.cancel_scope.cancel()

            trio.run(main)

        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        return test

    return decorate


@at_two_routers(channel_info_on_publish=True)
async def test_a_message_goes_to_the_channels_of_both(site: Site) -> None:
    assert len({id(site.app_of(name)) for name in NAMES}) == 2
    listeners = site.subscribe(*NAMES)
    infos = (await site.json("POST", f"/pub?id={MANY}", "hello"))["infos"]
    assert [(info["channel"], int(info["stored_messages"]), int(info["subscribers"])) for info in infos] == [
        (name, 1, 1) for name in NAMES
    ]
    for listener in listeners.values():
        assert listener.texts() == ["hello"]


@at_two_routers()
async def test_statistics_are_of_both_or_none(site: Site) -> None:
    site.subscribe(*NAMES[:3])
    assert (await site.call("POST", f"/pub?id={MANY}", "hello")).status == 200
    everything = await site.json("GET", STATISTICS + "?id=ALL")
    assert sorted(info["channel"] for info in everything["infos"]) == sorted(NAMES)
    assert int(everything["channels"]) == len(NAMES)
    summary = await site.json("GET", STATISTICS)
    assert [int(summary[name]) for name in ("channels", "published_messages", "stored_messages", "subscribers")] == [
        *([len(NAMES)] * 3),
        3,
    ]
    named = await site.json("GET", f"{STATISTICS}?id={MANY}/nothing")
    assert [info["channel"] for info in named["infos"]] == NAMES
    site.routers.away.add(1)
    for query in ("", "?id=ALL", "?id=room-*", f"?id={MANY}"):
        assert (await site.call("GET", STATISTICS + query)).status == 503


@at_two_routers()
async def test_a_message_that_one_router_did_not_take_is_not_accepted(site: Site) -> None:
    site.routers.away.add(1)
    assert (await site.call("POST", f"/pub?id={MANY}", "hello")).status == 503
    for name in NAMES:
        assert (await site.call("POST", f"/pub?id={name}", "x")).status == (
            200 if site.app_of(name) is site.apps[0] else 503
        )


@at_two_routers()
async def test_channels_of_both_are_deleted(site: Site) -> None:
    listeners = site.subscribe(*NAMES)
    assert (await site.call("DELETE", f"/pub?id={NAMES[0]}x/{NAMES[1]}x")).status == 404
    assert (await site.call("DELETE", f"/pub?id={MANY}/nothing", "the end")).status == 200
    for listener in listeners.values():
        assert listener.texts() == ["the end"]


@at_two_routers(max_number_of_channels=6)
async def test_the_limit_of_channels_counts_those_of_the_other_router(site: Site) -> None:
    mine = [name for name in NAMES if site.app_of(name) is site.apps[0]]
    others = [name for name in NAMES if site.app_of(name) is not site.apps[0]]
    for name in (*mine[:3], *others[:3]):
        assert (await site.call("POST", f"/pub?id={name}", "x")).status == 200
        for app in site.apps:  # as each second
            app.service.count_elsewhere()
    assert [app.state.registry.elsewhere for app in site.apps] == [3, 3]
    assert {(await site.call("POST", f"/pub?id=new-{number}", "x")).status for number in range(5)} == {403}
    assert (await site.call("DELETE", f"/pub?id={others[0]}")).status == 200
    for app in site.apps:
        app.service.count_elsewhere()
    assert (await site.call("POST", "/pub?id=new", "x")).status == 200


@pytest.mark.parametrize("stored", [True, False])
def test_the_events_channel_hears_of_channels_of_both(stored: bool) -> None:
    @at_two_routers(events_channel_id="events", allow_connections_to_events_channel=True, store_messages=stored)
    async def scenario(site: Site) -> None:
        (listener,) = site.subscribe("events").values()
        assert (await site.call("POST", f"/pub?id={MANY}", "hello")).status == 200
        for app in site.apps:
            await app.rig.settle()
        told = {json.loads(text)["channel"] for text in listener.texts()}
        assert told == set(NAMES)
        assert sum(app.service.counts()["pushstream_events_dropped"] for app in site.apps) == 0

    scenario()
