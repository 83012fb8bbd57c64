"""The request that a connection begins with: parsed, given to a dialect and answered, at once or after a call to the
router."""

from __future__ import annotations

import socket
from collections.abc import Container, Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Final, NamedTuple

from farm.dialects import Accept, Admission, Call, Dialect, Opened
from farm.settings import WorkerOptions
from farm.transports import Headers, Transport
from farm.transports.frames import BINARY
from farm.transports.request import OPTIONS, Refusal, Request, Response, check_origin, check_plain, offered_subprotocols
from farm.transports.retry import spread
from farm.worker.acceptor import TURNED_AWAY, Acceptor
from farm.worker.address_limits import AddressLimits
from farm.worker.addresses import Addresses
from farm.worker.attachments import Attachments
from farm.worker.clock import Clock
from farm.worker.connection import HANDSHAKE, IDLE, OPEN, Connection
from farm.worker.effects import Performer, effects_of
from farm.worker.fd_passing import FdSender
from farm.worker.grants import Grants
from farm.worker.health import Health
from farm.worker.inbound import Inbound
from farm.worker.output import Output
from farm.worker.paths import Paths
from farm.worker.relays import Relays
from farm.worker.sniff import ENOUGH
from farm.worker.socket_ids import SocketIds
from farm.worker.turns import Turns
from farm.worker.wheel import Wheel
from router.common import logs
from router.common import messages as m
from router.common.forwarded import ForwardedError
from router.common.health import PAGES
from router.common.http_head import END
from router.common.metrics import WorkerCounters
from router.common.poller import INPUT, READ
from router.common.refusals import DEFECT, MALFORMED, NO_DIALECT, NO_ROOM, OTHER_METHOD, ROUTER_BUSY, TOO_FAST

