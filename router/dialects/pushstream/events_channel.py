"""The events channel: what happens to channels, on its way to the owner of that one channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.common import messages as m
from router.core.operations import Operations
from router.dialects.pushstream.operations import Announce
from router.dialects.pushstream.protocol import channel_address

_MOST: Final = 1000
"""Events that wait while others are on their way; more are dropped, and counted."""


class EventsChannel:
    """Publishes here, or hands over to the owner. Nothing is tried again: an event that is lost is counted.

    publish: publishes to the channel, if it is this router's.
    """

    def __init__(self, name: str, operations: Operations, publish: Callable[[str], None]) -> None:
        self._key = channel_address(name)
        self._operations = operations
        self._publish = publish
        self._waiting: list[str] = []
        self._under_way = 0
        self.dropped = 0

    def announce(self, text: str) -> None:
        """One more event."""
        if self._operations.owns(self._key):
            self._publish(text)
        elif len(self._waiting) >= _MOST:
            self.dropped += 1
        else:
            self._waiting.append(text)
            self._send()

    def _send(self) -> None:
        if self._waiting and not self._under_way:
            texts, self._waiting = self._waiting, []
            self._under_way = len(texts)
            self._operations.at(self._key, Announce(texts), self._announced)

    def _announced(self, status: int, reply: None = None) -> None:
        if status != m.OK:
            self.dropped += self._under_way
            self.dropped += len(self._waiting)
            self._waiting.clear()
        self._under_way = 0
        self._send()
