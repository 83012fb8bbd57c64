"""The farm command, run as its users run it: real processes, their exit codes and what they print."""

from __future__ import annotations

import base64
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from support.farm_command import TIMEOUT_S, Farm, environ

from bench.cli import main as bench
from farm.cli import cli
from farm.cli.examples import examples_last


@pytest.fixture
def farm() -> Iterator[Farm]:
    # Not below tmp_path, which may be too long for the sockets in a farm's folder: doctor would find fault with it.
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        yield Farm(Path(folder))


def test_help_teaches(farm: Farm) -> None:
    done = farm("--help")
    assert done.returncode == 0
    assert "farm start --workers 2" in done.stdout
    assert "Exit codes: 0 done, 1 failed, 2 bad arguments or configuration." in done.stdout
    assert farm().stdout == done.stdout


def walk(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from walk((*path, name), below)


BENCH = ("farm", "bench")
OF_BENCH = dict(walk(BENCH, examples_last(bench)))
ALL = {path: one for path, one in walk(("farm",), cli) if path != BENCH} | OF_BENCH


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_ends_with_examples_that_are_understood(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "soak.json").touch()
    command = ALL[path]
    with click.Context(command, info_name=path[-1]) as context:
        lines = command.get_help(context).rstrip().splitlines()
    block = [line for line in lines[len(lines) - lines[::-1].index("") :] if "farm " in line and line[-1] != ":"]
    assert block[-1] == lines[-1], "no example stands at its end"
    found = [example for line in block for example in re.findall(r"\bfarm [a-z][^|>)`]*", line)]
    assert any(tuple(shlex.split(example))[: len(path)] == path for example in found)
    for example in found:
        understood(cli, tuple(shlex.split(example)))


def understood(command: click.Command, words: tuple[str, ...]) -> None:
    """Read a command line, and do nothing. Raises: click.UsageError."""
    name, *rest = words
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        below = command.get_command(click.Context(command), rest[0])
        assert below is not None, f"{name} has no command {rest[0]}"
        understood(bench if below.name == "bench" else below, tuple(rest))
    else:
        command.make_context(name, rest, resilient_parsing=not rest)


def test_flags_show_their_defaults_and_ranges(farm: Farm) -> None:
    text = " ".join(farm("start", "-h").stdout.split())
    assert "--device-port PORT" in text
    assert "a whole number from 0 to 65535" in text
    assert "Default: 8080." in text
    assert "--set SECTION.KEY=VALUE" in text


def test_bench_is_handed_on(farm: Farm) -> None:
    done = farm("bench", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: farm bench")
    assert farm("bench").stdout == done.stdout
    assert farm.fails(2, "bench", "nonsense")[0].startswith("farm bench: No such command 'nonsense'")


def test_version(farm: Farm) -> None:
    done = farm("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("farm ")
    assert done.stdout.count("\n") == 1


def test_the_help_needs_no_heavy_import() -> None:
    script = "import sys, farm.cli; farm.cli.run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    for name in ("trio", "zmq", "rich", "starlette", "hypercorn", "cryptography", "msgspec"):
        assert f"'{name}'" not in done.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["strat"], "farm: No such command 'strat'"),
        (["start", "--jsn", "2"], "farm start: No such option '--jsn'. Did you mean '--set'?"),
        (["worker"], "farm worker: Missing option '--shard'"),
        (["router", "--number", "2", "--routers", "2"], "farm router: --number 2: router.routers is 2, and they are"),
        (["worker", "--shard", "-1"], "farm worker: Invalid value for '--shard'"),
        (["worker", "--shard", "9" * 20], "farm worker: Invalid value for '--shard'"),
        (["start", "--config", "/dev/zero"], "/dev/zero: is larger than"),
        (["doctor", "--connections", "many"], "farm doctor: Invalid value for '--connections'"),
        (
            ["doctor", "--connections", "9" * 400],
            "farm doctor: Invalid value for '--connections': expected ",
        ),
        (
            ["doctor", "--connections", "9" * 5000],
            "farm doctor: Invalid value for '--connections': expected ",
        ),
        (["start", "2"], "farm start: Got unexpected extra argument (2)"),
        (["start", "--workers", "0"], "--workers: farm.workers: expected "),
        (["start", "--workers", "many"], "--workers: farm.workers: expected "),
        (
            ["start", "--device-port", "70000"],
            "--device-port: listen.device_port: expected a whole number from 0",
        ),
        (["start", "--set", "listen.device_prt=1"], "--set: listen.device_prt: no such option; did you mean"),
        (["start", "--set", "workers"], "--set: expected section.key=value, found 'workers'"),
        (["start", "--set", "listen.admin_host=0.0.0.0"], "listen.admin_host is 0.0.0.0, so others may"),
        (["start", "--set", "admin.token=short"], "--set: admin.token: expected 16 to 512 visible characters"),
        (["start", "--config", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["status", "--url", "host:8082"], "farm status: --url: host:8082: expected an http:// or https:// URL"),
        (["top", "--url", "http://:s3cret@:1"], "farm top: --url: http://:1: expected an http:// or https:// URL"),
        (["device", "find", "::1", "--token-file", "/none"], "farm device find: --token-file: /none: cannot be read"),
        (["channel", "list", "--admin-port", "0"], "farm channel list: listen.admin_port is 0 (a free port)"),
        (["drain", "--timeout", "soon"], "farm drain: Invalid value for '--timeout'"),
        (["drain", "--timeout", "nan"], "farm drain: Invalid value for '--timeout': expected a number from 0 to"),
        (["reload", "--timeout", "inf"], "farm reload: Invalid value for '--timeout': expected a number from 0 to"),
    ],
)
def test_one_line_for_a_mistake(farm: Farm, args: list[str], line: str) -> None:
    (said,) = farm.fails(2, *args)
    assert said.startswith(line)
    assert len(said) < 500


def test_one_line_for_each_mistake(farm: Farm) -> None:
    (farm.cwd / "farm.toml").write_text("[drain]\nseconds = -1\nsecond = 1\n")
    said = farm.fails(2, "start", "--workers", "x", "--set", "a", FARM_LOG_FORMAT="xml")
    assert said == [
        "farm.toml, line 2: drain.seconds: expected a number of at least 0 (unit: s), found -1.0",
        "farm.toml, line 3: drain.second: no such option; did you mean drain.seconds?",
        "FARM_LOG_FORMAT: log.format: expected one of text, json, logfmt, found 'xml'",
        "--set: expected section.key=value, found 'a'",
        said[-1],
    ]
    assert said[-1].startswith("--workers: farm.workers: expected ")


def test_check_config_shows_what_is_in_force(farm: Farm) -> None:
    (farm.cwd / "farm.toml").write_text("[listen]\ndevice_port = 1\nrouter_port = 2\nadmin_port = 3\n")
    done = farm(
        "check-config", "--set", "listen.router_port=21", "--set", "listen.admin_port=31",
        "--admin-port", "32", FARM_LOG_LEVEL="debug",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    tree = tomllib.loads(done.stdout)
    assert [tree["listen"][key] for key in ("device_port", "router_port", "admin_port")] == [1, 21, 32]
    for line in (
        "device_port = 1  # farm.toml, line 2",
        "router_port = 21  # --set",
        "admin_port = 32  # --admin-port",
        'level = "debug"  # FARM_LOG_LEVEL',
    ):
        assert line in done.stdout.splitlines()


def test_a_config_that_is_given_replaces_the_one_that_is_found(farm: Farm) -> None:
    (farm.cwd / "farm.toml").write_text("nonsense\n")
    (farm.cwd / "other.toml").write_text("[listen]\ndevice_port = 5\n")
    done = farm("check-config", "--config", "other.toml")
    assert done.returncode == 0
    assert "device_port = 5  # other.toml, line 2" in done.stdout


def test_the_default_config_is_a_config(farm: Farm) -> None:
    text = farm("default-config").stdout
    (farm.cwd / "farm.toml").write_text(text)
    found = farm("check-config")
    assert found.returncode == 0
    assert "farm.toml" not in found.stdout  # it changes nothing


def test_output_that_nobody_reads_is_no_stack_trace(farm: Farm) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "farm", "default-config"],
            cwd=farm.cwd, env=environ(), stdout=closed, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_token_keys_are_new_each_time(farm: Farm) -> None:
    keys = [farm("token-key").stdout.strip() for _ in range(2)]
    assert keys[0] != keys[1]
    assert [len(base64.urlsafe_b64decode(key)) for key in keys] == [32, 32]


def test_a_port_that_is_taken(farm: Farm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = farm(
            "start", "--workers", "1", "--host", "127.0.0.1", "--device-port", str(port),
            "--router-port", "0", "--admin-port", "0",
        )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr.splitlines()[-1]


def test_a_data_folder_that_cannot_be(farm: Farm) -> None:
    (farm.cwd / "file").touch()
    done = farm("start", "--workers", "1", "--device-port", "0", "--router-port", "0", "--admin-port", "0",
                "--data", "file/below")  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "file" in done.stderr.splitlines()[-1]
