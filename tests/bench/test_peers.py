"""The servers that the bench compares a farm with."""

import io
import os
import socket
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.installed import missing
from support.peers import installed, tools

from bench import peers
from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.load.http_bytes import response_of
from bench.load.protocols import WIRES, protocol_of
from bench.load.protocols.base import Scenario
from bench.load.protocols.subscribe import Plain
from bench.machine import procfs
from bench.peers.base import NotInstalledError, Ports, PythonPeer, Tools, ask, program, started
from bench.peers.servers.put_requests import PutRequests
from bench.progress import Progress
from bench.runs import compare as comparing
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.contestants import Contestant
from bench.runs.deliveries import clean
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers

pytestmark = pytest.mark.measured

DEVICES = 200
SCENARIO = Scenario("peer:80")
WAIT_SECONDS = 60.0


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_put_requests_at_every_boundary() -> None:
    data = Plain("h").request(b"/push/7", 123, 0) + Plain("h").request(b"/push/18", 4, 0)
    for cut in range(len(data) + 1):
        requests = PutRequests()
        assert requests.feed(data[:cut]) + requests.feed(data[cut:]) == [("7", "123"), ("18", "4")]
    assert PutRequests().feed(b"PUT /push/3 HTTP/1.1\r\nHost: h\r\n\r\n") == [("3", "")]
    with pytest.raises(ValueError, match="not a push"):
        PutRequests().feed(b"GET / HTTP/1.1\r\n\r\n")


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
    words = "broken ended with code 1 at its start:\nno such thing"
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


@pytest.mark.parametrize("name", [name for name, peer in peers.PEERS.items() if peer.fans_out])
def test_a_peer_fans_out(name: str) -> None:
    tools = Tools(os.environ.get("PEERS_PYTHON", sys.executable), devices=30)
    try:
        peers.PEERS[name].find(tools)
    except NotInstalledError as error:
        missing(f"{peers.PEERS[name].title}, {error},")
    plan = comparing.Plan((name,), 30, 0, 0.3, 4, subscribers=30, tools=tools, grace=WAIT_SECONDS)
    contestant = Contestant(name, peers.PEERS[name].title, 30, peers.PEERS[name])
    found = comparing._round(contestant, plan, tools, Interrupt(), Progress(Console(file=io.StringIO())))
    run = found["fanout"]["run"]
    assert clean(run), run
    assert run["delivered"] == run["events"] * 30 > 0
    assert found["figures"]["fanout_rate"] > 0 and found["figures"]["fanout_p99_ms"] > 0
