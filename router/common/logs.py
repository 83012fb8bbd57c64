"""Structured logging over the standard library's: one line an event, readable text or one JSON object.

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

import contextlib
import json
import logging
import os
import select
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

MAX_VALUE_CHARS: Final = 4096  # a longer value is cut: a log line is for reading, and a trace fits in this
MAX_LIMITED_KEYS: Final = 1024  # events that a limiter remembers, in case it is keyed by what comes from outside
REPEAT_SECONDS: Final = 10.0  # one line an event in this time, for what goes through `limited`

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_STDERR: Final = 2
_PIPE_BYTES: Final = select.PIPE_BUF  # a pipe that poll reports as writable takes so many without waiting
_FIELDS: Final = "farm_fields"  # the attribute of a log record that holds the event's fields
_logger: Final = logging.getLogger("farm")
_copied: list[Callable[[bytes], object]] = []  # where events go besides


def setup(format: str, level: str, *, stream: IO[str] | None = None, **process_fields: object) -> None:
    """Send every log line of this process to stderr (or `stream`); a second call replaces the first.

    `format` is "text" or "json", `level` one of debug, info, warning, error. `process_fields` stand in every
    line; `process` and `shard` or `router` are written as `worker[0]` in text.

    Raises: KeyError for an unknown level, ValueError for an unknown format.
    """
    threshold = _LEVELS[level]
    formatter: logging.Formatter
    if format == "json":
        formatter = _JsonFormatter(process_fields)
    elif format == "text":
        formatter = _TextFormatter(process_fields)
    else:
        raise ValueError(f"unknown log format: {format!r}")
    handler = logging.StreamHandler(stream) if stream is not None else _DescriptorHandler(_STDERR)
    handler.setFormatter(formatter)
    handler.setLevel(threshold)
    logging.raiseExceptions = False  # a line that cannot be made or written must not become a trace of many
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(threshold, logging.WARNING))
    _logger.setLevel(threshold)
    for send in _copied:
        root.addHandler(_CopyHandler(send, process_fields))
        _logger.setLevel(min(threshold, logging.INFO))


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
        _logger.log(level, "%s", name, exc_info=exc, extra={_FIELDS: fields})


class _DescriptorHandler(logging.Handler):
    """Writes whole lines to a descriptor, without a buffer and without ever waiting for its reader."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lost = 0
        self._torn = False  # whether only the beginning of a line could be written

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as lost. Never raises."""
        try:
            if self._lost:
                lost = logging.LogRecord(record.name, logging.WARNING, "", 0, "log.lines_lost", None, None)
                setattr(lost, _FIELDS, {"lines": self._lost})
                if not self._write(self.format(lost)):
                    self._lost += 1
                    return
                self._lost = 0
            if not self._write(self.format(record)):
                self._lost += 1
        except Exception:
            self._lost += 1

    def _write(self, line: str) -> bool:
        whole = line.encode("utf-8", "backslashreplace") + b"\n"
        data = memoryview(b"\n" + whole if self._torn else whole)
        size = len(data)
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while data:
            ready = poll.poll(0)
            written = 0
            if ready and ready[0][1] & select.POLLOUT:
                with contextlib.suppress(OSError):
                    written = os.write(self._fd, data[:_PIPE_BYTES])
            if not written:
                self._torn |= len(data) < size
                return False
            data = data[written:]
        self._torn = False
        return True


class _CopyHandler(logging.Handler):
    def __init__(self, send: Callable[[bytes], object], process_fields: Mapping[str, object]) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_JsonFormatter(process_fields))
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            self._send(self.format(record).encode())


class _Formatter(logging.Formatter):
    """What both forms share: a record as (time, level, event, fields)."""

    def __init__(self, process_fields: Mapping[str, object]) -> None:
        super().__init__()
        self._process_fields = dict(process_fields)

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields = getattr(record, _FIELDS, None)
        # Not ours: a library's line. Its text is no constant, so it stands in a field like any other value.
        found = dict(fields) if fields is not None else {"logger": record.name, "message": _message(record)}
        if record.exc_info and record.exc_info[1] is not None:
            exc = record.exc_info[1]
            found["error"] = f"{type(exc).__name__}: {_text(exc)}"
            found["trace"] = self.formatException(record.exc_info)
        return found

    def _event(self, record: logging.LogRecord) -> str:
        return _message(record) if hasattr(record, _FIELDS) else "library"


class _TextFormatter(_Formatter):
    def __init__(self, process_fields: Mapping[str, object]) -> None:
        super().__init__(process_fields)
        rest = dict(process_fields)
        who = _plain(rest.pop("process", "farm"))
        for number in ("shard", "router"):
            if number in rest:
                who = f"{who}[{_plain(rest.pop(number))}]"
        self._who = who
        self._rest = rest

    def format(self, record: logging.LogRecord) -> str:
        fields = self._rest | self._fields(record)
        words = [_timestamp(record), record.levelname.lower(), self._who, _plain(self._event(record))]
        words.extend(f"{_plain(key)}={_plain(value)}" for key, value in fields.items())
        return " ".join(words)


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _timestamp(record), "level": record.levelname.lower()}
        line |= self._process_fields
        line["event"] = self._event(record)
        for key, value in self._fields(record).items():
            line[key if key not in line else f"{key}_"] = _jsonable(value)
        # ASCII only: whatever reads the line later, no character of a value has a meaning to it.
        return json.dumps(line, ensure_ascii=True, default=_text, separators=(",", ":"))


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's wrong format string must not cost the line
        return str(record.msg)


def _text(value: object) -> str:
    """Any value as text of bounded length. Never raises."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value[: MAX_VALUE_CHARS // 2 + 1]).hex()
    else:
        try:
            text = str(value)
        except Exception as exc:
            text = f"<{type(value).__name__}: {type(exc).__name__} in str()>"
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}..."


def _plain(value: object) -> str:
    """A value in a text line: bare if it is one harmless word, else quoted as JSON quotes, nothing
    unprintable.
    """
    text = _text(value)
    if text and text.isprintable() and not any(c in ' "=\\' for c in text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


def _jsonable(value: object) -> Any:
    """Numbers, booleans and null stay what they are; JSON has no NaN and no infinity, so those become
    text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _text(value)  # beyond, few readers can take it
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, list | tuple):
        # One level only: a list may contain itself.
        return [_text(item) if isinstance(item, list | tuple) else _jsonable(item) for item in value[:MAX_VALUE_CHARS]]
    return _text(value)
