"""Make the man pages of all commands from their help: `make man`, or `python docs/manpages.py FOLDER`.

One page a command: farm.1, farm-start.1, farm-device-find.1. Those of `farm bench` need its extra.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from bench.cli import main as bench
from farm.cli import cli
from farm.cli.examples import examples_last
from router import __version__

Words = tuple[str, ...]
_MANUAL: Final = "The connection farm"
_LAYOUT: Final = (".nh", ".ad l")  # names of commands and flags are neither hyphenated nor torn apart
_VERBATIM: Final = "\b"  # click's mark of a paragraph whose lines stay as they are
_ENVIRONMENT: Final = "Each option of farm.toml can be given as FARM_SECTION_KEY, too; a flag counts more."
_EXIT: Final = "0 done, 1 failed, 2 bad arguments or configuration."


def pages() -> dict[str, str]:
    """All pages: file name to text."""
    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    return {f"{'-'.join(words)}.1": _page(words, context, day, __version__) for words, context in _commands()}


def _commands() -> Iterator[tuple[Words, click.Context]]:
    """All commands, each with the words that call it."""
    yield from _walk(("farm",), cli, None)


def _walk(words: Words, command: click.Command, parent: click.Context | None) -> Iterator[tuple[Words, click.Context]]:
    context = click.Context(command, info_name=words[-1], parent=parent, **command.context_settings)
    yield words, context
    for name, below in _below(context):
        yield from _walk((*words, name), below, context)


def _below(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group; `farm bench` hands its words on to a group of its own."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not command.hidden:
            yield name, examples_last(bench) if (context.parent, name) == (None, "bench") else command


def _page(words: Words, context: click.Context, day: str, version: str) -> str:
    command = context.command
    name = "-".join(words)
    usage = " ".join((" ".join(words), *command.collect_usage_pieces(context)))
    lines = [f'.TH "{_text(name.upper())}" 1 "{day}" "connection-farm {_text(version)}" "{_MANUAL}"', *_LAYOUT]
    lines += [".SH NAME", f"{_text(name)} \\- {_text(command.get_short_help_str(limit=200).rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {_text(usage)}"]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    options = [one for one in (param.get_help_record(context) for param in command.get_params(context)) if one]
    if options:
        lines += [".SH OPTIONS", *_table(options)]
    below = [(f"{' '.join(words)} {one}", of.get_short_help_str(limit=200)) for one, of in _below(context)]
    if below:
        lines += [".SH COMMANDS", *_table(below)]
    if command.epilog:
        lines += [".SH EXAMPLES", *_paragraphs(command.epilog)]
    lines += [".SH ENVIRONMENT", _text(_ENVIRONMENT), ".SH EXIT STATUS", _text(_EXIT)]
    others = [words[:-1]] * (len(words) > 1) + [(*words, one) for one, _ in _below(context)]
    if others:
        lines += [".SH SEE ALSO", *_see_also(["-".join(one) for one in others])]
    return "\n".join(lines) + "\n"


def _see_also(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f".BR {_text(name)} (1){',' if name != names[-1] else ''}"


def _paragraphs(text: str) -> Iterator[str]:
    """A help text, whose paragraphs are apart by empty lines."""
    for number, part in enumerate(inspect.cleandoc(text.partition("\f")[0]).split("\n\n")):
        if number:
            yield ".PP"
        first, *lines = part.split("\n")
        if first == _VERBATIM:
            yield from (".nf", *(_text(line) for line in lines), ".fi")
        else:
            yield from (_text(line.strip()) for line in (first, *lines))


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:  # a line may end after a choice
        yield from (".TP", f".B {_text(term)}".replace("|", "|\\:"), _text(" ".join(meaning.split())) or "\\&")


def _text(text: str) -> str:
    """As roff prints it: no character of it is a request, and its hyphens are those that a shell knows."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


def main() -> None:
    """Write all pages into the folder that the command line names; it is made, and pages of gone commands removed."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for old in set(folder.glob("*.1")) - {folder / name for name in made}:
        old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
