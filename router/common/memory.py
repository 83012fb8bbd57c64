"""How much memory and CPU this process uses, and giving back memory that it does not use."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Final

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BURST: Final = 1000
_QUIET: Final = 50
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not


_last = 0


def resident_bytes() -> int:
    """Resident set of this process in bytes (proc(5), statm); what it was last if there is no descriptor to look."""
    global _last  # noqa: PLW0603
    try:
        with open("/proc/self/statm", "rb") as file:
            _last = int(file.read().split()[1]) * _PAGE
    except OSError:  # a number for the operator is no reason to fail
        pass
    return _last


def cpu_seconds() -> float:
    """CPU time of this process so far, all of its threads, in user and kernel mode."""
    return round(time.process_time(), 3)


def give_back() -> None:
    """Give the C library's free memory to the kernel: some 0.3 ms."""
    if _malloc_trim is not None:
        _malloc_trim(0)


class Bursts:
    """Detects the end of a burst of work, of which the start of the process is the first. The memory that it took is
    scattered over the C library's free lists, and would stay with the process: about a MB, which is much compared with
    some thousand devices."""

    def __init__(self) -> None:
        self._last = 0
        self._trimmed = -_BURST

    def over(self, done: int) -> bool:
        """To be called about twice a second, with how much has been done so far. Returns: whether it was much since
        this was true last, and is nearly nothing now."""
        quiet = done - self._last <= _QUIET
        self._last = done
        if not quiet or done - self._trimmed < _BURST:
            return False
        self._trimmed = done
        return True
