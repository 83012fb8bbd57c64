"""The store in Redis or Valkey: one write a batch, of one script for all of it and of the wait for its replicas.

Theory of operation
-------------------
The committer's batch is one EVALSHA of `redis_lua/apply.lua` on a connection that is this store's alone. The server
makes what the script changed one transaction of its append-only file, and with `appendfsync always` it answers when
that is on the disk; WAIT or WAITAOF behind it, on the same connection, answers when a replica has it too.

What can go wrong
-----------------
- The connection breaks, or the answer takes longer than `redis.timeout`: what the batch did is unknown, so all of it
  failed. The connection ends; on the next one the partitions are acquired anew before anything is written, which shuts
  out what may still be on its way (`router.store.redis_ownership`).
- The server has no memory left: what enlarges fails, key by key; removals and reads do not.
- The script is unknown (the server was replaced, or SCRIPT FLUSH): it is loaded, and the batch, which changed
  nothing, sent again.
- Another router has taken partitions: their keys fail, and `run` ends this router with a line that says so.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import hiredis
import trio

from router.common import logs
from router.common.files import open_own
from router.common.options import Settings
from router.common.partitions import PARTITIONS, fixed_owners
from router.common.redis_settings import RedisOptions
from router.common.settings import Data, RouterOptions, StoreOptions
from router.store.base import LARGE_BODY, BadBatchError, Reads, Results, Store, StoreError, Writes
from router.store.findings import Finding
from router.store.memory import crowd
from router.store.redis_batch import RedisBatch, opening
from router.store.redis_connection import Command, Connection, Reply, checked, first_error, info, pack
from router.store.redis_keys import bases, fence
from router.store.redis_ownership import Held, Ownership
from router.store.redis_rows import GRACE_S
from router.store.redis_scripts import Script, apply_script, ownership_script, sweep_script
from router.store.redis_sentinel import connect_to_primary, place
from router.store.redis_server import Server, findings, look, problems, promise, waits
from router.store.redis_sweep import Sweeper

HOLDER_FILE: Final = "redis.holder"
"""In the data folder: the name by which this farm owns partitions, so that a router that follows another one does not
wait for its lease."""
_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, struct.error)
"""What is wrong is what was to be written."""
_MEASURE_EVERY: Final = 256  # commits
_ITEM_BYTES: Final = 300
"""Of an entry besides its texts, on the high side, until what is used is measured again."""

T = TypeVar("T")


class NotDurable(StoreError):
    """The batch is in the server's memory, and not where it has to be before anything may be promised."""


