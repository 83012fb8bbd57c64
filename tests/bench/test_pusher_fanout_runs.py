"""`farm bench fanout` with Pusher: its arguments and exit codes, and a real farm."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bench import farm_bench
from support.misbehaving import Rules
from support.misbehaving_pusher import misbehaving_pusher

from bench.cli import main
from bench.figures.results import shown
from bench.load.protocols.pusher import OURS
from bench.runs.deliveries import clean

pytestmark = pytest.mark.measured

CHANNEL = "fanout-1"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--channels", "9", "--subscribers", "8"), "--channels"),
        (("--no-flat-out",), "--no-flat-out"),
        (("--payload", "19"), "--payload"),
        (("--url", "ws://127.0.0.1:1/"), "--apps"),
        (("--in-flight", "0"), "--in-flight"),
    ],
)
def test_arguments_that_are_wrong(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, ["fanout", *arguments])
    assert result.exit_code == 2 and text in result.output


@pytest.mark.parametrize(("fault", "code"), [("", 0), ("lose", 1), ("refuse", 1), ("cut", 1)])
def test_exit_codes(fault: str, code: int, tmp_path: Path) -> None:
    apps, file = tmp_path / "apps.json", tmp_path / "fanout.json"
    apps.write_text(json.dumps({"applications": [{"id": 1, "name": "n", "key": OURS.key, "secret": OURS.secret}]}))
    with misbehaving_pusher(Rules(push=lambda number: fault if number == 3 else "")) as server:
        command = ["fanout", "--url", server.url, "--admin", "", "--router", server.router, "--apps", str(apps)]
        command += ["--subscribers", "6", "--seconds", "0.3", "--no-flat-out", "--rate", "50", "--grace", "0.2"]
        result = CliRunner().invoke(main, [*command, "--json", str(file)])
    assert result.exit_code == code, result.output
    body = json.loads(file.read_text())
    assert not body["interrupted"] and body["runs"][0]["mode"] == "open loop"
    assert "POST to the last" in result.output


def test_a_farm_end_to_end(tmp_path: Path) -> None:
    options = ("--subscribers", "90", "--processes", "2", "--seconds", "0.5", "--rate", "40", "--out", str(tmp_path))
    body = farm_bench("fanout", *options, file=tmp_path / "one.json")
    assert body["setup"]["ready"] == 90
    flat, paced = body["runs"]
    for run in (flat, paced):
        assert clean(run), run
        assert run["delivered"] == 90 * run["events"] > 0 and run["held"] == 90
        assert set(run["statuses"]) == {"200"}
        assert {"router", "workers", "load subscribers", "load app servers"} <= set(run["usage"]["groups"])
        assert run["usage"]["groups"]["load subscribers"]["processes"] == 2
    assert paced["events"] + paced["unsent"] == 20
    assert set(body["memory_a_subscriber"]) >= {"router", "workers"}
    drawn = shown(body)
    assert "deliveries/s" in drawn.headline and [chart.kind for chart in drawn.charts] == ["bar", "bar"]
    assert {path.suffix for path in tmp_path.iterdir()} >= {".json", ".md", ".svg"}


def test_many_channels_of_a_farm(tmp_path: Path) -> None:
    options = ("--subscribers", "60", "--channels", "20", "--seconds", "0.5")
    (run,) = farm_bench("fanout", *options, file=tmp_path / "many.json")["runs"]
    assert clean(run), run
    assert run["delivered"] == 3 * run["events"] > 0
