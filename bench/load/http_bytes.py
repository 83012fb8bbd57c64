"""The HTTP bytes of an app server that pushes: requests, and the few facts of a response that the bench needs. Pure."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from random import Random
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from bench.load.frames import MAX_RESPONSE_HEAD_BYTES, PeerError
from bench.load.samples import DATA_RIGHT, DATA_WRONG

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LINE_STATUS: Final = re.compile(rb'^\{"status":(\d{3})', re.MULTILINE)
_BODILESS: Final = frozenset({204, 304})
PLAIN_SCHEMES: Final = ("http", "nats")

ENCODING: Final = "aes128gcm"
TTL: Final = 86_400
STAMP_BYTES: Final = 9
"""What a WebPush body begins with: the version. Whole groups of base64, so that the first characters tell it."""
_STAMP_CHARS: Final = STAMP_BYTES // 3 * 4
_NOISE_SPAN: Final = 4096
_MOST_VERSION: Final = (1 << 63) - 1


class Response(NamedTuple):
    """A response: its status, the bytes it takes on the wire, and whether the server closes after it. `statuses`: of
    each push, where one request had several."""

    status: int
    size: int
    closes: bool
    statuses: tuple[int, ...] = ()


def head_of_push(host: str) -> bytes:
    """What stands after the path in every push, up to the Content-Length's value."""
    return (
        f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "
    ).encode()


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


def push_request(path: bytes, head: bytes, version: int, payload: int = 0) -> bytes:
    """One `PUT` of a version, with `payload` bytes of data if not 0. `head` is from `head_of_push`."""
    body = b"version=%d" % version
    if payload:
        body += b"&data=" + payload_of(version, payload)
    return b"PUT %b%b%d\r\n\r\n%b" % (path, head, len(body), body)


def head_of_batch(host: str) -> bytes:
    """A request of many pushes, up to the Content-Length's value."""
    return (
        f"POST /v1/push HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\nContent-Length: "
    ).encode()


def batch_request(paths: list[bytes], head: bytes, versions: list[int], payload: int = 0) -> bytes:
    """One `POST` of many pushes, a line each, with `payload` bytes of data if not 0. `head` is from `head_of_batch`."""
    lines = [
        b'{"token":"%b","version":%d%b}\n'
        % (path.rpartition(b"/")[2], version, b',"data":"%b"' % payload_of(version, payload) if payload else b"")
        for path, version in zip(paths, versions, strict=True)
    ]
    body = b"".join(lines)
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


def statuses_of(data: bytes) -> tuple[int, ...]:
    """What each line of the answer to such a request says."""
    return tuple(int(status) for status in _LINE_STATUS.findall(data))


def head_of_webpush(host: str, authorization: str) -> bytes:
    """What stands after the path in every WebPush push, up to the Content-Length's value."""
    return (
        f" HTTP/1.1\r\nHost: {host}\r\nTTL: {TTL}\r\nContent-Encoding: {ENCODING}\r\n"
        f"Authorization: {authorization}\r\nContent-Type: application/octet-stream\r\nContent-Length: "
    ).encode()


def opaque_of(version: int, size: int) -> bytes:
    """The body of a WebPush push of this version: the version, and bytes as random as encrypted ones, which are of
    this version, too. A server can't look into either; a device of the bench can tell which push it is, and whether
    it is whole."""
    start = version % _NOISE_SPAN
    return version.to_bytes(STAMP_BYTES, "big") + _noise(size)[start : start + size - STAMP_BYTES]


@cache
def _noise(size: int) -> bytes:
    return Random(size).randbytes(size + _NOISE_SPAN)


def base64_of(body: bytes) -> str:
    """A body as a device gets it: base64url without padding."""
    return urlsafe_b64encode(body).rstrip(b"=").decode()


def version_in(data: str) -> int:
    """The version that such a text begins with; 0 if there is none."""
    if len(data) < _STAMP_CHARS:
        return 0
    try:
        version = int.from_bytes(urlsafe_b64decode(data[:_STAMP_CHARS]), "big")
    except ValueError:
        return 0
    return version if version <= _MOST_VERSION else 0


def webpush_request(path: bytes, head: bytes, version: int, payload: int) -> bytes:
    """One `POST` of a message of `payload` bytes, `STAMP_BYTES` at least. `head` is from `head_of_webpush`."""
    return b"POST %b%b%d\r\n\r\n%b" % (path, head, payload, opaque_of(version, payload))


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