class RedisStore:
    """A `Store` on one server.

    holder: name of this router there; partitions: those that it is to own. unix_time: for numbers that grow over
    owners.
    """

    promise = ""
    forgets = False

    def __init__(
        self,
        options: StoreOptions,
        redis: RedisOptions,
        holder: Callable[[], str],
        partitions: frozenset[int] = frozenset(range(PARTITIONS)),
        router: int = 0,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._redis = redis
        self._where = place(redis)
        self._bases = bases(redis.prefix)
        self._holder = holder
        self._partitions = partitions
        self._router = router
        self._unix_time = unix_time
        self._crowd = crowd(options)
        self._ownership: Ownership | None = None
        self._connection: Connection | None = None
        self._openings: list[bytes] = []
        self._waits: tuple[Command, ...] = ()
        self._lost = trio.Event()
        self._why = ""
        self._batches = 0
        self._ceiling = 0
        self._unmeasured = 0
        self._sweeper = Sweeper(redis.prefix, self._bases, router)
        self.used = 0

    # ------------------------------------------------------------------ beginning and end

    def check(self) -> None:
        """See `Store.check`."""
        run_apart(self._check)

    async def _check(self) -> None:
        connection, server = await self._connect()
        connection.abandon()
        _refuse(server, self._redis)

    async def open(self) -> None:
        """See `Store.open`. Where another router has partitions, its lease is waited for once."""
        self._ownership = Ownership(self._bases, self._holder(), self._redis.lease, self._router)
        try:
            try:
                await self._begin()
            except Held as held:
                logs.warning("redis.held", by=held.holder, seconds=round(held.left, 1))
                await trio.sleep(held.left)
                await self._begin()
        except Held as held:
            raise StoreError(
                f"Redis {self._where}: another farm ({held.holder}) has the keys with the prefix "
                f"{self._redis.prefix}; stop it, or give this one a redis.prefix of its own"
            ) from None

    async def close(self) -> None:
        """See `Store.close`. May be called at any time, and again."""
        connection, self._connection = self._connection, None
        if connection is None or self._ownership is None:
            return
        with trio.move_on_after(self._redis.connect_timeout, shield=True):
            try:
                if tokens := self._ownership.tokens:
                    await connection.call(self._ownership.release(list(tokens)))
            finally:
                connection.abandon()

    async def run(self) -> None:
        """See `Store.run`. Renews the leases, on a connection of its own."""
        connection: Connection | None = None
        try:
            while not self._lost.is_set():
                with trio.move_on_after(self._redis.lease / 3):
                    await self._lost.wait()
                connection = await self._renew(connection)
        finally:
            if connection is not None:
                connection.abandon()
        raise StoreError(self._why)

    async def _renew(self, connection: Connection | None) -> Connection | None:
        """Returns: the connection to go on with. That the server is away is seen by who writes."""
        ownership = self._ownership
        if ownership is None or not ownership.tokens or self._connection is None:
            return connection
        places = sorted(ownership.tokens)
        tokens = ownership.tokens.copy()
        try:
            with trio.fail_after(self._redis.timeout):
                connection = connection or await connect_to_primary(self._redis)
                refused = await _scripted(connection, ownership_script(), ownership.renew())
        except (StoreError, trio.TooSlowError):
            if connection is not None:
                connection.abandon()
            return None
        # A new connection of the batches may have changed the tokens meanwhile.
        if ownership.tokens == tokens and refused:
            self._lose([places[at] for at in refused])
        return connection

    def _lose(self, partitions: list[int]) -> None:
        if self._ownership is not None:
            self._ownership.lost(partitions)
            self._open_partitions()
        self._why = (
            f"Redis {self._where}: another router has taken {len(partitions)} partitions of the prefix "
            f"{self._redis.prefix}, or they were deleted; this one begins anew"
        )
        self._lost.set()

    # ------------------------------------------------------------------ connections

    async def _connect(self) -> tuple[Connection, Server]:
        connection = await connect_to_primary(self._redis)
        try:
            with trio.fail_after(self._redis.timeout):
                return connection, await look(connection, self._redis)
        except trio.TooSlowError:
            connection.abandon()
            raise StoreError(f"Redis {self._where} does not answer within redis.timeout") from None
        except BaseException:
            connection.abandon()
            raise

    async def _begin(self) -> None:
        """A connection on which batches may be written.

        Raises: StoreError, Held.
        """
        connection, server = await self._connect()
        try:
            _refuse(server, self._redis)
            milliseconds = int(self._redis.timeout * 700)  # it looks at its clock ten times a second
            self._waits = waits(server, self._redis, milliseconds)
            self.promise = promise(server, self._redis)
            with trio.fail_after(self._redis.timeout):
                for script in (apply_script(), ownership_script(), sweep_script()):
                    await connection.ask("SCRIPT", "LOAD", script.text)
                kept = await self._acquire(connection, server)
                await self._measure(connection)
        except trio.TooSlowError:
            connection.abandon()
            raise StoreError(f"Redis {self._where} does not answer within redis.timeout") from None
        except BaseException:
            connection.abandon()
            raise
        self._connection = connection
        self._where = connection.name
        if not kept:
            self._lose(sorted(self._partitions))
            raise StoreError(self._why)

    async def _acquire(self, connection: Connection, server: Server) -> bool:
        """Returns: whether the partitions were this router's all the time."""
        ownership = self._ownership
        assert ownership is not None
        command = ownership.acquire(self._partitions, server.run.encode(), self._unix_time())
        replies = await connection.call(command, *self._waits)
        kept = ownership.acquired(self._partitions, checked(replies[0], connection.name))
        self._check_wait(replies[1:], connection.name)
        self._ceiling = max(self._ceiling, *ownership.ceilings.values())
        self._open_partitions()
        return kept

    def _open_partitions(self) -> None:
        tokens = {} if self._ownership is None else self._ownership.tokens
        self._openings = [opening(base, tokens.get(place, b"")) for place, base in enumerate(self._bases)]

    async def _ready(self) -> Connection:
        if self._connection is not None and self._connection.ended:  # the server was restarted, perhaps
            self._drop()
        if self._connection is None:
            try:
                await self._begin()
            except Held:
                self._lose(sorted(self._partitions))
                raise StoreError(self._why) from None
        assert self._connection is not None
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    # ------------------------------------------------------------------ batches

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`."""
        try:
            batch = RedisBatch(writes, reads, now, self._options)
        except _UNWRITABLE as error:
            raise BadBatchError(f"Redis {self._where}: the batch cannot be written: {error}") from error
        self._raise_ceiling(writes)
        if not batch.partitions:
            await trio.lowlevel.checkpoint()
            return batch.results
        connection = await self._ready()
        ownership = self._ownership
        assert ownership is not None
        try:
            with trio.fail_after(self._redis.timeout):
                reply = await self._sent(connection, batch, ownership, now)
        except NotDurable:
            if self._redis.sentinels:  # another one is the primary by now, perhaps
                self._drop()
            raise  # otherwise the connection is as good as before
        except trio.TooSlowError:
            self._drop()
            raise StoreError(f"Redis {self._where} has not stored a batch within redis.timeout") from None
        except BaseException:
            self._drop()
            raise
        if lost := self._partitions.intersection(batch.answered(reply)):
            self._lose(sorted(lost))
        if batch.full:
            logs.limited("redis.full", at="error", server=self._where)
        elif batch.writing:
            for place in batch.partitions:
                if place in ownership.ceilings:
                    ownership.ceilings[place] = max(self._ceiling, ownership.ceilings[place])
        self._guess(writes)
        return batch.results

    def _raise_ceiling(self, writes: Writes) -> None:
        self._ceiling = max(self._ceiling, writes.ceiling)
        if not self._ceiling and writes.puts:
            self._ceiling = max(item.seq for item in writes.puts.values())

    async def _sent(self, connection: Connection, batch: RedisBatch, ownership: Ownership, now: int) -> list[Any]:
        self._batches += 1
        script = apply_script()
        first = self._bases[batch.partitions[0]]
        number = self._batches if batch.writing else b""
        limits = (self._options.inbox_limit, self._options.inbox_bytes, self._crowd, LARGE_BODY)
        head = (b"EVALSHA", script.name, 1, fence(first), now, GRACE_S, number, self._router, *limits)
        data = batch.command(head, self._openings, ownership.ceilings, self._ceiling)
        waiting = self._waits if batch.writing else ()
        measure = self._unmeasured >= _MEASURE_EVERY or 0 < self._options.max_bytes <= self.used
        more = (*waiting, *((("INFO", "memory"),) if measure else ()))
        data += b"".join(map(pack, more))
        replies = await connection.exchange(data, 1 + len(more))
        if isinstance(replies[0], hiredis.ReplyError) and str(replies[0]).startswith("NOSCRIPT"):
            await connection.ask("SCRIPT", "LOAD", script.text)
            replies = await connection.exchange(data, 1 + len(more))
        if (error := first_error(replies)) is not None:
            raise StoreError(f"Redis {self._where}: {error}")
        if measure:
            self._measured(replies[-1])
        self._check_wait(replies[1 : 1 + len(waiting)], connection.name)
        reply: list[Any] = replies[0]
        return reply

    def _check_wait(self, replies: list[Reply], name: str) -> None:
        """Raises: NotDurable unless as many copies as are wanted have it."""
        for reply in replies:
            found = checked(reply, name)
            here, replicas = found if isinstance(found, list) else (1, found)
            if here < 1:
                raise NotDurable(f"Redis {name}: has not synced its append-only file in time; see its disk")
            if replicas < self._redis.replicas:
                raise NotDurable(f"Redis {name}: no replica has acknowledged in time (redis.replicas); see its replica")

    # ------------------------------------------------------------------ what is used

    def _guess(self, writes: Writes) -> None:
        entries = len(writes.puts) + len(writes.records) + len(writes.changes) + len(writes.logs)
        if entries:
            chars = sum(len(item.body) for item in writes.puts.values() if item.body is not None)
            chars += sum(len(value[0]) for value in writes.records.values() if value is not None)
            chars += sum(len(getattr(write, "body", "")) for write in writes.logs)
            self.used += _ITEM_BYTES * entries + chars
        self._unmeasured += 1

    async def _measure(self, connection: Connection) -> None:
        self._measured(await connection.ask("INFO", "memory"))

    def _measured(self, text: bytes) -> None:
        told = info(text)
        self.used = int(told.get("used_memory_dataset", told.get("used_memory", "0")))
        self._unmeasured = 0

    async def highest(self) -> int:
        """See `Store.highest`. Each partition has its ceiling from its first item on."""
        await trio.lowlevel.checkpoint()
        return self._ceiling

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`."""
        connection = await self._ready()
        assert self._ownership is not None
        try:
            with trio.fail_after(self._redis.timeout):
                deleted = await self._sweeper.sweep(connection, self._ownership.tokens, now, budget)
                await self._measure(connection)
        except trio.TooSlowError:
            self._drop()
            raise StoreError(f"Redis {self._where} has not swept within redis.timeout") from None
        except BaseException:
            self._drop()
            raise
        return deleted


def _refuse(server: Server, options: RedisOptions) -> None:
    if found := problems(server, options):
        raise StoreError(*found)


async def _scripted(connection: Connection, script: Script, command: tuple[bytes | str | int, ...]) -> Reply:
    """The reply to a script that is loaded if the server does not know it.

    Raises: StoreError.
    """
    (reply,) = await connection.call(command)
    if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
        await connection.ask("SCRIPT", "LOAD", script.text)
        (reply,) = await connection.call(command)
    return checked(reply, connection.name)


def run_apart(function: Callable[[], Awaitable[T]]) -> T:
    """Run it to its end in a thread, so that a caller may be within trio or without."""
    import threading

    import outcome

    found: list[outcome.Outcome[T]] = []
    thread = threading.Thread(target=lambda: found.append(outcome.capture(trio.run, function)), name="redis")
    thread.start()
    thread.join()
    return found[0].unwrap()


def _holder(folder: Path, router: int) -> str:
    """This farm's name: the host's, and a number that is made once for a data folder.

    Raises: FileError.
    """
    path = folder / HOLDER_FILE
    with os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "r+") as file:
        name = file.read(256).strip()
        if not name:
            name = f"{socket.gethostname()}-{os.urandom(8).hex()}"
            file.write(name + "\n")
    return name


def new_store(settings: Settings, router: int) -> Store:
    """See `router.store.registry.StoreModule`."""
    owners = fixed_owners(settings.get(RouterOptions).routers)
    partitions = frozenset(place for place, owner in enumerate(owners) if owner == router)
    folder = Path(settings.get(Data).dir)
    return RedisStore(
        settings.get(StoreOptions), settings.get(RedisOptions), lambda: _holder(folder, router), partitions, router
    )


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`: whether anything was ever written under the prefix."""
    options = settings.get(RedisOptions)
    places = bases(options.prefix)

    async def main() -> bool:
        connection = await connect_to_primary(options)
        try:
            with trio.fail_after(options.timeout):
                replies = await connection.call(*(("HEXISTS", fence(base), "b") for base in places))
        except trio.TooSlowError:
            return True
        finally:
            connection.abandon()
        return any(reply != 0 for reply in replies)

    try:
        if not run_apart(main):
            return None
    except StoreError:
        pass
    where = f"Redis {place(options)}, under the prefix {options.prefix},"
    return where, "choose another redis.prefix"


def look_over(settings: Settings) -> list[Finding]:
    """See `router.store.registry.StoreModule`."""
    options = settings.get(RedisOptions)

    async def main() -> Server:
        connection = await connect_to_primary(options)
        try:
            with trio.fail_after(options.timeout):
                return await look(connection, options)
        finally:
            connection.abandon()

    needed = "a server that answers (redis.url)"
    try:
        server = run_apart(main)
    except (StoreError, trio.TooSlowError) as error:
        return [Finding("Redis", "fail", str(error) or "no answer within redis.timeout", needed, "")]
    meaning = Finding("a 2xx means", "ok", promise(server, options), "", "")
    return [*findings(server, options), meaning]
