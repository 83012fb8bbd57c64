"""WebPush (RFC 8030, 8188, 8291, 8292), app-server side: `POST /wpush/...` and `DELETE /m/...`, as autopush has them.

Of autopush's error numbers those are used that can happen here, and one of our own: 115, the Urgency header is not
one of RFC 8030.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.answers import Answer
from router.common.id_set import has
from router.common.token import TokenError
from router.core.pushes import REFUSED_FAILED, REFUSED_FULL, REFUSED_OVER, STORED
from router.dialects.app_server import Context
from router.dialects.webpush.protocol import (
    BAD_CRYPTO_KEY,
    BAD_ENCODING,
    BAD_ENCRYPTION,
    BAD_MESSAGE,
    BAD_SENDER,
    BAD_TOKEN,
    BAD_TOPIC,
    BAD_TTL,
    BAD_URGENCY,
    BUSY,
    DEVICES,
    INBOX_FULL,
    MESSAGE_PURPOSE,
    NEGATIVE_TTL,
    NO_CHANNEL,
    NO_DEVICE,
    NOT_KEPT,
    NOT_OF_AES128GCM,
    ONLY_DELETE,
    ONLY_POST,
    PURPOSE,
    STORE_FULL,
    TOO_LONG,
    WebPushOptions,
    base_url,
    channel_id,
    plain_slot,
    topic_slot,
)
from router.dialects.webpush.vapid import Vapid, VapidError, parameters
from router.http.message import Request, Response
from router.http.routes import Reply, Route

# ---------------------------------------------------------------------- answers

_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    410: "Gone",
    413: "Payload Too Large",
    503: "Service Unavailable",
}
_MORE_INFO: Final = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"
_CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Location, TTL, Retry-After, WWW-Authenticate"),
)
# The star does not stand for Authorization (Fetch standard), nor for anything in older browsers.
_PREFLIGHT: Final = Response(
    200,
    headers=(
        *_CORS,
        ("Access-Control-Allow-Methods", "DELETE, GET, POST, PUT"),
        (
            "Access-Control-Allow-Headers",
            "Authorization, Content-Encoding, Content-Type, Crypto-Key, Encryption, Encryption-Key, Prefer, Topic, "
            "TTL, Urgency, *",
        ),
        ("Access-Control-Max-Age", "3600"),
    ),
)


def _error(answer: Answer, *headers: tuple[str, str], text: str = "") -> Response:
    """text: more particular than the table's."""
    body = {
        "code": answer.status,
        "errno": answer.number,
        "error": _REASONS[answer.status],
        "message": text or answer.text,
        "more_info": _MORE_INFO,
    }
    return Response(answer.status, msgspec.json.encode(body), headers=(*headers, *_CORS))


_WAIT: Final = ("Retry-After", "120")
_FORGET: Final = ("Cache-Control", "max-age=86400")
_ONLY_POST: Final = _error(ONLY_POST, ("Allow", "POST, OPTIONS"))
_ONLY_DELETE: Final = _error(ONLY_DELETE, ("Allow", "DELETE, OPTIONS"))
_BAD_TOKEN: Final = Response(BAD_TOKEN.status, headers=_CORS)  # without a body, as autopush has it
_BAD_MESSAGE: Final = _error(BAD_MESSAGE)
_BAD_ENCODING: Final = _error(BAD_ENCODING)
_NOT_OF_AES128GCM: Final = _error(NOT_OF_AES128GCM)
_BAD_ENCRYPTION: Final = _error(BAD_ENCRYPTION)
_BAD_CRYPTO_KEY: Final = _error(BAD_CRYPTO_KEY)
_BAD_TTL: Final = _error(BAD_TTL)
_BAD_TOPIC: Final = _error(BAD_TOPIC)
_NEGATIVE_TTL: Final = _error(NEGATIVE_TTL)
_BAD_URGENCY: Final = _error(BAD_URGENCY)
_NO_DEVICE: Final = _error(NO_DEVICE, _FORGET)
_NO_CHANNEL: Final = _error(NO_CHANNEL, _FORGET)
_FULL: Final = _error(INBOX_FULL, _WAIT)
_BUSY: Final = _error(BUSY, _WAIT)
_NOT_KEPT: Final = _error(NOT_KEPT, _WAIT)
_NO_ROOM: Final = _error(STORE_FULL, _WAIT)
_REFUSED: Final = {REFUSED_FULL: _FULL, REFUSED_FAILED: _NOT_KEPT, REFUSED_OVER: _NO_ROOM}
_DELETED: Final = Response(204, headers=_CORS)


# ---------------------------------------------------------------------- requests

_PLAIN_TOKEN: Final = 32  # bytes in it: device, channel
_BOUND_TOKEN: Final = 64  # and the digest of the sender's key
_NUMBER: Final = struct.Struct(">Q")
_URGENCIES: Final = {b"very-low": 1, b"low": 2, b"normal": 3, b"high": 4}
_NORMAL: Final = 3
_BASE64URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_MAX_TOPIC: Final = 32
_INTEGER: Final = re.compile(rb"[+-]?[0-9]+")
_SAFE_IN_JSON: Final = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
_PADDING: Final = re.compile(rb"(?<=[\w-])=+(?=[ \t]*(?:[,;]|$))")
_encode: Final = msgspec.json.Encoder().encode
_AES128GCM: Final = '","headers":{"encoding":"aes128gcm"}'


