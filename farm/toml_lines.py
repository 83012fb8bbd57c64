"""On which lines of a TOML text its tables and keys stand, so that a message can name the line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_LINES_TRIED: Final = 64


def key_lines(text: str) -> Mapping[tuple[str, ...], int]:
    """The lines (from 1) on which the tables and the keys in them are set, for a text that is valid TOML.

    Paths of one or two names. No second TOML parser: the text is cut into its statements, each the fewest lines that
    are TOML by themselves, and that parser gives the keys which a statement sets.
    """
    lines = [f"{line}\n" for line in text.split("\n")]
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    at = 0
    while at < len(lines):
        number, (at, node) = at + 1, _statement(lines, at)
        if lines[number - 1].lstrip().startswith("["):
            table = tuple(_names(node))
            for depth in (1, 2):
                found.setdefault(table[:depth], number)
            continue
        for name, value in node.items():
            path = (*table, name)
            found.setdefault(path[:1], number)
            found.setdefault(path[:2], number)
            if len(path) == 1 and isinstance(value, dict):
                for below in value:
                    found.setdefault((name, below), number)
    return found


def _statement(lines: Sequence[str], start: int) -> tuple[int, dict[str, Any]]:
    """The statement that begins on a line: the line after it, and what it sets.

    Long ones are tried at every doubling of their length only, so that the whole takes time in proportion to the text;
    what follows such a one in the same piece counts as set on its first line.
    """
    count = 1
    while True:
        end = min(start + count, len(lines))
        try:
            return end, tomllib.loads("".join(lines[start:end]))
        except ValueError:
            if end == len(lines):  # not without what stands above it; then the text was no TOML
                return end, {}
        count = count + 1 if count < _LINES_TRIED else 2 * count


def _names(node: Any) -> Iterator[str]:
    """The names in a table's header, from a TOML text of it alone."""
    while isinstance(node, dict | list) and node:
        if isinstance(node, list):
            node = node[0]
        else:
            name, node = next(iter(node.items()))
            yield name
