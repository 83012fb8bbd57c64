"""The head of an HTTP/1.1 request (RFC 9110, RFC 9112), without I/O: bytes in, a head or an error. Every port reads
requests by it, so that all agree on what a request is.

Parsed strictly: what two parsers could read in two ways is refused. What a client may offer and we do not use, such
as an upgrade to another protocol, is ignored. Versions: every 1.x from 1.1 on is taken as 1.1, anything but 1.x is
answered with 505. Every step takes time that grows with the bytes received and not faster: the patterns never go back
(possessive quantifiers).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from router.common.answers import Answer
from router.common.refusals import (
    EXPECTATION,
    LONG_HEAD,
    LONG_LINE,
    MALFORMED,
    OTHER_VERSION,
    TOO_LARGE,
    UNKNOWN_METHOD,
)

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/(\d)\.(\d)")
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):(" + _VALUE + rb")\r\n")
_NO_LINE: Final = re.compile(rb"[^\x20-\x7e\r]|\r.")
"""What cannot stand in a request line, nor in the beginning of one."""
_METHOD_BEGINS: Final = re.compile(_TOKEN + rb"(?: |$)")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]++)([^#]*+)", re.IGNORECASE)
_HOST: Final = re.compile(
    rb"(?:(\[[0-9A-Fa-f:.]++\])|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*+)(?::[0-9]{0,5}+)?"
)
_LONGEST_METHOD: Final = 64
_LONGEST_NUMBER: Final = 18
"""Digits of a Content-Length without leading zeros; a longer one is over any limit."""
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))
_ONCE: Final = frozenset(
    (
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
    )
)
_OLD: Final = (1, 0)
_NEW: Final = (1, 1)
_SLASH: Final = ord("/")
_VISIBLE: Final = bytes(range(0x21, 0x7F))
CHUNKED: Final = -1
END: Final = b"\r\n\r\n"


class HeadError(Exception):
    """The request breaks the protocol or a limit; it is answered with this, and the connection ends."""

    def __init__(self, answer: Answer, text: str = "") -> None:
        """text: more particular than the row's."""
        super().__init__(text or answer.text)
        self.answer = answer
        self.text = text or answer.text


@dataclass(slots=True)
class Fields:
    """The header lines of a request. Shared by requests that have the same ones: not to be changed."""

    raw: bytes
    version: tuple[int, int]
    """(1, 0) or (1, 1)."""
    headers: dict[bytes, bytes]
    """Names are in lower case; values of a repeated header are joined by a comma, those of Cookie by a semicolon
    (RFC 9113 8.2.3)."""
    length: int
    """Bytes of the body; CHUNKED: it comes in chunks."""
    expects: bool
    """Whether the client waits for 100 Continue before it sends the body."""
    keep_alive: bool
    """Whether another request may follow on this connection. Never with HTTP/1.0, which would need a header for it."""


