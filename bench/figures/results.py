"""Result files: what is in every document of the bench, which module shows it, and how it is written and read.

A document is one run, as JSON: `command`, `when` (UTC, ISO 8601), `commit`, `interrupted`, `options`, `machine`, and
the fields of the command. `shown` turns it into tables and charts by `bench.views.COMMAND`, imported only then: a
module with `tables(body)`, `charts(body)` and, if the first figures do not say it best, `headline(body)`.
"""

import datetime
import importlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import router
from bench.errors import BenchError
from bench.figures.busy import busy
from bench.figures.interpreters import python_of, warning_of
from bench.figures.json_text import laid_out, rounded
from bench.figures.tables import Chart, Table
from bench.machine.procfs import machine

COMMANDS: Final = ("instances", "connect", "push", "fanout", "replay", "storm", "soak", "compare", "cluster", "plan")
FIELDS: Final[dict[str, type]] = {
    "command": str,
    "when": str,
    "interrupted": bool,
    "options": dict,
    "machine": dict,
}
"""What every document has, and of which JSON type. Files older than the field `commit` are read, too."""
FACTS: Final[dict[str, tuple[type, ...]]] = {"kernel": (str,), "cpu": (str,), "cores": (int,), "python": (str,)}
"""What of `machine` every report shows."""
MOST_BYTES: Final = 64 << 20
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
GIT_SECONDS: Final = 10

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """A document as it is drawn. `warning`: what makes its figures worse than they could be; empty if nothing does.
    `busy`: the same of the machine, which did something else meanwhile."""

    title: str
    headline: str
    tables: list[Table]
    charts: list[Chart]
    foot: str
    warning: str = ""
    busy: str = ""

    @property
    def warnings(self) -> list[str]:
        """Both, as far as they are there."""
        return [text for text in (self.busy, self.warning) if text]


def document(command: str, options: dict[str, Any], result: dict[str, Any], interrupted: bool) -> Document:
    """The document of a run: what was measured, and everything that is needed to read it later. It is what a reader of
    the JSON gets, so the keys of counters are texts here, too."""
    body = {
        "command": command,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "interrupted": interrupted,
        "options": options,
        "machine": machine(),
        **result,
    }
    loaded: Document = rounded(json.loads(json.dumps(body), parse_constant=lambda text: None))  # NaN is no JSON
    return loaded


