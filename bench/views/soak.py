"""What `farm bench soak` shows."""

from collections.abc import Callable
from typing import Any, Final

from bench.figures import creep
from bench.figures.creep import MIB
from bench.figures.slope import UNKNOWN
from bench.figures.tables import Chart, Series, Table, milliseconds, number

_UNITS: Final = {"MiB": " MiB", "descriptors": "", "ms": " ms"}
_DIGITS: Final = {"MiB": 2, "descriptors": 0, "ms": 2}


def tables(body: dict[str, Any]) -> list[Table]:
    """What became of the pushes, and whether anything creeps."""
    soak = body["soak"]
    return [_deliveries(body, soak), _growth(body), *_troubles(body, soak)]


def _deliveries(body: dict[str, Any], soak: dict[str, Any]) -> Table:
    options, deliveries = body["options"], soak["deliveries"]
    table = Table(f"{soak['devices']:,} devices for {_time(soak['seconds'])}", ["soak"])
    table.row("devices that left and came back", f"{soak['left']:,} and {soak['returned']:,}")
    table.row("connected at the end", f"{soak['held']:,} of {soak['devices']:,}")
    table.row("pushes", number(deliveries["sent"]))
    for key, name in (
        ("delivered", "delivered"),
        ("superseded", "stored, then replaced by a newer one"),
        ("stored", "still stored for devices that are away"),
        ("refused", "refused"),
        ("unanswered", "not answered"),
        ("lost", "lost (accepted, never arrived)"),
        ("duplicates", "twice in one connection"),
        ("unexpected", "never sent, but arrived"),
        ("wrong_data", "with wrong data"),
        ("resent", "once more after coming back"),
    ):
        table.row(name, number(deliveries[key]))
    table.row("due but never sent", number(soak["unsent"]))
    samples = soak["samples"]
    for key, name in (("to_frame_ms", "PUT to frame"), ("to_response_ms", "PUT to answer")):
        for point in ("p50", "p99", "max"):
            worst = max((sample[key][point] for sample in samples if point in sample[key]), default=None)
            table.row(f"{name}, {point} of the worst window", milliseconds(worst))
    pings = soak["pings"]
    if pings.get("sent"):
        table.row("pings sent, answered, overdue", f"{pings['sent']:,}, {pings['answered']:,}, {pings['overdue']:,}")
    for group, use in soak["usage"]["groups"].items():
        table.row(f"CPU, {group}", f"{use['cpu_seconds'] / soak['usage']['seconds']:.1%} of a core")
    table.notes.append(
        f"{options['churn']:g} devices a second lose their connection and come back after about "
        f"{options['backoff']:g} s; {options['rate']:g} pushes a second."
    )
    return table


def _growth(body: dict[str, Any]) -> Table:
    table = Table("What may creep, in the second half", ["at its begin", "at the end", "an hour", "limit", "verdict"])
    growth = body["soak"]["growth"]
    if any("unit" not in verdict for verdict in growth.values()):  # of a release that judged only memory
        growth = creep.verdicts(body["soak"]["samples"], creep.Limits(memory=body["options"]["max_slope"]))
    if not growth:
        table.notes.append("Neither the farm's processes nor its latency could be seen.")
        return table
    for name, verdict in growth.items():
        slope, unit, limit = verdict["slope"], _UNITS[verdict["unit"]], verdict["limit"]
        fitted = "-" if slope is None else f"{slope:+.2f} ± {verdict['uncertainty']:.2f}{unit}"
        ends = (f"{verdict[end]:,.{_DIGITS[verdict['unit']]}f}{unit}" for end in ("first", "last"))
        table.row(name, *ends, fitted, f"{limit:g}{unit}", verdict["verdict"])
    table.notes.append(
        "Least squares over the second half; the first is warm-up. Fails when one grows by more than its limit for "
        "sure, that is, beyond the uncertainty: twice the standard error, for samples that are alike as they follow "
        "each other, and for memory at least what one step of 1 MiB does."
    )
    table.notes.append(
        "Descriptors of the workers are those beyond the connections. Latency is of each window, its line through "
        "logarithms; it also shows what else the machine did."
    )
    if any(verdict["verdict"] == UNKNOWN for verdict in growth.values()):
        table.notes.append(
            "Too short to tell: the run had too few samples, or was too short for so small a slope to show among what "
            "the samples scatter: neither passed nor failed. Run it for longer, or allow more."
        )
    return table


def _troubles(body: dict[str, Any], soak: dict[str, Any]) -> list[Table]:
    kinds = {f"set-up: {kind}": count for kind, count in body["setup"]["failures"].items()}
    kinds |= {f"connection ended: {kind}": count for kind, count in soak["drops"].items()}
    kinds |= {f"coming back: {kind}": count for kind, count in soak["return_failures"].items()}
    kinds |= {f"app server: {kind}": count for kind, count in soak["errors"].items()}
    for key, name in (
        ("strays", "updates for another device's channel"),
        ("reassigned", "devices with a new identity"),
    ):
        if soak[key]:
            kinds[name] = soak[key]
    if not kinds:
        return []
    table = Table("What failed", ["count"])
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        table.row(kind, number(count))
    return [table]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def charts(body: dict[str, Any]) -> list[Chart]:
    """Memory, descriptors, latency and connections over time."""
    samples = body["soak"]["samples"]
    if not samples:
        return []
    label, unit = ("hours", 3600) if samples[-1]["at"] >= 7200 else ("minutes", 60)
    times = [sample["at"] / unit for sample in samples]

    def chart(title: str, y_label: str, lines: dict[str, Callable[[dict[str, Any]], float | None]]) -> Chart:
        series = [Series(name, times, [read(sample) for sample in samples]) for name, read in lines.items()]
        return Chart(title, "line", label, y_label, [line for line in series if any(y is not None for y in line.y)])

    def groups(key: str) -> list[str]:
        return list(dict.fromkeys(name for sample in samples for name in sample[key]))

    def read(key: str, name: str, factor: float = 1.0) -> Callable[[dict[str, Any]], float | None]:
        return lambda sample: None if (value := sample[key].get(name)) is None else value * factor

    memory = chart("Memory", "MiB", {name: read("memory", name, 1 / MIB) for name in groups("memory")})
    memory.note = "private memory of the processes of each kind; kernel: slab and TCP buffers, both ends"
    descriptors = chart("Descriptors", "open", {name: read("descriptors", name) for name in groups("descriptors")})
    latency = chart(
        "Latency of pushes to connected devices",
        "ms",
        {
            "to the frame, p50": read("to_frame_ms", "p50"),
            "to the frame, p99": read("to_frame_ms", "p99"),
            "to the answer, p50": read("to_response_ms", "p50"),
            "to the answer, p99": read("to_response_ms", "p99"),
        },
    )
    latency.log_y = True
    latency.note = "of each window; where windows were joined, the worst of them"
    connections = chart(
        "Devices",
        "devices",
        {
            "connections that the farm counts": lambda sample: sample["connections"],
            "set up, as the load counts": lambda sample: sample["devices"],
            "away": lambda sample: sample["away"],
        },
    )
    return [memory, descriptors, latency, connections]
