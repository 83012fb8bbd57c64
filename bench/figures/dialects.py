"""The dialect of a result, and what is compared between several. Pure."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from bench.load.dialect import Dialect, FanOut
from bench.load.protocols import DIALECTS, FAN_OUTS, REFERENCE
from bench.store_servers.choices import CHOICES

FRONTS: Final = {"tls": "TLS in the farm", "haproxy": "TLS in HAProxy in front"}
"""Where TLS ends, by the name of the run."""
ALL: Final = "all"
"""One dialect after the other, with the same load."""


def dialect_of(part: dict[str, Any]) -> Dialect | FanOut:
    """What was spoken in a run; older results do not have it."""
    name = part.get("dialect", "")
    return DIALECTS.get(name) or FAN_OUTS.get(name) or REFERENCE


def key_of(part: dict[str, Any]) -> str:
    """What a run is called where several are compared: its dialect, how subscribers were connected, and the store where
    there were several."""
    return " ".join(filter(None, (part["dialect"], part.get("mode"), part.get("variant"))))


def title_of(part: dict[str, Any]) -> str:
    """The same for a reader."""
    variant = part.get("variant", "")
    told = CHOICES[variant].title if variant in CHOICES else FRONTS.get(variant)
    return ", ".join(filter(None, (dialect_of(part).title, part.get("mode"), told)))


def parts_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A document by its dialects: itself, or, where it has several, each with what is the same for all."""
    return [{**body, **part} for part in body["parts"]] if "parts" in body else [body]


class Figure(NamedTuple):
    """A figure of a run that is worth a comparison. `path`: where it stands in the result; `unit`: ms, s, bytes, CPU
    (in seconds for a thousand), CPU a million (in seconds for that), or none."""

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
        for group in ("router", "workers", "store")
    ),
    Figure("stored_a_device", "memory of the store a device", ("store", "a_device"), "bytes"),
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
        for group in ("workers", "router", "proxy")
    ),
    *(
        Figure(
            f"{group}_cpu_a_setup",
            f"CPU of the {group} a set-up",
            ("connect", "usage", "groups", group, "cpu_seconds_a_1000"),
            "CPU",
        )
        for group in ("router", "workers", "proxy")
    ),
)
CLUSTER_FIGURES: Final = (
    *PUSH_FIGURES[:-1],
    Figure("forward_p50", "a forward, p50", ("forward", "p50_ms"), "ms"),
    Figure("placed", "lost routers on another host", ("lost", "placed_seconds"), "s"),
    Figure("accepted", "95 % of pushes to them accepted", ("lost", "accepted_seconds", "95%"), "s"),
    Figure("whole", "all devices have what they missed", ("lost", "whole_seconds", "100%"), "s"),
    PUSH_FIGURES[-1],
)
FANOUT_FIGURES: Final = (
    Figure("deliveries_a_second", "deliveries/s", ("runs", 0, "deliveries_a_second")),
    Figure("to_last_p50", "POST to the last, p50", ("runs", 0, "to_last_ms", "p50"), "ms"),
    Figure("to_last_p99", "POST to the last, p99", ("runs", 0, "to_last_ms", "p99"), "ms"),
    Figure(
        "server_cpu_a_delivery", "CPU of the farm a delivery", ("runs", 0, "cpu_a_million", "server"), "CPU a million"
    ),
    Figure("load_cpu_a_delivery", "CPU of the load a delivery", ("runs", 0, "cpu_a_million", "load"), "CPU a million"),
    Figure(
        "workers_memory_a_subscriber",
        "user memory of the workers a subscriber",
        ("memory_a_subscriber", "workers"),
        "bytes",
    ),
)
REPLAY_FIGURES: Final = (
    Figure("seconds", "until all have everything, s", ("rounds", 0, "seconds"), "s"),
    Figure("back_p99", "until one is back, p99", ("rounds", 0, "back_ms", "p99"), "ms"),
    Figure("deliveries_a_second", "deliveries/s", ("rounds", 0, "deliveries_a_second")),
    Figure(
        "server_cpu_a_delivery", "CPU of the farm a delivery", ("rounds", 0, "cpu_a_million", "server"), "CPU a million"
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
    """By the name of each further run (`key_of`): each of its figures over that of the first; None where one of them is
    missing or not above 0. On a machine that others disturb only the ratios can be believed."""
    first, *others = parts
    found: dict[str, dict[str, float | None]] = {}
    for part in others:
        found[key_of(part)] = row = {}
        for figure in figures:
            mine, base = figure_in(part, figure), figure_in(first, figure)
            row[figure.key] = mine / base if mine and base and mine > 0 and base > 0 else None
    return found


def relations(body: dict[str, Any], key: str) -> list[tuple[str, float]]:
    """The title of each further run, and the ratio of a figure to that of the first, where it is known."""
    titles = {key_of(part): title_of(part) for part in body["parts"]}
    found = ((titles[name], row.get(key)) for name, row in body["ratios"].items())
    return [(title, ratio) for title, ratio in found if ratio is not None]
