"""Which columns of a table hold words: those stand at the left, figures at the right. Pure."""

from typing import Final

from bench.figures.tables import Table

FIGURE_STARTS: Final = "0123456789-$+"
MOST_FIGURES: Final = 0.25


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
