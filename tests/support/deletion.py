"""A copy of the project without one dialect, in which everything else must still work.

What goes is the files that are the dialect's by their names, and in what remains to be read (README, docs, the site's
table of contents) the lines that name one of them. The pages made from the code are made anew.

    python -m support.deletion [DIALECT ...]    every test of the project without each of these (default: all)

`make test-deletion` runs it. TEST_PROCESSES says how many files of tests run side by side, PYTEST_ARGS chooses tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from support import dialects
from support.dialect_files import ROOT, is_of, tracked

_READ: Final = (".md", ".yml")
_INSTALLED: Final = (".venv", "tests/npm/node_modules")
_NOT_OF_A_COPY: Final = (
    *("--ignore", "tests/e2e/test_deletion.py"),
    # Pages that remain name commands of a dialect that has gone.
    *("--deselect", "tests/e2e/test_docs_commands.py::test_a_command_is_understood"),
)
_PATH: Final = re.compile(r"[\w./-]+")
_LINKED: Final = re.compile(r"\]\(([\w.-]+)")


def copy_without(dialect: str, folder: Path) -> list[str]:
    """Copy everything but this dialect, also over a copy without another one: what Python has compiled there is still
    right. Returns: the files that were left out."""
    left_out = [name for name in tracked() if is_of(name, dialect)]
    for name in tracked():
        target = folder / name
        if is_of(name, dialect):
            _remove(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
        if target.suffix in _READ and not name.startswith("bench/results/"):
            lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
            target.write_text("".join(line for line in lines if not _names(line, left_out)), encoding="utf-8")
    run(folder, "docs/generate.py")
    return left_out


def _remove(file: Path) -> None:
    """Remove a file, and its folder with the last one: as a package without files that folder would be imported."""
    file.unlink(missing_ok=True)
    if file.parent.exists() and {entry.name for entry in file.parent.iterdir()} <= {"__pycache__"}:
        shutil.rmtree(file.parent)


def _names(line: str, files: Iterable[str]) -> bool:
    """Whether a line has the path of one of these files, or of a folder above it, or the end of one; a name without a
    folder counts where it is that of a page, or is linked to."""
    found = [path.strip("./") for path in _PATH.findall(line) if "/" in path or path.endswith(_READ)]
    found += _LINKED.findall(line)
    return any(f"/{file}/".endswith(f"/{path}/") or file.startswith(f"{path}/") for path in found for file in files)


def _environment(folder: Path) -> dict[str, str]:
    """For what runs on the copy. What is covered there counts for nothing, and would take its time."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return ours | {"PYTHONPATH": os.pathsep.join((str(folder), str(folder / "tests")))}


def run(folder: Path, *arguments: str) -> None:
    """Run Python on the copy. Raises: AssertionError with what it said if it fails."""
    command = [sys.executable, *arguments]
    ran = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:]


def pytest(folder: Path, *arguments: str) -> None:
    """Run tests of the copy. Raises: AssertionError with what pytest said if one fails."""
    run(folder, "-m", "pytest", "-p", "no:cacheprovider", "-q", *_NOT_OF_A_COPY, *arguments)


def main(names: list[str]) -> int:
    """Returns: an exit code, after all of them have been tried."""
    broken = []
    for dialect in names or dialects.names():
        with tempfile.TemporaryDirectory(prefix="farm-") as folder:
            left_out = copy_without(dialect, Path(folder))
            print(f"without {dialect}: {len(left_out)} files fewer", flush=True)
            if not _works(Path(folder)):
                broken.append(dialect)
    print(f"without one of these something else fails: {', '.join(broken)}" if broken else "nothing else fails")
    return 1 if broken else 0


def _works(folder: Path) -> bool:
    """Run the tests of the copy. What fails beside others is run again alone: a missing file is missed then, too."""
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)  # some tests ask it for the project's files
    for path in _INSTALLED:
        if (ROOT / path).exists():
            (folder / path).symlink_to(ROOT / path)
    chosen = shlex.split(os.environ.get("PYTEST_ARGS", ""))
    processes = os.environ.get("TEST_PROCESSES", "2")
    if _pytest(folder, "-n", processes, "--dist", "loadfile", *chosen):
        return True
    print("what failed, again, one test after the other", flush=True)
    again = ("--last-failed", "--last-failed-no-failures=none", "--continue-on-collection-errors")
    return _pytest(folder, *again, *chosen)


def _pytest(folder: Path, *arguments: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", *_NOT_OF_A_COPY, *arguments]
    return subprocess.run(command, check=False, cwd=folder, env=_environment(folder)).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