class _Refused(Exception):
    """A push that is answered without asking the store."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    app_side = _AppSide(context)
    return (
        Route(b"/wpush/v1/", app_side.plain, exact=False),
        Route(b"/wpush/v2/", app_side.bound, exact=False),
        Route(b"/wpush/", app_side.unversioned, exact=False),
        Route(b"/m/", app_side.message, exact=False),
    )


class _AppSide:
    def __init__(self, context: Context) -> None:
        options = context.settings.get(WebPushOptions)
        url = base_url(context.settings)
        self.messages = context.core.messages
        self._records = context.core.records
        self.tokens = context.tokens
        self.location = url + "/m/"
        self.counters = context.core.counters
        self._options = options
        self._max_body = options.max_body_bytes
        self._too_long = _error(TOO_LONG, text=f"The body is longer than {self._max_body} bytes")
        self._vapid = Vapid(
            url,
            max_age=options.max_vapid_age,
            leeway=options.vapid_leeway,
            max_bytes=options.max_vapid_bytes,
            cache=options.vapid_cache,
            unix_time=context.unix_time,
        )

    # ------------------------------------------------------------------ a push

    def plain(self, request: Request, reply: Reply) -> None:
        """`POST /wpush/v1/{token}`: whatever knows the endpoint may push."""
        self._post(request, reply, request.path[10:], _PLAIN_TOKEN)

    def bound(self, request: Request, reply: Reply) -> None:
        """`POST /wpush/v2/{token}`: only the owner of the key that the subscription named may push."""
        self._post(request, reply, request.path[10:], _BOUND_TOKEN)

    def unversioned(self, request: Request, reply: Reply) -> None:
        """`POST /wpush/{token}`: the same as v1; a version that we do not know is no token."""
        self._post(request, reply, request.path[7:], _PLAIN_TOKEN)

    def _post(self, request: Request, reply: Reply, token: bytes, size: int) -> None:
        """One push, checked in autopush's order: token, sender, headers, size, subscription."""
        if request.method != b"POST":
            reply(_PREFLIGHT if request.method == b"OPTIONS" else _ONLY_POST)
            return
        headers = request.headers
        try:
            address = self.tokens.open(PURPOSE, token)
            if len(address) != size:
                raise TokenError("of another version")
            self._check_sender(headers, address[_PLAIN_TOKEN:])
            message = self._message(headers, request.body, address, reply)
        except _Refused as refused:
            self.counters.pushes_invalid += 1
            reply(refused.response)
        except TokenError:
            self.counters.pushes_rejected += 1
            reply(_BAD_TOKEN)
        except VapidError as error:
            self.counters.pushes_rejected += 1
            reply(_error(BAD_SENDER, ("WWW-Authenticate", "vapid"), text=str(error)))
        else:
            if len(request.body) > self._max_body:
                self.counters.pushes_too_long += 1
                reply(self._too_long)
            elif self.messages.full and (message.ttl or self.messages.crowded):  # TTL 0: it is not kept
                reply(_NO_ROOM if self.messages.refuse() == REFUSED_OVER else _BUSY)
            else:
                self._records.look_up(DEVICES, message.device, message.looked_up)

    def _check_sender(self, headers: dict[bytes, bytes], bound_to: bytes) -> None:
        authorization = headers.get(b"authorization")
        if authorization is not None:
            digest = self._vapid.check(authorization, headers.get(b"crypto-key", b""))
            if bound_to and digest != bound_to:
                raise VapidError("the key is not the one that this endpoint was made for")
        elif bound_to:
            raise VapidError("this endpoint wants a VAPID signature")

    def _message(self, headers: dict[bytes, bytes], body: bytes, address: bytes, reply: Reply) -> _Message:
        ttl = self._ttl(headers.get(b"ttl", b""))
        topic = headers.get(b"topic")
        if topic is not None:
            topic = topic.strip()  # white space after a value is left to us
            if not 0 < len(topic) <= _MAX_TOPIC or topic.translate(None, _BASE64URL):
                raise _Refused(_BAD_TOPIC)
        urgency = headers.get(b"urgency")
        level = _NORMAL if urgency is None else _URGENCIES.get(urgency) or _URGENCIES.get(urgency.strip().lower())
        if level is None:
            raise _Refused(_BAD_URGENCY)
        tail = self._encoding(headers) if body else ""
        return _Message(self, reply, address, ttl, topic, level, body, tail)

    def _ttl(self, text: bytes) -> int:
        most = self._options.max_ttl
        if text.isdigit() and len(text) < 19:
            return min(int(text), most)
        text = text.strip()
        if not _INTEGER.fullmatch(text):
            raise _Refused(_BAD_TTL)
        digits = text.lstrip(b"+-0")
        if not digits:
            return 0
        if text.startswith(b"-"):
            raise _Refused(_NEGATIVE_TTL)
        return min(int(digits), most) if len(digits) < 19 else most

    def _encoding(self, headers: dict[bytes, bytes]) -> str:
        """What follows the data in the stored JSON: how the body is encrypted."""
        encoding = headers.get(b"content-encoding", b"")
        if encoding != b"aes128gcm":
            encoding = encoding.strip().lower()
        encryption, crypto_key = headers.get(b"encryption"), headers.get(b"crypto-key")
        if encoding == b"aes128gcm":
            if (encryption is not None and b"salt" in parameters(encryption)) or (
                crypto_key is not None and b"dh" in parameters(crypto_key)
            ):
                raise _Refused(_NOT_OF_AES128GCM)
            return _AES128GCM
        if encoding != b"aesgcm":
            raise _Refused(_BAD_ENCODING)
        room = self._options.max_crypto_bytes - len(crypto_key or b"")
        kept = _kept(encryption or b"", b"salt", room, _BAD_ENCRYPTION)
        tail = f'","headers":{{"encoding":"aesgcm","encryption":"{kept}"'
        if crypto_key is not None:
            room = self._options.max_crypto_bytes
            tail += f',"crypto_key":"{_kept(crypto_key, b"dh", room, _BAD_CRYPTO_KEY)}"'
        return tail + "}"

    # ------------------------------------------------------------------ a message that was sent

    def message(self, request: Request, reply: Reply) -> None:
        """`DELETE /m/{id}`: the message is not wanted any more. The same answer whether it still waited or not."""
        if request.method != b"DELETE":
            reply(_PREFLIGHT if request.method == b"OPTIONS" else _ONLY_DELETE)
            return
        try:
            opened = self.tokens.open(MESSAGE_PURPOSE, request.path[3:])
        except TokenError:
            reply(_BAD_MESSAGE)
            return
        if self.messages.crowded:
            reply(_BUSY)
            return
        device = opened[:16]
        slot, version = opened[24:].decode(), _NUMBER.unpack_from(opened, 16)[0]
        self.messages.withdraw(device, slot, version, lambda status: reply(_DELETED if status == m.OK else _NOT_KEPT))


