"""A farm with several routers: what it shows of them, and that one which dies, hangs or is replaced is missed alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.farm_fixture import ROOT, Farm, Json, Raw, command, reload, running_farm, until
from support.several_routers import LIVE, asks, connected, pids

from router.common.partitions import PARTITIONS

ROUTERS = 3
SETTINGS: Json = {"router.routers": ROUTERS, "farm.hang_timeout": 2, "link.lease": 2, "link.heartbeat": 0.1}
WAITING = 12
"""So many connections that it is all but certain that each router is given some of them."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """It runs from a source tree of its own."""
    folder = tmp_path_factory.mktemp("routers")
    root = folder / "source"
    for package in ("farm", "router", "bench"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    with running_farm(folder / "data", SETTINGS, root=root) as farm:
        yield farm


@pytest.fixture
def farm(shared: Farm) -> Farm:
    """The shared farm, well again."""
    shared.wait_healthy()
    return shared


def of_workers(farm: Farm) -> list[int]:
    return [row["pid"] for row in farm.status()["workers"]]


def test_each_router_has_a_row_and_each_worker_one(farm: Farm) -> None:
    until(lambda: all("connections" in row for row in farm.status()["workers"]), "the workers have sent their numbers")
    status = farm.status()
    routers, workers = status["routers"], status["workers"]
    assert [(row["number"], row["state"]) for row in routers] == [(number, "up") for number in range(ROUTERS)]
    assert sum(row["partitions"] for row in routers) == PARTITIONS
    assert [(row["shard"], row["state"], row["links"]) for row in workers] == [(n, "up", ROUTERS) for n in range(2)]
    assert {row["pid"] for row in (*routers, *workers)} <= set(farm.processes())
    lines = set(farm.admin("/metrics")[1].decode().splitlines())
    assert {f'farm_router_store_ok{{router="{number}"}} 1.0' for number in range(ROUTERS)} <= lines
    assert {f'farm_worker_connections{{shard="{shard}"}} 0.0' for shard in range(2)} <= lines
    shown = command(farm, "status", "--admin-port", str(farm.admin_port)).stdout
    assert all(f"│ router {number}" in shown for number in range(ROUTERS))


def test_app_servers_are_divided_among_the_routers(farm: Farm) -> None:
    with connected(farm) as connections:
        before = [row["http_requests"] for row in farm.status()["routers"]]
        for raw in connections:
            asks(raw)
        assert [row["http_requests"] for row in farm.status()["routers"]] == [number + 1 for number in before]


def test_one_that_is_killed_is_replaced_and_the_others_go_on(farm: Farm) -> None:
    before, workers = pids(farm), of_workers(farm)
    with connected(farm) as connections:
        os.kill(before[1], signal.SIGKILL)
        assert connections[1].rest() == b""

        def replaced() -> bool:
            asks(connections[0])
            asks(connections[2])
            row = farm.status()["routers"][1]
            return row["state"] == "up" and row["pid"] != before[1]

        until(replaced, "there is another router")
        farm.wait_healthy()
        asks(connections[0])
        asks(connections[2])
    after = pids(farm)
    assert (after[0], after[2], of_workers(farm)) == (before[0], before[2], workers)


def test_one_that_is_stopped_is_replaced_and_what_it_was_given_waits_for_the_next(farm: Farm) -> None:
    before, workers = pids(farm), of_workers(farm)
    with connected(farm) as connections, ExitStack() as stack:
        os.kill(before[2], signal.SIGSTOP)
        until(lambda: farm.status()["routers"][2]["state"] == "silent", "it is missed")
        assert farm.admin("/health")[0] == 503
        assert farm.status()["down"] == ["router[2]"]
        waiting = [stack.enter_context(Raw(farm.router_port)) for _ in range(WAITING)]
        for raw in waiting:
            raw.send(LIVE)

        def replaced() -> bool:
            asks(connections[0])
            asks(connections[1])
            return farm.healthy()

        until(replaced, "there is another router")
        assert [answer.status for raw in waiting for answer in raw.answers(1)] == [200] * WAITING
    after = pids(farm)
    assert after[:2] == before[:2] and after[2] != before[2]
    assert of_workers(farm) == workers
    assert [event["name"] for event in farm.events("process.hangs")] == ["router[2]"]


def test_a_reload_replaces_one_after_the_other(farm: Farm) -> None:
    before = pids(farm)
    reload(farm)
    replaced = [event["name"] for event in farm.events("reload.replaced")]
    assert replaced == [f"worker[{n}]" for n in range(2)] + [f"router[{n}]" for n in range(ROUTERS)]
    assert not set(before) & set(pids(farm))
    assert farm.healthy()


def test_a_new_router_that_does_not_serve_is_undone_and_so_are_those_before_it(farm: Farm) -> None:
    before = pids(farm)
    opened = "await self.committer.open()"
    file = farm.root / "router" / "process.py"
    text = file.read_text()
    assert opened in text
    file.write_text(
        text.replace(opened, f"{opened}\n        if self.number == 1:\n            raise OSError('enough')")
    )
    try:
        done = command(farm, "reload", "--data", str(farm.data))
    finally:
        file.write_text(text)
    assert (done.returncode, done.stderr) == (1, "farm reload: rolled back: router[1]: enough\n")
    farm.wait_healthy()
    after = pids(farm)
    assert not {before[0], before[1]} & set(after)
    assert after[2] == before[2]


def test_the_farm_ends_whole(tmp_path: Path) -> None:
    """Routers last, all at once: `stop` sees that nothing is left."""
    with running_farm(tmp_path / "data", SETTINGS) as farm, Raw(farm.router_port) as raw:
        asks(raw)
        farm.stop()
        assert raw.rest() == b""
        names = {path.name for path in farm.data.iterdir()}
        assert not [name for name in names if name.endswith(".sock")]
