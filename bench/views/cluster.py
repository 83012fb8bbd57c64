"""What `farm bench cluster` shows. Pure."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, Final

from bench.figures.dialects import CLUSTER_FIGURES, parts_of
from bench.figures.forwards import answered, cpu_of, flat, slow
from bench.figures.tables import Chart, Series, Table, kib, milliseconds, number, size
from bench.views.parts import comparison, cpu, kinds, ready
from bench.views.push import headline_of, latency_charts, name_of, run_tables

PHASES: Final = (("before", "before"), ("during", "until all are back"), ("after", "after"))
MILLION: Final = 1_000_000


def tables(body: dict[str, Any]) -> list[Table]:
    """How the stores compare, if there were several; then of each what it was, and each stage."""
    found = comparison(body, CLUSTER_FIGURES)
    for part in parts_of(body):
        found += _tables(part)
    return found


def _tables(part: dict[str, Any]) -> list[Table]:
    found = [_overview(part)]
    if part["runs"]:
        found += run_tables(f"Pushing to {ready(part['setup'])} devices over {part['hosts']} hosts", part["runs"])
    if part["forward"]:
        found.append(_forward(part["forward"]))
    if part["lost"]:
        found += _lost(part["lost"])
    found += kinds("Devices that failed", part["setup"]["failures"])
    usages = [(name_of(run), run["usage"]) for run in part["runs"]]
    return [*found, *([cpu(usages)] if usages else [])]


def _overview(part: dict[str, Any]) -> Table:
    store, idle = part["store"], part["idle"]
    title = f"{part['hosts']} hosts of {part['workers']} workers, {part['routers']} routers, {store['title']}"
    table = Table(f"{title} {store['version']}", [""])
    table.row("hosts started, and routers shared out, after", f"{part['start_seconds']:.1f} s")
    if idle:
        table.row("links of workers to routers; of them TCP", f"{idle['links']:,}; {idle['links_tcp']:,}")
        table.row("cores without a device, all hosts", f"{idle['cores']:.3f}")
        table.row("cores of the store meanwhile", f"{idle['store_cores']:.3f}")
        for group, name in (("router", "a router"), ("workers", "a worker")):
            table.row(f"user memory of {name} then", size(idle["memory"].get(group)))
    for group, name in (("router", "all routers together"), ("workers", "all workers")):
        table.row(f"user memory of {name} a device", kib(part["user_memory"][group]["a_connection"]))
    each = store["a_device"]
    table.row("memory of the store a device", size(each))
    table.row("memory of the store a million devices, a copy", size(each * MILLION if each is not None else None))
    table.notes.append(f"A 2xx means: {store['promise']}.")
    return table


def _forward(forward: dict[str, Any]) -> Table:
    runs = {name: (flat(forward[name]), slow(forward[name])) for name in ("owner", "other")}
    table = Table(
        f"Pushing to {forward['addresses']:,} addresses through the host of their router, and through another",
        ["their own", "another", "more"],
    )

    def row(name: str, of: int, figure: Callable[[dict[str, Any]], float], told: Callable[[float | None], str]) -> None:
        cells = [median(map(figure, runs[host][of])) if runs[host][of] else None for host in ("owner", "other")]
        own, other = cells
        table.row(name, told(own), told(other), told(other - own) if own is not None and other is not None else "-")

    row("notifications/s, flat out", 0, lambda run: run["notifications_a_second"], number)
    row("CPU of the farm a push, flat out", 0, cpu_of, _us)
    row("CPU of the farm a push, at half of the rate", 1, cpu_of, _us)
    for point in ("p50", "p99"):
        row(f"push to answer at half of the rate, {point}", 1, partial(answered, point=point), milliseconds)
    table.notes.append(f"Medians of {len(runs['owner'][0])} runs in turn. A forward is what the last column says.")
    return table


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} us"


def _lost(lost: dict[str, Any]) -> list[Table]:
    table = Table(
        f"A host was killed, with {lost['routers']} of the routers and {lost['cut_off']:,} devices", ["after"]
    )
    table.row("its routers are on other hosts", _seconds(lost["placed_seconds"]))
    again = lost["accepted_seconds"]
    table.row("the first push to them is accepted", _seconds(again["first"]))
    table.row("95 % of the pushes to them are accepted", _seconds(again["95%"]))
    table.row("all of them are", _seconds(again["100%"]))
    table.row("all pushes to the other routers are", _seconds(lost["others_accepted_seconds"]["100%"]))
    for share, time in lost["back_seconds"].items():
        table.row(f"{share} of its devices are back", _seconds(time))
    for share, time in lost["whole_seconds"].items():
        table.row(f"{share} have what they missed", _seconds(time))
    table.notes.append(
        f"Seconds count from the kill; {lost['rate']:,.0f} pushes/s went on through the other hosts. Accepted: from "
        "then on within half a second, in each quarter of a second, of the pushes due in it."
    )
    found = [table]
    for key, whose in (("lost", "the routers that were lost"), ("others", "the others")):
        phases = lost["answers"][key]
        answers = Table(f"Pushes to {whose}", [title for _, title in PHASES])
        answers.row("pushes", *(number(phases[name]["pushes"]) for name, _ in PHASES))
        statuses = {status for name, _ in PHASES for status in phases[name]["statuses"]}
        for status in sorted(statuses, key=int):
            title = f"answered {status}" if int(status) else "not answered"
            answers.row(title, *(number(phases[name]["statuses"].get(status, 0)) for name, _ in PHASES))
        for point in ("p50", "p99", "max"):
            cells = [milliseconds(phases[name]["to_response_ms"].get(point)) for name, _ in PHASES]
            answers.row(f"push to answer, {point}", *cells)
        found.append(answers)
    found.append(_deliveries(lost))
    found += kinds("Attempts to come back that failed", lost["attempt_failures"])
    found += kinds("Connections of app servers that broke", lost["errors"])
    return found


def _deliveries(lost: dict[str, Any]) -> Table:
    done = lost["deliveries"]
    table = Table("What became of the pushes", ["count"])
    for key, name in (
        ("sent", "pushes"),
        ("delivered", "delivered"),
        ("superseded", "stored, then replaced by a newer one"),
        ("refused", "refused"),
        ("unanswered", "not answered"),
        ("refused_but_arrived", "refused or unanswered, but arrived"),
        ("lost", "lost (accepted, never arrived)"),
        ("stored", "still stored"),
        ("duplicates", "twice in one connection"),
        ("resent", "once more after coming back"),
    ):
        table.row(name, number(done[key]))
    return table


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def headline(body: dict[str, Any]) -> str:
    """Rate, the cost of a forward and how long a host that was killed is missed, of each store."""
    return "; ".join(_headline(part) for part in parts_of(body)) or "-"


def _headline(part: dict[str, Any]) -> str:
    told = [part["store"]["title"]]
    if part["runs"]:
        told.append(headline_of(part["runs"][0]))
    if part["forward"] and part["forward"]["cpu_us"] is not None:
        told.append(f"a forward {part['forward']['cpu_us']:.0f} us")
    if part["lost"]:
        again, back = part["lost"]["accepted_seconds"]["95%"], part["lost"]["whole_seconds"]["100%"]
        told.append(f"a host killed: pushes accepted after {_seconds(again)}, all devices whole after {_seconds(back)}")
    return f"{told[0]}: {', '.join(told[1:])}"


def charts(body: dict[str, Any]) -> list[Chart]:
    """Latency of pushes, and answers a second while a host was killed."""
    found: list[Chart] = []
    for part in parts_of(body):
        title = part["store"]["title"]
        found += latency_charts(part["runs"], f"{ready(part['setup'])} devices on {part['hosts']} hosts, {title}")
        lost = part["lost"]
        if not lost:
            continue
        bins = lost["pushes"]["a_second"]
        chart = Chart(f"Answers a second to pushes to lost routers, {title}", "line", "seconds after the kill", "/s")
        chart.note = (
            "200: written to the device's connection; 202: stored until it is back; the first and last are partial"
        )
        for status, rates in bins["statuses"].items():
            chart.series.append(Series(status if int(status) else "no answer", bins["seconds"], rates))
        share = Chart(f"Devices of the lost host that are back, {title}", "line", "seconds after the kill", "% of them")
        share.note = f"{lost['cut_off']:,} devices"
        for key, what in (("back_curve", "back"), ("whole_curve", "and have what they missed")):
            points = lost[key]
            share.series.append(Series(what, [at for at, _ in points], [100 * part for _, part in points]))
        found += [chart, share]
    return found
