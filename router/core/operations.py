"""Operations: what dialects have done by the owner of a key, whichever router that is. Pure.

A dialect's app-server side checks a request where it came, makes an operation of it (`router.common.operation`) and
asks for it here. The owner of the key performs it as a whole, with the core's facades (`router.core.facades`), which
know only what this router owns; the status and the reply come back. What a worker asks for with INVOKE is an operation
too, which the worker has sent to the owner.

Of a status, OK and FAILED are those of `router.common.messages`, and others are the performing function's own, except
UNREACHED: the owner did not answer in time or is away. Then it may have been done, and is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import Any, Final, Protocol, TypeVar

import msgspec

from router.common import logs
from router.common import messages as m
from router.common.operation import Operation, encoded
from router.common.partitions import fixed_owners, partition
from router.core.settling import Settling

T = TypeVar("T")

EVERYWHERE: Final = b""
"""The key of what every router is to do."""


class Done(Protocol):
    """Called once, at once or later, with the status and the operation's REPLY. A reply is not changed afterwards."""

    def __call__(self, status: int, reply: Any = None, /) -> None: ...


Perform = Callable[[bytes, Any, Done], None]
"""Gets the key, the operation, and where status and reply go. An operation from elsewhere has fields of the right types
and no more; it may raise `messages.MessageError` for what it does not allow, before it has called back. One that a
device has asked for may come twice, from a worker whose router died before it had replied."""


Ask = Callable[[int, str, bytes, bytes, Callable[[int, bytes], None]], None]
"""Has another router, by its number, perform an encoded operation of a dialect at a key. Status and encoded reply are
called back once."""


def _nobody(owner: int, dialect: str, key: bytes, operation: bytes, answered: Callable[[int, bytes], None]) -> None:
    answered(m.UNREACHED, b"")


