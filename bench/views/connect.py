"""The tables and charts of `farm bench connect`. Pure."""

from typing import Any, Final

from bench.figures.dialects import CONNECT_FIGURES, dialect_of, parts_of, relations, title_of
from bench.figures.tables import Chart, Series, Table, kib, milliseconds, number, size
from bench.load.dialect import FanOut
from bench.views import push as pushes
from bench.views.parts import added, comparison, cpu, kinds, ready, spoken

POINTS: Final = ("p50", "p90", "p99", "p99.9", "max")


def tables(body: dict[str, Any]) -> list[Table]:
    """How the dialects compare, if there were several; for each what was held and what it cost, beside the baseline if
    there is one; failures; pushes; CPU."""
    found = comparison(body, CONNECT_FIGURES)
    for part in parts_of(body):
        found += _tables(part)
    return found


def _tables(body: dict[str, Any]) -> list[Table]:
    ours, base = body["connect"], body.get("baseline")
    found = [_main(body, ours, base)]
    found += kinds("Devices that failed, or were dropped", added(ours["setup"]["failures"], ours["drops"]))
    if base:
        found += kinds("Baseline connections that failed", base["setup"]["failures"])
    if ours.get("push"):
        found += pushes.run_tables(f"Pushing while {ours['held']:,} devices are held", [ours["push"]])
    usages = [("set-ups", ours["usage"])]
    if ours.get("push"):
        usages.append(("pushes", ours["push"]["usage"]))
    return [*found, cpu(usages)]


def headline(body: dict[str, Any]) -> str:
    """What was held, and what one costs in the farm's processes."""
    if "parts" not in body:
        return _headline(body)
    first = title_of(body["parts"][0])
    others = relations(body, "workers_memory_a_device")
    told = [f"memory of the workers a device, {title} : {first}: {ratio:.2f}" for title, ratio in others]
    return "; ".join([*told, *(f"{title_of(part)}: {_headline(part)}" for part in body["parts"])])


def _headline(body: dict[str, Any]) -> str:
    ours = body["connect"]
    costs = [ours["user_memory"].get(part, {}).get("a_connection") for part in ("workers", "router")]
    told = [
        f"{ready(ours['setup'])} devices ready, {ours['held']:,} held",
        f"{number(ours['setup']['rate'])} set-ups/s",
    ]
    if None not in costs:
        told.append(f"{kib(sum(costs))} user memory each")
    if ours.get("push"):
        told.append(pushes.headline_of(ours["push"]))
    return "; ".join(told)


def _main(body: dict[str, Any], ours: dict[str, Any], base: dict[str, Any] | None) -> Table:
    setup = ours["setup"]
    table = Table(f"Connecting devices{spoken(body)}", ["farm", *(("trio-websocket",) if base else ())])

    def row(name: str, mine: str, other: str = "") -> None:
        table.row(name, mine, *((other or "",) if base else ()))

    theirs = base["setup"] if base else {}
    row("what is set up", _set_up(body), "upgrade")
    row("devices ready", ready(setup), ready(theirs) if base else "")
    row("set-ups/s, overall", number(setup["rate"]), number(theirs.get("rate")))
    row("set-ups/s, middle half", number(setup["rate_steady"]), number(theirs.get("rate_steady")))
    names = "/".join(setup["time_ms"] or POINTS)
    row(f"time of one, ms {names}", _values(setup["time_ms"]), _values(theirs.get("time_ms")))
    memory = ours["user_memory"]
    worker = memory.get("workers", {}).get("a_connection")
    other = base["user_memory_a_connection"] if base else None
    row("user memory a connection, workers", kib(worker), kib(other))
    row("user memory a connection, router", kib(memory.get("router", {}).get("a_connection")))
    if "proxy" in memory:
        row("user memory a connection, HAProxy", kib(memory["proxy"]["a_connection"]))
    row("kernel memory a connection, one end", kib(ours["kernel_memory"]["a_connection_one_end"]))
    if worker and other and worker > 0:
        row("memory of the baseline over ours", f"{other / worker:.0f} times")
    machine = ours.get("machine_memory")
    if machine:
        row("memory of the machine, both ends and kernel", size(machine["used"]["total"]))
        row("the same a device", kib(machine["used"]["a_device"]))
    shards = ours["shards"]
    row("connections a shard", spread(shards))
    row("longest collection pause", milliseconds(ours["gc_pause_max_ms"]))
    pings = ours.get("pings", {})
    if pings.get("sent"):
        row("pings answered", f"{pings['answered']:,} of {pings['sent']:,}, {pings['overdue']:,} overdue")
    row(f"still connected after {ours['hold_seconds']:g} s", number(ours["held"]))
    row("limit", ours["limit"], base["limit"] if base else "")
    table.notes.append(f"Kernel memory: {ours['kernel_memory']['note']}.")
    if machine:
        table.notes.append(f"Memory of the machine: {machine['note']}.")
    return table


