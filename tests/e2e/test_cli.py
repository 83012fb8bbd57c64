"""The farm command, run as its users run it: real processes, their exit codes and what they print."""

from __future__ import annotations

import base64
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.common import deaf_port

from farm.cli import commands

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60  # a command that hangs fails its test; none is expected to take a tenth of it

COMMANDS = sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(commands.__path__))

STATUS = {
    "pid": 7,
    "farm": "ready",
    "nested": {"left": "out"},
    "router": {"pid": 9, "devices": 3, "clean": True, "late": 0},
    "workers": [
        {"pid": 11, "shard": 0, "connections": 12345, "memory": 3 * 2**20, "state": "ok", "age": 2.0},
        {"pid": 12, "shard": 1, "connections": 0, "state": "\x1b[31mred[/]", "zeal": 1.5, "of": [1]},
        "no row",
    ],
}


def environ(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FARM_")}
    return clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


@pytest.fixture
def farm() -> Iterator[Farm]:
    # Not below tmp_path, which may be too long for the sockets in a farm's folder: doctor would find fault with it.
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        yield Farm(Path(folder))


class Farm:
    """Runs `farm ...` in an empty folder."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "farm", *args],
            cwd=self.cwd,
            env=environ(**variables),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def fails(self, code: int, *args: str, **variables: str) -> list[str]:
        """The lines on stderr of a command that must end with this code and print nothing else."""
        done = self(*args, **variables)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()


# -- help and version


def test_help_teaches(farm: Farm) -> None:
    done = farm("--help")
    assert done.returncode == 0
    assert "farm start --workers 2" in done.stdout
    assert "Exit codes: 0 done, 1 failed, 2 bad arguments or configuration." in done.stdout
    assert farm().stdout == done.stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "bench"])
def test_every_command_has_help_with_an_example(farm: Farm, command: str) -> None:
    done = farm(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"farm {command}" in done.stdout


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


# -- mistakes of the user: code 2, a line each


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["strat"], "farm: No such command 'strat'"),
        (["start", "--wrkers", "2"], "farm start: No such option '--wrkers'. Did you mean '--workers'?"),
        (["worker"], "farm worker: Missing option '--shard'"),
        (["worker", "--shard", "-1"], "farm worker: Invalid value for '--shard'"),
        (["worker", "--shard", "9" * 20], "farm worker: Invalid value for '--shard'"),
        (["start", "--config", "/dev/zero"], "/dev/zero: is larger than"),
        (["start", "--micronotifier-config", "/dev/zero"], "--micronotifier-config: /dev/zero: is larger than"),
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
        (["start", "--config", "none.toml"], "none.toml: cannot be read: No such file or directory"),
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
        "FARM_LOG_FORMAT: log.format: expected one of text, json, found 'xml'",
        "--set: expected section.key=value, found 'a'",
        said[-1],
    ]
    assert said[-1].startswith("--workers: farm.workers: expected ")


# -- settings


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


# -- what the machine does not give: code 1, one line


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


# -- doctor


def test_doctor(farm: Farm) -> None:
    free = ("--device-port", "0", "--router-port", "0", "--admin-port", "0")
    done = farm("doctor", "--workers", "1", *free)
    assert done.returncode == 0
    assert "descriptors a process" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 0 fail")
    done = farm("doctor", "--workers", "1", "--json", "--connections", "1000000000", *free)
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["memory"]["status"] == "fail"
    assert set(rows["memory"]) == {"name", "status", "found", "needed", "remedy"}


def test_doctor_names_the_port_that_is_taken(farm: Farm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = farm("doctor", "--host", "127.0.0.1", "--device-port", str(port), "--router-port", "0")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in done.stdout


# -- status


@contextmanager
def answering(body: bytes, code: int = 200, on_get: Callable[[], object] = lambda: None) -> Iterator[int]:
    """An HTTP server that answers every GET so. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            on_get()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_status_shows_a_row_a_worker(farm: Farm) -> None:
    with answering(json.dumps(STATUS).encode()) as port:
        done = farm("status", "--admin-port", str(port), http_proxy="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("farm: pid 7, farm ready", "router: devices 3, clean yes")
    titles = next(line for line in lines if "process" in line)
    assert titles.replace("┃", " ").split() == ["process", "pid", "state", "connections", "memory", "age"]
    first = next(line for line in lines if "worker 0" in line)
    assert first.replace("│", " ").split() == ["worker", "0", "11", "ok", "12,345", "3.0", "MiB", "2.0", "s"]
    assert next(line for line in lines if "│ router" in line).replace("│", " ").split() == ["router", "9", *4 * "-"]
    assert "?[31mred[/]" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_status_as_json_is_what_the_farm_said(farm: Farm) -> None:
    with answering(json.dumps(STATUS).encode()) as port:
        done = farm("status", "--json", "--url", f"http://127.0.0.1:{port}/status")
    assert json.loads(done.stdout) == STATUS


def test_status_of_a_farm_without_workers(farm: Farm) -> None:
    with answering(b'{"status": "starting"}') as port:
        done = farm("status", "--admin-port", str(port))
    assert (done.returncode, done.stdout) == (0, "farm: status starting\nno workers\n")


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"[]", 200, "expected a JSON object"),
        (b"<html>", 200, "no status in the answer"),
        (b"", 503, "answered 503"),
    ],
)
def test_status_of_what_is_no_farm(farm: Farm, body: bytes, code: int, said: str) -> None:
    with answering(body, code) as port:
        (line,) = farm.fails(1, "status", "--admin-port", str(port))
    assert line.startswith(f"farm status: http://127.0.0.1:{port}/status: ")
    assert said in line


