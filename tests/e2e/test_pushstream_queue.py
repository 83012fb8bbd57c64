"""Notifications from a real NATS server, with and without a stream, published to channels that a browser could read."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, curl, running_farm, until
from support.pushstream_queue import STREAM, NatsServer, nats_server

ON = {"dialects.pushstream": True, "store.log_limit": 100_000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as running:
        yield running


def body(channel: int | str, message: str) -> bytes:
    """As gogin's: JSON in a JSON text."""
    return json.dumps(json.dumps({"channel": channel, "message": message})).encode()


def number_of(farm: Farm, name: str) -> float:
    """A number of the router's; 0 while there is none."""
    lines = farm.admin("/metrics")[1].decode().splitlines()
    names = (f"farm_router_{name} ", f"farm_router_{name}{{")
    return next((float(line.split()[-1]) for line in lines if line.startswith(names)), 0.0)


def connected(farm: Farm) -> None:
    until(lambda: number_of(farm, "pushstream_queue_connected") == 1, "the router is connected to the queue")


def stored(farm: Farm, channel: str) -> list[str]:
    """The texts in a channel's log, by a poll."""
    headers = ("-H", "X-Nginx-PushStream-Mode: polling")
    http = f"http://127.0.0.1:{farm.device_port}"
    found: list[str] = []
    position: tuple[str, ...] = ()
    while True:
        answer = curl(*headers, *position, f"{http}/sub/{channel}" + ("" if position else ".b100000"))
        if answer.status == 304:
            return found
        found += [message["text"] for message in messages_of(answer.body)]
        place = answer.headers
        position = ("-H", f"If-Modified-Since: {place['last-modified']}", "-H", f"If-None-Match: {place['etag']}")


def messages_of(text: bytes) -> Iterator[Any]:
    decoder, rest = json.JSONDecoder(), text.decode().strip()
    while rest:
        found, end = decoder.raw_decode(rest)
        yield found
        rest = rest[end:].strip()


def test_messages_without_a_stream(server: NatsServer, tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", ON | {"nats.url": server.url}) as farm:
        connected(farm)
        client = websocket.create_connection(f"{farm.device_url}ws/7", timeout=PATIENCE_S)
        server.publish(
            [
                body(7, "one"),
                b"no JSON",
                b'{"channel":7}',
                b"\xff",
                body("ALL", "nobody"),
                b'{"channel":7,"message":"two"}',
            ]
        )
        assert [json.loads(client.recv())["text"] for _ in range(2)] == ["one", "two"]
        until(lambda: number_of(farm, "pushstream_notifications_invalid_total") == 4, "four were none")
        assert number_of(farm, "pushstream_notifications_total") == 2
        assert len(list(farm.events("pushstream.notification_invalid"))) == 1
        server.kill()
        until(lambda: number_of(farm, "pushstream_queue_connected") == 0, "the connection is lost")
        server.start()
        connected(farm)
        server.publish([body(7, "three")])
        assert json.loads(client.recv())["text"] == "three"
        client.close()


def test_a_queue_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    settings = {"nats.url": server.url, "nats.stream": STREAM}
    with running_farm(tmp_path / "data", ON | settings) as farm:
        until(lambda: list(farm.events("pushstream.queue_failed")), "it says that it cannot connect")
        server.start()
        try:
            server.make_stream()
            server.publish([body("a", "one")], stored=True)
            until(lambda: stored(farm, "a") == ["one"], "it connects, and there is a stream at last")
        finally:
            server.kill()


def test_nothing_of_a_stream_is_lost_when_processes_are_killed(tmp_path: Path) -> None:
    number = 1000
    with nats_server(tmp_path / "nats") as server:
        server.make_stream()
        texts = [f"message {one}" for one in range(4 * number)]
        bodies = [body("a", text) for text in texts]
        server.publish(bodies[:number], stored=True)
        settings = ON | {"nats.url": server.url, "nats.stream": STREAM, "nats.max_waiting": 200}
        with running_farm(tmp_path / "data", settings) as farm:
            for begin in range(number, len(texts), number):  # some for each router, however fast the last one was
                publisher = threading.Thread(target=server.publish, args=(bodies[begin : begin + number], True))
                publisher.start()
                until(lambda: number_of(farm, "pushstream_notifications_total") > 100, "messages are published")
                os.kill(farm.router_pid(), signal.SIGKILL)
                farm.wait_healthy()
                publisher.join()
            until(lambda: set(texts) <= set(stored(farm, "a")), "all are in the log")
        found: list[str] = []
        with running_farm(tmp_path / "data", settings) as farm:
            found = stored(farm, "a")
            assert set(found) == set(texts)
            connected(farm)
            server.publish([body("a", "the last")], stored=True)
            until(lambda: stored(farm, "a")[-1] == "the last", "it goes on where it was")
            assert len(stored(farm, "a")) == len(found) + 1
