"""`farm bench compare` from its start to its end: a farm of SimplePush devices beside peers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import peers
from bench.interrupt import Interrupt
from bench.peers.base import Ports, PythonPeer, Tools
from bench.progress import Progress
from bench.runs import compare as comparing
from bench.runs.compare_figures import clean
from bench.views.compare import tables

DEVICES = 200
WAIT_SECONDS = 60.0


def test_compare_end_to_end(tmp_path: Path) -> None:
    """Ours with both stores, a peer that is always there, and one that can't be found."""
    file = tmp_path / "compare.json"
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "NODE_PATH"}
    command = [sys.executable, "-m", "bench.cli", "compare", "--peer", "trio-websocket", "--peer", "ws"]
    command += ["--devices", str(DEVICES), "--seconds", "0.3", "--hold", "0", "--repeat", "2", "--connections", "8"]
    command += ["--replay", "0", "--node-modules", str(empty), "--json", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    body = json.loads(file.read_text())
    assert done.returncode == 1, done.stderr  # `ws` was asked for, and is not there
    assert [server["name"] for server in body["servers"]] == ["farm", "farm-memory", "trio-websocket", "ws"]
    assert body["reference"] == "farm"
    ours, memory, trio, ws = body["servers"]
    for server in (ours, memory, trio):
        assert len(server["rounds"]) == 2
        assert clean(server), server
        assert server["median"]["ready"] == DEVICES
        assert all(server["median"][name] for name in ("setup_rate", "push_rate", "push_p50_ms", "memory_base"))
    assert ours["ratio"]["push_rate"] == 1.0
    rate = trio["median"]["push_rate"] / ours["median"]["push_rate"]
    assert trio["ratio"]["push_rate"] == pytest.approx(rate, rel=1e-4)  # figures have six digits
    assert {round_["server_processes"] for round_ in trio["rounds"]} == {1}
    parts = {name for round_ in trio["rounds"] for name in round_["push"]["usage"]["groups"]}
    assert {name for name in parts if not name.startswith("load")} == {"server"}
    assert {round_["server_processes"] for round_ in ours["rounds"]} != {1}
    assert "SQLite" in ours["durability"]
    assert "memory" in memory["durability"]
    assert ws["missing"]
    assert not ws["rounds"]
    assert "npm install ws" in done.stdout
    assert "trio-websocket" in done.stdout


def test_an_interrupt_ends_with_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "compare.json"
    command = [sys.executable, "-m", "bench.cli", "compare", "--peer", "trio-websocket", "--devices", "20"]
    command += ["--hold", "0", "--seconds", "300", "--json", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pushing flat out" in line:
                break
        # the first of the two is the warm-up
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(WAIT_SECONDS) == 1
    body = json.loads(file.read_text())
    assert body["interrupted"]
    assert [len(server["rounds"]) for server in body["servers"]] == [1, 0, 0]
    assert body["servers"][0]["median"]["ready"] == 20
    assert tables(body)


def test_a_peer_that_fails_has_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(PythonPeer):
        name = title = "dying"
        hint = "none"

        def find(self, tools: Tools) -> str:
            return "1"

        def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no more')"]

    monkeypatch.setitem(peers.PEERS, "dying", Dying())
    plan = comparing.Plan(("dying",), devices=20, hold=0, seconds=0.2, connections=2)
    result = comparing.run(plan, interrupt=Interrupt(), progress=Progress())
    dying = result["servers"][2]
    assert "no more" in dying["error"]
    assert not clean(dying)
    shown = {table.title: table for table in tables(result | {"options": {"repeat": 1, "connections": 2}})}
    assert ["dying", "", "", "", dying["error"]] in shown["Failures"].rows
