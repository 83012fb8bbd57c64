"""Subscribing from a position, step by step: what is in the slice, what comes behind it, and who is asked."""

import pytest
import trio
from support.common import Rig
from support.replay_farm import ALL, ReplayDevice, ReplayFarm, farm_of, in_farm, offsets, subscribed

from router.common import messages as m
from router.common.position import LIVE, AfterId, AfterOffset, AfterTime, Last


@in_farm()
async def test_several_channels_each_from_its_own_position(farm: ReplayFarm) -> None:
    for _ in range(3):
        farm.publish("a")
        farm.publish("b")
    await farm.commit()
    device = await subscribed(farm, a=Last(2), b=AfterOffset(0, 1), c=LIVE, d=ALL)
    a, b, c, d = device.results
    assert (offsets(a), a["offset"], a["recovered"]) == ([2, 3], 3, True)
    assert (offsets(b), b["offset"], b["recovered"]) == ([2, 3], 3, True)
    assert c == {"name": "c", "status": m.OK}
    assert (offsets(d), d["offset"], d["recovered"]) == ([], 0, True)
    for name in "abcd":
        farm.publish(name)
    await farm.settle()
    device.receive()
    assert device.channels == {"a": 4, "b": 4, "c": 1, "d": 1}


@in_farm()
async def test_of_many_that_want_the_same_one_asks(farm: ReplayFarm) -> None:
    farm.publish("a")
    await farm.commit()
    devices = [ReplayDevice(farm) for _ in range(5)]
    for device in devices[:4]:
        device.subscribe({"a": Last(1)})
    devices[4].subscribe({"a": ALL})
    asked = [one.request for one in farm.shard.messages if isinstance(one, m.Call)]
    assert [type(request) for request in asked] == [m.Subscribe, m.ReadLog, m.ReadLog]
    await farm.settle()
    for device in devices:
        device.receive()
        assert device.channels == {"a": 1}


@pytest.mark.parametrize("before", [True, False])
def test_an_event_is_in_the_slice_or_comes_behind_it(before: bool) -> None:
    @in_farm()
    async def scenario(farm: ReplayFarm) -> None:
        device = ReplayDevice(farm)
        device.subscribe({"a": Last(1), "b": Last(1)})
        farm.up()
        farm.publish("a")
        farm.publish("a", logged=False)
        if before:
            await farm.commit()
        farm.down()
        await farm.commit()
        farm.publish("a")
        await farm.settle()
        device.receive()
        assert offsets(device.results[0]) in ([1], [2])
        assert (device.channels["a"], device.unlogged) == (2, [1])

    scenario()


@in_farm()
async def test_the_newest_is_in_the_slice_though_it_was_read_before(farm: ReplayFarm) -> None:
    farm.publish("a")
    await farm.commit()
    first = ReplayDevice(farm)
    first.subscribe({"a": Last(1)})
    farm.up()
    await farm.commit()
    farm.publish("a")
    await farm.commit()
    late = ReplayDevice(farm)  # what was published has been answered, and the worker does not know of it yet
    late.subscribe({"a": Last(1), "b": Last(1)})
    await farm.settle()
    for device in (first, late):
        device.receive()
        assert device.channels["a"] == 2
    assert offsets(late.results[0]) == [2]


@in_farm()
async def test_what_cannot_be_read_is_told_and_events_come_all_the_same(farm: ReplayFarm) -> None:
    farm.rig.store.failing = True
    device = ReplayDevice(farm)
    device.subscribe({"a": Last(1)})
    farm.up()
    await farm.commit()
    farm.publish("a", logged=False)
    farm.down()
    device.receive()
    assert device.results == [{"name": "a", "status": m.OK}]
    farm.rig.store.failing = False
    farm.publish("a")
    await farm.settle()
    device.receive()
    assert (device.channels, device.unlogged) == ({"a": 1}, [1])
    farm.lapse(False, False)
    farm.publish("a")
    await farm.settle()
    device.receive()
    assert (device.channels, device.gaps) == ({"a": 2}, [])


