"""What other routers ask of this one: their operations are performed as if they had come here, and answered. Pure.

Each operation is performed once at most, in the order sent, and not after it has expired. Another life of a router that
asks has nothing to do with the one before, whose answers are dropped. One router may have `link.max_forwarded`
operations here at once; so what waits to be sent to it is bounded too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Final, Protocol

from router.common import logs
from router.common import messages as m
from router.common.messages import peers as p
from router.common.metrics import RouterCounters
from router.common.peer_wire import PEER_VERSIONS, batch_bytes, encode, of_asker
from router.common.settings import LinkOptions
from router.core.scope import Scope

_OUTCOME_BYTES: Final = 32
"""Of an answer in an envelope, beside the reply: its number and status."""
_ROOM: Final = 1024
"""Bytes of an envelope beside an answer that it is there for."""


class Perform(Protocol):
    """Performs an encoded operation of a dialect; see `router.core.operations`."""

    def __call__(self, dialect: str, key: bytes, data: bytes, reply: Callable[[int, bytes | None], None], /) -> None:
        """Raises: MessageError if it is none, or not this router's."""


class Asker:
    """Another router, as one that asks."""

    __slots__ = (
        "_answering",
        "_bytes",
        "_outbox",
        "_part",
        "_welcome",
        "_welcomed",
        "_work",
        "alive",
        "identity",
        "incarnation",
        "number",
        "seen",
        "silent",
        "version",
    )

    def __init__(self, answering: Answering, number: int, incarnation: bytes, identity: bytes, version: int) -> None:
        self._answering = answering
        self.alive = True
        """Whether its answers are wanted."""
        self.number = number
        self.version = version
        self.incarnation = incarnation
        self.identity = identity
        self.seen = 0
        """The number of the last operation that it has sent, whether it came or not."""
        self.silent = False
        """Whether it has said that it sends no more to this life."""
        self._work: dict[int, None] = {}  # numbers of those that are not answered, in order
        self._outbox: list[p.Outcome] = []
        self._bytes = 0  # of replies in it
        self._part = 0  # of it, in the envelope that was taken last
        self._welcome = False  # whether PEER_WELCOME is to be sent
        self._welcomed = 0  # what it had sent then

    def __len__(self) -> int:
        return len(self._work) + len(self._outbox)

    def welcome(self, sent: int) -> None:
        """Have it know how far it is answered. sent: the number of the last operation that it had sent."""
        self.seen = max(self.seen, sent)
        self._welcomed = sent
        self._welcome = True
        self._answering.dirty[self.number] = self

    def begin(self, number: int) -> Callable[[int, bytes | None], None]:
        """An operation has come. Returns: what takes its answer."""
        self._work[number] = None
        self._answering.open += 1
        return partial(self._answer, number)

    def _answer(self, number: int, status: int, reply: bytes | None) -> None:
        if number in self._work:
            del self._work[number]
            self._answering.open -= 1
            if status == m.OK and reply is None:  # the dialect is not spoken here
                status = m.FAILED
            self.outcome(number, status, reply or b"")

    def outcome(self, number: int, status: int, reply: bytes = b"") -> None:
        """Answer an operation that is not, or not any more, in work."""
        if not self.alive:
            return
        options = self._answering.options
        if len(reply) + _ROOM > options.max_message_bytes:
            logs.limited("peer.reply_too_long", at="error", limit=options.max_message_bytes, peer=self.number)
            status, reply = m.FAILED, b""
        elif self._outbox and self._bytes + len(reply) > options.max_forwarded_bytes:
            status, reply = m.UNREACHED, b""
        self._outbox.append(p.Outcome(number, status, reply))
        self._bytes += len(reply)
        self._answering.dirty[self.number] = self

    # ------------------------------------------------------------------ what is sent

    def envelope(self) -> bytes | None:
        """What is to be sent next; None: nothing. `sent` is to be called when it was."""
        outbox = self._outbox
        self._part = 0
        if outbox:
            size, most = 0, batch_bytes(self._answering.options)
            for outcome in outbox:
                size += len(outcome.reply) + _OUTCOME_BYTES
                if self._part and size > most:
                    break
                self._part += 1
            return encode(p.Outcomes(outbox[: self._part] if self._part < len(outbox) else outbox))
        if self._welcome:
            settled = next(iter(self._work), self.seen + 1)
            return encode(p.PeerWelcome(self._answering.incarnation, self.version, self._welcomed, settled))
        return None

    def sent(self) -> None:
        """The envelope has been given to the link."""
        if not self._part:
            self._welcome = False
        elif self._part < len(self._outbox):
            self._bytes -= sum(len(outcome.reply) for outcome in self._outbox[: self._part])
            del self._outbox[: self._part]
        else:
            self._outbox = []
            self._bytes = 0


