"""Controls a farm that runs: finds its supervisor, and sends it a signal.

The supervisor holds an exclusive flock on `<data.dir>/farm.pid` for as long as it lives, and has its pid in
it. The lock decides, and the number is only what to signal: after a crash or a reboot the file is still
there, the lock is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from router.common.errors import MendableError
from router.common.options import Settings
from router.common.settings import Data

PID_FILE: Final = "farm.pid"
RELOAD_FILE: Final = "reload.json"
"""Beside it: the progress of a reload, and the outcome of the last one."""
RUNNING: Final = "running"
DONE: Final = "done"
_REACTS_S: Final = 10.0
_POLL_S: Final = 0.1


class ControlError(MendableError):
    """The farm cannot be reached or does not do what was requested. The text is one line for the user."""


def pid_file(settings: Settings) -> Path:
    """Where the supervisor of a farm with these settings keeps its pid."""
    return Path(settings.get(Data).dir) / PID_FILE


def running_pid(path: Path) -> int | None:
    """The pid of the supervisor that holds this file; None if none does.

    Raises: ControlError if the file may not be read, or is held but has no pid (yet).
    """
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read(32).strip()
                if not text.isdigit():
                    raise ControlError(f"{path}: is held, but has no pid in it; is the farm just starting?") from None
                holder = _holder(os.fstat(file.fileno()), Path("/proc/locks"))
                if holder not in (0, int(text)):
                    raise ControlError(f"{path}: names process {int(text)}, but {holder} holds it") from None
                return int(text)
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ControlError(f"{path}: {exc.strerror}") from None


def _holder(file: os.stat_result, locks: Path) -> int:
    """The pid that holds an exclusive flock(2) on this file, from proc_locks(5); 0 if that cannot be seen."""
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with contextlib.suppress(OSError, ValueError):
        for line in locks.read_text().splitlines():
            fields = line.split()
            if fields[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5] == name:
                return max(0, int(fields[4]))
    return 0


class Supervisor:
    """A running supervisor, by pidfd, so that no other process with a reused number gets its signals."""

    def __init__(self, path: Path) -> None:
        """Raises: ControlError if no farm holds the file, or its process cannot be seen from here."""
        pid = running_pid(path)
        if pid is None:
            raise ControlError(f"no farm runs on {path.parent} (no process holds {path.name} there)")
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as exc:
            raise ControlError(f"supervisor {pid} of {path} cannot be reached: {exc.strerror}") from None
        self.pid = pid
        self._reload_file = path.with_name(RELOAD_FILE)
        if running_pid(path) != pid:  # it ended between reading its number and opening it
            os.close(self._fd)
            raise ControlError(f"the farm on {path.parent} has just ended")

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def send(self, number: signal.Signals) -> None:
        """Raises: ControlError if the signal is not allowed, or the supervisor has ended or is stopped."""
        if self._is_stopped():
            raise ControlError(f"supervisor {self.pid} is stopped (SIGSTOP): kill -CONT {self.pid} lets it go on")
        try:
            signal.pidfd_send_signal(self._fd, number)
        except OSError as exc:
            raise ControlError(f"supervisor {self.pid}: {exc.strerror}") from None

    def _is_stopped(self) -> bool:
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in ("T", "t")

    def reload(self, timeout: float | None, progress: Callable[[str], None]) -> Mapping[str, Any]:
        """Request a reload, and wait for its outcome, calling `progress` with the current step.

        Returns: what the supervisor reports of it: `outcome` (DONE or another), `why`, `needs_restart`.
        Raises: ControlError if one is under way, or the supervisor does not react, ends or takes too long.
        """
        before = self._reload_state()
        if before.get("outcome") == RUNNING:
            raise ControlError(f"supervisor {self.pid} is reloading already; farm status shows how far it is")
        self.send(signal.SIGHUP)
        began = time.monotonic()
        while True:
            ended = self.wait(_POLL_S, lambda: None, _POLL_S)
            state = self._reload_state()
            new = state.get("number") != before.get("number")
            if new and state["outcome"] != RUNNING:
                return state
            if ended:
                raise ControlError(f"supervisor {self.pid} has ended meanwhile: see its log")
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                raise ControlError(f"supervisor {self.pid} is not done after {timeout:g} s; it goes on")
            if new:
                progress(str(state.get("step", "")))
            elif waited >= _REACTS_S:
                raise ControlError(
                    f"supervisor {self.pid} does not react; it hangs, is just starting, or cannot write {RELOAD_FILE}"
                )

    def _reload_state(self) -> dict[str, Any]:
        """The reload file of this supervisor; empty if it has written none yet."""
        try:
            state = json.loads(self._reload_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) and state.get("supervisor") == self.pid else {}

    def wait(self, timeout: float | None, progress: Callable[[], None], interval: float = 0.5) -> bool:
        """Wait until the supervisor has ended, at most `timeout` seconds, calling `progress` meanwhile.

        Returns: whether it has ended.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = interval if deadline is None else min(interval, deadline - time.monotonic())
            if poll.poll(max(0.0, left) * 1000):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            progress()
