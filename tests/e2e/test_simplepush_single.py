"""`farm router` and `farm worker` without a supervisor, and farms on IPv6, each with SimplePush devices."""

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import websocket
from support.farm_fixture import running_farm, until

from bench.machine.ports import free_ports

CHANNEL = "0b4a7f0e-0000-4000-8000-000000000001"


def no_ipv6() -> str:
    """Why this machine has none; "" if it has."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        return f"no IPv6 on loopback: {error}"
    return ""


NO_IPV6 = no_ipv6()
needs_ipv6 = pytest.mark.skipif(bool(NO_IPV6), reason=NO_IPV6)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "farm", *arguments], stderr=subprocess.PIPE)


def connected(port: int, host: str = "127.0.0.1") -> websocket.WebSocket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return websocket.create_connection(f"ws://{host}:{port}/", timeout=10)
        except OSError:
            if time.monotonic() > deadline:
                raise


def ask(device: websocket.WebSocket, **command: object) -> dict[str, object]:
    device.send(json.dumps(command))
    answer: dict[str, object] = json.loads(device.recv())
    return answer


@pytest.mark.parametrize(
    ("host", "name", "endpoints", "number"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", 1),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", 2),
        pytest.param("::1", "[::1]", "[::1]", 1, marks=needs_ipv6),
        pytest.param("::", "[::1]", "127.0.0.1", 1, marks=needs_ipv6),
        pytest.param("::", "127.0.0.1", "127.0.0.1", 1, marks=needs_ipv6),
    ],
)
def test_routers_and_a_worker_of_their_own(tmp_path: Path, host: str, name: str, endpoints: str, number: int) -> None:
    """number: of the routers, of which the kernel chooses one for each push."""
    device_port, router_port = free_ports(2)
    data = tmp_path / "data"
    common = ("--set", f"data.dir={data}", "--set", f"listen.host={host}")
    common += ("--set", f"listen.device_port={device_port}", "--set", f"listen.router_port={router_port}")
    common += ("--routers", str(number))
    worker = start("worker", "--shard", "7", *common)
    routers = [start("router", "--number", str(one), *common) for one in range(number)]
    try:
        device = connected(device_port, name)
        assert ask(device, messageType="hello", uaid="", channelIDs=[])["status"] == 200
        endpoint = ask(device, messageType="register", channelID=CHANNEL)["pushEndpoint"]
        assert str(endpoint).startswith(f"http://{endpoints}:{router_port}/update/")
        for version in range(3, 3 + 4 * number):
            push = urllib.request.Request(str(endpoint), data=b"version=%d" % version, method="PUT")
            with urllib.request.urlopen(push, timeout=10) as answer:
                assert answer.status == 200
            updates = json.loads(device.recv())["updates"]
            assert updates == [{"channelID": CHANNEL, "version": version}]
        assert data.stat().st_mode & 0o777 == 0o700
        device.close()
        for process, ends in ((worker, signal.SIGINT), *((router, signal.SIGTERM) for router in routers)):
            process.send_signal(ends)
            assert process.wait(30) == 0
    finally:
        for process in (worker, *routers):
            process.kill()
            process.communicate()


@needs_ipv6
def test_a_farm_on_every_address_is_reached_by_both_families(tmp_path: Path) -> None:
    device_port, router_port, admin_port = free_ports(3)
    ports = ("--device-port", str(device_port), "--router-port", str(router_port), "--admin-port", str(admin_port))
    farm = start("start", "--workers", "2", "--host", "::", *ports, "--data", str(tmp_path / "data"))
    try:
        for name in ("127.0.0.1", "[::1]"):
            device = connected(device_port, name)
            assert ask(device, messageType="hello", uaid="", channelIDs=[])["status"] == 200
            endpoint = str(ask(device, messageType="register", channelID=CHANNEL)["pushEndpoint"])
            for base in ("127.0.0.1", "[::1]"):
                where = endpoint.replace("127.0.0.1", base)
                push = urllib.request.Request(where, data=b"version=3", method="PUT")
                with urllib.request.urlopen(push, timeout=10) as answer:
                    assert answer.status == 200
            device.close()
        farm.send_signal(signal.SIGTERM)
        assert farm.wait(30) == 0
    finally:
        farm.kill()
        farm.communicate()


def test_a_silent_device_is_pinged_and_one_that_speaks_is_not(tmp_path: Path) -> None:
    with running_farm(tmp_path, settings={"worker.keepalive": 1}) as farm:
        silent = connected(farm.device_port)
        assert ask(silent, messageType="hello", uaid="", channelIDs=[])["status"] == 200
        talker = connected(farm.device_port)
        talker.settimeout(0.2)
        assert ask(talker, messageType="hello", uaid="", channelIDs=[])["status"] == 200
        frames: list[int] = []

        def hear() -> bool:
            talker.pong()  # a frame that the farm does not answer
            with contextlib.suppress(websocket.WebSocketTimeoutException):
                frames.append(talker.recv_data_frame(control_frame=True)[0])
            return silent in select.select([silent], [], [], 0)[0]

        until(hear, "the silent device hears something")
        assert silent.recv_data_frame(control_frame=True)[0] == websocket.ABNF.OPCODE_PING
        assert websocket.ABNF.OPCODE_PING not in frames
        assert ask(silent, messageType="register", channelID=CHANNEL)["status"] == 200
