"""A connection that wants more of a log than a page: what it is sent, what is held for it, and where it stands."""

import pytest
from support.channels import Worker
from support.replay import key_of
from support.replay_farm import ALL, ReplayDevice, ReplayFarm, in_farm, offsets

from farm.dialects import Subscribe, Subscription
from farm.worker.connection import Connection
from farm.worker.local_channel import HeldEvent
from farm.worker.log_reads import Recovered
from router.common import messages as m
from router.common.position import LIVE, OWN_OFFSETS, AfterOffset, AfterTime, Last, LogEvent, Position

SLOW = {"write_buffer_bytes": 16_384, "padding": 1500, "send_buffer": 4608}
"""Two or three events a page, and no more than some pages before the client has to read."""


def catching_up(farm: ReplayFarm) -> int:
    return len(farm.shard.sockets.subscriptions.catch_ups)


async def steps(farm: ReplayFarm, number: int) -> None:
    """So many pages are read at most, and nobody reads what is sent."""
    for _ in range(number):
        farm.up()
        await farm.commit()
        farm.down()
        farm.speak()


async def stored(farm: ReplayFarm, number: int, names: str = "a") -> None:
    for name in names:
        for _ in range(number):
            farm.publish(name)
    await farm.commit()


async def until_blocked(farm: ReplayFarm) -> None:
    """Nothing more is read: there is no room for it, or there is no more."""
    await steps(farm, 1)
    while farm.shard.messages:
        await steps(farm, 1)


async def slow_reader(farm: ReplayFarm) -> ReplayDevice:
    """It wants all of a channel, and does not read."""
    device = ReplayDevice(farm, 4096)
    device.subscribe({"a": ALL})
    await until_blocked(farm)
    return device


async def finish(farm: ReplayFarm, *devices: ReplayDevice) -> None:
    while catching_up(farm) or farm.shard.messages:
        await farm.settle()
        for device in devices:
            device.receive()
    for device in devices:
        device.receive()


@in_farm(**SLOW)
async def test_a_slow_reader_is_given_as_much_as_it_reads(farm: ReplayFarm) -> None:
    await stored(farm, 200)
    device = ReplayDevice(farm, 4096)
    device.subscribe({"a": ALL})
    sockets = farm.shard.sockets
    rounds = 0
    while True:
        await until_blocked(farm)
        if not catching_up(farm):
            break
        rounds += 1
        assert len(sockets.connections[device.fd].out or b"") < 8192
        farm.publish("a")  # as fast as it reads, and faster
        farm.publish("a")
        await farm.commit()
        farm.down()
        assert sockets.subscriptions.held_bytes == 0
        device.receive()
    assert rounds > 3
    await finish(farm, device)
    assert device.channels == {"a": len(farm.logs["a"])}
    farm.publish("a")
    await farm.settle()
    device.receive()
    assert device.channels == {"a": len(farm.logs["a"])}
    assert farm.shard.counters.slow_closed == farm.shard.counters.catch_ups_given_up == 0


@in_farm(**SLOW)
async def test_an_event_that_is_larger_than_the_buffer_reaches_a_slow_reader(farm: ReplayFarm) -> None:
    for size in (100, 300_000, 100):
        farm.publish("a", body="x" * size)
    await farm.commit()
    device = ReplayDevice(farm, 4096)
    device.subscribe({"a": ALL})
    await steps(farm, 3)
    assert farm.shard.sockets.connections[device.fd].out
    await finish(farm, device)
    assert device.channels == {"a": 3}


