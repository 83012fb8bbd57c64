"""A router that did not run for a while, and the farm that waited for it."""

from __future__ import annotations

import time
from pathlib import Path

from support.farm_fixture import running_farm, until
from support.processes import stopped

LEASE_S = 1.0


def test_a_router_that_did_not_run_has_not_lost_its_workers(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", {"link.lease": LEASE_S, "link.heartbeat": 0.1}, 8) as farm:
        router = farm.status()["routers"][0]["pid"]
        for _ in range(2):
            with stopped(router):
                time.sleep(LEASE_S + 0.5)
            until(lambda: farm.admin("/health")[0] == 200 and len(farm.status()["workers"]) == 8, "it answers again")
        assert list(farm.events("worker.lost")) == []
        assert farm.status()["routers"][0]["pid"] == router
