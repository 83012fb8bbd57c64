"""`farm demo`: what it would post and where to, by values; the page and its server over HTTP, beside a whole farm."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import http_ece
import pytest
import websocket
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02
from support.common import deaf_port
from support.farm_fixture import PATIENCE_S, ROOT, STOP_S, Farm, environ, new_channel, running_farm
from support.webpush_demo import addresses, running_demo

from farm.demo import page
from farm.demo.sender import MAX_PLAIN_BYTES, Base, Keys, Order, Refused, Sender, Subscription, hint

NOW = 1_700_000_000.0
FARM = Base.parse("http://127.0.0.1:8081")


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Receiver:
    """The keys that a browser makes for a subscription."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)

    @property
    def keys(self) -> dict[str, str]:
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"p256dh": base64url(point), "auth": base64url(self._auth)}

    def decrypted(self, body: bytes) -> Any:
        plain = http_ece.decrypt(body, private_key=self._key, auth_secret=self._auth, version="aes128gcm")
        return json.loads(plain)


def order(endpoint: str = "http://127.0.0.1:8081/wpush/v2/abc", receiver: Receiver | None = None, **more: Any) -> Order:
    keys = (receiver or Receiver()).keys
    return Order(Subscription(endpoint, Keys(**keys)), **{"text": "hello", **more})


def sender(base: Base = FARM) -> Sender:
    return Sender(base, lambda: NOW)


# ---------------------------------------------------------------------- where it may post


@pytest.mark.parametrize(
    ("base", "endpoint", "path"),
    [
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081/wpush/v1/a-_9", "/wpush/v1/a-_9"),
        ("http://127.0.0.1:8081/", "http://127.0.0.1:8081/wpush/v2/abc", "/wpush/v2/abc"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081/wpush/abc", "/wpush/abc"),
        ("https://push.example.org", "https://push.example.org/wpush/v2/abc", "/wpush/v2/abc"),
        ("https://push.example.org:443", "https://PUSH.example.org/wpush/v2/abc", "/wpush/v2/abc"),
        ("https://example.org/push", "https://example.org/push/wpush/v2/abc", "/push/wpush/v2/abc"),
        ("http://[::1]:8081", "http://[::1]:8081/wpush/v2/abc", "/wpush/v2/abc"),
    ],
)
def test_endpoints_of_the_farm(base: str, endpoint: str, path: str) -> None:
    assert Base.parse(base).path_of(endpoint) == path


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://updates.push.services.mozilla.com/wpush/v2/abc",
        "http://127.0.0.1:8082/wpush/v2/abc",
        "https://127.0.0.1:8081/wpush/v2/abc",
        "http://127.0.0.1/wpush/v2/abc",
        "http://localhost:8081/wpush/v2/abc",
        "http://127.0.0.1:8081@elsewhere/wpush/v2/abc",
        "http://elsewhere@127.0.0.1:8081/wpush/v2/abc",
        "http://127.0.0.1:8081.elsewhere/wpush/v2/abc",
        "http://127.0.0.1:8081/update/abc",
        "http://127.0.0.1:8081/wpush/v3/abc",
        "http://127.0.0.1:8081/wpush/v2/../../status",
        "http://127.0.0.1:8081/wpush/v2/abc/",
        "http://127.0.0.1:8081/wpush/v2/abc?x",
        "http://127.0.0.1:8081/wpush/v2/abc#x",
        "http://127.0.0.1:8081/wpush/v2/",
        "http://127.0.0.1:8081/wpush/v2/a b",
        "http://127.0.0.1:8081/wpush/v2/ä",
        "http://127.0.0.1:8081",
        "http://127.0.0.1:99999/wpush/v2/abc",
        "http://[::1/wpush/v2/abc",
        "file:///wpush/v2/abc",
        "",
    ],
)
def test_it_posts_nowhere_else(endpoint: str) -> None:
    with pytest.raises(Refused):
        sender().push(order(endpoint))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8081/wpush/v2/abc", "http://127.0.0.1:8081/push2/wpush/v2/abc"])
def test_a_farm_below_a_path_is_not_its_whole_host(endpoint: str) -> None:
    with pytest.raises(Refused):
        Base.parse("http://127.0.0.1:8081/push").path_of(endpoint)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8081",
        "ftp://host",
        "http://",
        "http://host:x",
        "http://u@host",
        "http://h?q",
        "http://a b",
        "http://a/b c",
    ],
)
def test_a_base_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Base.parse(url)


# ---------------------------------------------------------------------- what it posts


def test_the_push_is_encrypted_for_its_receiver() -> None:
    receiver = Receiver()
    push = sender().push(order(receiver=receiver, text="Grüße, 世界", topic="news", ttl=0, urgency="low"))
    assert receiver.decrypted(push.body) == {"text": "Grüße, 世界", "sent": NOW * 1000}
    expected = {"Content-Encoding": "aes128gcm", "TTL": "0", "Topic": "news", "Urgency": "low"}
    assert push.headers.items() >= expected.items()


