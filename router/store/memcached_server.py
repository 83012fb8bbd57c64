"""One memcached server: its connection, and what becomes of requests when it does not answer.

While a server is away its part of each batch fails at once, so that no other part waits; it is looked for in the
background. A connection on which an answer is overdue is given up: what was asked for may still come to pass. What was
read over one connection is not written over another, because a server that was restarted counts anew.

On each connection it is seen first which layout the entries have, and where nothing says so that is noted; so it is for
a server that was restarted, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import Final, Protocol, TypeVar

import trio

from router.common import logs
from router.common.memcached_settings import MemcachedOptions, address
from router.store.base import StoreError
from router.store.memcached_protocol import (
    DIFFERS,
    SETTINGS,
    STATISTICS,
    Entries,
    Entry,
    Outcomes,
    ProtocolError,
    Statistics,
    get,
    put,
)
from router.store.memcached_work import LAYOUT, layout_in, layout_key

OLDEST: Final = (1, 6)
"""The oldest memcached that has what is used here."""
_RECEIVE_BYTES: Final = 262_144
_HEAD_BYTES: Final = 512
"""What memcached may need of an entry's room for itself, besides its key."""


class Reply(Protocol):
    """What takes a reply as it comes."""

    def feed(self, data: bytes) -> bool:
        """Returns: whether that was the end. Raises: ProtocolError."""


R = TypeVar("R", bound=Reply)


class NewerError(StoreError):
    """A newer release has written to the server."""

    def __init__(self, name: str, prefix: str, found: int) -> None:
        super().__init__(
            f"memcached {name}: a newer release wrote what is under the prefix {prefix} (layout {found}, this release "
            f"knows {LAYOUT}): start that release, restart memcached, or give this farm a memcached.prefix of its own"
        )


_FAILURES: Final = (
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    ProtocolError,
    NewerError,
)


class _Closed(OSError):
    """The server closed the connection before it had answered anything."""


class Server:
    """One server, for the one batch at a time that its store has under way. Its methods raise StoreError."""

    def __init__(self, name: str, options: MemcachedOptions) -> None:
        self.name = name
        self.room = 0
        """Bytes that the value of an entry may have."""
        self.evicts = False
        """Whether it drops entries to make room for others."""
        self.used = 0
        self.evicted = 0
        """Entries that it has dropped to make room, when it was last asked."""
        self.error: StoreError | None = None
        """Why it is away."""
        self._options = options
        self._stream: trio.SocketStream | None = None
        self._connecting = trio.Lock()
        self._missed = trio.Event()

    async def open(self) -> None:
        """Connect, if it is not connected, or note why that cannot be."""
        async with self._connecting:
            if self._stream is None:
                try:
                    await self._connect()
                except _FAILURES as error:
                    self._lost(error)

    async def run(self) -> None:
        """While it is away, look for it."""
        while True:
            await self._missed.wait()
            self._missed = trio.Event()
            await self.open()
            if self._stream is None:
                await trio.sleep(self._options.retry)

    async def entries(self, keys: list[bytes]) -> dict[bytes, Entry]:
        """Those of these entries that there are. To read does no harm twice, so a connection that was closed while it
        was idle is made anew."""
        try:
            return (await self._attempt(get(keys), Entries())).found
        except _Closed:
            await self.open()
        return (await self._exchange(get(keys), Entries())).found

    async def write(self, requests: list[bytes]) -> list[int]:
        """Have these writes made. Returns: the outcome of each."""
        return (await self._exchange(b"".join(requests), Outcomes(len(requests)))).found

    async def measure(self) -> None:
        """Ask how much it holds."""
        found = await self._exchange(STATISTICS, Statistics())
        self.used, evicted = found.number("bytes"), found.number("evictions")
        if evicted > self.evicted:
            logs.limited("store.evicts", at="error", per=self.name, server=self.name, entries=evicted - self.evicted)
        self.evicted = evicted

    def close(self) -> None:
        """Let go of it."""
        self._drop()

    # ------------------------------------------------------------------ the connection

    async def _exchange(self, request: bytes, reply: R) -> R:
        try:
            return await self._attempt(request, reply)
        except _Closed as error:
            raise self._lost(error) from None

    async def _attempt(self, request: bytes, reply: R) -> R:
        """Raises: StoreError, _Closed."""
        stream = self._stream
        if stream is None:
            raise self.error or StoreError(f"memcached {self.name}: it is not connected")
        try:
            with trio.fail_after(self._options.timeout):
                await _exchange(stream, request, reply)
        except _Closed:
            self._drop()
            raise
        except _FAILURES as error:
            raise self._lost(error) from None
        except BaseException:  # the rest of the reply would be taken for that of the next request
            self._drop()
            raise
        return reply

    async def _connect(self) -> None:
        where = address(self.name)
        with trio.fail_after(self._options.timeout):
            if isinstance(where, str):
                stream = await trio.open_unix_socket(where)
            else:
                stream = await trio.open_tcp_stream(*where)
            try:
                settings, statistics = Statistics(), Statistics()
                await _exchange(stream, SETTINGS, settings)
                await _exchange(stream, STATISTICS, statistics)
                _check_version(statistics)
                await _take(stream, self.name, self._options.prefix)
            except BaseException:
                stream.socket.close()
                raise
        self.room = settings.number("item_size_max") - _HEAD_BYTES
        self.evicts = settings.found.get("evictions") == "on"
        self.used, self.evicted = statistics.number("bytes"), statistics.number("evictions")
        self._stream = stream
        if self.error is not None:
            self.error = None
            logs.event("store.server_back", server=self.name)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        self._missed.set()
        if stream is not None:
            stream.socket.close()

    def _lost(self, error: Exception) -> StoreError:
        self._drop()
        self.error = _unreachable(self.name, error, self._options.timeout)
        logs.limited("store.server_away", at="error", per=self.name, server=self.name, why=str(self.error))
        return self.error


