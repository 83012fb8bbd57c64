"""`farm bench connect`, `fanout` and `replay` in each dialect whose events go to many subscribers, with real farms."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bench import farm_bench

from bench.cli import main
from bench.figures.results import shown
from bench.load.dialect import FanOut
from bench.load.protocols import FAN_OUTS
from bench.runs.deliveries import clean

SEVERAL = [one for one in FAN_OUTS.values() if len(one.modes) > 1]
REPLAYING = [one for one in FAN_OUTS.values() if one.replays]


def test_subscribers_of_all_dialects_are_held(tmp_path: Path) -> None:
    chosen = [word for name in FAN_OUTS for word in ("--dialect", name)]
    common = ("--devices", "150", "--hold", "0.2", "--no-baseline", "--store", "memory")
    body = farm_bench("connect", *chosen, *common, file=tmp_path / "connect.json")
    parts = body.get("parts") or [body]
    assert [part["dialect"] for part in parts] == list(FAN_OUTS)
    assert [part.get("mode") for part in parts] == [(*one.modes, None)[0] for one in FAN_OUTS.values()]
    assert all(part["connect"]["held"] == 150 for part in parts)
    titles = [table.title for table in shown(body).tables]
    for one in FAN_OUTS.values():
        assert f"Connecting devices ({', '.join((one.title, *one.modes[:1]))})" in titles


@pytest.mark.parametrize("fan_out", SEVERAL, ids=lambda one: one.name)
def test_events_reach_subscribers_of_all_modes_at_once(fan_out: FanOut, tmp_path: Path) -> None:
    command = ("fanout", "--dialect", fan_out.name, "--mixed", "--subscribers", "40", "--channels", "2")
    body = farm_bench(*command, "--seconds", "0.5", "--rate", "20", file=tmp_path / "mixed.json")
    assert (body["mode"], body["setup"]["ready"]) == ("mixed", 40)
    for run in body["runs"]:
        assert clean(run), run
        assert run["delivered"] == 20 * run["events"] > 0
        assert run["usage"]["groups"]["load subscribers"]["processes"] == len(fan_out.modes)


@pytest.mark.parametrize("fan_out", REPLAYING, ids=lambda one: one.name)
def test_subscribers_of_all_modes_come_back_to_what_they_missed(fan_out: FanOut, tmp_path: Path) -> None:
    command = ("replay", "--dialect", fan_out.name, "--mixed", "--subscribers", "40", "--channels", "2")
    options = ("--messages", "7", "--rate", "20", "--seconds", "0.3", "--repeat", "2")
    body = farm_bench(*command, *options, file=tmp_path / "replay.json")
    assert (body["mode"], body["setup"]["ready"], len(body["rounds"])) == ("mixed", 40, 2)
    for one in body["rounds"]:
        assert one["clean"] and one["held"] == one["back"] == 40, one
        assert one["delivered"] == one["expected"] >= 40 * 7
        assert one["live"]["delivered"] == 40 and one["seconds"] > 0
    page = shown(body)
    assert "7 messages to each of 40" in page.headline and page.charts
    assert any(table.title.startswith("7 stored messages") for table in page.tables)


@pytest.mark.parametrize("fan_out", REPLAYING[:1], ids=lambda one: one.name)
def test_a_round_that_was_interrupted_is_left_out(fan_out: FanOut, tmp_path: Path) -> None:
    file = tmp_path / "replay.json"
    command = [sys.executable, "-m", "bench.cli", "replay", "--dialect", fan_out.name, "--subscribers", "20"]
    command += ["--repeat", "1000", "--store", "memory", "--json", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        assert bench.stderr is not None
        for _ in range(2):
            assert any(b"cutting the subscribers off" in line for line in bench.stderr)
        bench.send_signal(signal.SIGINT)
        output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 1 and b"interrupted" in output
    body = json.loads(file.read_text())
    assert body["interrupted"] and 0 < len(body["rounds"]) < 1000
    assert all(one["clean"] for one in body["rounds"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        *((("fanout", "--mode", "telepathy"), "--mode"), (("replay", "--mode", "telepathy"), "--mode")),
        *((("replay", "--channels", "9", "--subscribers", "8"), "--channels"),),
        *((("connect", "--bare", "--dialect", name), "--bare") for name in FAN_OUTS),
        *((("connect", "--push", "5", "--dialect", name), "--push") for name in FAN_OUTS),
        *((("connect", "--channels", "5", "--dialect", name), "--channels") for name in FAN_OUTS),
        *((("fanout", "--dialect", one.name, "--mixed", "--mode", one.modes[0]), "--mixed") for one in SEVERAL),
        *((("fanout", "--dialect", one.name, "--mode", SEVERAL[0].modes[-1]), "--mode") for one in SEVERAL[1:]),
    ],
)
def test_arguments_that_are_wrong(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and text in result.output
