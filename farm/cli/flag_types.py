"""Numbers that flags take: click's, but neither nan nor inf is one, and a wrong one does not fill the screen."""

from __future__ import annotations

import math
from typing import Any, Final

import click

from farm.option_value import show

_LONGEST_S: Final = 1e9


def whole(low: int, high: int) -> click.ParamType[Any]:
    """A whole number of this range."""
    return _Short(click.IntRange(low, high), f"a whole number from {low:,} to {high:,}")


def seconds() -> click.ParamType[Any]:
    """A time that ends."""
    return _Short(click.FloatRange(0, _LONGEST_S), f"a number from 0 to {_LONGEST_S:,.0f}")


class _Short(click.ParamType[Any]):
    """A type that shows a wrong value on one line, cut where it is long."""

    def __init__(self, kind: click.ParamType[Any], expected: str) -> None:
        self.name = kind.name
        self._kind = kind
        self._expected = expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Raises: click.BadParameter."""
        try:
            found = self._kind.convert(value, param, ctx)
            if not math.isnan(found):  # which is within every range
                return found
        except (click.BadParameter, ValueError):
            pass
        raise click.BadParameter(f"expected {self._expected}, got {show(value)}", ctx, param)
