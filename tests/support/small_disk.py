"""A real file system of a size that is soon used up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from support.installed import cannot

PAGE: Final = 4096


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """One in this folder, which is made, of so many bytes ("6m"). The test is skipped where none can be mounted."""
    folder.mkdir()
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        cannot(f"no file system can be mounted here: {ran.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path, pages: int = 0) -> None:
    """Write to this file until there is room for so many pages only."""
    with file.open("wb", buffering=0) as out, pytest.raises(OSError, match="No space left"):
        while True:
            out.write(b"x" * PAGE)
    with file.open("r+b") as out:
        out.truncate(max(0, file.stat().st_size - pages * PAGE))
