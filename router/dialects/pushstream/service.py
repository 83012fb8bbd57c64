"""What the router does of its own accord: it reads the names of channels at the start, and forgets channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from router.common import logs
from router.dialects.app_server import Context
from router.dialects.pushstream.publishing import publisher
from router.dialects.pushstream.state import state

_TICK_S: Final = 1.0


class Housekeeping:
    """See `router.dialects.app_server.Service`."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        context.shared(publisher)  # which publishes to the events channel

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
            except Exception as error:  # the router goes on without
                logs.limited("pushstream.tick_failed", at="error", per=type(error).__name__, exc=error)

    def close(self) -> None:
        """See `Service.close`."""

    def counts(self) -> Mapping[str, float]:
        """See `Service.counts`."""
        return {
            "pushstream_channels": len(self._state.registry),
            "pushstream_events_dropped": self._state.events_dropped,
        }
