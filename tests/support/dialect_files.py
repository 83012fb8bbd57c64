"""Which files are a dialect's: those whose name, or that of a folder above them, has the dialect's name as a word."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_WORDS: Final = re.compile(r"[a-z0-9]+")


def tracked() -> list[str]:
    """All files of the project, with those that are new."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in ran.stdout.split("\0") if name and (ROOT / name).is_file()]


def is_of(name: str, dialect: str) -> bool:
    """Whether a file, by its path from the root, is one of this dialect."""
    return dialect in _words(name)


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(name))
