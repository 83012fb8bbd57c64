"""Help texts end with their examples."""

from __future__ import annotations

import inspect

import click

_BEGIN = "\b\nExample"
_BARE = "\b\nfarm "  # lines with nothing above them


def examples_last(command: click.Command) -> click.Command:
    """Move the paragraphs of examples of a command's help behind its flags; those of its own commands too."""
    parts = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [part for part in parts if part.startswith((_BEGIN, _BARE))]
    if examples:
        command.help = "\n\n".join(part for part in parts if part not in examples)
        command.epilog = "\n\n".join(map(_headed, examples))
    if isinstance(command, click.Group):
        for one in command.commands.values():
            examples_last(one)
    return command


def _headed(example: str) -> str:
    """Bare lines get a line above them."""
    if not example.startswith(_BARE):
        return example
    first, *lines = example.splitlines()
    return "\n".join((first, "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)))
