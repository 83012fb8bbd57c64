"""The stores that the bench starts for a farm, and what it says of them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.bench import farm_bench
from support.installed import find_program

from bench.cli import main
from bench.errors import BenchError
from bench.farm_process import dialects_off
from bench.figures.dialects import ALL
from bench.figures.results import shown
from bench.interrupt import Interrupt
from bench.load.protocols import REFERENCE
from bench.runs.stored import Stored
from bench.store_servers import resp, servers
from bench.store_servers.choices import CHOICES, StoreChoice

pytestmark = pytest.mark.measured

SERVED = [choice for choice in CHOICES.values() if choice.program]


@pytest.mark.parametrize("choice", SERVED, ids=lambda choice: choice.name)
def test_each_server_starts_and_ends(choice: StoreChoice) -> None:
    find_program({"redis": "redis-server", "valkey": "python3"}.get(choice.program, choice.program))
    with servers.started(choice, Interrupt()) as running:
        assert len(running.pids) == len(running.ports) == choice.servers == 1 + choice.replica
        assert running.version[0].isdigit() and any(str(running.ports[0]) in setting for setting in running.settings)
        found = running.memory()
        assert found is not None and found["keys"] == choice.replica  # what showed that the replica follows
        if choice.replica:
            assert resp.ask(running.ports[1], "GET", "bench:followed") == "1"
    assert running.memory() is None


def test_what_a_device_takes_is_the_growth() -> None:
    choice = CHOICES["redis"]
    find_program("redis-server")
    with servers.started(choice, Interrupt()) as running:
        stored = Stored(running)
        for number in range(100):
            resp.ask(running.ports[0], "SET", f"device-{number:04}", "x" * 1000)
        stored.set_up(100)
        resp.ask(running.ports[0], "SET", "message", "y" * 10_000)
        stored.pushed()
        found = stored.fields(1)
    assert 1000 < found["a_device"] < 3000 and 10_000 < found["a_message"] < 100_000
    assert found["registered"]["keys"] == 100 and found["full"]["keys"] == 101
    assert (found["name"], found["servers"]) == ("redis", 1)


def test_a_command_that_is_refused_says_why() -> None:
    find_program("redis-server")
    with (
        servers.started(CHOICES["redis"], Interrupt()) as running,
        pytest.raises(BenchError, match="NONSENSE: ERR unknown command"),
    ):
        resp.ask(running.ports[0], "NONSENSE")


def test_a_server_that_ends_before_its_replica_has_answered_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(resp.writes_reach, listener.getsockname()[1], 1, synced=True)
        server, _ = listener.accept()
        with server:
            assert b"WAITAOF" in server.recv(resp.READ_BYTES)
            server.sendall(b"+OK\r\n")
        with pytest.raises(ConnectionResetError):
            asked.result()


def test_dialects_that_need_more_are_turned_off() -> None:
    assert dialects_off("redis", ()) == ()
    off = dialects_off("memcached", ())
    assert off and all(setting.startswith("dialects.") and setting.endswith("=false") for setting in off)
    name = off[0].removesuffix("=false")
    with pytest.raises(BenchError, match=f"{name}=true needs more than a store of memcached can do"):
        dialects_off("memcached", (f"{name}=true",))


def test_a_server_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("bench.peers.base.shutil.which", lambda name, path=None: None)
    result = CliRunner().invoke(main, ["push", "--store", "redis", "--devices", "10"])
    assert result.exit_code == 1 and "no redis-server in PATH: apt-get install redis-server" in result.output


def test_pushes_through_several_stores_are_compared(tmp_path: Path) -> None:
    find_program("memcached")
    stores = ("--store", "valkey-replica", "--store", "memcached")
    arguments = ("push", "--devices", "100", "--seconds", "0.5", "--online", "0.5", *stores)
    body = farm_bench(*arguments, file=tmp_path / "push.json")
    first, second = body["parts"]
    assert (first["variant"], second["variant"]) == ("valkey-replica", "memcached")
    for part, count in ((first, 2), (second, 1)):
        (run,) = part["runs"]
        assert run["clean"] and run["delivered"] > 0 and part["away"]["clean"]
        assert run["usage"]["groups"]["store"]["processes"] == count
        assert part["store"]["devices"] == 100 and part["store"]["a_device"] > 0 and part["store"]["a_message"] > 0
    assert body["ratios"][f"{REFERENCE.name} memcached"]["notifications_a_second"] > 0
    titles = [table.title for table in shown(body).tables]
    assert any("memcached 1" in title for title in titles) and any("Valkey with a replica 9" in t for t in titles)


def test_a_dialect_that_needs_more_than_the_store_can_do_is_named() -> None:
    find_program("memcached")
    result = CliRunner().invoke(
        main, ["push", "--store", "memcached", "--dialect", ALL, "--devices", "10", "--seconds", "0.1"]
    )
    assert result.exit_code == 1 and "memcached can't keep what " in result.output
