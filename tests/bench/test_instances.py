"""`farm bench instances`: profiles, the limits of a ramp, and its arguments."""

import os
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from support.control_groups import MIB

from bench.cli import main
from bench.farm_process import Status, read_status
from bench.figures.profiles import (
    CONNECTION_BYTES,
    GIB,
    PROFILES,
    devices_in,
    dollars_a_million,
    ecu_per_core,
    parse_memory,
    share_of,
    workers_for,
)
from bench.load.protocols import REFERENCE
from bench.machine import calibration, procfs
from bench.machine.group_files import Cpu, Memory
from bench.runs.ramp import (
    MOST_A_WAVE,
    POINTS,
    STOP_AT,
    Account,
    Gauge,
    State,
    Watch,
    first_limit,
    first_wave,
    next_wave,
)
from bench.views import instances as view

FINE = State(devices=1000, used=500 * MIB, memory=1000 * MIB, wanted=1000)


class Steady(Gauge):
    """A farm that takes 1 MiB a device."""

    period = 0.0

    def __init__(self) -> None:
        self.devices = 0

    def memory(self, devices: int) -> Memory:
        return Memory(devices * MIB, devices * MIB, 0, 0, 0, 0, None, 0)

    def cpu(self) -> Cpu:
        return Cpu(0.0, self.devices, self.devices, 0.0)


def lines_of(body: dict[str, Any]) -> list[str]:
    """All that its tables say."""
    return [
        text
        for table in view.tables(body)
        for text in (table.title, *(" ".join(row) for row in table.rows), *table.notes)
    ]


def test_the_instances_of_2013() -> None:
    small, medium, large = (PROFILES[name] for name in ("small", "medium", "large"))
    assert [profile.pushgo for profile in (small, medium, large)] == [24_000, 120_000, 200_000]
    assert [profile.ecu for profile in (small, medium, large)] == [1, 2, 4]
    assert [round(profile.memory / GIB, 2) for profile in (small, medium, large)] == [1.7, 3.75, 7.5]
    assert PROFILES["t4g.nano"].memory == 512 * MIB and PROFILES["r7g.large"].memory == 16 * GIB


def test_an_ecu_is_a_part_of_a_core() -> None:
    assert ecu_per_core(1.1) == pytest.approx(3.0)
    share = share_of(PROFILES["small"], ecu=10.0, cores=2)
    assert share.cpus == pytest.approx(0.1) and share.reason == "1 ECU of 10.00 a core: 0.100 of a core"
    assert share_of(PROFILES["large"], ecu=10.0, cores=2).cpus == pytest.approx(0.4)


def test_virtual_cpus_are_capped_at_what_there_is() -> None:
    assert share_of(PROFILES["c7g.medium"], 10.0, 2).cpus == 1
    all_of_it = share_of(PROFILES["c7g.large"], 10.0, 2)
    assert all_of_it.cpus is None and "all there are" in all_of_it.reason
    too_few = share_of(PROFILES["c7g.large"], 10.0, 1)
    assert too_few.cpus is None and "capped at the 1 that there are" in too_few.reason
    assert share_of(PROFILES["large"], ecu=1.0, cores=2).cpus is None  # a slow machine


@pytest.mark.parametrize(("text", "size"), [("4GiB", 4 * GIB), ("300MiB", 300 * MIB), ("1.5g", 3 * GIB // 2), ("7", 7)])
def test_memory_is_read(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "0", "-1GiB", "4 potatoes", "1e9"])
def test_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        parse_memory(text)


def test_workers_are_as_many_as_needed() -> None:
    assert workers_for(24_000, 1, 20_000) == 2
    assert workers_for(1_000, 2, 20_000) == 2
    assert workers_for(200_000, 2, 1_000_000) == 2
    assert workers_for(1_300_000, 2, 20_000) * 20_000 > 1_300_000
    assert devices_in(2 * GIB, 20_000) > 300_000
    assert devices_in(10 * MIB, 20_000) == 0
    assert devices_in(2 * GIB, 20_000, 9_000) < devices_in(2 * GIB, 20_000, 4_500)


def test_dollars_for_a_million() -> None:
    assert dollars_a_million(12.5, 250_000) == 50
    assert dollars_a_million(None, 250_000) is None
    assert dollars_a_million(12.5, 0) is None


def test_the_clock_is_one_of_a_real_core() -> None:
    assert 0.1 < calibration.clock_ghz() < 20


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"used": 970 * MIB}, "memory", "970 of 1,000 MiB used"),
        ({"oom_kills": 2, "used": 10 * MIB}, "memory", "the kernel killed 2"),
        ({"failures": {"upgrade: HTTP 503": 3}}, "descriptors", "workers are full"),
        ({"capacity": 1000}, "descriptors", "room for 1,000"),
        ({"failures": {"connect: EMFILE": 3}}, "load generator", "3 x connect: EMFILE"),
        ({"failures": {"connect: EADDRNOTAVAIL": 1}}, "load generator", "its own sockets"),
        ({"machine_available": 100 * MIB}, "load generator", "100 MiB left on the machine"),
        ({"free_files": 10}, "load generator", "fs.file-max"),
        ({"rate": 3.0, "throttled": 0.9}, "CPU", "only 3 set-ups/s"),
        ({"rate": 3.0}, "failures", "CPU was to be had"),
        ({"failed": 50, "failures": {"hello: no answer in time": 50}}, "failures", "50 x hello: no answer in time"),
        ({"failed": 50, "throttled": 0.9}, "CPU", "50 set-ups failed"),
        ({"overdue": 20, "throttled": 0.9}, "CPU", "20 pings not answered"),
        ({"dropped": 20}, "failures", "20 connections were dropped"),
    ],
)
def test_the_limit_is_named(changes: dict[str, Any], kind: str, text: str) -> None:
    limit = first_limit(replace(FINE, **changes))
    assert limit is not None
    assert limit.kind == kind
    assert text in limit.text


