"""What users of the admin port may see and have done of a device, at the router that owns it. Pure.

All of it goes through what pushes and devices go through: reads ride on a commit and see every write before them;
removals are those of an acknowledgement; a connection is closed by its worker, after what was sent to it before. So
none of it can be in the way of a message, nor bring an older state back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import nsmallest
from typing import Final

import msgspec

from router.common import messages as m
from router.common.item import Item
from router.common.numbers import SECOND
from router.common.operation import Operation
from router.core.address_map import AddressMap
from router.core.attachments import Attachments
from router.core.committer import GroupCommitter
from router.core.inspections import Inspections
from router.core.operations import Done, Operations
from router.core.sessions import Sessions, WorkerSession

NAME: Final = "farm.devices"
"""As the dialect of these operations."""
MAX_CONTENT: Final = 16_384
"""Characters of one message that are shown."""
MAX_CONTENTS: Final = 4_194_304
"""The same of all messages of a page: those behind are shown without."""


class Held(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Which worker holds a device."""

    shard: int
    host: str
    since: float | None
    """Seconds ago; None: longer than routers remember."""


class Looked(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A device."""

    record: bytes | None
    items: int
    size: int
    """Bytes of the bodies of those items."""
    held: Held | None
    connection: m.Inspection | None
    """None: it is not connected, or its worker has not answered, or is too old to be asked."""


class InboxItem(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A message that waits."""

    slot: str
    version: int
    size: int
    """Bytes of its body."""
    age: float
    """Seconds since it came."""
    ttl: int
    """Seconds until it expires."""
    urgency: int
    body: str | None
    """None: it has none, or it is not to be shown."""


class Look(Operation, tag=1):
    """A device, whose record is in this space; with its connection, if it is to be asked for."""

    REPLY = Looked
    SETTLED = True

    space: str
    connection: bool


class ReadInbox(Operation, tag=2):
    """The messages that wait, in order of slot, behind this one, at most so many; perhaps with their bodies."""

    REPLY = list[InboxItem]

    after: str
    limit: int
    contents: bool


class EmptyInbox(Operation, tag=3):
    """Remove what waits now. The reply is how many those were."""

    REPLY = int


class CloseDevice(Operation, tag=4):
    """Close its connection; it may come back at once. The reply is whether there was one."""

    REPLY = bool
    SETTLED = True

    reason: str


class ForgetDevice(Operation, tag=5):
    """Remove its record, which is in this space, and what waits, and close its connection: it is a new device then."""

    REPLY = bool
    SETTLED = True

    space: str
    reason: str


class Where(Operation, tag=6):
    """Which worker holds it; looks into no store. The reply is empty if none does."""

    REPLY = list[Held]
    SETTLED = True


class DeviceOperations:
    """Performs them. clock: seconds as workers say since when they hold a device."""

    def __init__(
        self,
        committer: GroupCommitter,
        addresses: AddressMap,
        sessions: Sessions,
        attachments: Attachments,
        inspections: Inspections,
        unix_time: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._addresses = addresses
        self._sessions = sessions
        self._attachments = attachments
        self._inspections = inspections
        self._unix_time = unix_time
        self._clock = clock

    def register(self, operations: Operations) -> None:
        """Have them performed at the owner of each device."""
        operations.register(
            NAME,
            {
                Look: self._look,
                ReadInbox: self._read,
                EmptyInbox: self._empty,
                CloseDevice: self._close,
                ForgetDevice: self._forget,
                Where: self._where,
            },
        )

    # ------------------------------------------------------------------ see

    def _holder(self, device: bytes) -> WorkerSession | None:
        lease = self._addresses.device(device)
        return None if lease is None else self._sessions.of(lease)

    def _held(self, device: bytes) -> Held | None:
        session = self._holder(device)
        if session is None:
            return None
        since = self._addresses.since(device)
        age = round(max(0.0, self._clock() - since / 1000), 3) if since else None
        return Held(session.lease.shard, session.host, age)

    def _where(self, device: bytes, asked: Where, done: Done) -> None:
        held = self._held(device)
        done(m.OK, [] if held is None else [held])

    def _look(self, device: bytes, asked: Look, done: Done) -> None:
        looked = Looked(None, 0, 0, None, None)

        def inspected(found: list[tuple[WorkerSession, m.Inspection]], complete: bool) -> None:
            looked.connection = found[0][1] if found else None
            done(m.OK, looked)

        def read(status: int, items: list[Item]) -> None:
            if status != m.OK:
                done(status)
                return
            looked.items, looked.size = len(items), sum(map(_size, items))
            looked.held = self._held(device)
            session = self._holder(device)
            if session is None or not asked.connection:
                done(m.OK, looked)
            else:
                self._inspections.device(session, device, inspected)

        def recorded(status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(status)
                return
            looked.record = record
            self._committer.read_inbox(device, read)

        self._committer.read_record(asked.space, device, recorded)

    def _read(self, device: bytes, asked: ReadInbox, done: Done) -> None:
        def read(status: int, items: list[Item]) -> None:
            if status != m.OK:
                done(status)
                return
            behind = (item for item in items if not asked.after or item.slot > asked.after)
            now, room = self._unix_time(), MAX_CONTENTS if asked.contents else 0
            page = []
            for item in nsmallest(asked.limit, behind):
                body = (item.body or "")[:MAX_CONTENT] if room > 0 else None
                room -= len(body or "")
                age = round(max(0.0, now - item.seq / SECOND), 1)
                ttl = max(0, item.expires - int(now))
                page.append(InboxItem(item.slot, item.version, _size(item), age, ttl, item.urgency, body))
            done(m.OK, page)

        self._committer.read_inbox(device, read)

    # ------------------------------------------------------------------ act

    def _empty(self, device: bytes, asked: EmptyInbox, done: Done) -> None:
        def read(status: int, items: list[Item]) -> None:
            if status != m.OK:
                done(status)
                return
            for item in items:
                self._committer.remove(device, item.slot, item.version)
            self._committer.when_durable(partial(_emptied, done, len(items)), device)

        self._committer.read_inbox(device, read)

    def _close(self, device: bytes, asked: CloseDevice, done: Done) -> None:
        def close(status: int) -> None:
            session = self._attachments.let_go(device, asked.reason)
            if session is None:
                done(m.OK, False)
            else:
                # Answered when its worker has let it go, so that whoever asks next is not told that it is there.
                self._inspections.device(session, device, lambda found, complete: done(m.OK, True))

        self._committer.when_durable(close, device)  # one that is just attaching gets its reply first

    def _forget(self, device: bytes, asked: ForgetDevice, done: Done) -> None:
        # First its connection is closed, and what it had sent until then is handled: it could write its record anew.

        def closed(status: int, connected: bool | None = None) -> None:
            self._committer.read_record(asked.space, device, partial(recorded, bool(connected)))

        def recorded(connected: bool, status: int, record: bytes | None) -> None:
            if status != m.OK:
                done(status)
                return
            known = connected or record is not None
            self._committer.record(asked.space, device, None, 0)
            self._empty(device, EmptyInbox(), partial(emptied, known))
            self._attachments.let_go(device, asked.reason)  # it has come back in the meantime: it is known no more

        def emptied(known: bool, status: int, items: int | None = None) -> None:
            done(status, known or bool(items))

        self._close(device, CloseDevice(asked.reason), closed)


def _size(item: Item) -> int:
    return 0 if item.body is None else len(item.body.encode("utf-8", "surrogatepass"))


def _emptied(done: Done, items: int, status: int) -> None:
    done(status, items)
