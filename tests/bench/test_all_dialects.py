"""`farm bench push` and `connect` in each dialect that there is, and in all of them one after the other."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bench import balanced, farm_bench, push_to
from support.misbehaving import Rules, every, misbehaving

from bench.cli import main
from bench.figures.evidence import evidence
from bench.figures.profiles import PROFILES
from bench.figures.results import shown
from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS
from bench.load.samples import ACCEPTED

pytestmark = pytest.mark.measured

FIRST, *OTHERS = DIALECTS.values()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_a_good_server_gets_a_clean_report(dialect: Dialect) -> None:
    with misbehaving(Rules()) as server:
        run = push_to(server, grace=5, dialect=dialect)
    assert not server.faults
    assert run["clean"] and run["delivered"] == run["pushes"] == sum(server.acks.values()) > 0
    ((status, count),) = run["statuses"].items()
    assert status in ACCEPTED and count == run["pushes"]
    assert not run["errors"] and not run["drops"] and run["held"] == 20
    assert max(server.acks.values()) == 1
    assert run["to_frame_ms"]["p50"] <= run["to_frame_ms"]["max"]


@pytest.mark.parametrize("name", [*DIALECTS, "all"])
def test_what_a_server_did_wrong_is_exit_code_1(name: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with misbehaving(Rules(push=every(10, "lose"))) as server:
        common = ["--url", server.url, "--admin", "", "--devices", "10", "--json", str(file)]
        result = CliRunner().invoke(main, ["push", "--dialect", name, "--seconds", "0.3", "--grace", "0.1", *common])
    assert result.exit_code == 1, result.output
    assert server.faults
    assert not json.loads(file.read_text())["interrupted"]  # it went to its end, and said so


def test_a_device_that_fails_in_one_of_them_is_exit_code_1(tmp_path: Path) -> None:
    with misbehaving(Rules(device=lambda number: "refuse" if number == 10 * len(DIALECTS) - 1 else "")) as server:
        common = ["--url", server.url, "--admin", "", "--devices", "10"]
        result = CliRunner().invoke(main, ["push", "--dialect", "all", "--seconds", "0.3", "--grace", "0.1", *common])
    assert result.exit_code == 1, result.output
    assert server.faults == {"refuse": 1}


def test_pushes_in_all_dialects(tmp_path: Path) -> None:
    arguments = ("push", "--dialect", "all", "--devices", "60", "--seconds", "0.5", "--store", "memory", "--half")
    body = farm_bench(*arguments, file=tmp_path / "push.json")
    parts = body.get("parts") or [body]
    assert [(part["dialect"], part["payload"]) for part in parts] == [
        (dialect.name, dialect.payload) for dialect in DIALECTS.values()
    ]
    for part in parts:
        assert all(run["clean"] and balanced(run) and run["delivered"] == run["pushes"] > 0 for run in part["runs"])
    base, *rates = (part["runs"][0]["notifications_a_second"] for part in parts)
    page = shown(body)
    assert set(body["ratios"]) == {dialect.name for dialect in OTHERS}
    for dialect, rate in zip(OTHERS, rates, strict=True):
        assert body["ratios"][dialect.name]["notifications_a_second"] == pytest.approx(rate / base, rel=1e-4)
        assert body["ratios"][dialect.name]["router_cpu_a_push"] > 0
        assert page.tables[0].title.endswith(f" : {FIRST.title}") and dialect.title in page.tables[0].title
        assert f"{rate / base:.2f}" in page.tables[0].rows[0]
        assert f"{dialect.title} at " in page.headline
    titles = [table.title for table in page.tables]
    for dialect in DIALECTS.values():
        size = f", {dialect.payload:,} bytes each" if dialect.payload else ""
        assert f"Pushing to 60 devices ({dialect.title}{size})" in titles
    assert len(page.charts) == 2 * len(DIALECTS)
    found = evidence(PROFILES["small"], [("x.json", body)])
    assert len(found.pushes) == 2 * len(DIALECTS)
    for dialect in OTHERS:
        assert sum(f"({dialect.title})" in one.source for one in found.pushes) == 2


def test_devices_of_all_dialects_are_held(tmp_path: Path) -> None:
    body = farm_bench(
        "connect", "--dialect", "all", "--devices", "300", "--hold", "0.2", file=tmp_path / "connect.json"
    )
    first, *others = body["parts"]
    assert [part["dialect"] for part in body["parts"]] == list(DIALECTS)
    assert all(part["connect"]["held"] == 300 for part in body["parts"])
    assert "baseline" in first and not any("baseline" in part for part in others)
    base, *costs = (part["connect"]["user_memory"]["workers"]["a_connection"] for part in body["parts"])
    page = shown(body)
    titles = {table.title for table in page.tables}
    for dialect, cost in zip(OTHERS, costs, strict=True):
        ratio = pytest.approx(cost / base, rel=1e-4) if min(base, cost) > 0 else None
        assert body["ratios"][dialect.name]["workers_memory_a_device"] == ratio
        assert body["ratios"][dialect.name]["setup_rate"] > 0
    for dialect in DIALECTS.values():
        assert f"Connecting devices ({dialect.title})" in titles
        assert f"{dialect.title}: 300 devices ready" in page.headline


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_arguments_that_a_dialect_does_not_take(dialect: Dialect) -> None:
    wrong = []
    if dialect.least:
        wrong += [
            (name, ["push", "--payload", str(dialect.least - 1)], f"{dialect.least} bytes") for name in ("all", "")
        ]
    if not dialect.batch_wire:
        wrong += [(name, ["push", "--batch", "5"], "--batch") for name in ("all", "")]
    if dialect is not FIRST:
        wrong.append(("", ["connect", "--bare"], "--bare"))
    for name, arguments, text in wrong:
        result = CliRunner().invoke(main, [*arguments, "--dialect", name or dialect.name])
        assert result.exit_code == 2 and text in result.output
