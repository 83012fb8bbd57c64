"""The tables and charts of `farm bench instances`. Pure."""

from collections.abc import Callable
from typing import Any, Final

from bench.figures.interpreters import python_of
from bench.figures.tables import Chart, Series, Table, kib, milliseconds, number, percent, size

MIB: Final = 1 << 20

Stage = dict[str, Any]


def tables(body: dict[str, Any]) -> list[Table]:
    """One table that compares the profiles, one for each of them, and the steps of each ramp."""
    found = [_overview(body)]
    for row in body["profiles"]:
        found.append(_details(body, row))
        if row.get("ramp", {}).get("steps"):
            found.append(_steps(body, row))
    return found


def headline(body: dict[str, Any]) -> str:
    """What each instance held, and its ceiling with the limit, for the summary of a report."""
    told = []
    for row in body["profiles"]:
        limit = f" ({row['limit']['kind']})" if row["ceiling"] and row["limit"] else ""
        told.append(f"{row['name']}: {number(row['held'])} held, ceiling {number(row['ceiling'])}{limit}")
    return "; ".join(told) or "-"


def charts(body: dict[str, Any]) -> list[Chart]:
    """Connections held against PushGo's, and memory against devices while each ramp went on."""
    rows = body["profiles"]
    names = [row["name"] for row in rows]
    bars = Chart("Connections held", "bar", "instance", "connections", note=_marked(body, ""))
    series = (
        ("PushGo, 2013", [row["pushgo"] for row in rows]),
        ("held", [row["held"] for row in rows]),
        ("ceiling", [row["ceiling"] for row in rows]),
    )
    bars.series = [Series(name, names, values) for name, values in series if any(values)]
    found = [bars] if bars.series else []
    curves = Chart("Memory of the farm while devices come up", "line", "connections", "MiB")
    curves.note = _marked(body, "Kernel memory of the farm's sockets is included.")
    for row in rows:
        points = row.get("ramp", {}).get("points", [])
        if len(points) > 1:
            xs = [point["devices"] for point in points]
            curves.series.append(Series(row["name"], xs, [point["used"] / MIB for point in points]))
    return [*found, curves] if curves.series else found


def _overview(body: dict[str, Any]) -> Table:
    columns = ["memory", "CPU", "PushGo, 2013", "held", "ceiling", "times PushGo", "limit"]
    priced = any(row["price"] is not None for row in body["profiles"])
    table = Table("Connections held by instance", columns + (["$ a month and million"] if priced else []))
    for row in body["profiles"]:
        best = max(filter(None, (row["held"], row["ceiling"])), default=None)
        times = f"{best / row['pushgo']:.1f}" if best and row["pushgo"] else "-"
        cpus = "all" if row["cpus"] is None else f"{row['cpus']:.3g}"
        limit = row["limit"]["kind"] if row["limit"] else "-"
        cells = [size(row["memory"]), cpus, number(row["pushgo"]), number(row["held"]), number(row["ceiling"]), times]
        cells.append("failed" if "error" in row else limit)
        if priced:
            dollars = row["dollars_a_million"]
            cells.append("-" if dollars is None else f"{dollars:,.2f}")
        table.row(row["name"], *cells)
    accounting, calibration = body["accounting"], body["calibration"]
    table.notes = [f"Memory: {accounting['text']}.", f"CPU: {calibration['text']}."]
    table.notes += [f"{row['name']}: {row['cpus_text']}." for row in body["profiles"]]
    table.notes += [f"{row['name']}: {row['error']}" for row in body["profiles"] if "error" in row]
    table.notes += [f"Note: {note}." for note in body["notes"]]
    machine = body["machine"]
    sysctls = ", ".join(f"{name.replace('/', '.')} {value}" for name, value in machine["sysctl"].items())
    table.notes.append(f"Linux {machine['kernel']}, {python_of(body)}, commit {body.get('commit', '-')}; {sysctls}.")
    return table


