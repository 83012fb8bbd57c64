"""`farm demo`, from its command line to a push that arrives through a farm."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import websocket
from support.common import deaf_port
from support.farm_fixture import PATIENCE_S, ROOT, STOP_S, Farm, environ, new_channel, running_farm
from support.webpush_demo import Loads, Receiver, addresses, decoded, running_demo

from farm.webpush_demo import page

pytestmark = pytest.mark.measured


def farm_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farm", "demo", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=STOP_S, check=False)


def test_help_teaches() -> None:
    done = farm_demo("--help")
    assert done.returncode == 0 and "Examples" in done.stdout
    assert all(flag in done.stdout for flag in ("--port", "--router-url", "--device-url", "--set"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--router-url", "push.example.org"], "--router-url: expected http://HOST:PORT or https://HOST"),
        (["--device-url", "http://127.0.0.1:8080/"], "--device-url: expected ws://HOST:PORT/ or wss://HOST/"),
        (["--device-url", "ws://a b"], "--device-url: expected ws://HOST:PORT/ or wss://HOST/"),
        (["--device-url", "ws://a:65536"], "--device-url: expected ws://HOST:PORT/ or wss://HOST/"),
        (["--device-port", "0"], "--device-url: is needed, since listen.device_port is 0"),
        (["--router-port", "0"], "--router-url: is needed, since listen.router_port is 0"),
        (["--port", "70000"], "--port"),
    ],
)
def test_one_line_for_a_mistake(arguments: list[str], said: str) -> None:
    done = farm_demo(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = farm_demo("--port", str(port))
    assert done.returncode == 1 and done.stdout == ""
    assert f"--port: cannot listen on port {port}" in done.stderr and len(done.stderr.splitlines()) == 1


def test_defaults_are_those_of_the_settings() -> None:
    settings = ("--set", "endpoint.url=https://push.example.org/", "--device-port", "18080")
    with running_demo(*settings) as url:
        found = Loads(request("GET", url)[2].decode()).body
    assert found["data-endpoint"] == "https://push.example.org"
    assert found["data-device"] == "ws://127.0.0.1:18080/"


def test_it_ends_by_ctrl_c() -> None:
    command = [sys.executable, "-m", "farm", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == 0


def request(
    method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(url)
    assert parts.hostname == "localhost"
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=PATIENCE_S)
    try:
        connection.request(method, parts.path, body, {"Host": parts.netloc} | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(url: str, body: object, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = request("POST", f"{url}send", data, {"Content-Type": "application/json"} | headers)
    return status, json.loads(answer)


class Browser:
    """A device that has subscribed as a browser does, with the key that the demo's page gives it."""

    def __init__(self, farm: Farm, key: str) -> None:
        self.receiver = Receiver()
        self._socket = websocket.create_connection(farm.device_url, timeout=PATIENCE_S)
        assert self._ask(messageType="hello", use_webpush=True, broadcasts={})["status"] == 200
        self._channel = new_channel()
        self.endpoint = self._ask(messageType="register", channelID=self._channel, key=key)["pushEndpoint"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(timeout=PATIENCE_S)
        self._socket.shutdown()

    def _ask(self, **command: Any) -> Any:
        self._socket.send(json.dumps(command))
        return json.loads(self._socket.recv())

    @property
    def subscription(self) -> dict[str, Any]:
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": self.receiver.keys}

    def message(self) -> Any:
        """Wait for a notification, and decrypt it."""
        found = json.loads(self._socket.recv())
        assert found["messageType"] == "notification" and found["headers"] == {"encoding": "aes128gcm"}, found
        update = {"channelID": self._channel, "version": found["version"], "code": 100}
        self._socket.send(json.dumps({"messageType": "ack", "updates": [update]}))
        return self.receiver.decrypted(decoded(found["data"]))

    def unsubscribe(self) -> None:
        assert self._ask(messageType="unregister", channelID=self._channel, code=200)["status"] == 200


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("demo") / "data", workers=1) as found:
        yield found


@pytest.fixture(scope="module")
def url(farm: Farm) -> Iterator[str]:
    with running_demo(*addresses(farm)) as found:
        yield found


@pytest.fixture
def browser(farm: Farm, url: str) -> Iterator[Browser]:
    key = Loads(request("GET", url)[2].decode()).body["data-key"]
    assert key
    with Browser(farm, key) as found:
        yield found