@in_farm(**SLOW)
async def test_where_it_stands_is_one_time_and_tag_in_all_of_its_channels(farm: ReplayFarm) -> None:
    for number in range(60):
        farm.publish("a" if number % 7 else "b")
        if number > 40:
            farm.publish("c")
        farm.rig.clock.pass_by(0.3)
    await farm.commit()
    had: dict[str, int] = dict.fromkeys("abc", 0)
    place: Position = AfterTime(0)
    visits = 0
    while True:
        device = ReplayDevice(farm, 4096)
        device.subscribe(dict.fromkeys("abc", place))
        await steps(farm, 4)
        device.receive()
        for result in device.results:
            assert result["events"] == [] or offsets(result)[0] == had[result["name"]] + 1, "nothing missing or double"
        had = {name: max(had[name], offset or 0) for name, offset in device.channels.items()}
        visits += 1
        if not (catching_up(farm) or farm.shard.messages):
            break
        place = AfterTime(*device.newest)
        device.go()
    assert visits > 4
    assert had == {name: len(log) for name, log in farm.logs.items()}


@pytest.mark.parametrize("pages", [262_144, 1024])
def test_what_several_channels_missed_comes_in_one_order(pages: int) -> None:
    @in_farm(write_buffer_bytes=pages)
    async def scenario(farm: ReplayFarm) -> None:
        device, other = ReplayDevice(farm), ReplayDevice(farm)
        device.subscribe(dict.fromkeys("abc", ALL))
        other.subscribe({"b": ALL})
        await farm.settle()
        for number in range(40):
            farm.publish("abc"[number * 7 % 11 % 3], logged=number % 5 > 0)
            if number == 20:
                await farm.settle()
                device.receive()
                farm.lapse(False, False)
        farm.rejoin()
        farm.publish("a")
        for _ in range(40):
            farm.up()
            await farm.commit()
            for _ in range(4):
                farm.down(1)
                farm.speak()
                device.receive()
                assert device.newest == device.last, "the last that came is the newest"
        await farm.settle()
        await finish(farm, device, other)
        newest = {name: len(log) for name, log in farm.logs.items()}
        assert device.channels == newest
        assert other.channels == {"b": newest["b"]}
        assert farm.shard.sockets.subscriptions.held_bytes == 0

    scenario()


@in_farm(**SLOW)
async def test_what_no_page_has_is_held_and_comes_behind_them(farm: ReplayFarm) -> None:
    await stored(farm, 40)
    device = await slow_reader(farm)
    for _ in range(3):
        farm.publish("a", logged=False)
    farm.down()
    assert farm.shard.sockets.subscriptions.held_bytes > 0
    device.receive()
    assert device.unlogged == []
    await finish(farm, device)
    assert (device.channels, device.unlogged) == ({"a": 40}, [1, 2, 3])
    assert farm.shard.sockets.subscriptions.held_bytes == 0


@in_farm(**SLOW, max_held_bytes=65_536)
async def test_when_too_much_is_held_it_is_closed(farm: ReplayFarm) -> None:
    await stored(farm, 40)
    slow, other = ReplayDevice(farm, 4096), ReplayDevice(farm, 4096)
    slow.subscribe({"a": ALL})
    await until_blocked(farm)
    while not slow.closing:
        farm.publish("a", logged=False)
        farm.down()
        assert farm.shard.sockets.subscriptions.held_bytes <= 65_536
    other.subscribe({"a": Last(1)})
    await finish(farm, other)
    assert farm.shard.counters.catch_ups_given_up == 1
    assert (other.channels, farm.shard.sockets.subscriptions.held_bytes) == ({"a": 40}, 0)


@in_farm(**SLOW)
async def test_what_the_log_drops_in_the_meantime_is_a_gap(farm: ReplayFarm) -> None:
    farm.most = 20
    await stored(farm, 20)
    device = await slow_reader(farm)
    await stored(farm, 30)
    device.receive()
    await finish(farm, device)  # the device checks that it was told
    assert device.channels == {"a": 50}
    assert farm.shard.counters.slow_closed == 0


@in_farm(**SLOW)
async def test_a_page_that_cannot_be_read_closes_it(farm: ReplayFarm) -> None:
    await stored(farm, 40)
    device = await slow_reader(farm)
    farm.rig.store.failing = True
    while not device.closing:
        device.receive()
        await steps(farm, 2)
    device.receive()
    assert device.code == 1013
    assert catching_up(farm) == farm.shard.sockets.subscriptions.held_bytes == 0


