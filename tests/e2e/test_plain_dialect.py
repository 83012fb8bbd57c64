"""A dialect that speaks more than WebSocket, in a real farm that is told of it by nothing but its module."""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, ROOT, Farm, curl, reload, running_farm

from bench.machine.ports import free_ports

FINDS_IT = """
import farm.dialects
farm.dialects.__path__.append({folder!r})
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("further")
    dialects = folder / "dialects"
    dialects.mkdir()
    (folder / "sitecustomize.py").write_text(FINDS_IT.format(folder=str(dialects)))
    (dialects / "plain.py").write_text("from support.plain_dialect import SIDE\n")
    (port,) = free_ports(1)
    settings = {"dialects.plain": True, "plain.lines_port": port, "worker.admission_timeout": 5}
    path = ":".join(map(str, (folder, ROOT, ROOT / "tests")))
    data: Path = tmp_path_factory.mktemp("farm") / "data"
    with running_farm(data, settings, environment={"PYTHONPATH": path}) as running:
        yield running


class Heard:
    """What a program that runs has printed."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def until(self, end: bytes) -> bytes:
        """Up to and with this."""
        assert self.process.stdout is not None
        got = b""
        while not got.endswith(end):
            part = self.process.stdout.read(1)
            assert part, got
            got += part
        return got


def published(socket_: websocket.WebSocket, stop: threading.Event) -> None:
    """Publishes again and again, as a subscriber does not tell when events reach it."""
    number = 0
    while not stop.wait(0.05):
        number += 1
        socket_.send(f"publish {number}")


def test_one_channel_over_every_transport(farm: Farm) -> None:
    url = f"http://127.0.0.1:{farm.device_port}/plain"
    client = websocket.create_connection(f"ws{url[4:]}/ws/join", timeout=PATIENCE_S)
    lines = socket.create_connection(("127.0.0.1", int(str(farm.settings["plain.lines_port"]))), timeout=PATIENCE_S)
    lines.sendall(b"/plain/lines/join\r\nhello\r\n")
    stream = Heard("curl", "-sSN", f"{url}/stream/join?hi")
    assert stream.until(b"hi") == b"hi"
    stop = threading.Event()
    publisher = threading.Thread(target=published, args=(client, stop))
    publisher.start()
    try:
        poll = curl("--max-time", str(PATIENCE_S), f"{url}/poll/join")
        assert (poll.status, poll.headers["etag"]) == (200, "1")
        assert re.fullmatch(rb"\d+\n", poll.body)
        assert re.fullmatch(rb"event \d+event ", stream.until(b"event ") + stream.until(b"event "))
        assert re.fullmatch(r"\d+", str(client.recv()))
        with lines.makefile("rb") as file:
            assert [next(file) for _ in range(2)] == [b"welcome\r\n", b"hello\r\n"]
            assert re.fullmatch(rb"\d+\r\n", next(file))
    finally:
        stop.set()
        publisher.join()
        client.close()
        lines.close()
        stream.process.terminate()
        stream.process.wait(PATIENCE_S)
        assert stream.process.stdout is not None
        stream.process.stdout.close()


def test_a_request_waits_for_the_router_and_is_accepted_with_a_header(farm: Farm) -> None:
    stream = Heard("curl", "-sSNi", f"http://127.0.0.1:{farm.device_port}/plain/asked/stream?hi")
    head = stream.until(b"hi")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nSet-Cookie: user=nobody\r\n" in head
    stream.process.terminate()
    stream.process.wait(PATIENCE_S)
    assert stream.process.stdout is not None
    stream.process.stdout.close()


def test_a_body_and_a_refusal(farm: Farm) -> None:
    url = f"http://127.0.0.1:{farm.device_port}/plain"
    posted = curl("--data-binary", "some bytes", f"{url}/x")
    assert (posted.status, posted.body, posted.headers["x-address"]) == (200, b"some bytes", "127.0.0.1")
    assert curl("--data-binary", "x" * 2000, f"{url}/x").status == 413
    assert curl(f"{url}/defect").status == 500
    assert curl(f"{url}/ws").status == 426


def test_a_reload_keeps_the_port_of_its_own(farm: Farm) -> None:
    reload(farm)
    port = int(str(farm.settings["plain.lines_port"]))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as lines:
        lines.sendall(b"/plain/lines\r\nhello\r\n")
        with lines.makefile("rb") as file:
            assert [next(file) for _ in range(2)] == [b"welcome\r\n", b"hello\r\n"]
