"""The request of gopush2's TCP protocol: one multibulk command as Redis has it. Pure, and without state.

    *4\\r\\n$3\\r\\nsub\\r\\n$3\\r\\nkey\\r\\n$1\\r\\n0\\r\\n$2\\r\\n30\\r\\n

Every number is held against its limit as soon as it is there, so what is too long is refused before it has come. To
look at what has come so far costs a few steps an argument, however many bytes it has.
"""

from __future__ import annotations

import re
from typing import Final

FEWEST: Final = 3
MOST: Final = 5
"""Arguments of a command, its name among them."""
_LINE_END: Final = b"\r\n"
_NUMBER: Final = re.compile(rb"(0|[1-9][0-9]{0,5})\r\n")
_BEGINNING: Final = re.compile(rb"(?:0|[1-9][0-9]{0,5})?\r?")


class MultibulkError(ValueError):
    """This is no such command, or is over a limit."""


def parse(data: bytes, max_bytes: int) -> tuple[list[bytes], int] | None:
    """The arguments of the command that `data` begins with, and where it ends; None if it is not whole yet.

    max_bytes: of the whole command.
    Raises: MultibulkError (also while it is not whole).
    """
    found = _number(data, 0, b"*", MOST)
    if found is None:
        return None
    count, at = found
    if count < FEWEST:
        raise MultibulkError(f"a command has {FEWEST} to {MOST} arguments")
    arguments = []
    for _ in range(count):
        found = _number(data, at, b"$", max_bytes)
        if found is None:
            return None
        length, at = found
        end = at + length
        if end + len(_LINE_END) > max_bytes:
            raise MultibulkError(f"a command has no more than {max_bytes} bytes")
        argument = data[at:end]
        if b"\n" in argument:
            raise MultibulkError("an argument holds a line end")
        behind = data[end : end + len(_LINE_END)]
        if not _LINE_END.startswith(behind):
            raise MultibulkError("an argument is longer than it says")
        if behind != _LINE_END:
            return None
        arguments.append(argument)
        at = end + len(_LINE_END)
    return arguments, at


def _number(data: bytes, at: int, mark: bytes, most: int) -> tuple[int, int] | None:
    """The number behind this mark, on a line of its own, and where the next line begins; None: it is not whole."""
    if not data.startswith(mark, at):
        if len(data) > at:
            raise MultibulkError(f"{mark.decode()} is missing")
        return None
    begin = at + len(mark)
    whole = _NUMBER.match(data, begin)
    if whole is None:
        if (begun := _BEGINNING.match(data, begin)) is not None and begun.end() == len(data):
            return None
        raise MultibulkError(f"no number stands behind {mark.decode()}")
    number = int(whole[1])
    if number > most:
        raise MultibulkError(f"the number behind {mark.decode()} is above {most}")
    return number, whole.end()
