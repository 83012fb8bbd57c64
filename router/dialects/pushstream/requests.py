"""A request to a push stream route, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from router.common.answers import Answer
from router.dialects.pushstream.cors import cors_headers
from router.dialects.pushstream.protocol import BAD_METHOD, EXPLAIN, PushStreamOptions
from router.http.message import Request, Response
from router.http.percent import unquote
from router.http.routes import Reply

Headers = tuple[tuple[str, str], ...]
ID: Final = b"id"


@dataclass(slots=True)
class Call:
    """A request that passed the check of the key."""

    request: Request
    reply: Reply
    cors: Headers

    def refuse(self, answer: Answer, *headers: tuple[str, str]) -> None:
        """The reason stands in a header, as the module has it."""
        why: Headers = ((EXPLAIN, answer.text),) if answer.text else ()
        wait: Headers = (("Retry-After", "5"),) if answer.status == 503 else ()
        self.reply(Response(answer.status, headers=(*why, *wait, *headers, *self.cors)))

    def answer(self, body: bytes, content_type: str = "application/json", *headers: tuple[str, str]) -> None:
        """All is well."""
        self.reply(Response(200, body, content_type, (*headers, *self.cors)))


def channel_path(request: Request) -> str:
    """What the parameter `id` says, percent-decoded; "" if there is none."""
    for pair in request.query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == ID:
            return unquote(value)
    return ""


class Methods:
    """What a path does, by method; OPTIONS is answered for all of it, as browsers ask without a key."""

    def __init__(self, options: PushStreamOptions, methods: Iterable[tuple[bytes, Callable[[Call], None]]]) -> None:
        self._options = options
        self._methods = dict(methods)
        self._allowed = ", ".join(method.decode() for method in self._methods)

    def __call__(self, request: Request, reply: Reply, refusal: Callable[[Request], Response | None]) -> None:
        """Answer a request. refusal: what refuses it."""
        origin = request.headers.get(b"origin", b"").decode("latin-1")
        call = Call(request, reply, cors_headers(origin, self._allowed, self._options))
        handler = self._methods.get(request.method)
        if request.method == b"OPTIONS":
            call.answer(b"", "text/plain", ("Allow", self._allowed))
        elif (refused := refusal(request)) is not None:
            headers = (*refused.headers, (EXPLAIN, refused.body.decode()), *call.cors)
            reply(replace(refused, headers=headers))
        elif handler is None:
            call.refuse(BAD_METHOD, ("Allow", self._allowed))
        else:
            handler(call)
