"""`farm bench cluster`: what is counted, what is shown, and a small run of it."""

from array import array
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bench import SECOND, farm_bench, pushes, recorded_result
from support.installed import find_program

from bench.cli import main
from bench.figures.forwards import compared
from bench.figures.results import shown
from bench.load.device_sockets import host_of
from bench.machine.ports import free_block
from bench.runs.cluster import owned
from bench.runs.cluster_lost import accepted, split
from bench.runs.collected import Setup

pytestmark = pytest.mark.measured


def test_devices_spread_over_the_hosts_and_those_of_a_lost_one_over_the_others() -> None:
    assert [host_of(device, 3, None) for device in range(6)] == [0, 1, 2, 0, 1, 2]
    for host in range(3):
        home = [device for device in range(60) if host_of(device, 3, None) == host]
        first = [host_of(device, 3, 0) for device in home]
        assert host not in first and all(first.count(other) == 10 for other in range(3) if other != host)
        assert all(host_of(device, 3, 0) != host_of(device, 3, 1) for device in home)
    assert host_of(7, 1, None) == host_of(7, 1, 5) == 0
    assert {host_of(device, 2, failed) for device in (0, 2) for failed in range(3)} == {1}


def test_the_endpoints_of_a_router() -> None:
    setup = Setup(4, 4, channels=array("I", range(4)), endpoints=[b"a", b"b", b"c", b"d"])
    assert owned(setup, 3, [1]).endpoints == []  # no partition is known
    setup.partitions = array("H", [1, 4, 5, 511])
    found = owned(setup, 3, [1])
    assert (found.endpoints, list(found.channels), list(found.partitions)) == (
        [b"a", b"b", b"d"],
        [0, 1, 3],
        [1, 4, 511],
    )
    assert owned(setup, 3, [0]).endpoints == [] and owned(setup, 3, [1, 2]).endpoints == setup.endpoints


def test_pushes_to_routers_that_were_lost_are_told_from_the_others() -> None:
    lost, others = split(pushes((0, 1, 200), (1, 2, 503), (2, 3, 202)), {0: 5, 1: 7, 2: 9}, {1, 2}, 3)
    assert (list(lost.channels), list(others.channels)) == ([0, 1], [2])
    assert list(lost.statuses) == [200, 503] and list(others.versions) == [3 * SECOND]


def test_when_pushes_are_accepted_again() -> None:
    cut = 10 * SECOND
    before = [(0, 9, 503)]
    rows = [(0, 10, 200), (0, 11, 503), (0, 12, 0), (0, 13, 202), (0, 14, 200)]
    # the first is answered a millisecond after it was due; the quarter of a second of 12 is the last without an answer
    assert accepted(pushes(*before, *rows), cut) == {"first": 0.001, "95%": 2.25, "100%": 2.25}
    many = [(0, 13, 200)] * 19 + [(0, 13, 503)]
    assert accepted(pushes(*many, (0, 14, 200)), cut) == {"first": 3.001, "95%": 0.0, "100%": 3.25}
    assert accepted(pushes((0, 10, 200), (0, 11, 503)), cut) == {"first": 0.001, "95%": None, "100%": None}
    assert accepted(pushes(*before), cut) == {"first": None, "95%": None, "100%": None}
    late = pushes((0, 10, 200), (0, 11, 200), (0, 12, 200))
    late.times[1] = SECOND // 2  # it waited for a router that was lost
    assert accepted(late, cut) == {"first": 0.001, "95%": 1.25, "100%": 1.25}


def runs_of(cpu: float, p50: float) -> list[dict[str, Any]]:
    """A run flat out and one at half of its rate."""
    flat, half = recorded_result("push")["runs"]
    for run in (flat, half):
        run["usage"]["groups"]["router"]["cpu_seconds_a_1000"] = cpu
        run["usage"]["groups"]["store"] = {"processes": 2, "cpu_seconds_a_1000": 9.0}
    half["to_response_ms"]["p50"] = p50
    return [flat, half]


def test_what_a_forward_costs_is_the_difference_of_medians() -> None:
    owner = runs_of(0.05, 1.0) + runs_of(0.07, 2.0) + runs_of(9.0, 9.0)
    other = runs_of(0.08, 3.0) + runs_of(0.10, 4.0) + runs_of(0.11, 5.0)
    found = compared(owner, other)
    assert found["cpu_us"] == pytest.approx(30) and found["cpu_us_half"] == pytest.approx(30)
    assert found["p50_ms"] == pytest.approx(2.0)
    assert compared([], other) == {"cpu_us": None, "cpu_us_half": None, "p50_ms": None, "p99_ms": None}


def test_ports_in_a_row() -> None:
    first = free_block(["127.0.0.2", "127.0.0.3"], 6)
    assert first >= 10_000 and first + 6 <= 32_768
    with pytest.raises(OSError, match="assign requested address"):
        free_block(["192.0.2.1"], 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--store", "sqlite"],
        ["--hosts", "0"],
        ["--hosts", "99"],
        ["--routers", "65"],
        ["--routers", "2", "--hosts", "3"],
    ],
)
def test_arguments_that_are_wrong(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["cluster", *arguments])
    assert result.exit_code == 2 and arguments[0] in result.output


def test_two_hosts_of_which_one_is_killed(tmp_path: Path) -> None:
    find_program("redis-server")
    short = ("--seconds", "0.5", "--idle", "0.3", "--forward", "0.3", "--repeat", "1", "--calm", "0.5", "--rate", "100")
    two = ("--hosts", "2", "--devices", "100", "--backoff", "0.3", *short)
    body = farm_bench("cluster", *two, file=tmp_path / "cluster.json")
    assert body["setup"]["ready"] == 100 and body["store"]["a_device"] > 0
    assert body["idle"]["links"] == 4 and body["idle"]["links_tcp"] == 2
    assert body["user_memory"]["router"]["after"] > body["user_memory"]["workers"]["before"] > 0
    (run,) = body["runs"]
    assert run["clean"] and run["usage"]["groups"]["router"]["processes"] == 2
    forward = body["forward"]
    assert all(one["clean"] and one["delivered"] for one in forward["owner"] + forward["other"])
    assert 0 < forward["addresses"] < 100
    lost = body["lost"]
    assert lost["clean"] and lost["routers"] == 1 and lost["cut_off"] == lost["back"] == 50
    assert lost["placed_seconds"] > 0 and lost["accepted_seconds"]["first"] > 0
    assert lost["deliveries"]["lost"] == 0 and lost["whole_seconds"]["100%"] > 0
    drawn = shown(body)
    assert "a host killed: pushes accepted after" in drawn.headline
    assert any(table.title.startswith("A host was killed, with 1 of the routers") for table in drawn.tables)
    assert [chart.kind for chart in drawn.charts].count("line") == 2
