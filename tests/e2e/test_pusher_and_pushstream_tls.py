"""TLS on the device port: a farm of two workers from MicroNotifier's configuration with a certificate, and clients that
are not ours: openssl, curl, websocket-client, pusher-js and the library for app servers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from pusher import Pusher
from support.certificates import Files, write
from support.farm_fixture import Farm, Raw, curl, running, until
from support.installed import NPM, find_program, npm_file
from support.processes import printing
from support.pusher_sdk import Device

pytestmark = pytest.mark.measured

NUMBER: Final = {"name": "3", "key": "278d425bdf160c739803", "secret": "7ad3773142a6692b25b8"}
DEVICES: Final = 8
"""Enough that both workers have some of them."""


class TlsFarm(Farm):
    """From a configuration file of MicroNotifier that names a certificate; and with another one for another name."""

    def __init__(self, folder: Path) -> None:
        watched = {"tls.watch": 0.2, "link.heartbeat": 0.2, "dialects.pushstream": True, "tls.router": "off"}
        super().__init__(folder / "data", {"router.routers": 1, **watched})
        self.files = write(folder, "localhost", file="own")

    def arguments(self) -> list[str]:
        tree = {
            "host": "localhost",
            "port": 0,
            "certificate": str(self.files.certificate),
            "private-key": str(self.files.key),
            "applications": [NUMBER],
        }
        file = self.data.parent / "config.json"
        file.write_text(json.dumps(tree))
        return [*super().arguments(), "--micronotifier-config", str(file)]

    @property
    def device_url(self) -> str:
        return f"wss://localhost:{self.device_port}/"

    def curl(self, path: str, *arguments: str) -> Any:
        return curl("--cacert", str(self.files.certificate), *arguments, f"https://localhost:{self.device_port}{path}")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsFarm]:
    with running(TlsFarm(tmp_path_factory.mktemp("tls"))) as farm:
        yield farm


def subscribed(farm: TlsFarm, channel: str) -> Device:
    """A device of this channel, by websocket-client."""
    device = Device(farm, NUMBER, farm.files.certificate)
    device.subscribe(channel)
    return device


@pytest.fixture
def library(farm: TlsFarm, monkeypatch: pytest.MonkeyPatch) -> Pusher:
    """The library for app servers, on the port of the devices, with TLS."""
    monkeypatch.setattr("pusher.requests.CERT_PATH", str(farm.files.certificate))  # otherwise it trusts its own
    name, key, secret = NUMBER["name"], NUMBER["key"], NUMBER["secret"]
    return Pusher(app_id=name, key=key, secret=secret, host="localhost", port=farm.device_port, ssl=True)


def s_client(farm: TlsFarm, *arguments: str, said: bytes = b"") -> str:
    """What openssl tells of a connection, which ends when it has said this."""
    line = [find_program("openssl"), "s_client", "-connect", f"localhost:{farm.device_port}", *arguments]
    done = subprocess.run(line, input=said, capture_output=True, timeout=30, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


REQUEST: Final = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Answered, and behind it the connection ends."""


def test_devices_and_app_servers(farm: TlsFarm, library: Pusher) -> None:
    """Those that publish come to the same port, and their connections are relayed to the router."""
    with ExitStack() as stack:
        devices = [stack.enter_context(subscribed(farm, "news")) for _ in range(DEVICES)]
        long = "x" * 9000
        for number in range(DEVICES):  # each on a connection of its own, of whichever worker
            assert library.trigger("news", "fresh", {"n": number, "text": long}) == {}
        for device in devices:
            heard = [device.data("fresh") for _ in range(DEVICES)]
            assert heard == [{"n": n, "text": long} for n in range(DEVICES)]
        assert library.channel_info("news")["occupied"] is True
        until(lambda: farm.counter("tls_connections") > DEVICES, "the workers count them")
    # The library's own is kept open for its next event.
    until(lambda: farm.counter("tls_connections") == farm.counter("relayed"), "nothing is left of the devices")
    assert farm.counter("relayed") >= 1
    assert farm.counter("handshakes_failed") == farm.counter("connections_failed") == 0


