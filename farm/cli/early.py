"""What a process of the farm does before anything else, so that nothing that it inherits can end it."""

from __future__ import annotations

import os
import signal
import sys


def open_standard_descriptors() -> None:
    """Open /dev/null for those of descriptors 0, 1 and 2 that are closed.

    Else the next thing that is opened gets such a number, and then what writes to stderr writes into a database.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    # Python has None for each that it found closed.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def ignore_hangup() -> None:
    """Ignore SIGHUP until there is a handler: to a farm it means a reload, and by default it ends a process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
