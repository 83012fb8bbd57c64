"""The hub: the router's pure core. Messages and pushes in; messages, replies and outcomes out. No I/O, no own clock.

It rests on three rules:

1. A push is answered once two things are known: whether it is durable (the committer's callback) and whether a worker
   wrote it to the device's socket (RESULT, or no worker holds the device, or the worker did not say in time).
2. While a device attaches, deliveries to it are held back until the ANSWER has gone, which carries what waited for
   it. So nothing is sent before the hello is answered, nothing falls between store and socket, nothing goes twice.
3. What cannot be said to a worker (its queue is full, its lease has run out) is not lost, it is only not said: the
   item is in the store, and when the worker announces its devices again, their inboxes are read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from router.common import logs
from router.common import messages as m
from router.common.item import Item
from router.common.metrics import RouterCounters
from router.common.numbers import SECOND, Sequencer
from router.common.position import AfterOffset, LogEvent, LogSlice, PositionError, position
from router.common.settings import LinkOptions
from router.common.wire import NEWEST, VERSIONS, WIRES, Wire
from router.core.address_map import AddressMap, Lease
from router.core.broadcasts import Broadcasts
from router.core.channels import Channels
from router.core.committer import GroupCommitter
from router.core.facades import ChannelDirectory, Core, Logs, Messages, Records
from router.core.pushes import PENDING, REFUSED_FAILED, REFUSED_OVER, STORED, Push, PushDone, Pushes
from router.core.recount import Recount
from router.core.unread import Unread
from router.store.base import Append
from router.store.changes import FULL, Change, Changed, RecordName, SetAdd, SetRemove, Take

_FETCH_AGAIN = 3  # times that a part of an inbox is read again because it was overtaken
_HOLD_SHARE = 16  # inboxes of announced devices wait while this part of the largest message is not sent
_SILENT_BEATS = 2  # a worker that owes so many is spoken to: the link tells at once if its process has gone


class WorkerSession:
    """A worker that has joined: its lease, what is to be said to it, and how far its batches have come."""

    __slots__ = (
        "confirmed",
        "event_chars",
        "heard",
        "identity",
        "lease",
        "open",
        "outbox",
        "pid",
        "seen",
        "snapshot",
        "stored_bytes",
        "told",
        "unkept",
        "unread",
        "wire",
    )

    def __init__(self, identity: bytes, lease: Lease, pid: int, now: float, wire: Wire) -> None:
        self.identity = identity
        self.lease = lease
        self.pid = pid
        self.heard = now
        self.wire = wire
        self.outbox: list[m.ToWorker] = []
        self.seen = 0
        self.confirmed = 0
        self.told = 0  # up to where it has been told that its batches are confirmed
        self.unkept: list[int] = []  # batches with acks that the store failed, and that it has not been told of
        self.open: deque[list[int]] = deque()  # [sequence, what it waits for] of batches after `confirmed`, in order
        self.unread = Unread()
        self.stored_bytes = 0  # of bodies read for it and perhaps not sent yet
        self.event_chars = 0  # of events that may not have been sent yet
        self.snapshot: dict[str, Any] = {}


class Hub:
    """Map, attachments, pushes in work and the peers' outboxes.

    The shell feeds `received` and `tick` and sends what `dirty` and `direct` hold. `monotonic` and `unix_time` are
    clocks in seconds; `versions` those of the protocol that are spoken. `router` is its number among the farm's routers
    (`router.common.numbers`).
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
        versions: range = VERSIONS,
    ) -> None:
        self.committer = committer
        self._versions = versions
        self.map = AddressMap()
        self.counters = RouterCounters()
        self.incarnation = incarnation
        self.peers: dict[bytes, WorkerSession] = {}
        self.dirty: dict[bytes, WorkerSession] = {}  # peers with something to send
        self.direct: deque[tuple[bytes, Wire, m.OfRouter]] = deque()  # to those who are no peers
        self._options = options
        self._most_log = options.max_message_bytes // 4  # characters of a slice of a log
        self._monotonic = monotonic
        self._unix_time = unix_time
        self._peer_of: dict[Lease, WorkerSession] = {}
        grace = options.member_grace
        self.channels = Channels(self._tell, grace, monotonic() + options.lease + grace, monotonic)
        first = int.from_bytes(incarnation[-5:], "big") << 20
        self.recount = Recount(self._tell, first, options.max_recounts, delivery_timeout, monotonic)
        self.broadcasts = Broadcasts(committer, options.max_broadcasts, options.max_broadcast_changes, self._tell_all)
        self._pushes = Pushes(self.counters, incarnation, delivery_timeout, options.max_results, router)
        self._numbers = Sequencer(router, unix_time, monotonic)
        self.sequence = self._numbers.next
        self.version = self._numbers.version
        self.begin_after = self._numbers.begin_after
        self._attaching: dict[bytes, list[Push]] = {}
        self._held = 0  # pushes in all of those
        self._handled: list[int] = [
            0,
            0,
        ]  # the batch whose messages are being handled, as it stands in WorkerSession.open
        self._status: Callable[[], dict[str, Any]] = dict
        self._refusing = ""
        self._relieve: Callable[[], None] = _nothing
        self.core = Core(
            Messages(self, committer), Records(committer), Logs(committer), ChannelDirectory(self), self.counters
        )
        """What dialects see."""

    # ------------------------------------------------------------------ app servers

    def push(
        self,
        device: bytes,
        slot: str,
        version: int,
        done: PushDone,
        *,
        ttl: int,
        urgency: int = 0,
        body: str | None = None,
        keep_body: bool = True,
        sequence: int = 0,
        wait: bool = True,
    ) -> None:
        """Keep a message in the device's inbox and say it to the device; `done` is called once with the outcome.

        ttl: seconds until it is not worth delivering. keep_body: whether the store keeps the body too, or only the
        live delivery carries it. sequence: its place in the order of arrival, from `sequence()`; 0: the next one.
        wait: whether the outcome waits for the worker too. If not it is STORED as soon as the message is durable,
        and at once for a message with a TTL of 0, which is not stored at all.
        """
        self.counters.pushes += 1
        lease = self.map.device(device)
        if not wait and ttl <= 0:
            self.counters.pushes_unkept += 1
            if lease is not None:
                push = Push(self._pushes, 0, slot, version, body, done)
                push.durable = m.OK
                push.result = m.NOT_HERE
                self._deliver_or_hold(lease, device, push)
            done(STORED)
            return
        if self.committer.full:
            done(self.refuse())
            return
        pushes = self._pushes
        wait = wait and lease is not None and not pushes.full
        expires = int(self._unix_time()) + ttl
        item = Item(slot, version, sequence or self.sequence(), expires, urgency, body if keep_body else None)
        push = Push(pushes, pushes.number() if wait else 0, slot, version, body, done)
        self.committer.put(device, item, push.committed)
        if wait:
            pushes.wait(push, self._monotonic())
        else:
            push.result = m.NOT_HERE  # nobody will say what became of it
        if lease is not None:
            self._deliver_or_hold(lease, device, push)

    def refuse(self) -> int:
        """Count a push that must not even wait, because the committer is full. Returns: its outcome."""
        self.counters.pushes_refused += 1
        if self.committer.over:
            self.counters.pushes_over += 1
            return REFUSED_OVER
        return REFUSED_FAILED

    def _deliver_or_hold(self, lease: Lease, device: bytes, push: Push) -> None:
        held = self._attaching.get(device)
        if held is None:
            peer = self._peer_of[lease]
            if device not in peer.unread.devices:
                self._deliver(peer, device, push)
                return
            self._attaching[device] = held = []
            peer.unread.urge(device)
            self._read_held(peer)
        if push.durable == PENDING or self._held < self._options.max_held:  # the store bounds what is to be kept
            held.append(push)
            self._held += 1

    def _deliver(self, peer: WorkerSession, device: bytes, push: Push) -> None:
        if not self._has_room(peer):
            self._pushes.forget(push.number)
            push.resulted(m.NOT_HERE)
            return
        push.lease = peer.lease
        peer.outbox.append(m.Deliver(push.number, device, push.slot, push.version, push.body))
        self.dirty[peer.identity] = peer

    def publish(self, channel: bytes, body: str, exclude: str = "") -> None:
        """Send an event to every subscriber of a channel. exclude: the socket id of a connection that it is not for."""
        self.counters.events += 1
        event = m.Event(channel, body, exclude)
        for lease in self.map.channel(channel):
            self._tell(lease, event, len(body))

    def publish_logged(
        self, event: Append, done: Callable[[int, AfterOffset | None], None] | None = None, exclude: str = ""
    ) -> None:
        """Append an event to the log of its channel and, once that holds it, send it to every subscriber. `done` gets
        status and the position after it; None if it is refused, for the log holds one of its offset.

        Raises: ValueError for an event that no log can hold.
        """
        self.counters.events += 1

        def logged(status: int, end: AfterOffset | None) -> None:
            if status == m.OK and end is not None:
                self._fan_out(event, end, exclude)
            if done is not None:
                done(status, end)

        self.committer.append(event, logged)

    def _fan_out(self, event: Append, end: AfterOffset, exclude: str) -> None:
        offset = event.offset if event.exact else end.offset
        time, tag = divmod(event.sequence, SECOND)
        logged = LogEvent(offset, time, tag, event.expires, event.id, event.headers, event.body)
        message = m.LoggedEvent(event.channel, end.epoch, logged, exclude)
        for lease in self.map.channel(event.channel):
            self._tell(lease, message, len(event.body))

    def dismiss(self, channel: bytes, code: int, reason: str) -> None:
        """Have every connection that is subscribed to this address closed."""
        for lease in self.map.channel(channel):
            self._tell(lease, m.Terminate(channel, code, reason))

    def _tell(self, lease: Lease, message: m.ToWorker, chars: int = 0) -> None:
        """A message that is no reply, with an event of so many characters. The lease may have ended meanwhile: to
        make room for one worker is to find out that others have gone."""
        peer = self._peer_of.get(lease)
        if peer is not None and self._has_room(peer, chars):
            self._say(peer, message)

    def _tell_all(self, message: m.ToWorker) -> None:
        for lease in list(self._peer_of):
            self._tell(lease, message)

    def _has_room(self, peer: WorkerSession, chars: int = 0) -> bool:
        """Whether one more message may wait, and an event of so many characters. If even sending what waits does not
        make room, the lease ends; when the worker hears of it, it announces itself anew. Any lease may have ended
        when this returns, this one too: then it has no room."""
        options = self._options
        for attempt in (1, 2):
            if not peer.lease.alive:
                return False
            if not peer.outbox:
                peer.event_chars = 0
            if len(peer.outbox) < options.queue_limit and peer.event_chars + chars <= options.max_message_bytes:
                peer.event_chars += chars
                return True
            if attempt == 1:
                self._relieve()
        self.lose(peer, "its queue is full")
        return False

    # ------------------------------------------------------------------ workers

    def received(self, identity: bytes, data: bytes) -> None:
        """One envelope of a worker or of the supervisor.

        Raises: MessageError if it is none of ours; nothing of it has been acted on. A message that is none of ours is
        passed over, and the others of its batch are not.
        """
        peer = self.peers.get(identity)
        wire = NEWEST if peer is None else peer.wire
        envelope = wire.of_worker(data, self._options.max_message_bytes)
        if type(envelope) is m.WorkerBatch:
            if (peer := self._known(identity)) is not None:
                self._batch(peer, envelope.sequence, envelope.messages)
        elif type(envelope) is m.Beat:
            if (peer := self._known(identity)) is not None:
                peer.snapshot = {name: value for name, value in envelope.snapshot.items() if isfinite(value)}
                self.dirty[identity] = peer  # the answer to a beat is our beat
        elif type(envelope) is m.Ready:
            self._join(identity, envelope)
        elif type(envelope) is m.AskStatus:
            self._say_direct(identity, m.Status(envelope.number, self._status()))
        elif type(envelope) is m.SetBroadcast:
            self._set_broadcast(identity, envelope)

    def _known(self, identity: bytes) -> WorkerSession | None:
        """Who speaks; if it is nobody's lease, it is told to join."""
        peer = self.peers.get(identity)
        if peer is None:
            self._say_direct(identity, m.Rejoin())
        else:
            peer.heard = self._monotonic()
        return peer

    def _say_direct(self, identity: bytes, envelope: m.OfRouter, wire: Wire = NEWEST) -> None:
        if len(self.direct) >= self._options.max_direct:
            self.direct.popleft()
            self.counters.link_dropped += 1
        self.direct.append((identity, wire, envelope))

    def _set_broadcast(self, identity: bytes, asked: m.SetBroadcast) -> None:
        def answer(status: int, broadcasts: dict[str, str]) -> None:
            self._say_direct(identity, m.Status(asked.number, {"outcome": status, "broadcasts": broadcasts}))

        self.broadcasts.set(asked.space, asked.key, asked.value, answer)

    def _join(self, identity: bytes, ready: m.Ready) -> None:
        shard, pid = ready.shard, ready.pid
        version = self._common_version(identity, ready)
        if (before := self.peers.get(identity)) is not None:
            self._forget_peer(before)
        elif len(self.peers) >= self._options.max_workers:
            raise m.MessageError(f"worker {shard} is one more than link.max_workers")
        lease = Lease(shard, ready.incarnation)
        peer = WorkerSession(identity, lease, pid, self._monotonic(), WIRES[version])
        self.peers[identity] = peer
        self._peer_of[lease] = peer
        self._say_direct(identity, m.Welcome(self.incarnation, version), peer.wire)
        if self._refusing:
            self._say(peer, m.StoreState(self._refusing))
        for message in self.broadcasts.messages():
            self._say(peer, message)
        logs.event("worker.joined", shard=shard, pid=pid)

    def _common_version(self, identity: bytes, ready: m.Ready) -> int:
        """The newest version that both speak. Raises: MessageError if there is none; the worker is told our range."""
        lowest = ready.highest if ready.lowest is None else ready.lowest
        version = min(ready.highest, self._versions[-1])
        if version >= max(lowest, self._versions[0]):
            return version
        if ready.lowest is not None:  # else it is of version 4, which knows no refusal
            self._say_direct(identity, m.Refused(self._versions[0], self._versions[-1]))
        raise m.MessageError(
            f"worker {ready.shard} speaks versions {lowest} to {ready.highest} of the link's protocol, this router"
            f" {self._versions[0]} to {self._versions[-1]}: upgrade the one with the lower numbers"
        )

    def lose(self, peer: WorkerSession, why: str) -> None:
        """The peer's lease ends: its devices are nobody's until it joins again."""
        if self.peers.get(peer.identity) is not peer:
            return
        self._forget_peer(peer)
        self.counters.leases_lost += 1
        logs.warning("worker.lost", shard=peer.lease.shard, pid=peer.pid, why=why)

    def _forget_peer(self, peer: WorkerSession) -> None:
        peer.lease.alive = False
        self.channels.lost(peer.lease)
        peer.outbox.clear()
        for device in peer.unread.clear():
            self._let_go(device)
        del self.peers[peer.identity]
        del self._peer_of[peer.lease]
        self.dirty.pop(peer.identity, None)
        self._pushes.lost(peer.lease)

    def _batch(self, peer: WorkerSession, sequence: int, messages: Sequence[m.ToRouter | m.Malformed]) -> None:
        if sequence <= peer.seen:
            return
        peer.seen = sequence
        self._handled = entry = [sequence, 1]
        lease, received = peer.lease, self._pushes.received
        failures = self.committer.failures
        acks = False
        late: set[bytes] = set()  # devices whose acks take more than one commit
        for message in messages:
            waits = entry[1]
            number: int | None = None
            try:
                if type(message) is m.Result:
                    received(message.number, message.outcome, lease)
                elif type(message) is m.Ack:
                    acks = True
                    updates = message.updates
                    self.counters.acks += len(updates)
                    if self.committer.acknowledged(message.device, updates):
                        late.add(message.device)
                else:
                    if type(message) is m.Call:
                        number = message.number
                        _HANDLERS[type(message.request)](self, peer, message.request, number)
                    else:
                        _HANDLERS[type(message)](self, peer, message, None)
                    if not lease.alive:
                        return  # not confirmed, so the worker says all of it again when it has joined
            except Exception as error:
                entry[1] = waits
                self._refuse(peer, number, error)
        peer.open.append(entry)

        def done(status: int) -> None:
            # A batch that the store failed is confirmed too: its calls were replied to with FAILED, and its acks are
            # the worker's to say again when the store may be well.
            failed = status != m.OK or self.committer.failures != failures
            if acks and failed and sequence not in peer.unkept:
                peer.unkept.append(sequence)
            self._batch_done(peer, entry)

        for device in late:
            entry[1] += 1
            self.committer.when_durable(done, device)
        self.committer.when_durable(done)

    def _malformed(self, peer: WorkerSession, message: m.Malformed, number: int | None) -> None:
        self._refuse(peer, message.number, m.MessageError(message.error))

    def _refuse(self, peer: WorkerSession, number: int | None, error: Exception) -> None:
        """A message that cannot be acted on costs that message: whoever waits for a reply to it is told."""
        self.counters.words_refused += 1
        shard = peer.lease.shard
        if isinstance(error, m.MessageError):
            logs.limited("link.word_refused", at="error", per=str(shard), shard=shard, error=str(error))
        else:
            logs.limited("link.word_failed", at="error", per=repr(error), shard=shard, exc=error)
        self._reply(peer, number, m.FAILED)

    def _batch_done(self, peer: WorkerSession, entry: list[int]) -> None:
        """One thing that this batch waits for has happened."""
        entry[1] -= 1
        while peer.open and peer.open[0][1] <= 0:
            peer.confirmed = peer.open.popleft()[0]
        if peer.lease.alive:
            self.dirty[peer.identity] = peer

    def _slow(self, peer: WorkerSession) -> Callable[[], None]:
        """For a message that needs more than one step: its batch waits until what this returns has been called.

        Confirmed before it is answered, it would not be repeated to the next router if this one died in between, and
        the device would wait for ever.
        """
        entry = self._handled
        entry[1] += 1
        return lambda: self._batch_done(peer, entry)

    def _say(self, peer: WorkerSession, message: m.ToWorker) -> None:
        if peer.lease.alive:
            peer.outbox.append(message)
            self.dirty[peer.identity] = peer

    def _reply(self, peer: WorkerSession, number: int | None, status: int, payload: Any = None) -> None:
        """The reply to the call of this number; None: it was none."""
        if number is not None:
            self._say(peer, m.Reply(number, status, payload))

    def _attach(self, peer: WorkerSession, message: m.Attach, number: int) -> None:
        device, needs = message.device, message.needs
        if needs:
            answered = self._slow(peer)

            def looked_up(status: int, value: bytes | None) -> None:
                if status == m.OK and value is not None:
                    self._attach_known(peer, number, message, value, answered)
                    return
                if status == m.OK:
                    self._give_up(device)
                self._reply(peer, number, m.FAILED if status != m.OK else m.UNKNOWN)
                answered()

            self.committer.read_record(needs, device, looked_up)
        else:
            self._attach_known(peer, number, message, None, None)

    def _attach_known(
        self,
        peer: WorkerSession,
        number: int,
        message: m.Attach,
        record: bytes | None,
        answered: Callable[[], None] | None,
    ) -> None:
        if not peer.lease.alive:
            return
        device, fetch, since = message.device, message.fetch, message.since
        taken = self._take(peer, device, since)
        if not taken or not fetch:
            if taken:
                self._reply(peer, number, m.OK, m.Attached([], record))
            else:
                self._reply(peer, number, m.MOVED)
            if answered is not None:
                answered()
            return
        # What an older attachment of this device held back goes with the newest one.
        peer.unread.drop(device)
        held = self._attaching.pop(device, [])[:]
        self._attaching[device] = held

        def fetched(status: int, items: list[Item]) -> None:
            if answered is not None:
                answered()  # this and the ANSWER leave together
            if self._attaching.get(device) is not held:
                self._reply(peer, number, m.MOVED)
                return
            del self._attaching[device]
            self._held -= len(held)
            kept = [push for push in held if push.durable in (PENDING, m.OK)]
            here = peer.lease.alive and self.map.device(device) is peer.lease
            in_answer: set[tuple[str, int]] = set()
            if fetch >= m.EVERYTHING:
                live = {(push.slot, push.version) for push in kept}
                items = [item for item in items if (item.slot, item.version) not in live]
            else:
                # The length of a part says whether there is more, so nothing may be taken out of it.
                in_answer = {(item.slot, item.version) for item in items}
            if here:
                self._reply(peer, number, status, m.Attached(items, record))
            else:
                self._reply(peer, number, m.MOVED)
            for push in kept:
                if here and (push.slot, push.version) not in in_answer:
                    self._deliver(peer, device, push)
                else:
                    self._pushes.forget(push.number)
                    push.resulted(m.NOT_HERE)

        self.committer.read_inbox(device, fetched, fetch)

    def _take(self, peer: WorkerSession, device: bytes, since: int) -> bool:
        """The device is this peer's now, since then, and whoever held it is told; unless that is the younger one."""
        if self.map.device(device) is not None and self.map.since(device) > since:
            return False
        before = self.map.attach(device, peer.lease, since)
        if before is not None:
            other = self._peer_of[before]
            other.unread.drop(device)
            self._say(other, m.Disconnect(device))
            self.counters.devices_moved += 1
        return True

    def _give_up(self, device: bytes) -> None:
        """A newer connection of the device came, and is to be another device: the older one ends all the same."""
        holder = self.map.device(device)
        peer = None if holder is None else self._peer_of.get(holder)
        if holder is not None and peer is not None:
            self._left(peer, device)
            self._say(peer, m.Disconnect(device))
            self.counters.devices_moved += 1

    def _detach(self, peer: WorkerSession, message: m.Detach, number: int | None) -> None:
        self._left(peer, message.device)

    def _left(self, peer: WorkerSession, device: bytes) -> None:
        self.map.leave(device, peer.lease)
        if peer.unread.drop(device):
            self._let_go(device)

    def _let_go(self, device: bytes) -> None:
        """Nobody is there for what is held back for a device: it is stored, or it has expired."""
        held = self._attaching.pop(device, ())
        self._held -= len(held)
        for push in held:
            self._pushes.forget(push.number)
            push.resulted(m.NOT_HERE)

    def _announce(self, peer: WorkerSession, message: m.Announce, number: int | None) -> None:
        devices, runs = message.devices, message.runs
        if sum(several for several, _ in runs) != len(devices):
            raise m.MessageError("ANNOUNCE does not say since when all of its devices are held")
        if len(peer.unread.devices) >= self._options.max_announced:
            raise m.MessageError("ANNOUNCE of more devices than link.max_announced")
        mine: list[bytes] = []
        at = 0
        for several, since in runs:
            for device in devices[at : at + several]:
                holder = self.map.device(device)
                if holder is not None and holder is not peer.lease and self.map.since(device) >= since:
                    # Somebody attached it afresh while this worker was away: the newer one wins.
                    self._say(peer, m.Disconnect(device))
                    continue
                self._take(peer, device, max(since, self.map.since(device)))
                if holder is not peer.lease:
                    if (held := self._attaching.pop(device, None)) is not None:  # for the older one
                        self._attaching[device] = held[:]
                        peer.unread.urge(device)
                elif device in self._attaching:
                    continue  # its inbox is being read
                mine.append(device)
            at += several
        if not peer.lease.alive:
            return
        if not mine:
            return
        peer.unread.announce(mine, self._options.hold_read, self._slow(peer))
        self._read_held(peer)

    def _read_held(self, peer: WorkerSession) -> None:
        """Read the inboxes of some of the devices that were announced: all at once, they might be gigabytes."""
        unread = peer.unread
        if unread.reading or not unread.waiting:
            return
        if peer.stored_bytes > self._options.max_message_bytes // _HOLD_SHARE:
            return
        devices, done = unread.next_part(self._options.hold_read)
        unread.reading = True

        def fetched(status: int, inboxes: dict[bytes, list[Item]]) -> None:
            unread.reading = False
            if status == m.OK:
                for device in devices:
                    if unread.drop(device):  # nobody else has read it meanwhile
                        self._say_unread(peer, device, inboxes.get(device, []))
            if done is not None:
                done()
            if status == m.OK:
                self._read_held(peer)
            elif peer.lease.alive:
                unread.failed(devices)  # at the next tick once more, and nobody waits for it

        self.committer.read_inboxes(devices, fetched)

    def _say_unread(self, peer: WorkerSession, device: bytes, items: list[Item]) -> None:
        """What waits for a device that was announced, and then what was pushed to it while that was read."""
        waited = self._attaching.pop(device, ())
        self._held -= len(waited)
        held = [push for push in waited if push.durable in (PENDING, m.OK)]
        live = {(push.slot, push.version) for push in held}
        current = [item for item in self._current(device, items) if (item.slot, item.version) not in live]
        if current:
            peer.stored_bytes += sum(len(item.body) for item in current if item.body is not None)
            self._say(peer, m.DeliverStored(device, current))
        for push in held:
            self._deliver(peer, device, push)

    def _subscribe(self, peer: WorkerSession, message: m.Subscribe, number: int | None) -> None:
        channel, label = message.channel, message.label
        if label:
            m.label_parts(label)
            self.channels.subscribe(channel, label, peer.lease)
        self.map.subscribe(channel, peer.lease)
        self._reply(peer, number, m.OK)

    def _read_log(self, peer: WorkerSession, message: m.ReadLog, number: int | None) -> None:
        try:
            wanted = position(message.position)
        except PositionError as error:
            raise m.MessageError(str(error)) from error
        answered = self._slow(peer)

        def read(status: int, found: LogSlice | None) -> None:
            if found is not None and sum(len(event.body) for event in found.events) > self._most_log:
                logs.limited("hub.log_too_long", limit=self._most_log, hint="link.max_message_bytes")
                status, found = m.FAILED, None
            self._reply(peer, number, status, found)
            answered()

        self.committer.read_log(message.channel, wanted, read)

    def _unsubscribe(self, peer: WorkerSession, message: m.Unsubscribe, number: int | None) -> None:
        self.map.unsubscribe(message.channel, peer.lease)
        self.channels.unsubscribe(message.channel, peer.lease)

    def _announce_channels(self, peer: WorkerSession, message: m.AnnounceChannels, number: int | None) -> None:
        for held in message.channels:
            if held.label:
                m.label_parts(held.label)
        for held in message.channels:
            self.map.subscribe(held.channel, peer.lease)
            if held.label:
                self.channels.hold(held.channel, held.label, held.subscribers, held.members, peer.lease)

    def _counted(self, peer: WorkerSession, message: m.Counted, number: int | None) -> None:
        self.channels.counted(message.channel, message.subscribers, peer.lease)

    def _counts_sent(self, peer: WorkerSession, message: m.CountsSent, number: int | None) -> None:
        self.recount.sent(message.number, peer.lease)

    def _presence_join(self, peer: WorkerSession, message: m.PresenceJoin, number: int | None) -> None:
        members = self.channels.enter(message.channel, message.user, message.info, message.most, peer.lease)
        self._reply(peer, number, m.FULL if members is None else m.OK, members)

    def _presence_leave(self, peer: WorkerSession, message: m.PresenceLeave, number: int | None) -> None:
        self.channels.exit(message.channel, message.user, peer.lease)

    def _happened(self, peer: WorkerSession, message: m.Happened, number: int | None) -> None:
        if (observer := self.channels.observer(message.label)) is not None:
            observer.happened(message.label, message.what, message.detail)

    def _record(self, peer: WorkerSession, message: m.Record, number: int | None) -> None:
        space, key, value, ttl = message.space, message.key, message.value, message.ttl
        if number is not None and value is not None and self.committer.over:
            self._reply(peer, number, m.FAILED)
            return
        expires = int(self._unix_time()) + ttl if ttl else 0
        self.committer.record(space, key, value, expires)
        if number is not None:
            self._reply_when_durable(peer, number)

    def _set_add(self, peer: WorkerSession, message: m.SetAdd, number: int | None) -> None:
        expires = int(self._unix_time()) + message.ttl if message.ttl else 0
        over = self.committer.over
        change = SetAdd(message.member, message.head, expires, 0 if over else message.most)
        self._change(peer, number, (message.space, message.key), change, m.FAILED if over else m.FULL)

    def _set_remove(self, peer: WorkerSession, message: m.SetRemove, number: int | None) -> None:
        self._change(peer, number, (message.space, message.key), SetRemove(message.member), m.FULL)

    def _change(self, peer: WorkerSession, number: int | None, name: RecordName, change: Change, full: int) -> None:
        """Change a set; `full` is the answer where it has no room."""
        done = self._slow(peer)

        def changed(status: int, became: Changed | None) -> None:
            answer = full if status == m.OK and became is not None and became.outcome == FULL else status
            self._reply(peer, number, answer)
            done()

        self.committer.change(*name, change, changed)

    def _take_record(self, peer: WorkerSession, message: m.Take, number: int) -> None:
        done = self._slow(peer)

        def taken(status: int, became: Changed | None) -> None:
            self._reply(peer, number, status, None if became is None else became.value)
            done()

        self.committer.change(message.space, message.key, Take(message.taker), taken)

    def _drop(self, peer: WorkerSession, message: m.Drop, number: int) -> None:
        self.committer.remove(message.device, message.slot)
        self._reply_when_durable(peer, number, message.device)

    def _reply_when_durable(self, peer: WorkerSession, number: int, device: bytes = b"") -> None:
        self.committer.when_durable(lambda status: self._reply(peer, number, status), device)

    def _fetch(self, peer: WorkerSession, message: m.Fetch, number: int) -> None:
        device, most = message.device, message.most
        answered = self._slow(peer)
        again = _FETCH_AGAIN

        def fetched(status: int, items: list[Item]) -> None:
            nonlocal again
            current = self._current(device, items)
            if len(current) < len(items) == most:
                # The length of a part says whether there is more, so nothing may be taken out of it.
                if again:
                    again -= 1
                    self.committer.read_inbox(device, fetched, most)
                    return
                current = items
            self._reply(peer, number, status, current)
            answered()

        self.committer.read_inbox(device, fetched, most)

    def _current(self, device: bytes, items: list[Item]) -> list[Item]:
        """Without what has been replaced since it was read: the newer item has been said to the device already."""
        return [item for item in items if not self.committer.overtaken(device, item)]

    def _publish(self, peer: WorkerSession, message: m.Publish, number: int | None) -> None:
        known = self.channels.get(message.channel)
        if known is not None and (observer := self.channels.observer(known.label)) is not None:
            observer.published(known.label, message.body, message.exclude)
        if not message.keep:
            self.publish(message.channel, message.body, message.exclude)
            self._reply(peer, number, m.OK, 0)
            return

        def logged(status: int, end: AfterOffset | None) -> None:
            self._reply(peer, number, status, 0 if end is None else end.offset)

        expires = int(self._unix_time()) + message.keep
        self.publish_logged(Append(message.channel, self.sequence(), expires, message.body), logged, message.exclude)

    # ------------------------------------------------------------------ time and state

    def tick(self, heard_until: float | None = None) -> None:
        """To be called a few times a second: late deliveries, leases that have run out, what has been put off.

        heard_until: when all that workers had sent had been heard; None: now. A worker is silent if nothing came from
        it up to then: what it says while this process does not get the CPU, or has much else to hear, waits unheard.
        """
        now = self._monotonic()
        if heard_until is None:
            heard_until = now
        self._numbers.tick()
        self._pushes.tick(now)
        for peer in list(self.peers.values()):
            if heard_until - peer.heard > self._options.lease:
                self.lose(peer, "it has been silent for longer than link.lease")
                continue
            if now - peer.heard > _SILENT_BEATS * self._options.heartbeat:
                self.dirty[peer.identity] = peer  # to say anything finds out whether it is there
            if peer.stored_bytes and not peer.outbox:
                peer.stored_bytes = 0
            if peer.unread.waiting:
                self._read_held(peer)
        for tick in (self.broadcasts.tick, self.channels.tick, self.recount.tick):
            try:
                tick()
            except Exception as error:  # one channel's or observer's defect
                logs.limited("hub.tick_failed", at="error", per=repr(error), exc=error)
        self.counters.channels = len(self.channels)
        self.counters.members = self.channels.member_count

    def on_status(self, status: Callable[[], dict[str, Any]]) -> None:
        """What to answer the supervisor with."""
        self._status = status

    def store_state(self, refusing: str) -> None:
        """Tell the workers why the store refuses what is to be kept; "": it does not. Only a change is told."""
        if refusing != self._refusing:
            self._refusing = refusing
            self._tell_all(m.StoreState(refusing))

    def on_full(self, relieve: Callable[[], None]) -> None:
        """What to call to have the messages sent that wait, while there is no end of new ones."""
        self._relieve = relieve

    @property
    def in_work(self) -> int:
        """Pushes that are not answered because a worker has not said what became of them."""
        return len(self._pushes)


_HANDLERS: dict[type, Callable[..., None]] = {
    m.Attach: Hub._attach,
    m.Detach: Hub._detach,
    m.Announce: Hub._announce,
    m.Subscribe: Hub._subscribe,
    m.ReadLog: Hub._read_log,
    m.Unsubscribe: Hub._unsubscribe,
    m.AnnounceChannels: Hub._announce_channels,
    m.Record: Hub._record,
    m.Fetch: Hub._fetch,
    m.Drop: Hub._drop,
    m.Publish: Hub._publish,
    m.SetAdd: Hub._set_add,
    m.SetRemove: Hub._set_remove,
    m.Take: Hub._take_record,
    m.Counted: Hub._counted,
    m.CountsSent: Hub._counts_sent,
    m.PresenceJoin: Hub._presence_join,
    m.PresenceLeave: Hub._presence_leave,
    m.Happened: Hub._happened,
    m.Malformed: Hub._malformed,
}
"""What is done with each type of message: (hub, session, message, number of the call or None)."""


def _nothing() -> None:
    pass
