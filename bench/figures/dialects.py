"""The dialect of a result, and what is compared between several. Pure."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from bench.load.dialect import Dialect
from bench.load.protocols import DIALECTS, REFERENCE

ALL: Final = "all"
"""One dialect after the other, with the same load."""


def dialect_of(part: dict[str, Any]) -> Dialect:
    """What was spoken in a run; older results do not have it."""
    return DIALECTS.get(part.get("dialect", ""), REFERENCE)


def parts_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A document by its dialects: itself, or, where it has several, each with what is the same for all."""
    return [{**body, **part} for part in body["parts"]] if "parts" in body else [body]


class Figure(NamedTuple):
    """A figure of a run that is worth a comparison. `path`: where it stands in the result; `unit`: ms, bytes, CPU (in
    seconds for a thousand), or none."""

    key: str
    label: str
    path: tuple[str | int, ...]
    unit: str = ""


PUSH_FIGURES: Final = (
    Figure("notifications_a_second", "notifications/s", ("runs", 0, "notifications_a_second")),
    Figure("pushes_a_second", "pushes answered/s", ("runs", 0, "pushes_a_second")),
    Figure("to_frame_p50", "push to frame, p50", ("runs", 0, "to_frame_ms", "p50"), "ms"),
    Figure("to_frame_p99", "push to frame, p99", ("runs", 0, "to_frame_ms", "p99"), "ms"),
    Figure("to_response_p50", "push to answer, p50", ("runs", 0, "to_response_ms", "p50"), "ms"),
    Figure("to_response_p99", "push to answer, p99", ("runs", 0, "to_response_ms", "p99"), "ms"),
    *(
        Figure(
            f"{group}_cpu_a_push",
            f"CPU of the {group} a push",
            ("runs", 0, "usage", "groups", group, "cpu_seconds_a_1000"),
            "CPU",
        )
        for group in ("router", "workers")
    ),
)
CONNECT_FIGURES: Final = (
    Figure("setup_rate", "set-ups/s, overall", ("connect", "setup", "rate")),
    *(
        Figure(
            f"{group}_memory_a_device",
            f"user memory of the {group} a device",
            ("connect", "user_memory", group, "a_connection"),
            "bytes",
        )
        for group in ("workers", "router")
    ),
    *(
        Figure(
            f"{group}_cpu_a_setup",
            f"CPU of the {group} a set-up",
            ("connect", "usage", "groups", group, "cpu_seconds_a_1000"),
            "CPU",
        )
        for group in ("router", "workers")
    ),
)


def figure_in(part: dict[str, Any], figure: Figure) -> float | None:
    """The figure of a run; None if it was not measured."""
    value: Any = part
    for step in figure.path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return float(value) if isinstance(value, int | float) else None


def ratios(parts: list[dict[str, Any]], figures: Iterable[Figure]) -> dict[str, dict[str, float | None]]:
    """By the name of each further dialect: each of its figures over that of the first; None where one of them is
    missing or not above 0. On a machine that others disturb only the ratios can be believed."""
    first, *others = parts
    found: dict[str, dict[str, float | None]] = {}
    for part in others:
        found[part["dialect"]] = row = {}
        for figure in figures:
            mine, base = figure_in(part, figure), figure_in(first, figure)
            row[figure.key] = mine / base if mine and base and mine > 0 and base > 0 else None
    return found


def relations(body: dict[str, Any], key: str) -> list[tuple[str, float]]:
    """The title of each further dialect, and the ratio of a figure to that of the first, where it is known."""
    found = ((dialect_of({"dialect": name}).title, row.get(key)) for name, row in body["ratios"].items())
    return [(title, ratio) for title, ratio in found if ratio is not None]
