"""WebPush (RFC 8030, 8188, 8291, 8292), app-server side: `POST /wpush/...` and `DELETE /m/...`, as autopush has them.

Of autopush's error numbers those are used that can happen here, and one of our own: 115, the Urgency header is not
one of RFC 8030.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import partial
from typing import Final

import msgspec

from router.common import messages as m
from router.common.id_set import has
from router.common.operation import Operation
from router.common.token import TokenError
from router.core.operations import Done
from router.core.pushes import REFUSED_FAILED, REFUSED_FULL, REFUSED_OVER, STORED
from router.dialects.app_server import Context
from router.dialects.webpush import responses
from router.dialects.webpush.headers import Refused, encoding_of, topic_of, ttl_of, urgency_of
from router.dialects.webpush.protocol import (
    BAD_SENDER,
    BUSY,
    DEVICES,
    FROM_ADDRESS,
    INBOX_FULL,
    MESSAGE_PURPOSE,
    NAME,
    NO_CHANNEL,
    NO_DEVICE,
    OF_SENDER,
    PURPOSE,
    STORE_FULL,
    TO_ENDPOINT,
    TOO_LONG,
    WebPushOptions,
    base_url,
    channel_id,
    plain_slot,
    topic_slot,
)
from router.dialects.webpush.vapid import Vapid, VapidError
from router.http.limited import limited
from router.http.message import Request, Response
from router.http.routes import Reply, Route

_PLAIN_TOKEN: Final = 32  # bytes in it: device, channel
_BOUND_TOKEN: Final = 64  # and the digest of the sender's key
_NUMBER: Final = struct.Struct(">Q")
_encode: Final = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """How a message is known that was kept."""

    number: int
    slot: str


class Push(Operation, tag=1):
    """A message for a channel of a device."""

    REPLY = Kept

    member: bytes
    """The channel's."""
    ttl: int
    topic: bytes | None
    urgency: int
    body: bytes
    tail: str
    """What follows the body on its way to the device; "": there is no body."""


class Withdraw(Operation, tag=2):
    """A message is not wanted any more."""

    slot: str
    version: int


_OVER: Final = 101
_BUSY: Final = 102
_NO_DEVICE: Final = 103
_NO_CHANNEL: Final = 104
_OFTEN: Final = 105
"""Statuses of these operations, besides those that all have."""
_STATUS: Final = {STORED: m.OK, REFUSED_FULL: m.FULL, REFUSED_FAILED: m.FAILED, REFUSED_OVER: _OVER}
_REFUSED: Final = {
    m.FULL: responses.FULL,
    _OVER: responses.NO_ROOM,
    _BUSY: responses.BUSY,
    _NO_DEVICE: responses.NO_DEVICE,
    _NO_CHANNEL: responses.NO_CHANNEL,
}
ANSWERS: Final = {
    m.FULL: INBOX_FULL,
    _OVER: STORE_FULL,
    _BUSY: BUSY,
    _NO_DEVICE: NO_DEVICE,
    _NO_CHANNEL: NO_CHANNEL,
    _OFTEN: TO_ENDPOINT,
}
"""By status of `Push`: what refuses it. Any other but OK is NOT_KEPT."""


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    app_side = _AppSide(context)
    owner = _Owner(context)
    push = owner.push if context.limits.endpoint is None else owner.push_limited
    context.core.operations.register(NAME, {Push: push, Withdraw: owner.withdraw})
    address, refused = context.limits.address, partial(responses.too_often, FROM_ADDRESS)
    return (
        Route(b"/wpush/v1/", limited(address, app_side.plain, refused), exact=False),
        Route(b"/wpush/v2/", limited(address, app_side.bound, refused), exact=False),
        Route(b"/wpush/", limited(address, app_side.unversioned, refused), exact=False),
        Route(b"/m/", app_side.message, exact=False),
    )


