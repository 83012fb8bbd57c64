"""A store that blocks, in a thread of its own with a trio loop of its own.

The thread takes its next batch by itself as soon as the last one is durable. Were it handed over by the main loop, each
commit would wait for two changes of thread and for whatever the main loop is doing: as long as the commit itself.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from router.journal import Journal
from router.store.base import Store


async def run(
    journal: Journal,
    store: Store,
    flush: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open the store, commit what the journal offers until cancelled, close the store.

    `flush` is called in this trio loop after each batch's callbacks. Raises: StoreError if it cannot be opened.
    """
    driver = _Driver(journal, store, flush, trio.lowlevel.current_trio_token())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, driver.run_thread)
        try:
            await driver.opened.wait()
            task_status.started()
            await trio.sleep_forever()
        finally:
            driver.stop()


class _Driver:
    def __init__(
        self, journal: Journal, store: Store, flush: Callable[[], None], main: trio.lowlevel.TrioToken
    ) -> None:
        self._journal = journal
        self._store = store
        self._flush = flush
        self._main = main
        self._own: trio.lowlevel.TrioToken | None = None
        self._wanted = trio.Event()
        self._stopping = False
        self.opened = trio.Event()

    # --- in the thread

    def run_thread(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        self._own = trio.lowlevel.current_trio_token()
        journal = self._journal
        await self._store.open()
        try:
            journal.wake = self._wake
            self._main.run_sync_soon(self.opened.set)
            while not self._stopping:
                if budget := journal.take_sweep():
                    self._main.run_sync_soon(self._swept, await journal.sweep(budget))
                batch = journal.take()
                if batch is None:
                    await self._wanted.wait()
                    self._wanted = trio.Event()
                    continue
                status, results = await journal.commit(batch)
                self._main.run_sync_soon(self._finish, batch, status, results)
        finally:
            await self._store.close()

    # --- in the main loop

    def _wake(self) -> None:
        assert self._own is not None
        self._own.run_sync_soon(self._is_wanted)

    def _is_wanted(self) -> None:
        self._wanted.set()

    def _finish(self, *finished: object) -> None:
        self._journal.finish(*finished)  # type: ignore[arg-type]
        self._flush()

    def _swept(self, deleted: int) -> None:
        self._journal.expired += deleted

    def stop(self) -> None:
        self._stopping = True
        if self._own is not None:
            self._wake()
