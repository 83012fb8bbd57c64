"""How a command ends: its exit code, and a line on stderr for each thing that is wrong."""

from __future__ import annotations

import errno
from typing import Final

import click

DONE: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2

# What the machine may refuse without a fault of ours: a folder, a port, room on the disk, a reader of our output.
# Any other OSError is a bug and shows its trace.
SURROUNDINGS: Final = frozenset(
    (
        errno.EACCES,
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EPIPE,
        errno.EROFS,
    )
)


def complain(*lines: str, code: int = FAILED) -> int:
    """Print these on stderr. Returns: the exit code."""
    for line in lines:
        click.echo(line, err=True)
    return code


def one_line(text: str) -> str:
    """The text without line breaks and final full stop."""
    return " ".join(text.split()).rstrip(".")
