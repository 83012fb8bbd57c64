"""`farm bench instances` on real farms of SimplePush devices, in groups and without, and how a run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.control_groups import MIB, needs_groups

from bench.figures.results import checked
from bench.machine.cgroups import here
from bench.views import instances as view

pytestmark = pytest.mark.measured

QUICK = ("--ceiling-hold", "0.5", "--hold", "1", "--push-seconds", "0.5", "--connections", "8", "--sample", "100")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "farm", "bench", "instances", *QUICK, *arguments]


def bench(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, document, and what was printed."""
    file = tmp_path / "instances.json"
    done = subprocess.run(
        [*command(*arguments), "--json", str(file)], capture_output=True, text=True, timeout=240, check=False
    )
    assert file.exists(), done.stderr
    return done.returncode, checked(json.loads(file.read_text())), done.stdout


def groups_left(pid: int) -> list[Path]:
    """Groups that a bench with this pid has left."""
    mounts = {place.mount for place in here().values()}
    return [Path(parent, name) for mount in mounts for parent, names, _ in os.walk(mount) for name in names
            if name.startswith(f"farm-bench-{pid}-")]  # fmt: skip


def stages(body: dict[str, Any], at: int = 0) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    row = body["profiles"][at]
    return row, row.get("reproduce", {}), row.get("ramp", {})


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def started_bench(file: Path) -> "subprocess.Popen[str]":
    """A bench that holds devices for long; returns once it does."""
    words = command("--memory", "300MiB", "--devices", "50", "--only-reproduce", "--json", str(file))
    words[words.index("--hold") + 1] = "600"
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "50 connected" in line:
            return process
    raise AssertionError("".join(said))


def farms_of(group: list[Path]) -> list[int]:
    return [int(word) for folder in group for word in (folder / "cgroup.procs").read_text().split()]


@needs_groups
def test_a_figure_is_held_and_a_ramp_goes_on_from_there(tmp_path: Path) -> None:
    arguments = ("--memory", "300MiB", "--cpus", "1", "--devices", "150", "--max-devices", "300")
    code, body, printed = bench(tmp_path, *arguments, "--price", "custom=3")
    row, figure, ceiling = stages(body)
    assert code == 0, printed
    assert body["accounting"]["kind"] == "cgroup"
    assert "kernel memory of sockets is" in body["accounting"]["text"]
    assert row["reproduced"] and row["clean"] and row["held"] == figure["held"] == 150
    assert row["ceiling"] == ceiling["held"] == sum(ceiling["shards"].values()) == 300
    assert row["limit"]["kind"] == "none" and "--max-devices" in row["limit"]["text"]
    assert row["dollars_a_million"] == pytest.approx(10_000)
    for stage in (figure, ceiling):
        assert not stage["drops"] and not stage["setup"]["failures"]
        assert stage["memory"]["used"] <= stage["peak"] <= 300 * MIB
        assert stage["connection"]["kernel"] > 1000
        for run in stage["push"]:
            assert run["clean"] and run["delivered"] == sum(run["statuses"].values()) > 0
    assert ceiling["points"][-1]["devices"] == 300
    bars, curves = view.charts(body)
    assert {series.name: list(series.y) for series in bars.series} == {"held": [150], "ceiling": [300]}
    assert list(curves.series[0].x)[-1] == 300
    assert "first hold" in printed and "Connections held by instance" in printed


@needs_groups
def test_the_memory_limit_is_reached_and_named(tmp_path: Path) -> None:
    code, body, printed = bench(tmp_path, "--memory", "128MiB", "--cpus", "2", "--only-ramp", "--store", "memory")
    row, _, ceiling = stages(body)
    assert row["limit"]["kind"] == "memory", printed
    assert ceiling["memory"]["used"] > 0.9 * 128 * MIB
    assert ceiling["oom_kills"] == 0
    assert ceiling["held"] > 1000
    assert code == 0, printed


@needs_groups
def test_full_workers_are_named(tmp_path: Path) -> None:
    arguments = ("--memory", "300MiB", "--cpus", "2", "--only-ramp", "--max-devices", "4000")
    code, body, printed = bench(tmp_path, *arguments, "--workers", "1", "--set", "worker.max_connections=1500")
    row, _, ceiling = stages(body)
    assert row["limit"]["kind"] == "descriptors", printed
    assert 1000 < ceiling["held"] <= 1500  # those that are refused take room, too, until they are told
    assert code == 0, printed


def test_without_a_group_every_output_says_so(tmp_path: Path) -> None:
    arguments = ("--no-cgroup", "--only-reproduce", "--devices", "100", "--memory", "300MiB")
    out = tmp_path / "out"
    code, body, printed = bench(tmp_path, *arguments, "--out", str(out))
    row, figure, _ = stages(body)
    assert code == 0, printed
    assert row["held"] == 100 and figure["memory"]["user"] > 10 * MIB
    assert body["accounting"]["kind"] == "accounted" and "NO CONTROL GROUP" in printed
    assert all(any("no control group" in note.lower() for note in table.notes) for table in view.tables(body))
    assert all("no control group" in chart.note for chart in view.charts(body))
    assert "NO CONTROL GROUP" in (out / "instances.md").read_text()


def test_accounted_memory_ends_a_ramp(tmp_path: Path) -> None:
    code, body, printed = bench(tmp_path, "--no-cgroup", "--only-ramp", "--memory", "128MiB", "--store", "memory")
    row, _, ceiling = stages(body)
    assert row["limit"]["kind"] == "memory", printed
    assert 1000 < ceiling["held"] < 20_000
    assert code == 0, printed


def test_a_farm_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    words = command("--no-cgroup", "--memory", "300MiB", "--set", "no.such=1", "--max-devices", "10")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "custom: the farm ended with code 2 at its start" in done.stderr
    assert "Traceback" not in done.stderr


@needs_groups
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_was_measured(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    with started_bench(file) as process:
        left = groups_left(process.pid)
        farm = farms_of(left)
        assert left and len(farm) >= 4
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "interrupted" in output
    body = checked(json.loads(file.read_text()))
    row, figure, _ = stages(body)
    assert body["interrupted"] and row["held"] == 50 and "push" not in figure and "error" not in row
    assert groups_left(process.pid) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in farm)


@needs_groups
def test_what_a_killed_run_left_is_gone_after_the_next(tmp_path: Path) -> None:
    with started_bench(tmp_path / "killed.json") as process:
        farm = farms_of(groups_left(process.pid))
        process.kill()
        process.communicate(timeout=60)
    assert groups_left(process.pid)
    code, _, printed = bench(tmp_path, "--memory", "300MiB", "--devices", "50", "--only-reproduce")
    assert code == 0, printed
    assert groups_left(process.pid) == []
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in farm))
    assert not list(Path("/tmp").glob(f"farm-bench-{process.pid}-*"))
