"""What the router does with the messages of the queue: they are published to their channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from router.common import logs
from router.common.answers import Answer
from router.common.messages import channel_key
from router.dialects.app_server import Context
from router.dialects.pushstream.nats.client import Done, Fate, QueueThread, State
from router.dialects.pushstream.nats.notification import NotificationError, notification
from router.dialects.pushstream.nats.options import NatsOptions, max_in_work
from router.dialects.pushstream.protocol import NAME, PushStreamOptions
from router.dialects.pushstream.publishing import publisher

_LATER: Final = frozenset((429, 503))
"""Statuses of refusals after which a notification is published again."""
_END_S: Final = 2.0
_QUEUE: Final = channel_key(f"{NAME}.queue", "", "")
"""Who owns this key takes the messages."""


class _Batch:
    """Messages that are being published."""

    __slots__ = ("_done", "_fates", "_left")

    def __init__(self, size: int, done: Done) -> None:
        self._fates = [Fate.AGAIN] * size
        self._left = size
        self._done = done

    def one(self, place: int, fate: Fate) -> None:
        self._fates[place] = fate
        self._left -= 1
        if not self._left:
            self._done(self._fates)


class Queue:
    """See `router.dialects.app_server.Service`."""

    def __init__(self, context: Context) -> None:
        self._nats = context.settings.get(NatsOptions)
        self._options = context.settings.get(PushStreamOptions)
        self._publisher = context.shared(publisher)
        # One of several routers takes messages; whose channels they are for others publish them.
        self._owned = context.core.operations.owns(_QUEUE)
        self._thread: QueueThread | None = None
        self._connected = False
        self._published = self._invalid = self._dropped = 0

    async def run(self) -> None:
        """See `Service.run`."""
        if not self._nats.url or not self._owned:
            return
        in_work = max_in_work(self._nats, self._options.max_message_bytes)
        token = trio.lowlevel.current_trio_token()
        thread = self._thread = QueueThread(self._nats, in_work, self.take, self._reported, token)
        try:
            await trio.sleep_forever()
        finally:
            thread.stop()
            with trio.move_on_after(_END_S, shield=True):
                await thread.ended.wait()

    def close(self) -> None:
        """See `Service.close`."""
        if self._thread is not None:
            self._thread.stop()

    def counts(self) -> Mapping[str, float]:
        """See `Service.counts`."""
        return {
            "pushstream_queue_connected": self._connected,
            "pushstream_notifications": self._published,
            "pushstream_notifications_invalid": self._invalid,
            "pushstream_notifications_dropped": self._dropped,
        }

    def _reported(self, state: State, detail: str) -> None:
        if state is State.DROPPED:
            self._dropped += 1
            logs.limited("pushstream.notification_dropped", hint="nats.max_waiting, nats.max_waiting_bytes")
        elif state is State.FAILED:
            logs.limited("pushstream.queue_failed", error=detail, hint="nats.url, nats.subject, nats.stream")
        elif state is State.LOST:
            self._connected = False
            logs.limited("pushstream.queue_lost")
        else:
            self._connected = True
            logs.event("pushstream.queue_connected")

    def take(self, bodies: list[bytes], done: Done) -> None:
        """Publish what has come. An error of ours is none of the queue's: the message counts as one that is wrong."""
        batch = _Batch(len(bodies), done)
        for place, body in enumerate(bodies):
            try:
                names, text = notification(body, self._options)
            except NotificationError as error:
                self._refuse(batch, place, str(error))
                continue
            try:
                self._publisher.publish(
                    names,
                    text,
                    lambda refusal, _, place=place: self._was_published(batch, place, refusal),  # type: ignore[misc]
                )
            except Exception as error:
                logs.limited("pushstream.notification_failed", at="error", per=type(error).__name__, exc=error)
                self._refuse(batch, place, "it could not be published")

    def _was_published(self, batch: _Batch, place: int, refusal: Answer | None) -> None:
        if refusal is None:
            self._published += 1
            batch.one(place, Fate.PUBLISHED)
        elif refusal.status in _LATER:
            batch.one(place, Fate.AGAIN)
        else:
            self._refuse(batch, place, refusal.text)

    def _refuse(self, batch: _Batch, place: int, why: str) -> None:
        self._invalid += 1
        logs.limited("pushstream.notification_invalid", error=why)
        batch.one(place, Fate.WRONG)
