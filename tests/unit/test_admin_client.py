"""The commands' client of the admin port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.common import settings_with

from farm.admin_client import AdminClient
from farm.control import ControlError
from farm.settings import AdminOptions
from router.common.admin_address import AdminAddress
from router.common.options import Settings
from router.common.settings import Listen

ACT = "a" * 32
READ = "r" * 32


class Farm(BaseHTTPRequestHandler):
    """Sends everybody from /status to /elsewhere, and wants a token for everything else."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(302 if self.path == "/status" else 401)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Farm.asked = []
    with HTTPServer(("127.0.0.1", 0), Farm) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tree(host: str = "127.0.0.1", **admin: Any) -> Settings:
    return settings_with((AdminOptions, admin), (Listen, {"admin_host": host}))


def sent(settings: Settings, url: str | None = None, token_file: Path | None = None) -> str | None:
    """The Authorization header of a request, which reaches the server above whatever the URL names."""
    Farm.asked.clear()
    with pytest.raises(ControlError):
        AdminClient.of(settings, url, token_file).get("session")
    return Farm.asked[-1][1]


@pytest.fixture
def all_names_are_here(monkeypatch: pytest.MonkeyPatch, server: HTTPServer) -> int:
    here = socket.create_connection

    def connected(address: tuple[str, int], *rest: object, **more: object) -> socket.socket:
        return here(("127.0.0.1", server.server_port))

    monkeypatch.setattr("socket.create_connection", connected)
    return server.server_port


def test_the_token_goes_to_no_other_address(server: HTTPServer) -> None:
    client = AdminClient(AdminAddress.of(f"http://127.0.0.1:{server.server_port}"), ACT)
    with pytest.raises(ControlError, match=r"/status: answered 302"):
        client.status()
    assert [path for path, _ in Farm.asked] == ["/status"]


def test_a_token_of_the_settings_goes_to_their_own_farm(all_names_are_here: int) -> None:
    settings = tree("10.0.0.2", token=ACT, hosts=("farm.internal",))
    for url in (None, "http://127.0.0.1:1", "http://[::1]:1", "http://FARM.internal:9", "http://10.0.0.2"):
        assert sent(settings, url) == f"Bearer {ACT}"
    for url in ("http://192.0.2.1:8082", "http://farm.internal.example", "http://localhost.example", "http://0.0.0.0"):
        assert sent(settings, url) is None


def test_a_token_that_is_given_goes_where_it_is_given_for(all_names_are_here: int, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(READ)
    file.chmod(0o600)
    settings = tree(token=ACT)
    assert sent(settings, "http://192.0.2.1", file) == f"Bearer {READ}"
    assert sent(settings, None, file) == f"Bearer {READ}"
    assert sent(settings, f"http://:{READ}@192.0.2.1") == f"Bearer {READ}"
    with pytest.raises(ControlError, match="--token-file and a token in --url"):
        AdminClient.of(settings, f"http://:{READ}@192.0.2.1", file)


def test_who_gets_no_token_of_the_settings_is_told_why(all_names_are_here: int) -> None:
    with pytest.raises(ControlError, match=r"that of the settings was not sent: .* give --token-file"):
        AdminClient.of(tree(token=ACT), "http://192.0.2.1").get("session")
    with pytest.raises(ControlError, match="answered 401"):
        AdminClient.of(tree(), "http://192.0.2.1").get("session")


def test_no_error_shows_a_token(server: HTTPServer) -> None:
    for url in (f"http://:{ACT}@127.0.0.1:{server.server_port}", f"http://:{ACT}@127.0.0.1:1", f"ws://:{ACT}@host"):
        with pytest.raises(ControlError) as error:
            AdminClient.of(tree(), url).status()
        assert ACT not in str(error.value)


def test_a_token_file_that_is_not_meant_for_the_address_is_not_read(all_names_are_here: int) -> None:
    assert sent(tree(token_file="/nowhere"), "http://192.0.2.1") is None
