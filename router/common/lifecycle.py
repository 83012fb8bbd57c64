"""What the router and a worker have in common as processes: their start, their end, and how a failure is reported."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import trio
import zmq

from router.common import logs
from router.common.errors import MendableError
from router.common.files import take_folder
from router.common.options import Settings
from router.common.poller import prefer_batches
from router.common.settings import Data, DrainOptions, Log

_GC_THRESHOLD = (20_000, 20, 50)
"""What lives as long as one push survives a young collection at Python's default of 700, for nothing."""
MENDABLE = (MendableError, OSError)

_NOTICE: Final = b"notice"
_FINISH: Final = b"finish"
_LINE_BYTES: Final = 64

PRIVATE: Final = 0o077
"""Umask of every process of a farm: no other user may use the sockets that it makes."""

Context = zmq.Context[zmq.Socket[bytes]]


class Process(Protocol):
    """A router or a worker, wired."""

    async def run(self, stop: trio.Event) -> None:
        """Serve until `stop` is set, then end in good order."""

    def notice(self, over: float | None = None) -> None:
        """Answer probes as not ready from now on, and go on serving until SIGTERM.

        over: seconds over which the clients are to be let go then; None: that is not known (yet)."""

    def finish(self) -> None:
        """Take nothing new from clients, finish what there is, and do what other processes ask for until SIGTERM."""


def notice(over: float | None) -> bytes:
    """What a supervisor sends a process to have its `notice` called."""
    return _NOTICE + b"\n" if over is None else b"%s %.3f\n" % (_NOTICE, over)


def finish() -> bytes:
    """What a supervisor sends a process to have its `finish` called."""
    return _FINISH + b"\n"


def run(make: Callable[[Context], Process], settings: Settings, line: int | None, name: str, **fields: Any) -> int:
    """Make a process and run it until SIGTERM, or until the supervisor's end of the socket pair `line` is closed.

    line: None for a process without a supervisor; on SIGTERM that is not ready for `drain.notice`, and then ends.
    `name` and `fields` (the shard) stand in every log line.
    Returns: exit code. A failure that the operator can mend is one log line, and sent to the supervisor.
    """
    os.umask(PRIVATE)
    log = settings.get(Log)
    logs.setup(log.format, log.level, process=name, **fields)
    sys.unraisablehook = _not_raised
    prefer_batches()
    context: Context = zmq.Context()
    try:
        if line is None:  # otherwise the supervisor has taken it
            take_folder(Path(settings.get(Data).dir))
        process = make(context)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        trio.run(_until_told, process, line, settings.get(DrainOptions).notice)
    except BaseExceptionGroup as group:
        known, other = group.split(MENDABLE)
        if known is None or other is not None:
            raise
        _failed(name, line, "; ".join(str(error) for error in _leaves(known)))
        return 1
    except MENDABLE as error:
        _failed(name, line, str(error))
        return 1
    finally:
        context.destroy(linger=0)
    return 0


def _not_raised(ignored: sys.UnraisableHookArgs) -> None:
    """An error where Python has nobody to tell of it. Clients can bring that about, by a server name (SNI) that is not
    ASCII, for one: so it is no trace on stderr each time, as by default."""
    kind = ignored.exc_type.__name__
    logs.limited("process.error_not_raised", per=kind, exc=ignored.exc_value, where=ignored.err_msg or "")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _failed(name: str, line: int | None, why: str) -> None:
    logs.error(f"{name}.failed", why=why)
    if line is not None:
        report_failure(line, why)


def report_failure(line: int, why: str) -> None:
    """Report why this process is about to fail."""
    with contextlib.suppress(OSError):
        os.write(line, why.encode(errors="replace"))


async def _until_told(process: Process, line: int | None, notice: float) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stop, process, None if line is not None else notice)
        if line is not None:
            nursery.start_soon(_watch_supervisor, line, stop, process)
        await process.run(stop)
        nursery.cancel_scope.cancel()


async def _watch_signals(stop: trio.Event, process: Process, notice: float | None) -> None:
    """Set `stop` at the first SIGTERM. SIGINT does the same to a process that is alone; under a supervisor it came
    from a terminal to all of us, and the supervisor decides what it means.

    notice: how long a process that is alone is not ready before it stops; a second signal ends that.
    """
    if notice is None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with trio.open_signal_receiver(signal.SIGTERM, *([] if notice is None else [signal.SIGINT])) as signals:
        await anext(signals)
        if notice:
            process.notice()
            with trio.move_on_after(notice):
                await anext(signals)
        stop.set()
        async for _ in signals:
            pass  # it ends already


async def _watch_supervisor(line: int, stop: trio.Event, process: Process) -> None:
    """Receive from the supervisor; set `stop` when it has ended, because nothing else would stop this process."""
    kept = b""
    while True:
        await trio.lowlevel.wait_readable(line)
        try:
            data = os.read(line, _LINE_BYTES)
        except OSError:
            data = b""
        if not data:
            logs.warning("parent.gone")
            stop.set()
            return
        *lines, kept = (kept + data).split(b"\n")
        for text in lines:
            word, _, over = text.partition(b" ")
            if word == _NOTICE:
                process.notice(float(over) if over else None)
            elif word == _FINISH:
                process.finish()
