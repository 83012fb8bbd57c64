"""`farm bench soak`: whether anything creeps, its samples, servers that misbehave, and a real farm."""

import json
import math
import random
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
from bench.figures import creep
from bench.figures.creep import MIB
from bench.figures.slope import fit, judge
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
    return times, [50 + growth * at / HOUR + warm_up * min(1.0, at / third) for at in times]


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
    found = judge(times, sizes, 2.0, step=1.0)
    assert found["verdict"] == verdict
    if found["slope"] is not None:
        assert found["slope"] == pytest.approx(growth, abs=0.01)


def test_no_single_arena_is_a_leak() -> None:
    times, flat = samples_of(8, 0.0)
    for step in range(0, len(times), 7):
        sizes = [size + (number >= step) for number, size in enumerate(flat)]
        assert judge(times, sizes, 0.01, step=1.0)["verdict"] != "grows"


def noise(count: int, scatter: float, alike: float, seed: int) -> list[float]:
    """Each one `alike` times the one before, and a new part; their standard deviation is `scatter`."""
    chance, last, found = random.Random(seed), 0.0, []
    for _ in range(count):
        last = alike * last + chance.gauss(0, scatter * (1 - alike**2) ** 0.5)
        found.append(last)
    return found


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_noise_that_remembers_is_seldom_taken_for_growth(alike: float) -> None:
    times = [20.0 * number for number in range(360)]
    judged = [judge(times, noise(360, 10.0, alike, seed), 0.0) for seed in range(200)]
    assert sum(found["verdict"] == "grows" for found in judged) <= 10  # 2.5 % are expected
    assert sum(abs(found["slope"]) > found["uncertainty"] for found in judged) <= 24


def test_growth_is_found_in_noise_that_remembers() -> None:
    times = [20.0 * number for number in range(360)]
    for seed in range(20):
        values = [200 * at / HOUR + part for at, part in zip(times, noise(360, 10.0, 0.5, seed), strict=True)]
        assert judge(times, values, 100.0)["verdict"] == "grows"
        assert judge(times, values, 300.0)["verdict"] == "steady"


def test_one_window_that_took_very_long_outweighs_no_others() -> None:
    times = [20.0 * number for number in range(360)]
    values = [2.0 * math.exp(part) for part in noise(360, 0.3, 0.0, 1)]
    calm = judge(times, values, 1.0, ratios=True)
    values[300] = 400.0
    assert judge(times, values, 1.0)["verdict"] == "too short to tell"
    spiked = judge(times, values, 1.0, ratios=True)
    assert calm["verdict"] == spiked["verdict"] == "steady"
    assert abs(spiked["slope"] - calm["slope"]) < 0.5


def test_a_slope_through_logarithms_is_in_the_units_of_the_figure() -> None:
    times = [60.0 * number for number in range(120)]
    found = judge(times, [10.0 + at / HOUR for at in times], 0.5, ratios=True)
    assert found["slope"] == pytest.approx(1.0, rel=0.01) and found["verdict"] == "grows"
    assert judge(times, [0.0] * 120, 0.5, ratios=True)["verdict"] == "too short to tell"  # a clock too coarse


def test_nothing_is_judged_without_samples() -> None:
    assert judge([], [], 2.0)["verdict"] == "too short to tell"
    assert creep.verdicts([], creep.Limits()) == {}


def two_hours(**creeping: float) -> list[dict[str, Any]]:
    """Samples every 20 s of a farm in which what is named grows by so much an hour, among what figures scatter."""
    scatter = {name: noise(360, 0.1, 0.5, seed) for seed, name in enumerate(("held", "open", "p50", "p99", "memory"))}
    samples = []
    for number in range(360):
        at = 20.0 * number

        def grown(name: str, at: float = at) -> float:
            return creeping.get(name, 0.0) * at / HOUR

        held = 9_900 + round(100 * scatter["held"][number])
        p50 = (0.7 + grown("p50")) * math.exp(scatter["p50"][number])
        p99 = (4.0 + grown("p99")) * math.exp(scatter["p99"][number])
        memory = {"router": 15 * MIB + grown("memory") * MIB, "workers": 25 * MIB + 2e5 * scatter["memory"][number]}
        opened = held + 40 + round(20 * scatter["open"][number] + grown("descriptors"))
        samples.append(
            {
                "at": at,
                "memory": memory,
                "descriptors": {"router": 90, "workers": opened},
                "connections": held,
                "to_frame_ms": {"p50": p50, "p99": p99, "max": 2 * p99},
                "to_response_ms": {"p50": 2 * p50, "p99": 2 * p99, "max": 3 * p99},
                "pushes": 2000,
            }
        )
    return samples


