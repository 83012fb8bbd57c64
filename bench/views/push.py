"""The tables and charts of `farm bench push`, and of the pushes of other commands. Pure."""

from typing import Any, Final

from bench.figures.dialects import PUSH_FIGURES, dialect_of, parts_of, relations, title_of
from bench.figures.tables import Chart, Series, Table, milliseconds, number, size
from bench.load.dialect import FanOut
from bench.views.parts import added, comparison, cpu, kinds, ready, spoken

POINTS: Final = ("p50", "p90", "p99", "p99.9", "max")
COUNTS: Final = (
    ("delivered", "delivered"),
    ("stored for devices that were away", "stored"),
    ("lost (accepted, never arrived)", "lost"),
    ("duplicates", "duplicates"),
    ("out of order", "reordered"),
    ("never sent, but arrived", "unexpected"),
    ("refused or unanswered, but arrived", "refused_but_arrived"),
    ("with wrong data", "wrong_data"),
    ("for another device's channel", "strays"),
    ("stored, then replaced by a newer one", "superseded"),
    ("accepted for devices that were cut off", "undelivered"),
)
AWAY: Final = (
    ("pushed to while they were away", "stored", "pieces"),
    ("brought back", "sample", "devices"),
    ("back", "back", "devices"),
    ("updates that wait for them", "expected", "pieces"),
    ("arrived, the newest or newer", "arrived", "pieces"),
    ("missing", "missing", "pieces"),
    ("older than the newest accepted", "older", ""),
    ("duplicates", "duplicates", ""),
    ("never sent, but arrived", "unexpected", ""),
    ("for another device's channel", "strays", ""),
    ("came back with another identity", "reassigned", "devices"),
)


def tables(body: dict[str, Any]) -> list[Table]:
    """How the dialects compare, if there were several; for each what was answered and what arrived, how fast, and the
    CPU; devices that were away."""
    found = comparison(body, PUSH_FIGURES)
    for part in parts_of(body):
        found += _tables(part)
    return found


def _tables(body: dict[str, Any]) -> list[Table]:
    runs = body["runs"]
    found = run_tables(f"Pushing to {ready(body['setup'])} devices{spoken(body)}", runs) if runs else []
    away = body.get("away")
    if away:
        dialect = dialect_of(body)
        found.append(_away(away, "messages" if isinstance(dialect, FanOut) or dialect.keeps_all else "channels"))
        found += kinds("Attempts to come back that failed", away["return_failures"])
    found += kinds("Devices that failed", body["setup"]["failures"])
    found += _stored(body.get("store"))
    return [*found, cpu([(name_of(run), run["usage"]) for run in runs])] if runs else found


def headline(body: dict[str, Any]) -> str:
    """Rate, latency and losses of the first run, of each dialect that was spoken."""
    if "parts" not in body:
        return headline_of(body["runs"][0]) if body["runs"] else "-"
    told = [f"{title} at {ratio:.0%} of the rate" for title, ratio in relations(body, "notifications_a_second")]
    told += [f"{title_of(part)}: {headline_of(part['runs'][0])}" for part in body["parts"] if part["runs"]]
    return "; ".join(told) or "-"


def headline_of(run: dict[str, Any]) -> str:
    """Rate, latency and losses."""
    p99 = milliseconds(run["to_frame_ms"].get("p99"))
    return (
        f"{number(run['notifications_a_second'])} notifications/s; push to frame p99 {p99}; {number(run['lost'])} lost"
    )


def name_of(run: dict[str, Any]) -> str:
    """A run by its mode and rate."""
    return str(run["mode"]) + (f", {run['rate']:,.0f} /s" if run["rate"] else "")


def run_tables(title: str, runs: list[dict[str, Any]]) -> list[Table]:
    """The figures of each run side by side, and why connections broke."""
    table = Table(title, [name_of(run) for run in runs])

    def row(name: str, *keys: str) -> None:
        table.row(name, *(number(_dig(run, keys)) for run in runs))

    row("notifications/s", "notifications_a_second")
    row("pushes answered/s", "pushes_a_second")
    row("pushes", "pushes")
    for status in sorted({str(status) for run in runs for status in run["statuses"]}):
        row(f"answered {status}" if status != "0" else "not answered", "statuses", status)
    row("due but never sent", "unsent")
    for key, name in (("to_frame_ms", "push to frame"), ("to_response_ms", "push to answer")):
        for point in POINTS:
            table.row(f"{name}, {point}", *(milliseconds(run[key].get(point)) for run in runs))
    for name, key in COUNTS:
        if any(key in run for run in runs):
            row(name, key)
    table.row("limit", *(run["limit"] for run in runs))
    broken = added(*(counts for run in runs for counts in (run["errors"], run["drops"])))
    return [table, *kinds("Connections that broke", broken)]


def _away(away: dict[str, Any], pieces: str) -> Table:
    """`pieces`: what is owed to a device."""
    table = Table(f"{away['devices']:,} devices that were away", ["count"])
    for name, key, unit in AWAY:
        unit = unit.replace("pieces", pieces)
        table.row(f"{name}, {unit}" if unit else name, number(away[key]))
    table.row("seconds until they were back with their updates", f"{away['seconds']:.1f}")
    return table


def _stored(store: dict[str, Any] | None) -> list[Table]:
    if store is None:
        return []
    table = Table(f"{store['title']} {store['version']}", ["memory of the server"])
    table.row(f"a device that has registered ({store['devices']:,})", size(store["a_device"]))
    table.row(f"a message that waits ({store['waiting']:,})", size(store["a_message"]))
    table.notes.append(f"A 2xx means: {store['promise']}. Each replica takes as much again.")
    return [table]


def _dig(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = value.get(key, 0)
    return value


def charts(body: dict[str, Any]) -> list[Chart]:
    """Latency, and what each part spends on a push, in each dialect."""
    found: list[Chart] = []
    for part in parts_of(body):
        runs, what = part["runs"], f"{ready(part['setup'])} devices{spoken(part)}"
        found += [*latency_charts(runs, what), *_cpu_chart(runs, what)]
    return found


def latency_charts(runs: list[dict[str, Any]], what: str) -> list[Chart]:
    """From the push to the frame at the device, by percentile; none if nothing arrived."""
    chart = Chart("From the push to the frame at the device", "bar", "percentile", "ms", log_y=True)
    for run in runs:
        times = run["to_frame_ms"]
        if times:
            name = f"{run['mode']}, {run['notifications_a_second']:,.0f} notifications/s"
            chart.series.append(Series(name, list(times), list(times.values())))
    lost = sum(run["lost"] for run in runs)
    chart.note = (
        f"{what}; {sum(run['delivered'] for run in runs):,} delivered, {lost:,} lost; load on the same machine."
    )
    return [chart] if chart.series else []


def _cpu_chart(runs: list[dict[str, Any]], what: str) -> list[Chart]:
    chart = Chart("CPU of a push", "bar", "", "microseconds of a core")
    for run in runs:
        groups = run["usage"]["groups"]
        costs = {
            name: use["cpu_seconds_a_1000"] for name, use in groups.items() if use["cpu_seconds_a_1000"] is not None
        }
        if costs:
            chart.series.append(Series(name_of(run), list(costs), [cost * 1000 for cost in costs.values()]))
    chart.note = f"{what}; CPU time of each group of processes over the pushes of the run; 'load' is the bench itself."
    return [chart] if chart.series else []
