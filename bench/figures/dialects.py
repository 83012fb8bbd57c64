"""The dialects that devices and app servers of a run can speak, and what is compared between two of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bench.load.http_bytes import STAMP_BYTES

BOTH: Final = "both"
"""One dialect after the other, with the same load."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`name`: also that of the devices' protocol; `wire`: of the push port, see `bench.load.wires`. `payload`: bytes of
    data that a push carries if nobody says another size, `least`: with fewer a device can't tell which push it is.
    `keeps_all`: every message is delivered, not only the newest of a channel. `signs`: app servers have a key that
    devices register with. `batches`: one request may carry several pushes."""

    name: str
    title: str
    wire: str
    payload: int = 0
    least: int = 0
    keeps_all: bool = False
    signs: bool = False
    batches: bool = False


SIMPLEPUSH: Final = Dialect("simplepush", "SimplePush", "farm", batches=True)
WEBPUSH: Final = Dialect("webpush", "WebPush", "webpush", payload=1024, least=STAMP_BYTES, keeps_all=True, signs=True)
DIALECTS: Final = {dialect.name: dialect for dialect in (SIMPLEPUSH, WEBPUSH)}
COMPARISON: Final = f"{WEBPUSH.title} : {SIMPLEPUSH.title}"


def dialect_of(part: dict[str, Any]) -> Dialect:
    """What was spoken in a run; results from before there were two do not say it."""
    return DIALECTS.get(part.get("dialect", ""), SIMPLEPUSH)


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


def ratios(parts: list[dict[str, Any]], figures: Iterable[Figure]) -> dict[str, float | None]:
    """Each figure of WebPush over that of SimplePush; None where one of them is missing or not above 0. On a machine
    that others disturb only the ratios can be believed."""
    found = {part["dialect"]: part for part in parts}
    result: dict[str, float | None] = {}
    for figure in figures:
        ours, base = (figure_in(found.get(dialect.name, {}), figure) for dialect in (WEBPUSH, SIMPLEPUSH))
        result[figure.key] = ours / base if ours and base and ours > 0 and base > 0 else None
    return result
