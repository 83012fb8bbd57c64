"""What the commands show on a terminal, by rich. No process of a farm imports this."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.admin_client import AdminClient
from farm.cli.tables import cell
from farm.control import ControlError, Supervisor
from farm.doctor import Check
from router.common.histogram import without_buckets
from router.common.options import Settings
from router.store.lease import MAX_OFFSET_S

# The columns of the table, as far as the farm has them; for the rest there is --json. Versions are shown where they
# differ: else the one in the first line is that of all, and 80 columns have no room for it.
_COLUMNS: Final = ("pid", "version", "state", "connections", "memory", "age", "uptime", "restarts")
_RIGHT: Final = frozenset(("pid", "connections", "memory", "age", "uptime", "restarts"))
_LINE_S: Final = 10.0
_TABLE_COLUMNS: Final = 120
"""A terminal with fewer has a line for each check instead: four columns would be broken to bits."""
_MARGIN: Final = 6
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def print_json(value: object) -> None:
    """A value as JSON on stdout, indented."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_status(status: Mapping[str, Any]) -> None:
    """The status of a farm: its own values in a line, a table with a row a process, and what each router counted.

    `status["routers"]` and `status["workers"]` hold their rows. A key that is `memory` or ends in
    `_bytes` is in bytes; `age`, `uptime` or `_seconds` in seconds. What is missing or not known here is no error.
    """
    console = Console()
    routers = [(f"router {cell('number', row.get('number'))}", row) for row in _rows(status.get("routers"))]
    workers = [(f"worker {cell('shard', row.get('shard'))}", row) for row in _rows(status.get("workers"))]
    rows = [*routers, *workers]
    _print_pairs(console, "farm", {name: value for name, value in status.items() if name != "version_note"})
    if (note := status.get("version_note")) is not None:
        console.print(f"versions: {cell('', note)}", markup=False, highlight=False, soft_wrap=True)
    if isinstance(drain := status.get("drain"), dict):
        _print_pairs(console, "drain", drain)
    if isinstance(last := status.get("last_reload"), dict):
        reload = {name: last[name] for name in ("outcome", "why", "when") if last.get(name)}
        _print_pairs(console, "last reload", reload)
    if isinstance(last := status.get("last_replacement"), dict):
        shown = ("action", "worker", "outcome", "step", "left", "why", "when")
        _print_pairs(
            console, "last replacement", {name: last[name] for name in shown if last.get(name) not in (None, "")}
        )
    if not workers:
        console.print("no workers")
    hidden = ("version",) if note is None else ()
    names = [name for name in _COLUMNS if name not in hidden and any(name in row for _, row in rows)]
    if names:
        table = Table()
        table.add_column("process")
        for name in names:
            table.add_column(name, justify="right" if name in _RIGHT else "left")
        for title, row in rows:
            table.add_row(escape(title), *(escape(cell(name, row.get(name))) for name in names))
        console.print(table)
    if isinstance(cluster := status.get("cluster"), dict):
        _print_hosts(console, _rows(cluster.get("hosts")), _rows(cluster.get("placements")))
    for title, row in routers:
        numbers = ((name, value) for name, value in without_buckets(row).items() if name not in ("number", *_COLUMNS))
        counted = {name: value for name, value in numbers if value is False or value not in (0, None)}
        _print_pairs(console, title, counted)


def _print_hosts(console: Console, hosts: Sequence[Mapping[str, Any]], placements: Sequence[Mapping[str, Any]]) -> None:
    """The hosts of a cluster, a row each, and below it the routers that do not serve."""
    table = Table()
    for title in ("host", "routers", "workers", "devices", "last beat", "state"):
        table.add_column(title, justify="right" if title in ("workers", "devices", "last beat") else "left")
    for host in hosts:
        numbers = host.get("routers")
        cells = [
            cell("", host.get("name")) + (" (here)" if host.get("here") else ""),
            " ".join(cell("number", number) for number in numbers) if isinstance(numbers, list) else "-",
            *(cell(name, host.get(name)) for name in ("workers", "devices")),
            cell("_seconds", host.get("beat_age")),
            _host_state(host),
        ]
        table.add_row(*map(escape, cells))
    console.print(table)
    for one in placements:
        if one.get("state") != "ready":
            on = f" on {cell('', one['host'])}" if one.get("host") else ""
            text = f"router {cell('number', one.get('number'))}: {cell('', one.get('state'))}{on}"
            console.print(text, markup=False, highlight=False)


