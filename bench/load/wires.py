"""How a push is written and its answer read: one class for each kind of push port. Bytes in, bytes out, but for the
greeting of a protocol that begins with one.

Every one is used in the same way, one push outstanding on a connection, so that what they take can be compared.
"""

import hashlib
import hmac
import json
import socket
import time
from typing import Final

from bench.load.frames import PeerError
from bench.load.http_bytes import (
    Response,
    batch_request,
    head_of_batch,
    head_of_push,
    head_of_webpush,
    payload_of,
    push_request,
    response_of,
    statuses_of,
    webpush_request,
)

GREETING_SECONDS: Final = 10.0
GREETING_BYTES: Final = 4096
MOST_ANSWER_BYTES: Final = 65_536
EVENT: Final = b"bench"
"""The name of the events that are pushed to Pusher channels."""


class Wire:
    """A farm's push port: `PUT` of a form with the version. `host`: the Host header's value; `authorization`: that of
    the header of this name, for those that send one."""

    def __init__(self, host: str, authorization: str = "") -> None:
        self._head = head_of_push(host)

    def greet(self, descriptor: int) -> None:
        """What comes before the first push on a new connection.

        Raises:
          OSError: nobody answers as it should.
        """

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        """One push of a version, with `payload` bytes of data where the protocol has that."""
        return push_request(path, self._head, version, payload)

    def response(self, data: bytes) -> Response | None:
        """The first answer in `data`, None while it is incomplete.

        Raises:
          PeerError: not an answer.
        """
        return response_of(data)


class Batch(Wire):
    """A farm's push port for many pushes in one request: `POST /v1/push`, see `bench.load.batchers`."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._head = head_of_batch(host)

    def requests(self, paths: list[bytes], versions: list[int], payload: int) -> bytes:
        """One request of a push to each of these paths."""
        return batch_request(paths, self._head, versions, payload)

    def response(self, data: bytes) -> Response | None:
        response = response_of(data)
        if response is None or response.status != 200:
            return response
        return response._replace(statuses=statuses_of(data))


class WebPush(Wire):
    """A farm's push port for WebPush: `POST` of a message that nobody but the device can read. It answers 201 whether
    the message was delivered or stored."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._head = head_of_webpush(host, authorization)

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        return webpush_request(path, self._head, version, payload)


class Plain(Wire):
    """An HTTP endpoint that takes the version as the body (with a payload, as `payload_of` has it), and answers 200 (or
    201) once it wrote to the device."""

    method = b"PUT"

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._between = f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: ".encode()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        body = body_of(version, payload)
        return b"%b %b%b%d\r\n\r\n%b" % (self.method, path, self._between, len(body), body)

    def response(self, data: bytes) -> Response | None:
        response = response_of(data)
        return response._replace(status=200) if response is not None and response.status == 201 else response


class Post(Plain):
    """The same with `POST`: nchan, which answers 201 where a subscriber was there, 202 where none was."""

    method = b"POST"


class Nats(Wire):
    """NATS over TCP: `PUB`, and `PING` after it, whose `PONG` says that the server has taken the message: what client
    libraries call a flush. The path of a push is a slash and the subject."""

    def greet(self, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as sock:
            try:
                sock.settimeout(GREETING_SECONDS)
                info = b""
                while b"\r\n" not in info:
                    more = sock.recv(GREETING_BYTES)
                    if not more or len(info) > MOST_ANSWER_BYTES:
                        raise ConnectionResetError("no INFO")
                    info += more
                sock.sendall(nats_connect() + b"PING\r\n")
                answer = b""
                while b"PONG\r\n" not in answer:
                    more = sock.recv(GREETING_BYTES)
                    if not more or len(answer) > MOST_ANSWER_BYTES:
                        raise ConnectionResetError("no PONG")
                    answer += more
                sock.setblocking(False)
            finally:
                sock.detach()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        body = body_of(version, payload)
        return b"PUB %b %d\r\n%b\r\nPING\r\n" % (path[1:], len(body), body)

    def response(self, data: bytes) -> Response | None:
        # the server's own PING may stand before it or behind it; two may go unanswered, and they are far apart
        if data.endswith(b"\r\n"):
            lines = data.split(b"\r\n")
            if (error := next((line for line in lines if line.startswith(b"-ERR")), None)) is not None:
                raise PeerError(error.decode("ascii", "replace"))
            if b"PONG" in lines:
                return Response(200, len(data), closes=False)
        if len(data) > MOST_ANSWER_BYTES:
            raise PeerError("answer without end")
        return None


class Pusher(Wire):
    """The HTTP API of Pusher Channels: a signed `POST` of an event to one channel. The path of a push is that of the
    application's events, a question mark and the channel's name; `authorization` is the application's key, a colon and
    its secret."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._key, _, secret = authorization.partition(":")
        self._secret = secret.encode()
        self._between = f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: ".encode()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        path, _, channel = path.partition(b"?")
        data = body_of(version, payload)
        body = b'{"name":"%b","channels":["%b"],"data":"%b"}' % (EVENT, channel, data)
        # the parameters stand in the order in which they are signed
        query = (
            f"auth_key={self._key}&auth_timestamp={int(time.time())}&auth_version=1.0"
            f"&body_md5={hashlib.md5(body, usedforsecurity=False).hexdigest()}"
        ).encode()
        signature = hmac.digest(self._secret, b"POST\n%b\n%b" % (path, query), "sha256").hex().encode()
        return b"POST %b?%b&auth_signature=%b%b%d\r\n\r\n%b" % (path, query, signature, self._between, len(body), body)


def body_of(version: int, payload: int) -> bytes:
    """The version, over and over if it is to fill a payload."""
    return payload_of(version, payload) if payload else b"%d" % version


def nats_connect() -> bytes:
    """What a NATS client says first: no acknowledgement of every line."""
    options = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 0}
    return b"CONNECT %b\r\n" % json.dumps(options, separators=(",", ":")).encode()


WIRES: Final[dict[str, type[Wire]]] = {
    "farm": Wire,
    "batch": Batch,
    "webpush": WebPush,
    "put": Plain,
    "post": Post,
    "nats": Nats,
    "pusher": Pusher,
}
