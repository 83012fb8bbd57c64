"""Failures of commands whose output is a log: they take the form of `log.format`, even before the settings are read.

For such a command the form is looked for where the settings will be: in its flags, in the environment, in its file.
What is found and no form is passed over, for the settings' own check names it.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from farm.config import DEFAULT_FILE, MAX_FILE_BYTES
from router.common import logs
from router.common.log_forms import FORMATS, priority

_COMMANDS: Final = ("start", "router", "worker")
_BEFORE_THEM: Final = "check-config"
"""Runs for a person, or in a unit of systemd before the farm does."""
_BESIDE_THEM: Final = "reload"
"""The same, while it runs. What it says is no event of the farm, so in the journal it is a line of text."""
_KEY: Final = "log.format"
_VARIABLE: Final = "FARM_LOG_FORMAT"
_TEXT: Final = FORMATS[0]


def wanted(args: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The form of the log of this command line; None: the command writes for a person, or is none."""
    command = args[0] if args else ""
    if command == _BESIDE_THEM and logs.to_journal(environ):
        return _TEXT
    if command not in _COMMANDS and not (command == _BEFORE_THEM and logs.to_journal(environ)):
        return None
    found = [value for flag, value in _flags(args) if flag == _KEY] or [environ.get(_VARIABLE, "").strip()]
    if not found[-1]:
        files = [value for flag, value in _flags(args) if flag == "--config"] or [str(DEFAULT_FILE)]
        found = [_in_file(Path(files[-1]))]
    return found[-1] if found[-1] in FORMATS else _TEXT


def _flags(args: Sequence[str]) -> list[tuple[str, str]]:
    """Each --config with its value, and each option that --set names with its own."""
    found = []
    for word, following in zip(args, (*args[1:], ""), strict=True):
        flag, equals, value = word.partition("=")
        value = value if equals else following
        if flag == "--set":
            key, _, value = value.partition("=")
            found.append((key.strip(), value.strip()))
        elif flag == "--config":
            found.append((flag, value))
    return found


def _in_file(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            table = tomllib.loads(handle.read(MAX_FILE_BYTES).decode())["log"]
        return str(table["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # it is named elsewhere
        return ""


def failed(form: str, line: str) -> None:
    """Say why a process cannot start. In text the line is as it is, for a person; the journal gets its priority."""
    if form == _TEXT:
        _plain(logging.ERROR, line)
    else:
        logs.setup(form, "info", process="farm")
        logs.error("farm.start_failed", why=line)


def warned(form: str, line: str) -> None:
    """Say what will not be as it was asked for."""
    if form == _TEXT:
        _plain(logging.WARNING, line)
    else:
        logs.setup(form, "info", process="farm")
        logs.warning("farm.setting_ignored", why=line)


def _plain(level: int, line: str) -> None:
    click.echo((priority(level) if logs.to_journal(os.environ) else "") + line, err=True)