def _host_state(host: Mapping[str, Any]) -> str:
    if host.get("isolated"):
        return "cut off from the others"
    if host.get("leaving"):
        return "leaving"
    if not host.get("fit", True):
        offset = host.get("clock_offset")
        if isinstance(offset, int | float) and abs(offset) > MAX_OFFSET_S:
            return f"takes no routers: its clock is {abs(offset):.1f} s off that of Redis"
        return "takes no routers: it starts, or its log says why"
    return "up"


def _rows(found: object) -> list[dict[str, Any]]:
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _print_pairs(console: Console, title: str, pairs: Mapping[str, Any]) -> None:
    words = [f"{name.replace('_', ' ')} {cell(name, value)}" for name, value in pairs.items() if _is_plain(value)]
    if words:
        console.print(f"{title}: {', '.join(words)}", markup=False, highlight=False)


def print_checks(rows: Sequence[Check]) -> None:
    """The doctor's rows as a table, what to change below it, and a closing line."""
    console = Console()
    if console.width < _TABLE_COLUMNS:
        for row in rows:
            _print_check(console, row)
    else:
        table = Table()
        for title in ("check", "", "found", "needed"):
            table.add_column(title, overflow="fold", no_wrap=title in ("check", ""))
        for row in rows:
            colour = _COLOURS[row.status]
            table.add_row(escape(row.name), f"[{colour}]{row.status}[/]", escape(row.found), escape(row.needed))
        console.print(table)
    for row in rows:
        if row.remedy:
            # Not in the table: a line to be copied must not be broken.
            console.print(f"{row.status}  {row.name}: {row.remedy}", markup=False, highlight=False, soft_wrap=True)
    counted = {status: sum(row.status == status for row in rows) for status in _COLOURS}
    console.print(", ".join(f"{number} {status}" for status, number in counted.items()), highlight=False)


def _print_check(console: Console, row: Check) -> None:
    """One row where a table has no room."""
    needed = f"; needed: {row.needed}" if row.needed else ""
    status = f"[{_COLOURS[row.status]}]{row.status:4}[/]"
    first, *more = textwrap.wrap(f"{row.name}: {row.found}{needed}", max(console.width - _MARGIN, _MARGIN))
    console.print(f"{status}  {escape(first)}", highlight=False)
    for line in more:
        console.print(" " * _MARGIN + escape(line), highlight=False)


def print_checks_json(rows: Iterable[Check]) -> None:
    """The doctor's rows as a JSON list of objects."""
    print_json([dataclasses.asdict(row) for row in rows])


def drain(supervisor: Supervisor, settings: Settings, timeout: float | None) -> bool:
    """Send SIGTERM and wait, with how far it is: on a terminal all the time, elsewhere a line every ten seconds.

    Returns: whether the supervisor has ended in time.
    Raises: ControlError if it could not be sent.
    """
    with progress("draining") as tell:
        supervisor.send(signal.SIGTERM)
        return supervisor.wait(timeout, lambda: tell(_drained(settings)))


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """While something goes on: this gives what shows how far it is, on a terminal all the time, elsewhere a line every
    ten seconds."""
    console = Console(stderr=True)
    due = time.monotonic() + _LINE_S
    with console.status(escape(text)) as line:

        def tell(changed: str) -> None:
            nonlocal due
            line.update(escape(changed))
            if not console.is_terminal and time.monotonic() >= due:
                due += _LINE_S
                console.print(changed, markup=False, highlight=False, soft_wrap=True)

        yield tell


def reload(supervisor: Supervisor, timeout: float | None) -> Mapping[str, Any]:
    """Request a reload and wait for its outcome, on a terminal with the current step.

    Returns: what the supervisor reports of it.
    Raises: ControlError if it could not be requested, or there is no report.
    """
    with waiting("reloading") as progress:
        return supervisor.reload(timeout, lambda step: progress(f"reloading: {step}"))


@contextlib.contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """While something is waited for: on a terminal a line, which is changed by what this gives."""
    with Console(stderr=True).status(escape(text)) as line:
        yield lambda changed: line.update(escape(changed))


def _drained(settings: Settings) -> str:
    """How far a drain is."""
    try:
        found = AdminClient.of(settings).status()
    except ControlError:  # it has ended, or is about to
        return "draining"
    drain = found.get("drain")
    if not isinstance(drain, dict):
        return "draining"
    left, connections, seconds = (drain.get(name) for name in ("left", "connections", "remaining_seconds"))
    if drain.get("phase") == "notice":
        return f"not ready, and serving for {cell('_seconds', seconds)} more"
    if drain.get("phase") == "routers":
        return "all devices have been let go; the routers end"
    return f"draining: {cell('', left)} of {cell('', connections)} connections left, {cell('_seconds', seconds)}"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
