"""Which columns of a table hold words, which stand at the left, or figures; and how many fit a terminal. Pure."""

from collections.abc import Container
from typing import Final

from bench.figures.tables import Table

FIGURE_STARTS: Final = "0123456789-$+"
MOST_FIGURES: Final = 0.25
BORDER: Final = 3
"""Of a column on a terminal: a line and a space on both sides."""
FOLDED: Final = 22
"""What a column may take before its cells are folded between words."""


def text_columns(table: Table) -> set[int]:
    """The numbers of the columns that hold words; that of the rows' names, 0, is always one. A few words among figures,
    such as the sentence of a limit, make no column of words, nor do a few figures among words one of figures."""
    found = {0}
    for column in range(1, len(table.columns) + 1):
        cells = [cell for row in table.rows if (cell := row[column])]
        figures = sum(cell[0] in FIGURE_STARTS for cell in cells)
        if cells and figures <= MOST_FIGURES * len(cells):
            found.add(column)
    return found


def groups(table: Table, words: Container[int], width: int) -> list[list[int]]:
    """Its columns but the first, by place, in groups that have room beside the first in so many characters: no figure
    is folded, and no word of a text."""
    names = _width(table, 0, folds=True)
    found: list[list[int]] = []
    left = 0
    for place in range(1, len(table.columns) + 1):
        taken = _width(table, place, place in words) + BORDER
        if taken > left:
            found.append([])
            left = width - names - BORDER - 1
        found[-1].append(place)
        left -= taken
    return found or [[]]


def _width(table: Table, place: int, folds: bool) -> int:
    """How many characters a column takes at least: its longest word, and figures as they are. Texts of one that `folds`
    have some room besides."""
    title = table.columns[place - 1] if place else ""
    cells = [row[place] for row in table.rows]
    most = max((len(word) for text in (title, *cells) for word in text.split()), default=0)
    whole = [len(cell) for cell in cells if folds or cell[:1] in FIGURE_STARTS]
    return max(most, min(FOLDED, max(whole, default=0)))
