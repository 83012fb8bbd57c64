"""What operators do with the workers of a farm, over /api/v1 and by commands, and how they watch it: `farm top`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import websocket
from support import mirror
from support.admin_api import api, code
from support.commands import Commands
from support.farm_fixture import PATIENCE_S, Farm, environ, running_farm, until
from support.mirror import Mirror

pytestmark = pytest.mark.measured

DEVICES = 16


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, whose devices take a second to be let go in a drain."""
    folder = tmp_path_factory.mktemp("farm")
    settings = {"drain.rate": DEVICES, "farm.drain_grace": 0.2, "farm.reload_watch": 0}
    with running_farm(folder / "data", settings, environment=mirror.environment(folder)) as farm:
        yield farm


def ended(farm: Farm) -> Any:
    """The replacement, once it is over."""

    def over() -> Any:
        last = api(farm, "GET", "/workers")[1]["replacement"]
        return None if last["outcome"] == "running" else last

    return until(over, "the worker has been replaced")


def is_closed(device: Mirror) -> bool:
    """Whether it was let go; if not it is served."""
    try:
        device.check()
    except (websocket.WebSocketConnectionClosedException, AssertionError, OSError):
        return True
    return False


@pytest.mark.parametrize(("action", "shard"), [("drain", 0), ("restart", 1)])
def test_another_process_takes_the_devices_of_a_worker(farm: Farm, action: str, shard: int) -> None:
    before = farm.wait_healthy()
    with ExitStack() as stack:
        devices = [stack.enter_context(Mirror(farm)) for _ in range(DEVICES)]
        rows = until(lambda: all_counted(farm), "all are counted")
        status, begun = api(farm, "POST", f"/workers/{shard}/{action}")
        assert (status, begun["outcome"], begun["worker"], begun["action"]) == (200, "running", shard, action)
        other = f"/workers/{1 - shard}/restart"
        assert code(api(farm, "POST", other)) == code(api(farm, "POST", "/reload")) == (409, "conflict")
        done = ended(farm)
        assert (done["outcome"], done["why"], done["number"]) == ("done", "", begun["number"])
        assert sum(map(is_closed, devices)) == rows[shard]["connections"]
    after = farm.wait_healthy()
    for number in (0, 1):
        same = before["workers"][number]["pid"] == after["workers"][number]["pid"]
        assert same is (number != shard)
    assert [row["restarts"] for row in after["workers"]] == [0, 0]
    assert after["last_replacement"]["outcome"] == "done"
    assert not list(farm.events("process.died"))


def workers(farm: Farm) -> Any:
    return api(farm, "GET", "/workers")[1]["workers"]


def all_counted(farm: Farm) -> Any:
    """The workers, once they know of all devices."""
    rows = workers(farm)
    return rows if sum(row["connections"] or 0 for row in rows) == DEVICES else None


def test_what_there_is_not(farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = Commands(farm, monkeypatch, capsys)
    assert said.fails("worker", "drain", "2") == (1, "farm worker drain: there is no worker 2: they are 0 to 1\n")
    assert said.fails("worker", "drain", "x")[0] == 2
    for shard in ("2", "-1", "one", "99999999999999999999"):
        assert code(api(farm, "POST", f"/workers/{shard}/drain")) == (404, "not_found")


def test_a_worker_whose_process_hangs_is_replaced_too(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    farm.wait_healthy()
    pid = farm.worker_pid(0)
    os.kill(pid, signal.SIGSTOP)
    assert Commands(farm, monkeypatch, capsys)("worker", "restart", "0").startswith("worker 0: replaced after ")
    assert farm.wait_healthy()["workers"][0]["pid"] != pid


def test_top_once(farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = Commands(farm, monkeypatch, capsys)
    with Mirror(farm) as device:
        device.check()
        until(lambda: farm.status()["connections"] == 1, "it is counted")
        lines = said("top", "--once", "--interval", "0.2", "--sort", "memory").splitlines()
        found = json.loads(said("top", "--json", "--interval", "0.2"))
    status = farm.status()
    processes = [farm.pid, *(row["pid"] for row in status["routers"] + status["workers"])]
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("connections 1")
    assert {line.split()[0] for line in lines[-len(processes) :]} == {"supervisor", "router", "worker"}
    assert (found["farm"]["status"], found["totals"]["devices"], found["totals"]["pushes"]) == ("ok", 1, 0)
    assert {row["pid"]: row["state"] for row in found["processes"]} == dict.fromkeys(processes, "up")


def test_a_reload_and_top_on_a_terminal_until_q_and_until_the_end_of_the_farm(farm: Farm) -> None:
    """The last test here: it ends the farm, which cuts the reload short."""
    line = [sys.executable, "-m", "farm", "top", "--interval", "0.2", "--admin-port", str(farm.admin_port)]
    with on_terminal(line) as (first, quit_top), on_terminal(line) as (second, _):
        for screen in (first, second):
            until(lambda screen=screen: b"worker 1" in screen(), "it shows the workers")  # type: ignore[misc]
        assert api(farm, "POST", "/reload") == (200, {"reloading": True, "last": None})
        assert code(api(farm, "POST", "/workers/0/drain")) == code(api(farm, "POST", "/reload")) == (409, "conflict")
        status, found = api(farm, "GET", "/reload")
        assert (status, found["reloading"], found["last"]["outcome"]) == (200, True, "running")
        quit_top(b"mq")
        until(lambda: b"\x1b[?1049l" in first(), "the screen is left")
        farm.stop()
        until(lambda: b"the farm has ended" in second(), "it says so")


@contextmanager
def on_terminal(line: list[str]) -> Iterator[tuple[Callable[[], bytes], Callable[[bytes], object]]]:
    """A program on a terminal of 80 columns. Gives what it has written so far, and what types."""
    ours, theirs = os.openpty()
    size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    process = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environ() | size, close_fds=True)
    os.close(theirs)
    os.set_blocking(ours, False)
    written = bytearray()

    def read() -> bytes:
        with suppress(OSError):  # nothing now, or it has ended
            while data := os.read(ours, 65_536):
                written.extend(data)
        return bytes(written)

    try:
        yield read, lambda keys: os.write(ours, keys)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
