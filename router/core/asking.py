"""What is asked of other routers: a table for each of them of what waits, what was sent and what is answered. Pure.

It rests on three rules:

1. What was not given to the link was certainly not performed. It waits for the owner, in order, until its deadline.
2. What was given to the link may have been performed. It is never sent a second time, unless the owner says that it
   has not performed it (AWAITED, PEER_REJOIN).
3. Each is answered once: by the owner, at its deadline, when the owner says that it has lost it, or when the owner has
   another life than the one that it was sent to. All but the first is UNREACHED.

What was answered at its deadline counts as being with the owner until the owner has answered, so no more than
`link.max_forwarded` of a router are ever with another one, however long that stands still. One that has been silent for
as long as an operation may take is asked nothing more until it is heard: then a request is refused at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final

from router.common import logs
from router.common import messages as m
from router.common.guard import guarded
from router.common.messages import peers as p
from router.common.metrics import RouterCounters
from router.common.peer_wire import PEER_VERSIONS, batch_bytes, encode, of_owner
from router.common.settings import LinkOptions

Answered = Callable[[int, bytes], None]
"""Called once, with the status and the encoded reply."""

_BATCH: Final = 500
"""Operations in one envelope: the owner performs them in one go."""
_FORWARD_BYTES: Final = 128
"""Of an operation in an envelope, beside what is encoded of it: its number, dialect and key."""
_TICK_MOST_S: Final = 0.5
"""What is longer from one tick to the next is time in which this process did not run, and could hear no other."""
_ROOM: Final = 1024
"""Bytes of an envelope beside an operation that it is there for."""


class _Asked:
    """An operation that is not answered."""

    __slots__ = ("answered", "deadline", "dialect", "key", "operation", "origin")

    def __init__(
        self, dialect: str, key: bytes, operation: bytes, answered: Answered, deadline: float, origin: str
    ) -> None:
        self.dialect = dialect
        self.key = key
        self.operation = operation
        self.answered = answered
        self.deadline = deadline
        self.origin = origin


class Owner:
    """Another router, as one that is asked."""

    __slots__ = (
        "_asking",
        "_bytes",
        "_late",
        "_leaving",
        "_life",
        "_number",
        "_part",
        "_probe",
        "_probe_at",
        "_ready",
        "_refused",
        "_returned",
        "_sent",
        "_waiting",
        "number",
        "silent",
        "version",
    )

    def __init__(self, number: int, asking: Asking, now: float) -> None:
        self.number = number
        self._asking = asking
        self.version = 0
        """Of the link's protocol, that it has agreed to last."""
        self._life = b""  # its incarnation, to which `_sent` was sent; b"": not known
        self._ready = False  # whether it has welcomed us and may be asked
        self._leaving = b""  # the incarnation that is about to end
        self.silent = 0.0
        """Seconds in which it was not heard, as far as we could have heard it."""
        self._probe = True  # PEER_READY is to be sent
        self._probe_at = now + asking.options.heartbeat
        self._waiting: deque[_Asked] = deque()
        # The last one sent when the owner did not know us. When a later PEER_READY has been answered, nothing up to it
        # is on its way any more: so what was returned keeps its order.
        self._refused = 0
        self._returned = 0  # of `_waiting`, from the left: was sent before, and is to be sent again
        self._sent: dict[int, _Asked] = {}  # by number, in order
        self._late: dict[int, _Asked] = {}  # answered at their deadline, and perhaps with the owner yet
        self._bytes = 0  # of operations in all three
        self._number = 0  # of the last one sent
        self._part = 0  # of `_waiting`, in the envelope that was taken last

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent) + len(self._late)

    def ask(self, dialect: str, key: bytes, operation: bytes, answered: Answered, origin: str = "") -> None:
        """Have it perform an encoded operation. origin: of the operation, as text."""
        asking = self._asking
        options, now = asking.options, asking.monotonic()
        size = len(operation)
        asking.counters.forwards += 1
        if size + _ROOM > options.max_message_bytes:
            logs.limited("peer.operation_too_long", at="error", limit=options.max_message_bytes, dialect=dialect)
            answered(m.FAILED, b"")
            return
        number = len(self)
        if (
            number >= options.max_forwarded
            or (number and self._bytes + size > options.max_forwarded_bytes)
            or self.silent > asking.timeout
        ):
            asking.counters.forwards_unreached += 1
            answered(m.UNREACHED, b"")
            return
        self._bytes += size
        asking.open += 1
        self._waiting.append(_Asked(dialect, key, operation, answered, now + asking.timeout, origin))
        asking.dirty[self.number] = self

    # ------------------------------------------------------------------ what is sent

    def envelope(self) -> bytes | None:
        """What is to be sent next; None: nothing now. `sent` is to be called when it was."""
        self._part = 0
        asking = self._asking
        if self._probe:
            lowest, highest = PEER_VERSIONS[0], PEER_VERSIONS[-1]
            silent = self._leaving == self._life != b""
            return encode(p.PeerReady(highest, lowest, asking.router, asking.incarnation, self._number, silent))
        if not self._ready or not self._waiting:
            return None
        size, number = 0, self._number
        most = batch_bytes(asking.options)
        operations: list[Any] = []
        for one in self._waiting:
            size += len(one.operation) + _FORWARD_BYTES
            if operations and (size > most or len(operations) >= _BATCH):
                break
            number += 1
            if one.origin and self.version >= p.ORIGINS:
                operations.append(p.Forward(number, one.dialect, one.key, one.operation, one.origin))
            else:
                operations.append(p.PlainForward(number, one.dialect, one.key, one.operation))
            deadline = one.deadline
        self._part = len(operations)
        expires = asking.unix_time() + deadline - asking.monotonic()
        return encode(p.Forwards(self._life, max(0, int(expires * 1000)), operations))

    def sent(self) -> None:
        """The envelope has been given to the link."""
        if not self._part:
            self._probe = False
            return
        waiting, sent = self._waiting, self._sent
        for _ in range(self._part):
            self._number += 1
            sent[self._number] = waiting.popleft()
        self._returned = max(0, self._returned - self._part)

    # ------------------------------------------------------------------ what comes

    def received(self, data: bytes) -> None:
        """One envelope of it.

        Raises: MessageError if it is malformed.
        """
        envelope = of_owner(data)
        self.silent = 0.0
        if type(envelope) is p.Outcomes:
            self._outcomes(envelope.outcomes)
        elif type(envelope) is p.PeerWelcome:
            self.version = envelope.version
            self._welcome(envelope.incarnation, envelope.sent, envelope.settled)
        elif type(envelope) is p.PeerRejoin:
            self._ready = False
            self._refused = self._number
            self._return([one for number in envelope.refused if (one := self._sent_no_more(number)) is not None])
            self._send_probe()
        elif type(envelope) is p.PeerRefused:
            self._ready = False
            theirs, ours = f"{envelope.lowest} to {envelope.highest}", f"{PEER_VERSIONS[0]} to {PEER_VERSIONS[-1]}"
            logs.limited(
                "peer.versions_differ", at="error", per=str(self.number), peer=self.number, speaks=theirs, ours=ours
            )

    def moved(self) -> None:
        """It has another place, and so another life: what was sent to the one before is lost unless it was answered,
        and nothing more is sent before the next one has welcomed us."""
        self._ready = False
        self._refused = self._number
        self._send_probe()

    def _welcome(self, life: bytes, sent: int, settled: int) -> None:
        if life == self._life:
            self._lose(settled)
        else:
            # What was sent after this PEER_READY was for the life before too, but has come to this one, which returns
            # it with PEER_REJOIN; if that is lost, the next PEER_WELCOME says so.
            self._lose(sent + 1)
            self._refused = self._number
            self._life = life
        self._ready = life != self._leaving and sent >= self._refused
        if self._waiting:
            self._asking.dirty[self.number] = self

    def _lose(self, settled: int) -> None:
        """What was sent with a lower number was lost, or its answer was."""
        for number in [*takewhile(settled.__gt__, self._late)]:
            self._bytes -= len(self._late.pop(number).operation)
        for number in [*takewhile(settled.__gt__, self._sent)]:
            self._unreached(self._sent.pop(number))

    def _outcomes(self, outcomes: Sequence[p.Outcome]) -> None:
        returned: list[_Asked] = []
        for outcome in outcomes:
            if not outcome.number:
                if outcome.reply == self._life:
                    self._leaves()
                continue
            one = self._sent_no_more(outcome.number)
            if one is None:
                continue
            if outcome.status == p.AWAITED:
                self._leaves()
                returned.append(one)
            else:
                self._bytes -= len(one.operation)
                self._answer(one, outcome.status, outcome.reply)
        if self._asking.leaving:
            for one in returned:
                self._unreached(one)
        else:
            self._return(returned)

    def _leaves(self) -> None:
        """Its life is about to end. It waits until it hears that this is known."""
        self._ready = False
        self._leaving = self._life
        self._send_probe()

    def _sent_no_more(self, number: int) -> _Asked | None:
        """The operation is not with the owner, or not any more. Returns: it, if it is not answered."""
        one = self._sent.pop(number, None)
        if one is None and (late := self._late.pop(number, None)) is not None:
            self._bytes -= len(late.operation)
        return one

    def _return(self, returned: list[_Asked]) -> None:
        """These are to be sent again, before those that have not been sent at all."""
        self._waiting.rotate(-self._returned)
        self._waiting.extendleft(reversed(returned))
        self._waiting.rotate(self._returned)
        self._returned += len(returned)

    def _unreached(self, one: _Asked) -> None:
        self._bytes -= len(one.operation)
        self._give_up(one)

    def _give_up(self, one: _Asked) -> None:
        self._asking.counters.forwards_unreached += 1
        self._answer(one, m.UNREACHED, b"")

    def _answer(self, one: _Asked, status: int, reply: bytes) -> None:
        self._asking.open -= 1
        guarded("peer.answer_failed", one.answered, status, reply)

    # ------------------------------------------------------------------ time

    def tick(self, now: float, passed: float) -> None:
        """To be called a few times a second. passed: s since the last time, as far as this process had the CPU."""
        self.silent += passed
        if now >= self._probe_at or not self._ready:
            self._probe_at = now + self._asking.options.heartbeat
            self._send_probe()
        waiting, sent = self._waiting, self._sent
        awaited = self._ready or not self._asking.leaving
        while waiting and (waiting[0].deadline <= now or not awaited):
            self._returned = max(0, self._returned - 1)
            self._unreached(waiting.popleft())
        for number in [*takewhile(lambda number: sent[number].deadline <= now, sent)]:
            self._late[number] = one = sent.pop(number)
            self._give_up(one)

    def _send_probe(self) -> None:
        self._probe = True
        self._asking.dirty[self.number] = self


