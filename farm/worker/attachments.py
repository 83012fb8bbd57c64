"""The table of who is attached, and the questions to the router that are open: what a worker knows, without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from farm.dialects import Attach, Call, DeviceSession
from farm.worker.ages import Ages
from farm.worker.connection import OPEN, Connection
from router.common import messages as m

_EVENTS: Final = 16
"""So many of the last events are remembered while an answer is on its way."""


class _Reads:
    """Questions for a channel's last event: the one that was put, those it stands for, and those that came later."""

    __slots__ = ("asked", "next", "with_it")

    def __init__(self, asked: int) -> None:
        self.asked = asked
        self.with_it: list[int] = []
        self.next: list[int] = []


class Overheard:
    """Questions that an event of the channel made needless, until the router's answer to them has come."""

    __slots__ = ("calls", "channel", "heard", "renewed")

    def __init__(self, channel: bytes, calls: list[tuple[Connection, Call | Attach]], body: str) -> None:
        self.channel = channel
        self.calls = calls
        # Hashes of the events heard. The record may hold an older one than the last, if the store refused that.
        self.heard: deque[int] = deque((hash(body.encode()),), _EVENTS)
        self.renewed = False  # the link is another one since, so that later events may have been missed


class Attachments:
    """Which connection holds which device, and which questions to the router are open.

    The router hears DETACH for a device only when nobody here holds it or is about to: a DETACH on its way would
    otherwise take the attachment of a newer connection with it.
    """

    def __init__(self, tell: Callable[[Any], None], monotonic: Callable[[], float]) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._ages = Ages()
        self.devices = self._ages.devices
        self.held = self._ages.held
        self._attaching: dict[bytes, int] = {}  # device key -> attachments without an answer
        self._calls: dict[int, tuple[Connection, Call | Attach, int]] = {}  # and when it was asked, in ms
        self._reads: dict[bytes, _Reads] = {}  # by channel
        self._overheard: dict[int, Overheard] = {}  # by the number of the question that was put
        self._number = 0

    def number(self) -> int:
        """A number for a question that nobody has had."""
        self._number += 1
        return self._number

    def call(self, connection: Connection, call: Call | Attach) -> None:
        """Make a call to the router; the connection waits for its reply."""
        connection.call = number = self.number()
        if isinstance(call, Attach):
            device, since = call.device, int(self._monotonic() * 1000)
            self._calls[number] = (connection, call, since)
            self._attaching[device] = self._attaching.get(device, 0) + 1
            self._tell(m.Call(number, m.Attach(device, call.needs, call.fetch, since)))
            return
        self._calls[number] = (connection, call, 0)
        if isinstance(call.request, m.Read):
            self._read(number, call.request)
        else:
            self._tell(m.Call(number, call.request))

    def _read(self, number: int, request: m.Read) -> None:
        """Of many that read the same record one asks; what comes while it waits asks with the next."""
        reads = self._reads.get(request.channel)
        if reads is None:
            self._reads[request.channel] = _Reads(number)
            self._tell(m.Call(number, request))
        else:
            reads.next.append(number)

    def readers(self, number: int) -> Sequence[int]:
        """An answer has come. Returns: the questions that it answers."""
        found = self._calls.get(number)
        request = found[1].request if found is not None and isinstance(found[1], Call) else None
        if not isinstance(request, m.Read):
            return (number,)
        reads = self._reads[request.channel]
        if reads.asked != number:
            return (number,)
        numbers = [number, *reads.with_it]
        if reads.next:
            reads.asked, *reads.with_it = reads.next
            reads.next = []
            self._tell(m.Call(reads.asked, request))
        else:
            del self._reads[request.channel]
        return numbers

    def heard_last(self, channel: bytes, body: str) -> Sequence[int]:
        """An event came that is the channel's last. Returns: the questions for it, which need no other answer.

        The answer on its way is this event or an older one: it would come twice, or after what has replaced it. Unless
        the event was sent in a lease that has ended since: what was published then is only in the answer.
        """
        for number, one in list(self._overheard.items()):
            if one.channel == channel:
                one.heard.append(hash(body.encode()))
                if one.renewed:
                    del self._overheard[number]
        reads = self._reads.pop(channel, None)
        if reads is None:
            return ()
        numbers = (reads.asked, *reads.with_it, *reads.next)
        calls = [self._calls[number][:2] for number in numbers if number in self._calls]
        self._overheard[reads.asked] = Overheard(channel, calls, body)
        return numbers

    def renewed(self) -> None:
        """The link is new: its lease began just now."""
        for one in self._overheard.values():
            one.renewed = True

    def overheard(self, number: int) -> Overheard | None:
        """An answer has come. Returns: whom it may concern all the same, though they have been answered."""
        one = self._overheard.pop(number, None)
        return one if one is not None and one.renewed else None

    def replied(self, number: int, status: int) -> tuple[Connection, Call | Attach, Connection | None] | None:
        """An answer has come.

        Returns: who asked, what, and an older connection of the device that has lost it to this one; None if the
        question is not open any more (said twice, because the link was renewed).
        """
        found = self._calls.pop(number, None)
        if found is None:
            return None
        connection, call, since = found
        older = self._attached(connection, call.device, status, since) if isinstance(call, Attach) else None
        return connection, call, older

    def _attached(self, connection: Connection, key: bytes, status: int, since: int) -> Connection | None:
        left = self._attaching[key] - 1
        if left:
            self._attaching[key] = left
        else:
            del self._attaching[key]
        if status != m.OK or connection.phase != OPEN:
            self._leave(key)
            return None
        older = self._ages.put(key, connection, since)
        return older if older is not connection else None

    def shed(self, key: bytes) -> Connection | None:
        """The device has a newer connection elsewhere. Returns: the one that it had here."""
        return self.devices.pop(key, None)

    def forget(self, connection: Connection) -> None:
        """The connection's session has ended: nothing is delivered to it from here on."""
        session = connection.session
        connection.session = None
        if session is None:
            return
        if isinstance(session, DeviceSession) and self.devices.get(session.key) is connection:
            del self.devices[session.key]
            self._leave(session.key)
        session.closed()

    def _leave(self, key: bytes) -> None:
        if key not in self.devices and key not in self._attaching:
            self._tell(m.Detach(key))
