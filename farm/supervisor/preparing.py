"""Before any process of the farm starts: what the store needs because there is another number of routers."""

from __future__ import annotations

from collections.abc import Callable

import trio

from router.common.errors import MendableError
from router.common.memory import give_back
from router.common.options import Settings
from router.store.registry import Preparation, preparation


async def prepare(settings: Settings, stop: trio.Event, under_way: Callable[[Preparation | None], None]) -> None:
    """Do it, in a thread; return at once if there is nothing to do. It ends soon once `stop` is set.

    under_way: called with what is begun, and with None when that is over.
    Raises: StoreError, FileError; then the store is as it was.
    """
    work = preparation(settings)
    if work is None:
        return
    failure: MendableError | None = None

    async def stop_it() -> None:
        await stop.wait()
        work.stop()

    under_way(work)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_it)
        try:
            await trio.to_thread.run_sync(work.run)
        except MendableError as error:
            failure = error
        nursery.cancel_scope.cancel()
    under_way(None)
    give_back()
    if failure is not None:
        raise failure