def _details(body: dict[str, Any], row: dict[str, Any]) -> Table:
    first = "published figure" if row["pushgo"] else "first hold"
    stages = [(row[key], name) for key, name in (("reproduce", first), ("ramp", "ceiling")) if row.get(key)]
    title = f"{row['name']}: {size(row['memory'])}, {row['cpus_text']}"
    table = Table(title, [name for _, name in stages])

    def add(name: str, read: Callable[[Stage], str]) -> None:
        cells = [_try(read, stage) for stage, _ in stages]
        if any(cell != "-" for cell in cells):
            table.row(name, *cells)

    add("devices wanted", lambda stage: number(stage.get("target")))
    add("devices held", lambda stage: number(stage["held"]))
    add("workers / load processes", lambda stage: f"{stage['workers']} / {stage['load_processes']}")
    add("held for, pinging every", lambda stage: f"{stage['hold_seconds']:.0f} s, {stage['ping_seconds']:g} s")
    add("pings answered", lambda stage: f"{number(stage['pings']['answered'])} of {number(stage['pings']['sent'])}")
    add("pings overdue", lambda stage: number(stage["pings"].get("overdue", 0)))
    add("connections dropped", lambda stage: number(sum(stage["drops"].values())))
    add("set-ups failed", lambda stage: number(sum(stage["setup"]["failures"].values())))
    add("set-ups/s", lambda stage: number(stage["setup"]["rate"]))
    add("set-up, p50/p99/p99.9/max", lambda stage: _points(stage["setup"]["time_ms"]))
    add("user memory a connection", lambda stage: kib(stage["connection"]["user"]))
    add("of it workers' / router's", lambda stage: f"{kib(_part(stage, 'workers'))} / {kib(_part(stage, 'router'))}")
    add("kernel memory a connection", lambda stage: kib(stage["connection"]["kernel"]))
    add("all memory a connection", lambda stage: kib(stage["connection"]["all"]))
    add("memory without devices", lambda stage: size(stage["idle"]["used"]))
    add("memory used", lambda stage: f"{size(stage['memory']['used'])}, {percent(stage['share_of_memory'])}")
    add("peak", lambda stage: size(stage["peak"]))
    add("OOM kills", lambda stage: number(stage["oom_kills"]))
    add("cores used without devices", lambda stage: _cores(stage["cpu_empty"]["cores"]))
    add("cores used, holding", lambda stage: _cores(stage["cpu_idle"]["cores"]))
    add("of the time throttled, holding", lambda stage: percent(stage["cpu_idle"]["throttled"]))
    for at in range(max((len(stage.get("push", [])) for stage, _ in stages), default=0)):
        _pushes(add, at)
    add("shards, least/most", lambda stage: _spread(stage["shards"]))
    add("longest collection pause", lambda stage: milliseconds(stage["gc_pause_max_ms"]))
    add("limit", lambda stage: stage["limit"]["kind"])
    table.notes = [f"{name}: {stage['limit']['text']}." for stage, name in stages if stage.get("limit")]
    table.notes += [note for stage, _ in stages for note in stage.get("notes", [])]
    if body["accounting"]["kind"] != "cgroup":
        table.notes.append(_marked(body, ""))
    return table


def _pushes(add: Callable[[str, Callable[[Stage], str]], None], at: int) -> None:
    """The rows of one push run, which each stage may have."""

    def run(stage: Stage) -> dict[str, Any]:
        found: dict[str, Any] = stage["push"][at]
        return found

    name = ("push", "push at half of that", "push again")[min(at, 2)]
    add(f"{name}: notifications/s", lambda stage: number(run(stage)["notifications_a_second"]))
    add("   PUT to frame, p50/p99/p99.9/max", lambda stage: _points(run(stage)["to_frame_ms"]))
    add("   sent = delivered + stored + refused", lambda stage: _sums(run(stage)))
    add("   lost", lambda stage: number(run(stage)["lost"]))
    add("   cores used", lambda stage: _cores(run(stage)["farm_cores"]))


def _steps(body: dict[str, Any], row: dict[str, Any]) -> Table:
    columns = ["came up", "set-ups/s", "p99", "memory used", "throttled", "failed", "dropped"]
    table = Table(f"{row['name']}: the ramp", columns)
    for step in row["ramp"]["steps"]:
        table.row(
            number(step["devices"]),
            number(step["ready"]),
            number(step["rate"]),
            milliseconds(step["time_ms"].get("p99")),
            size(step["used"]),
            percent(step["throttled"]),
            number(sum(step["failures"].values())),
            number(sum(step["drops"].values())),
        )
    if body["accounting"]["kind"] != "cgroup":
        table.notes.append(_marked(body, ""))
    return table


def _try(read: Callable[[Stage], str], stage: Stage) -> str:
    """A cell; a dash where an interrupted run did not come so far."""
    try:
        return read(stage)
    except (KeyError, IndexError, TypeError):
        return "-"


def _marked(body: dict[str, Any], note: str) -> str:
    mark = "" if body["accounting"]["kind"] == "cgroup" else "Memory accounted, not limited: no control group."
    return " ".join(filter(None, (note, mark)))


def _points(times: dict[str, float]) -> str:
    return "/".join(f"{times[point]:,.1f}" for point in ("p50", "p99", "p99.9", "max")) + " ms"


def _part(stage: Stage, name: str) -> float | None:
    value: float | None = stage["connection"].get(name)
    return value


def _cores(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sums(run: dict[str, Any]) -> str:
    sent = sum(run["statuses"].values())
    refused = sum(count for status, count in run["statuses"].items() if str(status) not in ("200", "202"))
    stored = run["superseded"] + run["undelivered"]
    return f"{number(sent)} = {number(run['delivered'])} + {number(stored)} + {number(refused)}"


def _spread(shards: dict[str, int]) -> str:
    return f"{number(min(shards.values()))} / {number(max(shards.values()))} of {len(shards)}"