@dataclass(slots=True)
class Head:
    """A whole request head. `headers` are those of the fields, but an absolute target's host replaces Host."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    fields: Fields


def parse(
    data: bytes, max_bytes: int, max_headers: int, at: int = 0, seen: int = 0, last: Fields | None = None
) -> tuple[Head, int] | None:
    """The head that stands in `data` from `at` on, and where it ends; None if it is not whole yet.

    Empty lines before it are skipped. seen: so many of these bytes were there at the last call, which gave None.
    last: the fields of the request before; a client mostly repeats them, and they need not be read twice.
    Raises: HeadError if it is malformed or over a limit (also while it is not whole).
    """
    begin = skip_blank_lines(data, at) if data.startswith(b"\r", at) else at
    end = data.find(END, max(begin, at + seen - 3), at + max_bytes)
    if end < 0:
        if len(data) - at >= max_bytes:
            if data.find(b"\n", begin, at + max_bytes) < 0:
                raise HeadError(LONG_LINE, f"request line is longer than {max_bytes} bytes")
            raise HeadError(LONG_HEAD, f"request head is longer than {max_bytes} bytes")
        _check_beginning(data, begin, at + seen)
        return None
    line_end = data.find(b"\r\n", begin, end + 2)
    method, target, version = _request_line(data, begin, line_end)
    raw = data[line_end + 2 : end + 2]
    fields = (
        last if last is not None and last.raw == raw and last.version is version else _fields(raw, version, max_headers)
    )
    headers = fields.headers
    if target[0] != _SLASH:
        target, headers = _without_authority(method, target, headers)
    elif b"#" in target:
        raise HeadError(MALFORMED, "request target has a fragment")
    path, _, query = target.partition(b"?")
    return Head(method, path, query, headers, fields), end + 4


def _request_line(data: bytes, begin: int, end: int) -> tuple[bytes, bytes, tuple[int, int]]:
    """Method, target and version. Raises: HeadError."""
    words = data[begin:end].split(b" ")
    if len(words) == 3 and words[2] == b"HTTP/1.1" and words[0] in _METHODS:
        target = words[1]
        if target and not target.translate(None, _VISIBLE):
            return words[0], target, _NEW  # the usual, in less time than the pattern takes
    line = _REQUEST_LINE.fullmatch(data, begin, end)
    if line is None:
        raise HeadError(MALFORMED, "request line is malformed")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise HeadError(OTHER_VERSION)
    if method not in _METHODS:
        raise HeadError(UNKNOWN_METHOD, "there is no such method")
    return method, target, _OLD if minor == b"0" else _NEW


def skip_blank_lines(data: bytes, at: int = 0) -> int:
    """Where a request begins behind empty lines (RFC 9112 2.2)."""
    while data.startswith(b"\r\n", at):
        at += 2
    return at


def check_fields(fields: bytes) -> int:
    """How many header lines these are, each with its line end. Raises: HeadError if one is malformed."""
    if _FIELDS.fullmatch(fields) is None:
        raise HeadError(MALFORMED, "a header line is malformed")
    return fields.count(b"\r\n")


def has_token(value: bytes, token: bytes) -> bool:
    """Whether a comma separated list has this token, which is in lower case."""
    value = value.lower()
    return value == token or token in (part.strip(b" \t") for part in value.split(b","))


def is_host(value: bytes) -> bool:
    """Whether this is what a Host header may hold (RFC 9110 7.2): a name or an address, and perhaps a port."""
    found = _HOST.fullmatch(value)
    if found is None:
        return False
    if found[1] is None:
        return True
    try:
        ipaddress.IPv6Address(found[1][1:-1].decode())
    except ValueError:
        return False
    return True


def _headers(fields: bytes, max_headers: int) -> dict[bytes, bytes]:
    if check_fields(fields) > max_headers:
        raise HeadError(LONG_HEAD, f"more than {max_headers} headers")
    headers: dict[bytes, bytes] = {}
    for name, value in _FIELD.findall(fields):
        name = name.lower()
        value = value.strip(b" \t")
        if name in headers:
            if name in _ONCE:
                raise HeadError(MALFORMED, f"header {name.decode()} stands twice")
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    return headers


def _fields(raw: bytes, version: tuple[int, int], max_headers: int) -> Fields:
    headers = _headers(raw, max_headers)
    host = headers.get(b"host")
    if host is None:
        if version is _NEW:
            raise HeadError(MALFORMED, "Host header is missing")
    elif not is_host(host):
        raise HeadError(MALFORMED, "Host is not a host")
    length, expects = _body(headers, version)
    keep_alive = version is _NEW
    if keep_alive and (connection := headers.get(b"connection")) is not None:
        keep_alive = not has_token(connection, b"close")
    return Fields(raw, version, headers, length, expects, keep_alive)


def _without_authority(method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """The path and query of a target in absolute form (RFC 9112 3.2.2), whose host counts instead of Host's; or `*`."""
    if target == b"*":
        if method == b"OPTIONS":
            return target, headers
        raise HeadError(MALFORMED, "only OPTIONS has the target *")
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not is_host(found[1]):
        raise HeadError(MALFORMED, "request target is neither a path nor a URL with http")
    host, rest = found.groups()
    if not rest and method == b"OPTIONS":
        rest = b"*"
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    return rest, headers | {b"host": host}


def _body(headers: dict[bytes, bytes], version: tuple[int, int]) -> tuple[int, bool]:
    """How long the body is (RFC 9112 6), and whether 100 Continue is waited for (RFC 9110 10.1.1)."""
    length = 0
    stated = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if version is _OLD:
            raise HeadError(MALFORMED, "HTTP/1.0 has no Transfer-Encoding")
        if stated is not None:
            raise HeadError(MALFORMED, "Transfer-Encoding beside Content-Length")
        if coding.lower() != b"chunked":
            raise _unknown_coding(coding)
        length = CHUNKED
    elif stated is not None:
        if not stated.isdigit():
            raise HeadError(MALFORMED, "Content-Length is not a number")
        digits = stated.lstrip(b"0")
        if len(digits) > _LONGEST_NUMBER:
            raise HeadError(TOO_LARGE)
        length = int(digits or b"0")
    expected = headers.get(b"expect")
    if not expected or version is _OLD:
        return length, False
    if expected.lower() != b"100-continue":
        raise HeadError(EXPECTATION)
    return length, length != 0


def _unknown_coding(coding: bytes) -> HeadError:
    codings = [part.strip(b" \t").lower() for part in coding.split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        return HeadError(MALFORMED, "chunked must be the last transfer coding, and stand once")
    return HeadError(UNKNOWN_METHOD, "chunked is the only transfer coding that is understood")


def _check_beginning(data: bytes, begin: int, seen: int) -> None:
    # A client that sends TLS or another protocol to this port gets an error at once, not at the deadline.
    newline = data.find(b"\n", begin)
    if newline < 0:
        start = data[begin : begin + _LONGEST_METHOD]
        if start not in (b"", b"\r") and (
            _NO_LINE.search(data, max(begin, seen - 1)) or not _METHOD_BEGINS.match(start)
        ):
            raise HeadError(MALFORMED, "this is no HTTP request")
    elif newline >= seen and not (
        data.startswith(b"\r", newline - 1) and _REQUEST_LINE.fullmatch(data, begin, newline - 1)
    ):
        raise HeadError(MALFORMED, "request line is malformed")
