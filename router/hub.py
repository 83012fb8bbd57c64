"""The hub: the router's pure core. Words and pushes in; words, answers and outcomes out. No I/O, no clock of its own.

It rests on three rules:

1. A push is answered once two things are known: whether it is durable (the journal's callback) and whether a worker
   wrote it to the device's socket (RESULT, or no worker holds the device, or the worker did not say in time).
2. While a device attaches, deliveries to it are held back until the ANSWER has gone, which carries what waited for
   it. So nothing is sent before the hello is answered, nothing falls between store and socket, nothing goes twice.
3. What cannot be said to a worker (its queue is full, its lease has run out) is not lost, it is only not said: the
   item is in the store, and when the worker announces its devices again, their inboxes are read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from router import logs
from router import vocabulary as v
from router.addressmap import AddressMap, Lease
from router.journal import Journal
from router.metrics import RouterCounters
from router.settings import LinkOptions
from router.store.base import Item, LogSlice

DELIVERED = 0
"""Outcome of a push: durable, and the frame is with the device's socket."""
STORED = 1
"""Outcome of a push: durable; it waits for the device."""
REFUSED_FULL = 2
"""Outcome of a push: the device's inbox has no room."""
REFUSED_FAILED = 3
"""Outcome of a push: the store could not keep it, or too much waits for it."""

PushDone = Callable[[int], None]

_PENDING = -1


class _Push:
    """A push in work: what is still unknown of it."""

    __slots__ = ("body", "done", "durable", "hub", "number", "result", "slot", "version")

    def __init__(self, hub: Hub, number: int, item: Item, body: str | None, done: PushDone) -> None:
        self.hub = hub
        self.number = number
        self.slot = item.slot
        self.version = item.version
        self.body = body
        self.done = done
        self.durable = _PENDING
        self.result = _PENDING

    def committed(self, status: int) -> None:
        self.durable = status
        if self.result != _PENDING:
            self._finish()
        elif status != v.OK:
            # It may have reached the device, but it is not kept: the app server must hear that it has to try again.
            self.hub.forget_push(self.number)
            self.result = v.NOT_HERE
            self._finish()

    def resulted(self, outcome: int) -> None:
        if self.result != _PENDING:
            return  # it was given up before: refused, or answered as stored
        self.result = outcome
        if self.durable != _PENDING:
            self._finish()

    def _finish(self) -> None:
        counters = self.hub.counters
        if self.durable == v.OK:
            if self.result == v.WRITTEN:
                counters.pushes_delivered += 1
                self.done(DELIVERED)
            else:
                counters.pushes_stored += 1
                self.done(STORED)
        else:
            counters.pushes_refused += 1
            self.done(REFUSED_FULL if self.durable == v.FULL else REFUSED_FAILED)


class Peer:
    """A worker that has joined: its lease, what is to be said to it, and how far its batches have come."""

    __slots__ = ("confirmed", "heard", "identity", "lease", "open", "pid", "seen", "snapshot", "words")

    def __init__(self, identity: bytes, lease: Lease, pid: int, now: float) -> None:
        self.identity = identity
        self.lease = lease
        self.pid = pid
        self.heard = now
        self.words: list[Any] = []
        self.seen = 0
        self.confirmed = 0
        self.open: deque[list[int]] = deque()  # [sequence, whether it is done] of batches after `confirmed`, in order
        self.snapshot: dict[str, Any] = {}


