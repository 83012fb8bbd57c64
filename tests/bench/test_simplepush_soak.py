"""`farm bench soak`: whether memory grows, its samples, servers that misbehave, and a real farm."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.bench import farm_bench, quiet
from support.misbehaving import Rules, every, misbehaving

from bench.cli import main
from bench.figures import slope
from bench.figures.slope import MIB, fit, judge
from bench.interrupt import Interrupt
from bench.runs import soak
from bench.runs.load import Load
from bench.target import Target
from bench.views import soak as view

pytestmark = pytest.mark.measured

HOUR = 3600.0


def samples_of(
    hours: float, growth: float, warm_up: float = 0.0, every: float = 60.0
) -> tuple[list[float], list[float]]:
    """Samples of a process that grows by `growth` MiB an hour, and by `warm_up` MiB in the first third."""
    times = [every * number for number in range(int(hours * HOUR / every))]
    third = hours * HOUR / 3
    return times, [50 * MIB + MIB * (growth * at / HOUR + warm_up * min(1.0, at / third)) for at in times]


def sample(at: float, memory: int | None = 1, p99: float = 1.0) -> dict[str, Any]:
    return {
        "at": at,
        "memory": {"router": memory},
        "pushes": 10,
        "to_frame_ms": {"p50": 0.5, "p99": p99, "max": p99},
        "to_response_ms": {},
    }


@given(st.floats(-1e3, 1e3), st.floats(-1e6, 1e6), st.integers(3, 50))
def test_a_line_is_found_exactly(rise: float, start: float, count: int) -> None:
    times = [float(number) for number in range(count)]
    line = fit(times, [start + rise * time for time in times])
    assert line is not None
    assert line.slope == pytest.approx(rise, abs=1e-6 * (1 + abs(start)))
    assert line.error == pytest.approx(0, abs=1e-6 * (1 + abs(start)))


def test_a_line_with_noise_has_the_textbook_error() -> None:
    line = fit([0, 1, 2, 3], [1, 2, 2, 4])
    assert line is not None
    assert line.slope == pytest.approx(0.9)
    # residuals 0.1, 0.2, -0.7, 0.4; their squares sum to 0.7; the times' to 5
    assert line.error == pytest.approx((0.7 / 2 / 5) ** 0.5)


def test_there_is_no_line_through_too_little() -> None:
    assert fit([], []) is None and fit([1, 2], [1, 2]) is None and fit([1, 1, 1], [1, 2, 3]) is None


@pytest.mark.parametrize(
    ("hours", "growth", "warm_up", "verdict"),
    [
        (8, 0.0, 0.0, "steady"),
        (8, 1.0, 0.0, "steady"),
        (8, 3.0, 0.0, "grows"),
        (8, -3.0, 0.0, "steady"),
        (8, 0.0, 500.0, "steady"),  # the first half is warm-up
        (8, 2.0, 0.0, "too short to tell"),  # within what one arena does
        (1, 3.0, 0.0, "too short to tell"),
        (1, 0.0, 0.0, "too short to tell"),
        (1, 50.0, 0.0, "grows"),
        (0.02, 5000.0, 0.0, "too short to tell"),
    ],
)
def test_verdicts(hours: float, growth: float, warm_up: float, verdict: str) -> None:
    times, sizes = samples_of(hours, growth, warm_up)
    found = judge(times, sizes, 1, 2.0)
    assert found["verdict"] == verdict
    if found["slope"] is not None:
        assert found["slope"] == pytest.approx(growth, abs=0.01)


def test_no_single_arena_is_a_leak() -> None:
    times, flat = samples_of(8, 0.0)
    for step in range(0, len(times), 7):
        sizes = [size + (slope.STEP_BYTES if number >= step else 0) for number, size in enumerate(flat)]
        assert judge(times, sizes, 1, 0.1)["verdict"] != "grows"


def test_nothing_is_judged_without_samples() -> None:
    assert judge([], [], 1, 2.0)["verdict"] == "too short to tell"
    assert soak.grown([], {}, 2.0) == {}


def test_joined_samples_keep_the_end_and_the_worst() -> None:
    both = soak.joined([sample(1, 7, 9.0), sample(2, 8, 3.0)])
    assert (both["at"], both["memory"], both["pushes"]) == (2, {"router": 8}, 20)
    assert both["to_frame_ms"] == {"p50": 0.5, "p99": 9.0, "max": 9.0} and both["to_response_ms"] == {}
    assert soak.joined([sample(1)]) == sample(1)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, 719])
def test_a_result_keeps_few_samples_and_all_of_their_pushes(count: int) -> None:
    samples = [sample(at, at, float(at)) for at in range(count)]
    kept = soak.thinned(samples)
    assert min(count, soak.MOST_KEPT // 2) <= len(kept) <= soak.MOST_KEPT
    assert sum(point["pushes"] for point in kept) == 10 * count
    assert kept[:1] == samples[:1] and [point["at"] for point in kept[-1:]] == [point["at"] for point in samples[-1:]]


def test_samples_in_which_the_farm_did_not_answer_are_left_out() -> None:
    samples = [sample(at * 60.0, None if at % 3 == 0 else 5 * MIB) for at in range(600)]
    verdict = soak.grown(samples, {"router": 1}, 2.0)["router"]
    assert verdict["verdict"] == "steady" and verdict["samples"] == 200
    assert "workers" not in soak.grown(samples, {"router": 1}, 2.0)


def test_a_soak_of_a_farm(tmp_path: Path) -> None:
    arguments = ["soak", "--devices", "200", "--seconds", "12", "--every", "0.5", "--churn", "30", "--rate", "200"]
    pings = ["--ping", "1", "--set", "simplepush.min_ping_interval=0"]
    body = farm_bench(*arguments, "--backoff", "0.3", *pings, file=tmp_path / "soak.json")
    done = body["soak"]
    assert done["clean"] and not done["grows"] and done["held"] == 200
    assert done["left"] == done["returned"] > 100
    assert done["pings"]["sent"] > 0 and done["pings"]["overdue"] == 0
    assert done["deliveries"]["sent"] == sum(point["pushes"] for point in done["samples"]) > 1000
    assert done["deliveries"]["lost"] == 0 and done["deliveries"]["statuses"]["202"] > 0
    for point in done["samples"]:
        assert point["memory"]["router"] > 0 and point["descriptors"]["workers"] > 0
        assert point["connections"] > 0 and point["to_frame_ms"]["p99"] > 0
    # no claim is made of what so short a run can't show, and it says so
    assert {verdict["verdict"] for verdict in done["growth"].values()} == {"too short to tell"}
    deliveries, growth = view.tables(body)[:2]
    assert any("too short to tell" in row for row in growth.rows) and "neither" in growth.notes[-1]
    assert ["lost (accepted, never arrived)", "0"] in deliveries.rows
    charts = view.charts(body)
    assert [chart.title for chart in charts][:2] == ["Memory", "Descriptors"]
    assert all(len(line.x) == len(line.y) == len(done["samples"]) for chart in charts for line in chart.series)


def test_a_long_soak_is_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "MOST_SAMPLES", 4)
    plan = soak.Plan(seconds=2.5, every=0.1, churn=0, rate=50, grace=60, backoff=0.1)
    with misbehaving(Rules()) as server:
        target = Target(url=server.url, admin="")
        load = Load(10, endpoints_every=1)
        done = soak.run(target, load, plan, interrupt=Interrupt(), progress=quiet())["soak"]
    assert 2 <= len(done["samples"]) <= 4
    assert sum(point["pushes"] for point in done["samples"]) == server.pushes == done["deliveries"]["sent"]
    assert done["clean"] and done["growth"] == {}


def test_a_soak_finds_what_was_lost() -> None:
    plan = soak.Plan(seconds=0.6, every=0.3, churn=0, rate=50, grace=5, backoff=0.1)  # a busy machine is no loss
    with misbehaving(Rules(push=every(10, "lose"))) as server:
        target = Target(url=server.url, admin="")
        load = Load(10, endpoints_every=1)
        done = soak.run(target, load, plan, interrupt=Interrupt(), progress=quiet())["soak"]
    assert done["deliveries"]["lost"] == server.faults["lose"] > 0 and not done["clean"]


def test_an_interrupt_ends_a_soak_with_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    command = [sys.executable, "-m", "bench.cli", "soak", "--admin", "", "--devices", "20", "--every", "0.3"]
    with misbehaving(Rules()) as server:
        command += ["--url", server.url, "--churn", "0", "--rate", "50", "--json", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
            assert bench.stderr is not None
            assert any(b"soaking: " in line for line in bench.stderr)
            bench.send_signal(signal.SIGINT)
            output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 1 and b"interrupted" in output
    body = json.loads(file.read_text())
    assert body["interrupted"] and body["soak"]["samples"] and body["soak"]["clean"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["soak", "--help"], 0, "farm bench soak --hours"),
        (["soak", "--every", "0"], 2, "--every"),
        (["soak", "--url", "ws://127.0.0.1:1/", "--admin", "", "--devices", "3"], 1, "no device could be set up"),
    ],
)
def test_arguments(arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.output.split())
