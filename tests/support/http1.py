"""Requests of app servers, and a connection with both its ends."""

import h11

from router.common.settings import EndpointOptions
from router.http.http1 import HttpConnection
from router.http.message import PendingResponse, Request, Response
from support.common import settings_with

PUT = b"PUT /update/token?a=1 HTTP/1.1\r\nHost: push\r\nContent-Length: 9\r\n\r\nversion=7"
CHUNKED = (
    b"PUT /update/token HTTP/1.1\r\nHost: push\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\nvers\r\n5;ext=1\r\nion=7\r\n0\r\nTrailer: x\r\n\r\n"
)
GET = b"GET /status/ HTTP/1.1\r\nHost: push\r\n\r\n"


def head(*headers: bytes, line: bytes = b"PUT /update/token HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: push", *headers, b"", b""))


def options(**changes: object) -> EndpointOptions:
    return settings_with((EndpointOptions, changes)).get(EndpointOptions)


class AppServer:
    """One connection with both its ends: what was asked, and what h11 makes of the answers."""

    def __init__(self, **changes: object) -> None:
        self.http = HttpConnection(options(**changes))
        self.asked: list[tuple[Request, PendingResponse]] = []
        self.sent = b""

    def send(self, *parts: bytes) -> list[Request]:
        """Returns: the requests that became whole by these reads."""
        before = len(self.asked)
        for part in parts:
            self.asked += self.http.receive(part)
            self.sent += self.http.take()
        return [request for request, _ in self.asked[before:]]

    def answer(self, number: int, response: Response) -> bytes:
        """Returns: what is sent because of it."""
        self.asked[number][1](response)
        data = self.http.take()
        self.sent += data
        return data

    def statuses(self, *methods: str) -> list[int]:
        """What a client that sent requests by these methods receives: one status each, and nothing more."""
        return [status for status, _ in answers(self.sent, *methods)]


def answers(data: bytes, *methods: str) -> list[tuple[int, bytes]]:
    """Status and body of each answer, as h11 reads them; the bytes must hold exactly as many."""
    found = []
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status, body = event.status_code, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        found.append((status, body))
        if client.their_state is h11.DONE:
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return found
