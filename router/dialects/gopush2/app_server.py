"""gopush2, app-server side: `/pub`, `/ch` and `/stat`.

Everything but a wrong method, a missing admin key and a router that is away is answered with 200, and `ret` says what
became of it. The keys of `gopush2.admin_key` and tokens stand in queries: no query is logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.answers import Answer
from router.core.push_limits import retry_after
from router.dialects.app_server import Context
from router.dialects.gopush2.channels import Channels
from router.dialects.gopush2.protocol import (
    BAD_METHOD,
    FOR_EVER_S,
    MAX_MID,
    NAME,
    NO_SUBSCRIBER,
    NOT_COUNTED,
    NOT_THERE,
    OFTEN,
    PARAM_ERROR,
    PUSH_FAILED,
    TOKEN_FAILED,
    TOO_OFTEN,
    Count,
    Gopush2Options,
    Open,
    Push,
    channel_address,
    message_body,
)
from router.dialects.gopush2.stat import Counts, Stat, summed
from router.http.admin_key import AdminKey
from router.http.limited import limited
from router.http.message import Request, Response, refusal
from router.http.percent import fields
from router.http.routes import Reply, Route

TEXT: Final = "text/plain; charset=utf-8"
"""What Go makes of JSON that is given no type."""
_encode: Final = msgspec.json.Encoder().encode
_TOKEN: Final = b"\1"
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_KEY: Final = re.compile(rb"(?:\A|&)key=")
_ID: Final = re.compile(rb"(?:\A|&)id=")


def _envelope(answer: Answer) -> Response:
    return Response(answer.status, _encode({"msg": answer.text, "ret": answer.number}), TEXT)


_OK: Final = Response(200, b'{"msg":"ok","ret":0}', TEXT)
_NO_SUBSCRIBER: Final = _envelope(NO_SUBSCRIBER)
_TOKEN_FAILED: Final = _envelope(TOKEN_FAILED)
_PUSH_FAILED: Final = _envelope(PUSH_FAILED)
_PARAM_ERROR: Final = _envelope(PARAM_ERROR)
_NOT_COUNTED: Final = Response(NOT_COUNTED.status, f"{NOT_COUNTED.text}\n".encode(), TEXT, (("Retry-After", "5"),))
_BAD_METHOD: Final = {
    method: Response(BAD_METHOD.status, f"{BAD_METHOD.text}\n".encode(), TEXT, (("Allow", method.decode()),))
    for method in (b"GET", b"POST")
}


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    options = context.settings.get(Gopush2Options)
    app_side = context.shared(AppSide)
    context.core.operations.register(NAME, Channels(context, options, app_side.counts).performers())
    found = [
        Route(b"/pub", limited(context.limits.address, app_side.pub), claims=_is_push),
        Route(b"/stat", app_side.stat),
    ]
    if options.auth:
        found.append(Route(b"/ch", app_side.ch))
    return found


def _is_push(request: Request) -> bool:
    """Another dialect may publish on the same path, by `id`."""
    query = request.query
    return _KEY.search(query) is not None or _ID.search(query) is None


class AppSide:
    """The requests of app servers. `push` is there for operators, too."""

    def __init__(self, context: Context) -> None:
        self._options = options = context.settings.get(Gopush2Options)
        self._operations = context.core.operations
        self._counters = context.core.counters
        self._admin_key = AdminKey(options.admin_key, "gopush2.admin_key")
        self.counts = Counts()
        """What this router has done."""
        self._stat = Stat(context)
        wait = 1.0 if context.limits.endpoint is None else context.limits.endpoint.longest
        self._too_often = refusal(TOO_OFTEN, "", retry_after(wait))

    # ------------------------------------------------------------------ /pub

    def pub(self, request: Request, reply: Reply) -> None:
        """`POST /pub?key=K[&mid=N][&expire=S]`: the body is the message."""
        if not self._may(b"POST", request, reply):
            return
        given = _fields(request)
        mid = None if given is None else _mid(given.get("mid"))
        if given is None or mid is None:
            self._counters.pushes_invalid += 1
            reply(_PARAM_ERROR)
            return
        self.push(given.get("key", ""), mid, given.get("expire", ""), request.body, reply)

    def push(self, key: str, mid: int, expire: str, data: bytes, reply: Reply) -> None:
        """Push a message. mid: its ID, 0: the next one. expire: seconds; what is no number counts as not given."""
        body = message_body(data, self._options.max_message_bytes)
        if not key or len(key.encode()) > self._options.max_key_bytes:
            self._no_subscriber(reply)
        elif body is None:
            self._counters.pushes_too_long += 1
            self._not_pushed(reply)
        else:

            def pushed(status: int, _: None = None) -> None:
                if status == m.OK:
                    reply(_OK)
                elif status == NOT_THERE:
                    self._no_subscriber(reply)
                elif status == OFTEN:
                    reply(self._too_often)
                else:  # the store could not, or holds a message with this ID
                    self._counters.pushes_refused += status != m.FULL  # which its owner has counted
                    self._not_pushed(reply)

            asked = Push(mid, self._seconds(expire), body)
            self._operations.at(channel_address(key), asked, pushed)

    def _seconds(self, text: str) -> int:
        """How long a message is to be kept; as gopush2 has it, what is no number counts as not given."""
        return min(int(text), FOR_EVER_S) if _NUMBER.fullmatch(text) else self._options.message_expire

    def _no_subscriber(self, reply: Reply) -> None:
        self._counters.pushes_rejected += 1
        reply(_NO_SUBSCRIBER)

    def _not_pushed(self, reply: Reply) -> None:
        self.counts.failed_message += 1
        reply(_PUSH_FAILED)

    # ------------------------------------------------------------------ /ch and /stat

    def ch(self, request: Request, reply: Reply) -> None:
        """`GET /ch?key=K&token=T`: create the channel or extend it, and give it a token."""
        if not self._may(b"GET", request, reply):
            return
        options = self._options
        given = _fields(request) or {}
        key, token = given.get("key", ""), given.get("token", "")
        lengths = (len(key.encode()), options.max_key_bytes), (len(token.encode()), options.max_token_bytes)
        if not all(0 < length <= most for length, most in lengths):
            reply(_PARAM_ERROR)
            return

        def opened(status: int, _: None = None) -> None:
            reply(_OK if status == m.OK else _TOKEN_FAILED)

        self._operations.at(channel_address(key), Open(token), opened)

    def stat(self, request: Request, reply: Reply) -> None:
        """`GET /stat?type=T`: numbers of this server."""
        if not self._may(b"GET", request, reply):
            return
        kind = fields(request.query).get("type", "")

        def counted(status: int, found: list[dict[str, int]]) -> None:
            if status != m.OK:
                reply(_NOT_COUNTED)
            else:
                reply(Response(200, self._stat.page(kind, summed(found)), TEXT))

        self._operations.at_all(Count(), counted)

    def _may(self, method: bytes, request: Request, reply: Reply) -> bool:
        """Whether a request is to be handled; if not, it has been answered."""
        refused = self._admin_key.refusal(request)
        if refused is None and request.method != method:
            refused = _BAD_METHOD[method]
        if refused is not None:
            reply(refused)
        return refused is None


def _fields(request: Request) -> dict[str, str] | None:
    """The query's parameters; None if they are no UTF-8, as no device can ask for: else two keys could be one."""
    try:
        return fields(request.query, "strict")
    except UnicodeDecodeError:
        return None


def _mid(text: str | None) -> int | None:
    """The ID that a message is given by its app server; 0 if it gives none, None if it is no ID."""
    if text is None:
        return 0
    if _NUMBER.fullmatch(text) is None or not 0 < (mid := int(text)) <= MAX_MID:
        return None
    return mid
