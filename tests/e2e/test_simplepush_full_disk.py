"""A farm whose disk is full, on a real file system of a few megabytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_fixture import Farm, curl, environ, new_channel, running_farm, until
from support.simplepush import Device, put
from support.small_disk import fill, mounted

SIZE = "6m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", SIZE) as folder:
        yield folder


def failing(farm: Farm) -> bool:
    return farm.status()["routers"][0]["store_ok"] is False


def test_a_full_disk_refuses_pushes_and_registrations_and_passes(small_disk: Path) -> None:
    settings = {"store.sweep_interval": 0.2, "router.routers": 1}
    with running_farm(small_disk / "data", settings) as farm, Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        with Device(farm) as away:
            away.hello()
            its_channel, its_endpoint = away.register()
        until(lambda: put(its_endpoint, 5) == 202, "the device is known to have gone")

        fill(small_disk / "filler")
        answer = curl("--request", "PUT", "--data", "version=1", endpoint)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert {put(endpoint, version) for version in range(2, 30)} == {503}
        with Device(farm) as other:
            assert other.ask(messageType="hello", uaid="", channelIDs=[])["status"] in (200, 503)
            other.send({"messageType": "register", "channelID": new_channel()})
        until(lambda: failing(farm), "it says so")
        assert b'farm_router_store_ok{router="0"} 0.0' in farm.admin("/metrics")[1]
        line = [sys.executable, "-m", "farm", "status", "--admin-port", str(farm.admin_port)]
        shown = subprocess.run(line, env=environ(), cwd=farm.data, check=False, capture_output=True, text=True)
        assert "store ok no" in " ".join(shown.stdout.split())
        assert curl(farm.url("/realstatus/")).status == 503
        ready = [f"http://127.0.0.1:{port}/ready" for port in (farm.admin_port, farm.device_port, farm.router_port)]
        until(lambda: [curl(url).status for url in ready] == [503] * 3, "nothing is ready")
        assert [curl(url).json()["reasons"] for url in ready] == [["the store refuses what is to be kept"]] * 3
        assert farm.healthy()
        # Twenty-nine pushes at least, and one line about them.
        (line,) = farm.events("store.failed")
        assert "free some space" in line["error"]

        (small_disk / "filler").unlink()
        until(lambda: not failing(farm), "it finds out by itself that it can write again")
        until(lambda: [curl(url).status for url in ready] == [200] * 3, "all is ready again")
        assert put(endpoint, 100) == 200
        versions: list[tuple[str, int]] = []
        while not versions or versions[-1] != (channel, 100):
            versions += device.updates()
        assert len(list(farm.events("store.recovered"))) == 1
        with Device(farm) as away_again:
            away_again.hello(away.uaid)
            assert away_again.updates() == [(its_channel, 5)]
        assert not list(farm.events("process.died"))
