"""push stream in a worker: what all of its sessions share, and the texts of messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from farm.dialects import Context, Dialect, Effect, Event, Subscribed
from farm.settings import WorkerOptions
from router.common import messages as m
from router.common.position import Last, LogEvent
from router.dialects.pushstream.protocol import (
    LONGEST_TIMER,
    MISSED_ID,
    TIMED_OUT_ID,
    TIMED_OUT_TEXT,
    PushStreamOptions,
)
from router.dialects.pushstream.templates import Message, Template, message_of

NEWEST: Final = Last(1)
"""This very object: the newest event is not sent, it only shows where the log stands."""
_KEPT_TEXTS: Final = 256
_KEPT_BYTES: Final = 2048
"""Texts of events that are kept, and the longest of them."""


class PushStreamShared(Dialect):
    """The part of the dialect that its sessions refer to."""

    resumes = True

    def __init__(self, context: Context) -> None:
        self.options = options = context.settings.get(PushStreamOptions)
        worker = context.settings.get(WorkerOptions)
        self.retry_after = worker.retry_after
        self.patience = worker.admission_timeout
        self._template = Template(options.message_template)
        self._texts: dict[tuple[str, int], tuple[tuple[Any, ...], bytes]] = {}
        self.counters = context.counters
        self.pings = float(options.ping_message_interval)
        self.stream_ttl = float(options.subscriber_connection_ttl)
        self.poll_ttl = float(options.longpolling_connection_ttl) or self.stream_ttl
        self.timed_out = (
            self._template.fill(Message(TIMED_OUT_ID, "", TIMED_OUT_TEXT)) if options.timeout_with_body else b""
        )

    # ------------------------------------------------------------------ messages

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        # Many come back at once to the same events, and each reads them from the log: to fill the template takes 5 us.
        kept = self._texts.get((channel, event.offset))
        if kept is not None and kept[0] == event:
            return kept[1]
        text = self._template.fill(message_of(channel, event))
        if len(text) <= _KEPT_BYTES:
            if len(self._texts) >= _KEPT_TEXTS:
                self._texts.clear()
            self._texts[channel, event.offset] = tuple(event), text
        return text

    def missed_text(self, channel: str) -> bytes | None:
        text = self.options.missed_message
        return self._template.fill(Message(MISSED_ID, channel, text)) if text else None

    def missing(self, results: Sequence[Subscribed]) -> Iterator[Effect]:
        """The message for a client whose position is one that a log does not reach back to."""
        for wanted, _, _, log in results:
            if log is not None and not log.recovered and wanted.position is not NEWEST:
                text = self.missed_text(m.label_parts(wanted.label)[2])
                if text is not None:
                    yield Event(text)

    # ------------------------------------------------------------------ time

    def step(self, left: float) -> float:
        """Seconds until the next tick of a connection that ends in so many seconds, or stays (0); 0: it needs none."""
        due = [seconds for seconds in (self.pings, left) if seconds > 0]
        return min(*due, LONGEST_TIMER) if due else 0.0