@in_farm(**SLOW)
async def test_whoever_leaves_between_two_pages_leaves_nothing(farm: ReplayFarm) -> None:
    await stored(farm, 30, "abc")
    device, gone = ReplayDevice(farm, 4096), ReplayDevice(farm, 4096)
    device.subscribe({"a": ALL, "b": ALL})
    gone.subscribe({"a": ALL, "c": ALL})
    await until_blocked(farm)
    farm.publish("a", logged=False)
    farm.down()
    device.leave("a")
    gone.go()
    assert catching_up(farm) == 1
    await finish(farm, device)
    assert device.channels == {"b": 30}
    assert farm.shard.sockets.subscriptions.get(key_of("c")) is None
    device.leave("b")
    await farm.settle()
    assert len(farm.shard.sockets.subscriptions) == farm.shard.sockets.subscriptions.held_bytes == 0


@in_farm(**SLOW)
async def test_it_may_subscribe_to_others_meanwhile(farm: ReplayFarm) -> None:
    await stored(farm, 30, "ab")
    device = await slow_reader(farm)
    assert catching_up(farm)
    device._read()
    device.subscribe({"b": ALL, "c": LIVE})
    await steps(farm, 1)
    await finish(farm, device)
    assert (device.channels["a"], device.channels["b"]) == (30, 30)


# ---- offsets that a dialect gives itself come in any order


def event_of(offset: int) -> HeldEvent:
    return HeldEvent(b"%d" % offset, None, LogEvent(offset, 1, offset, 2_000_000_000, "", {}, str(offset)), 7)


def page_of(*offsets: int, more: bool) -> list[object]:
    events = [list(event.event) for event in map(event_of, offsets) if event.event is not None]
    return [7, 30, True, events, more]


def test_an_event_below_the_page_is_held_and_one_above_it_is_read() -> None:
    worker = Worker()
    subscriptions = worker.subscriptions
    connection: Connection = worker.connection()
    wanted = Subscription(b"c" * 16, position=AfterOffset(0, 0))
    assert subscriptions.subscribe(connection, Subscribe((wanted,))) is None
    opened, read = worker.sent()
    subscriptions.replied(opened.number, m.OK, None)
    subscriptions.replied(read.number, m.OK, page_of(3, 10, more=True))
    channel = subscriptions.get(wanted.key)
    assert channel is not None
    sent: list[int] = []

    def come(*offsets: int) -> None:
        for offset in offsets:
            assert subscriptions.came(channel, event_of(offset))

    come(5, 20)  # before its turn comes: 5 is in no page, 20 is in the next
    ((_, (result,), behind),) = worker.admitted()
    assert result.log is not None
    assert (result.log.offset, result.log.more, behind) == (10, True, [])
    sent += [event.offset for event in result.log.events]
    come(7, 25)
    subscriptions.go_on(connection)
    (read,) = worker.sent()
    assert read.request == m.ReadLog(wanted.key, AfterOffset(7, 10), 1000)
    come(8, 15)  # before the reply: the log that is read has both
    subscriptions.replied(read.number, m.OK, page_of(15, 20, more=True))
    page = subscriptions.next_page(subscriptions.next_ready())  # type: ignore[arg-type]
    assert page is not None
    sent += [event.offset for _, event in page.events]
    assert page.behind == []
    subscriptions.go_on(connection)
    (read,) = worker.sent()
    subscriptions.replied(read.number, m.OK, page_of(25, 30, more=False))
    come(9, 28, 31)  # behind the reply: the log that was read has none of them
    page = subscriptions.next_page(subscriptions.next_ready())  # type: ignore[arg-type]
    assert page is not None
    sent += [event.offset for _, event in page.events]
    sent += [event.offset for event in page.behind]
    assert sent == [3, 10, 15, 20, 25, 28, 30, 31, 5, 7, 8, 9]
    assert list(channel.subscribers) == [connection]
    assert (subscriptions.held_bytes, len(subscriptions.catch_ups)) == (0, 0)