async def _exchange(stream: trio.SocketStream, request: bytes, reply: Reply) -> None:
    try:
        await stream.send_all(request)
        data = await stream.receive_some(_RECEIVE_BYTES)
    except trio.BrokenResourceError as error:
        raise _Closed(*_why(error)) from error
    if not data:
        raise _Closed("it closed the connection")
    while not reply.feed(data):
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            raise OSError("it closed the connection within an answer")


async def _take(stream: trio.SocketStream, name: str, prefix: str) -> None:
    """See that this release knows the layout, and note which one is written from now on. Raises: NewerError."""
    key = layout_key(prefix)
    outcome = DIFFERS
    while outcome == DIFFERS:  # another router has just noted it
        entries = Entries()
        await _exchange(stream, get([key]), entries)
        entry = entries.found.get(key)
        found = layout_in(entry)
        if found > LAYOUT:
            raise NewerError(name, prefix, found)
        if entry is not None and found == LAYOUT:
            return
        outcomes = Outcomes(1)
        await _exchange(stream, put(key, b"%d" % LAYOUT, 0, entry), outcomes)
        (outcome,) = outcomes.found


def ask(name: str, request: bytes, reply: R, timeout: float) -> R:
    """Ask a server something from outside of trio. Raises: StoreError."""
    where = address(name)
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(where, str):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(timeout)
                connection.connect(where)
            else:
                connection = stack.enter_context(socket.create_connection(where, timeout))
            connection.sendall(request)
            while not reply.feed(data := connection.recv(_RECEIVE_BYTES)):
                if not data:
                    raise _Closed("it closed the connection")
    except (OSError, ProtocolError) as error:
        raise _unreachable(name, error, timeout) from None
    return reply


def check_server(name: str, options: MemcachedOptions) -> None:
    """See, from outside of trio, whether a server could be used. Raises: StoreError; NewerError."""
    try:
        _check_version(ask(name, STATISTICS, Statistics(), options.timeout))
    except ProtocolError as error:
        raise _unreachable(name, error, options.timeout) from None
    key = layout_key(options.prefix)
    if (found := layout_in(ask(name, get([key]), Entries(), options.timeout).found.get(key))) > LAYOUT:
        raise NewerError(name, options.prefix, found)


def _check_version(statistics: Statistics) -> None:
    """Raises: ProtocolError if this is no memcached, or one that is too old."""
    found = statistics.found.get("version", "?")
    numbers = re.match(r"([0-9]+)\.([0-9]+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise ProtocolError(f"its version is {found}, and {'.'.join(map(str, OLDEST))} or newer is needed")


def _unreachable(name: str, error: Exception, timeout: float) -> StoreError:
    """What went wrong with a server, and what to do about it."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ProtocolError):
        return StoreError(f"memcached {name}: it does not answer as memcached does ({error}); see memcached.servers")
    if isinstance(error, trio.TooSlowError | TimeoutError):
        return StoreError(
            f"memcached {name}: it has not answered within {timeout:g} s (memcached.timeout); see whether it runs"
        )
    why = "; ".join(_why(error)) or type(error).__name__
    return StoreError(f"memcached {name}: {why}; start it, or name another one in memcached.servers")


def _why(error: BaseException) -> tuple[str, ...]:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # of all addresses of a name
        cause = cause.exceptions[0]
    for one in (cause, error):
        if isinstance(one, OSError) and one.strerror:
            return ((os.strerror(one.errno) if one.errno and one.errno > 0 else one.strerror).lower(),)
    return (str(error),) if str(error) else ()