def _set_up(body: dict[str, Any]) -> str:
    """What a device does until it is set up."""
    options, dialect = body["options"], dialect_of(body)
    if options["bare"]:
        return "upgrade"
    if isinstance(dialect, FanOut):
        return dialect.set_up
    channels = options.get("channels", 1)
    return "upgrade, hello, register" + (f" x {channels}" if channels > 1 else "")


def spread(shards: dict[str, int]) -> str:
    """Connections of each shard; of many only how many, the fewest and the most."""
    if len(shards) > 8:
        return f"{len(shards)} shards of {min(shards.values()):,} to {max(shards.values()):,}"
    return ", ".join(f"{shard}: {count:,}" for shard, count in shards.items()) or "-"


def _values(points: dict[str, float] | None) -> str:
    return "/".join(f"{value:.1f}" for value in (points or {}).values()) or "-"


def charts(body: dict[str, Any]) -> list[Chart]:
    """Memory of a connection against the baseline, time of a set-up, and of the pushes."""
    found: list[Chart] = []
    for part in parts_of(body):
        ours, base = part["connect"], part.get("baseline")
        found += [chart for chart in (_memory(part, ours, base), _times(part, ours, base)) if chart.series]
        if ours.get("push"):
            found += pushes.latency_charts([ours["push"]], f"{ours['held']:,} devices held{spoken(part)}")
    return found


def _memory(body: dict[str, Any], ours: dict[str, Any], base: dict[str, Any] | None) -> Chart:
    chart = Chart(f"Memory of one connection{spoken(body)}", "bar", "", "KiB")
    memory = ours["user_memory"]
    parts = {
        "workers": memory.get("workers", {}).get("a_connection"),
        "router": memory.get("router", {}).get("a_connection"),
        "kernel, one end": ours["kernel_memory"]["a_connection_one_end"],
    }
    groups = [name for name, value in parts.items() if value is not None]
    if not ours["setup"]["ready"] or not groups:
        return chart
    theirs = base["user_memory_a_connection"] if base else None
    if theirs is not None:
        groups.append("trio-websocket")
        parts["trio-websocket"] = theirs
        chart.ours = ("workers", "router")
    values = [round(float(parts[name]) / 1024, 3) for name in groups]
    chart.series.append(Series(f"{number(ours['setup']['ready'])} devices{spoken(body)}", groups, values))
    baseline = f", trio-websocket {base['setup']['ready']:,}" if base else ""
    chart.note = (
        f"Growth while {ours['setup']['ready']:,} devices came up{baseline}; user memory but for the kernel's bar."
    )
    return chart


def _times(body: dict[str, Any], ours: dict[str, Any], base: dict[str, Any] | None) -> Chart:
    chart = Chart(f"Time of one set-up{spoken(body)}", "bar", "percentile", "ms", log_y=True)
    runs = [(f"farm{spoken(body)}: {_set_up(body)}", ours["setup"])]
    if base:
        runs.append(("trio-websocket: upgrade", base["setup"]))
    for name, setup in runs:
        if setup["time_ms"]:
            chart.series.append(Series(name, list(setup["time_ms"]), list(setup["time_ms"].values())))
    rates = ", ".join(f"{setup['rate']:,.0f}" for _, setup in runs)
    chart.note = f"At {rates} set-ups/s{' (in that order)' if len(runs) > 1 else ''}, the load on the same machine."
    return chart
