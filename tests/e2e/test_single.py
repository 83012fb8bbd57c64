"""`farm router` and `farm worker` whose port is taken, and a farm that gets two signals to end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import mirror
from support.farm_fixture import running_farm, until
from support.mirror import Mirror


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "farm", *arguments], stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("command", "port"), [(("worker", "--shard", "0"), "device_port"), (("router",), "router_port")]
)
def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path, command: tuple[str, ...], port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        sets = (f"data.dir={tmp_path / 'data'}", "listen.host=127.0.0.1", f"listen.{port}={taken}")
        process = start(*command, *(word for one in sets for word in ("--set", one)))
        _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    (line,) = told.decode().splitlines()
    assert f"farm {command[0]}: listen.{port}: cannot listen on 127.0.0.1 port {taken}" in line


def test_a_second_signal_ends_a_drain_at_once(tmp_path: Path) -> None:
    """An operator in a hurry: the devices are cut off, but the router still ends in good order."""
    environment = mirror.environment(tmp_path)
    with running_farm(tmp_path / "data", {"drain.seconds": 3600}, environment=environment) as farm:
        devices = [Mirror(farm) for _ in range(8)]
        pid = farm.status()["pid"]
        os.kill(pid, signal.SIGINT)
        until(lambda: list(farm.events("farm.draining")), "the drain has begun")
        os.kill(pid, signal.SIGINT)
        assert farm.wait_ended() == 0
        killed = {event["pid"] for event in farm.events("process.killed")}
        joined = {event["pid"] for event in farm.events("worker.joined")}
        assert killed == joined
        for device in devices:
            device.socket.shutdown()
