"""A document as JSON for people: as much on a line as fits, and figures of six digits. Pure."""

import json
from typing import Any, Final

WIDTH: Final = 160
DIGITS: Final = 6
"""More would only say how fast the clock is: no two runs agree to a thousandth."""


def rounded(value: Any) -> Any:
    """The same with every number that is not whole at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def laid_out(value: Any, indent: int = 0, taken: int = 0) -> str:
    """As JSON, in lines of `WIDTH` characters where that is possible.

    Args:
      indent: of the line on which it begins.
      taken: characters that stand before it on this line.
    """
    text = json.dumps(value)
    if not isinstance(value, dict | list) or not value or indent + taken + len(text) <= WIDTH:
        return text
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        names = ((json.dumps(name), item) for name, item in value.items())
        parts = [f"{name}: {laid_out(item, indent + 2, len(name) + 3)}" for name, item in names]
    else:
        parts = [laid_out(item, indent + 2, 1) for item in value]
    lines: list[str] = []
    for part in parts:
        if lines and len(inner) + len(lines[-1]) + len(part) + 3 <= WIDTH and "\n" not in lines[-1] + part:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n" + ",\n".join(inner + line for line in lines) + f"\n{' ' * indent}{end}"