def commit() -> str:
    """The commit that runs, marked when files differ from it; outside of a checkout, the package's version."""
    here = Path(__file__).resolve().parent.parent.parent
    if (here / ".git").exists():
        name = _git(here, "rev-parse", "--short", "HEAD")
        changes = _git(here, "status", "--porcelain", "--untracked-files=no")
        if name:
            return name + (" with changes" if changes else "")
    return f"version {router.__version__}"


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def shown(body: Document) -> Shown:
    """The tables and charts of a document.

    Raises:
      BenchError: no module shows this command, or the document lacks what it shows.
    """
    command = body["command"]
    try:
        view = importlib.import_module(f"bench.views.{command}") if command in COMMANDS else None
    except ModuleNotFoundError as error:
        if error.name != f"bench.views.{command}":
            raise
        view = None
    if view is None:
        raise BenchError(f"there is nothing that shows results of {command!r}")
    facts = body["machine"]
    try:
        foot = f"{facts['cores']} cores, {facts['cpu']}, Linux {facts['kernel']}, {python_of(body)}"
        tables: Callable[[Document], list[Table]] = view.tables
        charts: Callable[[Document], list[Chart]] = view.charts
        drawn = tables(body)
        headline = view.headline(body) if hasattr(view, "headline") else first_figures(drawn)
        foot += _commit_of(body)
        found = Shown(f"farm bench {command}", headline, drawn, charts(body), foot, warning_of(body), busy(body))
    except KeyError as error:
        raise BenchError(f"a result of {command!r} without the field {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise BenchError(f"a result of {command!r} that can't be shown: {type(error).__name__}: {error}") from None
    return found


def first_figures(tables: list[Table]) -> str:
    """The first figure of each of the first three rows that have any: for a view without a headline of its own."""
    told: list[str] = []
    for row in tables[0].rows if tables else ():
        figure = next((cell for cell in row[1:] if cell.strip("- ")), "")
        if figure and len(told) < 3:
            told.append(f"{row[0]}: {figure}")
    return "; ".join(told) or "-"


def _commit_of(body: Document) -> str:
    name = body.get("commit", "")
    return f", {name if name.startswith('version') else 'commit ' + name}" if name else ""


def read(path: str | Path) -> Document:
    """A result file.

    Raises:
      BenchError: it can't be read, or is none; names the file, and the field.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise BenchError(f"{path}: more than {MOST_BYTES >> 20} MiB, so no result of the bench")
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: not JSON: {error}") from None
    try:
        return checked(body)
    except ValueError as error:
        raise BenchError(f"{path}: {error}") from None


def checked(body: Any) -> Document:
    """The document, if it has what every one has.

    Raises:
      ValueError: it has not; names the field.
    """
    if not isinstance(body, dict):
        raise ValueError("no result of the bench: expected an object")
    for name, kind in FIELDS.items():
        if name not in body:
            raise ValueError(f"no result of the bench: the field {name!r} is missing")
        if not isinstance(body[name], kind):
            raise ValueError(f"the field {name!r} is no {_kind(kind)}")
    if body["command"] not in COMMANDS:
        raise ValueError(f"the field 'command' is {body['command']!r}, expected one of {', '.join(COMMANDS)}")
    try:
        moment = datetime.datetime.fromisoformat(body["when"])
    except ValueError:
        raise ValueError(f"the field 'when' is no time: {body['when']!r}") from None
    if moment.tzinfo is None:
        raise ValueError(f"the field 'when' is a time without a zone: {body['when']!r}")
    for name, kinds in FACTS.items():
        if not isinstance(body["machine"].get(name), kinds):
            raise ValueError(f"the field 'machine.{name}' is missing or no {_kind(kinds[0])}")
    if not isinstance(body.get("commit", ""), str):
        raise ValueError("the field 'commit' is no text")
    return body


def _kind(kind: type) -> str:
    return {str: "text", bool: "true or false", dict: "object", int: "number"}[kind]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def write_json(path: str | Path, body: Document, option: str = "--json") -> None:
    """Write a document; all of it or nothing, so that a full disk does not leave half a result.

    Raises:
      BenchError: the file can't be written.
    """
    write_bytes(Path(path), (laid_out(body) + "\n").encode(), option)


def write_text(path: str | Path, text: str, option: str) -> None:
    """The same for a text. `option` names the file in the error.

    Raises:
      BenchError: the file can't be written.
    """
    write_bytes(Path(path), text.encode(), option)


def check_output(json_file: str, folder: str, name: str) -> None:
    """Before a run that may take hours: whether its results can be written then. Makes the folder.

    Raises:
      BenchError: they can't.
    """
    if json_file and not Path(json_file).resolve().parent.is_dir():
        raise BenchError(f"--json {json_file}: there is no folder {Path(json_file).parent}")
    if not NAME.fullmatch(name):
        raise BenchError(f"--name {name}: letters, digits, dots, dashes and underscores only")
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(f"--out {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BenchError(f"--out {folder}: it can't be written to")


def write_bytes(path: Path, data: bytes, option: str) -> None:
    """All of it or nothing. `option` names the file in the error.

    Raises:
      BenchError: the file can't be written.
    """
    special = path.exists() and not path.is_file()  # a pipe, or /dev/stdout: nothing can be put in its place
    part = path if special else path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        if part is not path:
            part.replace(path)
    except OSError as error:
        if part is not path:
            part.unlink(missing_ok=True)
        raise BenchError(f"{option} {path}: {error.strerror}") from None
