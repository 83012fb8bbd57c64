"""When a worker looks at its devices: times and numbers in, seconds out; and one whole farm that waits."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest
import trio
from support.farm_fixture import Farm, new_channel, running_farm, until
from support.simplepush import Device, put

from router.common import priority
from router.common.pace import BUSY_EVENTS, FEWEST_WORKERS, Pace
from router.common.poller import READ, Poller
from router.common.settings import RouterOptions

MS = 0.001


def run(pace: Pace, arrivals: list[float], until: float) -> tuple[list[float], float]:
    """A worker that handles all that has come at each look, and waits as the pace says.

    Returns: when it looked, and the longest time from an event to its look.
    """
    looks: list[float] = []
    longest = now = 0.0
    arrivals = sorted(arrivals)
    while arrivals and now < until:
        now = max(now, arrivals[0])  # there is no look while there is nothing
        now += max(0.0, pace.rest(now))
        here = [arrival for arrival in arrivals if arrival <= now]
        del arrivals[: len(here)]
        pace.looked(now, len(here))
        if here:
            looks.append(now)
            longest = max(longest, now - here[0])
        now += 0.0001
    return looks, longest


def every(step: float, seconds: float, begin: float = 0.0) -> list[float]:
    return [begin + number * step for number in range(int(seconds / step))]


@pytest.mark.parametrize("workers", [8, 11, 60, 100])
def test_under_load_all_workers_together_look_a_thousand_times_a_second(workers: int) -> None:
    pace = Pace(MS, workers)
    looks, longest = run(pace, every(workers / (2 * BUSY_EVENTS), 10), 10)
    assert 0.9 * 10_000 <= len(looks) * workers <= 1.1 * 10_000
    assert longest <= workers * MS + 0.0002


@pytest.mark.parametrize("workers", [8, 11, 60, 100])
def test_below_it_nobody_waits(workers: int) -> None:
    arrivals = every(2 * workers / BUSY_EVENTS, 10)
    looks, longest = run(Pace(MS, workers), arrivals, 10)
    assert len(looks) == len(arrivals)
    assert longest == 0


def test_a_device_that_sets_itself_up_does_not_wait() -> None:
    pace = Pace(MS, 60)
    for begin in (1.0, 2.0, 3.0):
        for step in range(4):  # connect, upgrade, hello, register
            assert pace.rest(begin + step * MS) <= 0
            pace.looked(begin + step * MS, 1)


def test_what_comes_after_silence_does_not_wait() -> None:
    pace = Pace(MS, 60)
    looks, _ = run(pace, every(MS, 1), 1)
    assert pace.rest(looks[-1]) > 0
    again, longest = run(pace, [5.0], 6)
    assert (again, longest) == ([5.0], 0)
    assert pace.rest(5.001) <= 0


@pytest.mark.parametrize("pace", [Pace(MS, FEWEST_WORKERS - 1), Pace(0.0, 60)], ids=["few", "off"])
def test_with_few_workers_or_without_an_interval_nobody_waits(pace: Pace) -> None:
    assert pace.interval == 0
    arrivals = every(MS, 1)
    looks, longest = run(pace, arrivals, 1)
    assert (len(looks), longest) == (len(arrivals), 0)


def test_no_wait_is_so_long_that_a_process_would_be_missed() -> None:
    assert Pace(MS, 1024).interval == Pace(0.1, 9999).interval == 0.1


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_wait_ends_for_what_is_urgent(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    urgent, teller = socket.socketpair()
    pace = Pace(MS, FEWEST_WORKERS)
    poller = Poller(0.0, pace, urgent.fileno())
    poller.register(near.fileno(), READ)
    poller.register(urgent.fileno(), READ)

    async def scenario() -> None:
        far.send(b"x")
        pace.looked(monotonic(), 0)
        seen = []
        while not poller.waits:
            seen.append(await poller.ready())
        assert {fd for events in seen for fd, _ in events} == {near.fileno()}
        assert [fd for fd, _ in await poller.ready()] == [near.fileno()]
        waits = poller.waits
        teller.send(b"x")
        while poller.waits == waits:
            found = await poller.ready()
        assert found == []
        assert await poller.ready(wait=False) != []  # a worker that has other work does not wait

    with urgent, teller:
        trio.run(scenario)
    poller.close()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {"limits.commands_per_second": 0, "limits.registrations_per_second": 0}
    with running_farm(tmp_path_factory.mktemp("pace") / "data", settings, FEWEST_WORKERS) as started:
        yield started


def test_the_supervisor_comes_before_the_others(farm: Farm) -> None:
    status = farm.status()
    others = [status["routers"][0]["pid"], *(worker["pid"] for worker in status["workers"])]
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in others} == {ours}
    # Where that is allowed: doctor shows what is.
    assert os.getpriority(os.PRIO_PROCESS, farm.pid) == max(RouterOptions().nice, min(ours, priority.lowest()))


def test_under_load_workers_wait_and_serve(farm: Farm) -> None:
    assert farm.counter("waits") == 0
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(32)]
        for device in devices:
            device.hello()
        channel, endpoint = devices[0].register()

        def come_in_crowds() -> bool:
            asked = [[new_channel() for _ in range(20)] for _ in devices]
            for turn in range(20):
                for device, channels in zip(devices, asked, strict=True):
                    device.send({"messageType": "register", "channelID": channels[turn]})
            for device, channels in zip(devices, asked, strict=True):
                assert [device.receive()["channelID"] for _ in channels] == channels
            return farm.counter("waits") > 0

        until(come_in_crowds, "a worker has waited")
        for version in range(1, 4):
            assert put(endpoint, version) == 200
            assert devices[0].updates() == [(channel, version)]
            devices[0].ack((channel, version))
        devices[0].settle()
    assert farm.healthy()
