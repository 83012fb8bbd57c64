"""Structured logging over the standard library's: one line an event, in one of the forms of `router.common.log_forms`.

    setup("text", "info", process="worker", shard=0)
    event("drain", devices=12_000, seconds=10.0)

    2026-01-31T12:00:00.250Z info worker[0] drain devices=12000 seconds=10.0

An event has a constant name and fields; what comes from outside stands only in fields, where no value can end
a line, forge a second one, or reach the terminal as a control sequence. Lines of libraries take the same
form, from `warning` on.

Stderr is written synchronously, so nothing that a device can cause may log a line each at the default level:
what repeats goes through `limited`. A stderr that cannot take a line (its reader has gone or stands still, its disk is
full, it is closed) costs that line and nothing else: `log.lines_lost` tells how many, once it takes lines again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Final

from router.common.log_forms import FIELDS, FORMATS, form, priority
from router.common.log_output import CopyHandler, DescriptorHandler, is_journal

MAX_LIMITED_KEYS: Final = 1024  # events that a limiter remembers, in case it is keyed by what comes from outside
REPEAT_SECONDS: Final = 10.0  # one line an event in this time, for what goes through `limited`

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_STDERR: Final = 2
_logger: Final = logging.getLogger("farm")
_copied: list[Callable[[bytes], object]] = []  # where events go besides


def setup(format: str, level: str, *, stream: IO[str] | None = None, **process_fields: object) -> None:
    """Send every log line of this process to stderr (or `stream`); a second call replaces the first.

    `format` is "text", "json" or "logfmt" (`router.common.log_forms`), `level` one of debug, info, warning, error.
    `process_fields` stand in every line; `process` and `shard` or `router` are written as `worker[0]` in text.
    Where a program or systemd's journal reads the lines, an exception that ends the process is one of them, too.

    Raises: KeyError for an unknown level, ValueError for an unknown format.
    """
    threshold = _LEVELS[level]
    journal = stream is None and to_journal(os.environ)
    handler = logging.StreamHandler(stream) if stream is not None else DescriptorHandler(_STDERR)
    handler.setFormatter(form(format, process_fields, journal))
    handler.setLevel(threshold)
    logging.raiseExceptions = False  # a line that cannot be made or written must not become a trace of many
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    _logger.setLevel(threshold)
    if stream is None:
        sys.excepthook = _crashed if journal or format != FORMATS[0] else sys.__excepthook__
    for send in _copied:
        root.addHandler(CopyHandler(send, process_fields))
        _logger.setLevel(min(threshold, logging.INFO))


def _crashed(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
    else:
        error("process.crashed", exc)


def to_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is systemd's journal, by the environment of this process."""
    return is_journal(_STDERR, environ)


def copy_to(send: Callable[[bytes], object]) -> None:
    """From the next `setup` on, hand each event from info on to this, too, as a JSON object, whatever form and level
    the log has. What it cannot take at once it has to drop; what it raises is ignored."""
    _copied[:] = [send]


def debug(name: str, /, **fields: object) -> None:
    """Log an event that is of use only while a fault is looked for, such as one of a single connection."""
    _log(logging.DEBUG, name, fields)


def event(name: str, /, **fields: object) -> None:
    """Log something that happens in the normal course (level info)."""
    _log(logging.INFO, name, fields)


def warning(name: str, /, **fields: object) -> None:
    """Log something that the farm survives but an operator should know of."""
    _log(logging.WARNING, name, fields)


def error(name: str, /, exc: BaseException | None = None, **fields: object) -> None:
    """Log a failure. With `exc` the line also holds the exception and, escaped into one line, its trace."""
    _log(logging.ERROR, name, fields, exc)


def write_lines(lines: bytes, level: str = "info") -> bool:
    """Write whole lines that are ready, of any form, among those of the log; for the journal each gets the priority of
    this level, which is that of all of them. Returns: whether they are written. If not, the caller keeps or drops
    them."""
    if to_journal(os.environ):
        head = priority(_LEVELS[level]).encode()
        lines = head + lines[:-1].replace(b"\n", b"\n" + head) + b"\n"
    for handler in logging.getLogger().handlers:
        if isinstance(handler, DescriptorHandler):
            return handler.write(lines)
    return True


class RateLimit:
    """Admits each key once in `interval` seconds and counts what it holds back in between."""

    def __init__(self, interval: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._keys: dict[str, tuple[float, int]] = {}  # key -> time of the last line, held back since

    def admit(self, key: str) -> int | None:
        """None: hold this one back. A number: let it pass; so many were held back since the last that
        passed.
        """
        now = self._clock()
        seen = self._keys.get(key)
        if seen is not None:
            last, held = seen
            if now - last < self._interval:
                self._keys[key] = (last, held + 1)
                return None
            del self._keys[key]  # so that the dict's order is the order of the last lines
        elif len(self._keys) >= MAX_LIMITED_KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[key] = (now, 0)
        return 0 if seen is None else seen[1]


_shared_limit: Final = RateLimit()


def limited(
    name: str,
    /,
    *,
    at: str = "warning",
    per: str = "",
    rate: RateLimit = _shared_limit,
    exc: BaseException | None = None,
    **fields: object,
) -> None:
    """Log an event that may come in a flood: one line in `REPEAT_SECONDS`, which counts those left out.

    The line has a field `repeats`, the number left out since the last one. Events are told apart by name, and
    by `per` where one name stands for several (the shard, say). `at` is the level.
    """
    level = _LEVELS[at]
    if not _logger.isEnabledFor(level):
        return
    held = rate.admit(f"{name}\0{per}")
    if held is None:
        return
    if held:
        fields["repeats"] = held
    _log(level, name, fields, exc)


def _log(level: int, name: str, fields: Mapping[str, object], exc: BaseException | None = None) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", name, exc_info=exc, extra={FIELDS: fields})
