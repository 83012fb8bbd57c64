"""More devices at once than a worker may accept in a second: they wait, get in, and the others notice nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import mirror
from support.farm_fixture import running_farm, until
from support.mirror import Mirror

DEVICES = 24
RATE = 20  # so that no more than two are accepted at once


def test_devices_that_are_too_many_at_once_wait_and_get_in(tmp_path: Path) -> None:
    environment = mirror.environment(tmp_path)
    settings = {"limits.setups_per_second": RATE}
    with running_farm(tmp_path / "data", settings, workers=1, environment=environment) as farm:
        with Mirror(farm) as connected, ThreadPoolExecutor(DEVICES) as threads:
            coming = [threads.submit(Mirror, farm) for _ in range(DEVICES)]
            while not all(device.done() for device in coming):
                connected.check()
            for device in coming:
                with device.result() as here:
                    here.check()

        def held_back() -> bool:
            (row,) = farm.status()["workers"]
            return int(row["setups_held_back"]) >= DEVICES // 2 - 1 and int(row["connections_given_up"]) == 0

        until(held_back, "they were held back, and none was given up")
