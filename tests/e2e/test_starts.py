"""Starts that fail, and the commands for a farm that runs, or does not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_fixture import Farm, command, environ, running_farm
from support.small_disk import fill, mounted


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that runs all the time."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"router.routers": 1}) as farm:
        yield farm


def test_farm_status(farm: Farm) -> None:
    port = str(farm.admin_port)
    shown = command(farm, "status", "--admin-port", port)
    assert shown.returncode == 0
    assert str(farm.worker_pid(0)) in shown.stdout
    assert str(farm.worker_pid(1)) in shown.stdout
    found = json.loads(command(farm, "status", "--json", "--admin-port", port).stdout)
    assert found["status"] == "ok"
    assert found["pid"] == farm.pid


def start_again(farm: Farm, descriptors: int = 0, **changes: object) -> subprocess.CompletedProcess[str]:
    """A second farm like this one, but for some options, and for how many descriptors each process may open."""
    line = farm.arguments()
    for option, value in changes.items():
        line[line.index("--" + option.replace("_", "-")) + 1] = str(value)
    if descriptors:
        line = ["prlimit", f"--nofile={descriptors}", *line]
    return subprocess.run(line, env=environ(), check=False, capture_output=True, text=True, timeout=60)


def why(failed: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why it has not started."""
    lines = [json.loads(line) for line in failed.stderr.splitlines()]
    (found,) = [line["why"] for line in lines if line["event"] == "farm.start_failed"]
    return str(found)


@pytest.mark.parametrize("name", ["device", "router", "admin"])
def test_a_port_that_is_taken(farm: Farm, tmp_path: Path, name: str) -> None:
    ports = {"device_port": 0, "router_port": 0, "admin_port": 0} | {f"{name}_port": getattr(farm, f"{name}_port")}
    failed = start_again(farm, data=tmp_path / "other", **ports)
    assert failed.returncode == 1
    assert re.search(rf"listen\.{name}_port.*{ports[f'{name}_port']}", why(failed))


def test_a_data_folder_that_is_in_use(farm: Farm) -> None:
    failed = start_again(farm, device_port=0, router_port=0, admin_port=0)
    assert failed.returncode == 1
    assert "data.dir" in why(failed)
    assert farm.healthy()


def test_room_for_no_connection(farm: Farm, tmp_path: Path) -> None:
    failed = start_again(farm, data=tmp_path / "other", descriptors=100)
    assert failed.returncode == 1
    assert "no room for any connection, by descriptors: a process may open 100 descriptors" in why(failed)
    assert "raise the limit" in why(failed)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("pages", "file"), [(0, "farm.pid"), (1, "token.key"), (2, "store.sqlite3")])
def test_a_disk_that_is_full(farm: Farm, tmp_path: Path, pages: int, file: str) -> None:
    with mounted(tmp_path / "disk", "64k") as disk:
        fill(disk / "full", pages)
        failed = start_again(farm, data=disk / "data", device_port=0, router_port=0, admin_port=0)
    assert failed.returncode == 1
    assert str(disk / "data" / file) in why(failed)
    assert "free some space" in why(failed)


def test_commands_without_a_farm(farm: Farm, tmp_path: Path) -> None:
    for name in ("drain", "reload"):
        failed = command(farm, name, "--data", str(tmp_path))
        assert (failed.returncode, failed.stdout) == (1, "")
        assert str(tmp_path) in failed.stderr
