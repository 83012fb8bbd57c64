"""Writes docs/reference/: pages made from the code, so that they cannot say anything else than it does.

`make docs` runs it; a test fails where a page in the tree is not what this makes.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from bench.figures import plan
from bench.figures.profiles import MOST_A_WORKER, PROFILES, PUBLISHED, Profile
from farm.config_text import toml_value
from farm.dialects import specs
from farm.option_value import expected, options_of
from farm.sections import all_sections
from farm.supervisor.admin import FARM_METRICS
from farm.supervisor.api import routes as admin_routes
from farm.supervisor.api.frame import ApiContext
from farm.supervisor.cluster_status import CLUSTER_METRICS
from router.common import close_codes, refusals
from router.common.answers import Answer, CloseCode, Table
from router.common.exposition import LIMITED, PROCESSES
from router.common.histogram import BOUNDS
from router.common.log_events import LOG_EVENTS
from router.common.metrics import Metric
from router.dialects import all_metrics

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
_NOTE: Final = "<!-- Made by docs/generate.py from the code: run `make docs` after a change. -->\n"
_LOGGING: Final = {"debug": "debug", "event": "info", "warning": "warning", "error": "error", "limited": "warning"}
_GUARDS: Final = ("guarded", "_failed", "error")  # the last is what `logs` itself calls
_EVENT_NAME: Final = re.compile(r"[a-z_]+\.[a-z_]+|limits")
_PASSED_ON: Final = ("at", "per", "rate", "exc")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    return _row(*names) + _row(*["---"] * len(names)) + "".join(_row(*row) for row in rows)


def settings_page() -> str:
    """Every option: its name, default, what it takes, and what it is for."""
    parts = [
        "# Settings\n\n",
        _NOTE,
        "\nAn option can be given in `farm.toml` (`[section]`, `key = value`), as a variable of the environment "
        "(`FARM_SECTION_KEY`) and as a flag (`--set section.key=value`). A flag wins over a variable, a variable over "
        "the file. `farm default-config` prints a `farm.toml` with all of them, `farm check-config` what is in force.\n"
        "\nOptions with an asterisk need a restart; `farm reload` applies the others.\n",
    ]
    for section in all_sections():
        parts.append(f"\n## {section.SECTION}\n\n{section.HELP}\n\n")
        rows = (
            (
                f"`{option.key}`" + (" *" if option.name in section.AT_START else ""),
                f"`{toml_value(option.default)}`",
                expected(option),
                option.spec.help,
            )
            for option in options_of(section)
        )
        parts.append(_table(("option", "default", "takes", "what it is for"), rows))
    return "".join(parts)


def _metric_name(metric: Metric, prefix: str) -> str:
    if metric.reason:
        return f'{LIMITED}_total{{reason="{metric.reason}"}}'
    return f"{prefix}{metric.name}" + ("_total" if metric.kind == "counter" else "")


def _metric_rows(prefix: str, metrics: Iterable[Metric]) -> Iterator[tuple[str, str, str]]:
    for metric in metrics:
        if not metric.reason:
            yield f"`{_metric_name(metric, prefix)}`", metric.kind, metric.help


def metrics_page() -> str:
    """Every number of `GET /metrics` on the admin port."""
    head = ("metric", "kind", "what it counts")
    of_router, of_worker = all_metrics(specs())
    return (
        "# Metrics\n\n"
        + _NOTE
        + "\n`GET /metrics` on the admin port, in Prometheus' text format. The numbers of a router carry its number "
        "(`router`), those of a worker its `shard`, those of each process its kind as well (`process`). A histogram "
        f"has buckets up to {', '.join(f'{bound:g}' for bound in BOUNDS)} s and above.\n\n## The farm\n\n"
        + _table(head, _metric_rows("farm_", (*FARM_METRICS, *PROCESSES)))
        + "\n## Routers\n\n"
        + _table(head, _metric_rows("farm_router_", of_router))
        + "\n## Workers\n\n"
        + _table(head, _metric_rows("farm_worker_", of_worker))
        + "\n## A cluster\n\nOnly of a farm over several hosts: each of them shows the numbers of all, "
        "with the label `host`.\n\n"
        + _table(head, _metric_rows("farm_", CLUSTER_METRICS))
        + f"\n## Limits\n\n`{LIMITED}_total` is a counter with a label `reason`: the option in `[limits]` that was "
        "reached. Each row has the `router` or the `shard` that counts it.\n\n"
        + _table(
            ("reason", "what it counts"),
            ((f"`{one.reason}`", one.help) for one in (*of_router, *of_worker) if one.reason),
        )
    )


@dataclass
class Logged:
    """How one event is logged: at which levels, with which fields."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def log_events() -> Mapping[str, Logged]:
    """Every event that the code logs, by name."""
    found: dict[str, Logged] = defaultdict(Logged)
    for folder in ("farm", "router"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    _look_at(node, found)
    return found


def _look_at(call: ast.Call, found: dict[str, Logged]) -> None:
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    of_logs = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "logs"
    if not call.args or not ((of_logs and name in _LOGGING) or name in _GUARDS):
        return
    first: Any = call.args[0]
    if isinstance(first, ast.JoinedStr):  # f"{name}.failed" of a process
        names = [f"{process}.failed" for process in ("router", "worker")]
    elif isinstance(first, ast.Constant) and isinstance(first.value, str) and _EVENT_NAME.fullmatch(first.value):
        names = [first.value]
    else:
        return
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    at = given.get("at")
    level = at.value if isinstance(at, ast.Constant) else "error" if name in _GUARDS else _LOGGING[name]
    for event in names:
        found[event].levels.add(str(level))
        found[event].fields.update(key for key in given if key and key not in _PASSED_ON)


def meanings() -> Mapping[str, str]:
    """What each event means: the house's own and those of the dialects."""
    return LOG_EVENTS | {name: text for spec in specs() for name, text in spec.log_events.items()}


def log_events_page() -> str:
    """Every event that is logged."""
    logged = log_events()
    rows = (
        (
            f"`{name}`",
            ", ".join(sorted(logged[name].levels)),
            ", ".join(f"`{key}`" for key in sorted(logged[name].fields)),
            text,
        )
        for name, text in sorted(meanings().items())
        if name in logged
    )
    return (
        "# Log events\n\n"
        + _NOTE
        + "\nOne line an event on stderr, as text or as JSON (`log.format`). Every line has the time, the level, the "
        "process and the event; the fields below are its own. An event that could come in a flood is logged once in "
        "a while, with `repeats`: how many were left out. `hint` says what to do.\n\n"
        + _table(("event", "level", "fields", "meaning"), rows)
    )


HOUSE: Final = (close_codes.TABLE, refusals.DEVICE_PORT, refusals.ROUTER_PORT, refusals.LINK)


def _answer_rows(table: Table) -> Iterator[tuple[str, ...]]:
    known = {metric.name: metric for metrics in all_metrics(specs()) for metric in metrics}
    for row in table.rows:
        code = f"{row:d}" if isinstance(row, CloseCode) else str(row.status or "")
        if isinstance(row, Answer) and row.number is not None:
            code = f"{code}, {row.number}" if code else str(row.number)
        yield (
            code,
            row.text,
            row.client,
            f"`{_metric_name(known[row.metric], f'farm_{table.side}_')}`" if row.metric else "",
        )


def errors_page() -> str:
    """Every close code and every answer that refuses, of the house and of the dialects."""
    head = ("code", "text", "what a client does", "counted in")
    parts = [
        "# Errors and close codes\n\n",
        _NOTE,
        "\nA text may be more particular where it is sent. Where a protocol has a number beside the status, both "
        "are given. Those of the admin port: [the admin port](../admin-api.md#errors).\n\n## On every path\n",
    ]
    for table in HOUSE:
        parts.append(f"\n### {table.title}\n\n" + _table(head, _answer_rows(table)))
    for spec in specs():
        if spec.answers:
            parts.append(f"\n## {spec.name}\n")
        for table in spec.answers:
            parts.append(f"\n### {spec.name}: {table.title}\n\n" + _table(head, _answer_rows(table)))
    return "".join(parts)


class _Anything:
    def __getattr__(self, name: str) -> _Anything:
        return self


def admin_api_page() -> str:
    """Every route of the admin port's API."""
    rows = []
    for route in admin_routes(cast(ApiContext, _Anything())):  # what a handler would ask is not needed
        query = [] if route.query is None else [f"`{one.name}`" for one in msgspec.structs.fields(route.query)]
        body = [] if route.body is None else [f"`{one.name}`" for one in msgspec.structs.fields(route.body)]
        rows.append((route.method, f"`{route.path}`", route.role, ", ".join(query), ", ".join(body), route.summary))
    return (
        "# Admin API\n\n"
        + _NOTE
        + "\nAll of it is under `/api/v1` on the [admin port](../admin-api.md). `GET /api/v1/openapi.json` describes "
        "the arguments and answers of each route, with their types.\n\n"
        + _table(("method", "path", "role", "query", "body", "what it does"), rows)
    )


RESULTS: Final = ROOT / "bench" / "results"
SIZED_FROM: Final = ("connect-2m.json", "push-routers-1.json", "push-routers-2.json")
MACHINES: Final = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_000_000)
"""Devices of one farm on a machine of 2 virtual CPUs."""


