"""`farm status`, `farm drain`, `farm reload` and `farm doctor`: what they print for a farm that runs, or does not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.common import deaf_port
from support.farm_command import TIMEOUT_S, Farm

pytestmark = pytest.mark.measured

STATUS = {
    "pid": 7,
    "farm": "ready",
    "nested": {"left": "out"},
    "routers": [
        {"pid": 9, "number": 0, "devices": 3, "clean": True, "late": 0},
        {"pid": 10, "number": 1, "devices": 4},
    ],
    "workers": [
        {"pid": 11, "shard": 0, "connections": 12345, "memory": 3 * 2**20, "state": "ok", "age": 2.0},
        {"pid": 12, "shard": 1, "connections": 0, "state": "\x1b[31mred[/]", "zeal": 1.5, "of": [1]},
        "no row",
    ],
}


@pytest.fixture
def farm() -> Iterator[Farm]:
    # Not below tmp_path, which may be too long for the sockets in a farm's folder: doctor would find fault with it.
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        yield Farm(Path(folder))


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


def test_status_shows_a_row_a_process(farm: Farm) -> None:
    with answering(json.dumps(STATUS).encode()) as port:
        done = farm("status", "--admin-port", str(port), http_proxy="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "farm: pid 7, farm ready"
    assert lines[-2:] == ["router 0: devices 3, clean yes", "router 1: devices 4"]
    titles = next(line for line in lines if "process" in line)
    assert titles.replace("┃", " ").split() == ["process", "pid", "state", "connections", "memory", "age"]
    first = next(line for line in lines if "worker 0" in line)
    assert first.replace("│", " ").split() == ["worker", "0", "11", "ok", "12,345", "3.0", "MiB", "2.0", "s"]
    rows = [line.replace("│", " ").split() for line in lines if "│ router" in line]
    assert rows == [["router", "0", "9", *4 * "-"], ["router", "1", "10", *4 * "-"]]
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


def test_a_refusal_cannot_tell_the_terminal_anything(farm: Farm) -> None:
    body = json.dumps({"error": {"code": "conflict", "message": "\x1b[31mred\n\x9b2J"}}).encode()
    with answering(body, 409) as port:
        (line,) = farm.fails(1, "channel", "list", "--url", f"http://127.0.0.1:{port}")
    assert line == "farm channel list: ?[31mred ?2J"


def test_status_when_nobody_answers(farm: Farm) -> None:
    with deaf_port() as port:
        (line,) = farm.fails(1, "status", "--admin-port", str(port))
    assert line == f"farm status: http://127.0.0.1:{port}/status: no farm answers there: Connection refused"
    assert "give --url" in farm.fails(2, "status", "--admin-port", "0")[0]
    assert "expected an http:// or https:// URL" in farm.fails(2, "status", "--url", "file:///etc/passwd")[0]


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
    """tells: the outcome of the reload that SIGHUP requests."""
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


@pytest.mark.parametrize(
    ("drain", "shown"),
    [
        ({"phase": "notice", "remaining_seconds": 9.5}, "not ready, and serving for 9.5 s more"),
        (
            {"phase": "devices", "left": 1234, "connections": 5000, "remaining_seconds": 61.0},
            "draining: 1,234 of 5,000 connections left, 61.0 s",
        ),
        ({"phase": "devices", "left": 5, "connections": None, "remaining_seconds": 0}, "draining: 5 of - connections"),
        ({"phase": "routers", "left": 0}, "all devices have been let go; the routers end"),
    ],
)
def test_drain_shows_how_far_it_is(farm: Farm, drain: Mapping[str, object], shown: str) -> None:
    body = json.dumps({**STATUS, "drain": drain}).encode()
    asked = iter((lambda: None, lambda: None))
    with (
        stand_in(farm.cwd / "farm-data", on_term="stays") as process,
        answering(body, on_get=lambda: next(asked, process.kill)()) as port,  # noqa: PLW0108  # another one each time
    ):
        done = farm("drain", "--admin-port", str(port), FORCE_COLOR="1")  # as on a terminal
    assert done.returncode == 0
    assert shown in done.stderr


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
    said = f"farm {command}: no farm runs on farm-data (no process holds farm.pid there)"
    assert farm.fails(1, command) == [said]
    (farm.cwd / "farm-data").mkdir()
    assert farm.fails(1, command) == [said]
    # A farm that was killed leaves its file, and its number may be another process' by now.
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