def test_an_event_below_a_page_that_is_read_again_comes_behind_it() -> None:
    """The link is new before the page is here."""
    worker = Worker()
    subscriptions = worker.subscriptions
    wanted = Subscription(b"c" * 16, position=AfterOffset(OWN_OFFSETS, 0))
    connection = worker.connection()
    subscriptions.subscribe(connection, Subscribe((wanted,)))
    opened, read = worker.sent()
    subscriptions.replied(opened.number, m.OK, None)
    subscriptions.replied(read.number, m.OK, page_of(10, 30, more=True))
    worker.admitted()
    subscriptions.go_on(connection)
    channel = subscriptions.get(wanted.key)
    assert channel is not None
    for offset in (20, 40):
        assert subscriptions.came(channel, event_of(offset))
    worker.sent()
    list(subscriptions.held(0))
    missed, read = worker.sent()
    assert read.request == m.ReadLog(wanted.key, AfterOffset(7, 30), 1000)
    subscriptions.replied(missed.number, m.OK, page_of(more=False))
    subscriptions.recovered(channel)
    subscriptions.replied(read.number, m.OK, page_of(40, more=False))
    page = subscriptions.next_page(subscriptions.next_ready())  # type: ignore[arg-type]
    assert page is not None
    assert [event.offset for _, event in page.events] + [event.offset for event in page.behind] == [40, 20]
    assert subscriptions.held_bytes == 0


def test_an_event_below_those_that_were_missed_comes_behind_them() -> None:
    """The link is new, and what was missed is read: of what comes meanwhile only what is in no log that is read is
    kept."""
    worker = Worker()
    subscriptions = worker.subscriptions
    wanted = Subscription(b"c" * 16, position=AfterOffset(OWN_OFFSETS, 0))
    subscriptions.subscribe(worker.connection(), Subscribe((wanted,)))
    opened, read = worker.sent()
    subscriptions.replied(opened.number, m.OK, None)
    subscriptions.replied(read.number, m.OK, page_of(10, 30, more=False))
    worker.admitted()
    channel = subscriptions.get(wanted.key)
    assert channel is not None
    list(subscriptions.held(0))
    (read,) = worker.sent()
    assert read.request == m.ReadLog(wanted.key, AfterOffset(7, 30), 1000)
    assert not any(subscriptions.came(channel, event_of(offset)) for offset in (20, 50))
    found = subscriptions.replied(read.number, m.OK, page_of(40, 50, more=False))
    assert isinstance(found, Recovered)
    sent = [event.offset for event in found.missed] + [event.offset for event in found.held]
    assert sent == [40, 50, 20]
    assert subscriptions.held_bytes == 0


def test_it_is_counted_from_its_first_page_on() -> None:
    worker = Worker()
    subscriptions = worker.subscriptions
    label = m.channel_label("replay", "app", "a")
    wanted = Subscription(key_of("a"), label, position=AfterOffset(0, 0))
    connection, other = worker.connection(), worker.connection()
    subscriptions.subscribe(connection, Subscribe((wanted,)))
    opened, read = worker.sent()
    subscriptions.replied(opened.number, m.OK, None)
    assert worker.join(other, wanted._replace(position=LIVE)) == (m.OK, None)

    def counted() -> list[int]:
        subscriptions.counts()
        return [message.subscribers for message in worker.sent() if isinstance(message, m.Counted)]

    assert counted() == []  # the router knows that there is one
    subscriptions.replied(read.number, m.OK, page_of(3, more=True))
    worker.admitted()
    assert counted() == [2]
    subscriptions.go_on(connection)
    ((held,),) = subscriptions.held(0)  # the link is new while it reads on
    assert held.subscribers == 2
    *_, missed, read = worker.sent()
    assert counted() == []
    subscriptions.leave(other, wanted.key)
    assert counted() == [1]
    subscriptions.replied(missed.number, m.OK, page_of(more=False))
    subscriptions.replied(read.number, m.OK, page_of(4, more=False))
    channel = subscriptions.get(wanted.key)
    assert channel is not None
    subscriptions.recovered(channel)
    assert subscriptions.next_page(subscriptions.next_ready()) is not None  # type: ignore[arg-type]
    assert counted() == []
    subscriptions.leave(connection, wanted.key)
    assert worker.sent() == [m.Unsubscribe(wanted.key)]


