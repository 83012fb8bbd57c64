"""Which channels of push stream there are: how they come to be, are counted, told of, and forgotten."""

import json
import random
from typing import Any

import pytest
from support.common import Rig, in_rig
from support.pushstream_app import Listener, PushApp

from router.common import messages as m
from router.common.partitions import partition
from router.dialects.pushstream.names import SPACE
from router.dialects.pushstream.protocol import PushStreamOptions, channel_address, label
from router.dialects.pushstream.registry import Known, Registry

INACTIVITY = 30
TTL = 100


def stored_names(rig: Rig) -> set[str]:
    """As the store holds them."""
    records = rig.store._records
    return {name for (space, _), (value, _) in records.items() if space == SPACE for name in json.loads(value)}


@in_rig()
async def test_a_channel_is_forgotten_when_it_is_empty_and_was_not_used(rig: Rig) -> None:
    app = PushApp(rig, message_ttl=TTL)
    await app.load()
    await app.publish("a")
    assert stored_names(rig) == {"a"}
    await app.pass_by(TTL - 1)
    assert await app.info("a") == (1, 1, 0)
    await app.publish("a")
    await app.pass_by(INACTIVITY)
    assert await app.info("a") == (2, 1, 0)
    await app.pass_by(TTL)
    assert await app.info("a") is None
    assert stored_names(rig) == set()
    assert len(app.state.registry) == 0
    assert rig.store._logs == {}  # nothing dead is kept
    await app.publish("a")
    assert await app.info("a") == (1, 1, 0)


@in_rig()
async def test_without_stored_messages_the_time_counts_from_its_last_use(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False)
    await app.publish("a")
    await app.pass_by(INACTIVITY - 1)
    await app.publish("a")
    await app.pass_by(INACTIVITY - 1)
    assert await app.info("a") == (2, 0, 0)
    await app.pass_by(2)
    assert await app.info("a") is None
    assert stored_names(rig) == set()


@in_rig()
async def test_a_channel_with_subscribers_stays_and_for_a_while_after_them(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False)
    listener = app.subscribe("a", "b")
    await app.publish("a")
    await app.pass_by(10 * INACTIVITY)
    assert await app.info("a") == (1, 0, 1)
    for channel in "ab":
        listener.leave(channel)
    await app.pass_by(INACTIVITY - 1)
    assert [await app.info(channel) for channel in "ab"] == [(1, 0, 0), (0, 0, 0)]
    listener.subscribe("a")
    await app.pass_by(2)
    assert [await app.info(channel) for channel in "ab"] == [(1, 0, 1), None]
    assert len(app.state.registry) == 1


@in_rig()
async def test_channels_and_ids_are_there_after_a_restart(rig: Rig) -> None:
    before = PushApp(rig, message_ttl=TTL)
    await before.load()
    for channel in ("a", "b", "a", "\u20ac/c"):
        await before.publish(channel)
    rig.router_restarts()
    app = PushApp(rig, message_ttl=TTL)
    assert await app.info("a") == (2, 2, 0)  # even before its name has been read
    await app.publish("d")
    await app.load()
    listed = await app.statistics("?id=ALL")
    assert {info["channel"]: info["published_messages"] for info in listed["infos"]} == {
        "a": 2,
        "b": 1,
        "c": 1,
        "\u20ac": 1,
        "d": 1,
    }
    assert (await app.publish("a"))["published_messages"] == 3
    await app.pass_by(INACTIVITY + 2)
    assert await app.info("b") == (1, 1, 0)
    await app.pass_by(TTL)
    assert stored_names(rig) == set()
    assert len(app.state.registry) == 0


@in_rig()
async def test_what_was_announced_after_a_restart_is_not_forgotten_under_its_subscribers(rig: Rig) -> None:
    before = PushApp(rig, message_ttl=TTL)
    await before.load()
    await before.publish("a")
    rig.router_restarts()
    app = PushApp(rig, message_ttl=TTL)
    worker = rig.worker()
    app.listeners.append(Listener(worker))
    worker.say(m.AnnounceChannels([m.HeldChannel(channel_address("a"), label("a"), 2, [])]))
    await app.load()
    await app.pass_by(TTL + INACTIVITY)
    assert await app.info("a") == (1, 0, 2)
    worker.say(m.Unsubscribe(channel_address("a")))
    await app.pass_by(INACTIVITY + 2)
    assert await app.info("a") is None


