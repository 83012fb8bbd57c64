"""How a farm lets its devices go: announced, at a rate that is the whole farm's, within a deadline."""

from __future__ import annotations

import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import websocket
from support import mirror
from support.farm_fixture import Farm, command, running_farm, until
from support.mirror import Mirror

DEVICES = 24


def phase(farm: Farm) -> str:
    drain = farm.status()["drain"]
    return str(drain and drain["phase"])


def close_code(device: Mirror) -> int:
    """The one that it is closed with; it answers and is gone."""
    opcode, data = device.socket.recv_data()
    device.socket.shutdown()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    (code,) = struct.unpack("!H", data[:2])
    return int(code)


def all_are_let_go(devices: list[Mirror]) -> None:
    with ThreadPoolExecutor(len(devices)) as threads:  # a worker that is replaced waits for those that it let go
        assert set(threads.map(close_code, devices)) == {1001}


def counted(farm: Farm, name: str) -> list[float]:
    """A metric: a value for each process that has it."""
    lines = farm.admin("/metrics")[1].decode().splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]


def test_a_drain_is_announced_and_goes_at_the_rate_of_the_farm(tmp_path: Path) -> None:
    settings = {"drain.notice": 600, "drain.rate": 0.01, "drain.deadline": 1e6}
    environment = mirror.environment(tmp_path)
    with running_farm(tmp_path / "data", settings, environment=environment) as farm:
        assert (farm.status()["drain"], counted(farm, "farm_draining")) == (None, [0])
        devices = [Mirror(farm) for _ in range(DEVICES - 1)]
        os.kill(farm.pid, signal.SIGTERM)
        until(lambda: phase(farm) == "notice", "the drain has begun")
        devices.append(Mirror(farm))  # which is still let in
        for device in devices:
            device.check()
        until(lambda: sum(counted(farm, "farm_worker_connections")) == DEVICES, "it is counted")
        drain = farm.status()["drain"]
        assert (drain["left"], drain["connections"]) == (DEVICES, None)
        assert 0 < drain["remaining_seconds"] <= 600
        os.kill(farm.pid, signal.SIGTERM)
        until(lambda: phase(farm) == "devices", "devices are let go")
        # Each worker lets the first go at once, and the next after a quarter of an hour at least.
        until(lambda: farm.status()["drain"]["left"] == DEVICES - 2, "the first have been let go")
        drain = farm.status()["drain"]
        assert drain["connections"] == DEVICES
        assert 0 < drain["remaining_seconds"] <= DEVICES / 0.01
        assert (counted(farm, "farm_draining"), counted(farm, "farm_worker_let_go_total")) == ([1], [1, 1])
        (begun,) = farm.events("drain.devices")
        assert (begun["connections"], begun["seconds"]) == (DEVICES, DEVICES / 0.01)
        done = command(farm, "status", "--admin-port", str(farm.admin_port))
        assert f"drain: phase devices, left {DEVICES - 2}, connections {DEVICES}, remaining seconds " in done.stdout
        os.kill(farm.pid, signal.SIGTERM)
        assert farm.wait_ended() == 0
        for device in devices:
            device.socket.shutdown()


def test_a_drain_that_would_take_too_long_is_faster(tmp_path: Path) -> None:
    """Its devices are let go one after another all the same, over all of its time, and none is cut off."""
    settings = {"drain.rate": 0.01, "drain.deadline": 1, "worker.close_timeout": 600}
    environment = mirror.environment(tmp_path)
    with running_farm(tmp_path / "data", settings, environment=environment) as farm:
        devices = [Mirror(farm) for _ in range(DEVICES)]
        until(lambda: sum(counted(farm, "farm_worker_connections")) == DEVICES, "all are counted")
        os.kill(farm.pid, signal.SIGTERM)
        all_are_let_go(devices)
        assert farm.wait_ended() == 0
        (begun,) = farm.events("drain.devices")
        assert begun["connections"] == DEVICES
        assert 0 < begun["seconds"] <= 1
        assert not list(farm.events("process.killed"))


def test_workers_that_are_replaced_let_go_at_the_same_rate(tmp_path: Path) -> None:
    """Only one at a time does then, so the rate is its own."""
    settings = {"drain.rate": 2 * DEVICES, "worker.close_timeout": 600}
    environment = mirror.environment(tmp_path)
    with running_farm(tmp_path / "data", settings, environment=environment) as farm:
        devices = [Mirror(farm) for _ in range(DEVICES)]
        until(lambda: sum(counted(farm, "farm_worker_connections")) == DEVICES, "all are counted")
        os.kill(farm.pid, signal.SIGHUP)
        all_are_let_go(devices)
        until(lambda: farm.status()["last_reload"], "all have been replaced")
        drained = [(event["workers"], event["connections"], event["seconds"]) for event in farm.events("drain.devices")]
        assert sum(connections for _, connections, _ in drained) == DEVICES
        assert drained == [(1, connections, round(connections / (2 * DEVICES), 1)) for _, connections, _ in drained]
        assert len(drained) == len(farm.status()["workers"])
        assert farm.status()["drain"] is None
