"""gopush2 in a worker: what all of its sessions share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from typing import Final

from farm.dialects import Context, Dialect
from router.common.position import LogEvent
from router.dialects.gopush2.protocol import Gopush2Options, message_text

_SECONDS: Final = 1024  # that are remembered


class Gopush2Shared(Dialect):
    """The part of the dialect that its sessions refer to."""

    resumes = True

    def __init__(self, context: Context) -> None:
        self.options = context.settings.get(Gopush2Options)
        self.counters = context.counters
        self.unix_time = context.unix_time
        self.devices = 0
        """That are subscribed now."""
        self.subscribed = 0
        """That have been since the start."""

    def counts(self) -> Mapping[str, float]:
        return {"gopush2_devices": self.devices, "gopush2_subscribed": self.subscribed}

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        return message_text(event.offset, event.body, self.options.msg_id)

    def deadline(self, seconds: int) -> int:
        """When that is from now, in unix seconds: one object for all of that second."""
        return _shared(ceil(self.unix_time()) + seconds)


@lru_cache(_SECONDS)
def _shared(second: int) -> int:
    return second