class Hub:
    """Map, attachments, pushes in work and the peers' outboxes.

    The shell feeds `heard` and `tick` and sends what `dirty` and `direct` hold. `monotonic` and `unix_time` are
    clocks in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        options: LinkOptions,
        delivery_timeout: float,
        incarnation: bytes,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self.journal = journal
        self.map = AddressMap()
        self.counters = RouterCounters()
        self.incarnation = incarnation
        self.peers: dict[bytes, Peer] = {}
        self.dirty: dict[bytes, Peer] = {}  # peers with something to send
        self.direct: deque[tuple[bytes, list[Any]]] = deque(maxlen=1024)  # messages to those who are no peers
        self._options = options
        self._delivery_timeout = delivery_timeout
        self._monotonic = monotonic
        self._unix_time = unix_time
        self._peer_of: dict[Lease, Peer] = {}
        self._pushes: dict[int, _Push] = {}
        self._deadlines: deque[tuple[float, int]] = deque()
        self._number = 0
        self._sequence = 0
        self._attaching: dict[bytes, list[_Push]] = {}
        self._status: Callable[[], dict[str, Any]] = dict

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
    ) -> None:
        """Keep a message in the device's inbox and say it to the device; `done` is called once with the outcome.

        ttl: seconds until it is not worth delivering. keep_body: whether the store keeps the body too, or only the
        live delivery carries it.
        """
        self.counters.pushes += 1
        if self.journal.full:
            self.counters.pushes_refused += 1
            done(REFUSED_FAILED)
            return
        self._number = number = self._number + 1
        now = self._unix_time()
        # Microseconds, so that the order of arrival outlives a restart without being stored anywhere else.
        self._sequence = sequence = max(self._sequence + 1, int(now * 1e6))
        item = Item(slot, version, sequence, int(now) + ttl, urgency, body if keep_body else None)
        push = _Push(self, number, item, body, done)
        self.journal.put(device, item, push.committed)
        lease = self.map.device(device)
        if lease is None:
            push.result = v.NOT_HERE
            return
        self._pushes[number] = push
        self._deadlines.append((self._monotonic() + self._delivery_timeout, number))
        held = self._attaching.get(device)
        if held is not None:
            held.append(push)
        else:
            self._deliver(self._peer_of[lease], device, push)

    def _deliver(self, peer: Peer, device: bytes, push: _Push) -> None:
        if len(peer.words) >= self._options.queue_limit:
            self.lose(peer, "its queue is full")
            self.forget_push(push.number)
            push.resulted(v.NOT_HERE)
            return
        peer.words.append((v.DELIVER, push.number, device, push.slot, push.version, push.body))
        self.dirty[peer.identity] = peer

    def forget_push(self, number: int) -> None:
        """No RESULT of this push is waited for any more."""
        self._pushes.pop(number, None)

    def publish(self, channel: bytes, body: str, keep: int, done: Callable[[int, int], None] | None = None) -> None:
        """Say an event to every subscriber of a channel; with `keep` > 0 (seconds) only once its log holds it."""
        if keep <= 0:
            self._fan_out(channel, 0, body)
            if done is not None:
                done(v.OK, 0)
            return

        def logged(status: int, offset: int) -> None:
            if status == v.OK:
                self._fan_out(channel, offset, body)
            if done is not None:
                done(status, offset)

        self.journal.event(channel, int(self._unix_time()) + keep, body, logged)

    def _fan_out(self, channel: bytes, offset: int, body: str) -> None:
        for lease in self.map.channel(channel):
            peer = self._peer_of[lease]
            if len(peer.words) >= self._options.queue_limit:
                self.lose(peer, "its queue is full")
                continue
            self._say(peer, (v.EVENT, channel, offset, body))

    # ------------------------------------------------------------------ workers

    def heard(self, identity: bytes, message: list[Any]) -> None:
        """One message of a worker or of the supervisor.

        Raises: VocabularyError if it is none of ours; nothing of it has been acted on beyond the faulty word.
        """
        kind = message[0]
        if kind == v.ASK_STATUS:
            self.direct.append((identity, [v.STATUS, message[1], self._status()]))
            return
        if kind == v.JOIN:
            self._join(identity, message)
            return
        peer = self.peers.get(identity)
        if peer is None:
            self.direct.append((identity, [v.REJOIN]))
            return
        peer.heard = self._monotonic()
        if kind == v.BATCH:
            self._batch(peer, message)
        elif kind == v.BEAT:
            peer.snapshot = message[1]
            self.dirty[identity] = peer  # the answer to a beat is our beat
        else:
            raise v.VocabularyError(f"unknown message {kind!r}")

    def _join(self, identity: bytes, message: list[Any]) -> None:
        _, protocol, shard, incarnation, pid = message
        if protocol != v.PROTOCOL:
            raise v.VocabularyError(f"worker {shard} speaks version {protocol!r}, this router {v.PROTOCOL}")
        if (before := self.peers.get(identity)) is not None:
            self._forget_peer(before)
        lease = Lease(shard, incarnation)
        peer = Peer(identity, lease, pid, self._monotonic())
        self.peers[identity] = peer
        self._peer_of[lease] = peer
        self.direct.append((identity, [v.WELCOME, self.incarnation]))
        logs.event("worker.joined", shard=shard, pid=pid)

    def lose(self, peer: Peer, why: str) -> None:
        """The peer's lease ends: its devices are nobody's until it joins again."""
        if self.peers.get(peer.identity) is not peer:
            return
        self._forget_peer(peer)
        self.counters.leases_lost += 1
        logs.warning("worker.lost", shard=peer.lease.shard, pid=peer.pid, why=why)

    def _forget_peer(self, peer: Peer) -> None:
        peer.lease.alive = False
        peer.words.clear()
        del self.peers[peer.identity]
        del self._peer_of[peer.lease]
        self.dirty.pop(peer.identity, None)

    def _batch(self, peer: Peer, message: list[Any]) -> None:
        _, sequence, words = message
        if sequence <= peer.seen:
            return
        peer.seen = sequence
        looks_up = False
        for word in words:
            kind = word[0]
            if kind == v.RESULT:
                push = self._pushes.pop(word[1], None)
                if push is not None:
                    push.resulted(word[2])
            elif kind == v.ACK:
                device = word[1]
                remove = self.journal.remove
                for slot, version in word[2]:
                    remove(device, slot, version)
                self.counters.acks += len(word[2])
            else:
                handler = _HANDLERS.get(kind)
                if handler is None:
                    raise v.VocabularyError(f"unknown word {kind!r}")
                handler(self, peer, word)
                looks_up = looks_up or (kind == v.ATTACH and bool(word[3]))
        entry = [sequence, False]
        peer.open.append(entry)

        def confirm(status: int) -> None:
            # A batch that the store failed is confirmed too: its asks were answered with FAILED, its acks mean that
            # some messages will be sent again, and to repeat it for ever would help nobody.
            entry[1] = True
            while peer.open and peer.open[0][1]:
                peer.confirmed = peer.open.popleft()[0]
            if self.peers.get(peer.identity) is peer:
                self.dirty[peer.identity] = peer

        if looks_up:
            # An ATTACH that found its record reads the inbox next. Confirmed before that is answered, it would not be
            # repeated to the next router if this one died in between, and the device would wait for ever.
            self.journal.when_durable(lambda status: self.journal.when_durable(confirm))
        else:
            self.journal.when_durable(confirm)

    def _say(self, peer: Peer, word: Sequence[Any]) -> None:
        if peer.lease.alive:
            peer.words.append(word)
            self.dirty[peer.identity] = peer

    def _attach(self, peer: Peer, word: list[Any]) -> None:
        _, ask, device, needs, fetch = word
        if needs:

            def looked_up(status: int, value: bytes | None) -> None:
                if status != v.OK:
                    self._say(peer, (v.ANSWER, ask, v.FAILED, None))
                elif value is None:
                    self._say(peer, (v.ANSWER, ask, v.UNKNOWN, None))
                else:
                    self._attach_known(peer, ask, device, fetch, value)

            self.journal.read_record(needs, device, looked_up)
        else:
            self._attach_known(peer, ask, device, fetch, None)

    def _attach_known(self, peer: Peer, ask: int, device: bytes, fetch: bool, record: bytes | None) -> None:
        if not peer.lease.alive:
            return
        self._take(peer, device)
        if not fetch:
            self._say(peer, (v.ANSWER, ask, v.OK, ((), record)))
            return
        # What an older attachment of this device held back goes with the newest one.
        held = self._attaching.pop(device, [])[:]
        self._attaching[device] = held

        def fetched(status: int, items: list[Item]) -> None:
            if self._attaching.get(device) is not held:
                self._say(peer, (v.ANSWER, ask, v.MOVED, None))
                return
            del self._attaching[device]
            kept = [push for push in held if push.durable in (_PENDING, v.OK)]
            here = peer.lease.alive and self.map.device(device) is peer.lease
            live = {(push.slot, push.version) for push in kept}
            waiting = [item for item in items if (item.slot, item.version) not in live]
            self._say(peer, (v.ANSWER, ask, status, (waiting, record)) if here else (v.ANSWER, ask, v.MOVED, None))
            for push in kept:
                if here:
                    self._deliver(peer, device, push)
                else:
                    self.forget_push(push.number)
                    push.resulted(v.NOT_HERE)

        self.journal.read_inbox(device, fetched)

    def _take(self, peer: Peer, device: bytes) -> None:
        """The device is this peer's now; whoever held it is told."""
        before = self.map.attach(device, peer.lease)
        if before is not None:
            self._say(self._peer_of[before], (v.SHED, device))
            self.counters.devices_moved += 1

    def _leave(self, peer: Peer, word: list[Any]) -> None:
        self.map.leave(word[1], peer.lease)

    def _hold(self, peer: Peer, word: list[Any]) -> None:
        mine = []
        for device in word[1]:
            holder = self.map.device(device)
            if holder is not None and holder is not peer.lease:
                # Somebody attached it afresh while this worker was away: the newer one wins.
                self._say(peer, (v.SHED, device))
                continue
            self.map.attach(device, peer.lease)
            mine.append(device)

        def fetched(status: int, inboxes: dict[bytes, list[Item]]) -> None:
            for device, items in inboxes.items():
                if current := self._current(device, items):
                    self._say(peer, (v.DELIVER_STORED, device, current))

        self.journal.read_inboxes(mine, fetched)

    def _subscribe(self, peer: Peer, word: list[Any]) -> None:
        _, ask, channel, since = word
        self.map.subscribe(channel, peer.lease)
        if since < 0:
            self._say(peer, (v.ANSWER, ask, v.OK, None))
            return

        def read(status: int, part: LogSlice | None) -> None:
            self._say(peer, (v.ANSWER, ask, status, part))

        self.journal.read_log(channel, since, read)

    def _unsubscribe(self, peer: Peer, word: list[Any]) -> None:
        self.map.unsubscribe(word[1], peer.lease)

    def _hold_channels(self, peer: Peer, word: list[Any]) -> None:
        for channel in word[1]:
            self.map.subscribe(channel, peer.lease)

    def _record(self, peer: Peer, word: list[Any]) -> None:
        _, ask, space, key, value, ttl = word
        self.journal.record(space, key, value, int(self._unix_time()) + ttl if ttl else 0)
        if ask:
            self._answer_when_durable(peer, ask)

    def _drop(self, peer: Peer, word: list[Any]) -> None:
        _, ask, device, slot = word
        self.journal.remove(device, slot)
        self._answer_when_durable(peer, ask)

    def _answer_when_durable(self, peer: Peer, ask: int) -> None:
        self.journal.when_durable(lambda status: self._say(peer, (v.ANSWER, ask, status, None)))

    def _fetch(self, peer: Peer, word: list[Any]) -> None:
        _, ask, device = word

        def fetched(status: int, items: list[Item]) -> None:
            self._say(peer, (v.ANSWER, ask, status, self._current(device, items)))

        self.journal.read_inbox(device, fetched)

    def _current(self, device: bytes, items: list[Item]) -> list[Item]:
        """Without what has been replaced since it was read: the newer item has been said to the device already."""
        return [item for item in items if not self.journal.overtaken(device, item)]

    def _publish(self, peer: Peer, word: list[Any]) -> None:
        _, ask, channel, body, keep = word
        self.publish(channel, body, keep, (lambda s, o: self._say(peer, (v.ANSWER, ask, s, o))) if ask else None)

    # ------------------------------------------------------------------ time and state

    def tick(self) -> None:
        """To be called a few times a second: late deliveries and leases that have run out."""
        now = self._monotonic()
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            push = self._pushes.pop(deadlines.popleft()[1], None)
            if push is not None:
                self.counters.deliveries_late += 1
                push.resulted(v.NOT_HERE)
        for peer in list(self.peers.values()):
            if now - peer.heard > self._options.lease:
                self.lose(peer, "it has been silent for longer than link.lease")

    def on_status(self, status: Callable[[], dict[str, Any]]) -> None:
        """What to answer the supervisor with."""
        self._status = status

    @property
    def in_work(self) -> int:
        """Pushes that are not answered because a worker has not said what became of them."""
        return len(self._pushes)


_HANDLERS: dict[int, Callable[[Hub, Peer, list[Any]], None]] = {
    v.ATTACH: Hub._attach,
    v.LEAVE: Hub._leave,
    v.HOLD: Hub._hold,
    v.SUBSCRIBE: Hub._subscribe,
    v.UNSUBSCRIBE: Hub._unsubscribe,
    v.HOLD_CHANNELS: Hub._hold_channels,
    v.RECORD: Hub._record,
    v.FETCH: Hub._fetch,
    v.DROP: Hub._drop,
    v.PUBLISH: Hub._publish,
}
