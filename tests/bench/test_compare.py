"""`farm bench compare`: its peers for real where they are installed, its bytes, its figures and its tables."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.installed import missing

from bench import peers
from bench.cli import main
from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.load import frames
from bench.load.frames import PeerError
from bench.load.http_bytes import response_of, split_endpoint
from bench.load.protocols import WIRES, protocol_of
from bench.load.protocols.base import DONE, PONG, Received, Scenario
from bench.load.protocols.nats import Publish
from bench.load.protocols.subscribe import Plain, Post
from bench.machine import procfs
from bench.machine.usage import Usage, Use
from bench.peers.base import NotInstalledError, Peer, Ports, PythonPeer, Tools, ask, program, started
from bench.peers.servers.put_requests import PutRequests
from bench.progress import Progress
from bench.runs import compare as comparing
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.collected import Setup
from bench.runs.compare_figures import clean, figures, medians, ratios, summary
from bench.runs.contestants import counted, find_all
from bench.runs.load import Load, most_a_process
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers
from bench.views.compare import charts, tables, times

DEVICES = 200
NODE_MODULES = Path(__file__).parents[1] / "npm" / "node_modules"
SCENARIO = Scenario("peer:80")
WAIT_SECONDS = 60.0


def tools() -> Tools:
    """The machine's own, and npm's packages of the tests; PEERS_PYTHON and PEERS_NODE_MODULES name others."""
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    return Tools(python, os.environ.get("PEERS_NODE_MODULES", str(NODE_MODULES)), 1, DEVICES)


def installed(name: str) -> Peer:
    """The peer; without it the test is skipped, or with CI=true fails."""
    peer = peers.PEERS[name]
    try:
        peer.find(tools())
    except NotInstalledError as error:
        missing(f"{peer.title}, {error},")
    return peer


# ---- bytes


def test_pushes_of_each_kind() -> None:
    put, post, nats = Plain("a:1"), Post("a:1"), Publish("")
    head = b" HTTP/1.1\r\nHost: a:1\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n123"
    assert put.request(b"/push/7", 123, 0) == b"PUT /push/7" + head
    assert post.request(b"/push/7", 123, 0) == b"POST /push/7" + head
    assert nats.request(b"/d.7", 123, 0) == b"PUB d.7 3\r\n123\r\nPING\r\n"
    assert split_endpoint(b"nats://127.0.0.1:4222/d.7") == ("127.0.0.1", 4222, "127.0.0.1:4222", b"/d.7")


@pytest.mark.parametrize(("status", "seen"), [(200, 200), (201, 200), (202, 202), (404, 404)])
def test_created_is_as_good_as_ok(status: int, seen: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status
    for cut in range(len(answer)):
        assert Post("").response(answer[:cut]) is None
    response = Post("").response(answer)
    assert response is not None
    assert (response.status, response.size) == (seen, len(answer))


@pytest.mark.parametrize("answer", [b"PONG\r\n", b"PING\r\nPONG\r\n", b"PONG\r\nPING\r\n", b"+OK\r\nPONG\r\n"])
def test_a_flush_of_nats_at_every_boundary(answer: bytes) -> None:
    wire = Publish("")
    response = wire.response(answer)
    assert response is not None
    assert (response.status, response.size, response.closes) == (200, len(answer), False)
    for cut in range(len(answer)):
        before = wire.response(answer[:cut])
        assert before is None or b"PONG\r\n" in answer[:cut]


def test_what_is_no_flush_of_nats() -> None:
    with pytest.raises(PeerError, match="Maximum Payload"):
        Publish("").response(b"-ERR 'Maximum Payload Violation'\r\n")
    with pytest.raises(PeerError, match="without end"):
        Publish("").response(b"x" * 70_000)


def test_a_nats_device() -> None:
    protocol = protocol_of("nats", SCENARIO, {"endpoint": "nats://h:1/d."})
    assert protocol.request(5).startswith(b"GET / HTTP/1.1\r\n")
    opened = protocol.opened(5, b"")
    assert opened.step != DONE
    lines = b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1","protocol":0}\r\n'
    lines += b"SUB d.5 1\r\nPING\r\n"
    assert opened.send == frames.client_frame(lines, frames.BINARY)
    pong = frames.client_frame(b"PONG\r\n", frames.BINARY)
    assert protocol.answered(5, opened.step, b'INFO {"a":1}\r\n', b"") is None
    waiting = protocol.answered(5, opened.step, b"PING\r\n", b"")
    assert waiting is not None
    assert (waiting.send, waiting.step) == (pong, opened.step)
    done = protocol.answered(5, opened.step, b"PING\r\nPONG\r\n", b"")
    assert done is not None
    assert (done.step, done.send, done.channel, done.endpoint) == (DONE, pong, 5, b"nats://h:1/d.5")
    assert protocol.received(5, b"PONG\r\n") == PONG
    several = b"MSG d.5 1 3\r\n101\r\nPING\r\nMSG d.5 1 4\r\n1024\r\nMSG d.6 1 1\r\n7\r\n+OK\r\n"
    assert protocol.received(5, several) == Received(((5, 101, 0), (5, 1024, 0)), pong, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"-ERR 'no'\r\n",
        b"MSG d.5 1 3\r\n101",
        b"MSG d.5 1 3\r\n1019\r",
        b"MSG d.5 1 x\r\n1\r\n",
        b"MSG\r\n",
        b"HELO\r\n",
        b"PING",
    ],
)
def test_what_a_nats_device_refuses(payload: bytes) -> None:
    with pytest.raises(PeerError):
        protocol_of("nats", SCENARIO, {}).received(5, payload)


def test_a_nats_device_has_one_channel() -> None:
    with pytest.raises(ValueError, match="one channel"):
        protocol_of("nats", Scenario("h", channels=2), {})


def test_put_requests_at_every_boundary() -> None:
    data = Plain("h").request(b"/push/7", 123, 0) + Plain("h").request(b"/push/18", 4, 0)
    for cut in range(len(data) + 1):
        requests = PutRequests()
        assert requests.feed(data[:cut]) + requests.feed(data[cut:]) == [("7", "123"), ("18", "4")]
    assert PutRequests().feed(b"PUT /push/3 HTTP/1.1\r\nHost: h\r\n\r\n") == [("3", "")]
    with pytest.raises(ValueError, match="not a push"):
        PutRequests().feed(b"GET / HTTP/1.1\r\n\r\n")


# ---- figures


def test_medians_ratios_and_words() -> None:
    assert medians([{"a": 1.0, "b": None}, {"a": 5.0, "b": 2.0}, {"a": 2.0, "b": None}]) == {"a": 2.0, "b": 2.0}
    assert medians([{"a": None}]) == {"a": None}
    assert medians([]) == {}
    mine = {"memory_a_connection": 4096.0, "setup_rate": 100.0, "push_rate": None, "push_p50_ms": 1.0}
    reference = {"memory_a_connection": 512.0, "setup_rate": 400.0, "push_rate": 5.0, "push_p50_ms": 0.0}
    found = ratios(mine, reference)
    assert (found["memory_a_connection"], found["setup_rate"]) == (8.0, 0.25)
    assert (found["push_rate"], found["push_p50_ms"], found["push_p99_ms"]) == (None, None, None)
    assert [times(value) for value in (None, 0.256, 12.34, 1234.5)] == ["-", "0.26 x", "12.3 x", "1,234 x"]
    assert (counted(1, "worker"), counted(2, "worker")) == ("1 worker", "2 workers")


def test_figures_of_a_round() -> None:
    setup = Setup(100, ready=100, started=0.0)
    setup.completions.extend([1.0, 2.0])
    setup.durations.extend([0.010, 0.030])
    usage = Usage(4.0, [Use("server", 1, 1.5, 0, 0), Use("server", 2, 0.5, 0, 0), Use("load devices", 3, 9, 0, 0)], 1.0)
    pushed = {
        "delivered": 10,
        "pushes": 10,
        "seconds": 2.0,
        "notifications_a_second": 5.0,
        "to_frame_ms": {"p50": 1.0, "p99": 3.0},
        "usage": {"groups": {"router": {"cpu_seconds": 0.25}, "load pushers": {"cpu_seconds": 7.0}}},
    }
    found = figures(setup, usage, 1000, 3000, pushed)
    assert found["memory_a_connection"] == 20
    assert found["setup_rate"] == 1.0
    assert (found["setup_cpu_a_1000"], found["setup_cores"]) == (20.0, 0.5)
    assert (found["push_rate"], found["push_p99_ms"]) == (5.0, 3.0)
    assert (found["push_cpu_a_1000"], found["push_cores"]) == (25.0, 0.125)
    assert figures(setup, usage, 1000, 3000, None)["push_rate"] is None
    assert figures(Setup(100), usage, 1000, 3000, pushed | {"delivered": 0})["memory_a_connection"] is None


def test_descendants_of_a_process() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL) as parent:
        wait_until(lambda: len(procfs.descendants(parent.pid)) == 1)
        (child,) = procfs.descendants(parent.pid)
        assert procfs.descendants(child) == []
        assert child in procfs.descendants(os.getpid())
        parent.kill()
        os.kill(child, signal.SIGKILL)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- peers


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_every_peer_says_what_a_reader_has_to_know(name: str) -> None:
    peer = peers.PEERS[name]
    assert peer.name == name
    assert all((peer.title, peer.hint, peer.processes, peer.set_up, peer.push, peer.durability))
    assert peer.wire in WIRES
    protocol_of(peer.protocol, SCENARIO, peer.arguments(Ports(1, 2)))


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_a_peer_takes_the_load(name: str) -> None:
    peer = installed(name)
    interrupt = Interrupt()
    with started(peer, tools(), interrupt) as server, LoadProcesses(interrupt) as processes, Progress() as progress:
        assert server.supervisor is not None
        load = Load(DEVICES, protocol=peer.protocol, arguments=peer.arguments(server.ports), endpoints_every=1)
        users = VirtualUsers.of(processes, load, server)
        setup = users.bring_up(progress, "up")
        assert (setup.ready, dict(setup.failures)) == (DEVICES, {})
        assert len(setup.endpoints) == DEVICES
        plan = PushPlan(connections=8, seconds=0.3, wire=peer.wire, grace=WAIT_SECONDS)
        (run,) = pushing.measure(processes, server, users, setup, plan=plan, progress=progress)
        assert run["delivered"] == run["pushes"] > 0
        assert run["statuses"] == {200: run["pushes"]}
        assert run["clean"]
        assert (run["held"], run["drops"], run["errors"]) == (DEVICES, {}, {})
        pids = comparing.processes_of(server)
        assert all(procfs.private_memory(pid) for pid in pids)
    assert not [pid for pid in pids if procfs.cpu_seconds(pid) is not None and not zombie(pid)]


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("name", ["trio-websocket", "websockets", "ws", "nchan"])
def test_a_push_to_a_device_that_is_not_there_is_not_accepted(name: str) -> None:
    peer = installed(name)
    with started(peer, tools(), Interrupt()) as server:
        request = WIRES[peer.wire]("h").request(b"/push/99", 1, 0)
        with socket.create_connection(("127.0.0.1", server.ports.push), timeout=WAIT_SECONDS) as sock:
            sock.sendall(request)
            data = b""
            while (response := response_of(data)) is None:
                more = sock.recv(4096)
                assert more
                data += more
        assert response.status == (202 if name == "nchan" else 404)


def test_nothing_is_left_of_a_peer_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(PythonPeer):
        name = title = "broken"
        hint = "none"

        def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
            (folder / "file").write_text("x")
            return [sys.executable, "-c", "raise SystemExit('no such thing')"]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = "broken ended with code 1 at its start: no such thing"
    with pytest.raises(BenchError, match=words), started(Broken(), tools(), Interrupt()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_interrupted_waits_for_no_peer() -> None:
    interrupt = Interrupt()
    interrupt.request()
    peer = installed("trio-websocket")
    with pytest.raises(BenchError, match="interrupted before"), started(peer, tools(), interrupt):
        pass


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotInstalledError, match="no such-server in PATH"):
        program("such-server")
    with pytest.raises(NotInstalledError, match="it does not run"):
        ask([str(tmp_path / "none")], "it does not run")
    with pytest.raises(NotInstalledError, match=r"it fails \(exit code 3\)"):
        ask([sys.executable, "-c", "raise SystemExit(3)"], "it fails")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    python.chmod(0o755)
    for name, module in (("websockets", "websockets.asyncio.server"), ("uwebsockets", "socketify")):
        with pytest.raises(NotInstalledError, match=f"can't import {module}"):
            peers.PEERS[name].find(Tools(str(python)))


def test_node_modules_are_looked_for_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_PATH", "/elsewhere")
    peer = peers.PEERS["ws"]
    path = peer.environment(Tools(node_modules=str(tmp_path)))["NODE_PATH"]
    assert path.split(os.pathsep) == [str(tmp_path), str(tmp_path / "node_modules"), "/elsewhere"]
    monkeypatch.delenv("NODE_PATH")
    try:
        program("node")
    except NotInstalledError:
        missing("node")
    with pytest.raises(NotInstalledError, match="no ws in NODE_PATH"):
        peer.find(Tools(node_modules=str(tmp_path)))


# ---- the command


def bench(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["compare", *arguments])
    return done.exit_code, done.output


def test_compare_end_to_end(tmp_path: Path) -> None:
    """Ours with both stores, a peer that is always there, and one that can't be found."""
    file = tmp_path / "compare.json"
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "NODE_PATH"}
    command = [sys.executable, "-m", "bench.cli", "compare", "--peer", "trio-websocket", "--peer", "ws"]
    command += ["--devices", str(DEVICES), "--seconds", "0.3", "--hold", "0", "--repeat", "2", "--connections", "8"]
    command += ["--node-modules", str(empty), "--json", str(file)]
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


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--peer", "nosuch"), 2, "nosuch"),
        (("--python", "/no/such/python"), 2, "/no/such/python"),
        (("--repeat", "0"), 2, "--repeat"),
        (("--devices", "19999", "--peer", "ws"), 1, "give --workers 2"),
        (("--help",), 0, "farm bench compare --repeat 3"),
    ],
)
def test_arguments_and_exit_codes(arguments: tuple[str, ...], code: int, text: str) -> None:
    found, output = bench(*arguments)
    assert (found, text in output) == (code, True), output


