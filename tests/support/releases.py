"""Trees of other releases, for a farm that changes from one to another: older ones from the project's history, newer
ones made of this tree.

A farm is started with a `Place` as its root. What is put there is the code of its next start, and of its next reload.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from router.common.messages import PROTOCOL
from router.common.messages.peers import PEER_PROTOCOL
from support.farm_fixture import ROOT

OLDER: Final = "27d92821cc194e96645e5bf466c4994e3266874e"
"""The last commit whose workers, routers and links between routers are all a version behind those of 1.0.0. Its
supervisor does not say which interface it has."""
_PARTS: Final = ("farm", "router")
_VALUES: Final = "router/common/messages/values.py"
_PEERS: Final = "router/common/messages/peers.py"


class NoHistoryError(Exception):
    """There is no such commit here; the text says why."""

    def __init__(self, why: str, *, to_be_expected: bool) -> None:
        """to_be_expected: of a tree without any history, such as a source distribution's."""
        super().__init__(why)
        self.to_be_expected = to_be_expected


class Place:
    """Where the code of a farm is. What was there before is gone, as after an installation over it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, tree: Path) -> None:
        """Put a copy of this tree there, all of it at one moment but for the blink between two renames."""
        fresh, gone = self.path.with_suffix(".new"), self.path.with_suffix(".gone")
        for part in _PARTS:
            shutil.copytree(tree / part, fresh / part, ignore=shutil.ignore_patterns("__pycache__"))
        if self.path.exists():
            self.path.rename(gone)
        fresh.rename(self.path)
        shutil.rmtree(gone, ignore_errors=True)


def full_name(commit: str) -> str:
    """Of a commit, in hexadecimal digits. Raises: NoHistoryError."""
    found, _ = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if found is not None:
        return found.decode().strip()
    begun = _git("rev-parse", "--verify", "--quiet", "HEAD")[0] is not None
    if not begun:
        why = "this tree has no history"
    elif _git("rev-parse", "--is-shallow-repository")[0] == b"true\n":
        why = "this tree has not all of its history (git fetch --unshallow)"
    else:
        why = "not in the history of this tree"
    raise NoHistoryError(f"an older release is needed, commit {commit}: {why}", to_be_expected=not begun)


def of_commit(commit: str, folder: Path) -> Path:
    """The tree of a commit, into this new folder. Raises: NoHistoryError."""
    archive, said = _git("archive", full_name(commit), *_PARTS)
    if archive is None:
        raise NoHistoryError(f"git archive: {said}", to_be_expected=False)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def _git(*arguments: str) -> tuple[bytes | None, str]:
    """Output, or None; and errors."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)
    except OSError as error:
        return None, str(error)
    return done.stdout if done.returncode == 0 else None, done.stderr.decode(errors="replace")


def newer(folder: Path) -> Path:
    """A release after this one, into this new folder: one version on, and it speaks ours too."""
    _copy(folder)
    _set(folder / _VALUES, PROTOCOL=PROTOCOL + 1, LOWEST_PROTOCOL=PROTOCOL)
    _set(folder / _PEERS, PEER_PROTOCOL=PEER_PROTOCOL + 1, LOWEST_PEER_PROTOCOL=PEER_PROTOCOL)
    return folder


def much_newer(folder: Path) -> Path:
    """A release that does not speak what this one does, into this new folder."""
    _copy(folder)
    _set(folder / _VALUES, PROTOCOL=PROTOCOL + 2, LOWEST_PROTOCOL=PROTOCOL + 1)
    return folder


def _copy(folder: Path) -> None:
    Place(folder).put(ROOT)


def _set(file: Path, **constants: int) -> None:
    text = file.read_text()
    for name, value in constants.items():
        text, times = re.subn(rf"^{name}: Final = \d+$", f"{name}: Final = {value}", text, flags=re.MULTILINE)
        assert times == 1, f"{file} has no {name}"
    file.write_text(text)
