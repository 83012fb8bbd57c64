"""How much memory this process uses."""

from __future__ import annotations

import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


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