class Asking:
    """All other routers. timeout: s from an operation to its deadline. router: the number of this one."""

    def __init__(
        self,
        router: int,
        routers: int,
        incarnation: bytes,
        options: LinkOptions,
        timeout: float,
        counters: RouterCounters,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self.router = router
        self.incarnation = incarnation
        self.options = options
        self.timeout = timeout
        self.counters = counters
        self.monotonic = monotonic
        self.unix_time = unix_time
        self.open = 0
        """Operations that are not answered."""
        self.leaving = False
        """Whether this router is about to end: then no other one's next life is awaited."""
        self.dirty: dict[int, Owner] = {}
        """Those with something to send."""
        self._ticked_at = now = monotonic()
        self.owners = {number: Owner(number, self, now) for number in range(routers) if number != router}
        self.dirty.update(self.owners)

    def ask(self, owner: int, dialect: str, key: bytes, operation: bytes, answered: Answered, origin: str = "") -> None:
        """Have the router of this number perform an encoded operation. origin: of the operation, as text."""
        self.owners[owner].ask(dialect, key, operation, answered, origin)

    def tick(self) -> None:
        """To be called a few times a second."""
        now = self.monotonic()
        passed = min(now - self._ticked_at, _TICK_MOST_S)
        self._ticked_at = now
        for owner in self.owners.values():
            owner.tick(now, passed)
        self.counters.forwards_waiting = sum(map(len, self.owners.values()))
