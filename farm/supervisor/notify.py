"""What a service manager is told of the farm: systemd's sd_notify(3), datagrams to the socket that NOTIFY_SOCKET names.

Without that variable nothing is sent and nothing runs. `States` is the pure part: which datagram follows what happens.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

import trio

from farm.control import DONE, RUNNING
from router.common import logs
from router.common.log_forms import printable

VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Meant for the supervisor alone: no process of the farm inherits them."""
REPORT_S: Final = 5.0
"""Between two status lines, at least, but where the state changes."""
EXTEND_S: Final = 30.0
"""So much longer systemd is to wait, said anew every `REPORT_S` while the farm starts, reloads or stops: each of these
has ends of its own, and a supervisor that stands still does not say it."""
_AGAIN_S: Final = 1.0  # while the socket is full
_WAITING: Final = 32  # datagrams kept while it is
_STATUS_CHARS: Final = 400
_PATH_BYTES: Final = 107  # of sun_path, without its final zero


class BadAddress(ValueError):
    """NOTIFY_SOCKET cannot be used; the text gives the reason."""


def socket_address(variable: str) -> bytes:
    """The address of the socket that NOTIFY_SOCKET names: a path, or an abstract one (`@name`). Raises: BadAddress."""
    found = os.fsencode(variable)
    if found[:1] not in (b"/", b"@") or len(found) < 2:
        raise BadAddress("it is neither a full path nor an abstract socket (@name)")
    if len(found) > _PATH_BYTES:
        raise BadAddress(f"it is longer than {_PATH_BYTES} bytes")
    return b"\0" + found[1:] if found[:1] == b"@" else found


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two signs of life of this process, half of what is allowed; None: nobody waits for them."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2e6


def datagram(**assignments: object) -> bytes:
    """A line a variable, in this order. What would break a line is a space instead; a long value is cut."""
    return "\n".join(f"{name}={_line(str(value))}" for name, value in assignments.items()).encode(errors="replace")


def _line(value: str) -> str:
    line = printable(value, instead=" ")
    return line if len(line) <= _STATUS_CHARS else line[: _STATUS_CHARS - 3] + "..."


def summary(status: Mapping[str, Any]) -> str:
    """The farm in one line. status: as `farm.supervisor.health.status`."""
    state, drain, reload = status["status"], status["drain"], status["last_reload"]
    if drain is not None:
        left = drain["remaining_seconds"]
        return f"{state} ({drain['phase']}): {status['connections']} devices left, {left:.0f} s at most"
    serving = " and ".join(f"{_up(status[kind])} of {len(status[kind])} {kind}" for kind in ("workers", "routers"))
    line = f"{state}: {status['connections']} devices, {serving} serve"
    if reload is not None and reload["outcome"] == RUNNING:
        line += f"; reloading ({reload.get('step', '')})"
    elif reload is not None and reload["outcome"] != DONE:
        line += f"; last reload {reload['outcome']}: {reload['why']}"
    if status["down"]:
        line += f"; not up: {', '.join(status['down'])}"
    return line


def _up(rows: Iterable[Mapping[str, Any]]) -> int:
    return sum(row["state"] == "up" for row in rows)


class States:
    """What systemd knows of this farm. Pure. What a method returns is to be sent, if it is not empty."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ready = False
        self._reloading = False
        self._stopping = False
        self._failure = ""
        self._status = ""

    def ready(self) -> bytes:
        """Everything serves, for the first time."""
        if self._ready or self._stopping:
            return b""
        self._ready = True
        return datagram(READY=1, MAINPID=self._pid)

    def reloading(self, now: float) -> bytes:
        """A reload has been asked for. now: of the monotonic clock; systemd ignores what is older than its signal."""
        if not self._ready or self._stopping:
            return b""
        self._reloading = True
        return datagram(RELOADING=1, MONOTONIC_USEC=int(now * 1e6), EXTEND_TIMEOUT_USEC=int(EXTEND_S * 1e6))

    def reloaded(self) -> bytes:
        """No reload is under way any more, whatever became of it."""
        if not self._reloading or self._stopping:
            return b""
        self._reloading = False
        return datagram(READY=1)

    def stopping(self, failure: str = "") -> bytes:
        """The farm ends. failure: why it could not start; that stays the status."""
        if self._stopping:
            return b""
        self._stopping = True
        self._failure = failure
        said = {"STATUS": f"failed: {failure}"} if failure else {}
        return datagram(STOPPING=1, EXTEND_TIMEOUT_USEC=int(EXTEND_S * 1e6), **said)

    def status(self, line: str) -> bytes:
        """How it is, every `REPORT_S`."""
        said: dict[str, object] = {}
        if line != self._status and not self._failure:
            self._status = line
            said["STATUS"] = line
        if not self._ready or self._reloading or self._stopping:
            said["EXTEND_TIMEOUT_USEC"] = int(EXTEND_S * 1e6)
        return datagram(**said)


class Notifier:
    """Tells the service manager, if there is one that wants to know."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """environ: that of this process; what is meant for it alone is taken out."""
        found = {name: environ.pop(name) for name in VARIABLES if name in environ}
        pid = os.getpid()
        self._address: bytes | None = None
        self._interval = watchdog_interval(found, pid)
        self._states = States(pid)
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._changed = trio.Event()
        if variable := found.get("NOTIFY_SOCKET"):
            try:
                self._address = socket_address(variable)
            except BadAddress as wrong:
                logs.warning("notify.failed", why=f"NOTIFY_SOCKET: {wrong}")

    def tasks(
        self, status: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """What has to run, by name; empty without a service manager. status: of the farm, queried now."""
        if self._address is None:
            return []

        async def report() -> None:
            await self._report(status)

        return [("notify", report), *([] if self._interval is None else [("watchdog", self._live)])]

    def ready(self) -> None:
        """Everything serves."""
        self._tell(self._states.ready())

    def reloading(self) -> None:
        """A reload has been asked for."""
        self._tell(self._states.reloading(time.monotonic()))

    def reloaded(self) -> None:
        """It is over, or was not begun, and none is under way."""
        self._tell(self._states.reloaded())

    def stopping(self, failure: str = "") -> None:
        """The farm ends. failure: why it could not start."""
        self._tell(self._states.stopping(failure))

    async def _report(self, status: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        while True:
            self._changed = trio.Event()
            message = b"" if self._waiting else self._states.status(summary(await status()))
            self._send(message)
            with trio.move_on_after(_AGAIN_S if self._waiting else REPORT_S):
                await self._changed.wait()

    async def _live(self) -> None:
        """Signs of life: a loop that stands still gives none."""
        assert self._interval is not None
        sign = datagram(WATCHDOG=1)
        while True:
            self._send(b"" if sign in self._waiting else sign)  # one that waits is sent as soon as the socket takes it
            await trio.sleep(self._interval)

    def _tell(self, message: bytes) -> None:
        self._send(message)
        if message:
            self._changed.set()

    def _send(self, message: bytes) -> None:
        if self._address is None:
            return
        if message:
            self._waiting.append(message)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
                while self._waiting:
                    ours.sendto(self._waiting[0], self._address)
                    self._waiting.popleft()
        except BlockingIOError:
            pass  # it is full: `_report` tries again
        except OSError as error:
            self._waiting.clear()
            logs.limited("notify.failed", why=f"NOTIFY_SOCKET: {error.strerror or error}")
