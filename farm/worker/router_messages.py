"""Messages of the routers to a worker, carried out: deliveries, events, replies, and the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from farm.dialects import Attach, DeviceSession
from farm.worker.attachments import Attachments
from farm.worker.broadcasts import BroadcastScan
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.effects import Performer, effects_of, failed
from farm.worker.events import Events
from farm.worker.grants import Grants
from farm.worker.health import Health
from farm.worker.inbound import Inbound
from farm.worker.inspections import Inspections
from farm.worker.local_channel import HeldEvent
from farm.worker.log_reads import Recovered
from farm.worker.output import Output
from farm.worker.routes import Routes
from farm.worker.socket_ids import SocketIds
from farm.worker.subscriptions import Change, Subscriptions
from router.common import logs
from router.common import messages as m
from router.common.close_codes import GOING_AWAY
from router.common.directory import Placement
from router.common.metrics import WorkerCounters
from router.common.wire import reply_payload


class RouterMessages:
    """Takes messages of the routers."""

    def __init__(
        self,
        counters: WorkerCounters,
        clock: Clock,
        send: Callable[[Any], None],
        attachments: Attachments,
        subscriptions: Subscriptions,
        socket_ids: SocketIds,
        output: Output,
        performer: Performer,
        inbound: Inbound,
        events: Events,
        broadcasts: BroadcastScan,
        grants: Grants,
        health: Health | None,
        routes: Routes,
        inspections: Inspections,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._send = send
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
        self._grants = grants
        self._health = health
        self._of_broadcasts = routes.broadcasts
        self._inspect = inspections.inspect
        self._router = 0  # whose messages are carried out
        self._placed: Callable[[list[Placement]], None] = _follow_nothing

    def on_placements(self, placed: Callable[[list[Placement]], None]) -> None:
        """What is to know where routers of the cluster are."""
        self._placed = placed

    def welcomed(self, router: int = 0) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
        """The link to this router is new. Returns: those of its devices that are here, as ANNOUNCE has them."""
        if router == self._of_broadcasts:
            self._broadcasts.renewed()
        self._attachments.again(router)
        self._grants.again(router)
        if self._health is not None:
            self._health.store_state(router, "")
        return self._attachments.held(router)

    def received(self, messages: list[m.ToWorker], router: int = 0) -> None:
        """Messages of this router."""
        self._clock.read()
        self._router = router
        for message in messages:
            try:
                _HANDLERS[type(message)](self, message)
            except Exception as error:
                # This message is lost; the others of the batch are handled.
                self._counters.messages_failed += 1
                logs.limited("link.message_failed", at="error", per=type(error).__name__, exc=error)

    # ------------------------------------------------------------------ devices

    def _deliver(self, message: m.Deliver) -> None:
        connection = self._devices.get(message.device)
        written = False
        if connection is None:
            self._counters.deliveries_missed += 1
        else:
            session = connection.session
            assert isinstance(session, DeviceSession)
            try:
                text = session.delivered(message.slot, message.version, message.body)
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
        if message.number:  # 0: no result is awaited
            self._send(m.Result(message.number, m.WRITTEN if written else m.NOT_HERE))

    def _deliver_stored(self, message: m.DeliverStored) -> None:
        connection = self._devices.get(message.device)
        if connection is not None and isinstance(session := connection.session, DeviceSession):
            self._performer.perform(connection, effects_of(session.stored, message.items, self._clock.now))

    def _disconnect(self, message: m.Disconnect) -> None:
        self._shed(self._attachments.shed(message.device))

    def _let_go(self, message: m.LetGo) -> None:
        connection = self._devices.get(message.device)
        if connection is not None:
            self._output.close(connection, GOING_AWAY, message.reason)

    def _inspected(self, message: m.Inspect) -> None:
        self._inspect(message)

    def _shed(self, connection: Connection | None) -> None:
        """The newest connection of a device wins, wherever it is."""
        if connection is not None:
            self._counters.shed += 1
            self._output.close(connection, GOING_AWAY, "a newer connection of this device came")

    # ------------------------------------------------------------------ replies

    def _replied(self, reply: m.Reply) -> None:
        number, status, payload = reply.number, reply.status, reply.payload
        ours = self._subscriptions.replied(number, status, payload)
        if ours:
            if isinstance(ours, Change):
                self._events.changed(ours, self._clock.now)
            elif isinstance(ours, Recovered):
                self._events.recovered(ours, self._clock.now)
            self._events.admit()
            return
        self._answer_one(number, status, payload)

    def _answer_one(self, number: int, status: int, payload: Any) -> None:
        found = self._attachments.replied(number, status)
        if found is None:
            if self._grants.kept and (ending := self._grants.replied(number, status, payload)) is not None:
                self._output.close(*ending)
            return
        connection, call, older = found
        if older is not None:
            self._shed(older)
        if status == m.OK:
            payload = reply_payload(m.Attach if isinstance(call, Attach) else type(call.request), payload)
        self._inbound.replied(connection, number, call.context, status, payload)

    # ------------------------------------------------------------------ channels

    def _event(self, message: m.Event) -> None:
        channel = self._subscriptions.get(message.channel)
        if channel is None:
            return
        excluded = self._socket_ids.find(message.exclude) if message.exclude else None
        self._events.event(channel, HeldEvent(message.body.encode(), excluded), self._clock.now)

    def _logged_event(self, message: m.LoggedEvent) -> None:
        channel = self._subscriptions.get(message.channel)
        if channel is not None:
            excluded = self._socket_ids.find(message.exclude) if message.exclude else None
            self._events.logged(channel, message.epoch, message.event, excluded, self._clock.now)

    def _members(self, message: m.Members) -> None:
        if (change := self._subscriptions.changed(message)) is not None:
            self._events.changed(change, self._clock.now)

    def _terminate(self, message: m.Terminate) -> None:
        channel = self._subscriptions.get(message.channel)
        if channel is None:
            return
        answered = [*channel.subscribers, *(part.joining.connection for part in channel.catching_up)]
        waiting = channel.waiting.unanswered if channel.waiting is not None else ()
        others = [*(channel.hidden or ()), *waiting]
        for connection in answered:
            session = connection.session
            effects = effects_of(session.terminated, message.channel) if session is not None else ()
            if effects:
                self._performer.perform(connection, effects)
            else:
                self._output.close(connection, message.code, message.reason)
        for connection in others:
            self._output.close(connection, message.code, message.reason)

    def _send_counts(self, message: m.SendCounts) -> None:
        self._subscriptions.counts()
        self._send(m.CountsSent(message.number))

    # ------------------------------------------------------------------ the whole

    def _broadcast(self, message: m.Broadcast) -> None:
        self._broadcasts.broadcast_changed(message.space, message.key, message.value)

    def _broadcasts_sent(self, message: m.BroadcastsSent) -> None:
        if self._router == self._of_broadcasts:  # others have none
            self._broadcasts.complete()

    def _placements(self, message: m.Placements) -> None:
        self._placed(message.placements)

    def _store_state(self, message: m.StoreState) -> None:
        if self._health is not None:
            self._health.store_state(self._router, message.why)


def _follow_nothing(placements: list[Placement]) -> None:
    """The routers of one host stay where they are."""


_HANDLERS: Final[dict[type, Callable[[RouterMessages, Any], None]]] = {
    m.Deliver: RouterMessages._deliver,
    m.Event: RouterMessages._event,
    m.Reply: RouterMessages._replied,
    m.DeliverStored: RouterMessages._deliver_stored,
    m.Disconnect: RouterMessages._disconnect,
    m.LoggedEvent: RouterMessages._logged_event,
    m.Members: RouterMessages._members,
    m.Terminate: RouterMessages._terminate,
    m.SendCounts: RouterMessages._send_counts,
    m.Broadcast: RouterMessages._broadcast,
    m.BroadcastsSent: RouterMessages._broadcasts_sent,
    m.StoreState: RouterMessages._store_state,
    m.Placements: RouterMessages._placements,
    m.Inspect: RouterMessages._inspected,
    m.LetGo: RouterMessages._let_go,
}
