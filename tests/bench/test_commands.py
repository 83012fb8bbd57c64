"""The bench's commands from their arguments to their exit codes."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console
from support.bench import farm_bench
from support.misbehaving import Rules, every, misbehaving

from bench.cli import main
from bench.progress import Progress


def options_with_numbers() -> list[tuple[str, str]]:
    """Every option of every command whose type is a float's."""
    return [
        (name, option.opts[0])
        for name, command in sorted(main.commands.items())
        for option in command.params
        if isinstance(option.type, click.types.FloatParamType)
    ]


def test_progress_on_a_terminal_and_off_it() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with Progress(console) as progress:
            for title in ("setting up", "pushing"):
                progress.step(title, 10)
                progress.update(5)
        assert isinstance(console.file, io.StringIO)
        assert "setting up" in console.file.getvalue()


def test_an_interrupt_ends_with_what_was_measured(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with misbehaving(Rules()) as server:
        command = [sys.executable, "-m", "bench.cli", "connect", "--url", server.url, "--admin", ""]
        command += ["--devices", "10000", "--rate", "100", "--json", str(results)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
            assert bench.stderr is not None
            assert any(b"setting up devices" in line for line in bench.stderr)
            bench.send_signal(signal.SIGINT)
            output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 1
    assert b"interrupted" in output
    body = json.loads(results.read_text())
    assert body["interrupted"] and body["connect"]["setup"]["ready"] < 10_000
    assert "baseline" not in body


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["connect", "--devices", "0"], 2, "--devices"),
        (["push", "--store", "tape"], 2, "--store"),
        (["connect", "--url", "http://127.0.0.1/"], 1, "ws://host:port"),
        (["connect", "--url", "ws://127.0.0.1:1/", "--admin", "http://127.0.0.1:1"], 1, "no answer from"),
        (["connect", "--help"], 0, "farm bench connect --devices"),
    ],
)
def test_arguments_and_exit_codes(arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert text in result.output


def test_the_commands_end_with_a_table_and_a_code(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with misbehaving(Rules(push=every(10, "lose"))) as server:
        common = ["--url", server.url, "--admin", "", "--devices", "10", "--json", str(results)]
        arguments = ["--half", "--seconds", "0.3", "--grace", "0.1", *common]
        pushed = CliRunner().invoke(main, ["push", *arguments])
        body = json.loads(results.read_text())
        connected = CliRunner().invoke(main, ["connect", "--no-baseline", "--hold", "0", *common])
    assert pushed.exit_code == 1
    assert [run["mode"] for run in body["runs"]] == ["flat out", "open loop"]
    assert sum(run["lost"] for run in body["runs"]) == server.faults["lose"] > 0
    assert "lost (accepted, never arrived)" in pushed.output
    assert connected.exit_code == 0, connected.output
    assert "set-ups/s, middle half" in connected.output
    assert json.loads(results.read_text())["connect"]["held"] == 10


def test_connect_with_a_farm_of_its_own(tmp_path: Path) -> None:
    body = farm_bench("connect", "--devices", "200", "--workers", "2", file=tmp_path / "connect.json")
    measured = body["connect"]
    assert measured["setup"]["ready"] == measured["held"] == 200
    assert not measured["setup"]["failures"]
    assert sum(measured["shards"].values()) == 200
    assert measured["user_memory"]["workers"]["after"] > 0
    assert body["baseline"]["setup"]["ready"] == 200


def test_push_with_a_farm_of_its_own(tmp_path: Path) -> None:
    arguments = ("push", "--devices", "100", "--seconds", "1", "--half", "--store", "memory")
    body = farm_bench(*arguments, file=tmp_path / "push.json")
    flat_out, half = body["runs"]
    for run in (flat_out, half):
        assert run["clean"] and run["delivered"] == run["pushes"] > 0
        assert run["usage"]["groups"].keys() >= {"router", "workers", "load devices", "load pushers"}


@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_no_option_takes_what_is_no_number(value: str) -> None:
    options = options_with_numbers()
    assert len(options) > 30
    for name, option in options:
        refused = CliRunner().invoke(main, [name, option, value])
        assert (refused.exit_code, f"'{option}'" in refused.output) == (2, True), (name, option, refused.output)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["push", "--online", "0"], "--online"),
        (["push", "--online", "1.5"], "--online"),
        (["push", "--channels", "0"], "--channels"),
        (["push", "--payload", "-1"], "--payload"),
        (["push", "--source", "nowhere"], "--source"),
        (["push", "--dialect", "carrier pigeon"], "--dialect"),
        (["connect", "--source", "10.0.0.0/8"], "65,536"),
        (["connect", "--source", "10.0.0.5/24"], "host bits"),
        (["connect", "--push", "-1"], "--push"),
        (["connect", "--push", "5", "--bare"], "--bare"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert text in result.output
