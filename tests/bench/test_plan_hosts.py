"""`farm bench plan --hosts`: one farm on many hosts, by hand and as a command."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bench import RECORDED, recorded_result

from bench.cli import main
from bench.errors import BenchError
from bench.figures.hosts_store import HostsWish
from bench.figures.plan import Wish, run
from bench.figures.profiles import PROFILES
from bench.figures.results import read, write_json

LARGE = PROFILES["r7g.large"]


def connected() -> dict[str, Any]:
    """The recorded `connect` without its pushes."""
    body = recorded_result("connect")
    body["connect"]["push"] = None
    return body


def pushed(routers: int = 1) -> dict[str, Any]:
    """The recorded `push`, as through Redis with a replica."""
    body = recorded_result("push")
    body["store"] = {"title": "Redis", "version": "7.0.15", "devices": 15_000, "a_device": 250.0, "a_message": 500.0}
    for done in body["runs"]:
        done["usage"]["groups"]["store"] = {"processes": 2, "cpu_seconds_a_1000": 0.02}
        done["usage"]["groups"]["router"]["processes"] = routers
        if routers > 1:
            done["usage"]["groups"]["router"]["cpu_seconds_a_1000"] *= 2
    return body


def clustered(**more: Any) -> dict[str, Any]:
    """A result of `cluster`."""
    body = recorded_result("push") | {"command": "cluster", "hosts": 3, "workers": 2, "routers": 3}
    body["setup"]["ready"] = 3000
    return body | {"idle": idle(0.09, 0.036), "lost": None, "forward": None} | more


def idle(router: float, workers: float) -> dict[str, Any]:
    """What a cluster takes while nothing happens, in cores."""
    groups = {"router": {"cpu_seconds": 10 * router}, "workers": {"cpu_seconds": 10 * workers}}
    return {"seconds": 10.0, "usage": {"groups": groups}}


def plan(wish: Wish, *documents: dict[str, Any]) -> dict[str, Any]:
    return run(wish, [(f"{number}.json", body) for number, body in enumerate(documents)])


def figures(body: dict[str, Any]) -> dict[str, Any]:
    return {figure["key"]: figure["value"] for figure in body["figures"]}


def kinds(body: dict[str, Any]) -> dict[str, str]:
    return {figure["key"]: figure["kind"] for figure in body["figures"]}


def test_thirty_one_million_on_thirty_one_hosts_by_hand() -> None:
    wish = Wish(31_000_000, 5000, LARGE, price=80, hosts=HostsWish(31, store_price=100))
    body = plan(wish, connected(), pushed())
    found, known = figures(body), kinds(body)
    assert (found["instances"], known["instances"], body["instances"]) == (31, "given", 31)
    # 31,000,000 / 30 with one down: eleven workers of at most 100,000 each
    assert found["devices_worst"] == 1_033_334 and found["workers"] == 11
    assert (found["routers"], found["devices_a_router"]) == (31, 1_000_000)
    assert found["map_router"] == pytest.approx(623.4112 * 1e6)
    assert (found["workers_all"], found["links"], found["links_tcp"]) == (341, 341 * 31, 341 * 31 - 11 * 31)
    assert (found["links_a_router"], found["peers"], found["beats"]) == (341, 930, 2 * 341 / 0.5)
    assert found["forwarded"] == pytest.approx(30 / 31)
    assert found["pushes_a_worker"] == pytest.approx(5000 / 341)
    # 250 a device and 500 for a tenth of them; two copies, each on one server of 16 GiB
    assert (found["waiting"], found["stored"]) == (3_100_000, 31e6 * 250 + 3.1e6 * 500)
    assert found["primaries_memory"] == 2 and found["store_servers"] == 4 and found["slots"] == 2
    # 10 us of each server a push
    assert found["store_cpu"] == pytest.approx(10) and found["primaries_pushes"] == 1
    assert found["drain_rate"] == pytest.approx(1e6 / 600) and found["rolling"] == 31 * 600
    assert found["host_back"] == pytest.approx(1e6 / (30 * 10_701.813591451459))
    assert (found["lost"], known["lost"]) == (3, "assumed")
    assert (found["cost"], found["store_cost"], found["cost_all"]) == (2480, 400, 2880)
    assert body["farm"] == {"hosts": 31, "routers": 31, "store_servers": 4, "cells": 1}


def test_as_many_hosts_as_the_devices_take() -> None:
    body = plan(Wish(31_000_000, 0, LARGE, hosts=HostsWish()), connected(), pushed())
    found = figures(body)
    assert found["instances"] == found["instances_for_devices"] + 1 == found["routers"]
    assert not {"forwarded", "store_cpu", "store_price", "cost_all"} & found.keys()


def test_too_few_hosts_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(BenchError, match=r"5 hosts of r7g.large, 1 of them to spare.*--hosts \d+, a larger instance"):
        plan(Wish(31_000_000, 0, LARGE, hosts=HostsWish(5)), connected(), pushed())


def test_what_devices_take_in_redis_has_to_be_measured() -> None:
    with pytest.raises(BenchError, match=r"do not say what a device takes in Redis.*--store redis-replica"):
        plan(Wish(1_000_000, 0, LARGE, hosts=HostsWish()), connected(), recorded_result("push"))


def test_what_forwarding_costs_comes_from_two_routers() -> None:
    wish = Wish(31_000_000, 5000, LARGE, hosts=HostsWish(31))
    alone, two = plan(wish, connected(), pushed()), plan(wish, connected(), pushed(), pushed(2))
    # the slow run takes 219.512 us of the router and 115.854 of the workers; two routers take twice the former
    assert figures(alone)["push_cpu_small"] == pytest.approx(335.366, abs=0.01)
    assert figures(two)["push_cpu_small"] == pytest.approx(335.366 + 219.512, abs=0.01)
    assert figures(two)["push_cores"] == pytest.approx(5000 * 554.878e-6 / 31, rel=1e-4)
    # flat out 65.243 and 41.518; two routers take 65.243 more, and 30/31 are forwarded instead of 1/2
    assert (figures(alone)["push_cpu_full"], kinds(alone)["push_cpu_full"]) == (pytest.approx(106.761), "measured")
    more = 65.243 * (30 / 31) / 0.5
    assert figures(two)["push_cpu_full"] == pytest.approx(106.761 + more, rel=1e-4)
    assert kinds(two)["push_cpu_full"] == "extrapolated"
    assert figures(two)["most_pushes_hosts"] == pytest.approx(0.7 * 31 * 1e6 / (65.243 + more), rel=1e-4)


def test_a_measured_cluster_says_what_links_and_moves_take() -> None:
    lost = {"accepted_seconds": {"95%": 4.5}}
    wish = Wish(31_000_000, 5000, LARGE, hosts=HostsWish(31))
    body = plan(wish, connected(), pushed(), clustered(lost=lost, forward={"cpu_us": 40.0}))
    found, known = figures(body), kinds(body)
    assert found["link_router"] == pytest.approx(0.005) and known["link_router"] == "extrapolated"
    assert found["links_share"] == pytest.approx(0.005 * 341)
    # eleven workers with 31 links of 0.002 each, and a router with 341 of 0.005, on two virtual CPUs
    assert found["links_host"] == pytest.approx((11 * 31 * 0.002 + 341 * 0.005) / 2)
    assert (found["lost"], known["lost"]) == (4.5, "measured")
    # 1.5 s beyond the lease with 1,000 devices a router
    assert found["lost_all"] == pytest.approx(3 + 1.5 * 1000)
    assert found["push_cpu_full"] == pytest.approx(106.761 + 40 * 30 / 31)
    # a router whose links take 1.7 cores is no router: 18 farms would have a tenth of a core for them
    assert found["cells"] == body["farm"]["cells"] == 18


def test_what_a_link_takes_is_the_difference_of_two_clusters() -> None:
    wish = Wish(31_000_000, 0, LARGE, hosts=HostsWish(31))
    more = clustered(workers=8, idle=idle(0.09 + 0.054, 0.036))
    found = figures(plan(wish, connected(), pushed(), more, clustered()))
    assert found["link_router"] == pytest.approx(0.001) and found["link_worker"] == 0  # 54 links more
    assert found["cells"] == 4  # 341 of them take 0.341 cores: four farms would have a tenth each


def test_many_workers_or_pushes_ask_for_cells() -> None:
    many = Wish(31_000_000, 0, LARGE, descriptors=10_000, hosts=HostsWish(31))
    assert figures(plan(many, connected(), pushed()))["cells"] == 4  # 31 x 104 workers, of 1,024 a router
    busy = Wish(31_000_000, 900_000, LARGE, hosts=HostsWish(0))
    # 900,000/s x 65.243 us of routers / 0.7 = 83.9 routers
    assert figures(plan(busy, connected(), pushed()))["cells"] == 2


def test_the_command_says_what_one_farm_takes(tmp_path: Path) -> None:
    file = tmp_path / "stored.json"
    write_json(file, pushed())
    arguments = ["--devices", "31e6", "--hosts", "40", "--push-rate", "2e3", "--profile", "r7g.large"]
    arguments += [
        "--result",
        str(RECORDED / "connect.json"),
        "--result",
        str(file),
        "--waiting",
        "5M",
        "--drain",
        "300",
    ]
    result = CliRunner().invoke(main, ["plan", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "40 x r7g.large for 31,000,000 devices" in result.output
    body = read(tmp_path / "plan.json")
    assert body["farm"]["hosts"] == 40 and figures(body)["waiting"] == 5e6 and figures(body)["drain"] == 300
    text = (tmp_path / "plan.md").read_text()
    for name in ("links of workers to routers", "servers of the store", "a rolling deploy of all hosts", "cells"):
        assert name in text
    assert "hosts of one farm" in text and "a farm with routers" not in text
