"""What the router does of its own accord: it reads the names of channels at the start, and forgets channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from router.common import logs
from router.common import messages as m
from router.dialects.app_server import Context
from router.dialects.pushstream.operations import Totals
from router.dialects.pushstream.owner import owner
from router.dialects.pushstream.state import state

_TICK_S: Final = 1.0
_WILDCARDS_S: Final = 86_400.0  # of these nothing is asked here


class Housekeeping:
    """See `router.dialects.app_server.Service`."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        self._operations = context.core.operations
        self._owner = context.shared(owner)  # which publishes to the events channel

    async def run(self) -> None:
        """See `Service.run`."""
        while not self._state.names.complete:
            read = trio.Event()
            self._state.names.read(self._state.found, read.set)
            await read.wait()
            if not self._state.names.complete:
                logs.limited("pushstream.names_unread", hint="the store cannot be read; it is tried again")
                await trio.sleep(_TICK_S)
        while True:
            await trio.sleep(_TICK_S)
            try:
                self._state.look()
                self.count_elsewhere()
            except Exception as error:  # the router goes on without
                logs.limited("pushstream.tick_failed", at="error", per=type(error).__name__, exc=error)

    def count_elsewhere(self) -> None:
        """Ask how many channels the other routers have, which counts for the limit of all."""
        self._operations.at_all(Totals(_WILDCARDS_S), self._known)

    def _known(self, status: int, totals: list[tuple[int, int]]) -> None:
        if status == m.OK:
            registry = self._state.registry
            registry.elsewhere = sum(number for number, _ in totals) - len(registry)

    def close(self) -> None:
        """See `Service.close`."""

    def counts(self) -> Mapping[str, float]:
        """See `Service.counts`."""
        return {
            "pushstream_channels": len(self._state.registry),
            "pushstream_events_dropped": self._state.events_dropped + self._owner.events_dropped,
        }
