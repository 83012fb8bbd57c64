"""The committer: many small writes and reads become one group commit after another.

It hands the next batch of its queue (`router.core.commit_queue`) to the store, and calls back when the batch is
durable. While one commit is under way the next batch fills.

What can go wrong
-----------------
- The store fails: everything in the batch is answered with FAILED. Its removals are the exception, because those who
  asked for them do not ask again: they are kept, items that they name are left out of reads, and they are made when the
  store is well again.
- Something in a batch can never be written: the batch is taken apart, so that only this is answered with FAILED.
- A callback raises: that is logged, and the others are called.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import islice
from typing import Final

import trio

from router.common import logs
from router.common.histogram import Histogram
from router.common.messages import FAILED, OK
from router.common.settings import StoreOptions
from router.core.bad_batch import apply_apart
from router.core.batch import Batch, Outcome, call_back, note_failed
from router.core.commit_queue import CommitQueue
from router.store.base import EVENT_BYTES, PROBE_SPACE, BadBatchError, Reads, Results, Store

_READ_BYTES: Final = 33_554_432
"""About so many bytes of inboxes, and of logs, are read in one batch: what is read waits in memory until it has been
sent on."""
_SLOW_COMMIT_S: Final = 10.0
"""A commit that takes so long is as bad as one that fails: no more is promised meanwhile."""
_STEP_S: Final = 60.0
"""The clock has been set if it differs by so much from the one that only counts."""
_STEP_PAUSE_S: Final = 3600.0
"""So long after it was set forward nothing is deleted for its age: it may be set back."""


class GroupCommitter(CommitQueue):
    """Owner of the store.

    unix_time: the clock by which entries expire. monotonic: the one that measures. Both in seconds.
    """

    def __init__(
        self,
        store: Store,
        options: StoreOptions,
        unix_time: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(store, options, monotonic)
        self._unix_time = unix_time
        self._monotonic = monotonic
        self._idle: trio.Event | None = None
        self._busy_since: float | None = None
        self._sweep_budget = 0
        self._offset = unix_time() - monotonic()
        self._sweep_from = monotonic()
        self.newest = 0
        """No item that was stored before the start has a higher place in the order of arrival."""
        self.healthy = True
        self.why = ""
        """Why the last commit or sweep failed."""
        self.commits = 0
        self.took = Histogram()
        """How long commits took."""
        self.written = 0
        self.answered = 0
        """Writes and reads that have been committed, or have failed; large reads count as several."""
        self.expired = 0
        self.failures = 0
        self.evicted = 0
        self.unwritable = 0

    async def open(self) -> None:
        """Open the store. Raises: StoreError."""
        await self._store.open()
        self.newest = await self._store.highest()

    @property
    def forgets(self) -> bool:
        """Whether a record that is missing may have been lost (`Store.forgets`)."""
        return self._store.forgets

    @property
    def refusing(self) -> str:
        """Why pushes are refused now; empty if they are not."""
        if not self.healthy:
            return self.why
        if self.over:
            return f"the store holds {self._store.used} bytes, store.max_bytes allows {self._max_bytes}"
        if self.full:
            return "too much waits for the store (store.queue_limit, store.queue_bytes)"
        if self._busy_since is not None and self._monotonic() - self._busy_since > _SLOW_COMMIT_S:
            return f"the store has been at one commit for more than {_SLOW_COMMIT_S:g} s"
        return ""

    def _batch_added(self) -> None:
        if self._idle is not None:
            self._idle.set()

    # ------------------------------------------------------------------ the store

    async def run(self, flush: Callable[[], None]) -> None:
        """Commit batches until cancelled. `flush` is called after each batch's callbacks, to send what they made."""
        while True:
            try:
                await self._turn(flush)
            except Exception as error:  # whatever it was, the next batches are committed
                logs.limited("committer.failed", at="error", per=type(error).__name__, exc=error)
                await trio.lowlevel.checkpoint()

    async def _turn(self, flush: Callable[[], None]) -> None:
        if self._sweep_budget:
            await self._sweep()
        if not self._batches:
            self._idle = trio.Event()
            await self._idle.wait()
            self._idle = None
            return
        batch = self._batches.popleft()
        if batch is self._filling:
            self._filling = None
        if self._late:
            self._late = {device: last for device, last in self._late.items() if last is not batch}
        self._busy_since = begun = self._monotonic()
        try:
            outcome = await self._apply(batch)
            if outcome.status == OK:
                self.took.observe(self._monotonic() - begun)
        finally:
            self._busy_since = None
            self._waiting -= batch.size
            self.answered += batch.size
            self._pushes -= batch.pushes
            self._pushes_done += batch.pushes
            self._chars -= batch.chars
        self._weigh_reads(batch.reads, outcome.results)
        call_back(batch, outcome, self._unremoved)
        if self._unremoved and outcome.status == OK and len(batch.writes) and not outcome.results.failed:
            self._remove_again()
        flush()

    def _weigh_reads(self, reads: Reads, found: Results) -> None:
        if reads.inboxes:
            size = sum(len(item.slot) + len(item.body or "") for items in found.inboxes.values() for item in items)
            self._inbox_weight = self._weight(size // len(reads.inboxes), self._inbox_weight)
        if reads.logs:
            size = sum(len(event.body) + EVENT_BYTES for part in found.logs.values() for event in part.events)
            self._log_weight = self._weight(size // len(reads.logs), self._log_weight)

    def _weight(self, size: int, before: int) -> int:
        """Large reads raise the weight at once; small ones lower it step by step."""
        return max(1, min(self._batch_limit, size * self._batch_limit // _READ_BYTES), before // 2)

    async def _apply(self, batch: Batch) -> Outcome:
        now = int(self._unix_time())
        try:
            try:
                outcome = Outcome(OK, await self._store.apply(batch.writes, batch.reads, now))
            except BadBatchError:
                outcome = await self._apply_apart(batch, now)
        except Exception as error:
            self._failed("store.failed", error)
            for name in batch.writes.records:
                self._cache.drop(name)
            self._keep_removals(batch)
            if batch.writes.ceiling and self._batches:
                self._batches[0].writes.ceiling = self._ceiling
            elif batch.writes.ceiling:
                self._ceiling = 0
            return Outcome(FAILED, Results())
        if outcome.results.failed:
            self._failed_keys(batch, outcome)
        if not self.healthy and len(batch.writes):  # reading alone works on a full disk too
            self.healthy = True
            logs.limited("store.recovered", failures=self.failures)
        self.evicted += outcome.results.evicted
        self.commits += 1
        self.written += len(batch.writes)
        return outcome

    async def _apply_apart(self, batch: Batch, now: int) -> Outcome:
        outcome, unwritable = await apply_apart(self._store, batch, now)
        for error, part in unwritable:
            self.unwritable += 1
            logs.limited("store.unwritable", at="error", per=str(error), error=str(error))
            for record in part.records:
                self._cache.drop(record)
        return outcome

    def _failed_keys(self, batch: Batch, outcome: Outcome) -> None:
        """The store could do a part of the batch only."""
        failed = outcome.results.failed
        note_failed(batch, outcome)
        self.failures += 1
        logs.limited("store.failed", at="error", keys=len(failed))
        for name in batch.writes.records:
            if name[1] in failed:
                self._cache.drop(name)
        self._keep_removals(batch, failed)

    def _keep_removals(self, batch: Batch, of: Container[bytes] | None = None) -> None:
        """Those of a batch that failed, or of these devices: but where a put has come since, which replaces what they
        name."""
        for key, version in (batch.displaced | batch.writes.removals).items():
            if of is not None and key[0] not in of:
                continue
            later = next((waiting for waiting in self._batches if key in waiting.writes.puts), None)
            if later is not None:
                later.displaced[key] = max(version, later.displaced.get(key, version))
            elif key in self._unremoved or len(self._unremoved) < self._queue_limit:
                self._unremoved[key] = max(version, self._unremoved.get(key, version))
            else:
                logs.limited("store.removals_lost", at="error", limit=self._queue_limit)

    def _remove_again(self) -> None:
        """In the next batch, for what is read from now on must not give what they name. No put waits in their slots."""
        batch = self._batches[0] if self._batches else self._next(0)
        removals = batch.writes.removals
        for key in list(islice(self._unremoved, self._batch_limit)):
            removals[key] = max(self._unremoved.pop(key), removals.get(key, -1))
            batch.size += 1
            self._waiting += 1

    def probe(self, key: bytes = b"") -> None:
        """If the store has failed, write a record to see whether it works again: pushes are refused meanwhile, and
        cannot show it. key: one that this router owns."""
        if not self.healthy:
            self.record(PROBE_SPACE, key, b"", int(self._unix_time()) + 1)

    def sweep_soon(self, budget: int) -> None:
        """Between two commits, delete what has expired among the next `budget` entries of the store."""
        now = self._monotonic()
        offset = self._unix_time() - now
        if offset - self._offset > _STEP_S:
            self._sweep_from = now + _STEP_PAUSE_S
            logs.warning("clock.stepped", seconds=round(offset - self._offset), nothing_is_deleted_for_s=_STEP_PAUSE_S)
        elif offset - self._offset < -_STEP_S:
            self._sweep_from = now
        self._offset = offset
        if now < self._sweep_from:
            return
        self._sweep_budget = budget
        if self._idle is not None:
            self._idle.set()

    async def _sweep(self) -> None:
        budget, self._sweep_budget = self._sweep_budget, 0
        try:
            self.expired += await self._store.sweep(int(self._unix_time()), budget)
        except Exception as error:
            self._failed("store.sweep_failed", error)

    def _failed(self, event: str, error: Exception) -> None:
        self.healthy = False
        self.why = str(error) or type(error).__name__
        self.failures += 1
        logs.limited(event, at="error", per=self.why, error=self.why)

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._batches and self._busy_since is None
