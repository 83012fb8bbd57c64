"""Rows and pairs of values on a terminal, by rich. They fit its width."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.capacity import size
from router.common.log_forms import printable


def cell(name: str, value: Any) -> str:
    """A value as people read it. No control character of what a farm answers reaches the terminal.

    A name that is `memory` or ends in `_bytes` is in bytes; `age`, `uptime` or `_seconds` in seconds; one in
    `_expires` is a moment in Unix time.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name == "memory" or name.endswith("_bytes"):
            return size(int(value))
        if name in ("age", "uptime") or name.endswith("_seconds"):
            return f"{value:.1f} s"
        if name.endswith("_expires"):
            return time.strftime("%Y-%m-%d", time.gmtime(value))
        if name in ("pid", "number", "shard", "incarnation", "position"):
            return str(value)
        return f"{value:,}"
    return printable(str(value))


def print_rows(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], nothing: str, unbroken: str = "") -> None:
    """A table. columns: title by name of the value; a column of which no row has a value is left out. nothing: what is
    printed where there are no rows. unbroken: a column that is to be copied whole."""
    console = Console()
    if not rows:
        console.print(nothing, markup=False, highlight=False)
        return
    there = {name: title for name, title in columns.items() if any(row.get(name) not in (None, "") for row in rows)}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, title in there.items():
        numbers = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(title, justify="right" if numbers else "left", overflow="fold", no_wrap=name == unbroken)
    for row in rows:
        table.add_row(*(escape(cell(name, row.get(name))) for name in there))
    console.print(table)


def print_pairs(pairs: Iterable[tuple[str, str, Any]]) -> None:
    """A line for each value that there is: title, name, value."""
    console = Console()
    found = [(title, cell(name, value)) for title, name, value in pairs if value not in (None, "")]
    width = max((len(title) for title, _ in found), default=0)
    for title, text in found:
        console.print(f"{title:{width}}  {text}", markup=False, highlight=False)
