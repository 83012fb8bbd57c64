"""The HTTP bytes of an app server that pushes: requests, and the few facts of a response that the bench needs. Pure."""

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from bench.load.frames import MAX_RESPONSE_HEAD_BYTES, PeerError
from bench.load.samples import DATA_RIGHT, DATA_WRONG

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_BODILESS: Final = frozenset({204, 304})
PLAIN_SCHEMES: Final = ("http", "nats")


class Response(NamedTuple):
    """A response: its status, the bytes it takes on the wire, and whether the server closes after it. `statuses`: of
    each push, where one request had several."""

    status: int
    size: int
    closes: bool
    statuses: tuple[int, ...] = ()


def payload_of(version: int, size: int) -> bytes:
    """The data that a push of this version carries, `size` bytes: the version over and over, so that a device can tell
    from the update alone whether it is the right one and whole. Needs no escapes, in a form or in JSON."""
    stamp = b"%d." % version
    return (stamp * (size // len(stamp) + 1))[:size]


def judged(carried: bytes, size: int) -> tuple[int, int]:
    """The version that such data begins with, and whether it is all of it and right (DATA_... of
    `bench.load.samples`). With a size of 0 the data is the version alone.

    Raises:
      PeerError: it begins with no version.
    """
    try:
        version = int(carried[: carried.find(b".")] if size and b"." in carried else carried)
    except ValueError:
        raise PeerError("bad message") from None
    return version, DATA_WRONG if size and carried != payload_of(version, size) else DATA_RIGHT


def response_of(data: bytes) -> Response | None:
    """The first response in `data`, None while it is incomplete.

    Raises:
      PeerError: not HTTP, or a response whose length is not stated (the bench reads no chunked bodies: a
        push is answered
        with a few bytes).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_RESPONSE_HEAD_BYTES:
            raise PeerError("response head without end")
        return None
    head = data[: end + 2]
    line = _STATUS.match(head)
    if line is None:
        raise PeerError("not HTTP")
    status = int(line[1])
    length = _LENGTH.search(head)
    if length is None and status not in _BODILESS:
        raise PeerError("response without Content-Length")
    size = end + 4 + (int(length[1]) if length else 0)
    return Response(status, size, _CLOSE.search(head) is not None) if len(data) >= size else None


def split_endpoint(endpoint: bytes) -> tuple[str, int, str, bytes]:
    """(host, port, Host header, path with query) of a push endpoint.

    Raises:
      PeerError: not a plain `http://` URL (or `nats://`, see `bench.load.wires`). The bench does not measure TLS.
    """
    try:
        parts = urlsplit(endpoint.decode())
        port = parts.port or 80
    except ValueError:
        raise PeerError("bad endpoint") from None
    if parts.scheme not in PLAIN_SCHEMES or not parts.hostname:
        raise PeerError("bad endpoint")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return parts.hostname, port, parts.netloc, path.encode()


def origin_of(endpoint: bytes) -> str:
    """The origin of a push endpoint, as a browser spells it: without the port that goes without saying.

    Raises:
      PeerError: as `split_endpoint`.
    """
    host, port, _, _ = split_endpoint(endpoint)
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}" + (f":{port}" if port != 80 else "")
