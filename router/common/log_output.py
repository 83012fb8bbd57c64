"""Where log lines go: to a descriptor, without a buffer and without a wait, and copies of them to the supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections.abc import Callable, Mapping
from typing import Final

from router.common.log_forms import FIELDS, form

_PIPE_BYTES: Final = select.PIPE_BUF  # a pipe that poll reports as writable takes so many without waiting
_COPIES: Final = 50
_COPIES_A_SECOND: Final = 5.0
"""Info events that are handed on: so many at once, and then a second."""
_JOURNAL: Final = "JOURNAL_STREAM"


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether a descriptor is the stream to systemd's journal that this process was started with (systemd.exec(5))."""
    named = environ.get(_JOURNAL)
    if not named:
        return False
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class DescriptorHandler(logging.Handler):
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
                setattr(lost, FIELDS, {"lines": self._lost})
                if not self._line(self.format(lost)):
                    self._lost += 1
                    return
                self._lost = 0
            if not self._line(self.format(record)):
                self._lost += 1
        except Exception:
            self._lost += 1

    def _line(self, line: str) -> bool:
        return self.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def write(self, whole: bytes) -> bool:
        """Write whole lines. Returns: whether all of them are written; of more than a pipe takes at once some may be
        then."""
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


class CopyHandler(logging.Handler):
    """Hands events on, each as a JSON object. What they are handed to may raise: that is ignored. Of a flood of info
    events, such as one a connection, a few are handed on, and cost something."""

    def __init__(self, send: Callable[[bytes], object], process_fields: Mapping[str, object]) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(form("json", process_fields))
        self._send = send
        self._room = float(_COPIES)
        self._at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        if record.levelno <= logging.INFO:
            self._room = min(_COPIES, self._room + max(0.0, record.created - self._at) * _COPIES_A_SECOND)
            self._at = record.created
            if self._room < 1:
                return
            self._room -= 1
        with contextlib.suppress(Exception):
            self._send(self.format(record).encode())
