"""WebPush (RFC 8030, 8188, 8291, 8292), app-server side: `POST /wpush/...` and `DELETE /m/...`, as autopush has them.

Of autopush's error numbers those are used that can happen here, and one of our own: 115, the Urgency header is not
one of RFC 8030.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.id_set import has
from router.common.token import TokenError
from router.core.pushes import REFUSED_OVER, STORED
from router.dialects.app_server import Context
from router.dialects.webpush import responses
from router.dialects.webpush.headers import Refused, encoding_of, topic_of, ttl_of, urgency_of
from router.dialects.webpush.protocol import (
    BAD_SENDER,
    DEVICES,
    MESSAGE_PURPOSE,
    PURPOSE,
    TOO_LONG,
    WebPushOptions,
    base_url,
    channel_id,
    plain_slot,
    topic_slot,
)
from router.dialects.webpush.vapid import Vapid, VapidError
from router.http.message import Request, Response
from router.http.routes import Reply, Route

_PLAIN_TOKEN: Final = 32  # bytes in it: device, channel
_BOUND_TOKEN: Final = 64  # and the digest of the sender's key
_NUMBER: Final = struct.Struct(">Q")
_encode: Final = msgspec.json.Encoder().encode


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
        self._too_long = responses.error(TOO_LONG, text=f"The body is longer than {self._max_body} bytes")
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
            reply(responses.PREFLIGHT if request.method == b"OPTIONS" else responses.ONLY_POST)
            return
        headers = request.headers
        try:
            address = self.tokens.open(PURPOSE, token)
            if len(address) != size:
                raise TokenError("of another version")
            self._check_sender(headers, address[_PLAIN_TOKEN:])
            message = self._message(headers, request.body, address, reply)
        except Refused as refused:
            self.counters.pushes_invalid += 1
            reply(refused.response)
        except TokenError:
            self.counters.pushes_rejected += 1
            reply(responses.BAD_TOKEN)
        except VapidError as error:
            self.counters.pushes_rejected += 1
            reply(responses.error(BAD_SENDER, ("WWW-Authenticate", "vapid"), text=str(error)))
        else:
            if len(request.body) > self._max_body:
                self.counters.pushes_too_long += 1
                reply(self._too_long)
            elif self.messages.full and (message.ttl or self.messages.crowded):  # TTL 0: it is not kept
                reply(responses.NO_ROOM if self.messages.refuse() == REFUSED_OVER else responses.BUSY)
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
        options = self._options
        ttl = ttl_of(headers.get(b"ttl", b""), options.max_ttl)
        topic = topic_of(headers.get(b"topic"))
        level = urgency_of(headers.get(b"urgency"))
        tail = encoding_of(headers, options.max_crypto_bytes) if body else ""
        return _Message(self, reply, address, ttl, topic, level, body, tail)

    # ------------------------------------------------------------------ a message that was sent

    def message(self, request: Request, reply: Reply) -> None:
        """`DELETE /m/{id}`: the message is not wanted any more. The same answer whether it still waited or not."""
        if request.method != b"DELETE":
            reply(responses.PREFLIGHT if request.method == b"OPTIONS" else responses.ONLY_DELETE)
            return
        try:
            opened = self.tokens.open(MESSAGE_PURPOSE, request.path[3:])
        except TokenError:
            reply(responses.BAD_MESSAGE)
            return
        if self.messages.crowded:
            reply(responses.BUSY)
            return
        device = opened[:16]
        slot, version = opened[24:].decode(), _NUMBER.unpack_from(opened, 16)[0]
        self.messages.withdraw(
            device, slot, version, lambda status: reply(responses.DELETED if status == m.OK else responses.NOT_KEPT)
        )


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
            self._reply(responses.NOT_KEPT)
            return
        if record is None or not has(record, self._member):
            app.counters.pushes_rejected += 1
            self._reply(responses.NO_DEVICE if record is None else responses.NO_CHANNEL)
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
            self._reply(responses.REFUSED[outcome])
            return
        app = self._app
        name = app.tokens.seal(MESSAGE_PURPOSE, self.device + _NUMBER.pack(self._number) + self._slot.encode())
        self._reply(Response(201, headers=(("Location", app.location + name), ("TTL", str(self.ttl)), *responses.CORS)))


def _in_base64url(body: bytes) -> str:
    """A body in base64url without padding. msgspec makes base64 of bytes in half the time that binascii takes, and for
    a text of this length two replacements take an eighth of a translation's."""
    return _encode(body)[1:-1].rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_").decode()
