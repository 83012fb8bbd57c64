"""Tables that several commands show. Pure."""

from typing import Any

from bench.tables import Table, number


def cpu(runs: list[tuple[str, dict[str, Any]]]) -> Table:
    """Who used the cores: for each run its `usage` fields (`bench.usage.Usage.fields`)."""
    table = Table("CPU", ["CPU ms a 1000", "busiest process", "waiting for a core"])
    for name, usage in runs:
        for group, use in usage["groups"].items():
            cost = use["cpu_seconds_a_1000"]
            waiting = max(0.0, use["busiest_wanting"] - use["busiest_running"])
            table.row(
                f"{name}: {group} ({use['processes']})",
                "-" if cost is None else f"{cost * 1000:.1f}",
                f"{use['busiest_running']:.0%}",
                f"{waiting:.0%}",
            )
        table.row(f"{name}: all cores", "", f"{usage['machine_busy']:.0%}")
        table.row(f"{name}: cores busy with others", "", f"{usage['cores_with_others']:.2f}")
    return table


def added(*counts: dict[str, int]) -> dict[str, int]:
    """Counters by kind, summed."""
    total: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            total[kind] = total.get(kind, 0) + count
    return total


def kinds(title: str, counts: dict[str, int]) -> list[Table]:
    """A table of failures by kind, most first; no table if there are none."""
    if not counts:
        return []
    table = Table(title, ["count"])
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.row(kind, number(count))
    return [table]


def ready(setup: dict[str, Any]) -> str:
    """`15,000`, or `14,990 of 15,000`."""
    return number(setup["ready"]) if setup["ready"] == setup["wanted"] else f"{setup['ready']:,} of {setup['wanted']:,}"
