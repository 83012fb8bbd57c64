"""`log.pushes`: a line of JSON for each event of a push, for those who have to prove what happened to a message.

    {"time":"2026-01-31T12:00:00.250Z","level":"info","process":"router","event":"push.accepted","device":"...",
     "slot":"...","version":7,"ttl":60,"size":20,"request_id":"..."}

They go to the router's stderr among the lines of its log, as JSON whatever form that has, and to no copy of it. They
are gathered and written once a turn, without a wait. What stderr does not take waits, within `log.max_waiting_bytes`;
beyond, lines are lost, and a line says how many.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from router.common import logs
from router.core.push_watch import Watched

_encode: Final = msgspec.json.Encoder().encode
_MAX_LINE: Final = 4096
"""Bytes: what a pipe takes at once, so that no line of another process comes between."""
_SLOT_CHARS: Final = 400
_LEVEL: Final = "info"
_LOSS: Final = "warning"
"""The levels of the lines: of what becomes of pushes, and of lines that are lost."""


class PushLog:
    """The lines that are not written yet. write: takes whole lines of one level, and gives whether it could
    (`logs.write_lines`)."""

    def __init__(
        self,
        max_waiting: int,
        process_fields: Mapping[str, object],
        unix_time: Callable[[], float] = time.time,
        write: Callable[[bytes, str], bool] = logs.write_lines,
    ) -> None:
        self._most = max_waiting
        self._unix_time = unix_time
        self._write = write
        self._head = {"level": _LEVEL, **process_fields}
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._gone: deque[tuple[str, bytes, str, int]] = deque()  # from the store's thread
        self._untold = 0
        self.lost = 0
        """Lines that were lost so far."""
        self._second = 0
        self._text = ""

    # ------------------------------------------------------------------ as `PushWatch`

    def begins(self, push: Watched) -> None:
        """As `PushWatch.begins`: nothing."""

    def accepted(self, push: Watched) -> None:
        """As `PushWatch.accepted`."""
        self._push("push.accepted", push, ttl=push.ttl, size=push.size)

    def refused(self, push: Watched, why: str) -> None:
        """As `PushWatch.refused`."""
        self._push("push.refused", push, why=why)

    def delivered(self, push: Watched) -> None:
        """As `PushWatch.delivered`."""
        self._push("push.delivered", push)

    def undelivered(self, push: Watched) -> None:
        """As `PushWatch.undelivered`: nothing."""

    def acked(self, device: bytes, updates: Iterable[tuple[str, int]]) -> None:
        """As `PushWatch.acked`."""
        for slot, version in updates:
            self._add("push.acked", device, slot, version, {})

    def gone(self, why: str, device: bytes, slot: str, version: int) -> None:
        """As `PushWatch.gone`."""
        self._gone.append((why, device, slot, version))

    # ------------------------------------------------------------------ lines

    def _push(self, event: str, push: Watched, **fields: object) -> None:
        if push.origin is not None:
            fields["request_id"] = push.origin.request_id
        self._add(event, push.device, push.slot, push.version, fields)

    def _add(self, event: str, device: bytes, slot: str, version: int, fields: dict[str, object]) -> None:
        named = {"event": event, "device": device.hex(), "slot": slot[:_SLOT_CHARS], "version": version}
        self._line({"time": self._time(), **self._head, **named, **fields})

    def _line(self, found: dict[str, Any]) -> None:
        try:
            line = _encode(found) + b"\n"
        except (UnicodeEncodeError, ValueError):  # half a character in a slot
            line = _encode(found | {"slot": ascii(found["slot"])}) + b"\n"
        if self._waiting + len(line) > self._most:
            self._untold += 1
            self.lost += 1
            return
        self._waiting += len(line)
        self._lines.append(line)

    def _time(self) -> str:
        now = self._unix_time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1000):03d}Z"

    def flush(self) -> None:
        """To be called at the end of a turn: write what can be written now."""
        while self._gone:
            why, device, slot, version = self._gone.popleft()
            self._add(f"push.{why}", device, slot, version, {})
        lines = self._lines
        while lines:
            size = number = 0
            for line in lines:
                if number and size + len(line) > _MAX_LINE:
                    break
                size += len(line)
                number += 1
            if not self._write(b"".join(lines[at] for at in range(number)), _LEVEL):
                return
            for _ in range(number):
                lines.popleft()
            self._waiting -= size
        if self._untold:
            told = {"time": self._time(), **self._head, "level": _LOSS, "event": "push.lines_lost"}
            if self._write(_encode(told | {"lines": self._untold}) + b"\n", _LOSS):
                self._untold = 0
