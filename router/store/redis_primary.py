"""One server of the store: the connection on which it is given batches, and the partitions that were acquired on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import hiredis
import trio

from router.common import logs
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.lease import boottime
from router.store.redis_connection import Command, Connection, Reply, checked, info, pack
from router.store.redis_ownership import Ownership, check_free
from router.store.redis_scripts import apply_script, ownership_script, sweep_script
from router.store.redis_server import Server, look, problems, promise, waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ELSEWHERE: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
"""A cluster's answers that say where a partition is, or that it is between two servers: nothing was done. (A script
that finds out that some keys have gone to another server already has done a part.)"""
_PAUSE_S: Final = 0.1
"""From one attempt to connect to the next."""
_SCRIPTS: Final = (apply_script, ownership_script, sweep_script)


class NotDurable(StoreError):
    """The batch is in the server's memory, and not where it has to be before anything may be promised."""


class Sent(NamedTuple):
    """What became of a batch on one server."""

    done: list[tuple[Sequence[int], list[Any]]]
    """The replies, each with its partitions."""
    elsewhere: list[int]
    """Partitions for which nothing was done, because they are on another server, or between two."""
    failed: list[int]
    """Partitions of which nothing is known."""


class Primary:
    """A server that is a primary.

    connect: a new connection to it. apart: its partitions are in slots of their own, so each has a script for itself.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        options: RedisOptions,
        ownership: Ownership,
        unix_time: Callable[[], float],
        apart: bool,
    ) -> None:
        self.connect = connect
        self._options = options
        self._ownership = ownership
        self._unix_time = unix_time
        self._apart = apart
        self._connection: Connection | None = None
        self._next_attempt = 0.0
        self._failure: StoreError | None = None
        """Of the last attempt."""
        self._outdated = False
        self._waits: tuple[Command, ...] = ()
        self._run = b""
        self.name = ""
        self.promise = ""
        self.used = 0
        """Bytes of its data, when it was asked last."""
        self.partitions: set[int] = set()
        """Those that were acquired on the connection that there is."""

    # ------------------------------------------------------------------ the connection

    async def connected(self) -> tuple[Connection, Server]:
        """A new connection to a server that may be the store.

        Raises: StoreError.
        """
        connection = await self.connect()
        async with self._within(connection, "answered"):
            server = await look(connection, self._options)
            if found := problems(server, self._options):
                raise StoreError(*found)
        return connection, server

    def seen(self, server: Server) -> None:
        """What the server says of itself by now. If it was changed since the connection was made, so that an answer is
        worth something else, another connection is made before the next batch; or none, if it is worth nothing."""
        options = self._options
        changed = server.run.encode() != self._run or _waits(server, options) != self._waits
        self._outdated = self._outdated or changed or bool(problems(server, options))

    async def ready(self) -> None:
        """See that there is a connection with the scripts; none of the partitions is acquired on a new one.

        Raises: StoreError.
        """
        if self._connection is not None and (self._outdated or self._connection.ended):  # restarted, perhaps
            self.drop()
        if self._connection is not None:
            return
        pause = self._next_attempt - time.monotonic()  # one that is not well is not flooded
        if pause > 0 and self._apart and self._failure is not None:
            raise StoreError(*self._failure.problems)  # the parts of the others need not wait for it
        await trio.sleep(max(0.0, pause))
        self._next_attempt = time.monotonic() + _PAUSE_S
        self._outdated = False
        try:
            connection, server = await self.connected()
        except StoreError as error:
            self._failure = error
            raise
        self._failure = None
        async with self._within(connection, "loaded the scripts"):
            for script in _SCRIPTS:
                await connection.ask("SCRIPT", "LOAD", script().text)
            self._measured(await connection.ask("INFO", "memory"))
        self._waits = _waits(server, self._options)
        self.promise = promise(server, self._options)
        self._run = server.run.encode()
        self.name = connection.name
        self._connection = connection

    @asynccontextmanager
    async def _within(self, connection: Connection, what: str) -> AsyncIterator[None]:
        """A time limit; whatever goes wrong ends the connection, but for what is not durable yet."""
        try:
            with trio.fail_after(self._options.timeout):
                yield
        except NotDurable:
            if self._options.sentinels:  # another one is the primary by now, perhaps
                self._end(connection)
            raise  # otherwise the connection is as good as before
        except trio.TooSlowError:
            self._end(connection)
            raise StoreError(f"Redis {connection.name} has not {what} within redis.timeout") from None
        except BaseException:
            self._end(connection)
            raise

    def _end(self, connection: Connection) -> None:
        connection.abandon()
        if connection is self._connection:
            self.drop()

    def drop(self) -> None:
        """End the connection: what is on it is not known any more."""
        self.partitions.clear()
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    # ------------------------------------------------------------------ partitions

    async def look(self, partitions: Collection[int]) -> None:
        """See whether partitions may be acquired, but for those that are not here. Nothing changes.

        Raises: StoreError, Held, Newer.
        """
        connection = self._there()
        async with self._within(connection, "looked for the owners of the partitions"):
            for reply in await connection.call(*map(self._ownership.free, self._groups(partitions))):
                if not self._elsewhere(reply):
                    check_free(checked(reply, self.name))

    async def own(self, partitions: Collection[int]) -> bool:
        """Acquire partitions on this connection, but for those that are not here, or between two servers.

        Returns: whether they were this router's all the time.
        Raises: NotDurable if they are acquired, and that is on no replica yet; StoreError; Held; Newer.
        """
        connection = self._there()
        async with self._within(connection, "given the partitions"):
            now, sent_at = self._unix_time(), boottime()
            groups = self._groups(partitions)
            commands = [self._ownership.acquire(group, self._run, now) for group in groups]
            replies = await connection.call(*commands, *self._waits)
            kept = True
            here: set[int] = set()
            for group, reply in zip(groups, replies, strict=False):
                if self._elsewhere(reply):
                    continue
                kept = self._ownership.acquired(group, checked(reply, self.name)) and kept
                here.update(group)
            self.partitions |= here  # each batch that writes has its own wait
            if kept:
                self._check_waits(replies[len(groups) :])
                if here:
                    self._ownership.lease.confirmed(sent_at)
        return kept

    def _elsewhere(self, reply: Reply) -> bool:
        """Whether it says that the partition is on another server."""
        return self._apart and isinstance(reply, hiredis.ReplyError) and str(reply).startswith(ELSEWHERE)

    async def release(self) -> None:
        """Give up what is owned on this connection, and end it. It may be called without one."""
        connection, self._connection = self._connection, None
        partitions, self.partitions = self.partitions, set()
        self._next_attempt = 0.0
        if connection is None:
            return
        with trio.move_on_after(self._options.connect_timeout, shield=True):
            try:
                held = [group for group in self._groups(partitions) if self._ownership.tokens.keys() >= set(group)]
                if commands := [self._ownership.release(group) for group in held]:
                    await connection.call(*commands)
            except StoreError:
                pass  # the leases end by themselves
            finally:
                connection.abandon()

    def _groups(self, partitions: Iterable[int]) -> list[list[int]]:
        """As they go into scripts together."""
        places = sorted(partitions)
        return [[place] for place in places] if self._apart else [places] * (len(places) > 0)

    def renewals(self, partitions: Collection[int]) -> list[tuple[list[int], Command]]:
        """Those of these partitions that are owned, as they go into scripts, and what renews their leases.

        A script for each would be many for an idle router of a cluster. Where only whole routers are taken over, after
        a look at all of their partitions, a few stand for all of them.
        """
        groups = self._groups(self._ownership.epochs.keys() & set(partitions))
        if self._apart and self._ownership.lease.shared and len(groups) > 2:
            groups = [groups[0], groups[-1]]
        return [(group, self._ownership.renew(group)) for group in groups]

    # ------------------------------------------------------------------ batches

    async def send(
        self,
        partitions: Sequence[int],
        command: Callable[[Sequence[int]], bytes],
        writing: bool,
        measure: bool,
    ) -> Sent:
        """Send a batch for these partitions and wait until it is durable. command: the script's call for some of them,
        as it is sent.

        Raises: StoreError.
        """
        connection = self._there()
        async with self._within(connection, "stored a batch"):
            waiting = self._waits if writing else ()
            more: tuple[Command, ...] = (*waiting, *((("INFO", "memory"),) if measure else ()))
            groups: list[Sequence[int]] = [[place] for place in partitions] if self._apart else [partitions]
            sent = Sent([], [], [])
            for attempt in range(2):
                data = b"".join([*map(command, groups), *map(pack, more)])
                replies = await connection.exchange(data, len(groups) + len(more))
                unknown: list[Sequence[int]] = []
                for group, reply in zip(groups, replies, strict=False):
                    if not isinstance(reply, hiredis.ReplyError):
                        sent.done.append((group, reply))
                    elif str(reply).startswith("NOSCRIPT") and not attempt:
                        unknown.append(group)
                    elif not self._apart:
                        raise StoreError(f"Redis {self.name}: {reply}")
                    elif str(reply).startswith(ELSEWHERE):
                        sent.elsewhere.extend(group)
                    else:
                        sent.failed.extend(group)
                        logs.limited("redis.refused", at="error", per=self.name, server=self.name, error=str(reply))
                rest = replies[len(groups) :]
                self._check_waits(rest[: len(waiting)])
                if measure:
                    self._measured(checked(rest[-1], self.name))
                if not unknown:
                    break
                # Loaded, and only what was refused is sent again, and waited for, before the next batch.
                await connection.ask("SCRIPT", "LOAD", apply_script().text)
                groups = unknown
            self.partitions.difference_update(sent.elsewhere)
            return sent

    def _check_waits(self, replies: Iterable[Reply]) -> None:
        """Raises: NotDurable unless as many copies as are wanted have it."""
        for reply in replies:
            found = checked(reply, self.name)
            here, replicas = found if isinstance(found, list) else (1, found)
            if here < 1:
                raise NotDurable(f"Redis {self.name}: has not synced its append-only file in time; see its disk")
            if replicas < self._options.replicas:
                raise NotDurable(
                    f"Redis {self.name}: no replica has acknowledged in time (redis.replicas); see its replica"
                )

    async def sweep(self, sweep: Callable[[Connection], Awaitable[int]]) -> int:
        """Have it swept on this connection, and measured.

        Raises: StoreError.
        """
        connection = self._there()
        async with self._within(connection, "swept"):
            deleted = await sweep(connection)
            self._measured(await connection.ask("INFO", "memory"))
        return deleted

    def _measured(self, text: bytes) -> None:
        told = info(text)
        self.used = int(told.get("used_memory_dataset", told.get("used_memory", "0")))

    def _there(self) -> Connection:
        if self._connection is None:
            raise StoreError(f"Redis {self.name}: there is no connection")
        return self._connection


def _waits(server: Server, options: RedisOptions) -> tuple[Command, ...]:
    return waits(server, options, int(options.timeout * 700))  # the server looks at it 10 times a second
