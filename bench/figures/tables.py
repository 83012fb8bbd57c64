"""What a result shows, before it is drawn: tables and charts as plain data. Pure.

Every command turns its document into these (`bench.figures.results` knows which); the terminal, Markdown, the pictures
and the HTML page draw them, so that all of them say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class Table:
    """A table: the first column names the row, the others are figures. `notes` stand below it."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, name: str, *cells: str) -> None:
        """Add a row; missing cells stay empty.

        Raises:
          ValueError: more cells than columns.
        """
        if len(cells) > len(self.columns):
            raise ValueError(f"{len(cells)} cells in {len(self.columns)} columns")
        self.rows.append([name, *cells, *[""] * (len(self.columns) - len(cells))])


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one colour of bars. `x`: numbers for lines, the groups' names for bars; None: a gap."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]


@dataclass(slots=True)
class Chart:
    """A picture. `note` is what a reader must know to believe it, in one line below. `ours`: the groups of bars that
    are a farm's, among those of others; none where all are."""

    title: str
    kind: Literal["line", "bar"]
    x_label: str
    y_label: str
    series: list[Series] = field(default_factory=list)
    log_y: bool = False
    note: str = ""
    ours: tuple[str, ...] = ()


def number(value: float | None) -> str:
    """`12,345`; a dash for None."""
    return "-" if value is None else f"{value:,.0f}"


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def kib(value: float | None) -> str:
    """Bytes as KiB, two digits."""
    return "-" if value is None else f"{value / 1024:.2f} KiB"


def size(value: float | None) -> str:
    """Bytes in the largest binary unit that leaves a figure of at least one."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def percent(value: float | None) -> str:
    """A share as `12.3 %`."""
    return "-" if value is None else f"{value:.1%}"