def test_two_hours_in_which_nothing_creeps_are_steady() -> None:
    for samples in (two_hours(), soak.thinned(two_hours())):
        found = creep.verdicts(samples, creep.Limits())
        assert {name: verdict["verdict"] for name, verdict in found.items()} == {
            "memory, router": "steady",
            "memory, workers": "steady",
            "descriptors, router": "steady",
            "descriptors, workers": "steady",
            "PUT to frame, p50": "steady",
            "PUT to frame, p99": "steady",
            "PUT to answer, p50": "steady",
            "PUT to answer, p99": "steady",
        }
        assert not creep.grows(found)
        # a worker's descriptors without those of its devices
        assert 30 < found["descriptors, workers"]["first"] < 50 and found["descriptors, router"]["last"] == 90


@pytest.mark.parametrize(
    ("creeping", "names"),
    [
        ({"memory": 4.0}, ["memory, router"]),
        ({"descriptors": 20.0}, ["descriptors, workers"]),
        ({"p50": 1.0}, ["PUT to frame, p50", "PUT to answer, p50"]),
        ({"p99": 6.0}, ["PUT to frame, p99", "PUT to answer, p99"]),
    ],
)
def test_what_creeps_is_named_also_when_it_is_judged_from_a_result(
    creeping: dict[str, float], names: list[str]
) -> None:
    for samples in (two_hours(**creeping), soak.thinned(two_hours(**creeping))):
        assert creep.grows(creep.verdicts(samples, creep.Limits())) == names


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
    samples = two_hours()
    for point in samples[::3]:
        point |= {"memory": {"router": None, "workers": None}, "descriptors": {}, "connections": None}
    found = creep.verdicts(samples, creep.Limits())
    assert found["memory, router"]["verdict"] == "steady" and found["memory, router"]["samples"] == 120
    assert found["descriptors, workers"]["samples"] == 120 and "memory, supervisor" not in found
    for point in samples:
        point["to_frame_ms"] = {}
    assert "PUT to frame, p50" not in creep.verdicts(samples, creep.Limits())


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A result of two hours by a release that judged only memory, and not what grew there."""
    body = json.loads((Path(view.__file__).parents[1] / "results" / "soak.json").read_text())
    body["soak"]["samples"] = [sample(0) | point for point in soak.thinned(two_hours(descriptors=40.0))]
    for point in body["soak"]["samples"]:
        point |= {"devices": 10_000, "away": 0}
    body["soak"]["growth"] = {"router": body["soak"]["growth"].get("router", {}) | {"verdict": "steady"}}
    body["soak"]["growth"]["router"].pop("unit", None)
    file = tmp_path / "old.json"
    file.write_text(json.dumps(body))
    return file


def test_a_result_of_an_older_release_is_shown_with_all_verdicts(result: Path) -> None:
    growth = view.tables(json.loads(result.read_text()))[1]
    assert next(row for row in growth.rows if row[0] == "descriptors, workers")[-1] == "grows"


def test_a_result_is_judged_again_by_other_limits(result: Path, tmp_path: Path) -> None:
    before = json.loads(result.read_text())
    command = ["soak", "--judge", str(result), "--out", str(tmp_path / "out"), "--no-pictures"]
    limits = ["--max-p50-slope", "0.4", "--max-p99-slope", "4"]
    found = CliRunner().invoke(main, [*command, *limits])
    assert found.exit_code == 1, found.output
    body = json.loads((tmp_path / "out" / "soak.json").read_text())
    assert body["soak"]["grows"] == ["descriptors, workers"]
    assert (body["when"], body["commit"]) == (before["when"], before["commit"])
    assert body["options"] == before["options"] | {
        "max_slope": 2.0,
        "max_descriptors_slope": 10.0,
        "max_p50_slope": 0.4,
        "max_p99_slope": 4.0,
    }
    assert "+4" in (tmp_path / "out" / "soak.md").read_text()
    again = CliRunner().invoke(main, [*command, *limits, "--max-descriptors-slope", "60", "--name", "allowed"])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "out" / "allowed.json").read_text())["soak"]["grows"] == []


def test_only_a_soak_can_be_judged(tmp_path: Path, result: Path) -> None:
    body = json.loads(result.read_text())
    for wrong, text in (
        ({"command": "push"}, "only one of 'soak'"),
        ({"soak": {}}, "without the samples"),
        ({"soak": {"samples": [{"at": 1}]}}, "without the samples"),
    ):
        file = tmp_path / "wrong.json"
        file.write_text(json.dumps(body | wrong))
        found = CliRunner().invoke(main, ["soak", "--judge", str(file)])
        assert found.exit_code == 1 and text in found.output and "Traceback" not in found.output


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
    assert done["clean"] and {name.split(",")[0] for name in done["growth"]} == {"PUT to frame", "PUT to answer"}


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
