"""More devices at once than a worker may accept in a second: they wait, get in, and the others notice nothing; those
that would wait for too long are told when to come again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import websocket
from support import mirror
from support.farm_fixture import Farm, running_farm, until
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


def retry_after(farm: Farm) -> int:
    """What a device is told that connects now; 0: it is in, and hears what it says."""
    try:
        with Mirror(farm) as here:
            here.check()
    except websocket.WebSocketBadStatusException as refused:
        assert refused.status_code == 503
        assert refused.resp_headers is not None
        return int(refused.resp_headers["retry-after"])
    return 0


def test_devices_that_would_wait_for_too_long_are_told_when_to_come_again(tmp_path: Path) -> None:
    environment = mirror.environment(tmp_path)
    settings = {"limits.setups_per_second": 1, "limits.setups_wait": 1, "worker.retry_after": 10}
    with running_farm(tmp_path / "data", settings, workers=1, environment=environment) as farm:
        with ThreadPoolExecutor(DEVICES) as threads:
            told = list(threads.map(retry_after, [farm] * DEVICES))
        refused = [seconds for seconds in told if seconds]
        assert 0 < len(refused) < DEVICES
        assert set(refused) <= set(range(5, 16))

        def counted() -> bool:
            (row,) = farm.status()["workers"]
            return int(row["setups_refused"]) == len(refused)

        until(counted, "each of them was counted")
