"""The device sockets of a worker: accept, upgrade, park, read, write, close.

A parked connection is one struct, its session, a descriptor in the poller's epoll and its places in two tables: no
task, no parser, no buffer, no timer of its own. Buffers exist only while something is incomplete.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from farm.capacity import REFUSAL_ROOM
from farm.dialects import (
    REGISTERED,
    Become,
    Binary,
    BroadcastTracker,
    Call,
    Close,
    Dialect,
    Effects,
    Presence,
    Subscribe,
    Tick,
    Unsubscribe,
)
from farm.settings import LimitOptions, WorkerOptions
from farm.worker import upgrade
from farm.worker.attachments import Attachments, Overheard
from farm.worker.broadcasts import BroadcastScan
from farm.worker.budget import Budget
from farm.worker.connection import CLOSING, HANDSHAKE, OPEN, Connection
from farm.worker.events import Events
from farm.worker.fanout import FanOuts
from farm.worker.frames import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    INTERNAL,
    PING,
    POLICY,
    PONG,
    TEXT,
    TRY_LATER,
    CloseFinder,
    FrameReader,
    encode_close,
    encode_frame,
    encode_text,
    short_texts,
)
from farm.worker.health import Health
from farm.worker.keepalive_scan import KeepaliveScan
from farm.worker.rates import Rates
from farm.worker.sniff import ENOUGH, for_app_servers
from farm.worker.subscriptions import LocalChannel, Subscriptions
from farm.worker.table import Table
from farm.worker.wheel import Bucket, Wheel
from router.common import logs
from router.common import messages as v
from router.common.health import PAGES
from router.common.metrics import WorkerCounters
from router.common.poller import BROKEN, NOTHING, READ, WRITE, Poller, half_close
from router.store.base import Item

_READ_BYTES: Final = 8192
_PING: Final = encode_frame(PING, b"")
_TICK_S: Final = 0.25
_DISCARDED: Final = 512  # frames of a connection that is being closed that are looked at in a tick
_WHEEL_SLOTS: Final = 4096
_COUNT_TICKS: Final = 4  # subscribers are counted once a second
_FD_BITS: Final = 24  # of the number in a socket id; its rest counts connections
_MAX_SOCKET_ID: Final = 40
_MASKS: Final = {mask: mask for mask in (NOTHING, READ, WRITE, READ | WRITE)}  # one object for all connections
_JOINED_PART: Final = 4
"""Of the buffer of a device that does not read, this part may be one write of events that have waited."""
_FAREWELL: Final = (GOING_AWAY, "the server goes away: connect again")


class Sockets:
    """All connections of one worker. Pure of trio and zmq: the caller waits, and sends `words`."""

    def __init__(
        self,
        poller: Poller,
        options: WorkerOptions,
        dialects: dict[str, Dialect],
        counters: WorkerCounters,
        max_connections: int,
        tell: Callable[[Any], None],
        monotonic: Callable[[], float],
        trackers: Mapping[str, BroadcastTracker] | None = None,
        presences: Mapping[str, Presence] | None = None,
        hand_over: Callable[[int, bytes], bool] | None = None,
        health: Health | None = None,
        limits: LimitOptions | None = None,
    ) -> None:
        """hand_over: passes a connection of an app server on, with what was read of it; None: there are only devices.
        It returns whether that was possible; the descriptor is closed here in any case."""
        self._poller = poller
        self._options = options
        self._dialects = dialects
        self._counters = counters
        self._tell = tell
        self._monotonic = monotonic
        self._connections = Table()
        self._attachments = Attachments(tell, monotonic)
        self.devices = self._attachments.devices
        fan_outs: FanOuts[LocalChannel, Connection] = FanOuts(options.write_buffer_bytes // _JOINED_PART)
        self._fan_outs = fan_outs.going
        self.subscriptions = Subscriptions(tell, self._attachments.number, fan_outs)
        self._events = Events(
            self.subscriptions,
            fan_outs,
            options,
            counters,
            presences or {},
            self._drop,
            self._put,
            self._buffer,
            self._answer,
        )
        self._hand_over = hand_over
        self._health = health
        self._origin = str(int.from_bytes(os.urandom(4), "big"))  # of all socket ids here
        self._serial = 0
        limits = limits or LimitOptions()
        self._commands = Rates(limits.commands_per_second, limits.burst_seconds)
        self._registrations = Rates(limits.registrations_per_second, limits.burst_seconds)
        self._budget = Budget(options.max_buffered_bytes)
        self._making_room = False
        # Whose input is here and waits for its next turn, and who has asked for too much and is read again later.
        self._later: dict[Connection, None] = {}
        self._resting: dict[Connection, None] = {}
        self._discarding: list[Connection] = []  # closing, and not read until the next tick
        self._unfinished: dict[Connection, float] = {}  # when a message has to be whole, the earliest first
        self._ticks = 0
        self._wheel = Wheel(_WHEEL_SLOTS, _TICK_S)
        self._deadlines: dict[Connection, float] = {}  # slow readers and closing connections
        self._listener: socket.socket | None = None
        self._listening = False
        self.max_connections = max_connections
        self.draining = False
        self.now = self._stamp = monotonic()  # the other is that of the last tick: one object for all connections
        self._wheel_due = self.now
        self._keepalive = KeepaliveScan(options.keepalive / 2)
        self._broadcasts = BroadcastScan(trackers or {})

    # ------------------------------------------------------------------ accept

    def listen(self, listener: socket.socket) -> None:
        """Accept from this listener (non-blocking, listening) from now on."""
        listener.setblocking(False)
        self._listener = listener
        self._listening = True
        self._poller.register(listener.fileno(), READ)

    def stop_listening(self) -> None:
        """Accept no more. Who is in the queue stays there for another worker on the same listener."""
        if self._listener is not None:
            if self._listening:
                self._poller.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._listening = False

    def ready(self, fd: int, events: int) -> None:
        """Deal with what epoll said of one descriptor."""
        rows = self._connections.rows
        connection = rows[fd] if fd < len(rows) else None
        if connection is None:
            if self._listener is not None and fd == self._listener.fileno():
                self._accept()
            return
        try:
            if events & WRITE:
                self._flush(connection)
                if connection.fd < 0:
                    return
            if events & READ:
                self._read(connection)
            elif events & BROKEN:
                self._drop(connection)
        except Exception as error:
            self._broke(connection, error)

    def ready_but_not_read(self, fd: int, events: int) -> None:
        """The same where nothing more may be heard of devices: what waits for them goes out, who is closing ends."""
        connection = self._connections.get(fd)
        if connection is not None:
            self.ready(fd, events if connection.phase == CLOSING else events & ~READ)

    def _broke(self, connection: Connection, error: Exception) -> None:
        """Whatever goes wrong with a connection is the end of that connection, and of nothing else."""
        self._counters.connections_failed += 1
        logs.limited("device.failed", at="error", per=type(error).__name__, exc=error)
        self._drop(connection)

    def _accept(self) -> None:
        assert self._listener is not None
        accept = self._listener._accept  # type: ignore[attr-defined]  # accept() without a socket object a connection
        channel = self.max_connections + REFUSAL_ROOM - len(self._connections)
        for _ in range(min(self._options.accept_batch, channel)):
            try:
                fd, _ = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                # Out of descriptors or memory: leave them in the queue until something has been closed.
                self._cannot_accept(error)
                return
            try:
                os.set_blocking(fd, False)
                self._poller.register(fd, READ)
            except OSError as error:
                os.close(fd)
                self._cannot_accept(error)
                return
            connection = Connection(fd, READ, self.now)
            self._connections[fd] = connection
            self._keepalive.meet(fd)
            connection.bucket = self._wheel.arm(fd, self._options.handshake_timeout)
            self._counters.connects += 1
        if channel <= self._options.accept_batch:
            self._pause_accepting()

    def _cannot_accept(self, error: OSError) -> None:
        logs.limited("device.accept_failed", error=str(error), hint="it is tried again when there is room")
        self._pause_accepting()

    def _pause_accepting(self) -> None:
        if self._listener is not None and self._listening:
            self._listening = False
            self._poller.unregister(self._listener.fileno())

    def _resume_accepting(self) -> None:
        if self._listener is not None and not self._listening and len(self._connections) < self.max_connections:
            try:
                self._poller.register(self._listener.fileno(), READ)
            except OSError as error:  # no memory for it: tried again at the next tick
                logs.limited("device.accept_failed", error=str(error))
                return
            self._listening = True

    # ------------------------------------------------------------------ read

    def _read(self, connection: Connection) -> None:
        if connection.call:
            # Commands are handled in order; until the answer is here, what follows waits in the kernel.
            self._set_mask(connection, connection.mask & ~READ)
            return
        undecided = 0
        if self._hand_over is not None and connection.phase == HANDSHAKE:
            kept = len(connection.reader) if isinstance(connection.reader, bytearray) else 0
            undecided = max(ENOUGH - kept, 0)  # bytes; what is behind them is left for who goes on
        try:
            data = os.read(connection.fd, undecided or _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        if not data:
            self._drop(connection)
            return
        if connection.phase == OPEN:
            connection.since = self._stamp
            self._frames(connection, data)
        elif connection.phase == HANDSHAKE:
            self._handshake(connection, data)
            if len(data) == undecided and connection.phase == HANDSHAKE and connection.fd >= 0:
                self._read(connection)  # it is a device
        else:
            self._discard(connection, data)

    def _handshake(self, connection: Connection, data: bytes) -> None:
        seen = 0
        request = None
        if connection.reader is not None:
            assert isinstance(connection.reader, bytearray)
            seen = len(connection.reader)
            data = bytes(connection.reader + data)
            connection.reader = None
        if self._hand_over is not None and for_app_servers(data):
            self._to_router(connection, data)
            return
        try:
            parsed = upgrade.parse(data, self._options.max_request_bytes, self._options.max_headers, seen)
            if parsed is None:
                connection.reader = bytearray(data)
                self._count(connection)
                return
            if seen:
                self._count(connection)
            request, rest = parsed
            path = request.path
            if path in PAGES and self._health is not None:
                full = len(self._connections) > self.max_connections
                self._finish(connection, self._health.answer(request, full, len(self.devices)))
                return
            dialect = self._dialects.get(path) or self._dialects.get(path[: path.rfind("/") + 1] + "*")
            if dialect is None:
                raise upgrade.Refusal(404, "no dialect is spoken on this path")
            upgrade.check_plain(request)
            accepted = upgrade.accept(request, self._options.origins)
            if self.draining or len(self._connections) > self.max_connections:
                self._counters.connections_refused += 1
                raise upgrade.Refusal(503, "full", Retry_After=str(self._options.retry_after))
            self._serial += 1
            request.socket_id = f"{self._origin}.{self._serial << _FD_BITS | connection.fd}"
            connection.session = session = dialect.opened(request)
        except upgrade.Refusal as refusal:
            self._counters.upgrades_refused += 1
            self._finish(connection, refusal.encode(request is not None and request.method == b"HEAD"))
            return
        protocol = dialect.subprotocol(upgrade.offered_subprotocols(request))
        connection.phase = OPEN
        self._counters.upgrades += 1
        first = dialect.first_tick
        connection.bucket = self._wheel.arm(connection.fd, first - (self.now - connection.since)) if first > 0 else None
        connection.since = self._stamp
        head = upgrade.switching(accepted, protocol)
        if hasattr(session, "begun"):
            self._perform(connection, _effects(session.begun, self.now), head)
        else:
            self._write(connection, head)
        if rest and connection.phase == OPEN:
            self._frames(connection, rest)

    def _to_router(self, connection: Connection, data: bytes) -> None:
        """This is an app server: the router goes on with its connection."""
        assert self._hand_over is not None
        if self._hand_over(connection.fd, data):
            self._counters.handed_over += 1
            self._drop(connection)
            return
        self._counters.upgrades_refused += 1
        wait = str(self._options.retry_after)
        self._finish(connection, upgrade.Refusal(503, "the router cannot take this now", Retry_After=wait).encode())

    def _frames(self, connection: Connection, data: bytes) -> None:
        options = self._options
        reader = connection.reader
        if reader is None:
            found = short_texts(data, options.max_message_bytes, options.frames_a_turn)
            if found is not None:
                texts, end = found
                self._texts(connection, texts)
                if end == len(data) and connection.held is None:  # the usual
                    if not self._commands.spend(connection.fd, len(texts)):
                        self._rest(connection)
                    return
                if connection.phase != OPEN:
                    self._discard(connection, data[end:])
                    return
                if end < len(data):
                    connection.reader = reader = FrameReader(options.max_message_bytes, options.max_fragments)
                    reader.keep(data[end:])
                self._settle(connection, len(texts), True)
                return
            reader = FrameReader(options.max_message_bytes, options.max_fragments)
            connection.reader = reader
        assert isinstance(reader, FrameReader)
        self._feed(connection, reader, data)

    def _texts(self, connection: Connection, texts: list[bytes]) -> None:
        for position, text in enumerate(texts):
            if connection.phase != OPEN:
                return
            if connection.call:
                connection.held = [(TEXT, held) for held in texts[position:]]
                return
            self._message(connection, text, False)

    def _feed(self, connection: Connection, reader: FrameReader, data: bytes) -> None:
        messages = reader.feed(data, self._options.frames_a_turn)
        self._dispatch(connection, messages)
        whole = any(opcode in (TEXT, BINARY) for opcode, _ in messages)
        self._settle(connection, reader.taken, whole or (bool(messages) and not reader.fragmented))

    def _settle(self, connection: Connection, frames: int, progress: bool) -> None:
        """Some of its input was handled: see what of it is left, when that has its turn, and how long it may take.

        progress: whether what is incomplete now has begun just now."""
        if connection.phase != OPEN:
            return
        reader = connection.reader
        if isinstance(reader, FrameReader) and reader.idle:
            connection.reader = reader = None
        if reader is None or progress:
            self._unfinished.pop(connection, None)
        if reader is not None:
            self._unfinished.setdefault(connection, self.now + self._options.message_timeout)
        self._count(connection)
        if connection.phase != OPEN:
            return
        if not self._commands.spend(connection.fd, frames):
            self._rest(connection)
        elif not connection.call and (connection.held is not None or (isinstance(reader, FrameReader) and reader.more)):
            self._later[connection] = None
            self._set_mask(connection, connection.mask & ~READ)

    def _rest(self, connection: Connection) -> None:
        """It asks for more than it may: what it sends next waits in the kernel."""
        if connection.phase == OPEN and connection not in self._resting:
            self._counters.rested += 1
            self._resting[connection] = None
            self._set_mask(connection, connection.mask & ~READ)

    def _rested(self) -> None:
        """A second is over: who may go on?"""
        self._commands.second()
        self._registrations.second()
        for connection in list(self._resting):
            if self._commands.may(connection.fd) and self._registrations.may(connection.fd):
                del self._resting[connection]
                self._later[connection] = None

    @property
    def waiting(self) -> bool:
        """Whether somebody's input waits for its turn: then nobody should sleep before `turn`."""
        return bool(self._later)

    @property
    def speaking(self) -> bool:
        """Whether events wait for their turn: then nobody should sleep before `speak`."""
        return bool(self._fan_outs)

    def speak(self) -> None:
        """Write the next slice of the events that wait."""
        self._events.turn(self.now)

    def turn(self) -> None:
        """Let each connection whose input is here already have its next turn."""
        later = self._later
        if not later:
            return
        self._later = {}
        for connection in later:
            try:
                self._go_on(connection)
            except Exception as error:
                self._broke(connection, error)

    def _dispatch(self, connection: Connection, messages: list[tuple[int, bytes]]) -> None:
        for position, (opcode, payload) in enumerate(messages):
            if connection.phase != OPEN:
                if any(opcode == CLOSE for opcode, _ in messages[position:]):
                    self._peer_closed(connection)
                return
            if connection.call:
                connection.held = messages[position:]
                return
            if opcode in (TEXT, BINARY):
                self._message(connection, payload, opcode == BINARY)
            elif opcode == PING:
                self._write(connection, encode_frame(PONG, payload))
            elif opcode == CLOSE:
                self._finish(connection, encode_frame(CLOSE, payload))
                return
        reader = connection.reader
        if isinstance(reader, FrameReader) and reader.error is not None and not connection.call:
            self._counters.protocol_errors += 1
            self.close(connection, reader.error.code, reader.error.reason)

    def _message(self, connection: Connection, payload: bytes, binary: bool) -> None:
        assert connection.session is not None
        self._perform(connection, _effects(connection.session.received, payload, binary, self.now))

    # ------------------------------------------------------------------ effects

    def _perform(self, connection: Connection, effects: Effects, head: bytes = b"") -> None:
        """Do what a session wants. head: to be written before anything else."""
        frames: list[bytes] = [head] if head else []
        try:
            closing = self._collect(connection, effects, frames)
        except Exception as error:  # effects may be made while they are performed
            closing = _failed(error)
        if closing is not None:
            self.close(connection, closing.code, closing.reason, frames)
        elif frames:
            self._write(connection, frames[0] if len(frames) == 1 else b"".join(frames))

    def _collect(self, connection: Connection, effects: Effects, frames: list[bytes]) -> Close | None:
        """Do all but writing and closing."""
        closing: Close | None = None
        for effect in effects:
            kind = type(effect)
            if kind is bytes:
                frames.append(encode_text(effect))  # type: ignore[arg-type]
            elif kind is tuple:
                self._said(connection, effect)  # type: ignore[arg-type]
            elif isinstance(effect, Call):
                self._attachments.call(connection, effect)
            elif isinstance(effect, Close):
                closing = effect
            elif effect is REGISTERED:
                if not self._registrations.spend(connection.fd):
                    self._rest(connection)
            elif isinstance(effect, Binary):
                frames.append(encode_frame(BINARY, effect.payload))
            elif isinstance(effect, Subscribe):
                done = self.subscriptions.join(connection, effect)
                if done is not None:
                    assert connection.session is not None
                    more = _effects(connection.session.replied, effect, *done, self.now)
                    closing = self._collect(connection, more, frames) or closing
            elif isinstance(effect, Unsubscribe):
                if self._fan_outs and (due := self._events.due(connection, (effect.key,))):
                    frames.insert(0, due)
                self.subscriptions.leave(connection, effect.key)
            elif isinstance(effect, Tick):
                connection.bucket = self._wheel.arm(connection.fd, effect.seconds)
            elif isinstance(effect, Become):
                connection.session = effect.session
                self._message(connection, effect.message, effect.binary)
        return closing

    def _said(self, connection: Connection, word: tuple[Any, ...]) -> None:
        self._tell(word)
        # What it removes from the store is what an ack costs.
        more = len(word[2]) - 1 if word[0] == v.ACK else 0
        if more > 0 and not self._commands.spend(connection.fd, more):
            self._rest(connection)

    def held_channels(self) -> Iterable[list[list[Any]]]:
        """The channels that are here, as the words ANNOUNCE_CHANNELS have them."""
        return self.subscriptions.held()

    def welcomed(self) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
        """The link is new. Returns: the devices that are here, as the words ANNOUNCE have them."""
        self._broadcasts.renewed()
        self._attachments.renewed()
        if self._health is not None:
            self._health.refusing = ""
        return self._attachments.held()

    def heard(self, words: list[Any]) -> None:
        """Words of the router."""
        self.now = self._monotonic()
        for word in words:
            try:
                self._word(word)
            except Exception as error:
                # Whoever it concerns may miss it; the others of this message do not.
                self._counters.words_failed += 1
                logs.limited("link.word_failed", at="error", per=type(error).__name__, exc=error)

    def _word(self, word: list[Any]) -> None:
        kind = word[0]
        if kind == v.DELIVER:
            self._deliver(word)
        elif kind == v.EVENT:
            self._event(word)
        elif kind == v.ANSWER:
            self._answered(word[1], word[2], word[3])
        elif kind == v.DELIVER_STORED:
            self._deliver_stored(word[1], word[2])
        elif kind == v.DISCONNECT:
            self._shed(self._attachments.shed(word[1]))
        elif kind == v.MEMBERS:
            self._events.changed(self.subscriptions.members(word), self.now)
        elif kind == v.TERMINATE:
            self._dismiss(word)
        elif kind == v.TELL_COUNTS:
            self.subscriptions.counts()
            self._tell((v.COUNTS_TOLD, word[1]))
        elif kind == v.BROADCAST:
            self._broadcasts.broadcast_changed(word[1], word[2], word[3])
        elif kind == v.BROADCASTS_SENT:
            self._broadcasts.told()
        elif kind == v.STORE_STATE:
            if self._health is not None:
                self._health.refusing = str(word[1])
        else:
            raise v.VocabularyError(f"unknown word {kind!r}")

    def _deliver(self, word: list[Any]) -> None:
        _, number, key, slot, version, body = word
        connection = self.devices.get(key)
        written = False
        if connection is None:
            self._counters.deliveries_missed += 1
        else:
            assert connection.session is not None
            try:
                text = connection.session.delivered(slot, version, body)
            except Exception as error:
                failed = _failed(error)
                self.close(connection, failed.code, failed.reason)
                text = None
            if text is not None:
                written = self._write(connection, encode_text(text))
        if number:  # else nobody waits for what became of it
            self._tell((v.RESULT, number, v.WRITTEN if written else v.NOT_HERE))

    def _deliver_stored(self, key: bytes, items: list[Any]) -> None:
        connection = self.devices.get(key)
        if connection is not None and connection.session is not None:
            stored = [Item(*item) for item in items]
            self._perform(connection, _effects(connection.session.stored, stored, self.now))

    def _answered(self, number: int, status: int, payload: Any) -> None:
        completed = self.subscriptions.replied(number, status, payload)
        if completed is not None:
            self._events.changed(completed.change, self.now)
            self._events.admit(completed, self.now)
            return
        if (overheard := self._attachments.overheard(number)) is not None:
            if status == v.OK and payload is not None:
                self._catch_up(overheard, payload)
            return
        for asked in self._attachments.readers(number):
            self._answer_one(asked, status, payload)

    def _catch_up(self, overheard: Overheard, payload: Any) -> None:
        """While the link was away a channel's last event may have become another than those subscribers have heard."""
        channel = self.subscriptions.get(overheard.channel)
        for connection, call in overheard.calls:
            session = connection.session
            if channel is None or session is None or connection not in channel.subscribers:
                continue
            effects = list(_effects(session.replied, call.context, v.OK, payload, self.now))
            if not (len(effects) == 1 and type(effects[0]) is bytes and hash(effects[0]) in overheard.heard):
                self._perform(connection, effects)

    def _answer_one(self, number: int, status: int, payload: Any) -> None:
        found = self._attachments.replied(number, status)
        if found is None:
            return
        connection, call, older = found
        if older is not None:
            self._shed(older)
        self._answer(connection, number, call.context, status, payload)

    def _answer(
        self,
        connection: Connection,
        number: int,
        context: Any,
        status: int,
        payload: Any,
        behind: Callable[[bool], bytes] | None = None,
    ) -> None:
        """behind: gives what is to be written behind the answer; with False without those that a record holds."""
        if connection.call != number:
            return
        connection.call = 0
        if connection.phase != OPEN:
            return
        assert connection.session is not None
        self._perform(connection, _effects(connection.session.replied, context, status, payload, self.now))
        if behind is not None and connection.phase == OPEN and (events := behind(not connection.call)):
            self._put(connection, events)
        self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        """What has come already is next, a turn's worth of it, then what waits in the kernel."""
        if connection.call or connection.phase != OPEN or connection in self._resting:
            return
        reader = connection.reader
        if (held := connection.held) is not None:
            connection.held = None
            self._dispatch(connection, held)
            self._settle(connection, len(held), False)
        elif isinstance(reader, FrameReader):
            self._feed(connection, reader, b"")
        if connection.phase == OPEN and not (
            connection.call or connection in self._later or connection in self._resting
        ):
            self._set_mask(connection, connection.mask | READ)

    def _shed(self, connection: Connection | None) -> None:
        """The newest connection of a device wins, wherever it is."""
        if connection is not None:
            self._counters.shed += 1
            self.close(connection, GOING_AWAY, "a newer connection of this device came")

    # ------------------------------------------------------------------ channels

    def _event(self, word: list[Any]) -> None:
        _, key, offset, body, exclude = word
        channel = self.subscriptions.get(key)
        if channel is None:
            return
        left_out = self._by_socket_id(exclude) if exclude else None
        self._events.event(channel, body, offset == v.LAST, left_out, self.now)
        if offset == v.LAST:
            for number in self._attachments.heard_last(key, body):
                self._answer_one(number, v.HEARD, None)

    def _by_socket_id(self, socket_id: str) -> Connection | None:
        """The connection of this name, if it is one of this worker."""
        origin, _, number = socket_id.partition(".")
        if origin != self._origin or not number.isdecimal() or len(socket_id) > _MAX_SOCKET_ID:
            return None
        connection = self._connections.get(int(number) & ((1 << _FD_BITS) - 1))
        if connection is None or getattr(connection.session, "socket_id", "") != socket_id:
            return None
        return connection

    def _dismiss(self, word: list[Any]) -> None:
        _, key, code, reason = word
        channel = self.subscriptions.get(key)
        if channel is not None:
            for connection in [*channel.subscribers, *(channel.hidden or ())]:
                self.close(connection, code, reason)

    # ------------------------------------------------------------------ write

    def _write(self, connection: Connection, data: bytes) -> bool:
        """Write, or buffer what the kernel does not take, behind what waits. Returns: whether the kernel has all."""
        if self._fan_outs and (due := self._events.due(connection)):
            data = due + data
        return self._put(connection, data)

    def _put(self, connection: Connection, data: bytes) -> bool:
        """Write, or buffer what the kernel does not take. Returns: whether the kernel has all of it."""
        if connection.out is not None:
            self._buffer(connection, data)
            return False
        try:
            sent = os.write(connection.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return False
        if sent == len(data):
            return True
        connection.out = bytearray()
        self._buffer(connection, data[sent:])
        return False

    def _buffer(self, connection: Connection, data: bytes) -> None:
        assert connection.out is not None
        options = self._options
        if len(connection.out) + len(data) > options.write_buffer_bytes:
            self._too_slow(connection)
            return
        connection.out += data
        self._deadlines.setdefault(connection, self.now + options.write_timeout)
        self._set_mask(connection, connection.mask | WRITE)
        self._count(connection)

    def _count(self, connection: Connection) -> None:
        """What waits for this connection has changed. If there is too much of all, those with most of it go."""
        if self._budget.count(connection) or self._making_room:
            return
        self._making_room = True
        try:
            for largest in self._budget.largest():
                self._give_up(largest)
        finally:
            self._making_room = False

    def _give_up(self, connection: Connection) -> None:
        self._counters.given_up += 1
        limit = self._options.max_buffered_bytes
        logs.limited("device.buffers_full", limit=limit, hint="worker.max_buffered_bytes")
        if connection.out is not None or connection.phase == CLOSING:
            self._too_slow(connection)
        elif connection.phase == HANDSHAKE:
            wait = str(self._options.retry_after)
            self._finish(connection, upgrade.Refusal(503, "full", Retry_After=wait).encode())
        else:
            self.close(connection, TRY_LATER, "too much is being sent to this server at once")

    def _flush(self, connection: Connection) -> None:
        out = connection.out
        if out is None:
            self._set_mask(connection, connection.mask & ~WRITE)
            return
        try:
            sent = os.write(connection.fd, out)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        del out[:sent]
        if out:
            self._count(connection)
            return
        connection.out = None
        self._count(connection)
        self._set_mask(connection, connection.mask & ~WRITE)
        if connection.phase != CLOSING:
            self._deadlines.pop(connection, None)
        elif connection.reader is None:
            self._shut(connection)

    def _too_slow(self, connection: Connection) -> None:
        """It does not read. A close frame could not reach it either; its messages are in the store."""
        self._counters.slow_closed += 1
        logs.debug("device.slow", fd=connection.fd)
        self._drop(connection)

    def _set_mask(self, connection: Connection, mask: int) -> None:
        if connection.mask != mask and connection.fd >= 0:
            connection.mask = _MASKS[mask]
            self._poller.change(connection.fd, mask)

    # ------------------------------------------------------------------ close

    def close(self, connection: Connection, code: int, reason: str, before: list[bytes] | None = None) -> None:
        """Send `before` and a close frame. Once the peer's close frame has come too, TCP is closed (RFC 6455 7.1.1):
        to end it before that makes the close an unclean one for the peer, which may count it as a failure."""
        if connection.phase == CLOSING or connection.fd < 0:
            return
        finder: CloseFinder | None = CloseFinder()
        assert finder is not None
        reader = connection.reader
        if any(opcode == CLOSE for opcode, _ in connection.held or ()) or (
            isinstance(reader, FrameReader) and finder.feed(reader.rest)
        ):
            finder = None
        due = self._events.due(connection) if self._fan_outs else b""
        self._finish(connection, b"".join((due, *(before or ()), encode_close(code, reason))), finder)

    def _finish(self, connection: Connection, last: bytes, finder: CloseFinder | None = None) -> None:
        """Send the last bytes. finder: looks for the peer's close frame, and no more is said until it has come.

        Then our direction is shut, and the peer ends the connection, or the close timeout does: to close at once
        while something of the peer's is unread would reset the connection and could swallow what was sent."""
        if connection.phase == CLOSING or connection.fd < 0:
            return
        self._forget(connection)
        connection.phase = CLOSING
        connection.reader = finder
        connection.held = None
        connection.call = 0
        self._later.pop(connection, None)
        self._resting.pop(connection, None)
        self._unfinished.pop(connection, None)
        self._count(connection)
        self._deadlines[connection] = self.now + self._options.close_timeout
        if not self._write(connection, last):
            if connection.fd >= 0:
                self._set_mask(connection, connection.mask | READ)
        elif finder is None:
            self._shut(connection)
        else:
            self._set_mask(connection, READ)

    def _discard(self, connection: Connection, data: bytes) -> None:
        """Something came on a connection that is being closed."""
        finder = connection.reader
        if not isinstance(finder, CloseFinder):
            return
        if finder.feed(data):
            self._peer_closed(connection)
        elif finder.frames >= _DISCARDED:  # a flood of small ones: the rest is looked at in the next tick
            finder.frames = 0
            self._discarding.append(connection)
            self._set_mask(connection, connection.mask & ~READ)

    def _peer_closed(self, connection: Connection) -> None:
        """The peer's close frame has come, and ours is out or on its way."""
        if connection.fd >= 0 and connection.reader is not None:
            connection.reader = None
            if connection.out is None:
                self._shut(connection)

    def _forget(self, connection: Connection) -> None:
        """Nothing that is said from here on is for this connection."""
        for key in getattr(connection.session, "channels", ()):
            self.subscriptions.leave(connection, key)
        self._attachments.forget(connection)

    def _shut(self, connection: Connection) -> None:
        if not half_close(connection.fd):
            self._drop(connection)
            return
        self._set_mask(connection, READ)

    def _drop(self, connection: Connection) -> None:
        """Close the descriptor now."""
        fd = connection.fd
        if fd < 0:
            return
        connection.fd = -1
        try:
            self._forget(connection)
        finally:
            connection.phase = CLOSING
            connection.call = 0
            connection.held = connection.reader = connection.out = None
            del self._connections[fd]
            for table in (self._deadlines, self._later, self._resting, self._unfinished):
                table.pop(connection, None)
            self._budget.forget(connection)
            self._commands.forget(fd)
            self._registrations.forget(fd)
            self._poller.unregister(fd)
            os.close(fd)
            self._counters.disconnects += 1

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """To be called several times a second."""
        self.now = self._stamp = now = self._monotonic()
        while self._wheel_due <= now:
            self._wheel_due += _TICK_S
            self._wheel.advance(self._fire)
        for connection, deadline in list(self._deadlines.items()):
            if deadline <= now:
                if connection.phase == CLOSING:
                    self._drop(connection)
                else:
                    self._too_slow(connection)
        discarding, self._discarding = self._discarding, []
        for connection in discarding:
            self._set_mask(connection, connection.mask | READ)
        for connection in self._overdue(now):
            self._counters.timeouts += 1
            self.close(connection, POLICY, "a message took too long")
        for fd in self._keepalive.due(now):
            self._keep_alive(fd)
        for connection, effects in self._broadcasts.step(self._connections):
            self._perform(connection, effects)
        self._ticks += 1
        if self._ticks % _COUNT_TICKS == 0:
            self.subscriptions.counts()
            self._events.count(now)
            self._rested()
        self._resume_accepting()
        self._counters.connections = len(self._connections)
        self._counters.channels = len(self.subscriptions)
        self._counters.buffered = self._budget.total

    def _overdue(self, now: float) -> list[Connection]:
        """Those who began a message long ago. One that was not read meanwhile has more time."""
        found = []
        for connection, deadline in list(self._unfinished.items()):
            if deadline > now:
                break
            if connection.mask & READ and not connection.call:
                found.append(connection)
            else:
                del self._unfinished[connection]
                self._unfinished[connection] = now + self._options.message_timeout
        return found

    def _keep_alive(self, fd: int) -> None:
        """Ping a device that was silent for long: one that is gone does not acknowledge it, and TCP then gives up."""
        connection = self._connections.get(fd)
        if connection is None or connection.phase != OPEN or connection.out is not None:
            return
        if self.now - connection.since >= self._options.keepalive:
            self._write(connection, _PING)

    def _fire(self, fd: int, bucket: Bucket) -> None:
        connection = self._connections.get(fd)
        if connection is None or connection.bucket is not bucket:
            return
        connection.bucket = None
        if connection.phase == HANDSHAKE:
            self._counters.timeouts += 1
            if connection.reader:
                self._finish(connection, upgrade.Refusal(408, "the request took too long").encode())
            else:
                self._drop(connection)
        elif connection.phase == OPEN and connection.session is not None:
            try:
                effects, again = connection.session.tick(self.now - connection.since)
            except Exception as error:
                effects, again = (_failed(error),), 0.0
            self._perform(connection, effects)
            if again and connection.phase == OPEN:
                connection.bucket = self._wheel.arm(fd, again)

    # ------------------------------------------------------------------ the whole

    def __len__(self) -> int:
        return len(self._connections)

    def open_connections(self) -> list[Connection]:
        """Connections that are not closing yet."""
        return [c for c in self._connections.values() if c.phase != CLOSING]

    def let_go(self, connection: Connection) -> None:
        """Close one connection because the worker goes."""
        if connection.phase == HANDSHAKE:
            self._drop(connection)
        else:
            self.close(connection, *getattr(connection.session, "farewell", _FAREWELL))

    def drop_all(self) -> None:
        """Close every descriptor now."""
        self.stop_listening()
        for connection in list(self._connections.values()):
            self._drop(connection)


def _effects(told: Callable[..., Effects], *what: Any) -> Effects:
    """Tell a session something. A defect in one dialect must cost one connection, not a shard."""
    try:
        return told(*what)
    except Exception as error:
        return (_failed(error),)


def _failed(error: Exception) -> Close:
    logs.limited("dialect.failed", at="error", per=type(error).__name__, exc=error)
    return Close(INTERNAL, "internal error")
