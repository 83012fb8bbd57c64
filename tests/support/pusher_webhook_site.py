"""A server that receives webhooks."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any


class Site:
    """A server of webhooks, whose answers are set beforehand."""

    def __init__(self) -> None:
        self.answers: list[int | None] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.came = threading.Condition()
        self.url = ""

    def wait(self, requests: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= requests, 20)

    def told(self, channel: str, user: str | None = None) -> list[str]:
        """The names of all events of a channel, or of a member of it, in order. One that was on its way as its router
        died may come twice, and counts once."""
        events = [event for _, body in list(self.requests) for event in json.loads(body)["events"]]
        names = [event["name"] for event in events if (event["channel"], event.get("user_id")) == (channel, user)]
        return [name for name, _ in groupby(names)]


@contextmanager
def site() -> Iterator[Site]:
    here = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with here.came:
                code = here.answers.pop(0) if here.answers else 200
                here.requests.append((dict(self.headers), body))
                here.came.notify_all()
            if code is None:
                return  # closes the connection without an answer
            self.send_response(code)
            self.send_header("Content-Length", "2")
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        here.url = f"http://127.0.0.1:{server.server_port}/hook"
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