@pytest.mark.parametrize("restarts", [True, False])
def test_what_was_missed_while_the_link_was_away_is_sent_to_all(restarts: bool) -> None:
    @in_farm()
    async def scenario(farm: ReplayFarm) -> None:
        farm.publish("a")
        await farm.commit()
        devices = [await subscribed(farm, a=place) for place in (Last(1), Last(0), LIVE)]
        farm.publish("a")
        await farm.settle()
        farm.lapse(False, restarts)
        for _ in range(3):
            farm.publish("a")
        await farm.commit()
        texts = farm.dialect.texts
        farm.rejoin()
        for _ in range(2):
            farm.publish("a", logged=False)
        farm.down()
        await farm.settle()
        for device in devices:
            device.receive()
            assert (device.channels, device.gaps, device.unlogged) == ({"a": 5}, [], [1, 2])
        assert farm.dialect.texts - texts == 4  # once for all of them

    scenario()


@in_farm(most=2)
async def test_a_gap_is_told_where_the_log_does_not_reach_back(farm: ReplayFarm) -> None:
    farm.publish("a")
    await farm.commit()
    device = await subscribed(farm, a=ALL)
    (first,) = device.results
    assert first["recovered"]
    farm.lapse(False, False)
    for _ in range(4):
        farm.publish("a")
    await farm.settle()
    device.receive()
    assert (device.channels, device.gaps) == ({"a": 5}, [])  # it was told, and is made up for by what followed
    late = await subscribed(farm, a=AfterOffset(first["epoch"], 1))
    assert (offsets(late.results[0]), late.results[0]["recovered"]) == ([4, 5], False)
    other = await subscribed(farm, a=AfterOffset(first["epoch"] + 1, 5))
    assert (offsets(other.results[0]), other.results[0]["recovered"]) == ([4, 5], False)


@in_farm()
async def test_a_channel_without_a_log(farm: ReplayFarm) -> None:
    now = int(farm.rig.clock.unix())
    for place in (Last(3), ALL, AfterTime(now + 1), AfterId("x", now + 1), AfterOffset(7, 1), AfterId("x")):
        device = await subscribed(farm, a=place)
        assert device.results[0]["recovered"] == (place not in (AfterOffset(7, 1), AfterId("x")))
        assert (offsets(device.results[0]), device.results[0]["offset"]) == ([], 0)
        device.go()


@in_farm(max_held_bytes=65_536)
async def test_those_that_wait_longest_are_closed_when_too_much_comes(farm: ReplayFarm) -> None:
    reader = await subscribed(farm, a=LIVE)
    first, second = ReplayDevice(farm), ReplayDevice(farm)
    first.subscribe({"a": Last(1)})
    while not first.closing:
        farm.publish("a", logged=False)
        farm.down()
        farm.speak()
        reader.receive()
        if farm.unlogged == 20:
            second.subscribe({"a": Last(2)})
        assert farm.shard.sockets.subscriptions.held_bytes <= 65_536
    first.receive()
    assert first.code == 1013
    assert farm.shard.counters.catch_ups_given_up == 1
    await farm.settle()
    second.receive()
    assert second.unlogged == list(range(21, farm.unlogged + 1))
    assert farm.shard.sockets.subscriptions.held_bytes == 0


@in_farm(max_held_bytes=65_536)
async def test_more_than_may_be_held_after_the_link_was_away_is_read_again(farm: ReplayFarm) -> None:
    device = await subscribed(farm, a=Last(0))
    farm.lapse(False, False)
    farm.rejoin()
    for _ in range(600):
        farm.publish("a")
    await farm.commit()
    farm.down()
    assert farm.shard.sockets.subscriptions.held_bytes <= 65_536
    await farm.settle()
    device.receive()
    assert (device.channels, device.gaps) == ({"a": 600}, [])
    assert farm.shard.sockets.subscriptions.held_bytes == 0


@pytest.mark.parametrize("number", [1, 2, 7])
def test_a_page_whose_last_event_passes_the_bound_of_the_link_goes_without_it(number: int) -> None:
    async def main() -> None:
        async with farm_of(Rig(link={"max_message_bytes": 65_536})) as farm:
            for _ in range(number):
                farm.publish("a", body="x" * 10_000)
            await farm.commit()
            device = await subscribed(farm, a=ALL)
            await farm.settle()
            device.receive()
            assert (device.channels, device.gaps) == ({"a": number}, [])

    trio.run(main)


def test_a_slice_that_is_too_long_for_the_link_counts_as_one_that_cannot_be_read() -> None:
    async def main() -> None:
        async with farm_of(Rig(link={"max_message_bytes": 65_536})) as farm:
            farm.publish("a", body="x" * 20_000)
            await farm.commit()
            device = await subscribed(farm, a=ALL, b=ALL)
            assert device.results[0] == {"name": "a", "status": m.OK}
            assert offsets(device.results[1]) == []

    trio.run(main)
