"""push stream behind nginx, by deploy/nginx-pushstream.conf: every path on one port, and nothing held back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, ROOT, Farm, curl, running_farm, until
from support.installed import find_program
from support.nginx import running_nginx

KEY = "the-key-of-this-test"
SETTINGS = {"dialects.pushstream": True, "pushstream.admin_key": KEY, "pushstream.longpolling_connection_ttl": 20}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("nginx") / "data", SETTINGS) as farm:
        yield farm


@pytest.fixture(scope="module")
def port(farm: Farm) -> Iterator[int]:
    changes = {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{farm.device_port};",
        "server 127.0.0.1:8081;": f"server 127.0.0.1:{farm.router_port};",
        "CHANGE-THIS-KEY": KEY,
    }
    with running_nginx(ROOT / "deploy" / "nginx-pushstream.conf", ["listen 5000"], changes) as (port,):
        yield port


@contextmanager
def curl_stream(url: str, *arguments: str) -> Iterator[Iterator[bytes]]:
    """The lines of an answer, as they come."""
    command = [find_program("curl"), "--silent", "--no-buffer", "--noproxy", "*", *arguments, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield iter(process.stdout)
    finally:
        process.kill()
        process.communicate()


def publish(port: int, channel: str, text: str) -> None:
    assert curl("--data-binary", text, f"http://127.0.0.1:{port}/pub?id={channel}").status == 200


def subscribed(port: int, channel: str, number: int = 1) -> None:
    def there() -> bool:
        answer = curl(f"http://127.0.0.1:{port}/channels-stats?id={channel}")
        return answer.status == 200 and answer.json()["subscribers"] == number

    until(there, "it is subscribed")


def test_a_websocket(port: int) -> None:
    for prefix in ("ws", "subscribe"):
        client = websocket.create_connection(f"ws://127.0.0.1:{port}/{prefix}/socket-{prefix}", timeout=PATIENCE_S)
        subscribed(port, f"socket-{prefix}")
        publish(port, f"socket-{prefix}", "hello")
        assert json.loads(client.recv())["text"] == "hello"
        client.close()


@pytest.mark.parametrize("prefix", ["sub", "ev"])
def test_a_stream_goes_on_when_a_message_comes(port: int, prefix: str) -> None:
    channel = f"stream-{prefix}"
    with curl_stream(f"http://127.0.0.1:{port}/{prefix}/{channel}") as lines:
        subscribed(port, channel)
        for text in ("one", "two"):
            publish(port, channel, text)
            line = next(line for line in lines if b"{" in line)
            assert json.loads(line[line.index(b"{") :])["text"] == text


def test_a_long_poll_is_answered_when_a_message_comes_and_goes_on_behind_it(port: int) -> None:
    url = f"http://127.0.0.1:{port}/lp/poll"
    with curl_stream(url, "--include") as lines:
        subscribed(port, "poll")
        publish(port, "poll", "first")
        headers = {}
        for line in lines:
            name, _, value = line.decode().strip().partition(": ")
            if not name:
                break
            headers[name.lower()] = value
        assert json.loads(next(lines))["text"] == "first"
    publish(port, "poll", "second")
    behind = (
        *("--header", f"If-Modified-Since: {headers['last-modified']}"),
        *("--header", f"If-None-Match: {headers['etag']}"),
    )
    answer = curl(*behind, url)
    assert answer.json()["text"] == "second"


def test_who_may_publish_is_said_by_nginx_and_the_key(farm: Farm, port: int) -> None:
    assert curl(f"http://127.0.0.1:{port}/channels-stats").status == 200
    assert curl(farm.url("/channels-stats")).status == 403
