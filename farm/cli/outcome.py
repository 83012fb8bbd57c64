"""How a command ends: its exit code, and a line on stderr for each thing that is wrong."""

from __future__ import annotations

import errno
from typing import Final

import click

from farm.cli import start_log
from router.common.log_forms import printable

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


_log_form: str | None = None


def speak(log_form: str | None) -> None:
    """In which form of a log this command complains and warns from now on; None: for a person."""
    global _log_form  # noqa: PLW0603
    _log_form = log_form


def complain(*lines: str, code: int = FAILED) -> int:
    """Print these on stderr. Returns: the exit code."""
    for line in lines:
        if _log_form is None:
            click.echo(printable(line), err=True)
        else:
            start_log.failed(_log_form, line)
    return code


def warn(line: str) -> None:
    """Print this on stderr: the command goes on."""
    if _log_form is None:
        click.echo(printable(line), err=True)
    else:
        start_log.warned(_log_form, line)


def one_line(text: str) -> str:
    """The text without line breaks and final full stop."""
    return " ".join(text.split()).rstrip(".")
