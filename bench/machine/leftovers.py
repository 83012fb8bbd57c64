"""Names that show which process made a thing (a folder, a control group): the next run can remove what a killed one
left.

A name is `farm-bench-<pid>-<start of that process in clock ticks>-<label>`: a pid that was given out again does not
have the same start.
"""

import os
import re
from pathlib import Path
from typing import Final

PREFIX: Final = "farm-bench-"
_NAME: Final = re.compile(r"farm-bench-(\d+)-(\d+)-.*", re.ASCII)


def name(label: str) -> str:
    """A name for something of this process."""
    return f"{PREFIX}{os.getpid()}-{_started(os.getpid())}-{label}"


def is_stale(name: str) -> bool:
    """Whether it was made by a process that is gone."""
    match = _NAME.fullmatch(name)
    return match is not None and _started(int(match[1])) != int(match[2])


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if there is none, or if it only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
