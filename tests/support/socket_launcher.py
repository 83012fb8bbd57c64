"""Starts a program with listening sockets, as systemd does: from descriptor 3 on, with names.

Usage: NAMES FDS COMMAND... where colons separate the names, and the descriptors.
"""

from __future__ import annotations

import os
import sys

ABOVE = 1000
"""No descriptor that is inherited, and none that is aimed at."""


def main() -> None:
    """Become the program."""
    names, given, *command = sys.argv[1:]
    fds = [int(fd) for fd in given.split(":") if fd]
    for at, fd in enumerate(fds):
        os.dup2(fd, ABOVE + at)
    for fd in fds:
        os.close(fd)
    for at in range(len(fds)):
        os.dup2(ABOVE + at, 3 + at)
        os.close(ABOVE + at)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
