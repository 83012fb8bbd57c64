"""Effects of sessions are carried out: they become bytes, calls, subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

from farm.dialects import (
    REGISTERED,
    Attach,
    Authorise,
    Become,
    Binary,
    Call,
    Close,
    Effects,
    Event,
    Ping,
    Respond,
    Subscribe,
    Tick,
    Unsubscribe,
)
from farm.worker.attachments import Attachments
from farm.worker.backpressure import Backpressure
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.grants import Grants
from farm.worker.output import Output
from farm.worker.subscriptions import Subscriptions
from farm.worker.turns import Turns
from farm.worker.wheel import Wheel
from router.common import logs
from router.common import messages as m
from router.common.close_codes import INTERNAL


class Performer:
    """Carries out the effects of sessions."""

    def __init__(
        self,
        output: Output,
        turns: Turns,
        attachments: Attachments,
        subscriptions: Subscriptions,
        grants: Grants,
        wheel: Wheel,
        clock: Clock,
        send: Callable[[Any], None],
        busy: Sized,
        backpressure: Backpressure,
    ) -> None:
        """busy: not empty while events wait for their turn somewhere."""
        self._output = output
        self._write = output.write
        self._turns = turns
        self._attachments = attachments
        self._subscriptions = subscriptions
        self._grants = grants
        self._wheel = wheel
        self._clock = clock
        self._to_router = send
        self._busy = busy
        self._backpressure = backpressure
        self.leaving: Connection | None = None
        """The connection whose last bytes are handled now: the peer sends no more."""

    def message(self, connection: Connection, payload: bytes, binary: bool) -> None:
        """Give the session a message of its device."""
        assert connection.session is not None
        self.perform(connection, effects_of(connection.session.received, payload, binary, self._clock.now))

    def perform(self, connection: Connection, effects: Effects, head: bytes = b"") -> None:
        """Carry out effects. head: to be written before anything else."""
        frames: list[bytes] = [head] if head else []
        try:
            closing = self._collect(connection, effects, frames)
        except Exception as error:  # effects may be made while they are performed
            closing = failed(error)
        if closing is not None:
            self._output.close(connection, closing.code, closing.reason, frames)
        elif frames:
            if connection.transport.once:
                self._output.answer(connection, frames)
            else:
                self._write(connection, frames[0] if len(frames) == 1 else b"".join(frames))

    def _collect(self, connection: Connection, effects: Effects, frames: list[bytes]) -> Close | None:
        """Carry out all but writing and closing. What stands behind a Close is not carried out."""
        for effect in effects:
            kind = type(effect)
            if kind is bytes:
                frames.append(connection.transport.text(effect))  # type: ignore[arg-type]
            elif isinstance(effect, m.Message):
                self._send(connection, effect)
            elif isinstance(effect, Call | Attach):
                if connection is self.leaving and isinstance(effect, Attach) and connection.transport.two_way:
                    self._output.drop(connection)  # to attach it would be work, and would end a newer one of its device
                    frames.clear()
                    return None
                self._attachments.call(connection, effect)
            elif isinstance(effect, Close):
                return effect
            elif effect is REGISTERED:
                self._turns.register(connection)
            elif isinstance(effect, Binary):
                frames.append(connection.transport.binary(effect.payload))
            elif isinstance(effect, Subscribe):
                if self._backpressure.shut and self._backpressure.defers(connection, effect):
                    connection.call = self._attachments.number()
                    continue
                results = self._subscriptions.subscribe(connection, effect)
                if results is not None:
                    assert connection.session is not None
                    more = effects_of(connection.session.subscribed, results, self._clock.now)
                    if (closing := self._collect(connection, more, frames)) is not None:
                        return closing
            elif isinstance(effect, Unsubscribe):
                # A client that polls gets what it misses here with its next request.
                busy = self._busy and not connection.transport.once
                if busy and (due := self._output.due(connection, (effect.key,))):
                    frames.insert(0, due)
                self._subscriptions.leave(connection, effect.key)
            elif isinstance(effect, Tick):
                connection.bucket = self._wheel.arm(connection.fd, effect.seconds)
            elif isinstance(effect, Ping):
                if ping := connection.transport.ping(effect.payload):
                    frames.append(ping)
            elif isinstance(effect, Event):
                frames.append(connection.transport.event(*effect))
            elif isinstance(effect, Respond):
                if (head := connection.transport.respond(*effect)) is not None:
                    frames.insert(0, head)
                    connection.transport = connection.transport.responded
            elif isinstance(effect, Authorise):
                self._attachments.call(connection, Call(self._grants.of_message(connection, effect), effect.context))
            elif isinstance(effect, Become):
                connection.session = effect.session
                if effect.message is not None:
                    self.message(connection, effect.message, effect.binary)
        return None

    def _send(self, connection: Connection, message: m.Message) -> None:
        self._to_router(message)
        if self._backpressure.shut:
            self._backpressure.sent(connection, message)
        # What it removes from the store is what an ack costs.
        more = len(message.updates) - 1 if isinstance(message, m.Ack) else 0
        if more > 0 and not self._turns.spend(connection.fd, more):
            self._turns.throttle(connection)


def effects_of(method: Callable[..., Effects], *arguments: Any) -> Effects:
    """Call a method of a session. A defect of a dialect must cost one connection, not a shard."""
    try:
        return method(*arguments)
    except Exception as error:
        return (failed(error),)


def failed(error: Exception) -> Close:
    """The close of a connection whose dialect has raised an error."""
    logs.limited("dialect.failed", at="error", per=type(error).__name__, exc=error)
    return Close(INTERNAL, "internal error")
