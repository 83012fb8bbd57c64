"""What the router says to a worker, acted on: deliveries, events, answers, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from farm.dialects import DeviceSession
from farm.worker.attachments import Attachments, Overheard
from farm.worker.broadcasts import BroadcastScan
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.effects import Performer, effects_of, failed
from farm.worker.events import Events
from farm.worker.health import Health
from farm.worker.inbound import Inbound
from farm.worker.local_channel import HeldEvent
from farm.worker.output import Output
from farm.worker.socket_ids import SocketIds
from farm.worker.subscriptions import Subscriptions
from router.common import logs
from router.common import messages as v
from router.common.close_codes import GOING_AWAY
from router.common.metrics import WorkerCounters
from router.store.base import Item


class RouterMessages:
    """Takes messages of the router."""

    def __init__(
        self,
        counters: WorkerCounters,
        clock: Clock,
        tell: Callable[[Any], None],
        attachments: Attachments,
        subscriptions: Subscriptions,
        socket_ids: SocketIds,
        output: Output,
        performer: Performer,
        inbound: Inbound,
        events: Events,
        broadcasts: BroadcastScan,
        health: Health | None,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._tell = tell
        self._attachments = attachments
        self._devices = attachments.devices
        self._subscriptions = subscriptions
        self._socket_ids = socket_ids
        self._output = output
        self._write = output.write
        self._performer = performer
        self._inbound = inbound
        self._events = events
        self._broadcasts = broadcasts
        self._health = health

    def welcomed(self) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
        """The link is new. Returns: the devices that are here, as the words ANNOUNCE have them."""
        self._broadcasts.renewed()
        self._attachments.renewed()
        if self._health is not None:
            self._health.refusing = ""
        return self._attachments.held()

    def heard(self, words: list[Any]) -> None:
        """Words of the router."""
        self._clock.read()
        for word in words:
            try:
                self._word(word)
            except Exception as error:
                # Whoever it concerns may miss it; the others of this message do not.
                self._counters.words_failed += 1
                logs.limited("link.word_failed", at="error", per=type(error).__name__, exc=error)

    def _word(self, word: list[Any]) -> None:
        kind = word[0]
        if kind == v.DELIVER:
            self._deliver(word)
        elif kind == v.EVENT:
            self._event(word)
        elif kind == v.ANSWER:
            self._answered(word[1], word[2], word[3])
        elif kind == v.DELIVER_STORED:
            self._deliver_stored(word[1], word[2])
        elif kind == v.DISCONNECT:
            self._shed(self._attachments.shed(word[1]))
        elif kind == v.MEMBERS:
            self._events.changed(self._subscriptions.members(word), self._clock.now)
        elif kind == v.TERMINATE:
            self._dismiss(word)
        elif kind == v.TELL_COUNTS:
            self._subscriptions.counts()
            self._tell((v.COUNTS_TOLD, word[1]))
        elif kind == v.BROADCAST:
            self._broadcasts.broadcast_changed(word[1], word[2], word[3])
        elif kind == v.BROADCASTS_SENT:
            self._broadcasts.told()
        elif kind == v.STORE_STATE:
            if self._health is not None:
                self._health.refusing = str(word[1])
        else:
            raise v.VocabularyError(f"unknown word {kind!r}")

    # ------------------------------------------------------------------ devices

    def _deliver(self, word: list[Any]) -> None:
        _, number, key, slot, version, body = word
        connection = self._devices.get(key)
        written = False
        if connection is None:
            self._counters.deliveries_missed += 1
        else:
            session = connection.session
            assert isinstance(session, DeviceSession)
            try:
                text = session.delivered(slot, version, body)
            except Exception as error:
                failure = failed(error)
                self._output.close(connection, failure.code, failure.reason)
                text = None
            if text is not None:
                transport = connection.transport
                frame = transport.text(text)
                written = (
                    self._output.answer(connection, (frame,)) if transport.once else self._write(connection, frame)
                )
        if number:  # else nobody waits for what became of it
            self._tell((v.RESULT, number, v.WRITTEN if written else v.NOT_HERE))

    def _deliver_stored(self, key: bytes, items: list[Any]) -> None:
        connection = self._devices.get(key)
        if connection is not None and isinstance(session := connection.session, DeviceSession):
            stored = [Item(*item) for item in items]
            self._performer.perform(connection, effects_of(session.stored, stored, self._clock.now))

    def _shed(self, connection: Connection | None) -> None:
        """The newest connection of a device wins, wherever it is."""
        if connection is not None:
            self._counters.shed += 1
            self._output.close(connection, GOING_AWAY, "a newer connection of this device came")

    # ------------------------------------------------------------------ answers

    def _answered(self, number: int, status: int, payload: Any) -> None:
        ours, change = self._subscriptions.replied(number, status, payload)
        if ours:
            self._events.changed(change, self._clock.now)
            self._events.admit()
            return
        if (overheard := self._attachments.overheard(number)) is not None:
            if status == v.OK and payload is not None:
                self._catch_up(overheard, payload)
            return
        for asked in self._attachments.readers(number):
            self._answer_one(asked, status, payload)

    def _catch_up(self, overheard: Overheard, payload: Any) -> None:
        """While the link was away a channel's last event may have become another than those subscribers have heard."""
        channel = self._subscriptions.get(overheard.channel)
        for connection, call in overheard.calls:
            session = connection.session
            if channel is None or session is None or connection not in channel.subscribers:
                continue
            effects = list(effects_of(session.replied, call.context, v.OK, payload, self._clock.now))
            if not (len(effects) == 1 and type(effects[0]) is bytes and hash(effects[0]) in overheard.heard):
                self._performer.perform(connection, effects)

    def _answer_one(self, number: int, status: int, payload: Any) -> None:
        found = self._attachments.replied(number, status)
        if found is None:
            return
        connection, call, older = found
        if older is not None:
            self._shed(older)
        self._inbound.replied(connection, number, call.context, status, payload)

    # ------------------------------------------------------------------ channels

    def _event(self, word: list[Any]) -> None:
        _, key, offset, body, exclude = word
        channel = self._subscriptions.get(key)
        if channel is None:
            return
        left_out = self._socket_ids.find(exclude) if exclude else None
        event = HeldEvent(body.encode(), left_out, offset == v.LAST)
        self._events.event(channel, event, self._clock.now)
        if offset == v.LAST:
            for number in self._attachments.heard_last(key, body):
                self._answer_one(number, v.HEARD, None)

    def _dismiss(self, word: list[Any]) -> None:
        _, key, code, reason = word
        channel = self._subscriptions.get(key)
        if channel is not None:
            waiting = channel.waiting.parts if channel.waiting is not None else ()
            for connection in [*channel.subscribers, *(channel.hidden or ()), *waiting]:
                self._output.close(connection, code, reason)
