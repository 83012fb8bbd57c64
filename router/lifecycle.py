"""What the router and a worker have in common as processes: how they begin, what ends them, how a failure is told."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import trio
import zmq

from router import logs
from router.link import LinkError
from router.lot import prefer_batches
from router.options import Settings
from router.pusher_apps import AppsError
from router.settings import Data, Log
from router.store.base import StoreError
from router.token import KeyFormatError

_GC_THRESHOLD = (20_000, 20, 50)
"""What lives as long as one push survives a young collection at Python's default of 700, for nothing."""
_MENDABLE = (StoreError, KeyFormatError, LinkError, AppsError, OSError)

Context = zmq.Context[zmq.Socket[bytes]]


class Process(Protocol):
    """A router or a worker, wired."""

    async def run(self, stop: trio.Event) -> None:
        """Serve until `stop` is set, then end in good order."""


def run(make: Callable[[Context], Process], settings: Settings, parent: int | None, name: str, **fields: Any) -> int:
    """Make a process and run it until SIGTERM, or until the pipe `parent` is closed by whoever started us.

    `name` and `fields` (the shard) stand in every log line.
    Returns: exit code. A failure that the operator can mend is one log line.
    """
    log = settings.get(Log)
    logs.setup(log.format, log.level, process=name, **fields)
    prefer_batches()
    context: Context = zmq.Context()
    try:
        process = make(context)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        trio.run(_until_told, process, parent)
    except BaseExceptionGroup as group:
        known, other = group.split(_MENDABLE)
        if known is None or other is not None:
            raise
        logs.error(f"{name}.failed", why="; ".join(str(error) for error in _leaves(known)))
        return 1
    except _MENDABLE as error:
        logs.error(f"{name}.failed", why=str(error))
        return 1
    finally:
        context.destroy(linger=0)
    return 0


def make_data_folder(settings: Settings) -> None:
    """For a process without a supervisor: the data folder, for nobody but us. Raises: OSError."""
    folder = Path(settings.get(Data).dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


async def _until_told(process: Process, parent: int | None) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop, parent is None)
        if parent is not None:
            nursery.start_soon(_watch_parent, parent, stop)
        await process.run(stop)
        nursery.cancel_scope.cancel()


async def _watch_signals(stop: trio.Event, alone: bool) -> None:
    """Set `stop` at the first SIGTERM. SIGINT does the same to a process that is alone; under a supervisor it came
    from a terminal to all of us, and the supervisor decides what it means."""
    if not alone:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with trio.open_signal_receiver(signal.SIGTERM, *([signal.SIGINT] if alone else [])) as signals:
        async for _ in signals:
            stop.set()


async def _watch_parent(parent: int, stop: trio.Event) -> None:
    """Set `stop` when the other end of the pipe has gone: nobody would be left to stop us."""
    await trio.lowlevel.wait_readable(parent)
    logs.warning("parent.gone")
    stop.set()
