"""The tables and charts of `farm bench compare`. Pure."""

import statistics
from typing import Any, Final

from bench.figures.tables import Chart, Series, Table, kib, milliseconds, number, size

RATIOS: Final = (
    ("memory", "memory_a_connection"),
    ("set-ups/s", "setup_rate"),
    ("CPU a set-up", "setup_cpu_a_1000"),
    ("pushes/s", "push_rate"),
    ("push p50", "push_p50_ms"),
    ("push p99", "push_p99_ms"),
    ("CPU a push", "push_cpu_a_1000"),
    ("deliveries/s", "fanout_rate"),
    ("CPU a delivery", "fanout_cpu_a_million"),
)
REPLAYED: Final = ("stored_a_second", "seconds", "deliveries_a_second", "cpu_a_million")
BARS: Final = (
    ("User memory of one idle connection", "KiB", "memory_a_connection", 1 / 1024),
    ("Set-ups a second", "set-ups/s", "setup_rate", 1.0),
    ("Server CPU of 1000 set-ups", "ms", "setup_cpu_a_1000", 1000.0),
    ("Pushes a second, flat out", "pushes/s", "push_rate", 1.0),
    ("Server CPU of 1000 pushes", "ms", "push_cpu_a_1000", 1000.0),
    ("Deliveries a second of one channel's events, flat out", "deliveries/s", "fanout_rate", 1.0),
    ("Server CPU of a million deliveries", "s", "fanout_cpu_a_million", 1.0),
)


def tables(body: dict[str, Any]) -> list[Table]:
    """The ratios, what they are made of, what each server is, and what was wrong."""
    servers = body["servers"]
    found = [_ratios(servers), _setups(body, servers), _pushes(body, servers), *_fan_outs(servers)]
    found += [*_replays(body, servers), _servers(servers)]
    return found + _faults(servers)


def _ratios(servers: list[dict[str, Any]]) -> Table:
    table = Table(f"As a multiple of {servers[0]['title']}", [name for name, _ in RATIOS])
    for server in servers:
        if server["missing"]:
            table.row(server["title"], "not installed:", server["hint"])
        else:
            table.row(server["title"], *(times(server["ratio"].get(key)) for _, key in RATIOS))
    table.notes.append(
        "More is better for set-ups/s and pushes/s, less for the others. Not the same work: a farm stores every push, "
        "and its devices say hello, register and acknowledge (see below)."
    )
    others = [use["cores_with_others"] for server in servers for use in _usages(server)]
    if others:
        table.notes.append(
            f"Neither the server nor the load: {min(others):.1f} to {max(others):.1f} cores meanwhile, the kernel's "
            "own work included. Where others were busy, rates and times say little; CPU and memory still do."
        )
    return table


def _usages(server: dict[str, Any]) -> list[dict[str, Any]]:
    """Which processes used the cores, in each part of each round."""
    found = []
    for round_ in server["rounds"]:
        found.append(round_["setup_usage"])
        if round_["push"]:
            found.append(round_["push"]["usage"])
        if run := _fan_out(round_):
            found.append(run["usage"])
    return found


def _fan_out(round_: dict[str, Any]) -> dict[str, Any]:
    """The fan-out of a round; nothing where there was none."""
    return (round_.get("fanout") or {}).get("run") or {}


def _setups(body: dict[str, Any], servers: list[dict[str, Any]]) -> Table:
    columns = ["devices", "set-ups/s", "p50", "p99", "CPU s/1000", "cores", "memory/conn.", "base memory"]
    table = Table("Setting up devices and holding them", columns)
    for server in servers:
        if not server["rounds"]:
            table.row(server["title"], _absent(server))
            continue
        figures = server["median"]
        table.row(
            server["title"],
            f"{number(figures['ready'])} of {server['devices']:,}",
            number(figures["setup_rate"]),
            milliseconds(figures["setup_p50_ms"]),
            milliseconds(figures["setup_p99_ms"]),
            _decimal(figures["setup_cpu_a_1000"], 3),
            _decimal(figures["setup_cores"], 2),
            kib(figures["memory_a_connection"]),
            size(figures["memory_base"]),
        )
    rounds = body["options"].get("repeat", 1)
    table.notes.append(
        "Memory: growth of the private memory of all processes of the server, by the connection. The kernel's own "
        "memory for a socket (about 4 KiB) is the same for all and not in it."
    )
    table.notes.append("Cores: how many the server kept busy meanwhile; the load ran on the same machine.")
    if rounds > 1:
        table.notes.append(f"Medians of {rounds} rounds; each round goes over all servers, and starts with another.")
    return table


def _pushes(body: dict[str, Any], servers: list[dict[str, Any]]) -> Table:
    columns = ["pushes/s", "p50", "p99", "CPU s/1000", "cores", "lost", "durable before the answer"]
    table = Table("Pushing to one random device at a time", columns)
    for server in servers:
        figures = server["median"]
        if not server["rounds"] or figures["push_rate"] is None:
            table.row(server["title"], _absent(server))
            continue
        table.row(
            server["title"],
            number(figures["push_rate"]),
            milliseconds(figures["push_p50_ms"]),
            milliseconds(figures["push_p99_ms"]),
            _decimal(figures["push_cpu_a_1000"], 3),
            _decimal(figures["push_cores"], 2),
            number(sum(round_["push"]["lost"] for round_ in server["rounds"] if round_["push"])),
            server["durability"],
        )
    connections = body["options"].get("connections")
    table.notes.append(
        f"Flat out: {connections} connections of app servers, each with one push outstanding. The times are from the "
        "push to the frame at the device."
    )
    return table