_GRANT: Final = object()
"""The context of the question to the main server: its reply is not for the dialect."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PASSED_ON: Final = "passed on to a router"


class _Asked(NamedTuple):
    """A request that waits for the reply of the router."""

    dialect: Dialect
    transport: Transport
    request: Request
    context: Any


class Admissions:
    """Reads requests and has them answered.

    addresses: of peers by descriptor, as the acceptor gives them. fd_sender: passes connections of app servers on;
    None: there are only devices.
    """

    def __init__(
        self,
        dialects: Mapping[str, Dialect],
        options: WorkerOptions,
        counters: WorkerCounters,
        clock: Clock,
        wheel: Wheel,
        acceptor: Acceptor,
        socket_ids: SocketIds,
        output: Output,
        performer: Performer,
        inbound: Inbound,
        attachments: Attachments,
        turns: Turns,
        grants: Grants,
        addresses: Addresses,
        health: Health | None,
        fd_sender: FdSender | None,
        limits: AddressLimits | None = None,
        tls: Container[int] = (),
        relays: Relays | None = None,
    ) -> None:
        self._paths = Paths(dialects)
        self._options = options
        self._counters = counters
        self._clock = clock
        self._wheel = wheel
        self._acceptor = acceptor
        self._socket_ids = socket_ids
        self._output = output
        self._performer = performer
        self._inbound = inbound
        self._attachments = attachments
        self._turns = turns
        self._grants = grants
        self._addresses = addresses
        self._health = health
        self._fd_sender = fd_sender
        self._limits = limits
        self._tls = tls
        self._relays = relays
        self.draining = False
        inbound.handshake = self.handshake
        inbound.waits = self._waits
        inbound.admit = self._admitted
        inbound.undecided = self._undecided if fd_sender is not None else None

    def _undecided(self, connection: Connection) -> int:
        """Bytes that may be read until it is known whether this is a device; the rest is left for the router."""
        if connection.fd in self._tls:  # it is relayed: nothing has to be left
            return 0
        kept = len(connection.reader) if isinstance(connection.reader, bytearray) else 0
        return max(ENOUGH - kept, 0)

    # ------------------------------------------------------------------ the request

    def handshake(self, connection: Connection, data: bytes) -> None:
        """Bytes of a connection that is not open yet, or not any more."""
        seen = 0
        if connection.reader is not None:
            assert isinstance(connection.reader, bytearray)
            kept = connection.reader
            data = bytes(kept + data)
            if connection.phase == HANDSHAKE and END not in kept:
                seen = len(kept)
        if connection.phase == IDLE and not self._next(connection, data):
            return
        counted, connection.reader = connection.reader is not None, None
        if self._fd_sender is not None and self._fd_sender.claims(data):
            self._to_router(connection, data, self._fd_sender)
            return
        options = self._options
        request = None
        try:
            parsed = connection.transport.request(data, options.max_request_bytes, options.max_headers, seen)
            if parsed is None:
                self._keep(connection, data)
                return
            if counted:
                self._output.count(connection)
            request, rest = parsed
            path = request.path
            if path in PAGES and self._health is not None:
                clients = len(self._attachments.devices)
                self._output.finish(connection, self._health.answer(request, self._acceptor.full, clients))
                return
            dialect = self._paths.find(path, request.query)
            if dialect is None:
                raise Refusal.of(NO_DIALECT)
            length = request.length
            check_plain(request, dialect.methods, dialect.max_body if length else 0)
            transport = dialect.transport(request)
            transport.check(request)
            if transport.for_pages:
                check_origin(request, options.origins)
            if connection is self._performer.leaving and transport.two_way:
                self._output.drop(connection)
                return
            if self.draining or self._acceptor.full:
                self._counters.connections_refused += 1
                raise Refusal.of(NO_ROOM, Retry_After=spread(options.retry_after))
            if self._addresses.accepted.get(connection.fd) is TURNED_AWAY:
                self._counters.setups_refused += 1
                raise Refusal.of(TOO_FAST, Retry_After=spread(options.retry_after))
            request.address = self._addresses.requested(connection.fd, request.headers)
            if self._limits is not None and not self._limits.arrived(connection.fd, request.address):
                self._output.drop(connection, "a limit of its address")
                return
            if self._limits is not None and (refused := self._limits.refusal(connection.fd)) is not None:
                raise Refusal.of(
                    refused.answer, Retry_After=str(ceil(refused.wait)) if refused.wait else spread(options.retry_after)
                )
            if length:
                if len(rest) < length:
                    if request.expects and not rest:
                        self._output.put(connection, _CONTINUE)
                    self._keep(connection, data)
                    return
                request.body, rest = rest[:length], rest[length:]
            request.socket_id = self._socket_ids.new(connection.fd)
            question = self._grants.question(dialect, request, transport.for_scripts) if self._grants.asks else None
            opened = dialect.opened(request) if question is None else Admission(Call(question, _GRANT))
            if request.method == OPTIONS and not isinstance(opened, Response):
                raise TypeError("OPTIONS begins nothing: it is answered with a Response")
        except Refusal as refusal:
            self._refuse(connection, refusal, request)
            return
        except ForwardedError as error:
            self._refuse(connection, Refusal.of(MALFORMED, str(error)), request)
            return
        except Exception as error:
            self._failed(connection, error, request)
            return
        self._proceed(connection, dialect, transport, request, opened, rest)

    def _keep(self, connection: Connection, data: bytes) -> None:
        """The request is not whole."""
        if connection.fd >= 0:
            connection.reader = bytearray(data)
            self._output.count(connection)

    def _next(self, connection: Connection, data: bytes) -> bool:
        """Another request begins on a connection. Returns: whether it is within the rate of commands."""
        if not self._turns.may(connection):
            self._keep(connection, data)
            self._turns.throttle(connection)
            return False
        self._turns.spend(connection.fd, 1)
        connection.phase = HANDSHAKE
        connection.since = self._clock.now
        connection.bucket = self._wheel.arm(connection.fd, self._options.handshake_timeout)
        return True

    # ------------------------------------------------------------------ the answer

    def _proceed(
        self,
        connection: Connection,
        dialect: Dialect,
        transport: Transport,
        request: Request,
        opened: Opened,
        rest: bytes,
        waited: bool = False,
    ) -> None:
        """waited: it has waited for the router, and its deadline is set."""
        headers: Headers = ()
        if isinstance(opened, tuple):
            if isinstance(opened, Accept):
                opened, headers, another = opened
                transport = another or transport
            elif isinstance(opened, Response):
                self._whole(connection, opened, request)
                return
            else:
                if not waited:
                    connection.bucket = self._wheel.arm(connection.fd, self._options.admission_timeout)
                asked = _Asked(dialect, transport, request, opened.call.context)
                self._ask(connection, opened.call, asked, rest)
                return
        session = connection.session = opened
        try:
            if request.method == b"HEAD":
                raise Refusal.of(OTHER_METHOD, "HEAD is not understood here", Allow="GET")
            head = transport.head(request, dialect.subprotocol(offered_subprotocols(request)), headers)
        except Refusal as refusal:
            self._refuse(connection, refusal, request)
            return
        except Exception as error:
            self._failed(connection, error, request)
            return
        connection.phase = OPEN
        connection.transport = transport
        if request.grant is not None:
            self._grants.begin(connection, dialect, request)
        self._counters.upgrades += 1
        first = dialect.first_tick
        passed = self._clock.now - connection.since
        connection.bucket = self._wheel.arm(connection.fd, first - passed) if first > 0 else None
        connection.since = self._clock.stamp
        if rest and transport.keeps_alive:
            connection.reader = bytearray(rest)
            self._output.count(connection)
            rest = b""
            if connection.phase != OPEN:
                return
        self._performer.perform(connection, effects_of(session.begun, self._clock.now), head)
        if rest and connection.phase == OPEN:
            self._inbound.frames(connection, rest)

    def _whole(self, connection: Connection, response: Response, request: Request) -> None:
        try:
            data = response.encode(request.method == b"HEAD")
        except Exception as error:
            self._failed(connection, error, request)
            return
        if response.status >= HTTPStatus.BAD_REQUEST:
            self._counters.upgrades_refused += 1
        self._output.finish(connection, data)

    def _refuse(self, connection: Connection, refusal: Refusal, request: Request | None) -> None:
        self._counters.upgrades_refused += 1
        self._output.finish(connection, connection.transport.refusal(refusal, request))

    def _failed(self, connection: Connection, error: Exception, request: Request | None) -> None:
        """A defect of the dialect."""
        logs.limited("dialect.failed", at="error", per=type(error).__name__, exc=error)
        self._refuse(connection, Refusal.of(DEFECT), request)

    # ------------------------------------------------------------------ what the router is asked first

    def _ask(self, connection: Connection, call: Call, asked: _Asked, rest: bytes) -> None:
        """Park the request until the router has replied."""
        if isinstance(call.request, m.Attach):
            self._failed(connection, TypeError("there is no session yet that could attach"), asked.request)
            return
        if rest:
            connection.reader = bytearray(rest)
        if asked.request.body:
            self._turns.held[connection] = [(BINARY, asked.request.body)]
        if rest or asked.request.body:
            self._output.count(connection)
            if connection.phase != HANDSHAKE:
                return
        self._attachments.call(connection, call._replace(context=asked))

    def _waits(self, connection: Connection) -> int:
        """Something has come behind a request that waits. A client that ends its direction while the main server is
        asked is gone, as for other gateways: it must not keep a place that another could have (`auth.max_waiting`)."""
        if not self._attachments.asks(connection):
            return READ
        if connection is self._performer.leaving:
            self._output.drop(connection)
        return INPUT

    def _admitted(self, connection: Connection, asked: _Asked, status: int, payload: Any) -> None:
        """The router has replied."""
        rest = b""
        if connection.reader is not None:
            assert isinstance(connection.reader, bytearray)
            rest, connection.reader = bytes(connection.reader), None
        self._turns.held.pop(connection, None)
        self._output.count(connection)
        dialect, transport, request, context = asked
        try:
            if context is _GRANT:
                request.grant = self._grants.grant(dialect, status, payload)
                opened = dialect.opened(request)
            else:
                opened = dialect.admitted(request, context, status, payload)
        except Refusal as refusal:
            self._refuse(connection, refusal, request)
            return
        except Exception as error:
            self._failed(connection, error, request)
            return
        self._proceed(connection, dialect, transport, request, opened, rest, True)
        self._inbound.go_on(connection)

    # ------------------------------------------------------------------ app servers

    def _to_router(self, connection: Connection, data: bytes, fd_sender: FdSender) -> None:
        """Pass the connection of an app server on to the router."""
        fd, mask = connection.fd, connection.mask
        if fd in self._tls:
            if (ours := self._passed_end(fd, fd_sender)) is not None and self._relays is not None:
                self._counters.handed_over += 1
                self._output.release(connection, _PASSED_ON)
                self._relays.begin(fd, mask, ours, data)
                return
        elif fd_sender.give(fd, data, self._addresses.of_connection(fd) if self._addresses.differs(fd) else ""):
            self._counters.handed_over += 1
            self._output.drop(connection, _PASSED_ON)
            return
        refusal = Refusal.of(ROUTER_BUSY, Retry_After=spread(self._options.retry_after))
        self._refuse(connection, refusal, None)

    def _passed_end(self, fd: int, fd_sender: FdSender) -> socket.socket | None:
        """Our end of a pair whose other one a router has now; None: it could not be passed."""
        pair = None if self._relays is None else self._relays.pair()
        if pair is None:
            return None
        ours, theirs = pair
        with theirs:
            if fd_sender.give(theirs.fileno(), b"", self._addresses.of_connection(fd)):
                return ours
        ours.close()
        return None
