"""The server of Redis or Valkey that has the records of a cluster: one connection, made anew wherever it is by now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import hiredis
import trio

from router.cluster.records import Command, cluster_script
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.redis_cluster import Topology
from router.store.redis_connection import Connection, checked, connect, info
from router.store.redis_sentinel import connect_to_primary

_ATTEMPTS: Final = 3
"""Of one call: the connection may have ended, and then the server may be another one, or the slot may have moved."""
_PAUSE_S: Final = 0.05


class Answer(NamedTuple):
    """Of the server."""

    reply: Any
    run: str
    """ID of the server's run: another one may not have all that the last one was told."""
    at: float
    """Unix seconds of this host's clock, halfway between command and answer."""
    kept: bool
    """Whether as many replicas have it as redis.replicas says: a server that has been cut off from its replicas may not
    be the primary any more, and what it is told is lost."""


class Server:
    """One caller at a time."""

    def __init__(self, options: RedisOptions, unix_time: Callable[[], float] = time.time) -> None:
        self._options = options
        self._unix_time = unix_time
        self._topology = Topology(options) if options.cluster else None
        self._connection: Connection | None = None
        self._run = ""
        wait: Command = ("WAIT", options.replicas, int(options.lease * 1000 / 6))
        self._waits = (wait,) if options.replicas else ()

    async def ask(self, command: Command) -> Answer:
        """Have it done, perhaps more than once. It ends within a lease and redis.connect_timeout.

        Raises: StoreError of the last attempt.
        """
        failed = StoreError(f"Redis has not answered within redis.lease ({self._options.lease:g} s)")
        with trio.move_on_after(self._options.lease + self._options.connect_timeout):
            for attempt in range(_ATTEMPTS):
                try:
                    return await self._attempt(command)
                except StoreError as error:
                    failed = error
                    self.close()
                except BaseException:  # the answer may still come
                    self.close()
                    raise
                if attempt < _ATTEMPTS - 1:
                    await trio.sleep(_PAUSE_S)
        raise failed

    def close(self) -> None:
        """End the connection. The next call makes another one."""
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    async def _attempt(self, command: Command) -> Answer:
        if self._connection is not None and self._connection.ended:
            self.close()
        connection = self._connection or await self._connected()
        self._connection = connection
        try:
            with trio.fail_after(self._options.lease / 3):
                sent = self._unix_time()
                (reply,) = await connection.call(command)
                if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                    await connection.ask("SCRIPT", "LOAD", cluster_script().text)
                    sent = self._unix_time()
                    (reply,) = await connection.call(command)
                received = self._unix_time()
                checked(reply, connection.name)
                kept = all([await connection.ask(*wait) >= self._options.replicas for wait in self._waits])
        except trio.TooSlowError:
            raise StoreError(f"Redis {connection.name} does not answer within a third of redis.lease") from None
        return Answer(reply, self._run, (sent + received) / 2, kept)

    async def _connected(self) -> Connection:
        options = self._options
        if self._topology is None:
            connection = await connect_to_primary(options)
        else:
            await self._topology.refresh()
            connection = await connect(self._topology.primaries[0], options.connect_timeout, options.ca_file)
        try:
            with trio.fail_after(options.connect_timeout):
                self._run = info(await connection.ask("INFO", "server")).get("run_id", "")
        except trio.TooSlowError:
            connection.abandon()
            raise StoreError(f"Redis {connection.name} does not answer within redis.connect_timeout") from None
        except BaseException:
            connection.abandon()
            raise
        return connection
