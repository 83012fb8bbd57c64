"""Tables that several commands show. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from bench.figures.dialects import Figure, figure_in, key_of, title_of
from bench.figures.tables import Table, kib, milliseconds, number

MOST_COLUMNS: Final = 3
"""Runs that are compared side by side; of more each is a row."""
NOTE: Final = "One after the other on the same machine: what disturbs it moves all, so go by the ratios."


def cpu(runs: list[tuple[str, dict[str, Any]]]) -> Table:
    """Which processes used the cores: for each run its `usage` fields (`bench.machine.usage.Usage.fields`)."""
    table = Table("CPU", ["CPU ms a 1000", "busiest process", "waiting for a core"])
    for name, usage in runs:
        for group, use in usage["groups"].items():
            cost = use["cpu_seconds_a_1000"]
            waiting = max(0.0, use["busiest_wanting"] - use["busiest_running"])
            table.row(
                f"{name}: {group} ({use['processes']})",
                "-" if cost is None else f"{cost * 1000:.1f}",
                f"{use['busiest_running']:.0%}",
                f"{waiting:.0%}",
            )
        table.row(f"{name}: all cores", "", f"{usage['machine_busy']:.0%}")
        table.row(f"{name}: cores busy with others", "", f"{usage['cores_with_others']:.2f}")
    return table


def added(*counts: dict[str, int]) -> dict[str, int]:
    """Counters by kind, summed."""
    total: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            total[kind] = total.get(kind, 0) + count
    return total


def kinds(title: str, counts: dict[str, int]) -> list[Table]:
    """A table of failures by kind, most first; no table if there are none."""
    if not counts:
        return []
    table = Table(title, ["count"])
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.row(kind, number(count))
    return [table]


def ready(setup: dict[str, Any]) -> str:
    """`15,000`, or `14,990 of 15,000`."""
    return number(setup["ready"]) if setup["ready"] == setup["wanted"] else f"{setup['ready']:,} of {setup['wanted']:,}"


def spoken(part: dict[str, Any]) -> str:
    """` (TITLE, 100 in a request, 1,024 bytes each)`: stands behind the devices; nothing for results
    that do not have it."""
    if "dialect" not in part:
        return ""
    told = [title_of(part)]
    if batch := part.get("batch"):
        told.append(f"{batch:,} in a request")
    if payload := part.get("payload"):
        told.append(f"{payload:,} bytes each")
    return f" ({', '.join(told)})"


def comparison(body: dict[str, Any], figures: Iterable[Figure]) -> list[Table]:
    """What the dialects came to, side by side, and the ratios; no table for a run in one of them."""
    parts = body.get("parts", ())
    if len(parts) < 2:
        return []
    if len(parts) > MOST_COLUMNS:
        return [_transposed(body, figures)]
    first, *others = (title_of(part) for part in parts)
    table = Table(f"{', '.join(others)} : {first}", [first, *others, *(f"{title} : {first}" for title in others)])
    for figure in figures:
        cells = [_figure(figure_in(part, figure), figure.unit) for part in parts]
        found = [row.get(figure.key) for row in body["ratios"].values()]
        table.row(figure.label, *cells, *("-" if ratio is None else f"{ratio:.2f}" for ratio in found))
    table.notes.append(NOTE)
    return [table]


def _transposed(body: dict[str, Any], figures: Iterable[Figure]) -> Table:
    """The same of many: a row each."""
    first, *others = body["parts"]
    figures = [figure for figure in figures if any(figure_in(part, figure) is not None for part in body["parts"])]
    table = Table(f"Several, and as a multiple of {title_of(first)}", [figure.label for figure in figures])
    table.row(title_of(first), *(_figure(figure_in(first, figure), figure.unit) for figure in figures))
    for part in others:
        row = body["ratios"][key_of(part)]
        cells = [(_figure(figure_in(part, figure), figure.unit), row.get(figure.key)) for figure in figures]
        table.row(title_of(part), *(f"{cell}, {ratio:.2f} x" if ratio is not None else cell for cell, ratio in cells))
    table.notes.append(NOTE)
    return table


def _figure(value: float | None, unit: str) -> str:
    if unit == "CPU":  # seconds for a thousand
        return "-" if value is None else f"{value * 1000:.1f} us"
    if unit == "CPU a million":
        return "-" if value is None else f"{value:.2f} us"
    if unit == "s":
        return "-" if value is None else f"{value:.2f} s"
    return {"ms": milliseconds, "bytes": kib}.get(unit, number)(value)
