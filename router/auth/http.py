"""A question to the main server as an HTTP request, and its answer as a verdict. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from router import __version__
from router.common import messages as m

_USER_AGENT: Final = f"connection-farm/{__version__}".encode()
_OWN: Final = (
    (b"user-agent", _USER_AGENT),
    (b"accept", b"application/json, */*;q=0.1"),
    (b"accept-encoding", b"identity"),
)
_IN_A_LIST: Final = "!$&'()*+./:;=?@[]^`{|}~"
"""What a channel's name in X-Channels has as it is, besides letters, digits, - and _: not the comma, nor what is no
single byte."""
_PASSED_ON: Final = frozenset((b"www-authenticate", b"retry-after", b"content-encoding"))
"""Of a refusal, besides its content type."""
_ONE_LINE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""What a header of the answer to a client may hold. The HTTP library lets more through; a refusal is passed on without
such a header."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FORWARDED_FOR: Final = b"x-forwarded-for"
_REDIRECT: Final = b"x-accel-redirect"
_MAX_EXPIRES: Final = 2**40
_MAX_CHANNEL: Final = m.MAX_LABEL


class HttpRequest(NamedTuple):
    """What is sent. The connection's own headers are whose it is that sends it."""

    method: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""


def request(question: m.Authorise, method: str) -> HttpRequest:
    """The HTTP request that asks this. method: `auth.method`."""
    # What the client itself may have sent comes once: here that counts, or ours is put behind it.
    shown = dict(question.headers)
    headers = [*(own for own in _OWN if own[0] not in shown), *question.headers]
    if method == "post":
        return HttpRequest("POST", [*headers, (b"content-type", b"application/json")], _body(question))
    address = question.address.encode("latin-1", "replace")
    if (before := shown.get(_FORWARDED_FOR)) is not None:
        headers.remove((_FORWARDED_FOR, before))
        address = before + b", " + address
    headers += [
        (_FORWARDED_FOR, address),
        (b"x-original-method", question.method.encode("latin-1", "replace")),
        (b"x-original-uri", question.uri.encode("latin-1", "replace")),
        (b"x-dialect", quote(question.dialect, safe=",").encode()),
        (b"x-action", question.action.encode()),
        (b"x-channels", ",".join(quote(channel, safe=_IN_A_LIST) for channel in question.channels).encode()),
    ]
    if question.user:
        headers.append((b"x-user", quote(question.user, safe=_IN_A_LIST + ",").encode()))
    if question.action != m.PUBLISH:
        return HttpRequest("GET", headers)
    return HttpRequest("POST", [*headers, (b"content-type", b"text/plain; charset=utf-8")], question.message.encode())


def _body(question: m.Authorise) -> bytes:
    asked: dict[str, Any] = {
        "action": question.action,
        "dialect": question.dialect,
        "method": question.method,
        "uri": question.uri,
        "address": question.address,
        "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in question.headers},
        "channels": question.channels,
    }
    if question.user:
        asked["user"] = question.user
    if question.data:
        asked["data"] = msgspec.Raw(question.data.encode())
    if question.action == m.PUBLISH:
        asked["message"] = question.message
    return msgspec.json.encode(asked)


class _Answer(msgspec.Struct):
    channels: list[str] | None = None
    user: str | int | None = None
    expires: int | float | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


_decode: Final = msgspec.json.Decoder(_Answer).decode


class Unusable(Exception):
    """The answer decides nothing; the text says why."""


def reason(error: BaseException) -> str:
    """What an error says; if it says nothing, as one of TLS, what has caused it does."""
    name = type(error).__name__
    while not str(error) and (before := error.__cause__ or error.__context__) is not None:
        error = before
    return f"{name}: {error}"


def verdict(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> m.Verdict:
    """What this answer says. Raises: Unusable."""
    lines = [(name.lower(), value) for name, value in headers]
    found = dict(lines)
    kind = found.get(b"content-type", b"")
    content_type = kind.decode("latin-1") if _ONE_LINE.fullmatch(kind) else ""
    if 200 <= status < 300:
        return _allowed(found, content_type, body)
    if not 400 <= status < 500:
        hint = "; it is to answer 2xx or 4xx, and redirects are not followed" if 300 <= status < 400 else ""
        raise Unusable(f"it answered {status}{hint}")
    passed_on = [(name, value) for name, value in lines if name in _PASSED_ON and _ONE_LINE.fullmatch(value)]
    return m.Verdict(status, content_type=content_type[:_MAX_CHANNEL], body=body, headers=passed_on)


def _allowed(headers: dict[bytes, bytes], content_type: str, body: bytes) -> m.Verdict:
    if body and headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Unusable("its body is compressed, though Accept-Encoding is identity")
    target = headers.get(_REDIRECT, b"/")
    redirect = target.decode("latin-1")
    if not redirect.startswith("/") or len(redirect) > m.MAX_URI or not _ONE_LINE.fullmatch(target):
        raise Unusable(f"its X-Accel-Redirect is no path of up to {m.MAX_URI} characters")
    if _REDIRECT not in headers:
        redirect = ""
    kind = content_type.partition(";")[0].strip().lower()
    body = body.removeprefix(_BYTE_ORDER_MARK).strip()
    # Whatever it calls itself: an object that names channels must not be taken for one that names none.
    if not (kind == "application/json" or kind.endswith("+json") or body.startswith(b"{")) or not body:
        return m.Verdict(200, redirect=redirect)
    try:
        answer = _decode(body)
        data = bytes(answer.data).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"its JSON is not as it should be: {error}") from None
    channels, user, expires = answer.channels, answer.user, answer.expires
    if channels is not None and any(len(channel) > _MAX_CHANNEL for channel in channels):
        raise Unusable(f"a channel has more than {_MAX_CHANNEL} characters")
    text = "" if user is None else str(user)
    if len(text) > m.MAX_USER_ID:
        raise Unusable(f"user has more than {m.MAX_USER_ID} characters")
    if expires is not None and not 0 < expires <= _MAX_EXPIRES:
        raise Unusable("expires is no number of seconds above 0")
    return m.Verdict(
        200,
        channels,
        redirect,
        text,
        0 if expires is None else math.ceil(expires),
        "" if data == "null" else data,
    )