def test_status_when_nobody_answers(farm: Farm) -> None:
    with deaf_port() as port:
        (line,) = farm.fails(1, "status", "--admin-port", str(port))
    assert line == f"farm status: http://127.0.0.1:{port}/status: no farm answers there: Connection refused"
    assert "give --url" in farm.fails(1, "status", "--admin-port", "0")[0]
    assert "expected an http:// or https:// URL" in farm.fails(1, "status", "--url", "file:///etc/passwd")[0]


# -- drain and reload: a stand-in for the supervisor holds the lock and says which signals it got

STAND_IN = """
import fcntl, json, os, signal, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(sys.argv[2] or f"{os.getpid()}\\n")
file.flush()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
print("held", flush=True)
while True:
    got = signal.sigwait({signal.SIGTERM, signal.SIGHUP})
    print(got.name, flush=True)
    if got is signal.SIGTERM and sys.argv[3] == "ends":
        break
    if len(sys.argv) > 4:
        draft = sys.argv[4] + ".new"
        told = {"supervisor": os.getpid(), "number": 1, "needs_restart": [], "why": "", **json.loads(sys.argv[5])}
        open(draft, "w").write(json.dumps(told))
        os.rename(draft, sys.argv[4])
"""


@contextmanager
def stand_in(
    folder: Path, pid: str = "", on_term: str = "ends", tells: Mapping[str, object] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """tells: what became of the reload that SIGHUP asks it for."""
    folder.mkdir(exist_ok=True)
    arguments = [str(folder / "farm.pid"), pid, on_term]
    arguments += [] if tells is None else [str(folder / "reload.json"), json.dumps(tells)]
    with subprocess.Popen([sys.executable, "-c", STAND_IN, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_drain_sends_sigterm_and_waits(farm: Farm) -> None:
    with stand_in(farm.cwd / "farm-data") as process, answering(json.dumps(STATUS).encode()) as port:
        done = farm("drain", "--admin-port", str(port))
        assert done.returncode == 0, done.stderr
        assert heard(process) == "SIGTERM"
        assert process.wait(TIMEOUT_S) == 0
    assert done.stdout.startswith(f"drained: supervisor {process.pid} ended after ")


def test_drain_shows_what_is_left_until_it_ends(farm: Farm) -> None:
    body = json.dumps(STATUS).encode()
    # It ends when the progress asks the farm how many connections are left.
    with (
        stand_in(farm.cwd / "farm-data", on_term="stays") as process,
        answering(body, on_get=process.kill) as port,
    ):
        done = farm("drain", "--admin-port", str(port))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"drained: supervisor {process.pid} ended after ")


def test_drain_gives_up_after_its_timeout(farm: Farm) -> None:
    with stand_in(farm.cwd / "d", on_term="stays") as process:
        (line,) = farm.fails(1, "drain", "--data", "d", "--timeout", "0.01", "--admin-port", "0")
        assert heard(process) == signal.SIGTERM.name
    assert line == f"farm drain: supervisor {process.pid} has not gone after 0.01 s; it goes on draining"


def test_reload_sends_sighup_and_waits(farm: Farm) -> None:
    with stand_in(farm.cwd / "farm-data", tells={"outcome": "done", "needs_restart": ["a.b", "c.d"]}) as process:
        done = farm("reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert heard(process) == "SIGHUP"
    first, second = done.stdout.splitlines()
    assert first.startswith("reload: done after ")
    assert second == "reload: changed, but needs a restart: a.b, c.d"


def test_reload_that_fails_says_why(farm: Farm) -> None:
    with stand_in(farm.cwd / "farm-data", tells={"outcome": "refused", "why": "the new code is\nno code"}):
        assert farm.fails(1, "reload") == ["farm reload: refused: the new code is no code"]


def test_reload_does_not_wait_for_longer_than_it_may(farm: Farm) -> None:
    with stand_in(farm.cwd / "farm-data", tells={"outcome": "running"}) as process:
        (line,) = farm.fails(1, "reload", "--timeout", "0.5")
        assert line == f"farm reload: supervisor {process.pid} is not done after 0.5 s; it goes on"
        (line,) = farm.fails(1, "reload")
        assert "is reloading already" in line


@pytest.mark.parametrize("command", ["drain", "reload"])
def test_no_farm_runs(farm: Farm, command: str) -> None:
    said = f"farm {command}: no farm runs on farm-data (nobody holds farm.pid there)"
    assert farm.fails(1, command) == [said]
    (farm.cwd / "farm-data").mkdir()
    assert farm.fails(1, command) == [said]
    # A farm that was killed leaves its file, and its number may be somebody else's by now.
    (farm.cwd / "farm-data" / "farm.pid").write_text(f"{os.getpid()}\n")
    assert farm.fails(1, command) == [said]


@pytest.mark.parametrize(("pid", "said"), [("-", "has no pid in it"), ("4194305", "names process 4194305, but")])
def test_a_held_file_without_a_process_to_signal(farm: Farm, pid: str, said: str) -> None:
    with stand_in(farm.cwd / "farm-data", pid=pid):
        (line,) = farm.fails(1, "reload")
    assert said in line


def test_doctor_knows_the_farm_that_runs(farm: Farm) -> None:
    with stand_in(farm.cwd / "farm-data") as process, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = farm("doctor", "--host", "127.0.0.1", "--device-port", str(port), "--router-port", "0",
                    "--admin-port", "0")  # fmt: skip
    assert done.returncode == 0
    assert f"held by the farm that runs ({process.pid})" in done.stdout
