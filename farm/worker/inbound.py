"""Input of devices: read, parsed, and handled in order, a limited part of it a turn."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from heapq import merge
from typing import Any, Final

from farm.dialects import Effects, Event, Subscribed
from farm.settings import WorkerOptions
from farm.transports import Reader
from farm.transports.frames import BINARY, CLOSE, PING, TEXT
from farm.worker.clock import Clock
from farm.worker.connection import CLOSING, HANDSHAKE, IDLE, OPEN, Connection
from farm.worker.effects import Performer, effects_of
from farm.worker.interest import Interest
from farm.worker.local_channel import HeldEvent
from farm.worker.output import Output
from farm.worker.turns import Turns
from router.common.metrics import WorkerCounters
from router.common.poller import READ
from router.common.wires import PLAIN, Wire

_READ_BYTES: Final = 8192


class Inbound:
    """Reads connections. `openings` are those that have not begun yet, of which `opening` takes what comes; `handshake`
    takes what comes on one that is not open yet; `undecided` gives how many bytes may
    be read of it, 0: all that are there; `waits` looks at one whose request waits, and gives what epoll is not to watch
    for any more."""

    def __init__(
        self,
        options: WorkerOptions,
        counters: WorkerCounters,
        clock: Clock,
        interest: Interest,
        turns: Turns,
        output: Output,
        performer: Performer,
        wire: Wire = PLAIN,
        openings: Container[int] = (),
    ) -> None:
        self._options = options
        self._counters = counters
        self._clock = clock
        self._watch = interest.watch
        self._turns = turns
        self._spend = turns.spend
        self._held = turns.held
        self._output = output
        self._performer = performer
        self._message = performer.message
        self._read_fd = wire.read
        self._openings = openings
        self.opening: Callable[[Connection], None] = _not_wired
        self.handshake: Callable[[Connection, bytes], None] = _not_wired
        self.waits: Callable[[Connection], int] = _not_wired
        self.admit: Callable[[Connection, Any, int, Any], None] = _not_wired
        self.undecided: Callable[[Connection], int] | None = None

    def read(self, connection: Connection) -> None:
        """Something has come."""
        if connection.call:
            # Commands are handled in order; until the answer is here, what follows waits in the kernel.
            unwatched = READ if connection.phase != HANDSHAKE else self.waits(connection)
            self._watch(connection, connection.mask & ~unwatched)
            return
        undecided = 0
        phase = connection.phase
        if phase not in (OPEN, CLOSING):
            if self._openings and connection.fd in self._openings:
                self.opening(connection)
                return
            if self.undecided is not None:
                undecided = self.undecided(connection)
        try:
            data = self._read_fd(connection.fd, undecided or _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._output.drop(connection)
            return
        if not data:
            self._output.drop(connection)
            return
        if phase == OPEN:
            connection.since = self._clock.stamp
            self.frames(connection, data)
        elif phase == CLOSING:
            self._output.discard(connection, data)
        else:
            self.handshake(connection, data)
            if len(data) == undecided and connection.phase == HANDSHAKE and connection.fd >= 0:
                self.read(connection)  # it is a device

    def read_last(self, connection: Connection) -> None:
        """Something has come, and the peer sends no more: it may have given up."""
        self._performer.leaving = connection
        try:
            self.read(connection)
        finally:
            self._performer.leaving = None

    def frames(self, connection: Connection, data: bytes) -> None:
        """Bytes of an open connection."""
        options = self._options
        reader = connection.reader
        if reader is None:
            transport = connection.transport
            found = transport.texts(data, options.max_message_bytes, options.frames_a_turn)
            if found is not None:
                texts, end = found
                self._texts(connection, texts)
                if end == len(data) and not (self._held and connection in self._held):  # the usual
                    if not self._spend(connection.fd, len(texts)):
                        self._turns.throttle(connection)
                    return
                if connection.phase != OPEN:
                    self._output.discard(connection, data[end:])
                    return
                if (
                    end < len(data)
                    and (reader := transport.reader(options.max_message_bytes, options.max_fragments)) is not None
                ):
                    connection.reader = reader
                    reader.keep(data[end:])
                self._settle(connection, len(texts), True)
                return
            reader = transport.reader(options.max_message_bytes, options.max_fragments)
            if reader is None:
                self._unexpected(connection, data)
                return
            connection.reader = reader
        if isinstance(reader, bytearray):
            self._unexpected(connection, data)
            return
        assert isinstance(reader, Reader)
        self._feed(connection, reader, data)

    def _unexpected(self, connection: Connection, data: bytes) -> None:
        """Bytes of a peer that should send nothing; they count as a command. Where another request may follow they are
        its beginning, and are kept up to the limit of a request."""
        if connection.transport.keeps_alive:
            if not isinstance(connection.reader, bytearray):
                connection.reader = bytearray()
            connection.reader += data
            self._output.count(connection)
            if connection.phase == OPEN and len(connection.reader) >= self._options.max_request_bytes:
                self._watch(connection, connection.mask & ~READ)
        if connection.phase == OPEN and not self._spend(connection.fd, 1):
            self._turns.throttle(connection)

    def _texts(self, connection: Connection, texts: list[bytes]) -> None:
        for position, text in enumerate(texts):
            if connection.phase != OPEN:
                return
            if connection.call:
                self._held[connection] = [(TEXT, held) for held in texts[position:]]
                return
            self._message(connection, text, False)

    def _feed(self, connection: Connection, reader: Reader, data: bytes) -> None:
        messages = reader.feed(data, self._options.frames_a_turn)
        self._dispatch(connection, messages)
        whole = any(opcode in (TEXT, BINARY) for opcode, _ in messages)
        self._settle(connection, reader.taken, whole or (bool(messages) and not reader.fragmented))

    def _settle(self, connection: Connection, frames: int, progress: bool) -> None:
        """Some of its input was handled: see what of it is left, when that has its turn, and how long it may take.

        progress: whether what is incomplete now has begun just now."""
        if connection.phase != OPEN:
            return
        turns = self._turns
        reader = connection.reader
        if isinstance(reader, Reader) and reader.idle:
            connection.reader = reader = None
        if reader is None or progress:
            turns.finished(connection)
        if reader is not None:
            turns.unfinished(connection)
        self._output.count(connection)
        if connection.phase != OPEN:
            return
        if not self._spend(connection.fd, frames):
            turns.throttle(connection)
        elif not connection.call and (connection in self._held or (isinstance(reader, Reader) and reader.more)):
            turns.later(connection)

    def _dispatch(self, connection: Connection, messages: list[tuple[int, bytes]]) -> None:
        for position, (opcode, payload) in enumerate(messages):
            if connection.phase != OPEN:
                if any(opcode == CLOSE for opcode, _ in messages[position:]):
                    self._output.peer_closed(connection)
                return
            if connection.call:
                self._held[connection] = messages[position:]
                return
            if opcode in (TEXT, BINARY):
                self._message(connection, payload, opcode == BINARY)
            elif opcode == PING:
                self._output.write(connection, connection.transport.pong(payload))
            elif opcode == CLOSE:
                self._output.close_back(connection, payload)
                return
        reader = connection.reader
        if isinstance(reader, Reader) and reader.error is not None and not connection.call:
            self._counters.protocol_errors += 1
            self._output.close(connection, reader.error.code, reader.error.reason)

    def replied(self, connection: Connection, number: int, context: Any, status: int, payload: Any) -> None:
        """The reply to the call of this number is here; then what has come meanwhile is handled."""
        if not self._waited_for(connection, number):
            return
        if connection.phase == HANDSHAKE:
            self.admit(connection, context, status, payload)
        elif connection.phase == OPEN:
            assert connection.session is not None
            replied = connection.session.replied
            self._performer.perform(connection, effects_of(replied, context, status, payload, self._clock.now))
            self._input_later(connection)

    def subscribed(
        self, connection: Connection, number: int, results: Sequence[Subscribed], events: Sequence[HeldEvent]
    ) -> None:
        """The same for a Subscribe. events: sent after the session's answer to that, or among the events that it ends
        with."""
        if self._waited_for(connection, number):
            assert connection.session is not None
            effects = effects_of(connection.session.subscribed, results, self._clock.now)
            self._performer.perform(connection, _with_held(effects, events) if events else effects)
            self._input_later(connection)

    def _waited_for(self, connection: Connection, number: int) -> bool:
        if connection.call != number:
            return False
        connection.call = 0
        return True

    def _input_later(self, connection: Connection) -> None:
        """What has come behind a call whose reply is here is handled in the connection's next turn: behind all that the
        router sent with the reply, and not while the link is saturated. An ack among it would cross with the item that
        the router has read for a device that was announced, which would go out again.
        """
        if connection.call or connection.phase == CLOSING or self._turns.waits(connection):
            return
        if connection.reader is not None or connection in self._held:
            self._turns.later(connection)
        else:
            self._watch(connection, connection.mask | READ)

    def go_on(self, connection: Connection) -> None:
        """Handle what has come already, no more of it than in one turn; then read on."""
        if connection.call or connection.phase == CLOSING or self._turns.throttled(connection):
            return
        reader = connection.reader
        if isinstance(reader, bytearray):
            if connection.phase == IDLE:
                self.handshake(connection, b"")
        elif (held := self._held.pop(connection, None)) is not None:
            self._dispatch(connection, held)
            self._settle(connection, len(held), False)
        elif isinstance(reader, Reader):
            self._feed(connection, reader, b"")
        if connection.phase != CLOSING and not (connection.call or self._turns.waits(connection)):
            self._watch(connection, connection.mask | READ)


def _with_held(effects: Effects, events: Sequence[HeldEvent]) -> Effects:
    """What a session answers to its Subscribe, with the events that came meanwhile: in the order in which they came to
    the router, where the answer ends with events that say when that was. A client that has one position for all of its
    channels comes back with the last."""
    answer = list(effects)
    at = len(answer)
    while at and isinstance(event := answer[at - 1], Event) and event.logged is not None:
        at -= 1
    held = [Event(event.text, event.event) for event in events]
    if at == len(answer) or any(event.logged is None for event in held):
        yield from (*answer, *held)
    else:
        yield from (*answer[:at], *merge(answer[at:], held, key=_when))


def _when(event: Any) -> tuple[int, int]:
    return event.logged.time, event.logged.tag


def _not_wired(*_: Any) -> Any:
    raise AssertionError("handshakes are not wired")
