"""The tables and charts of `farm bench fanout`. Pure."""

from typing import Any, Final

from bench.figures.dialects import FANOUT_FIGURES, parts_of, relations, title_of
from bench.figures.tables import Chart, Series, Table, kib, milliseconds, number
from bench.views.parts import added, comparison, kinds, ready
from bench.views.push import name_of

POINTS: Final = ("p50", "p90", "p99", "max")
COUNTS: Final = (
    ("events", "events"),
    ("due but never sent", "unsent"),
    ("deliveries expected", "expected"),
    ("delivered", "delivered"),
    ("lost (accepted, never arrived)", "lost"),
    ("duplicates", "duplicates"),
    ("out of order", "reordered"),
    ("with wrong data", "wrong_data"),
    ("on another channel", "strays"),
    ("never sent, but arrived", "unexpected"),
    ("to subscribers that were cut off", "undelivered"),
)


def tables(body: dict[str, Any]) -> list[Table]:
    """How the dialects and modes compare, if there were several; for each what arrived and how fast, its CPU, and what
    failed."""
    found = comparison(body, FANOUT_FIGURES)
    for part in parts_of(body):
        found += _tables(part)
    return found


def _tables(body: dict[str, Any]) -> list[Table]:
    runs = body["runs"]
    found = [_arrivals(body, runs), _cpu(runs)] if runs else []
    if body["memory_a_subscriber"]:
        memory = Table("User memory of a subscriber", ["growth from none to all, each"])
        for group, size in body["memory_a_subscriber"].items():
            memory.row(group, kib(size))
        found.append(memory)
    found += kinds("Subscribers that failed", body["setup"]["failures"])
    return found + kinds(
        "Connections that broke", added(*(counts for run in runs for counts in (run["errors"], run["drops"])))
    )


def _arrivals(body: dict[str, Any], runs: list[dict[str, Any]]) -> Table:
    channels = body["channels"]
    spread = "one channel" if channels == 1 else f"{channels:,} channels"
    dialect = f" ({title_of(body)})" if "dialect" in body else ""
    title = f"Events of {body['payload']:,} bytes to {ready(body['setup'])} subscribers of {spread}{dialect}"
    table = Table(title, [name_of(run) for run in runs])
    table.row("deliveries/s", *(number(run["deliveries_a_second"]) for run in runs))
    table.row("events/s", *(f"{run['events_a_second']:,.1f}" for run in runs))
    for name, key in (("POST to the last", "to_last_ms"), ("POST to the first", "to_first_ms")):
        for point in POINTS:
            table.row(f"{name}, {point}", *(milliseconds(run[key].get(point)) for run in runs))
    for point in POINTS:
        table.row(f"POST to its answer, {point}", *(milliseconds(run["to_response_ms"].get(point)) for run in runs))
    for status in sorted({str(status) for run in runs for status in run["statuses"]}):
        name = f"answered {status}" if status != "0" else "not answered"
        table.row(name, *(number(run["statuses"].get(status, 0)) for run in runs))
    for name, key in COUNTS:
        table.row(name, *(number(run[key]) for run in runs))
    table.row("limit", *(run["limit"] for run in runs))
    table.notes.append(
        "First and last: of the subscribers' sockets that had the event, over all events that all of them got."
    )
    return table


def _cpu(runs: list[dict[str, Any]]) -> Table:
    table = Table("CPU", ["s a million deliveries", "busiest process", "waiting for a core"])
    for run in runs:
        groups, name = run["usage"]["groups"], name_of(run)
        for group, cost in run["cpu_a_million"].items():
            use = groups.get(group)
            if use is None:
                table.row(f"{name}: {'all of the ' + group if group != 'all' else 'all'}", seconds(cost))
                continue
            waiting = max(0.0, use["busiest_wanting"] - use["busiest_running"])
            processes = f"{name}: {group} ({use['processes']})"
            table.row(processes, seconds(cost), f"{use['busiest_running']:.0%}", f"{waiting:.0%}")
        table.row(f"{name}: all cores", "", f"{run['usage']['machine_busy']:.0%}")
        table.row(f"{name}: cores busy with others", "", f"{run['usage']['cores_with_others']:.2f}")
    return table


def seconds(value: float | None) -> str:
    """Seconds with two digits."""
    return "-" if value is None else f"{value:.2f}"


def headline(body: dict[str, Any]) -> str:
    """Rate, cost, latency and losses, of each run."""
    if "parts" not in body:
        return _headline(body)
    told = [f"{title} at {ratio:.0%} of the rate" for title, ratio in relations(body, "deliveries_a_second")]
    return "; ".join([*told, *(f"{title_of(part)}: {_headline(part)}" for part in body["parts"])])


def _headline(body: dict[str, Any]) -> str:
    told = []
    for run in body["runs"]:
        cost = run["cpu_a_million"]
        told.append(
            f"{number(run['deliveries_a_second'])} deliveries/s, server {seconds(cost['server'])} and all "
            f"{seconds(cost['all'])} CPU-s a million, p99 to the last {milliseconds(run['to_last_ms'].get('p99'))}, "
            f"{number(run['lost'])} lost ({name_of(run)})"
        )
    return "; ".join(told) or "-"


def charts(body: dict[str, Any]) -> list[Chart]:
    """Latency to the last subscriber, and what each part spends on a delivery."""
    return [chart for part in parts_of(body) for chart in _charts(part)]


def _charts(body: dict[str, Any]) -> list[Chart]:
    latency = Chart("From the POST to the last subscriber's socket", "bar", "percentile", "ms", log_y=True)
    cost = Chart("CPU of a delivery", "bar", "", "microseconds of a core")
    for run in body["runs"]:
        name = f"{name_of(run)}: {run['deliveries_a_second']:,.0f} deliveries/s"
        if times := run["to_last_ms"]:
            latency.series.append(Series(name, list(times), list(times.values())))
        if costs := {group: value for group, value in run["cpu_a_million"].items() if value is not None}:
            cost.series.append(Series(name, list(costs), list(costs.values())))
    latency.note = cost.note = (
        f"{ready(body['setup'])} subscribers, {body['channels']:,} channel{'s' if body['channels'] > 1 else ''}; "
        "load on the same machine."
    )
    return [chart for chart in (latency, cost) if chart.series]
