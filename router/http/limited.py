"""A route behind `limits.pushes_per_address`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.common.refusals import TOO_MANY_PUSHES
from router.core.push_limits import PushLimit, retry_after
from router.http.message import Request, Response, refusal
from router.http.routes import Handler, Reply

_PUSHING: Final = frozenset((b"POST", b"PUT"))


def too_many(wait: float) -> Response:
    """The answer where the protocol has no form of its own. wait: seconds after which there is room."""
    return refusal(TOO_MANY_PUSHES, "", retry_after(wait))


def limited(limit: PushLimit[str] | None, handler: Handler, refused: Callable[[float], Response] = too_many) -> Handler:
    """The handler itself if there is no limit. A push counts whether it is valid or not. refused: makes the answer to
    one that is too many."""
    if limit is None:
        return handler

    def within(request: Request, reply: Reply) -> None:
        wait = limit(request.address) if request.method in _PUSHING else 0.0
        if wait:
            reply(refused(wait))
        else:
            handler(request, reply)

    return within
