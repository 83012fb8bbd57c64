"""One thread for a store that blocks, for as long as the store is open.

`trio.to_thread` would do the same with a thread from a pool, a limiter and a copied context for each call: with a
commit every two milliseconds that was a tenth of what the router's main thread did under the interpreter lock.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class StoreThread:
    """Runs functions one after the other in its thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Any, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in the thread. Once begun it is not cancelled: a commit is done or it is not."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="store", daemon=True)
            self._thread.start()
        self._jobs.put((function, trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()))
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, token, task = job
            token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.capture(function))

    def end(self) -> None:
        """Let the thread end after what it was given."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None