@in_rig()
async def test_a_name_is_kept_in_the_partition_of_its_channel(rig: Rig) -> None:
    app = PushApp(rig)
    await app.load()
    channels = [f"channel{number}" for number in range(60)]
    for channel in channels:
        await app.publish(channel)
    assert stored_names(rig) == set(channels)
    assert {partition(key) for space, key in rig.store._records if space == SPACE} == {
        partition(channel_address(channel)) for channel in channels
    }


@in_rig()
async def test_names_that_cannot_be_read_are_read_again(rig: Rig) -> None:
    before = PushApp(rig)
    await before.load()
    for channel in "ab":
        await before.publish(channel)
    rig.router_restarts()
    app = PushApp(rig)
    rig.store.failing = True
    await app.load()
    assert not app.state.names.complete
    rig.store.failing = False
    await app.publish("c")
    await app.call("DELETE", "/pub?id=a")
    await app.load()
    assert app.state.names.complete
    assert stored_names(rig) >= {"b", "c"}
    await app.pass_by(INACTIVITY + 2)
    assert stored_names(rig) == {"b", "c"}


@in_rig()
async def test_a_store_that_fails_forgets_nothing(rig: Rig) -> None:
    app = PushApp(rig, message_ttl=TTL)
    await app.load()
    await app.publish("a")
    rig.store.failing = True
    await app.pass_by(TTL + 2)
    rig.store.failing = False
    assert stored_names(rig) == {"a"}
    await app.pass_by(INACTIVITY + 2)
    assert stored_names(rig) == set()


@in_rig()
async def test_names_that_could_not_be_written_are_written_again(rig: Rig) -> None:
    app = PushApp(rig)
    await app.load()
    rig.store.failing = True
    assert (await app.call("POST", "/pub?id=a", "text")).status == 503
    rig.store.failing = False
    await app.publish("a")
    assert stored_names(rig) == set()
    await app.pass_by(1)
    assert stored_names(rig) == {"a"}


@in_rig()
async def test_there_are_no_more_channels_than_may_be(rig: Rig) -> None:
    app = PushApp(rig, max_number_of_channels=3)
    listener = app.subscribe("a")
    await app.publish("a")
    await app.publish("b")
    why = (403, "Number of channels were exceeded.")
    assert await app.refused("POST", "/pub?id=c/d", "text") == why
    assert listener.subscribe("c") == [m.OK]
    assert listener.subscribe("d") == [m.FULL]
    assert await app.refused("POST", "/pub?id=d", "text") == why
    await app.publish("a/b/c")
    assert len(app.state.registry) == 3
    await app.call("DELETE", "/pub?id=b")
    await app.publish("d")
    assert len(app.state.registry) == 3


# ---------------------------------------------------------------------- the events channel


def told(what: str, channel: str) -> str:
    return f'{{"type": "{what}", "channel": "{channel}"}}'


@pytest.mark.parametrize("stored", [True, False])
def test_the_events_channel_is_told_what_happens(stored: bool) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        app = PushApp(rig, store_messages=stored, message_ttl=TTL, events_channel_id="events")
        events = app.subscribe("events")
        await app.publish("a")
        assert events.texts() == [told("channel_created", "a")]
        other = app.subscribe("a", "b", shard=1)
        await rig.settle()
        assert events.texts() == [
            told("client_subscribed", "a"),
            told("channel_created", "b"),
            told("client_subscribed", "b"),
        ]
        other.count("a", 3)
        other.count("a", 1)
        other.leave("b")
        await rig.settle()
        assert events.texts() == [
            *[told("client_subscribed", "a")] * 2,
            *[told("client_unsubscribed", "a")] * 2,
            told("client_unsubscribed", "b"),
        ]
        await app.pass_by(INACTIVITY + 2)
        assert events.texts() == [told("channel_destroyed", "b")]
        await app.call("DELETE", "/pub?id=a")
        other.leave("a")
        await rig.settle()
        assert events.texts() == [told("channel_destroyed", "a"), told("client_unsubscribed", "a")]

    scenario()