def _result(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((RESULTS / name).read_text(encoding="utf-8")))


def _tls_bytes() -> float:
    """What TLS in the farm takes of a worker's memory for each device."""
    plain, tls = (
        next(
            part["connect"]["user_memory"]["workers"]["a_connection"]
            for part in _result("tls.json")["parts"]
            if part.get("variant", "") == variant
        )
        for variant in ("", "tls")
    )
    return float(tls - plain)


def _planned(devices: int, profile: Profile, push_rate: float = 0) -> dict[str, float]:
    """`farm bench plan` for one instance: its figures by key."""
    wish = plan.Wish(devices, push_rate, profile, spare=0)
    figures = plan.run(wish, [(name, _result(name)) for name in SIZED_FROM])["figures"]
    return {figure["key"]: figure["value"] for figure in figures}


def sizing_page() -> str:
    """How much goes into a machine: `farm bench plan`, from the results in the tree."""
    tls = _tls_bytes()
    by_devices: list[tuple[str, ...]] = []
    by_instance: list[tuple[str, ...]] = []
    rate = 0.0
    for devices in MACHINES:
        found = _planned(devices, Profile("any", 1 << 40, 2))
        sizes = (found["memory_worst"], found["memory_worst"] + devices * tls)
        rate = devices / found["back"]
        by_devices.append(
            (
                f"{devices:,}",
                f"{found['workers']:.0f}",
                f"{found['descriptors']:,.0f}",
                *(f"{bytes_ / plan.HEADROOM / (1 << 30):.1f} GiB" for bytes_ in sizes),
                f"{found['back']:,.0f} s",
            )
        )
    for name, profile in PROFILES.items():
        if name in PUBLISHED:
            continue
        found = _planned(1, profile)
        share = found["connection"] / (found["connection"] + tls)
        most = (found["most"], found["most"] * share)
        by_instance.append(
            (
                f"`{name}`",
                f"{profile.vcpus:g}",
                f"{profile.memory / (1 << 30):g} GiB",
                *(f"{round(devices, -3):,.0f}" for devices in most),
            )
        )
    found = _planned(1, PROFILES["r7g.large"], 1)
    by_cores = [(f"{cores}", f"{round(found[f'most_pushes_{cores}'], -2):,.0f}") for cores in plan.CORES]
    return (
        "# Sizing tables\n\n"
        + _NOTE
        + "\nWhat `farm bench plan` says from the results in `bench/results/` ("
        + ", ".join(f"`{name}`" for name in (*SIZED_FROM, "tls.json"))
        + f"): SimplePush devices with a channel each, and {plan.HEADROOM:.0%} of each measured ceiling. "
        "[Sizing](../sizing.md) says how to use them, and what is not in them.\n\n"
        f"## A machine for so many devices\n\nOn 2 virtual CPUs, with at most {MOST_A_WORKER:,} devices a worker. "
        f"Memory is the machine's: {plan.SYSTEM_BYTES >> 20} MiB for its own system and the kernel's part of each "
        "connection are in it. The last column is how long it takes until all of them are back, at "
        f"{rate:,.0f} a second without "
        "TLS; with TLS in the farm about four times as long.\n\n"
        + _table(
            ("devices", "workers", "descriptors a worker", "memory", "memory, TLS in the farm", "all are back after"),
            by_devices,
        )
        + "\n## What an instance holds\n\n"
        + _table(("instance", "virtual CPUs", "memory", "devices", "devices, TLS in the farm"), by_instance)
        + "\n## What a farm delivers\n\nPushes a second to single devices, each answered after it is durable, by 256 "
        "connections of app servers that send as fast as they are answered.\n\n"
        + _table(("cores", "pushes a second"), by_cores)
    )


def files_named(text: str) -> list[str]:
    """Files and folders of the project that a page names, as `farm/worker/wheel.py` or `router/store/`."""
    return re.findall(r"`((?:farm|router|bench|docs|deploy|tests|examples)/[a-z0-9_/.-]*[a-z0-9/])`", text)


PAGES: Final = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "log-events.md": log_events_page,
    "errors.md": errors_page,
    "admin-api.md": admin_api_page,
    "sizing.md": sizing_page,
}


def main() -> int:
    """Write every page. Returns: an exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
