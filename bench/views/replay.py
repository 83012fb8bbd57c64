"""The tables and charts of `farm bench replay`. Pure."""

from typing import Any, Final

from bench.figures.dialects import REPLAY_FIGURES, parts_of, relations, title_of
from bench.figures.tables import Chart, Series, Table, milliseconds, number
from bench.views.fanout import seconds
from bench.views.parts import added, comparison, cpu, kinds, ready

POINTS: Final = ("p50", "p99", "max")
COUNTS: Final = (
    ("deliveries expected", "expected"),
    ("delivered", "delivered"),
    ("lost (accepted, never arrived)", "lost"),
    ("duplicates", "duplicates"),
    ("had before, and sent again", "stale"),
    ("out of order", "reordered"),
    ("with wrong data", "wrong_data"),
    ("on another channel", "strays"),
    ("never sent, but arrived", "unexpected"),
    ("to subscribers that were cut off", "undelivered"),
)


def tables(body: dict[str, Any]) -> list[Table]:
    """How the dialects and modes compare, if there were several; for each when subscribers had everything, its CPU, and
    what failed."""
    found = comparison(body, REPLAY_FIGURES)
    for part in parts_of(body):
        found += _tables(part)
    return found


def _tables(body: dict[str, Any]) -> list[Table]:
    rounds = body["rounds"]
    found = [_returns(body, rounds)] if rounds else []
    found += kinds("Subscribers that failed", body["setup"]["failures"])
    broken = added(*(counts for one in rounds for counts in (one["errors"], one["drops"], one["return_failures"])))
    found += kinds("Connections that broke, and attempts to come back that failed", broken)
    return [*found, cpu([(_name(at), one["usage"]) for at, one in enumerate(rounds, 1)])] if rounds else found


def _name(at: int) -> str:
    return f"round {at}"


def _returns(body: dict[str, Any], rounds: list[dict[str, Any]]) -> Table:
    channels = "one channel" if body["channels"] == 1 else f"{body['channels']:,} channels"
    title = f"{body['messages']:,} stored messages of {body['payload']:,} bytes to each of {ready(body['setup'])} "
    table = Table(f"{title}subscribers of {channels} ({title_of(body)})", [_name(at + 1) for at in range(len(rounds))])
    table.row("until all have everything", *(f"{one['seconds']:.2f} s" for one in rounds))
    for point in POINTS:
        table.row(f"until one is back, {point}", *(milliseconds(one["back_ms"].get(point)) for one in rounds))
    table.row("back", *(number(one["back"]) for one in rounds))
    table.row("deliveries/s", *(number(one["deliveries_a_second"]) for one in rounds))
    table.row("server CPU s a million", *(seconds(one["cpu_a_million"]["server"]) for one in rounds))
    table.row("messages stored/s before", *(number(one["stored_a_second"]) for one in rounds))
    for name, key in COUNTS:
        table.row(name, *(number(one[key]) for one in rounds))
    table.row("live messages afterwards, lost", *(number(one["live"]["lost"]) for one in rounds))
    table.row("limit", *(one["limit"] for one in rounds))
    table.notes.append(
        "All subscribers come back at once. The time counts from then to the last message at the last one."
    )
    return table


def headline(body: dict[str, Any]) -> str:
    """When all had everything, and what was lost or doubled."""
    if "parts" not in body:
        return _headline(body)
    told = [f"{title} in {ratio:.0%} of the time" for title, ratio in relations(body, "seconds")]
    return "; ".join([*told, *(f"{title_of(part)}: {_headline(part)}" for part in body["parts"])])


def _headline(body: dict[str, Any]) -> str:
    told = []
    for one in body["rounds"]:
        wrong = f"{number(one['lost'])} lost, {number(one['duplicates'] + one['stale'])} twice"
        who = f"{body['messages']:,} messages to each of {number(one['subscribers'])}"
        told.append(f"{who} after {one['seconds']:.2f} s, {wrong}")
    return "; ".join(told) or "-"


def charts(body: dict[str, Any]) -> list[Chart]:
    """The time until all have everything, of each dialect and mode."""
    chart = Chart("Until all that came back have everything", "bar", "", "s")
    for part in parts_of(body):
        if part["rounds"]:
            times = [one["seconds"] for one in part["rounds"]]
            chart.series.append(Series(title_of(part), [_name(at + 1) for at in range(len(times))], times))
    chart.note = "All come back at once; load on the same machine."
    return [chart] if chart.series else []