def _fan_outs(servers: list[dict[str, Any]]) -> list[Table]:
    """Events to many subscribers; no table where that was not measured."""
    if not any(_fan_out(round_) for server in servers for round_ in server["rounds"]):
        return []
    columns = ["subscribers", "deliveries/s", "to the last, p50", "p99", "server CPU s/million", "lost"]
    table = Table("Sending events to all subscribers of one channel", columns)
    for server in servers:
        runs = [run for round_ in server["rounds"] if (run := _fan_out(round_))]
        if not runs:
            absent = "" if server["rounds"] and server.get("fans_out") else _absent(server)
            table.row(server["title"], absent if server.get("fans_out") else "one push, one device")
            continue
        figures = server["median"]
        table.row(
            server["title"],
            number(runs[-1]["held"]),
            number(figures["fanout_rate"]),
            milliseconds(figures["fanout_p50_ms"]),
            milliseconds(figures["fanout_p99_ms"]),
            _decimal(figures["fanout_cpu_a_million"], 2),
            number(sum(run["lost"] for run in runs)),
        )
    table.notes.append(
        "Flat out: two events under way at once. The farm: by the HTTP API of a dialect with channels; the others: as "
        "a push."
    )
    return [table]


def _replays(body: dict[str, Any], servers: list[dict[str, Any]]) -> list[Table]:
    """Events that are stored, and replayed to subscribers that come back; no table where that was not measured."""
    columns = ["subscribers", "stored/s", "all have everything after", "deliveries/s", "server CPU s/million"]
    messages = body["options"].get("messages", 0)
    table = Table(
        f"Storing events, and replaying {messages} to each subscriber that comes back", [*columns, "lost", "twice"]
    )
    for server in servers:
        for title in dict.fromkeys(title for round_ in server["rounds"] for title in round_.get("replays", {})):
            rounds = [round_["replays"][title] for round_ in server["rounds"] if title in round_.get("replays", {})]
            rounds = [one for one in rounds if "seconds" in one]
            if not rounds:
                table.row(f"{server['title']}, {title}", "not measured")
                continue
            middle = {key: statistics.median(one[key] or 0.0 for one in rounds) for key in REPLAYED}
            table.row(
                f"{server['title']}, {title}",
                number(rounds[-1]["held"]),
                number(middle["stored_a_second"]),
                f"{middle['seconds']:.2f} s",
                number(middle["deliveries_a_second"]),
                _decimal(middle["cpu_a_million"], 2),
                number(sum(one["lost"] + one["live_lost"] for one in rounds)),
                number(sum(one["duplicates"] + one["stale"] for one in rounds)),
            )
    table.notes.append(
        "Subscribers get an event, are cut off, and come back all at once from behind it. A farm's events are durable "
        "when they are answered, as its pushes are."
    )
    return [table] if table.rows else []


def _servers(servers: list[dict[str, Any]]) -> Table:
    table = Table("What was measured", ["version", "runs as", "set up means", "a push"])
    for server in servers:
        if server["missing"]:
            table.row(server["title"], "not installed", f"{server['hint']} ({server['missing']})")
        else:
            table.row(server["title"], server["version"], server["processes"], server["set_up"], server["push"])
        if server["note"]:
            table.notes.append(f"{server['title']}: {server['note']}.")
    return table


def _faults(servers: list[dict[str, Any]]) -> list[Table]:
    """What failed, and what held each server back."""
    limits = Table("What held it back, in its last round", ["set-ups", "pushes"])
    failed = Table("Failures", ["devices that failed", "devices dropped", "pushes", "error"])
    for server in servers:
        rounds = server["rounds"]
        if rounds:
            push = rounds[-1]["push"]
            limits.row(server["title"], rounds[-1]["setup_limit"], push["limit"] if push else "")
        failures = _kinds([round_["setup"]["failures"] for round_ in rounds])
        drops = _kinds([run["drops"] for round_ in rounds for run in (round_["push"], _fan_out(round_)) if run])
        pushes = _kinds([_wrong(run) for round_ in rounds for run in (round_["push"], _fan_out(round_)) if run])
        if failures or drops or pushes or server["error"]:
            failed.row(server["title"], failures, drops, pushes, server["error"])
    return [table for table in (limits, failed) if table.rows]


def _wrong(push: dict[str, Any]) -> dict[str, int]:
    names = ("lost", "duplicates", "unexpected", "refused", "unanswered", "strays")
    return {name: push[name] for name in names if push.get(name)}


def _kinds(counters: list[dict[str, int]]) -> str:
    total: dict[str, int] = {}
    for counter in counters:
        for kind, count in counter.items():
            total[kind] = total.get(kind, 0) + count
    return ", ".join(f"{count:,} x {kind}" for kind, count in total.items())


def _absent(server: dict[str, Any]) -> str:
    if server["missing"]:
        return "not installed"
    return "failed" if server["error"] else "not measured"


def times(value: float | None) -> str:
    """A ratio with two or three digits."""
    if value is None:
        return "-"
    return f"{value:,.0f} x" if abs(value) >= 100 else f"{value:.1f} x" if abs(value) >= 10 else f"{value:.2f} x"


def _decimal(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def charts(body: dict[str, Any]) -> list[Chart]:
    """A bar for each server that was measured, one picture for each figure."""
    servers = [server for server in body["servers"] if server["rounds"]]
    found = []
    for title, unit, key, factor in BARS:
        values = [None if (value := server["median"].get(key)) is None else value * factor for server in servers]
        if any(value is not None for value in values):
            chart = Chart(title, "bar", "", unit, [Series(unit, [server["title"] for server in servers], values)])
            chart.note = "Not the same work: what a set-up and a push are for each server stands in the tables."
            chart.ours = tuple(server["title"] for server in servers if server["name"].startswith(body["reference"]))
            found.append(chart)
    return found
