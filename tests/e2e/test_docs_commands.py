"""The commands that README and the pages name are understood as they stand there."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Final

import click
import pytest

from bench.cli import main as bench
from farm.cli import cli as farm
from farm.sections import all_sections

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_COMMAND: Final = re.compile(r"^(?:\.venv/bin/)?(farm [a-z].*)|`(?:\.venv/bin/)?(farm [a-z][^`\n]*)`", re.MULTILINE)
_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PLACEHOLDER: Final = re.compile(r"\.\.\.|\b[A-Z]+\b")


def commands(text: str) -> set[tuple[str, ...]]:
    """Those of a page: the lines of its shell blocks, and what stands in backquotes."""
    blocks = "\n".join(body.replace("\\\n", "") for language, body in _FENCED.findall(text) if language == "sh")
    prose = re.sub(r"^.*$", lambda line: f" {line[0]}", _FENCED.sub("", text), flags=re.MULTILINE)
    lines = (first or second for first, second in _COMMAND.findall(f"{blocks}\n{prose}"))
    return {tuple(shlex.split(line, comments=True)) for line in lines if not _PLACEHOLDER.search(line.split("#")[0])}


def understood(command: click.Command, words: tuple[str, ...]) -> None:
    """Read the command line, and do nothing. A command without arguments may be the bare name of one.
    Raises: click.UsageError."""
    name, *rest = words
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"{name} has no command {rest[0]}"
        understood(bench if found.name == "bench" else found, tuple(rest))
    elif rest:
        command.make_context(name, rest)


FOUND: Final = sorted({words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))})
OPTIONS: Final = {f"{section.SECTION}.{name}" for section in all_sections() for name in section.__annotations__}


@pytest.mark.parametrize("words", FOUND, ids=" ".join)
def test_a_command_is_understood(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    understood(farm, words)
    named = {after.partition("=")[0] for word, after in pairwise(words) if word == "--set"}
    assert named <= OPTIONS


def test_there_are_commands_with_options_of_the_farm_and_of_the_bench() -> None:
    assert {words[:2] for words in FOUND if len(words) > 3} >= {("farm", "start"), ("farm", "bench")}