def test_there_is_no_limit_without_a_reason() -> None:
    assert first_limit(FINE) is None
    assert first_limit(replace(FINE, rate=500.0, throttled=1.0, failed=5, dropped=1, capacity=2000)) is None


def test_waves_shrink_towards_the_limit() -> None:
    memory = 1000 * MIB
    far = next_wave(0, 50 * MIB, 50 * MIB, memory, 1 << 30)
    assert far.devices == pytest.approx((STOP_AT * memory - 50 * MIB) / 2 / CONNECTION_BYTES, rel=0.01)
    assert far.rate == 0
    near = next_wave(200_000, 900 * MIB, 50 * MIB, memory, 1 << 30)
    connection = 850 * MIB / 200_000
    assert near.devices > 70 * MIB / connection  # more than fits
    assert near.rate * connection == pytest.approx(0.02 * memory)
    assert next_wave(0, 0, 0, 1 << 40, 1 << 30).devices == MOST_A_WAVE
    assert next_wave(1000, 100 * MIB, 50 * MIB, memory, 7).devices == 7
    assert next_wave(1000, 100 * MIB, 50 * MIB, memory, 0).devices == 0
    assert next_wave(1000, 950 * MIB, 50 * MIB, memory, 0).devices == 0


def test_a_figure_comes_slowly_where_it_may_not_fit() -> None:
    assert first_wave(10_000, 50 * MIB, 1000 * MIB).rate == 0
    assert first_wave(1_000_000, 50 * MIB, 1000 * MIB).rate > 0


def test_a_watch_sees_the_limit_and_keeps_a_bounded_curve() -> None:
    gauge = Steady()
    watch = Watch(gauge, 1000 * MIB, lambda what: gauge.devices if what == "ready" else 0)
    watch.wave(2000)
    while not watch.look():
        gauge.devices += 1
    assert watch.limit is not None and watch.limit.kind == "memory"
    assert gauge.devices == int(STOP_AT * 1000)
    assert watch.peak == gauge.devices * MIB
    assert 2 < len(watch.points) < POINTS
    devices = [point["devices"] for point in watch.points]
    assert devices == sorted(devices) and devices[-1] > 900


def test_memory_is_accounted_by_processes_and_kernel() -> None:
    account = Account(3_700)
    assert account.memory(10).user == 0 and account.memory(10).used == 37_000
    account.supervisor = os.getpid()
    memory = account.memory(0)
    assert memory.user > 5 * MIB and memory.used == memory.user + memory.kernel
    assert (account.cpu().seconds or 0) > 0


def test_the_machine_says_what_is_left() -> None:
    assert procfs.available_memory() > 0
    assert procfs.free_files() > 0


def test_a_status_tells_the_room_once_all_workers_do() -> None:
    rows = [{"shard": 0, "pid": 8, "max_connections": 100}, {"shard": 1, "pid": 9, "max_connections": 100}]
    assert read_status({"routers": [{"pid": 7}], "workers": rows}).capacity == 200
    del rows[1]["max_connections"]
    status = read_status({"routers": [{"pid": 7}], "workers": rows})
    assert status == Status([7], {"0": 8, "1": 9}, {"0": 0, "1": 0}, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["huge"], "huge"),
        (["--memory", "much"], "no amount of memory"),
        (["--memory", "1MiB"], "too little"),
        (["--price", "small"], "NAME=DOLLARS_A_MONTH"),
        (["--price", "other=3"], "no profile of that name"),
        (["--price", "small=nan"], "not below 0"),
        (["--only-reproduce", "--only-ramp"], "exclude each other"),
        (["--memory", "300MiB", "--only-reproduce"], "needs --devices"),
        (["--ping", "5"], f"{REFERENCE.ping_setting}=0"),
    ],
)
def test_wrong_arguments(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, ["instances", *arguments])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_an_interrupted_run_can_be_shown() -> None:
    row = {
        "name": "small", "about": "", "memory": GIB, "vcpus": 1, "ecu": 1, "pushgo": 24_000, "cpus": 0.1,
        "cpus_text": "x", "price": None, "reproduce": {"target": 24_000}, "held": None, "ceiling": None,
        "dollars_a_million": None, "reproduced": False, "clean": False, "limit": None,
    }  # fmt: skip
    body = {
        "profiles": [row],
        "accounting": {"kind": "cgroup", "text": "charged"},
        "calibration": {"text": "an ECU"},
        "notes": [],
        "machine": {"kernel": "6", "python": "3", "sysctl": {}},
    }
    assert "devices wanted 24,000" in lines_of(body)
    (bars,) = view.charts(body)
    assert [series.name for series in bars.series] == ["PushGo, 2013"]
