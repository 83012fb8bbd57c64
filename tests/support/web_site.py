"""A web server of a test's own, for the pages that its browser opens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Request:
    """What a browser asks."""

    path: str
    """With the query."""
    headers: dict[str, str]
    """Names in lower case."""
    body: str


@dataclass(frozen=True)
class Reply:
    """What it gets."""

    text: str
    media_type: str = "text/html"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """Serves on localhost for the time of the block. A subclass defines what; it is called in several threads."""

    def __init__(self) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(site.get(self._request()))

            def do_POST(self) -> None:
                self._reply(site.post(self._request()))

            def _request(self) -> Request:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                return Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)

            def _reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("Content-Type", f"{reply.media_type}; charset=utf-8")
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        """A page of this site."""
        return f"http://localhost:{self._server.server_port}{path}"

    def get(self, request: Request) -> Reply:
        """What GET answers."""
        raise NotImplementedError

    def post(self, request: Request) -> Reply:
        """What POST answers."""
        raise NotImplementedError
