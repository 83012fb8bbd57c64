"""The device sockets of a worker, its parts wired: accept, answer, park, read, write, close.

A parked connection is one struct, its session, a descriptor in the poller's epoll and its places in two tables: no
task, no parser, no buffer, no timer of its own. Buffers exist only while something is incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from farm.dialects import Call, Dialect, Session
from farm.settings import WorkerOptions
from farm.worker.acceptor import Acceptor
from farm.worker.address_limits import AddressLimits, Registrations
from farm.worker.addresses import Addresses
from farm.worker.admission import Admissions
from farm.worker.attachments import Attachments
from farm.worker.backpressure import Backpressure
from farm.worker.beginning import Beginning
from farm.worker.broadcasts import BroadcastScan
from farm.worker.clock import Clock
from farm.worker.connection import CLOSING, HANDSHAKE, IDLE, Connection
from farm.worker.device_log import DeviceLog, LoggedOutput
from farm.worker.edge import PLAIN_EDGE, Edge
from farm.worker.effects import Performer, effects_of
from farm.worker.encoded import join
from farm.worker.events import Events
from farm.worker.fanout import FanOuts
from farm.worker.fd_passing import FdSender
from farm.worker.grants import Grants
from farm.worker.health import Health
from farm.worker.inbound import Inbound
from farm.worker.inspections import Inspections
from farm.worker.interest import Interest
from farm.worker.local_channel import LocalChannel
from farm.worker.output import Output
from farm.worker.relays import Relays
from farm.worker.router_messages import RouterMessages
from farm.worker.routes import Routes
from farm.worker.socket_ids import SocketIds
from farm.worker.subscriptions import Subscriptions
from farm.worker.table import Table
from farm.worker.timers import Timers
from farm.worker.turns import Turns
from farm.worker.wheel import Wheel
from router.common import logs
from router.common import messages as m
from router.common.auth_settings import AuthOptions
from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.poller import BROKEN, ENDED, READ, WRITE, Poller
from router.common.settings import Log

_NO_AUTH: Final = AuthOptions()
_NO_LOG: Final = Log()
_ONE: Final = Routes()
_NO_PROXIES: Final = Networks(())
_GO_ON: Final = 256
"""Connections that have waited for a router, and go on in one turn."""
_TICK_S: Final = 0.25
_WHEEL_SLOTS: Final = 4096
_COUNT_TICKS: Final = 4  # subscribers are counted once a second
_JOINED_PART: Final = 4
"""Of the buffer of a device that does not read, this part may be one write of events that have waited."""
_PAGE_PART: Final = 4
"""And this part a page of a log."""


class Sockets:
    """All connections of one worker. No trio and no zmq: the caller waits; `send` takes messages for the router."""

    def __init__(
        self,
        poller: Poller,
        options: WorkerOptions,
        dialects: dict[str, Dialect],
        counters: WorkerCounters,
        max_connections: int,
        send: Callable[[Any], None],
        monotonic: Callable[[], float],
        by_name: Mapping[str, Dialect],
        fd_sender: FdSender | None = None,
        health: Health | None = None,
        limits: LimitOptions | None = None,
        asked_about: Mapping[Dialect, str] = MappingProxyType({}),
        auth: AuthOptions = _NO_AUTH,
        routes: Routes = _ONE,
        common_clock: Callable[[], float] | None = None,
        workers: int = 1,
        proxies: Networks = _NO_PROXIES,
        edge: Edge = PLAIN_EDGE,
        log: Log = _NO_LOG,
    ) -> None:
        """fd_sender: passes connections of app servers on; None: there are only devices. asked_about: dialects about
        whose clients the main server is asked, and how it knows them. routes: to the routers. common_clock: says when
        a device came, wherever it did; None: `monotonic` does. workers: that the connections of an address are spread
        over. proxies: they have no limits of addresses. edge: what comes before a request.
        log: of which connections there is to be a line at their end."""
        self._counters = counters
        self.connections = connections = Table()
        self.clock = clock = Clock(monotonic)
        self.wheel = wheel = Wheel(_WHEEL_SLOTS, _TICK_S)
        interest = Interest(poller)
        watch = interest.watch
        self._backpressure = waiting = Backpressure(routes, lambda one: watch(one, one.mask & ~READ))
        limits = limits or LimitOptions()
        address_limits = AddressLimits.of(limits, workers, ClientKeys(proxies), counters, clock)
        key_of = None if address_limits is None else address_limits.key
        shared = Registrations.of(limits, key_of, counters, clock)
        self.turns = turns = Turns(options, limits, counters, clock, watch, waiting, shared)
        self._attachments = attachments = Attachments(send, common_clock or monotonic, waiting, counters.hello_seconds)
        self.devices = attachments.devices
        self.addresses = addresses = Addresses(edge.forwarding)
        wire, openings, tls = edge.wire, edge.openings, edge.tls
        self._openings, self._tls = openings, tls
        self.grants = grants = Grants(
            asked_about, auth, bool(options.origins), options.retry_after, counters, clock, send, attachments.number_of
        )
        fan_outs: FanOuts[LocalChannel, Connection] = FanOuts(options.write_buffer_bytes // _JOINED_PART, join)
        self._fan_outs = fan_outs.going
        self.subscriptions = subscriptions = Subscriptions(
            send,
            attachments.number,
            fan_outs,
            options.max_held_bytes,
            options.write_buffer_bytes // _PAGE_PART,
            routes,
            options.position_overlap,
        )
        device_log = DeviceLog.of(log, clock, addresses.of)
        self.output = output = (Output if device_log is None else partial(LoggedOutput, device_log))(
            connections,
            poller,
            interest,
            clock,
            options,
            counters,
            turns,
            wheel,
            attachments,
            subscriptions,
            grants,
            addresses,
            fan_outs.going,
            address_limits,
            wire,
            openings,
        )
        self._performer = performer = Performer(
            output, turns, attachments, subscriptions, grants, wheel, clock, send, fan_outs.going, waiting
        )
        self._inbound = inbound = Inbound(
            options, counters, clock, interest, turns, output, performer, wire, () if openings is None else openings
        )
        self.events = events = Events(
            subscriptions,
            fan_outs,
            options,
            counters,
            by_name,
            output.drop,
            output.put,
            output.answered,
            output.buffer,
            wire.write,
            output.close,
            inbound.subscribed,
        )
        output.due = events.due
        trackers = {name: tracker for name, dialect in by_name.items() if (tracker := dialect.broadcasts) is not None}
        broadcasts = BroadcastScan(trackers)
        self._timers = Timers(
            connections, clock, wheel, options, counters, turns, output, performer, broadcasts, grants
        )
        lag = (lambda: health.lag) if health is not None else float
        meet = self._timers.meet if device_log is None else device_log.meeting(self._timers.meet)
        self._acceptor = Acceptor(
            connections,
            poller,
            clock,
            options,
            counters,
            max_connections,
            addresses,
            meet,
            lag,
            limits,
            address_limits,
            openings,
            tls is not None,
        )
        if openings is not None:
            Beginning(connections, openings, tls, addresses, address_limits, interest, output, inbound, counters)
        self.relays = relays = (
            None if tls is None else Relays(poller, tls, edge.max_relayed, clock, options.close_timeout, counters)
        )
        socket_ids = SocketIds(connections)
        self._admissions = Admissions(
            dialects,
            options,
            counters,
            clock,
            wheel,
            self._acceptor,
            socket_ids,
            output,
            performer,
            inbound,
            attachments,
            turns,
            grants,
            addresses,
            health,
            fd_sender,
            address_limits,
            () if tls is None else tls,
            relays,
        )
        self.inspections = inspections = Inspections(connections, attachments, clock, send, addresses.of)
        messages = RouterMessages(
            counters,
            clock,
            send,
            attachments,
            subscriptions,
            socket_ids,
            output,
            performer,
            inbound,
            events,
            broadcasts,
            grants,
            health,
            routes,
            inspections,
        )
        self._ticks = 0
        self._rows = connections.rows
        self._read = inbound.read
        self.close = output.close
        self.listen = self._acceptor.listen
        self.stop_listening = self._acceptor.stop
        self.received = messages.received
        self.welcomed = messages.welcomed
        self.on_placements = messages.on_placements

    # ------------------------------------------------------------------ events of epoll

    def ready(self, fd: int, events: int) -> None:
        """Handle an event of epoll for one descriptor."""
        rows = self._rows
        connection = rows[fd] if fd < len(rows) else None
        if connection is None:
            if not self._acceptor.ready(fd) and self.relays is not None:
                self.relays.ready(fd, events)
            return
        try:
            if events & WRITE:
                self.output.flush(connection)
                if connection.fd < 0:
                    return
            if events & ENDED:
                self._inbound.read_last(connection)
            elif events & READ:
                self._read(connection)
            elif events & BROKEN:
                self.output.drop(connection)
        except Exception as error:
            self._broke(connection, error)

    def ready_but_not_read(self, fd: int, events: int) -> None:
        """The same where devices may not send more: buffered output is written, and closing connections end."""
        connection = self.connections.get(fd)
        if connection is not None:
            self.ready(fd, events if connection.phase == CLOSING else events & ~READ)
        elif self.relays is not None:
            self.relays.ready(fd, events)

    def ready_where_routers_keep_up(self, fd: int, events: int) -> None:
        """The same for those connections whose router does not keep up, while others do."""
        connection = self.connections.get(fd)
        if connection is not None and events & READ and self._backpressure.withholds(connection):
            self.ready_but_not_read(fd, events)
        else:
            self.ready(fd, events)

    def keeps_up(self, shut: frozenset[int]) -> None:
        """These of several routers do not keep up, and all others do."""
        self._backpressure.shut = shut

    def _broke(self, connection: Connection, error: Exception) -> None:
        """Drop a connection whose handling has raised an error; the others go on."""
        self._counters.connections_failed += 1
        logs.limited("device.failed", at="error", per=type(error).__name__, exc=error)
        self.output.drop(connection, "an error of the worker")

    # ------------------------------------------------------------------ turns

    def begin_turn(self, now: float) -> None:
        """A turn of the worker's loop begins at this time."""
        self.clock.now = now
        if self._openings is not None:
            self._openings.begin_turn()

    @property
    def waiting(self) -> bool:
        """Whether input waits for its turn: then `turn` is to be called before the next sleep."""
        return bool(self.turns) or self._backpressure.due

    @property
    def speaking(self) -> bool:
        """Whether events wait for their turn: then `speak` is to be called before the next sleep."""
        return self.events.waiting

    def speak(self) -> None:
        """Write the next slice of the events that wait."""
        self.events.turn(self.clock.now)

    def turn(self) -> None:
        """Handle input that is here already, of each connection no more than in one turn."""
        if self._backpressure.due:
            self._routers_keep_up()
        if not self.turns:
            return
        shut = self._backpressure.shut
        for connection in self.turns.next():
            if shut and self._backpressure.withholds(connection):
                continue
            try:
                self._inbound.go_on(connection)
            except Exception as error:
                self._broke(connection, error)

    def _routers_keep_up(self) -> None:
        for connection, effect in self._backpressure.next(_GO_ON):
            try:
                if effect is not None:
                    connection.call = 0
                    if connection.phase == HANDSHAKE:
                        assert isinstance(effect, Call)
                        self._attachments.call(connection, effect)
                    else:
                        self._performer.perform(connection, (effect,))
                self._inbound.go_on(connection)  # unless it waits for a reply now
            except Exception as error:
                self._broke(connection, error)

    def tick(self) -> None:
        """To be called several times a second."""
        self._timers.tick()
        self._ticks += 1
        if self._ticks % _COUNT_TICKS == 0:
            self.subscriptions.counts(self._backpressure.shut)
            self.events.count(self.clock.now)
            self.turns.second()
        self._acceptor.resume()
        self._counters.connections = len(self.connections)
        self._counters.channels = len(self.subscriptions)
        self._counters.buffered = self.output.budget.total
        if self._tls is not None:
            self._counters.tls_connections = len(self._tls)
            self._counters.handshakes = self._tls.handshakes
            self._counters.handshakes_resumed = self._tls.resumed
        if self.relays is not None:
            self.relays.tick()

    @property
    def held_back(self) -> bool:
        """Whether new connections wait for `limits.setups_per_second`: then `admit` is to be called until the next
        tick, again and again."""
        return self._acceptor.held_back

    def admit(self) -> None:
        """Accept as many as may be by now."""
        self.clock.read()
        self._acceptor.resume()

    # ------------------------------------------------------------------ the whole

    def __len__(self) -> int:
        return len(self.connections)

    @property
    def relaying(self) -> bool:
        """Whether any connection of an app server is relayed to a router."""
        return self.relays is not None and len(self.relays) > 0

    @property
    def draining(self) -> bool:
        """Whether this worker lets its devices go, and admits none."""
        return self._admissions.draining

    def drain(self) -> None:
        """Accept no more connections."""
        self._admissions.draining = True
        if self.relays is not None:
            self.relays.draining = True
        self._acceptor.stop()

    def held_channels(self, router: int = 0) -> Iterable[list[m.HeldChannel]]:
        """The channels of a router that are here, as ANNOUNCE_CHANNELS has them."""
        self.events.renewed(router)
        return self.subscriptions.held(router)

    def open_connections(self) -> list[Connection]:
        """Connections that are not closing yet."""
        return [c for c in self.connections.values() if c.phase != CLOSING]

    def let_go(self, connection: Connection) -> None:
        """Close one connection because the worker is about to stop. One that has ended or closes is left alone."""
        if connection.phase == CLOSING:
            return
        self._counters.let_go += 1
        if connection.phase == HANDSHAKE and connection.call:
            self.output.refuse_full(connection)
        elif connection.phase in (HANDSHAKE, IDLE):
            self.output.drop(connection, "the worker ends")
        else:
            if connection.session is not None:
                self._performer.perform(connection, effects_of(connection.session.unanswered))
            self.close(connection, *(Session if connection.session is None else connection.session).farewell)
            if connection.phase == IDLE:  # it has its answer, and there will be no next request
                self.output.finish(connection, b"")

    def drop_all(self) -> None:
        """Close every descriptor now."""
        self._acceptor.stop()
        if self.relays is not None:
            self.relays.close()
        for connection in list(self.connections.values()):
            self.output.drop(connection, "the worker ends")
