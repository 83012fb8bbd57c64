"""The hub: the router's pure core, wired. Envelopes of workers and pushes in; outboxes and outcomes out. No I/O.

It rests on three rules:

1. A push is answered once two things are known: whether it is durable, and whether a worker wrote it to the device's
   socket (`router.core.publishing`, `pushes`).
2. While a device attaches, deliveries to it are held back until the reply has gone, which carries what waited for it
   (`router.core.attachments`).
3. What cannot be sent to a worker (its outbox is full, its lease has run out) is not lost, it is only not sent: the
   item is in the store, and when the worker announces its devices again, their inboxes are read again
   (`router.core.sessions`).

Nothing here calls the link. The link gives the hub what has come (`received`), sends what `take_direct` and `outgoing`
give, and reports which sessions were drained and which were lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf, isfinite
from typing import Any, Final

from router.common import logs
from router.common import messages as m
from router.common.directory import Placement
from router.common.metrics import RouterCounters
from router.common.numbers import Sequencer, first_number
from router.common.partitions import fixed_owners
from router.common.settings import LinkOptions
from router.common.wire import NEWEST, VERSIONS, WIRES, common_version
from router.core.address_map import AddressMap, Lease
from router.core.answering import Answering
from router.core.asking import Asking
from router.core.attachments import Attachments
from router.core.authorising import Authorising, Questions
from router.core.batches import Batches
from router.core.broadcasts import Broadcasts
from router.core.channels import Channels
from router.core.committer import GroupCommitter
from router.core.device_operations import DeviceOperations
from router.core.facades import ChannelDirectory, Core, Logs, Records
from router.core.inspections import Inspections
from router.core.managing import Actions
from router.core.operations import Operations
from router.core.publishing import Messages
from router.core.push_watch import Acknowledged, PushWatch, WatchedMessages
from router.core.pushes import Pushes
from router.core.recount import Recount
from router.core.requests import Requests
from router.core.scope import Scope
from router.core.sessions import NOT_BEGUN, Sessions, WorkerSession
from router.core.settling import Settling

_LOG_SHARE: Final = 4
"""A slice of a log may have this part of the largest envelope."""
_MADE_UP: Final = b"\0"
"""So begin the routing IDs that ZeroMQ gives to a connection."""
_SILENT_BEATS: Final = 2
"""A worker that owes so many is sent something: the link finds out at once if its process has gone."""


class Hub:
    """Sessions, address map, attachments, channels and pushes.

    `monotonic` and `unix_time` are clocks in seconds; `versions` those of the protocol that are spoken. `router` is its
    number among the farm's routers (`router.common.numbers`), of which there are `routers`. `workers`: how many are
    expected to announce what they hold (`router.core.settling`). `watch` wants to know of each push; None: nobody does.
    `common`: the clock by which workers say since when they hold a device; None: `monotonic`.
    """

    def __init__(
        self,
        committer: GroupCommitter,
        options: LinkOptions,
        delivery_timeout: float,
        incarnation: bytes,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
        router: int = 0,
        routers: int = 1,
        versions: range = VERSIONS,
        workers: int | None = 0,
        watch: PushWatch | None = None,
        common: Callable[[], float] | None = None,
    ) -> None:
        self._committer = committer
        self._options = options
        self._monotonic = monotonic
        self._versions = versions
        self._incarnation = incarnation
        self.counters = RouterCounters()
        self.map = AddressMap()
        self.sessions = sessions = Sessions(options, self.counters)
        timeout = delivery_timeout + options.forward_timeout
        self.settling = settling = Settling(sessions, workers, options, timeout, self.counters, monotonic)
        settled = monotonic() + options.lease + options.member_grace if settling.over else inf
        self.channels = Channels(sessions.offer, options.member_grace, settled, monotonic)
        first = first_number(router, incarnation)
        self.recount = Recount(sessions.offer, first, options.max_recounts, delivery_timeout, monotonic)
        changes = options.max_broadcast_changes
        self.broadcasts = Broadcasts(committer, options.max_broadcasts, changes, sessions.offer_all)
        self._pushes = Pushes(self.counters, incarnation, delivery_timeout, options.max_results, monotonic, router)
        self._numbers = Sequencer(router, unix_time, monotonic)
        self.begin_after = self._numbers.begin_after
        self.attachments = Attachments(committer, options, self.map, sessions, self._pushes)
        pushes, clocks = self._pushes, (monotonic, unix_time)
        parts = (committer, self.map, sessions, self.attachments, pushes, self._numbers, settling, *clocks)
        self.scope = Scope()
        records = Records(committer)
        acknowledged: Acknowledged = committer.acknowledged
        if watch is None:
            self.messages = Messages(*parts)
        else:
            self.messages = WatchedMessages(watch, self.scope, *parts)
            acknowledged = self.messages.acknowledging(committer.acknowledged)
            records.look_up = self.messages.looking_up(records.look_up)
        self.actions = Actions()
        """What a supervisor may have done."""
        self.asking = Asking(router, routers, incarnation, options, timeout, self.counters, *clocks)
        followed = None if watch is None else self.scope
        ask = self.asking.ask if followed is None else followed.asking(self.asking.ask)
        operations = Operations(fixed_owners(routers), router, ask, settling)
        self.answering = Answering(
            operations.perform, self.asking.owners, incarnation, options, self.counters, unix_time, followed
        )
        requests = Requests(
            committer,
            self.map,
            self.channels,
            self.recount,
            self.messages,
            operations,
            unix_time,
            options.max_message_bytes // _LOG_SHARE,
        )
        self.inspections = Inspections(sessions, first, delivery_timeout, timeout, monotonic)
        """What workers are asked about their connections."""
        self._authorising = Authorising()
        self._batch = Batches(
            committer,
            acknowledged,
            pushes,
            settling,
            self.counters,
            self.attachments,
            requests,
            self._authorising,
            self.inspections,
        ).received
        self._handled: dict[bytes, int] = {}  # by identity: the last batch of a worker whose session has ended
        if not settling.over:
            settling.when_over(self.channels.settle_soon)
        self.core = Core(
            self.messages,
            records,
            Logs(committer),
            ChannelDirectory(self.channels, sessions, self.recount, not settling.over),
            operations,
            self.counters,
        )
        """What dialects see."""
        DeviceOperations(
            committer,
            self.map,
            sessions,
            self.attachments,
            self.inspections,
            unix_time,
            common or monotonic,
        ).register(operations)
        self._status: Callable[[str], dict[str, Any]] = lambda host: {}
        self._refusing = ""
        self._placements: dict[int, Placement] = {}

    # ------------------------------------------------------------------ what the link gives

    def received(self, identity: bytes, data: bytes) -> None:
        """One envelope of a worker or of the supervisor.

        Raises: MessageError if it is malformed; nothing of it has been acted on. A single malformed message is skipped;
        the others of its batch are handled.
        """
        session = self.sessions.get(identity)
        wire = NEWEST if session is None else session.wire
        envelope = wire.of_worker(data, self._options.max_message_bytes)
        if type(envelope) is m.WorkerBatch:
            if session is None:
                self.sessions.direct(identity, m.Rejoin())
            else:
                session.received_at = self._monotonic()
                if envelope.sequence == session.seen + 1:
                    self._batch(session, envelope.sequence, envelope.messages)
                elif envelope.sequence > session.seen:
                    self._after_a_gap(session, envelope)
        elif type(envelope) is m.Beat:
            if session is None:
                self.sessions.direct(identity, m.Rejoin())
            else:
                if envelope.sequence != session.seen and session.wire.version >= m.COUNTED:
                    self._rejoin(session)
                    return
                session.received_at = self._monotonic()
                session.snapshot = {name: value for name, value in envelope.snapshot.items() if isfinite(value)}
                session.touch()  # the answer to a beat is our beat
        elif type(envelope) is m.Ready:
            # A worker that connects again while its connection from before is there still takes its name over. What is
            # left of that comes under a name that ZeroMQ has made up: it may be a READY, and batches, of long ago.
            if not identity.startswith(_MADE_UP):
                self._join(identity, envelope)
        elif type(envelope) is m.Begin:
            if session is None:
                self.sessions.direct(identity, m.Rejoin())
            elif session.seen != NOT_BEGUN:  # the READY before it was lost, or took an old WELCOME for its answer
                self._rejoin(session)
            else:
                session.host, session.seen = envelope.host, envelope.confirmed
        elif type(envelope) is m.Announced:
            if session is not None and session.seen >= envelope.sequence:
                session.announced = True
                self.settling.look()
        elif type(envelope) is m.AskStatus:
            self.sessions.direct(identity, m.Status(envelope.number, self._status(envelope.host)))
        elif type(envelope) is m.SetBroadcast:
            self._set_broadcast(identity, envelope)
        elif type(envelope) is m.Manage:
            self._manage(identity, envelope)
        elif type(envelope) is m.Leave and session is not None:
            self._left(session)

    def take_direct(self) -> Iterable[tuple[bytes, bytes]]:
        """Envelopes for identities without a session, as (identity, data). One that cannot be sent now is dropped: the
        other side asks again later."""
        return self.sessions.take_direct()

    def outgoing(self) -> Sequence[WorkerSession]:
        """Sessions with something to send. The link sends their envelopes, and reports of each that it is `drained` or
        `lost`, or that it is blocked. Those that have overflowed end first."""
        dirty = self.sessions.dirty
        if not dirty:
            return ()
        for session in list(dirty.values()):
            if session.overflowed:
                self.lost(session, "its queue is full")
        self.sessions.pressing = False
        return list(dirty.values())

    def drained(self, session: WorkerSession) -> None:
        """All that was to be sent to it has been sent."""
        self.sessions.dirty.pop(session.identity, None)

    def lost(self, session: WorkerSession, why: str) -> None:
        """The session's lease ends: no worker holds its devices until it joins again."""
        if self.sessions.get(session.identity) is not session:
            return
        self._end(session)
        self.counters.leases_lost += 1
        logs.warning("worker.lost", shard=session.lease.shard, pid=session.pid, why=why)

    def _left(self, session: WorkerSession) -> None:
        """The worker has drained: its lease ends in good order."""
        self._end(session)
        logs.event("worker.left", shard=session.lease.shard, pid=session.pid)

    def _after_a_gap(self, session: WorkerSession, batch: m.WorkerBatch) -> None:
        """A batch of a worker has come that is not the next one."""
        if session.wire.version >= m.COUNTED:
            self._rejoin(session)
        else:  # it does not say where it begins
            self._batch(session, batch.sequence, batch.messages)

    def _rejoin(self, session: WorkerSession) -> None:
        """Something that this worker has sent was lost: it is to repeat what is not confirmed."""
        self.lost(session, "a connection broke, and what it had sent was lost")
        self.sessions.direct(session.identity, m.Rejoin())

    # ------------------------------------------------------------------ joining

    def _join(self, identity: bytes, ready: m.Ready) -> None:
        shard, pid = ready.shard, ready.pid
        version = common_version(ready, self._versions)
        if version is None:
            theirs, ours = (ready.lowest, ready.highest), (self._versions[0], self._versions[-1])
            self.sessions.direct(identity, m.Refused(*ours))
            raise m.MessageError(
                f"worker {shard} speaks versions {theirs[0]} to {theirs[1]} of the link's protocol, this router"
                f" {ours[0]} to {ours[1]}: upgrade the one with the lower numbers"
            )
        before = self.sessions.get(identity)
        if before is not None:  # it has repeated its READY before our WELCOME came; while no router is there, often
            self._end(before)
        elif len(self.sessions) >= self._options.max_workers:
            raise m.MessageError(f"worker {shard} is one more than link.max_workers")
        lease = Lease(shard, ready.incarnation)
        wire, repeated = WIRES[version], self._handled.pop(identity, 0)
        session = WorkerSession(self.sessions, identity, lease, pid, self._monotonic(), wire, repeated)
        self.sessions.add(session)
        self.sessions.direct(identity, m.Welcome(self._incarnation, version), session.wire)
        if self._refusing:
            session.send(m.StoreState(self._refusing))
        if self._placements and version >= m.COUNTED:
            session.send(m.Placements(list(self._placements.values())))
        for message in self.broadcasts.messages():
            session.send(message)
        if before is None:
            logs.event("worker.joined", shard=shard, pid=pid)

    def _end(self, session: WorkerSession) -> None:
        handled = self._handled
        if (last := max(session.seen, session.repeated)) > 0:
            handled[session.identity] = last
            if len(handled) > self._options.max_workers:
                del handled[next(iter(handled))]
        self.sessions.remove(session)
        self.channels.lost(session.lease)
        self.attachments.lost(session)
        self._pushes.lost(session.lease)
        self._authorising.questions.lost(session.lease)

    # ------------------------------------------------------------------ the supervisor

    def _set_broadcast(self, identity: bytes, asked: m.SetBroadcast) -> None:
        def answer(status: int, broadcasts: dict[str, str]) -> None:
            self.sessions.direct(identity, m.Status(asked.number, {"outcome": status, "broadcasts": broadcasts}))

        self.broadcasts.set(asked.space, asked.key, asked.value, answer)

    def _manage(self, identity: bytes, asked: m.Manage) -> None:
        def answer(found: dict[str, Any]) -> None:
            self.sessions.direct(identity, m.Status(asked.number, found))

        self.actions.perform(asked.action, asked.arguments, answer)

    def on_authorise(self, questions: Questions) -> None:
        """What has the main server asked."""
        self._authorising.questions = questions

    def on_status(self, status: Callable[[str], dict[str, Any]]) -> None:
        """What to answer a supervisor with. status: is given the ID of its host (`AskStatus`)."""
        self._status = status

    # ------------------------------------------------------------------ time and state

    def tick(self, heard_until: float | None = None) -> None:
        """To be called a few times a second: late deliveries, leases that have run out, what has been put off.

        heard_until: when all that workers had sent had been received; None: now. A worker is silent if nothing came
        from it up to then: what it sends while this process does not get the CPU, or has much else to receive, waits
        unread.
        """
        now = self._monotonic()
        if heard_until is None:
            heard_until = now
        self._numbers.tick()
        self._pushes.tick(now)
        self.settling.tick(heard_until)
        for session in self.sessions:
            if heard_until - session.received_at > self._options.lease:
                self.lost(session, "it has been silent for longer than link.lease")
                continue
            if now - session.received_at > _SILENT_BEATS * self._options.heartbeat:
                session.touch()
            self.attachments.tick(session)
        ticks = self.asking, self.broadcasts, self.channels, self.recount, self.inspections
        for tick in (one.tick for one in ticks):
            try:
                tick()
            except Exception as error:  # one channel's or observer's defect
                logs.limited("hub.tick_failed", at="error", per=repr(error), exc=error)
        self.counters.channels = len(self.channels)
        self.counters.members = self.channels.member_count

    def leave(self) -> None:
        """This router is about to end: nothing that other routers ask for from now on is performed, nor is one of them
        awaited."""
        self.asking.leaving = True
        self.answering.leave()

    def store_state(self, refusing: str) -> None:
        """Send the workers why the store refuses what is to be kept; "": it does not. Only a change is sent."""
        if refusing != self._refusing:
            self._refusing = refusing
            self.sessions.offer_all(m.StoreState(refusing))

    def placed(self, placements: Sequence[Placement]) -> None:
        """Let the workers know where these routers of the cluster are now."""
        self._placements |= {one.number: one for one in placements}
        for session in self.sessions:
            if session.wire.version >= m.COUNTED:
                session.offer(m.Placements(list(placements)))

    @property
    def in_work(self) -> int:
        """Pushes that are not answered because no worker has reported what became of them."""
        return len(self._pushes)
