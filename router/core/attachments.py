"""Which session holds a device, what is delivered to it, and how it gets what waits for it. Pure.

While a device attaches, deliveries to it are held back until the reply has gone, which carries what waited for it: so
nothing is sent before the hello is answered, nothing falls between store and socket, nothing goes twice. The same holds
for a device that a worker has announced, until its inbox has been read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.common import messages as m
from router.common.item import Item
from router.common.settings import LinkOptions
from router.core.address_map import AddressMap, Lease
from router.core.committer import GroupCommitter
from router.core.pushes import PENDING, Push, Pushes
from router.core.sessions import Sessions, WorkerSession

_FETCH_AGAIN: Final = 3
"""Times that a part of an inbox is read again because it was overtaken."""
_UNSENT_SHARE: Final = 16
"""Inboxes of announced devices wait while this part of the largest envelope has not been sent."""


class Attachments:
    """The devices of all sessions."""

    def __init__(
        self,
        committer: GroupCommitter,
        options: LinkOptions,
        addresses: AddressMap,
        sessions: Sessions,
        pushes: Pushes,
    ) -> None:
        self._committer = committer
        self._options = options
        self._map = addresses
        self._sessions = sessions
        self._pushes = pushes
        self._counters = pushes.counters
        self._attaching: dict[bytes, list[Push]] = {}  # what is held back
        self.held = 0
        """Pushes in all of those."""

    # ------------------------------------------------------------------ pushes

    def deliver(self, lease: Lease, device: bytes, push: Push) -> None:
        """Have the session of this lease deliver a push, at once or when the device has got what is older."""
        held = self._attaching.get(device)
        if held is None:
            session = self._sessions.of(lease)
            assert session is not None
            if device not in session.unread.devices:
                self._offer(session, device, push)
                return
            self._attaching[device] = held = []
            session.unread.urge(device)
            self._read_unread(session)
        if push.durable == PENDING or self.held < self._options.max_held:  # the store bounds what is to be kept
            held.append(push)
            self.held += 1

    def _offer(self, session: WorkerSession, device: bytes, push: Push) -> None:
        push.lease = session.lease
        if not session.offer(m.Deliver(push.number, device, push.slot, push.version, push.body)):
            self._pushes.forget(push.number)
            push.resulted(m.NOT_HERE)

    def _let_go(self, device: bytes) -> None:
        """No worker takes what is held back for a device: it is stored, or it has expired."""
        held = self._attaching.pop(device, ())
        self.held -= len(held)
        for push in held:
            self._pushes.forget(push.number)
            push.resulted(m.NOT_HERE)

    # ------------------------------------------------------------------ a device comes

    def attach(self, session: WorkerSession, message: m.Attach, number: int) -> None:
        """ATTACH has come."""
        if not message.needs:
            self._attach(session, message, number, None, None)
            return
        replied = session.hold()

        def looked_up(status: int, value: bytes | None) -> None:
            if status == m.OK and (value is not None or self._committer.forgets):
                self._attach(session, message, number, value, replied)
                return
            if status == m.OK:
                self._give_up(message.device)
            session.reply(number, m.FAILED if status != m.OK else m.UNKNOWN)
            replied()

        self._committer.read_record(message.needs, message.device, looked_up)

    def _attach(
        self,
        session: WorkerSession,
        message: m.Attach,
        number: int,
        record: bytes | None,
        replied: Callable[[], None] | None,
    ) -> None:
        if not session.lease.alive:
            return
        device, fetch = message.device, message.fetch
        holder = self._holder(device)
        unread_elsewhere = holder is not None and holder is not session and device in holder.unread.devices
        taken = self._take(session, device, message.since)
        if not taken or not fetch:
            if taken:
                session.reply(number, m.OK, m.Attached([], record))
                if unread_elsewhere:  # it will not be read now
                    self._let_go(device)
            else:
                session.reply(number, m.MOVED)
            if replied is not None:
                replied()
            return
        # What an older attachment of this device held back goes with the newest one.
        session.unread.drop(device)
        held = self._attaching.pop(device, [])[:]
        self._attaching[device] = held

        def fetched(status: int, items: list[Item]) -> None:
            if replied is not None:
                replied()  # this and the reply leave together
            if self._attaching.get(device) is not held:
                session.reply(number, m.MOVED)
                return
            del self._attaching[device]
            self.held -= len(held)
            kept = [push for push in held if push.durable in (PENDING, m.OK)]
            here = session.lease.alive and self._map.device(device) is session.lease
            in_reply: set[tuple[str, int]] = set()
            if fetch >= m.EVERYTHING:
                live = {(push.slot, push.version) for push in kept}
                items = [item for item in items if (item.slot, item.version) not in live]
            else:
                # The length of a part says whether there is more, so nothing may be taken out of it.
                in_reply = {(item.slot, item.version) for item in items}
            if here:
                session.reply(number, status, m.Attached(items, record))
            else:
                session.reply(number, m.MOVED)
            for push in kept:
                if here and (push.slot, push.version) not in in_reply:
                    self._offer(session, device, push)
                else:
                    self._pushes.forget(push.number)
                    push.resulted(m.NOT_HERE)

        self._committer.read_inbox(device, fetched, fetch)

    def _holder(self, device: bytes) -> WorkerSession | None:
        lease = self._map.device(device)
        return None if lease is None else self._sessions.of(lease)

    def _take(self, session: WorkerSession, device: bytes, since: int) -> bool:
        """The device is this session's now, since then, and its holder gets DISCONNECT; unless that is younger."""
        if self._map.device(device) is not None and self._map.since(device) > since:
            return False
        before = self._map.attach(device, session.lease, since)
        if before is not None and (other := self._sessions.of(before)) is not None:
            other.unread.drop(device)
            other.send(m.Disconnect(device))
            self._counters.devices_moved += 1
        return True

    # ------------------------------------------------------------------ a device goes

    def detach(self, session: WorkerSession, message: m.Detach, number: int | None) -> None:
        """DETACH has come."""
        self._left(session, message.device)

    def _give_up(self, device: bytes) -> None:
        """A newer connection of the device came, and is to be another device: the older one ends all the same."""
        holder = self._holder(device)
        if holder is not None:
            self._left(holder, device)
            holder.send(m.Disconnect(device))
            self._counters.devices_moved += 1

    def let_go(self, device: bytes, reason: str) -> WorkerSession | None:
        """Have the worker that holds a device close its connection, for this reason. Returns: its session; None: no
        worker holds it."""
        holder = self._holder(device)
        if holder is None:
            return None
        if holder.wire.version >= m.INSPECTED:  # it sends DETACH behind what the device had sent
            holder.send(m.LetGo(device, reason))
        else:
            self._left(holder, device)
            holder.send(m.Disconnect(device))
        return holder

    def _left(self, session: WorkerSession, device: bytes) -> None:
        self._map.leave(device, session.lease)
        if session.unread.drop(device):
            self._let_go(device)

    def lost(self, session: WorkerSession) -> None:
        """The session has ended."""
        for device in session.unread.clear():
            self._let_go(device)

    # ------------------------------------------------------------------ devices that are announced

    def announce(self, session: WorkerSession, message: m.Announce, number: int | None) -> None:
        """ANNOUNCE has come."""
        devices, runs = message.devices, message.runs
        if sum(several for several, _ in runs) != len(devices):
            raise m.MessageError("ANNOUNCE does not say since when all of its devices are held")
        if len(session.unread.devices) >= self._options.max_announced:
            raise m.MessageError("ANNOUNCE of more devices than link.max_announced")
        mine: list[bytes] = []
        at = 0
        for several, since in runs:
            for device in devices[at : at + several]:
                holder = self._map.device(device)
                if holder is not None and holder is not session.lease and self._map.since(device) >= since:
                    # The device attached elsewhere while this worker was away: the newer connection wins.
                    session.send(m.Disconnect(device))
                    continue
                self._take(session, device, max(since, self._map.since(device)))
                if holder is not session.lease:
                    if (held := self._attaching.pop(device, None)) is not None:  # for the older one
                        self._attaching[device] = held[:]
                        session.unread.urge(device)
                elif device in self._attaching:
                    continue  # its inbox is being read
                mine.append(device)
            at += several
        if mine:
            session.unread.announce(mine, self._options.announced_read, session.hold())
            self._read_unread(session)

    def tick(self, session: WorkerSession) -> None:
        """To be called a few times a second: inboxes that have waited are read."""
        if session.stored_bytes and not session.outbox:
            session.stored_bytes = 0
        if session.unread.waiting:
            self._read_unread(session)

    def _read_unread(self, session: WorkerSession) -> None:
        """Read the inboxes of some of the devices that were announced: all at once, they might be gigabytes."""
        unread = session.unread
        if unread.reading or not unread.waiting:
            return
        if session.stored_bytes > self._options.max_message_bytes // _UNSENT_SHARE:
            return
        devices, done = unread.next_part(self._options.announced_read)
        unread.reading = True

        def fetched(status: int, inboxes: dict[bytes, list[Item]]) -> None:
            unread.reading = False
            if status == m.OK:
                for device in devices:
                    if unread.drop(device):  # it has not been read otherwise meanwhile
                        self._send_unread(session, device, inboxes.get(device, []))
            if done is not None:
                done()
            if status == m.OK:
                self._read_unread(session)
            elif session.lease.alive:
                unread.failed(devices)  # read again at the next tick; no call waits for it

        self._committer.read_inboxes(devices, fetched)

    def _send_unread(self, session: WorkerSession, device: bytes, items: list[Item]) -> None:
        """What waits for a device that was announced, and then what was pushed to it while that was read."""
        waited = self._attaching.pop(device, ())
        self.held -= len(waited)
        held = [push for push in waited if push.durable in (PENDING, m.OK)]
        live = {(push.slot, push.version) for push in held}
        current = [item for item in self._current(device, items) if (item.slot, item.version) not in live]
        if current:
            session.stored_bytes += sum(len(item.body) for item in current if item.body is not None)
            session.send(m.DeliverStored(device, current))
        for push in held:
            self._offer(session, device, push)

    # ------------------------------------------------------------------ more of an inbox

    def fetch(self, session: WorkerSession, message: m.Fetch, number: int) -> None:
        """FETCH has come."""
        device, most = message.device, message.most
        replied = session.hold()
        again = _FETCH_AGAIN

        def fetched(status: int, items: list[Item]) -> None:
            nonlocal again
            current = self._current(device, items)
            if len(current) < len(items) == most:
                # The length of a part says whether there is more, so nothing may be taken out of it.
                if again:
                    again -= 1
                    self._committer.read_inbox(device, fetched, most)
                    return
                current = items
            session.reply(number, status, current)
            replied()

        self._committer.read_inbox(device, fetched, most)

    def _current(self, device: bytes, items: list[Item]) -> list[Item]:
        """Without what has been replaced since it was read: the newer item has been sent to the device already."""
        return [item for item in items if not self._committer.overtaken(device, item)]

    def drop(self, session: WorkerSession, message: m.Drop, number: int) -> None:
        """DROP has come."""
        self._committer.remove(message.device, message.slot)
        self._committer.when_durable(lambda status: session.reply(number, status), message.device)
