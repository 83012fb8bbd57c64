"""What `farm top` makes of two statuses of a farm, and that its screen fits 80 columns."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from farm.cli.top_screen import rendered
from farm.cli.top_view import SORTS, TopView, in_order

Json = dict[str, Any]


def status(grown: int = 0, pids: tuple[int, int] = (11, 12), **more: Any) -> Json:
    """Of a farm of one router and two workers. grown: by how much its counters have."""
    router = {"number": 0, "pid": 10, "state": "up", "restarts": 0, "memory": 50 * 2**20, "age": 60.0, "cpu": 1.0}
    router |= {"http_connections": 7, "pushes": 1000 + 100 * grown, "events": grown, "store_bytes": 2**30}
    workers = [
        {
            "shard": shard,
            "pid": pid,
            "state": "up",
            "restarts": shard,
            "memory": (40 + shard) * 2**20,
            "cpu": 2.0 + grown * (shard + 1) / 4,
            "running": 60.0,
            "connections": 100 * (2 - shard),
            "updates_sent": 10 * grown * (shard + 1),
            "events_sent": 0,
        }
        for shard, pid in enumerate(pids)
    ]
    farm = {"status": "ok", "version": "1.2.3", "uptime": 60.0, "down": [], "pid": 9, "memory": 60 * 2**20, "cpu": 0.5}
    return {**farm, "routers": [router], "workers": workers, **more}


def test_rates_are_what_has_grown_in_a_second() -> None:
    view = TopView()
    first = view.look(status(), 100.0)
    assert {row["rate"] for row in first["processes"]} == {None}
    assert "pushes" not in first["totals"]
    second = view.look(status(4), 102.0)
    assert (second["totals"]["pushes"], second["totals"]["devices"]) == (200, 300)
    rows = {row["process"]: row for row in second["processes"]}
    assert [rows[name]["rate"] for name in ("supervisor", "router 0", "worker 0", "worker 1")] == [None, 202, 20, 40]
    assert [rows[name]["cpu"] for name in ("router 0", "worker 0", "worker 1")] == [0, 0.5, 1]
    assert [rows[name]["connections"] for name in ("supervisor", "router 0", "worker 0")] == [None, 7, 200]


def test_a_process_that_is_new_has_no_rate_yet_and_one_that_is_gone_none() -> None:
    view = TopView()
    view.look(status(4), 100.0)
    found = status(5, pids=(11, 13))
    found["workers"][0] |= {"pid": None, "state": "down"}
    rows = {row["process"]: row for row in view.look(found, 102.0)["processes"]}
    assert (rows["worker 0"]["rate"], rows["worker 1"]["rate"], rows["worker 0"]["state"]) == (None, None, "down")


@pytest.mark.parametrize(
    ("key", "first"),
    [("p", "supervisor"), ("c", "worker 1"), ("m", "supervisor"), ("n", "worker 0"), ("r", "router 0")],
)
def test_orders(key: str, first: str) -> None:
    view = TopView()
    view.look(status(), 100.0)
    rows = view.look(status(4), 102.0)["processes"]
    assert in_order(rows, key)[0]["process"] == first
    assert sorted(row["process"] for row in in_order(rows, key)) == sorted(row["process"] for row in rows)


@pytest.mark.parametrize("key", SORTS)
@pytest.mark.parametrize("height", [None, 24, 10])
def test_a_screen_fits(key: str, height: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    drain = {"phase": "devices", "left": 123_456, "connections": 1_000_000, "remaining_seconds": 3599.9}
    hosts = [{"name": f"host-{number}", "devices": 1_000_000} for number in range(9)]
    more = {"status": "draining", "drain": drain, "cluster": {"hosts": hosts}, "down": ["worker[0]"] * 20}
    view = TopView()
    view.look(status(**more), 100.0)
    found = status(40_000_000, **more)
    found["workers"][0]["connections"] = 1_000_000
    found["workers"][1]["pid"] = 4_194_304
    Console(width=80, force_terminal=False).print(rendered(view.look(found, 102.0), key, height, "no answer " * 20))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("123,456 left" in line for line in lines)
    assert height is None or any(line.startswith("q quits") for line in lines)