def test_a_peer_of_one_process_gets_as_many_devices_as_that_holds() -> None:
    devices = 2 * most_a_process()
    found = find_all(("trio-websocket", "nchan"), devices, Tools(workers=2), most_a_process(), Progress())
    by_name = {contestant.name: contestant for contestant in found}
    assert by_name["farm"].devices == by_name["nchan"].devices == devices
    assert by_name["trio-websocket"].devices == most_a_process()
    assert f"{most_a_process():,} devices" in by_name["trio-websocket"].note


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


# ---- tables and charts


def recorded() -> dict[str, Any]:
    """A document as a run leaves it, with a peer that is not there and one that lost a push."""
    base = {
        "ready": 10.0,
        "memory_base": 1 << 20,
        "memory_a_connection": 512.0,
        "setup_rate": 1000.0,
        "setup_p50_ms": 1.0,
        "setup_p99_ms": 2.0,
        "setup_cpu_a_1000": 0.05,
        "setup_cores": 0.5,
        "push_rate": 2000.0,
        "push_p50_ms": 3.0,
        "push_p99_ms": 4.0,
        "push_cpu_a_1000": 0.04,
        "push_cores": 0.75,
    }
    other = base | {"memory_a_connection": 20_480.0, "setup_rate": 250.0}
    round_: dict[str, Any] = {
        "setup": {"ready": 10, "failures": {}},
        "setup_limit": "the server",
        "setup_usage": {"cores_with_others": 0.25},
        "push": {
            "clean": True,
            "delivered": 9,
            "drops": {},
            "lost": 0,
            "limit": "none",
            "usage": {"cores_with_others": 0.5},
        },
    }
    bad = copy.deepcopy(round_)
    bad["setup"] = {"ready": 9, "failures": {"upgrade: HTTP 503": 1}}
    bad["push"] |= {"clean": False, "delivered": 8, "drops": {"ECONNRESET": 2}, "lost": 1}
    facts: dict[str, Any] = {
        "missing": "",
        "error": "",
        "note": "",
        "hint": "",
        "version": "1",
        "processes": "p",
        "set_up": "s",
    }
    facts |= {"push": "u", "durability": "d", "devices": 10}
    servers: list[dict[str, Any]] = [
        {**facts, "name": "farm", "title": "farm", "rounds": [round_], "median": base, "ratio": ratios(base, base)},
        {**facts, "name": "a", "title": "A", "rounds": [bad], "median": other, "ratio": ratios(other, base)},
        {**facts, "name": "b", "title": "B", "rounds": [], "median": {}, "ratio": {}},
    ]
    servers[1]["note"] = "fewer devices"
    servers[2] |= {"missing": "no b in PATH", "hint": "apt-get install b"}
    return {"servers": servers, "reference": "farm", "options": {"repeat": 3, "connections": 64}}