class Answering:
    """All routers that ask. askers: their numbers. unix_time: a clock in seconds. scope: takes the origins of what they
    ask; None: nobody wants to know."""

    def __init__(
        self,
        perform: Perform,
        askers: Container[int],
        incarnation: bytes,
        options: LinkOptions,
        counters: RouterCounters,
        unix_time: Callable[[], float],
        scope: Scope | None = None,
    ) -> None:
        self._perform = perform
        self._scope = scope
        self._askers = askers
        self.incarnation = incarnation
        self.options = options
        self._counters = counters
        self._unix_time = unix_time
        self._leaving = False
        self.open = 0
        """Operations in work."""
        self._by_number: dict[int, Asker] = {}
        self._by_identity: dict[bytes, Asker] = {}
        self._direct: deque[tuple[bytes, bytes]] = deque(maxlen=options.max_direct)
        self.dirty: dict[int, Asker] = {}
        """Those with something to send."""

    def __len__(self) -> int:
        return sum(map(len, self._by_number.values()))

    def leave(self) -> None:
        """Perform nothing that comes from now on: this router is about to end, and its next life will be asked."""
        self._leaving = True
        for asker in self._by_number.values():
            self._say_that_it_leaves(asker)

    def _say_that_it_leaves(self, asker: Asker) -> None:
        asker.silent = False
        asker.outcome(0, p.AWAITED, self.incarnation)

    @property
    def quiet(self) -> bool:
        """Whether nothing more is on its way to this router, which is about to end."""
        return all(asker.silent for asker in self._by_number.values())

    def received(self, identity: bytes, data: bytes) -> None:
        """One envelope of a router that asks.

        Raises: MessageError if it is malformed; nothing of it has been done.
        """
        envelope = of_asker(data)
        if type(envelope) is p.Forwards:
            asker = self._by_identity.get(identity)
            if envelope.to != self.incarnation:
                self._direct.append((identity, encode(p.PeerRejoin([one.number for one in envelope.operations]))))
            elif asker is None:  # a new connection; what follows may be performed, so this must not be sent again
                self._direct.append((identity, encode(p.PeerRejoin([]))))
            else:
                self._forwards(asker, envelope.expires, envelope.operations)
        elif type(envelope) is p.PeerReady:
            self._ready(identity, envelope)

    def take_direct(self) -> list[tuple[bytes, bytes]]:
        """Envelopes for identities that are no asker's, as (identity, data). One that cannot be sent is dropped."""
        taken = list(self._direct)
        self._direct.clear()
        return taken

    def lost(self, asker: Asker) -> None:
        """Its link has gone. It asks anew when it has another."""
        if self._by_number.get(asker.number) is asker:
            self._forget(asker)

    def _forget(self, asker: Asker) -> None:
        asker.alive = False
        del self._by_number[asker.number]
        del self._by_identity[asker.identity]
        self.dirty.pop(asker.number, None)

    def _ready(self, identity: bytes, ready: p.PeerReady) -> None:
        if ready.highest < PEER_VERSIONS[0] or ready.lowest > PEER_VERSIONS[-1]:
            self._direct.append((identity, encode(p.PeerRefused(PEER_VERSIONS[0], PEER_VERSIONS[-1]))))
            return
        asker = self._by_number.get(ready.router)
        if asker is not None and (asker.incarnation, asker.identity) != (ready.incarnation, identity):
            self._forget(asker)
            asker = None
        if asker is None:
            if ready.router not in self._askers or identity in self._by_identity:
                raise m.MessageError(f"router {ready.router} does not ask here, or not over this link")
            version = min(ready.highest, PEER_VERSIONS[-1])
            asker = Asker(self, ready.router, ready.incarnation, identity, version)
            self._by_number[asker.number] = asker
            self._by_identity[identity] = asker
        asker.welcome(ready.sent)
        asker.silent = ready.silent
        if self._leaving and not ready.silent:
            self._say_that_it_leaves(asker)

    def _forwards(self, asker: Asker, expires: int, operations: Sequence[p.Forward]) -> None:
        expired = self._unix_time() * 1000 > expires
        for one in operations:
            number = one.number
            if number <= asker.seen:
                continue
            asker.seen = number
            if self._leaving:
                asker.outcome(number, p.AWAITED)
            elif expired or len(asker) >= self.options.max_forwarded:
                asker.outcome(number, m.UNREACHED)
            else:
                self._counters.forwarded += 1
                self._begin(one, asker.begin(number))

    def _begin(self, one: p.Forward, answer: Callable[[int, bytes | None], None]) -> None:
        try:
            if self._scope is None or not one.origin:
                self._perform(one.dialect, one.key, one.operation, answer)
            else:
                origin = self._scope.read(one.origin)
                self._scope.call(origin, self._perform, one.dialect, one.key, one.operation, answer)
        except m.MessageError as error:
            logs.limited("peer.operation_refused", at="error", per=one.dialect, error=str(error))
            answer(m.FAILED, None)
        except Exception as error:  # one operation's defect: the others of this turn are performed
            logs.limited("peer.operation_failed", at="error", per=repr(error), exc=error)
            answer(m.FAILED, None)
