"""Devices in their load processes: they grow in number, are cut off and come back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.bench import quiet
from support.misbehaving import Misbehaving, Rules, misbehaving

from bench.farm_process import attach
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers


@contextmanager
def users_of(server: Misbehaving, load: Load) -> Iterator[VirtualUsers]:
    with LoadProcesses(Interrupt()) as processes:
        yield VirtualUsers.of(processes, load, attach(server.url, ""))


def until(users: VirtualUsers, what: str, count: int) -> None:
    """Wait until a counter is there; the test's own limit is that of pytest."""
    deadline = time.monotonic() + 60
    while users.count_anew(what) != count:
        assert time.monotonic() < deadline, f"{what}: {users.count(what)}, not {count}"
        users.processes.receive(0.05)


def test_virtual_users_grow_and_keep_their_numbers() -> None:
    with (
        misbehaving(Rules()) as server,
        users_of(server, Load(10, processes=2, channels=2, endpoints_every=1)) as users,
    ):
        first = users.bring_up(quiet(), "")
        users.grow(5)
        second = users.bring_up(quiet(), "")
        assert (first.ready, first.wanted, second.ready, second.wanted) == (10, 10, 5, 5)
        assert sorted(first.channels) == list(range(20)) and sorted(second.channels) == list(range(20, 30))
        assert len(first.durations) == 10 and len(second.durations) == 5
        assert users.collect().devices == 15 and len(users.children) == 2


def test_devices_that_are_cut_without_a_backoff_are_gone() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(10)) as users:
        users.bring_up(quiet(), "")
        users.cut()
        held = users.collect()
        assert held.devices == 0 and sorted(held.arrivals.gone) == list(range(10)) and not held.drops


def test_devices_come_back_as_themselves_until_they_succeed() -> None:
    def refuse_the_first_returns(number: int) -> str:
        return "refuse" if 10 <= number < 15 else "silent hello" if number == 15 else ""

    load = Load(10, timeout=0.5, backoff=Backoff(0.1))
    with misbehaving(Rules(device=refuse_the_first_returns)) as server, users_of(server, load) as users:
        users.bring_up(quiet(), "")
        users.cut()
        until(users, "back", 10)
        held = users.collect()
        assert server.faults == {"refuse": 5, "silent hello": 1} and server.returns == 10
    assert held.devices == 10 and held.reassigned == 0
    assert held.return_failures == {"upgrade: HTTP 503": 5, "hello: no answer in time": 1}
    assert sum(held.absences.attempts) == 16 and sorted(held.absences.back) == list(range(10))


def test_devices_that_a_server_does_not_know_again_are_told() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(10, backoff=Backoff(0.1))) as users:
        users.bring_up(quiet(), "")
        server.stored.clear()
        users.cut()
        until(users, "back", 10)
        assert users.collect().reassigned == 10


def test_devices_that_a_server_drops_come_back_too() -> None:
    rules = Rules(device=lambda number: "reset later" if number < 4 else "", hold=0.1)
    with misbehaving(rules) as server, users_of(server, Load(8, backoff=Backoff(0.1))) as users:
        users.bring_up(quiet(), "")
        until(users, "back", 4)
        held = users.collect()
    assert held.devices == 8 and sum(held.drops.values()) == 4


def test_churn_cuts_some_and_stops() -> None:
    with misbehaving(Rules()) as server, users_of(server, Load(50, backoff=Backoff(0.05))) as users:
        users.bring_up(quiet(), "")
        users.churn(200)
        while users.count_anew("back") < 20:
            pass
        users.churn(0)
        until(users, "away", 0)
        held = users.collect()
        assert len(held.absences.gone) == len(held.absences.back) >= 20 and not held.drops
        users.processes.receive(0.3)
        assert not users.collect().absences.gone
