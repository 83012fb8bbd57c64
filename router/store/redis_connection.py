"""One connection to a Redis or Valkey server: commands out in one write, replies in."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import hiredis
import trio

from router.common.redis_address import Address
from router.store.base import StoreError

Command = tuple[bytes | str | int, ...]
Reply = Any
"""bytes, int, None, a list of replies, or hiredis.ReplyError."""

_READ_BYTES: Final = 65_536
_NOT_YET: Final = ("LOADING", "BUSY", "MASTERDOWN")
"""Answers of a server that reads its file, or runs a script of somebody for too long, or waits for its primary."""
pack = cast(Callable[[Command], bytes], hiredis.pack_command)
"""A command as it is sent."""


class ConnectionLost(StoreError):
    """The connection ended, or could not be made: what was asked and not answered may have been done or not."""


class Connection:
    """What is sent is answered in order; one caller at a time. After an error it is of no use any more."""

    def __init__(self, stream: trio.abc.Stream, name: str) -> None:
        self._stream = stream
        plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        assert isinstance(plain, trio.SocketStream)
        self._trio_socket = plain.socket
        self._plain = plain is stream
        self._reader = hiredis.Reader()
        self.name = name
        """The server's, for errors."""

    async def call(self, *commands: Command) -> list[Reply]:
        """Send all of them in one write and wait for all replies.

        Raises: ConnectionLost; and then, or if it is cancelled, the connection is closed. What `pack` raises, before
        anything is sent.
        """
        data = pack(commands[0]) if len(commands) == 1 else b"".join(map(pack, commands))
        return await self.exchange(data, len(commands))

    async def exchange(self, data: bytes, number: int) -> list[Reply]:
        """The same with commands that are packed already, so many of them."""
        reader, replies = self._reader, []
        try:
            await self._send(data)
            while True:
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
                    if len(replies) == number:
                        return replies
                received = await self._receive()
                if not received:
                    raise ConnectionLost(f"Redis {self.name} has closed the connection")
                reader.feed(received)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, hiredis.ProtocolError) as error:
            self.abandon()
            raise ConnectionLost(f"Redis {self.name}: the connection broke ({_reason(error)})") from None
        except BaseException:
            self.abandon()
            raise

    # trio's streams give others a turn at each call, though it is done at once, and try before they wait: with a batch
    # every few milliseconds that is a good part of what an exchange costs.

    async def _send(self, data: bytes) -> None:
        sent = 0
        if self._plain:
            with suppress(BlockingIOError):
                sent = os.write(self._trio_socket.fileno(), data)
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])

    async def _receive(self) -> bytes:
        if not self._plain:
            return bytes(await self._stream.receive_some(_READ_BYTES))
        while True:
            await trio.lowlevel.wait_readable(self._trio_socket)
            with suppress(BlockingIOError):
                return os.read(self._trio_socket.fileno(), _READ_BYTES)

    async def ask(self, *command: bytes | str | int) -> Reply:
        """The reply to one command.

        Raises: StoreError for an error in reply; ConnectionLost.
        """
        (reply,) = await self.call(command)
        return checked(reply, self.name)

    @property
    def ended(self) -> bool:
        """Whether the server has closed it, as far as is known here. Between two calls there is nothing to read."""
        return self._trio_socket.is_readable()

    def abandon(self) -> None:
        """Close it at once."""
        self._trio_socket.close()


async def connect(address: Address, timeout: float, ca_file: str = "", setting: str = "redis.url") -> Connection:
    """A connection that has logged in and chosen the database.

    timeout: seconds for all of it. ca_file: certificates that are trusted for TLS, "": the system's. setting: what
    names the address.
    Raises: StoreError, with what to do.
    """
    try:
        with trio.fail_after(timeout):
            stream = await _stream(address, ca_file, setting)
            connection = Connection(stream, str(address))
            try:
                await _log_in(connection, address, setting)
            except BaseException:
                connection.abandon()
                raise
            return connection
    except trio.TooSlowError:
        raise ConnectionLost(
            f"Redis {address} does not answer within redis.connect_timeout ({timeout:g} s); see that it runs and that "
            f"{setting} is right"
        ) from None


async def _stream(address: Address, ca_file: str, setting: str) -> trio.abc.Stream:
    try:
        plain = await trio.open_tcp_stream(address.host, address.port)
        if not address.tls:
            return plain
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:
            raise StoreError(f"redis.ca_file: cannot read {ca_file}: {error.strerror or error}") from None
        stream = trio.SSLStream(plain, context, server_hostname=address.host)
        try:
            await stream.do_handshake()
        except BaseException:
            plain.socket.close()
            raise
        return stream
    except (OSError, trio.BrokenResourceError) as error:
        reason = _reason(error)
        raise ConnectionLost(
            f"Redis {address} cannot be reached: {reason}; see that it runs and that {setting} is right"
        ) from None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):  # of all addresses of a name
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno and cause.errno > 0:
        # trio writes the address into its text.
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__


async def _log_in(connection: Connection, address: Address, setting: str) -> None:
    commands: list[Command] = []
    if address.password:
        commands.append(("AUTH", *filter(None, (address.user,)), address.password))
    commands.append(("SELECT", address.database) if address.database else ("PING",))
    for reply in await connection.call(*commands):
        if isinstance(reply, hiredis.ReplyError):
            told = str(reply)
            if told.startswith(_NOT_YET):
                raise StoreError(f"Redis {address} is there, but does not serve yet: {told}")
            raise StoreError(f"Redis {address} refuses: {told}; see the user, password and database of {setting}")


def checked(reply: Reply, name: str) -> Reply:
    """A reply that is no error. Raises: StoreError."""
    if isinstance(reply, hiredis.ReplyError):
        raise StoreError(f"Redis {name}: {reply}")
    return reply


def first_error(replies: Iterable[Reply]) -> hiredis.ReplyError | None:
    """Of several."""
    return next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), None)


def info(text: bytes) -> dict[str, str]:
    """What an INFO reply says."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """What a CONFIG GET reply says."""
    texts = [part.decode(errors="replace") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
