"""The results of a run as tables on the terminal and as JSON."""

import datetime
import json
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.errors import BenchError
from bench.procfs import machine


def document(command: str, options: dict[str, Any], result: dict[str, Any], interrupted: bool) -> dict[str, Any]:
    """What `--json` writes: the run, and everything that is needed to read it later."""
    return {
        "command": command,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "interrupted": interrupted,
        "options": options,
        "machine": machine(),
        **result,
    }


def write_json(path: str, body: dict[str, Any]) -> None:
    """Write a document; raises BenchError if the file can't be written."""
    try:
        Path(path).write_text(json.dumps(body, indent=2) + "\n")
    except OSError as error:
        raise BenchError(f"--json {path}: {error.strerror}") from None


def show(console: Console, body: dict[str, Any]) -> None:
    """Print the tables of a document."""
    parts = connect_tables(body) if body["command"] == "connect" else push_tables(body)
    facts = body["machine"]
    foot = f"{facts['cores']} cores, {facts['cpu']}, Linux {facts['kernel']}, Python {facts['python']}"
    console.print(Group(*parts, Text(foot, style="dim")))
    if body["interrupted"]:
        console.print("interrupted: these are the figures until then")


def connect_tables(body: dict[str, Any]) -> list[RenderableType]:
    """The tables of `connect`."""
    ours, base = body["connect"], body.get("baseline")
    what = "upgrade" if body["options"]["bare"] else "upgrade, hello, register"
    table = _table("Connecting devices", "farm", *(("trio-websocket",) if base else ()))

    def row(name: str, mine: str, other: str = "") -> None:
        table.add_row(name, mine, *((other,) if base else ()))

    setup, theirs = ours["setup"], base["setup"] if base else {}
    row("what is set up", what, "upgrade")
    row("devices ready", _ready(setup), _ready(theirs) if base else "")
    row("set-ups/s, overall", _number(setup["rate"]), _number(theirs.get("rate")))
    row("set-ups/s, middle half", _number(setup["rate_steady"]), _number(theirs.get("rate_steady")))
    row(
        "time of one, ms " + _names(setup["time_ms"]),
        _values(setup["time_ms"]),
        _values(theirs.get("time_ms")),
    )
    memory = ours["user_memory"]
    worker = memory.get("workers", {}).get("a_connection")
    other = base["user_memory_a_connection"] if base else None
    row("user memory a connection, workers", _kib(worker), _kib(other))
    row("user memory a connection, router", _kib(memory.get("router", {}).get("a_connection")))
    row("kernel memory a connection, one end", _kib(ours["kernel_memory"]["a_connection_one_end"]))
    if worker and other and worker > 0:
        row("memory of the baseline over ours", f"{other / worker:.0f} times")
    shards = ours["shards"]
    row("connections a shard", " ".join(f"{shard}: {count}" for shard, count in shards.items()) or "-")
    pause = ours["gc_pause_max_ms"]
    row("longest collection pause", "-" if pause is None else f"{pause:.2f} ms")
    row(f"still connected after {ours['hold_seconds']:g} s", _number(ours["held"]))
    row("limit", ours["limit"], base["limit"] if base else "")
    parts: list[RenderableType] = [table]
    parts += _kinds("Devices that failed, or were dropped", setup["failures"] | ours["drops"])
    if base:
        parts += _kinds("Baseline connections that failed", theirs["failures"])
    parts.append(_cpu([("set-ups", ours["usage"])]))
    parts.append(Text(f"Kernel memory: {ours['kernel_memory']['note']}.", style="dim"))
    return parts


def push_tables(body: dict[str, Any]) -> list[RenderableType]:
    """The tables of `push`."""
    runs = body["runs"]
    names = [run["mode"] + (f", {run['rate']:,.0f} /s" if run["rate"] else "") for run in runs]
    table = _table(f"Pushing to {_ready(body['setup'])} devices", *names)

    def row(name: str, *keys: str) -> None:
        table.add_row(name, *(_number(_dig(run, keys)) for run in runs))

    row("notifications/s", "notifications_a_second")
    row("pushes answered/s", "pushes_a_second")
    row("pushes", "pushes")
    for status in sorted({status for run in runs for status in run["statuses"]}):
        row(f"answered {status}" if status else "not answered", "statuses", status)
    row("due but never sent", "unsent")
    for key, name in (("to_frame_ms", "PUT to frame"), ("to_response_ms", "PUT to answer")):
        for point in ("p50", "p90", "p99", "p99.9", "max"):
            table.add_row(f"{name}, {point}", *(_ms(run[key].get(point)) for run in runs))
    row("delivered", "delivered")
    row("lost (accepted, never arrived)", "lost")
    row("duplicates", "duplicates")
    row("out of order", "reordered")
    row("never sent, but arrived", "unexpected")
    row("for another device's channel", "strays")
    row("stored, then replaced by a newer one", "superseded")
    row("accepted for devices that were cut off", "undelivered")
    table.add_row("limit", *(run["limit"] for run in runs))
    kinds = {kind: count for run in runs for kind, count in (run["errors"] | run["drops"]).items()}
    return [
        table,
        *_kinds("Devices that failed", body["setup"]["failures"]),
        *_kinds("Connections that broke", kinds),
        _cpu([(name, run["usage"]) for name, run in zip(names, runs, strict=True)]),
    ]


def _cpu(runs: list[tuple[str, dict[str, Any]]]) -> Table:
    table = _table("CPU", "CPU ms a 1000", "busiest process", "waiting for a core")
    for name, usage in runs:
        for group, use in usage["groups"].items():
            cost = use["cpu_seconds_a_1000"]
            waiting = max(0.0, use["busiest_wanting"] - use["busiest_running"])
            table.add_row(
                f"{name}: {group} ({use['processes']})",
                "-" if cost is None else f"{cost * 1000:.1f}",
                f"{use['busiest_running']:.0%}",
                f"{waiting:.0%}",
            )
        table.add_row(f"{name}: all cores", "", f"{usage['machine_busy']:.0%}", "")
        table.add_row(f"{name}: cores busy with others", "", f"{usage['cores_with_others']:.2f}", "")
    return table


def _kinds(title: str, kinds: dict[str, int]) -> list[RenderableType]:
    if not kinds:
        return []
    table = _table(title, "count")
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        table.add_row(kind, _number(count))
    return [table]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _ready(setup: dict[str, Any]) -> str:
    ready, wanted = setup["ready"], setup["wanted"]
    return f"{ready:,}" if ready == wanted else f"{ready:,} of {wanted:,}"


def _dig(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value.get(key, 0)
    return value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def _kib(value: float | None) -> str:
    return "-" if value is None else f"{value / 1024:.2f} KiB"


def _names(points: dict[str, float]) -> str:
    return "/".join(points)


def _values(points: dict[str, float] | None) -> str:
    return "/".join(f"{value:.1f}" for value in (points or {}).values()) or "-"
