"""Serves the admin port's pages: hypercorn's HTTP/1.1 on connections of ours, so that each of them has its limits.

hypercorn's own server takes any number of connections, sets no deadline for a request, and waits without end for a
client that does not read its answer, even when the farm ends. A connection here is idle or has a request, and has a
deadline in both states, after which it is closed. Beyond `admin.max_connections` the longest idle one is closed; where
none is idle, the one whose request has waited longest for its client, so that slow ones do not keep probes out.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from farm.settings import AdminOptions
from router.common import logs

_READ_BYTES: Final = 4096  # the limit of headers is checked between reads
_ACCEPT_AGAIN_S: Final = 0.1
_LIBRARY: Final = "hypercorn.error"
_STOP_S: Final = 0.2  # what a request that is answered may still take
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


def _reporting(app: Any) -> Any:
    """The application, whose defects are logged here, and not by hypercorn: as often as clients may cause one."""

    async def called(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as defect:  # the client has its 500
            logs.limited("admin.connection_failed", at="error", exc=defect)

    return called


class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Nothing but HTTP/1.1: an Upgrade to h2c is ignored (RFC 9110, 7.8)."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Refuse a body of two lengths: a proxy in front may have seen another request (RFC 9112, 6.1)."""
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
            await self._send_error_response(HTTPStatus.BAD_REQUEST)
            await self.send(Closed())
        else:
            await super()._create_stream(request)

    async def stream_send(self, event: StreamEvent) -> None:
        """Say that the connection ends after an answer that did not wait for its request's body (RFC 9112, 9.6)."""
        if isinstance(event, Response) and self.connection.their_state is h11.SEND_BODY:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)


class _Connection:
    def __init__(self, port: AdminPort, stream: trio.SocketStream) -> None:
        self._port = port
        self._stream = stream
        self._sending = trio.Lock()
        self._protocol: _Http1 | None = None
        self.scope = trio.CancelScope()
        self.idle = True
        self._set_deadline()

    def _set_deadline(self) -> None:
        options = self._port.options
        self.scope.deadline = trio.current_time() + (options.idle_timeout if self.idle else options.request_timeout)

    @property
    def waits(self) -> bool:
        """Whether its request waits for its client: for the rest of a body, or until it reads."""
        protocol = self._protocol
        return self._sending.locked() or (protocol is not None and protocol.connection.their_state is h11.SEND_BODY)

    async def run(self) -> None:
        """Serve it until it ends; an error ends this connection only."""
        try:
            with self.scope:
                await self._serve()
        except* _GONE:
            pass
        except* Exception as group:
            if not self.scope.cancel_called:  # otherwise hypercorn reports that nothing can be sent any more
                logs.limited("admin.connection_failed", at="error", exc=group)
        finally:
            self._port.forget(self)
            await trio.aclose_forcefully(self._stream)

    async def _serve(self) -> None:
        plain = self._stream.socket
        client = parse_socket_addr(plain.family, plain.getpeername())
        server = parse_socket_addr(plain.family, plain.getsockname())
        port = self._port
        async with TaskGroup() as tasks:
            self._protocol = protocol = _Http1(
                port.app, port.config, port.context, tasks, ConnectionState({}), False, client, server, self._send
            )
            data = b"-"
            while data:
                data = bytes(await self._stream.receive_some(_READ_BYTES))
                await protocol.handle(RawData(data))
            await protocol.handle(Closed())

    async def _send(self, event: Event) -> None:
        assert self._protocol is not None
        if isinstance(event, RawData | Closed):
            try:
                async with self._sending:
                    if isinstance(event, RawData):
                        await self._stream.send_all(event.data)
                        return
                    await self._stream.send_eof()
            except _GONE:  # if raised, it would look like an error of the page
                pass
            self.scope.cancel()
        elif isinstance(event, Updated):
            self.idle = event.idle
            self._port.moved(self)
            self._set_deadline()


class AdminPort:
    """The connections of the admin port."""

    def __init__(self, app: Any, options: AdminOptions) -> None:
        self.app = ASGIWrapper(_reporting(app))
        self.options = options
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.accesslog = None
        self.config.errorlog = logging.getLogger(_LIBRARY)  # else it writes to stderr itself, in a form of its own
        self.config.include_server_header = False
        self.config.h11_max_incomplete_size = options.max_header_bytes
        self._connections: dict[_Connection, None] = {}  # the one with the oldest state comes first

    async def run(self, handle: int, stop: Callable[[], Awaitable[Any]]) -> None:
        """Serve on an open listener's descriptor, which is closed at the end, until `stop` returns."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=handle)))
        async with listener, trio.open_nursery() as nursery:
            accepting = await nursery.start(self._accept, listener, nursery)
            await stop()
            accepting.cancel()
            await self.context.terminated.set()
            nursery.cancel_scope.deadline = trio.current_time() + _STOP_S
            for connection in self._connections:
                if connection.idle:
                    connection.scope.cancel()

    def moved(self, connection: _Connection) -> None:
        """It has begun or ended a request."""
        if self._connections.pop(connection, self) is None:
            self._connections[connection] = None

    def forget(self, connection: _Connection) -> None:
        """It has ended."""
        self._connections.pop(connection, None)

    async def _accept(
        self,
        listener: trio.SocketListener,
        nursery: trio.Nursery,
        task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # for example, no descriptor left
                    logs.limited("admin.accept_failed", error=str(error))
                    await trio.sleep(_ACCEPT_AGAIN_S)
                    continue
                if len(self._connections) >= self.options.max_connections and not self._make_room():
                    logs.limited("admin.full", limit="admin.max_connections")
                    nursery.start_soon(self._refuse, stream)
                    continue
                connection = _Connection(self, stream)
                self._connections[connection] = None
                nursery.start_soon(connection.run)

    def _make_room(self) -> bool:
        """Close the longest idle connection, else the one that has waited longest. Returns: whether there is one."""
        found = next((one for one in self._connections if one.idle), None)
        found = found or next((one for one in self._connections if one.waits), None)
        if found is None:
            return False
        del self._connections[found]
        found.scope.cancel()
        return True

    async def _refuse(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(_STOP_S):
            try:
                await stream.send_all(_FULL)
                await stream.send_eof()
                while await stream.receive_some(_READ_BYTES):  # closed with its request unread it would be reset
                    pass
            except _GONE:
                pass
        await trio.aclose_forcefully(stream)
