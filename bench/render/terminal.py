"""Tables on the terminal."""

from collections.abc import Container
from typing import Literal

from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from bench.figures.results import Document, Shown
from bench.figures.tables import Table
from bench.render.columns import groups, text_columns

ASIDE = "dim"


def show(console: Console, body: Document, found: Shown) -> None:
    """Print all tables of a document, and what they were measured on."""
    parts = [part for table in found.tables for part in _parts(table, console.width)]
    console.print(Group(*parts, Text(found.foot, style=ASIDE)))
    for warning in found.warnings:
        console.print(Text(f"{warning}."))
    if body["interrupted"]:
        console.print("interrupted: these are the figures until then")


def _parts(table: Table, width: int) -> list[RichTable | Text]:
    """The table, below each other as many as its columns take, and its notes."""
    words = text_columns(table)
    drawn = [_drawn(table, places, words, first=not at) for at, places in enumerate(groups(table, words, width))]
    return [*drawn, *(Text(note, style=ASIDE) for note in table.notes)]


def _drawn(table: Table, places: list[int], words: Container[int], first: bool) -> RichTable:
    """The names of the rows and these columns."""
    # Cells are texts, never markup: what a server answered may stand in them.
    title = Text(table.title, style="table.title") if first else None
    drawn = RichTable(title=title, title_justify="left", box=box.HEAVY_HEAD)
    drawn.add_column("", overflow="fold")
    for place in places:
        justify: Literal["left", "right"] = "left" if place in words else "right"
        drawn.add_column(Text(table.columns[place - 1]), justify=justify, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(row[place]) for place in (0, *places)))
    return drawn
