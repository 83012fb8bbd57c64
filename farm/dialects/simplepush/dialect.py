"""SimplePush in a worker: what a connection begins with."""

from __future__ import annotations

from typing import Final

from farm.dialects.simplepush.shared import SimplePushShared
from farm.dialects.simplepush.unidentified import Unidentified
from farm.transports.request import Request

SUBPROTOCOL: Final = "push-notification"


class SimplePushDialect(SimplePushShared):
    """The dialect, for a whole worker."""

    def subprotocol(self, offered: list[str]) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in offered else None

    @property
    def first_tick(self) -> float:
        return self.options.hello_timeout

    def opened(self, request: Request) -> Unidentified:
        return Unidentified(self)
