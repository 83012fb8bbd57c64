"""What the messages of a worker's batch do, and when the batch is confirmed. Pure.

A batch is confirmed when all of it is durable. A message that cannot be acted on is dropped alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from router.common import logs
from router.common import messages as m
from router.common.metrics import RouterCounters
from router.core.attachments import Attachments
from router.core.authorising import Authorising
from router.core.committer import GroupCommitter
from router.core.inspections import Inspections
from router.core.push_watch import Acknowledged
from router.core.pushes import Pushes
from router.core.requests import Requests
from router.core.sessions import WorkerSession
from router.core.settling import Settling

_Handler = Callable[[WorkerSession, Any, Any], None]
"""Acts on a message: session, message, number of the call or None."""


class Batches:
    """Acts on them."""

    __slots__ = (
        "_acknowledged",
        "_committer",
        "_counters",
        "_handlers",
        "_handlers_of_repeated",
        "_pushes",
        "_settling",
    )

    def __init__(
        self,
        committer: GroupCommitter,
        acknowledged: Acknowledged,
        pushes: Pushes,
        settling: Settling,
        counters: RouterCounters,
        attachments: Attachments,
        requests: Requests,
        authorising: Authorising,
        inspections: Inspections,
    ) -> None:
        self._committer = committer
        self._acknowledged = acknowledged
        self._pushes = pushes
        self._settling = settling
        self._counters = counters
        self._handlers = _handlers(attachments, requests, authorising, inspections)
        self._handlers[m.Malformed] = self._malformed
        self._handlers_of_repeated = self._handlers | {m.Publish: requests.published, m.Happened: _nothing}
        if not settling.over:
            self._handlers[m.Publish] = partial(self._hold, requests.publish)
            settling.when_over(partial(self._handlers.update, {m.Publish: requests.publish}))

    def received(self, session: WorkerSession, sequence: int, messages: Sequence[m.ToRouter | m.Malformed]) -> None:
        """The batch of this number has come."""
        batch = session.begin(sequence)
        lease, result, committer = session.lease, self._pushes.received, self._committer
        acknowledged = self._acknowledged
        handlers = self._handlers if sequence > session.repeated else self._handlers_of_repeated
        failures = committer.failures
        acks = False
        late: set[bytes] = set()  # devices whose acks take more than one commit
        for message in messages:
            waits = batch[1]
            number: int | None = None
            try:
                if type(message) is m.Result:
                    result(message.number, message.outcome, lease)
                elif type(message) is m.Ack:
                    acks = True
                    updates = message.updates
                    self._counters.acks += len(updates)
                    if acknowledged(message.device, updates):
                        late.add(message.device)
                elif type(message) is m.Call:
                    number = message.number
                    handlers[type(message.request)](session, message.request, number)
                else:
                    handlers[type(message)](session, message, None)
            except Exception as error:
                batch[1] = waits
                self._refuse(session, number, error)
        session.end(batch)

        def done(status: int) -> None:
            # A batch that the store failed is confirmed too: its calls were replied to with FAILED, and its acks are
            # the worker's to send again when the store may be well.
            failed = status != m.OK or committer.failures != failures
            if acks and failed and sequence not in session.unkept:
                session.unkept.append(sequence)
            session.done(batch)

        for device in late:
            batch[1] += 1
            committer.when_durable(done, device)
        committer.when_durable(done)

    def _hold(
        self,
        handler: Callable[[WorkerSession, m.Publish, int | None], None],
        session: WorkerSession,
        message: m.Publish,
        number: int | None,
    ) -> None:
        """Handle it when it is known what all workers hold. Its batch does not wait for that."""

        def now() -> None:
            try:
                handler(session, message, number)
            except Exception as error:
                self._refuse(session, number, error)

        self._settling.wait(now, partial(session.reply, number, m.FAILED), len(message.body))

    def _malformed(self, session: WorkerSession, message: m.Malformed, number: int | None) -> None:
        self._refuse(session, message.number, m.MessageError(message.error))

    def _refuse(self, session: WorkerSession, number: int | None, error: Exception) -> None:
        """A message that cannot be acted on is dropped alone; a call is replied to with FAILED."""
        self._counters.messages_refused += 1
        shard = session.lease.shard
        if isinstance(error, m.MessageError):
            logs.limited("link.message_refused", at="error", per=str(shard), shard=shard, error=str(error))
        else:
            logs.limited("link.message_failed", at="error", per=repr(error), shard=shard, exc=error)
        session.reply(number, m.FAILED)


def _nothing(session: WorkerSession, message: object, number: int | None) -> None:
    """It was done before."""


def _handlers(
    attachments: Attachments, requests: Requests, authorising: Authorising, inspections: Inspections
) -> dict[type, _Handler]:
    return {
        m.Attach: attachments.attach,
        m.Detach: attachments.detach,
        m.Announce: attachments.announce,
        m.Fetch: attachments.fetch,
        m.Drop: attachments.drop,
        m.Subscribe: requests.subscribe,
        m.ReadLog: requests.read_log,
        m.Unsubscribe: requests.unsubscribe,
        m.AnnounceChannels: requests.announce_channels,
        m.Counted: requests.counted,
        m.CountsSent: requests.counts_sent,
        m.PresenceJoin: requests.presence_join,
        m.PresenceLeave: requests.presence_leave,
        m.Publish: requests.publish,
        m.Happened: requests.happened,
        m.Invoke: requests.invoke,
        m.Record: requests.record,
        m.SetAdd: requests.set_add,
        m.SetRemove: requests.set_remove,
        m.Authorise: authorising.asked,
        m.Withdraw: authorising.withdrawn,
        m.Inspected: inspections.received,
    }