def test_everything_that_the_page_loads_is_there(url: str) -> None:
    status, headers, body = request("GET", url)
    assert status == 200 and headers.get_content_type() == "text/html"
    assert headers["Content-Security-Policy"] == page.SECURITY_POLICY
    for name in {"worker.js", *Loads(body.decode()).sources} - {"data:,"}:
        status, headers, body = request("GET", url + name)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, page.FILES[name], "no-store")
        assert body == page.file(name)


def test_the_farm_is_found(url: str) -> None:
    status, _, body = request("GET", f"{url}farm")
    assert (status, json.loads(body)) == (200, {"problems": []})


def test_a_farm_that_does_not_run() -> None:
    with (
        deaf_port() as port,
        running_demo("--router-url", f"http://127.0.0.1:{port}", "--device-url", f"ws://127.0.0.1:{port}/") as url,
    ):
        devices, router = json.loads(request("GET", f"{url}farm")[2])["problems"]
        assert "farm start" in devices and "--device-url" in devices and "refused" in devices
        assert "farm start" in router and "--router-url" in router and "refused" in router
        endpoint = f"http://127.0.0.1:{port}/wpush/v1/abc"
        status, found = post(url, {"subscription": {"endpoint": endpoint, "keys": Receiver().keys}, "text": "x"})
        assert status == 502 and "farm start" in found["error"]


def test_what_is_no_farm(farm: Farm) -> None:
    """The router port does not take WebSockets."""
    with running_demo("--router-url", farm.url(""), "--device-url", f"ws://127.0.0.1:{farm.router_port}/") as url:
        (problem,) = json.loads(request("GET", f"{url}farm")[2])["problems"]
        assert "--device-url" in problem


def test_a_push_arrives(url: str, browser: Browser) -> None:
    status, found = post(url, {"subscription": browser.subscription, "text": "Grüße", "topic": "t", "urgency": "high"})
    assert (status, found["status"], found["hint"]) == (200, 201, ""), found
    assert browser.message()["text"] == "Grüße"


def test_what_the_farm_refuses_is_said_with_a_hint(url: str, browser: Browser) -> None:
    status, found = post(url, {"subscription": browser.subscription, "text": "x", "ttl": -1})
    assert (status, found["status"]) == (200, 400) and found["says"] and found["hint"]
    status, found = post(url, {"subscription": browser.subscription, "text": "x", "topic": "not*a*topic"})
    assert (status, found["status"]) == (200, 400) and found["says"] and found["hint"]


def test_after_an_unsubscribe_it_says_gone(url: str, browser: Browser) -> None:
    browser.unsubscribe()
    status, found = post(url, {"subscription": browser.subscription, "text": "x"})
    assert (status, found["status"]) == (200, 410) and "subscribe again" in found["hint"]


def test_an_endpoint_that_the_farm_never_gave(farm: Farm, url: str) -> None:
    subscription = {"endpoint": farm.url("/wpush/v1/abc"), "keys": Receiver().keys}
    status, found = post(url, {"subscription": subscription, "text": "x"})
    assert (status, found["status"]) == (200, 404) and "Subscribe again" in found["hint"]


def test_another_demo_has_another_key(farm: Farm, browser: Browser) -> None:
    with running_demo(*addresses(farm)) as other:
        status, found = post(other, {"subscription": browser.subscription, "text": "x"})
    assert (status, found["status"]) == (200, 401) and "Subscribe again" in found["hint"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        {"text": "x"},
        {"subscription": {"endpoint": 1}, "text": "x"},
        {"subscription": {"endpoint": "", "keys": {"p256dh": "", "auth": ""}}, "text": 1},
        {"subscription": {"endpoint": "", "keys": {"p256dh": "", "auth": ""}}, "text": "x", "urgency": "now"},
        {"subscription": {"endpoint": "", "keys": {"p256dh": "", "auth": ""}}, "text": "x", "ttl": 10**30},
        {"subscription": {"endpoint": "http://127.0.0.1:1/x", "keys": {"p256dh": "", "auth": ""}}, "text": "x"},
    ],
)
def test_bad_orders(url: str, body: object) -> None:
    status, found = post(url, body)
    assert status == 400 and found["error"]


def test_an_order_that_is_too_long(url: str) -> None:
    assert post(url, b" " * 40_000)[0] == 413


def test_pages_of_other_sites_are_shut_out(url: str) -> None:
    assert request("POST", f"{url}send", b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert request("GET", url, headers={"Host": "elsewhere.example"})[0] == 400
    assert "Access-Control-Allow-Origin" not in request("OPTIONS", f"{url}send", headers={"Origin": "http://x.org"})[1]


def test_what_it_has_not(url: str) -> None:
    assert request("GET", f"{url}cli.py")[0] == 404
    assert request("GET", f"{url}send")[0] == 405