class _TooOften(Exception):
    """This sender has to wait, for so many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


class _AppSide:
    def __init__(self, context: Context) -> None:
        options = context.settings.get(WebPushOptions)
        url = base_url(context.settings)
        self._ask = context.core.operations.at
        self.tokens = context.tokens
        self.location = url + "/m/"
        self.counters = context.core.counters
        self._options = options
        self._max_body = options.max_body_bytes
        self._too_long = responses.error(TOO_LONG, text=f"The body is longer than {self._max_body} bytes")
        self._of_sender = context.limits.application
        self._refused = dict(_REFUSED)
        if context.limits.endpoint is not None:
            self._refused[_OFTEN] = responses.too_often(TO_ENDPOINT, context.limits.endpoint.longest)
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
            push = self._push(headers, request.body, address)
        except Refused as refused:
            self.counters.pushes_invalid += 1
            reply(refused.response)
        except _TooOften as limit:
            reply(responses.too_often(OF_SENDER, limit.wait))
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
            else:
                device = address[:16]
                self._ask(device, push, partial(self._pushed, reply, device, push.ttl))

    def _pushed(self, reply: Reply, device: bytes, ttl: int, status: int, kept: Kept | None = None) -> None:
        if status != m.OK or kept is None:
            self.counters.pushes_refused += status == m.UNREACHED  # the owner counts all others
            reply(self._refused.get(status, responses.NOT_KEPT))
            return
        name = self.tokens.seal(MESSAGE_PURPOSE, device + _NUMBER.pack(kept.number) + kept.slot.encode())
        reply(Response(201, headers=(("Location", self.location + name), ("TTL", str(ttl)), *responses.CORS)))

    def _check_sender(self, headers: dict[bytes, bytes], bound_to: bytes) -> None:
        authorization = headers.get(b"authorization")
        if authorization is not None:
            digest = self._vapid.check(authorization, headers.get(b"crypto-key", b""))
            if bound_to and digest != bound_to:
                raise VapidError("the key is not the one that this endpoint was made for")
            if self._of_sender is not None and (wait := self._of_sender(digest)):
                raise _TooOften(wait)
        elif bound_to:
            raise VapidError("this endpoint wants a VAPID signature")

    def _push(self, headers: dict[bytes, bytes], body: bytes, address: bytes) -> Push:
        options = self._options
        ttl = ttl_of(headers.get(b"ttl", b""), options.max_ttl)
        topic = topic_of(headers.get(b"topic"))
        level = urgency_of(headers.get(b"urgency"))
        tail = encoding_of(headers, options.max_crypto_bytes) if body else ""
        return Push(address[16:32], ttl, topic, level, body, tail)

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
        withdraw = Withdraw(opened[24:].decode(), _NUMBER.unpack_from(opened, 16)[0])
        self._ask(opened[:16], withdraw, partial(_withdrawn, reply))


def _withdrawn(reply: Reply, status: int, nothing: None = None) -> None:
    reply(responses.DELETED if status == m.OK else _REFUSED.get(status, responses.NOT_KEPT))


class _Owner:
    """What is done about a device that this router owns."""

    def __init__(self, context: Context) -> None:
        self._messages = context.core.messages
        self._records = context.core.records
        self._counters = context.core.counters
        self._of_endpoint = context.limits.endpoint

    def push_limited(self, device: bytes, push: Push, done: Done) -> None:
        """The same where endpoints have a limit."""
        assert self._of_endpoint is not None
        if self._of_endpoint(device + push.member):
            done(_OFTEN)
        else:
            self.push(device, push, done)

    def push(self, device: bytes, push: Push, done: Done) -> None:
        """Keep a message, if the device is there and has the channel."""
        messages = self._messages
        if messages.full and (push.ttl or messages.crowded):  # TTL 0: it is not kept
            done(_OVER if messages.refuse() == REFUSED_OVER else _BUSY)
        else:
            self._records.look_up(DEVICES, device, partial(self._looked_up, device, push, done))

    def _looked_up(self, device: bytes, push: Push, done: Done, status: int, record: bytes | None) -> None:
        if status != m.OK:
            self._counters.pushes_refused += 1
            done(m.FAILED)
            return
        if record is None or not has(record, push.member):
            self._counters.pushes_rejected += 1
            done(_NO_DEVICE if record is None else _NO_CHANNEL)
            return
        chid = channel_id(push.member)
        number = self._messages.sequence()
        topic = push.topic
        slot = plain_slot(number, chid) if topic is None else topic_slot(chid, topic.decode())
        body = f'"data":"{_in_base64url(push.body)}{push.tail}' if push.tail else None
        self._messages.push(
            device,
            slot,
            number,
            partial(_kept, done, Kept(number, slot)),
            ttl=push.ttl,
            urgency=push.urgency,
            body=body,
            sequence=number,
            wait=False,
        )

    def withdraw(self, device: bytes, withdraw: Withdraw, done: Done) -> None:
        """Forget a message; the same answer whether it still waited or not."""
        if self._messages.crowded:
            done(_BUSY)
        else:
            self._messages.withdraw(device, withdraw.slot, withdraw.version, done)


def _kept(done: Done, kept: Kept, outcome: int) -> None:
    if outcome == STORED:
        done(m.OK, kept)
    else:
        done(_STATUS[outcome])


def _in_base64url(body: bytes) -> str:
    """A body in base64url without padding. msgspec makes base64 of bytes in half the time that binascii takes, and for
    a text of this length two replacements take an eighth of a translation's."""
    return _encode(body)[1:-1].rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_").decode()
