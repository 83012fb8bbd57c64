"""The workers that have joined: what is to be sent to each, and up to where its batches are done with. Pure.

A session ends with its lease. What is to be sent waits in its outbox until the link has taken it. Replies always go
there: their number is bounded by what the worker may have unconfirmed. Everything else is only offered: if too much
waits already it is dropped, and the session is marked and ends after the turn. The worker then joins anew, announces
what it holds, and gets what it missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from router.common import logs
from router.common import messages as m
from router.common.metrics import RouterCounters
from router.common.settings import LinkOptions
from router.common.wire import NEWEST, Wire
from router.core.address_map import Lease
from router.core.unread import Unread

NOT_BEGUN: Final = -2
"""As the last batch of a worker that has not sent BEGIN: none is the next one."""


class WorkerSession:
    """A worker that has joined."""

    __slots__ = (
        "_batches",
        "_confirmed_sent",
        "_event_chars",
        "_handled",
        "_number",
        "_part",
        "_sessions",
        "announced",
        "blocked",
        "confirmed",
        "host",
        "identity",
        "lease",
        "outbox",
        "overflowed",
        "pid",
        "received_at",
        "repeated",
        "seen",
        "snapshot",
        "stored_bytes",
        "unkept",
        "unread",
        "wire",
    )

    def __init__(
        self, sessions: Sessions, identity: bytes, lease: Lease, pid: int, now: float, wire: Wire, repeated: int = 0
    ) -> None:
        self._sessions = sessions
        self.identity = identity
        self.lease = lease
        self.pid = pid
        self.received_at = now
        """When its last envelope came."""
        self.wire = wire
        self.outbox: list[m.ToWorker] = []
        self.announced = False
        """Whether it has announced all that it holds."""
        self.overflowed = False
        """Whether something that was offered had no room: then it ends after the turn."""
        self.blocked = False
        """Whether the link could not take more when it was last offered something."""
        self._part = 0  # messages in the envelope that is being sent
        self._number = 0  # of the last envelope sent
        self._event_chars = 0  # of events in the outbox
        self.seen = 0 if wire.version < m.COUNTED else NOT_BEGUN
        """The last batch that has come."""
        self.repeated = repeated
        """Batches up to this were handled in a session before, in this life of the router."""
        self.host = ""
        """ID of its host in a cluster."""
        self.confirmed = 0
        """Batches up to this are done with."""
        self._confirmed_sent = 0  # up to where the worker has been sent `confirmed`
        self._batches: deque[list[int]] = deque()  # [sequence, what it waits for] of those after `confirmed`, in order
        self._handled: list[int] = [0, 0]  # the batch whose messages are being handled, as in _batches
        self.unkept: list[int] = []
        """Batches with acks that the store failed, and that it has not been sent yet."""
        self.unread = Unread()
        self.stored_bytes = 0
        """Of bodies read for it and perhaps not sent yet."""
        self.snapshot: dict[str, Any] = {}

    # ------------------------------------------------------------------ what is sent

    def touch(self) -> None:
        """Have an envelope sent to it, even if there is nothing in it but what is confirmed."""
        self._sessions.dirty[self.identity] = self

    def send(self, message: m.ToWorker) -> None:
        """Send what the worker waits for, or must not miss."""
        if self.lease.alive:
            self.outbox.append(message)
            self._sessions.dirty[self.identity] = self

    def reply(self, number: int | None, status: int, payload: Any = None) -> None:
        """The reply to the call of this number; None: it was none."""
        if number is not None:
            self.send(m.Reply(number, status, payload))

    def offer(self, message: m.ToWorker, chars: int = 0) -> bool:
        """Send what it did not ask for, with an event of so many characters. Returns: whether there was room."""
        sessions, waiting = self._sessions, len(self.outbox)
        if not waiting:
            self._event_chars = 0
        self._event_chars += chars
        if waiting >= sessions.half or self._event_chars > sessions.half_chars:
            sessions.pressing = sessions.pressing or not self.blocked
            if waiting >= sessions.limit or self._event_chars > sessions.limit_chars:
                self.overflowed = True
                self.touch()
                return False
        if not self.lease.alive:
            return False
        self.outbox.append(message)
        sessions.dirty[self.identity] = self
        return True

    def envelope(self) -> bytes:
        """What is to be sent next: all that waits, or a part where it has to be. `sent` is to be called when it was.

        What is confirmed goes with the last part, because it must not be known before the replies that go with it. What
        was not kept goes with the first, because what is read from the store may hold it.
        """
        limit = self._sessions.limit_chars
        while True:
            part = len(self.outbox)
            number = self._number + 1
            data = _encoded(self.wire, m.RouterBatch(self.confirmed, self.outbox, self.unkept, number))
            if data is None:
                fit = [one for one in self.outbox if _encoded(self.wire, m.RouterBatch(0, [one], [])) is not None]
                self._sessions.counters.messages_dropped += part - len(fit)
                self.outbox = fit
                continue
            while part and len(data) > limit:
                part //= 2
                data = self.wire.encode(m.RouterBatch(self._confirmed_sent, self.outbox[:part], self.unkept, number))
            if part or not self.outbox:
                self._part = part
                return data
            kind, shard = type(self.outbox.pop(0)).__name__, self.lease.shard
            self._sessions.counters.messages_too_long += 1
            logs.limited("link.message_too_long", at="error", shard=shard, kind=kind, limit=limit)

    def sent(self) -> bool:
        """The envelope has gone. Returns: whether that was all."""
        self.blocked = False
        self._number += 1
        self.unkept = []
        if self._part < len(self.outbox):
            del self.outbox[: self._part]
            return False
        self.outbox = []
        self._confirmed_sent = self.confirmed
        return True

    # ------------------------------------------------------------------ its batches

    def begin(self, sequence: int) -> list[int]:
        """A batch has come. Returns: [sequence, things that it waits for], of which its end is one."""
        self.seen = sequence
        self._handled = batch = [sequence, 1]
        return batch

    def end(self, batch: list[int]) -> None:
        """All messages of the batch have been handled. It is confirmed when all that it waits for has happened."""
        self._batches.append(batch)

    def hold(self) -> Callable[[], None]:
        """For a message that needs more than one step: its batch waits until what this returns has been called.

        Confirmed before it is replied to, it would not be repeated to the next router if this one died in between, and
        the device would wait in vain.
        """
        batch = self._handled
        batch[1] += 1
        return lambda: self.done(batch)

    def done(self, batch: list[int]) -> None:
        """One thing that this batch waits for has happened."""
        batch[1] -= 1
        while self._batches and self._batches[0][1] <= 0:
            self.confirmed = self._batches.popleft()[0]
        if self.lease.alive:
            self.touch()


class Sessions:
    """All of them, by identity on the link and by lease; and envelopes for those that have none."""

    def __init__(self, options: LinkOptions, counters: RouterCounters) -> None:
        self.counters = counters
        self.limit = options.queue_limit
        self.half = options.queue_limit // 2
        self.limit_chars = options.max_message_bytes
        self.half_chars = options.max_message_bytes // 2
        self.dirty: dict[bytes, WorkerSession] = {}
        """Those with something to send."""
        self.pressing = False
        """Whether so much waits for one that the link should take some before the turn is over."""
        self._max_direct = options.max_direct
        self._direct: deque[tuple[bytes, Wire, m.OfRouter]] = deque()
        self._by_identity: dict[bytes, WorkerSession] = {}
        self._by_lease: dict[Lease, WorkerSession] = {}
        self.get = self._by_identity.get
        self.of = self._by_lease.get

    def __len__(self) -> int:
        return len(self._by_identity)

    def __iter__(self) -> Iterator[WorkerSession]:
        return iter(list(self._by_identity.values()))

    def add(self, session: WorkerSession) -> None:
        """It has joined."""
        self._by_identity[session.identity] = session
        self._by_lease[session.lease] = session

    def remove(self, session: WorkerSession) -> None:
        """Its lease has ended."""
        session.lease.alive = False
        session.outbox.clear()
        del self._by_identity[session.identity]
        del self._by_lease[session.lease]
        self.dirty.pop(session.identity, None)

    @property
    def leases(self) -> list[Lease]:
        """Those of all sessions."""
        return list(self._by_lease)

    @property
    def devices(self) -> int:
        """Devices that are connected."""
        return sum(lease.devices for lease in self._by_lease)

    def offer(self, lease: Lease, message: m.ToWorker, chars: int = 0) -> None:
        """Something that the worker of this lease did not ask for; nothing if the lease has ended."""
        session = self._by_lease.get(lease)
        if session is not None:
            session.offer(message, chars)

    def offer_all(self, message: m.ToWorker) -> None:
        """The same to every worker."""
        for session in self:
            session.offer(message)

    def direct(self, identity: bytes, envelope: m.OfRouter, wire: Wire = NEWEST) -> None:
        """Send an envelope to an identity that has no session yet. The oldest is dropped if too many wait."""
        if len(self._direct) >= self._max_direct:
            self._direct.popleft()
            self.counters.link_dropped += 1
        self._direct.append((identity, wire, envelope))

    def take_direct(self) -> Iterable[tuple[bytes, bytes]]:
        """The envelopes that wait for identities without a session, as (identity, data)."""
        while self._direct:
            identity, wire, envelope = self._direct.popleft()
            data = _encoded(wire, envelope)
            if data is not None:
                yield identity, data


def _encoded(wire: Wire, envelope: m.OfRouter) -> bytes | None:
    """None if there is something in it that cannot be encoded: half a character, or no value of msgpack's."""
    try:
        return wire.encode(envelope)
    except Exception as error:
        logs.limited("link.not_packed", at="error", per=repr(error), exc=error)
        return None
