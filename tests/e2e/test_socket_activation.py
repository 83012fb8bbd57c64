"""Listening sockets that systemd gives the farm: they outlive it, and whoever connects meanwhile is served."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.farm_fixture import PATIENCE_S, ROOT, Farm, Raw, environ, reload, running, until
from support.installed import find_program, with_libraries

LAUNCHER = str(ROOT / "tests" / "support" / "socket_launcher.py")
LIVE = b"GET /live HTTP/1.1\r\nHost: farm\r\n\r\n"
WAITING = 8


class GivenFarm(Farm):
    """A farm of two workers and one router that is given its ports' sockets."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        super().__init__(data, {"router.routers": 1}, workers=2)
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
        self.device_port = first.getsockname()[1]
        second = stack.enter_context(socket.create_server(first.getsockname(), reuse_port=True))
        router = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.router_port = router.getsockname()[1]
        self.sockets = [first, second, router]
        self.names = ["listen.device_port", "listen.device_port", "listen.router_port"]

    def descriptors(self) -> list[int]:
        return [each.fileno() for each in self.sockets]

    def arguments(self) -> list[str]:
        given = ":".join(map(str, self.descriptors()))
        return [sys.executable, LAUNCHER, ":".join(self.names), given, *super().arguments()]

    def holders(self, listener: socket.socket) -> list[str]:
        """The titles of the processes that have this socket open."""
        wanted = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
        found = []
        for pid, title in self.processes().items():
            links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
            if wanted in links:
                found.append("supervisor" if pid == self.pid else title)
        return sorted(found)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[GivenFarm]:
    with ExitStack() as stack:
        yield GivenFarm(tmp_path / "data", stack)


def answered(raw: Raw) -> int:
    """The status of its answer."""
    (answer,) = raw.answers(1)
    return answer.status


def test_connections_that_come_during_a_restart_wait_and_are_answered(farm: GivenFarm) -> None:
    with running(farm):
        pass
    with ExitStack() as stack:
        devices = [stack.enter_context(Raw(farm.device_port)) for _ in range(WAITING)]
        app_server = stack.enter_context(Raw(farm.router_port))
        for each in (*devices, app_server):
            each.send(LIVE)
        with running(farm):
            assert [answered(each) for each in (*devices, app_server)] == [200] * (WAITING + 1)


def test_each_process_has_its_own_socket_and_a_reload_goes_on_with_them(farm: GivenFarm) -> None:
    with running(farm):
        for _ in range(2):
            first, second, router = (farm.holders(each) for each in farm.sockets)
            assert first == ["farm: worker 0", "supervisor"]
            assert second == ["farm: worker 1", "supervisor"]
            assert router == ["farm: router 0", "supervisor"]
            others = [Path(f"/proc/{pid}/environ") for pid in farm.processes() if pid != farm.pid]
            assert not [each for each in others if b"LISTEN_" in each.read_bytes()]
            for port in (farm.device_port, farm.router_port):
                with Raw(port) as raw:
                    raw.send(LIVE)
                    assert answered(raw) == 200
            reload(farm)


def test_sockets_that_do_not_fit_end_the_start_with_2_and_one_line(farm: GivenFarm) -> None:
    farm.names[1] = "listen.router_port"
    failed = subprocess.run(
        farm.arguments(),
        env=environ(),
        pass_fds=farm.descriptors(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode == 2
    lines = [json.loads(each) for each in failed.stderr.splitlines()]
    (found,) = [each["why"] for each in lines if each["event"] == "farm.start_failed"]
    assert "listen.device_port: one socket is given, and 2 processes serve it" in found


class StartedFarm(Farm):
    """A farm of one worker that systemd's own program starts when somebody connects."""

    def __init__(self, data: Path, program: str, port: int) -> None:
        super().__init__(data, {"router.routers": 1}, workers=1, environment=with_libraries(program))
        self.program = program
        self.device_port = port

    def arguments(self) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{self.device_port}", "--fdname", "listen.device_port"]
        return [self.program, *listen, "--setenv", f"PYTHONPATH={ROOT}", *super().arguments()]


def connected(port: int) -> Raw | None:
    try:
        return Raw(port)
    except ConnectionRefusedError:
        return None


def test_the_connection_that_systemd_has_started_it_for_is_answered(tmp_path: Path) -> None:
    program = find_program("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    farm = StartedFarm(tmp_path / "data", program, port)
    farm.launch()
    try:
        raw = until(lambda: connected(port), "systemd-socket-activate listens", PATIENCE_S)
        with raw:
            raw.send(LIVE)
            farm.wait_started()
            assert answered(raw) == 200
    finally:
        farm.stop()
