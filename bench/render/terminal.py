"""Tables on the terminal."""

from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from bench.figures.results import Document, Shown
from bench.figures.tables import Table
from bench.render.columns import text_columns

ASIDE = "dim"


def show(console: Console, body: Document, found: Shown) -> None:
    """Print all tables of a document, and what they were measured on."""
    console.print(Group(*(part for table in found.tables for part in _parts(table)), Text(found.foot, style=ASIDE)))
    if found.warning:
        console.print(Text(f"{found.warning}."))
    if body["interrupted"]:
        console.print("interrupted: these are the figures until then")


def _parts(table: Table) -> list[RichTable | Text]:
    # Cells are texts, never markup: what a server answered may stand in them.
    drawn = RichTable(title=Text(table.title, style="table.title"), title_justify="left", box=box.HEAVY_HEAD)
    drawn.add_column("")
    words = text_columns(table)
    for place, column in enumerate(table.columns, 1):
        drawn.add_column(Text(column), justify="left" if place in words else "right")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return [drawn, *(Text(note, style=ASIDE) for note in table.notes)]
