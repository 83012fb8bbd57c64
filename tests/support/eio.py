"""A disk that fails, for farms under test: `eio_shim.c`, preloaded, makes calls on the files of one folder fail."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

_SHIM: Final = Path(__file__).with_name("eio_shim.c")


class FailingDisk:
    """The files below `prefix`, which may be made to fail and to work again while the farm runs.

    build: a folder for the compiled shim and the switch; not below `prefix`. Raises: RuntimeError without a compiler.
    """

    def __init__(self, build: Path, prefix: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise RuntimeError("no C compiler; as root: apt-get install --no-install-recommends gcc libc6-dev")
        library = build / "eio_shim.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SHIM), "-ldl"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the shim cannot be compiled: {done.stderr.strip()}")
        self._switch = build / "eio_switch"
        self.environment: dict[str, str] = {
            "LD_PRELOAD": " ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD")])),
            "EIO_PREFIX": str(prefix),
            "EIO_SWITCH": str(self._switch),
        }
        """What the farm has to be started with."""

    def fail(self, *calls: str, error: int = errno.EIO) -> None:
        """From now on these calls fail: read, write, sync, truncate, open. None given: writing in every way."""
        new = self._switch.with_name(self._switch.name + ".new")
        new.write_text(f"{int(error)} {' '.join(calls or ('write', 'sync', 'truncate'))}\n")
        new.rename(self._switch)

    def heal(self) -> None:
        """From now on nothing fails."""
        self._switch.unlink(missing_ok=True)
