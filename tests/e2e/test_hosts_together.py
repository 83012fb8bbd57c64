"""A farm over several hosts: which of them has which router, and what becomes of that when hosts come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import pytest
from support import dialects
from support.farm_fixture import SOON_S, Farm, Raw, command, reload, until
from support.hosts import Hosts, across, known, name_of, placed, running_hosts
from support.processes import stopped
from support.several_routers import asks

from router.common.health import NO_ROUTER_HERE
from router.common.token import new_key

ROUTERS = 5


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    with running_hosts(folder, 3, ROUTERS, dialects.settings(folder)) as hosts:
        yield hosts


@pytest.fixture
def hosts(shared: Hosts) -> Hosts:
    """The shared hosts, well again."""
    shared.wait_divided()
    return shared


def options_of(farm: Farm) -> list[str]:
    """The settings of a host, for a command about it."""
    return [part for name, value in farm.settings.items() for part in ("--set", f"{name}={value}")]


def test_every_host_shows_all_of_them(hosts: Hosts) -> None:
    divided = hosts.wait_divided()
    for farm in hosts.each:
        metrics = set(farm.admin("/metrics")[1].decode().splitlines())
        assert {f'farm_cluster_routers{{host="{name}"}} {len(of)}.0' for name, of in divided.items()} <= metrics
        assert "farm_cluster_routers_nowhere 0.0" in metrics
        shown = command(farm, "status", "--admin-port", str(farm.admin_port)).stdout
        assert f"{name_of(farm)} (here)" in shown
        assert [row["state"] for row in farm.status()["workers"]] == ["up"]


def test_the_doctor_sees_the_others_and_what_differs(hosts: Hosts) -> None:
    a, b, c = hosts.each
    found = command(b, "doctor", "--json", "--data", str(b.data), *options_of(b)).stdout
    assert all(f'"host {name_of(farm)}"' in found for farm in (a, c)), found
    assert "agrees and is reached" in found
    options = [f"token.keys={new_key()}" if part.startswith("token.keys=") else part for part in options_of(b)]
    found = command(b, "doctor", "--json", "--data", str(b.data), *options).stdout
    assert "has another token.keys" in found


def test_a_host_that_does_not_agree_does_not_start(hosts: Hosts) -> None:
    a, *_ = hosts.each
    other = copy(a)
    other.data = a.data.parent / "x"
    other.log_file = a.data.parent / "x.log"
    other.device_port = other.router_port = other.admin_port = 0
    bind = a.settings["cluster.bind"].replace("127.0.0.2", "127.0.0.9")
    other.settings = a.settings | {"cluster.name": "x", "cluster.bind": bind, "endpoint.url": "https://x.example.org"}
    other.launch()
    assert other.wait_ended() == 2
    (failed,) = other.events("farm.start_failed")
    assert "endpoint.url is https://x.example.org here, and " in failed["why"]
    assert set(known(a)) == {"a", "b", "c"}


def test_a_reload_of_one_host_moves_nothing(hosts: Hosts) -> None:
    before = hosts.wait_divided()
    a, b, c = hosts.each
    processes = [farm.status()["routers"] for farm in (a, c)]
    with dialects.reached(across(devices=c, app_servers=a)) as check:
        check()
        reload(b)
        check()
    assert hosts.wait_divided() == before
    after = [farm.status()["routers"] for farm in (a, c)]
    assert [[row["pid"] for row in each] for each in after] == [[row["pid"] for row in each] for each in processes]


def test_the_file_that_says_where_routers_are_is_written_again_when_somebody_deletes_it(hosts: Hosts) -> None:
    file = hosts.each[0].data / "cluster.json"
    before = file.read_bytes()
    file.unlink()
    until(file.exists, "a new file", SOON_S)
    assert file.read_bytes() == before


def test_a_host_that_cannot_write_where_routers_are_gives_its_own_to_the_others(hosts: Hosts) -> None:
    a, b, c = hosts.each
    with dialects.reached(across(devices=c, app_servers=b)) as check:
        check()
        in_the_way = c.data / "cluster.json.new"
        in_the_way.mkdir()
        (c.data / "cluster.json").unlink()
        until(lambda: not placed(c) and len(placed(a) + placed(b)) == ROUTERS, "the others have all routers")
        assert "cluster.json cannot be written" in c.admin("/ready")[1].decode()
        assert list(c.events("cluster.directory_unwritten"))
        check()
        in_the_way.rmdir()
        hosts.wait_divided()
        check()


def test_a_router_that_dies_is_started_again_where_it_was(hosts: Hosts) -> None:
    _, b, _ = hosts.each
    before = [(row["number"], row["host"], row["epoch"]) for row in b.status()["cluster"]["placements"]]
    died = b.status()["routers"][0]["pid"]
    os.kill(died, signal.SIGKILL)
    until(lambda: b.status()["routers"][0]["pid"] not in (None, died), "there is another process")
    hosts.wait_divided()
    assert [(row["number"], row["host"], row["epoch"]) for row in b.status()["cluster"]["placements"]] == before


def test_redis_is_away_for_longer_than_a_lease(hosts: Hosts) -> None:
    """Nobody takes over from anybody, and no process is another one afterwards."""
    before = hosts.wait_divided()
    a, b, _ = hosts.each

    def pids() -> list[list[int]]:
        found = (farm.status() for farm in hosts.each)
        return [[row["pid"] for row in (*status["routers"], *status["workers"])] for status in found]

    processes = pids()
    with dialects.reached(across(devices=b, app_servers=a)) as check:
        check()
        with stopped(hosts.server.pid):
            for farm in hosts.each:
                until(lambda farm=farm: farm.admin("/ready")[0] == 503, "it is not ready")  # type: ignore[misc]
                until(lambda farm=farm: not farm.healthy(), "that is known")  # type: ignore[misc]
        assert hosts.wait_divided() == before
        check()
    assert pids() == processes
    assert {event["number"] for farm in hosts.each for event in farm.events("cluster.router_lost")} == set()


def test_a_supervisor_that_stands_still_loses_its_routers_though_they_run(hosts: Hosts) -> None:
    a, b, c = hosts.each
    with stopped(c.pid):
        until(lambda: sorted([*placed(a), *placed(b)]) == list(range(ROUTERS)), "the others have them", SOON_S)
    # One readiness may stand for both ports, as a pod's does: not before there is a router port again.
    until(lambda: NO_ROUTER_HERE.encode() in c.admin("/ready")[1], "it says that none is here")
    until(lambda: c.admin("/ready")[0] == 200, "it is ready", SOON_S)
    with Raw(c.router_port) as raw:
        asks(raw)
    hosts.wait_divided()


def test_messages_reach_devices_of_another_host_whatever_becomes_of_a_third(hosts: Hosts) -> None:
    """It is killed, comes back, ends in good order, and comes back again. Another one has its routers meanwhile."""
    a, b, c = hosts.each
    with dialects.reached(across(devices=b, app_servers=a)) as check:
        check()
        c.kill()
        hosts.wait_divided(a, b)
        check()
        c.start()
        hosts.wait_divided()
        check()
        its = placed(c)
        c.stop()
        moves = [event["number"] for event in c.events("cluster.router_moves")]
        assert sorted(moves[-len(its) :]) == its
        hosts.wait_divided(a, b)
        check()
        assert set(known(a)) == {"a", "b"}
        c.start()
        hosts.wait_divided()
        check()


def test_a_host_without_a_router_serves_its_devices_by_those_of_others(tmp_path: Path) -> None:
    """Its router port is closed until a router comes."""
    with running_hosts(tmp_path, 2, 1, dialects.settings(tmp_path)) as hosts:
        with_one, without = sorted(hosts.each, key=placed, reverse=True)
        assert (placed(with_one), placed(without)) == ([0], [])
        with pytest.raises(ConnectionRefusedError):
            Raw(without.router_port)
        assert without.admin("/ready")[0] == 200, "none is to come, and it has devices"
        with dialects.reached(across(devices=without, app_servers=with_one)) as check:
            check()
            assert [row["state"] for row in without.status()["workers"]] == ["up"]
            until(lambda: without.status()["connections"] > 0, "its workers' numbers")
        reload(without)
        with_one.stop()
        hosts.wait_divided(without)
        with Raw(without.router_port) as raw:
            asks(raw)