class Operations:
    """The operations of all dialects, and who owns what. owners: the router of each partition; number: this router;
    ask: where the others are asked; settling: what those wait for that need to know what all workers hold."""

    __slots__ = (
        "_alone",
        "_ask",
        "_decoders",
        "_dialects",
        "_number",
        "_owners",
        "_performers",
        "_routers",
        "_settling",
    )

    def __init__(
        self,
        owners: Sequence[int] = fixed_owners(1),
        number: int = 0,
        ask: Ask = _nobody,
        settling: Settling | None = None,
    ) -> None:
        self._owners = owners
        self._routers = sorted(set(owners))
        self._number = number
        self._alone = self._routers == [number]
        self._ask = ask
        self._performers: dict[type[Operation], Perform] = {}
        self._dialects: dict[type[Operation], str] = {}
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._settling = settling

    def register(self, dialect: str, performers: Mapping[type[Operation], Perform]) -> None:
        """What performs each of these operations of a dialect here; all of its parts may call this."""
        self._performers.update(performers)
        settling = self._settling
        if settling is not None and not settling.over:
            held = {kind: perform for kind, perform in performers.items() if kind.SETTLED}
            self._performers.update({kind: partial(_hold, settling, perform) for kind, perform in held.items()})
            settling.when_over(partial(self._performers.update, held))
        self._dialects.update(dict.fromkeys(performers, dialect))
        known = [kind for kind, of in self._dialects.items() if of == dialect]
        self._decoders[dialect] = msgspec.msgpack.Decoder(reduce(or_, known))

    # ------------------------------------------------------------------ who owns what

    def owner(self, key: bytes) -> int:
        """The number of the router that owns this key."""
        return self._owners[partition(key)]

    def owns(self, key: bytes) -> bool:
        """Whether this router owns this key."""
        return self._alone or self._owners[partition(key)] == self._number

    def by_owner(self, named: Iterable[T], key_of: Callable[[T], bytes]) -> list[tuple[bytes, list[T]]]:
        """These by the router that owns the key of each, in their order; with the key of the first, at which an
        operation reaches the owner of all of them."""
        shares: dict[int, tuple[bytes, list[T]]] = {}
        for one in named:
            key = key_of(one)
            shares.setdefault(self.owner(key), (key, []))[1].append(one)
        return list(shares.values())

    # ------------------------------------------------------------------ what dialects ask for

    def at(self, key: bytes, operation: Operation, done: Done) -> None:
        """Have the owner of the key perform this.

        Raises: what the performing function raises, if it is this router's.
        """
        if self._alone or (owner := self._owners[partition(key)]) == self._number:
            self._performers[type(operation)](key, operation, done)
        else:
            self._elsewhere(owner, key, operation, done)

    def _elsewhere(self, owner: int, key: bytes, operation: Operation, done: Done) -> None:
        kind = type(operation)
        self._ask(owner, self._dialects[kind], key, encoded(operation), partial(_answered, kind.REPLY, done))

    def at_each(self, asked: Sequence[tuple[bytes, Operation]], done: Callable[[list[tuple[int, Any]]], None]) -> None:
        """Have the owners of several keys perform an operation each. `done` gets status and reply of each, in their
        order, when all are known."""
        gathered = _Gathered(len(asked), done)
        for index, (key, operation) in enumerate(asked):
            self.at(key, operation, gathered.place(index))

    def at_all(self, operation: Operation, done: Callable[[int, list[Any]], None]) -> None:
        """Have every router perform this, with the key EVERYWHERE. `done` gets OK and the replies of all, or no replies
        and what one of them has said instead of OK."""

        def known(answers: list[tuple[int, Any]]) -> None:
            status = next((status for status, _ in answers if status != m.OK), m.OK)
            done(status, [reply for _, reply in answers] if status == m.OK else [])

        gathered = _Gathered(len(self._routers), known)
        for index, router in enumerate(self._routers):
            if router == self._number:
                self._performers[type(operation)](EVERYWHERE, operation, gathered.place(index))
            else:
                self._elsewhere(router, EVERYWHERE, operation, gathered.place(index))

    # ------------------------------------------------------------------ what has come from another process

    def perform(self, dialect: str, key: bytes, data: bytes, reply: Callable[[int, bytes | None], None]) -> None:
        """Perform an encoded operation; `reply` gets the status and the encoded reply. OK and None: this router does
        not speak the dialect.

        Raises: MessageError if it is none of the dialect's, or not this router's; then `reply` is not called.
        """
        decoder = self._decoders.get(dialect)
        if decoder is None:
            reply(m.OK, None)
            return
        if key and not self.owns(key):
            raise m.MessageError(f"an operation of {dialect} for a key of router {self.owner(key)}")
        try:
            operation = decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise m.MessageError(f"no operation of {dialect}: {error}") from error
        wanted = operation.REPLY is not None

        def done(status: int, answer: Any = None) -> None:
            if status != m.OK:
                reply(status, None)
            else:
                reply(status, encoded(answer) if wanted else b"")

        self._performers[type(operation)](key, operation, done)


def _hold(settling: Settling, perform: Perform, key: bytes, operation: Operation, done: Done) -> None:
    """Perform it when it is known what all workers hold."""

    def now() -> None:
        try:
            perform(key, operation, done)
        except m.MessageError as error:
            logs.limited("router.held_refused", at="error", per=type(operation).__name__, error=str(error))
            done(m.FAILED)
        except Exception as error:  # one operation's defect: the others are performed
            logs.limited("router.held_failed", at="error", per=repr(error), exc=error)
            done(m.FAILED)

    settling.wait(now, partial(done, m.UNREACHED), len(encoded(operation)))


def _answered(kind: Any, done: Done, status: int, reply: bytes) -> None:
    """Another router has answered. kind: of the reply."""
    if status != m.OK or kind is None:
        done(status)
        return
    try:
        answer = msgspec.msgpack.decode(reply, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        logs.limited("peer.reply_refused", at="error", per=str(kind), error=str(error))
        done(m.FAILED)
        return
    done(m.OK, answer)


class _Gathered:
    """Several answers of which the last makes them all known."""

    __slots__ = ("_answers", "_done", "_missing")

    def __init__(self, number: int, done: Callable[[list[tuple[int, Any]]], None]) -> None:
        self._answers: list[tuple[int, Any]] = [(m.UNREACHED, None)] * number
        self._missing = number
        self._done = done
        if not number:
            done([])

    def place(self, index: int) -> Done:
        """For the answer of this place."""

        def known(status: int, reply: Any = None) -> None:
            self._answers[index] = (status, reply)
            self._missing -= 1
            if not self._missing:
                self._done(self._answers)

        return known