def test_curl_publishes_twice_on_one_connection_and_polls(farm: TlsFarm) -> None:
    url = f"https://localhost:{farm.device_port}/pub?id=log"
    line = [find_program("curl"), "-sS", "--cacert", str(farm.files.certificate), "-w", "%{http_code} %{num_connects} "]
    done = subprocess.run(
        [*line, "-d", "@-", "-o", "/dev/null", url, "-o", "/dev/null", url],
        input=b"y" * 30_000,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == b"200 1 200 0 "
    found = farm.curl("/lp/log.b1", "-H", "X-Nginx-PushStream-Mode: polling")
    assert (found.status, len(found.json()["text"])) == (200, 30_000)


def test_what_a_poll_waits_for_comes(farm: TlsFarm) -> None:
    line = [find_program("curl"), "-sN", "--cacert", str(farm.files.certificate)]
    with printing(*line, f"https://localhost:{farm.device_port}/sub/stream") as lines:
        until(lambda: farm.counter("channels") == 1, "the subscriber is there")
        for text in ("one", "two"):
            assert farm.curl("/pub?id=stream", "--data", text).status == 200
        assert ["one" in next(lines), "two" in next(lines)] == [True, True]


def test_pusher_js(farm: TlsFarm, library: Pusher) -> None:
    npm_file("pusher-js/package.json")
    order = {
        "key": NUMBER["key"],
        "secret": NUMBER["secret"],
        "port": farm.device_port,
        "user": "ann",
        "channels": ["presence-room"],
        "tls": True,
    }
    line = [find_program("node"), str(NPM / "pusher-js.mjs"), json.dumps(order)]
    with printing(*line, environment={"NODE_EXTRA_CA_CERTS": str(farm.files.certificate)}) as lines:
        heard = map(json.loads, lines)
        assert any(one["event"] == "pusher_internal:subscription_succeeded" for one in heard)
        library.trigger("presence-room", "greeting", "hello")
        assert any(one["event"] == "greeting" for one in heard)


def test_sessions_are_resumed_by_the_other_worker_too(farm: TlsFarm, tmp_path: Path) -> None:
    session = str(tmp_path / "session.pem")
    first = s_client(farm, "-ign_eof", "-alpn", "h2,http/1.1", "-sess_out", session, said=REQUEST)
    assert "New, TLSv1.3" in first
    assert "ALPN protocol: http/1.1" in first

    def both() -> bool:
        assert "Reused, TLSv1.3" in s_client(farm, "-ign_eof", "-sess_in", session, said=REQUEST)
        return all(row.get("handshakes_resumed") for row in farm.status()["workers"])

    until(both, "each worker has resumed it")
    assert s_client(farm, "-tls1_2", "-reconnect").count("Reused, TLSv1.2") == 5
    assert "alert protocol version" in s_client(farm, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def test_who_renews_its_keys_again_and_again_holds_nobody_up(farm: TlsFarm) -> None:
    """Each worker has such clients while a device gets its answers."""
    line = [find_program("openssl"), "s_client", "-connect", f"localhost:{farm.device_port}", "-tls1_3"]
    with ExitStack() as stack:
        floods = []
        for _ in range(6):
            flood = stack.enter_context(
                subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(flood.kill)
            floods.append(flood)
        device = stack.enter_context(subscribed(farm, "calm"))
        for _ in range(20):
            for flood in floods:
                assert flood.stdin is not None
                with suppress(BrokenPipeError):
                    flood.stdin.write(b"K\n")
                    flood.stdin.flush()
            device.nothing_more()


def test_plain_http_is_refused_in_plain_text(farm: TlsFarm) -> None:
    answer = curl(f"http://localhost:{farm.device_port}/app/x")
    assert (answer.status, answer.body) == (400, b"this port speaks TLS\n")
    with Raw(farm.device_port) as client:
        client.send(b"\x16\x03\x01" + b"\xff" * 200)
        client.rest()
    device = curl(f"http://127.0.0.1:{farm.router_port}/apps")
    assert device.status == 200  # tls.router is off


def shown(farm: TlsFarm) -> str:
    """The certificate that a client is shown now."""
    return ssl.get_server_certificate(("localhost", farm.device_port))


def renew(files: Files, days: int) -> str:
    """Another certificate and key in the place of these, each written as certbot does. Returns: the certificate."""
    new = write(files.certificate.parent, "localhost", file="new", days=days)
    os.replace(new.key, files.key)
    os.replace(new.certificate, files.certificate)
    return files.certificate.read_text()


def test_a_certificate_that_is_renewed_is_used_at_once_and_by_a_reload(farm: TlsFarm) -> None:
    """Last, because the farm has another certificate afterwards."""
    with subscribed(farm, "quiet") as device:
        assert shown(farm) == farm.files.certificate.read_text()
        renewed = renew(farm.files, 60)
        for _ in range(2):
            until(lambda: all(shown(farm) == renewed for _ in range(6)), "both workers show it")
        device.nothing_more()  # who was there is served on
        farm.files.key.write_text("no key\n")
        until(lambda: list(farm.events("tls.not_renewed")), "a log line")
        assert shown(farm) == renewed
        os.kill(farm.pid, signal.SIGHUP)
        (line, *_) = until(lambda: list(farm.events("reload.refused")), "such a reload is refused")
        assert line["why"].endswith(f"{farm.files.key} is not the key of {farm.files.certificate}") or re.search(
            r"tls\.key: .* cannot be used", line["why"]
        )
        another = renew(farm.files, 90)
        os.kill(farm.pid, signal.SIGHUP)
        assert device.close_code() == 4100
        until(lambda: list(farm.events("reload.done")), "the reload is done")
        assert shown(farm) == another
