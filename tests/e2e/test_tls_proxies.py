"""Debian's HAProxy and nginx with TLS in front of a farm, with the files of deploy/: the farm sees its clients.

Each proxy, and each client, has an address of loopback of its own.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest
import websocket
from support.certificates import Files, write
from support.farm_fixture import PATIENCE_S, ROOT, Farm, HttpAnswer, curl, new_channel, running_farm, until
from support.haproxy import running_haproxy_with_tls
from support.nginx import running_nginx

OF_HAPROXY: Final = "127.0.0.2"
OF_NGINX: Final = "127.0.0.3"
PUSHES: Final = 2
FORGED: Final = ("-H", "X-Forwarded-For: 192.0.2.1", "-H", "Forwarded: for=192.0.2.2")


class Ports(NamedTuple):
    """Of a proxy."""

    device: int
    router: int
    clients: str
    """What the addresses of its clients begin with."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("certificates"), "localhost")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A burst is what the rate gives in an hour: in the time of a test there is no more."""
    settings = {
        "listen.proxy_from": OF_HAPROXY,
        "listen.forwarded_from": OF_NGINX,
        "limits.burst_seconds": 3600,
        "limits.pushes_per_address": PUSHES / 3600,
        "router.routers": 1,  # each has the whole of it
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as farm:
        yield farm


@contextmanager
def haproxy(farm: Farm, files: Files, folder: Path) -> Iterator[Ports]:
    pem = folder / "push.pem"
    pem.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    with running_haproxy_with_tls(farm, pem, OF_HAPROXY) as proxy:
        until(lambda: proxy.up() and proxy.up("app_servers"), "HAProxy knows that the farm is ready")
        yield Ports(proxy.device_port, proxy.router_port, "127.0.2.")


@contextmanager
def nginx(farm: Farm, files: Files, folder: Path) -> Iterator[Ports]:
    changes = {
        "127.0.0.1:8080": f"127.0.0.1:{farm.device_port}",
        "127.0.0.1:8081": f"127.0.0.1:{farm.router_port}",
        "/etc/letsencrypt/live/push.example.org/fullchain.pem": str(files.certificate),
        "/etc/letsencrypt/live/push.example.org/privkey.pem": str(files.key),
        "proxy_http_version 1.1;": f"proxy_http_version 1.1; proxy_bind {OF_NGINX};",
    }
    with running_nginx(ROOT / "deploy" / "nginx-tls.conf", ["listen 8443", "listen 8444"], changes) as (first, second):
        yield Ports(first, second, "127.0.3.")


def connected(port: int, address: str, root: Path, *headers: str) -> websocket.WebSocket:
    """A SimplePush device from this address of loopback."""
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0))
    own = ssl.create_default_context(cafile=root).wrap_socket(plain, server_hostname="localhost")
    url = f"wss://localhost:{port}/"
    return websocket.create_connection(url, socket=own, subprotocols=["push-notification"], header=list(headers))


def ask(device: websocket.WebSocket, **command: Any) -> Any:
    device.send(json.dumps(command))
    return json.loads(device.recv())


@pytest.mark.parametrize("proxy", [haproxy, nginx])
def test_the_clients_of_a_proxy_with_tls(proxy: Any, farm: Farm, files: Files, tmp_path: Path) -> None:
    with proxy(farm, files, tmp_path) as ports:
        of_device, of_server, of_other = (f"{ports.clients}{number}" for number in (7, 8, 9))
        forged = ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.2"]
        device = connected(ports.device, of_device, files.certificate, *(forged if proxy is nginx else ()))
        uaid = ask(device, messageType="hello", uaid="", channelIDs=[])["uaid"]

        def found() -> list[str]:
            code, body = farm.admin(f"/api/v1/devices?address={of_device}")
            assert code == 200, body
            return [row["uaid"] for row in json.loads(body)["devices"]]

        until(lambda: found() == [uaid], "the device is found by its own address")
        endpoint = ask(device, messageType="register", channelID=new_channel())["pushEndpoint"]

        def push(version: int, address: str, *more: str) -> HttpAnswer:
            data = ("-X", "PUT", "-d", f"version={version}", "--interface", address)
            url = f"https://localhost:{ports.router}{urlsplit(endpoint).path}"
            return curl("--cacert", str(files.certificate), *data, *more, url)

        forging = FORGED if proxy is nginx else ()
        assert [push(1, of_server).status, push(2, of_server, *forging).status] == [200, 200]
        assert push(3, of_server, *forging).status == 429
        assert push(4, of_other).status == 200
        seen = [json.loads(device.recv())["updates"][0]["version"] for _ in range(3)]
        assert seen == [1, 2, 4]
        device.close()


def test_who_is_no_proxy_is_who_it_is(farm: Farm) -> None:
    """Headers of either kind, from an address that is not listed, say nothing; and HAProxy's own address needs one."""
    whole = ("-X", "PUT", "-d", "version=1", farm.url("/update/none"))
    forged = [curl("--interface", "127.0.4.1", "-H", f"X-Forwarded-For: 192.0.2.{n}", *whole).status for n in range(3)]
    assert forged[-1] == 429
    assert 429 not in forged[:PUSHES]
    assert curl("--interface", "127.0.4.2", "--haproxy-protocol", *whole).status == 400
    assert curl("--interface", OF_HAPROXY, "--haproxy-protocol", *whole).status == 404
    with socket.create_connection(("127.0.0.1", farm.router_port), PATIENCE_S, (OF_HAPROXY, 0)) as bare:
        bare.sendall(b"GET /live HTTP/1.1\r\nHost: push\r\n\r\n")
        with suppress(ConnectionResetError):
            assert bare.recv(100) == b""
    refused = until(lambda: list(farm.events("http.proxy_refused")), "it is in the log")
    assert refused[0]["peer"] == OF_HAPROXY