@in_rig()
async def test_clients_that_were_there_before_a_restart_are_not_told_of(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False, events_channel_id="events")
    events = app.subscribe("events")
    worker = rig.worker(1)
    worker.say(m.AnnounceChannels([m.HeldChannel(channel_address("a"), label("a"), 2, [])]))
    worker.say(m.Counted(channel_address("a"), 3))
    assert events.texts() == []
    worker.say(m.Counted(channel_address("a"), 4))
    assert events.texts() == [told("client_subscribed", "a")]
    worker.say(m.Unsubscribe(channel_address("a")))
    assert events.texts() == [told("client_unsubscribed", "a")] * 4


@in_rig()
async def test_the_events_channel_stays(rig: Rig) -> None:
    app = PushApp(rig, message_ttl=TTL, events_channel_id="events")
    assert await app.info("events") == (0, 0, 0)
    await app.publish("a")
    assert await app.info("events") == (1, 1, 0)
    await app.pass_by(TTL + 2)
    assert await app.info("events") == (2, 1, 0)
    for _ in range(3):
        await app.pass_by(TTL)
    assert await app.info("events") == (2, 0, 0)


@in_rig()
async def test_very_many_that_come_at_once_are_told_of_in_part(rig: Rig) -> None:
    app = PushApp(rig, store_messages=False, events_channel_id="events")
    events = app.subscribe("events")
    other = app.subscribe("a", shard=1)
    events.hear()
    other.count("a", 5001)
    assert len(events.texts()) == 1000
    assert app.service.counts() == {"pushstream_channels": 2, "pushstream_events_dropped": 4000}


# ---------------------------------------------------------------------- the registry


@pytest.mark.parametrize("seed", range(30))
def test_the_registry_forgets_what_is_over_and_nothing_else(seed: int) -> None:
    """Against a plain table of what each channel is."""
    chance = random.Random(seed)
    occupied: set[str] = set()
    registry = Registry(PushStreamOptions(channel_inactivity_time=5), lambda: len(occupied))
    ends: dict[str, float] = {}
    now = 1000.0
    for _ in range(400):
        name = chance.choice("abcdefgh")
        known = registry.get(name)
        action = chance.choice(["use", "use", "store", "occupy", "vacate", "forget", "time"])
        if action in ("use", "store"):
            if known is None:
                known = Known(name)
                registry.add(known, now, name in occupied)
            until = now + chance.randrange(20) if action == "store" else 0
            registry.used(known, now, until)
            ends[name] = max(ends.get(name, 0), now + 5, until)
        elif action == "occupy":
            occupied.add(name)
            if known is not None:
                registry.occupy(known)
        elif action == "vacate" and name in occupied:
            occupied.discard(name)
            if known is None:
                registry.add(Known(name), now, False)
            else:
                registry.vacate(known, now)
            ends[name] = max(ends.get(name, 0), now + 5)
        elif action == "forget" and known is not None:
            registry.forget(known)
            del ends[name]
        elif action == "time":
            now += chance.random() * 4
            for over in registry.due(now, chance.randint(1, 3)):
                assert over.name not in occupied
                assert ends[over.name] <= now
                if chance.random() < 0.3:
                    registry.used(over, now)
                    registry.again(over)
                    ends[over.name] = now + 5
                else:
                    registry.forget(over)
                    del ends[over.name]
        assert {known.name for known in registry} == set(ends)
        assert len(registry) == len(set(ends) | occupied)
    now += 100
    left: list[Any] = []
    while some := registry.due(now, 2):
        left += [known.name for known in some]
        for known in some:
            registry.forget(known)
    assert set(left) == set(ends) - occupied
    assert not any(registry._seconds.values())
