"""A farm that is started with another number of routers copies its store first."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.farm_fixture import ROOT, Farm, environ, running_farm, until
from support.redistribution import fill
from support.simplepush import Device, put

OFFLINE = 12
KEY = "A" * 43


def stored(farm: Farm) -> dict[str, int]:
    """Devices with a message that waits for each. Returns: their uaids, and the version."""
    waiting = {}
    for version in range(1, OFFLINE + 1):
        with Device(farm) as device:
            uaid = device.hello()["uaid"]
            _, endpoint = device.register()
        until(lambda endpoint=endpoint, version=version: put(endpoint, version) == 202, "the device has gone")
        waiting[uaid] = version
    return waiting


def delivered(farm: Farm, waiting: dict[str, int]) -> bool:
    for uaid, version in waiting.items():
        with Device(farm) as device:
            assert device.hello(uaid)["uaid"] == uaid
            assert [update["version"] for update in device.receive()["updates"]] == [version]
    return True


def files(data: Path) -> list[str]:
    return sorted(str(path.relative_to(data)) for path in data.rglob("*.sqlite3"))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else can open the file, as while a backup is made of it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE meta SET epoch = epoch")
        yield


def farm_command(name: str, *more: str, data: Path) -> subprocess.CompletedProcess[str]:
    """A command for a farm of two routers."""
    line = [sys.executable, "-m", "farm", name, "--routers", "2", "--data", str(data), "--set", f"token.keys={KEY}"]
    return subprocess.run([*line, *more], cwd=ROOT, env=environ(), check=False, capture_output=True, text=True)


def down(farm: Farm) -> list[str]:
    """What GET /health says is not there yet; empty while nobody answers."""
    try:
        code, body = farm.admin("/health")
    except OSError:
        return []
    assert code == 503
    names: list[str] = json.loads(body)["down"]
    return names


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with running_farm(tmp_path / "data", {"router.routers": 1}, workers=1) as farm:
        yield farm


def test_what_was_stored_is_delivered_with_another_number_of_routers(farm: Farm) -> None:
    waiting = stored(farm)
    for routers, there in ((3, [f"store-1/router-{n}.sqlite3" for n in range(3)]), (1, ["store-2/router-0.sqlite3"])):
        farm.stop()
        farm.settings["router.routers"] = routers
        farm.start()
        (told,) = farm.events("store.redistributed")
        assert (told["routers"], told["rows"]) == (routers, 2 * OFFLINE)
        assert files(farm.data) == there
        assert delivered(farm, waiting)  # and not acknowledged


def begin_to_copy(farm: Farm) -> list[str]:
    """Start it. Returns: what it says about the store, once it says so."""
    farm.launch()
    return until(lambda: [name for name in down(farm) if "copied" in name], "the farm says what it does")


def test_while_it_copies_it_says_so_and_ends_when_told_without_a_change(farm: Farm) -> None:
    waiting = stored(farm)
    farm.stop()
    farm.settings["router.routers"] = 2
    for number in (signal.SIGTERM, signal.SIGKILL):
        with held(farm.data / "store.sqlite3"):
            begin_to_copy(farm)
            os.kill(farm.pid, number)
        assert farm.wait_ended() == (-number if number == signal.SIGKILL else 0)
        assert list(farm.events("store.redistributed")) == []
        assert files(farm.data) == ["store.sqlite3"]
    with held(farm.data / "store.sqlite3"):
        assert begin_to_copy(farm) == ["the store is copied for 2 routers: 0 of 0 rows"]
        status = farm.status()
        assert status["status"] == "starting"
        assert [row["pid"] for row in status["workers"]] == [None]
        assert b"the store is copied for 2 routers" in farm.admin("/ready")[1]
    until(lambda: list(farm.events("store.redistributed")), "it goes on")
    farm.kill()
    farm.settings["router.routers"] = 1
    farm.start()
    assert delivered(farm, waiting)


def test_a_store_that_cannot_be_copied_ends_the_start_with_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, 1, 1)
    (data / "store.layout").write_text("damaged")
    farm = Farm(data, {"router.routers": 2, "token.keys": KEY}, workers=1)
    farm.launch()
    assert farm.wait_ended() == 1
    (told,) = farm.events("farm.start_failed")
    assert told["name"] == "store" and "store.layout is damaged" in told["why"]
    assert "Traceback" not in farm.log_tail()


def test_a_router_alone_does_not_copy_and_says_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, 1, 1)
    ended = farm_command("router", "--number", "1", data=data)
    assert ended.returncode == 1
    assert "`farm start --routers 2` copies it, or set router.routers=1" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert files(data) == ["store.sqlite3"]


def test_a_second_farm_with_another_number_is_refused_and_copies_nothing(farm: Farm) -> None:
    ports = [part for name in ("device", "router", "admin") for part in (f"--{name}-port", "0")]
    ended = farm_command("start", *ports, data=farm.data)
    assert ended.returncode == 1
    assert "another farm runs" in ended.stderr
    assert files(farm.data) == ["store.sqlite3"]
    assert farm.healthy()