@in_farm(**SLOW)
async def test_a_channel_that_is_wanted_from_now_on_waits_for_the_last_page(farm: ReplayFarm) -> None:
    for _ in range(30):
        farm.publish("a")
    farm.publish("b")
    await farm.commit()
    device, other = ReplayDevice(farm, 4096), ReplayDevice(farm, 4096)
    device.subscribe({"a": ALL, "b": LIVE})
    other.subscribe({"a": ALL, "b": LIVE})
    await until_blocked(farm)
    farm.publish("b")
    farm.publish("a")
    farm.publish("b")
    await farm.commit()
    farm.down()
    assert farm.shard.sockets.subscriptions.held_bytes > 0
    for one in (device, other):
        one._read()
        assert one.newest == one.last
        assert one.channels["b"] is None
    other.leave("a")
    other.receive()
    await finish(farm, device, other)
    assert device.newest == device.last
    assert (device.channels, other.channels) == ({"a": 31, "b": 3}, {"b": 3})
    assert farm.shard.sockets.subscriptions.held_bytes == 0
    farm.publish("b")
    await farm.settle()
    for one in (device, other):
        one.receive()
        assert one.channels["b"] == 4
    device.leave("b")
    device.leave("a")
    other.go()
    await farm.settle()
    assert len(farm.shard.sockets.subscriptions) == farm.shard.sockets.subscriptions.held_bytes == 0


@pytest.mark.parametrize(("resumes", "another"), [(True, True), (True, False), (False, True)])
def test_who_comes_back_with_a_position_is_let_go_when_several_logs_count_anew(resumes: bool, another: bool) -> None:
    @in_farm()
    async def scenario(farm: ReplayFarm) -> None:
        device = ReplayDevice(farm)
        device.subscribe(dict.fromkeys("ab", ALL))
        await stored(farm, 3, "ab")
        await finish(farm, device)
        farm.lapse(False, False)
        farm.dialect.resumes = resumes
        for log in farm.rig.store._logs.values():
            log.epoch += another
        farm.rejoin()
        await farm.settle()
        assert device.closing == (resumes and another)

    scenario()


@pytest.mark.parametrize("resumes", [True, False])
def test_of_a_log_that_counts_anew_who_has_had_events_is_sent_what_came_since(resumes: bool) -> None:
    @in_farm()
    async def scenario(farm: ReplayFarm) -> None:
        farm.dialect.resumes = resumes
        device = ReplayDevice(farm)
        device.subscribe({"a": ALL})
        await stored(farm, 3)
        await finish(farm, device)
        farm.lapse(False, False)
        (log,) = farm.rig.store._logs.values()
        log.epoch += 1
        await stored(farm, 2)
        farm.rejoin()
        await finish(farm, device)
        assert not device.closing
        assert device.channels == {"a": 5}

    scenario()


@pytest.mark.parametrize(("resumes", "another"), [(True, True), (True, False), (False, True)])
def test_who_comes_back_with_a_position_is_let_go_when_a_log_counts_anew_of_which_it_has_had_nothing(
    resumes: bool, another: bool
) -> None:
    @in_farm()
    async def scenario(farm: ReplayFarm) -> None:
        farm.dialect.resumes = resumes
        await stored(farm, 3)
        (log,) = farm.rig.store._logs.values()
        device = ReplayDevice(farm)
        device.subscribe({"a": AfterOffset(log.epoch, 3)})
        await finish(farm, device)
        assert device.channels == {"a": 3}
        farm.lapse(False, False)
        log.epoch += another
        farm.rejoin()
        await farm.settle()
        assert device.closing == (resumes and another)

    scenario()