def test_the_push_is_signed_with_the_key_that_the_page_subscribes_with() -> None:
    demo = sender()
    push = demo.push(order())
    assert f"k={demo.public_key}" in push.headers["Authorization"]
    assert len(decoded(demo.public_key)) == 65
    assert Vapid02.verify(push.headers["Authorization"])
    token = re.match(r"vapid t=([\w.-]+),\s*k=", push.headers["Authorization"])
    assert token is not None
    claims = json.loads(decoded(token[1].split(".")[1]))
    assert claims["aud"] == FARM.url and NOW < claims["exp"] < NOW + 86400 and claims["sub"].startswith("mailto:")


def test_no_topic_header_without_a_topic() -> None:
    assert "Topic" not in sender().push(order()).headers


@pytest.mark.parametrize("topic", ["a b", "a\r\nX: y", "ä", "\0"])
def test_a_topic_that_is_no_header(topic: str) -> None:
    with pytest.raises(Refused, match="topic"):
        sender().push(order(topic=topic))


def test_the_longest_text_fits_one_record() -> None:
    frame = len(json.dumps({"text": "", "sent": NOW * 1000}, separators=(",", ":")))
    longest = "x" * (MAX_PLAIN_BYTES - frame)
    assert len(sender().push(order(text=longest)).body) == 4096
    with pytest.raises(Refused, match="1 bytes too long"):
        sender().push(order(text=longest + "x"))


@pytest.mark.parametrize(
    "keys",
    [
        {"p256dh": "", "auth": ""},
        {"p256dh": "AAAA", "auth": "AAAA"},
        {"p256dh": base64url(b"\4" + bytes(64)), "auth": base64url(bytes(16))},
        {"p256dh": "not base64!", "auth": base64url(bytes(16))},
        {"p256dh": "é", "auth": "é"},
    ],
)
def test_keys_that_are_none(keys: dict[str, str]) -> None:
    with pytest.raises(Refused, match="Subscribe again"):
        sender().push(Order(Subscription("http://127.0.0.1:8081/wpush/v2/abc", Keys(**keys)), "hello"))


def test_every_answer_but_a_good_one_has_a_hint() -> None:
    assert hint(201) == hint(202) == ""
    assert all(hint(status) for status in (301, 400, 401, 404, 410, 413, 418, 500, 502, 503))
    assert "ubscribe again" in hint(410) and "ubscribe again" in hint(404) and "ubscribe again" in hint(401)


# ---------------------------------------------------------------------- the page


class Loads(HTMLParser):
    """What a page loads, and the text of its elements by id."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.texts: dict[str, str] = {}
        self.body: dict[str, str | None] = {}
        self._id = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._id = found.get("id") or ""
        self.sources += [str(found[name]) for name in ("src", "href") if name in found]
        if tag == "body":
            self.body = found

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._id = ""


def build(device_url: str = "ws://127.0.0.1:8080/") -> str:
    return page.build("http://localhost:8083/", "http://127.0.0.1:8081", device_url, "KEY")


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert set(Loads(build()).sources) - {"data:,"} <= set(page.FILES)
    for name in page.FILES:
        assert not re.search(rb"""["'(]\s*(https?:)?//""", page.file(name)), name


def test_the_page_shows_the_prefs_in_their_order() -> None:
    texts = Loads(build()).texts
    assert (texts["pref-1"], texts["value-1"]) == ("dom.push.testing.allowInsecureServerURL", "true")
    assert (texts["pref-2"], texts["value-2"]) == ("dom.push.serverURL", "ws://127.0.0.1:8080/")


def test_wss_needs_one_pref_only() -> None:
    texts = Loads(build("wss://push.example.org/")).texts
    assert (texts["pref-1"], texts["value-1"]) == ("dom.push.serverURL", "wss://push.example.org/")
    assert "pref-2" not in texts


def test_the_line_for_a_fresh_profile_writes_its_prefs(tmp_path: Any) -> None:
    device_url = "ws://127.0.0.1:8080/a'b\"c$d"
    line = Loads(build(device_url)).texts["profile-line"]
    stand_in = tmp_path / "firefox"
    stand_in.write_text('#!/bin/sh\ncat "$3/user.js"; printf "%s" "$4"; rm -r "$3"\n')
    stand_in.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], env=path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [pref.line for pref in page.prefs(device_url)] + ["http://localhost:8083/"]


def test_addresses_are_escaped() -> None:
    device_url = 'ws://host/"><script>alert(1)</script>'
    document = build(device_url)
    assert "<script>alert" not in document
    assert Loads(document).body["data-device"] == device_url


# ---------------------------------------------------------------------- the command


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


# ---------------------------------------------------------------------- over HTTP


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
    """The router port does not speak WebSocket."""
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
