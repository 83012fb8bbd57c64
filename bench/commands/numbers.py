"""Numbers that options take."""

import math
from typing import Any, Final

import click

MOST: Final = 1e9
"""Of whatever it is: seconds, pushes a second, cores."""


class Number(click.FloatRange):
    """A range of numbers. Neither nan, which is within every range of click's, nor inf is one."""

    def __init__(self, least: float, most: float = MOST, *, min_open: bool = False) -> None:
        super().__init__(least, most, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises: click.BadParameter."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value} is not a number", param, ctx)
        return found
