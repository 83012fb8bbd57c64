"""`farm bench report`: all results of a folder on one page."""

import datetime
import itertools
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.figures.results import read, shown, write_text
from bench.progress import Progress
from bench.render.html import Entry, page

INDEX: Final = "index.html"
MOST_FILES: Final = 500


def run(folder: str, output: str, progress: Progress) -> tuple[list[str], list[tuple[str, str]], Path]:
    """Write the page, newest result first. Returns the names of the results, the files that are left out, each with the
    reason, and where the page is.

    Raises:
      BenchError: the folder can't be read, has no result that can be shown, or the page can't be written.
    """
    entries, bad = collect(Path(folder))
    if not entries:
        raise BenchError(_none(folder, bad))
    place = Path(output) if output else Path(folder) / INDEX
    title = f"farm bench: {len(entries)} result{'s' if len(entries) > 1 else ''}"
    done = itertools.count(1)
    progress.step("drawing charts", sum(len(entry.found.charts) for entry in entries))
    text = page(title, entries, bad, lambda: progress.update(next(done)))
    write_text(place, text, "--output" if output else "report")
    return [entry.name for entry in entries], bad, place


def collect(folder: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The results of a folder, newest first, and the .json files that are none or can't be shown.

    Raises:
      BenchError: the folder can't be read, or holds too many files.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError as error:
        raise BenchError(f"{folder}: {error.strerror}") from None
    if len(files) > MOST_FILES:
        raise BenchError(f"{folder}: {len(files)} .json files, more than the {MOST_FILES} that a page takes")
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    for path in files:
        try:
            body = read(path)
            entries.append(Entry(path.stem, body, shown(body)))
        except BenchError as error:
            bad.append((path.name, str(error).removeprefix(f"{path}: ")))
    entries.sort(key=lambda entry: datetime.datetime.fromisoformat(entry.body["when"]), reverse=True)
    return entries, bad


def _none(folder: str, bad: list[tuple[str, str]]) -> str:
    if not bad:
        return f"{folder}: no result files; make some with: farm bench connect --out {folder}"
    name, reason = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"{folder}: no result that can be shown: {name}: {reason}{more}"
