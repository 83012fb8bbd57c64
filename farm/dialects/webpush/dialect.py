"""WebPush in a worker: which connections speak it, and what one begins with."""

from __future__ import annotations

from typing import Final

from farm.dialects import Context
from farm.dialects.webpush.broadcasts import Broadcasts
from farm.dialects.webpush.commands import UNREADABLE, decode_anything
from farm.dialects.webpush.session import WebPushSession
from farm.dialects.webpush.shared import WebPushShared
from farm.dialects.webpush.unidentified import Unidentified
from farm.transports.request import Request
from router.dialects.webpush.protocol import WebPushOptions

SUBPROTOCOL: Final = "push-notification"


class WebPushDialect(WebPushShared):
    """The dialect, for a whole worker."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, Broadcasts(context.settings.get(WebPushOptions), WebPushSession))

    def subprotocol(self, offered: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    def claims(self, first: bytes) -> bool:
        if b"use_webpush" not in first and not self.options.bare_hello:
            return False
        try:
            found = decode_anything(first)
        except UNREADABLE:
            return False
        if type(found) is not dict or found.get("messageType") != "hello":
            return False
        if found.get("use_webpush") is True:
            return True
        return self.options.bare_hello and found.get("use_webpush") is None and found.get("channelIDs") is None

    def opened(self, request: Request) -> Unidentified:
        return Unidentified(self)

    @property
    def first_tick(self) -> float:
        return self.options.hello_timeout
