"""The commands' client of the admin port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from farm.admin_client import AdminClient
from farm.control import ControlError


class Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody to /elsewhere."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Elsewhere.asked = []
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_token_goes_to_no_other_address(server: HTTPServer) -> None:
    client = AdminClient(f"http://127.0.0.1:{server.server_port}", "a" * 32)
    with pytest.raises(ControlError, match=r"/status: answered 302"):
        client.status()
    assert Elsewhere.asked == ["/status"]
