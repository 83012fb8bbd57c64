"""Host after host is replaced behind HAProxy, as docs/operation.md says: no device is refused, or cut off."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import websocket
from support import mirror
from support.farm_fixture import PATIENCE_S, Farm, running_farm, until
from support.haproxy import running_haproxy
from support.mirror import PATH

DEVICES = 12
SETTINGS = {
    "drain.notice": 600,  # the tests end it, when HAProxy has noticed
    "drain.rate": 40,
    "worker.close_timeout": 600,
}


class Device(threading.Thread):
    """A device that comes back at once, and notes whatever is not a close by the server that asks for it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"ws://127.0.0.1:{port}/{PATH}"
        self._leaving = False
        self.socket: websocket.WebSocket | None = None
        self.connects = 0
        self.wrong: list[str] = []
        self.start()

    def run(self) -> None:
        while not self._leaving:
            try:
                self.socket = websocket.create_connection(self._url, timeout=PATIENCE_S)
                self.socket.settimeout(None)
                self.socket.send("here")
                assert self.socket.recv() == "here"
                self.connects += 1
                opcode, data = self.socket.recv_data()
                if (opcode, data[:2]) != (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe9"):
                    self._note(f"{opcode} {data!r}")
            except (OSError, AssertionError, websocket.WebSocketException) as error:
                self._note(repr(error))
            finally:
                if self.socket is not None:
                    self.socket.shutdown()

    def _note(self, what: str) -> None:
        if not self._leaving:
            self.wrong.append(what)

    def leave(self) -> None:
        self._leaving = True
        if self.socket is not None and self.socket.sock is not None:
            self.socket.sock.shutdown(2)
        self.join(PATIENCE_S)


@contextmanager
def connected(port: int) -> Iterator[list[Device]]:
    devices = [Device(port) for _ in range(DEVICES)]
    try:
        until(lambda: all(device.connects == 1 for device in devices), "all are connected")
        yield devices
    finally:
        for device in devices:
            device.leave()


def connections(farm: Farm) -> int:
    return int(farm.status()["connections"])


def test_a_rolling_deploy(tmp_path: Path) -> None:
    environment = mirror.environment(tmp_path)
    with (
        running_farm(tmp_path / "a", SETTINGS, workers=1, environment=environment) as first,
        running_farm(tmp_path / "b", SETTINGS, workers=1, environment=environment) as second,
        running_haproxy((first, second)) as balancer,
    ):
        hosts = {"a": first, "b": second}
        until(lambda: balancer.up() == ["a", "b"], "both take devices")
        with connected(balancer.device_port) as devices:
            until(lambda: sum(map(connections, hosts.values())) == DEVICES, "they are on both hosts")
            for name, other in ("ab", "ba"):
                host = hosts[name]
                held = connections(host)
                assert held
                before = [device.connects for device in devices]
                os.kill(host.pid, signal.SIGTERM)
                until(lambda other=other: balancer.up() == [other], "HAProxy has noticed")
                assert [device.connects for device in devices] == before  # but no device
                assert connections(host) == held
                os.kill(host.pid, signal.SIGTERM)
                assert host.wait_ended() == 0
                until(lambda other=other: connections(hosts[other]) == DEVICES, "all are on the other host")
                assert sum(device.connects for device in devices) == sum(before) + held
                (begun,) = host.events("drain.devices")
                assert (begun["connections"], begun["seconds"]) == (held, round(held / 40, 1))
                assert not list(host.events("process.killed"))
                host.start()
                until(lambda: balancer.up() == ["a", "b"], "it takes devices again")
            assert [device.wrong for device in devices] == [[]] * DEVICES
        for host in hosts.values():  # so that the next signal ends it at once
            os.kill(host.pid, signal.SIGTERM)
            until(lambda host=host: host.status()["drain"], "it is about to stop")