def test_a_result_keeps_of_a_round_what_is_shown() -> None:
    body = recorded()
    for server in body["servers"]:
        for round_ in server["rounds"]:
            round_["setup"]["wanted"] = 10
            round_["setup"]["time_ms"] = {"p50": 1.0}
            for usage in (round_["setup_usage"], round_["push"]["usage"]):
                usage |= {"machine_busy": 0.9, "groups": {"server": {"cpu_seconds": 1.5, "processes": 1}}}
            round_["push"]["to_frame_ms"] = {"p50": 1.0}
    kept = copy.deepcopy(body)
    for server in kept["servers"]:
        server["rounds"] = [summary(round_) for round_ in server["rounds"]]
    assert tables(kept) == tables(body) and charts(kept) == charts(body)
    assert [clean(server) for server in kept["servers"]] == [clean(server) for server in body["servers"]]
    push = kept["servers"][0]["rounds"][0]["push"]
    assert push["usage"]["groups"] == {"server": {"cpu_seconds": 1.5}} and "to_frame_ms" not in push


def test_tables_of_a_recorded_run() -> None:
    body = recorded()
    shown = {table.title: table for table in tables(body)}
    relation = shown["As a multiple of farm"]
    assert relation.rows[0][1:4] == ["1.00 x", "1.00 x", "1.00 x"]
    assert relation.rows[1][1:3] == ["40.0 x", "0.25 x"]
    assert relation.rows[2][:3] == ["B", "not installed:", "apt-get install b"]
    assert any("0.2 to 0.5 cores" in note for note in relation.notes)
    held = shown["Setting up devices and holding them"]
    assert held.rows[1][:3] == ["A", "10 of 10", "250"]
    assert held.rows[2][:2] == ["B", "not installed"]
    assert any("Medians of 3 rounds" in note for note in held.notes)
    assert shown["Pushing to one random device at a time"].rows[1][-2:] == ["1", "d"]
    assert "A: fewer devices." in shown["What was measured"].notes
    (failure,) = shown["Failures"].rows
    assert failure[:4] == ["A", "1 x upgrade: HTTP 503", "2 x ECONNRESET", "1 x lost"]
    assert [clean(server) for server in body["servers"]] == [True, False, False]


def test_charts_of_a_recorded_run() -> None:
    body = recorded()
    memory, *others = charts(body)
    assert memory.kind == "bar"
    assert list(memory.series[0].x) == ["farm", "A"]
    assert list(memory.series[0].y) == [0.5, 20.0]
    assert len(others) == 4
    for server in body["servers"]:
        server["median"] |= {name: None for name in server["median"] if name.startswith("push")}
    assert len(charts(body)) == 3
    assert tables(body)