class _Message:
    """A push that was found valid, on its way into the store."""

    __slots__ = (
        "_app",
        "_body",
        "_member",
        "_number",
        "_reply",
        "_slot",
        "_tail",
        "_topic",
        "_urgency",
        "device",
        "ttl",
    )

    def __init__(
        self,
        app: _AppSide,
        reply: Reply,
        address: bytes,
        ttl: int,
        topic: bytes | None,
        urgency: int,
        body: bytes,
        tail: str,
    ) -> None:
        self.device = address[:16]
        self._app = app
        self._reply = reply
        self._member = address[16:32]
        self.ttl = ttl
        self._topic = topic
        self._urgency = urgency
        self._body = body
        self._tail = tail

    def looked_up(self, status: int, record: bytes | None) -> None:
        """The device's record is there: keep the message if it has this channel."""
        app = self._app
        if status != m.OK:
            app.counters.pushes_refused += 1
            self._reply(_NOT_KEPT)
            return
        if record is None or not has(record, self._member):
            app.counters.pushes_rejected += 1
            self._reply(_NO_DEVICE if record is None else _NO_CHANNEL)
            return
        chid = channel_id(self._member)
        self._number = number = app.messages.sequence()
        topic = self._topic
        self._slot = slot = plain_slot(number, chid) if topic is None else topic_slot(chid, topic.decode())
        body = f'"data":"{_in_base64url(self._body)}{self._tail}' if self._tail else None
        app.messages.push(
            self.device,
            slot,
            number,
            self._pushed,
            ttl=self.ttl,
            urgency=self._urgency,
            body=body,
            sequence=number,
            wait=False,
        )

    def _pushed(self, outcome: int) -> None:
        if outcome != STORED:
            self._reply(_REFUSED[outcome])
            return
        app = self._app
        name = app.tokens.seal(MESSAGE_PURPOSE, self.device + _NUMBER.pack(self._number) + self._slot.encode())
        self._reply(Response(201, headers=(("Location", app.location + name), ("TTL", str(self.ttl)), *_CORS)))


def _in_base64url(body: bytes) -> str:
    """A body in base64url without padding. msgspec makes base64 of bytes in half the time that binascii takes, and for
    a text of this length two replacements take an eighth of a translation's."""
    return _encode(body)[1:-1].rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_").decode()


def _kept(text: bytes, needed: bytes, room: int, refusal: Response) -> str:
    """A header of an aesgcm message as it goes to the device: without quotes and padding.

    Raises: _Refused if the parameter that it needs is not there, or if it is too long or unfit for JSON.
    """
    if len(text) > room:
        raise _Refused(refusal)
    text = _PADDING.sub(b"", text.replace(b'"', b""))
    value = parameters(text).get(needed, b"")
    if not value or value.translate(None, _BASE64URL) or text.translate(None, _SAFE_IN_JSON):
        raise _Refused(refusal)
    return text.decode("ascii")
