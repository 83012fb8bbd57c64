"""Functions in a process of their own, which is killed between two of their file operations."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

FILE_OPERATIONS: Final = frozenset(
    ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.link", "sqlite3.connect")
)


def in_child(function: Callable[[], object]) -> int:
    """Run it in a process of its own. Returns: its exit code; negative: the signal that ended it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(operation: int, function: Callable[[], object]) -> int:
    """Run it in a process that is killed before its file operation of this number. Returns: as `in_child`."""

    def run() -> None:
        left = operation
        runs = True

        def hook(event: str, arguments: Any) -> None:
            nonlocal left
            if runs and event in FILE_OPERATIONS:
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)
        try:
            function()
        finally:
            runs = False  # what coverage writes as the process ends is none of the function's

    return in_child(run)
