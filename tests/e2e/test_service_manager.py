"""A farm tells its service manager how it is: a socket of the test's own stands for systemd's."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import uuid
from pathlib import Path

from support.farm_fixture import START_S, running_farm, until


class Manager:
    """Receives what is sent to NOTIFY_SOCKET, as systemd does."""

    def __init__(self) -> None:
        name = f"farm-test-{uuid.uuid4()}"
        self.environment = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "400000"}
        self.received: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while message := self._socket.recv(65_536).decode():
            self.received.append(dict(line.split("=", 1) for line in message.split("\n")))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def index(self, variable: str, since: int = 0) -> int:
        """Of the first message with this variable; waits for it."""

        def found() -> list[int]:
            return [n for n, each in enumerate(self.received) if n >= since and variable in each]

        return until(found, f"{variable} is sent", START_S)[0]


def test_it_is_told_of_start_reload_and_end_and_no_other_process_has_its_socket(tmp_path: Path) -> None:
    manager = Manager()
    with running_farm(tmp_path / "data", environment=manager.environment) as farm:
        pid = farm.pid
        ready = manager.index("READY")
        assert manager.received[ready]["MAINPID"] == str(pid)
        pattern = re.compile(r"ok: 0 devices, 2 of 2 workers and (\d) of \1 routers serve")
        until(lambda: any(pattern.fullmatch(each.get("STATUS", "")) for each in manager.received), "the status")
        assert manager.received[manager.index("WATCHDOG", ready)] == {"WATCHDOG": "1"}
        others = [Path(f"/proc/{other}/environ") for other in farm.processes() if other != pid]
        assert len(others) >= 4  # the fork server, the workers and a router
        assert not [each for each in others if b"NOTIFY_SOCKET" in each.read_bytes()]

        asked = time.monotonic_ns() // 1000
        os.kill(pid, signal.SIGHUP)
        reloading = manager.index("RELOADING", ready)
        assert int(manager.received[reloading]["MONOTONIC_USEC"]) >= asked
        again = manager.index("READY", reloading)
        assert list(farm.events("reload.done"))
    stopping = manager.index("STOPPING", again)
    manager.close()
    assert int(manager.received[stopping]["EXTEND_TIMEOUT_USEC"]) > 0
    assert not [each for each in manager.received[stopping:] if "READY" in each]
