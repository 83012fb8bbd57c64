"""The screen of `farm top`, by rich: no line is longer than 80 columns. No process of a farm imports this."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from farm.admin_client import AdminClient
from farm.capacity import size
from farm.cli.outcome import DONE, FAILED
from farm.cli.report import print_json
from farm.cli.tables import cell
from farm.cli.top_view import SORTS, TopView, in_order
from farm.control import ControlError

Look = Callable[[], dict[str, Any]]
_HEAD_ROWS: Final = 12
_MISSES: Final = 3
"""Times that nothing answers, until the farm has ended."""
_RATES: Final = (
    (("pushes", "pushes"), ("delivered", "delivered"), ("stored", "stored"), ("refused", "refused")),
    (("events", "events"), ("copies", "to subscribers"), ("updates", "to devices")),
    (("connects", "connects"), ("disconnects", "disconnects"), ("setups_refused", "refused")),
)
_TIMES: Final = (("delivery", "delivery"), ("commit", "commit"), ("hello", "hello"))
_KEYS: Final = "  ".join(f"{key} {title}" for key, (_, title) in SORTS.items())


class NoFarm(Exception):
    """What answers is no farm; the text says so."""


def looking(client: AdminClient) -> Look:
    """Makes what is to be seen of the status that there is now. Raises: ControlError, NoFarm."""
    view = TopView()

    def look() -> dict[str, Any]:
        status = client.status()
        try:
            return view.look(status, time.monotonic())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NoFarm(f"{client.url}: no status of a farm of this version: {error!r}") from None

    return look


def once(look: Look, interval: float, sort: str, as_json: bool) -> int:
    """Two looks, so that there are rates; printed once. Raises: ControlError, NoFarm."""
    look()
    time.sleep(interval)
    found = look()
    if as_json:
        print_json({**found, "processes": in_order(found["processes"], sort)})
    else:
        Console().print(rendered(found, sort, None))
    return DONE


def live(look: Look, interval: float, sort: str) -> tuple[int, str]:
    """The screen, until q or Ctrl-C. Returns: exit code, and what there is to say at the end. Raises: NoFarm, and
    ControlError if nothing answers the first time."""
    console = Console()
    found = look()
    misses, trouble = 0, ""
    try:
        with _keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                screen.update(rendered(found, sort, console.height, trouble), refresh=True)
                until = time.monotonic() + interval
                while (left := until - time.monotonic()) > 0:
                    key = read_key(left)
                    if key == "q":
                        return DONE, ""
                    if key in SORTS:
                        sort = key
                        screen.update(rendered(found, sort, console.height, trouble), refresh=True)
                try:
                    found, misses, trouble = look(), 0, ""
                except ControlError as error:
                    misses, trouble = misses + 1, str(error)
                    if misses == _MISSES:
                        break
    except KeyboardInterrupt:
        return DONE, ""
    if found["farm"]["status"] == "draining":
        return DONE, "the farm has ended"
    return FAILED, f"the farm has ended, or does not answer any more: {trouble}"


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Gives what waits for a key, at most so long; "" if none came. Without a terminal none ever does."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def read(seconds: float) -> str:
        ready, _, _ = select.select([handle], [], [], seconds)
        return os.read(handle, 1).decode(errors="replace") if ready else ""

    tty.setcbreak(handle)
    try:
        yield read
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def rendered(view: Mapping[str, Any], sort: str, height: int | None, trouble: str = "") -> RenderableType:
    """A screen. height: rows of the terminal; None: as many as there are."""
    return Group(*_head(view, trouble), _times(view["totals"]), *_processes(view, sort, height))


def _head(view: Mapping[str, Any], trouble: str) -> Iterator[Text]:
    farm, totals = view["farm"], view["totals"]
    state = cell("", farm["status"])
    colour = {"ok": "green", "starting": "yellow", "draining": "yellow"}.get(state, "red")
    head = Text.assemble(
        f"farm {cell('', farm['version'])}  ",
        (state, f"bold {colour}"),
        f"  up {_span(farm['uptime'])}  connections {int(totals.get('devices', 0)):,}",
    )
    if farm["reloading"]:
        head.append("  reloading")
    yield head
    if drain := farm["drain"]:
        left, seconds = cell("", drain["left"]), cell("_seconds", drain["remaining_seconds"])
        yield Text(f"draining ({cell('', drain['phase'])}): {left} left, {seconds}")
    if farm["down"]:
        yield _line(f"down: {', '.join(cell('', name) for name in farm['down'])}", "red")
    if trouble:
        yield _line(f"no answer: {cell('', trouble)}", "red")
    if view["hosts"]:
        hosts = (f"{cell('', host['name'])} {cell('', host['devices'])}" for host in view["hosts"])
        yield _line(f"devices of hosts: {', '.join(hosts)}")
    for line in _RATES:
        yield Text("  ".join(f"{title} {_rate(totals.get(name))}" for name, title in line))
    cpu, memory = totals.get("cpu"), totals.get("memory")
    yield Text(
        f"cpu {_percent(cpu)}  memory {'-' if memory is None else size(int(memory))}"
        f"  store {size(int(totals.get('store_bytes', 0)))}, {cell('', int(totals.get('store_waiting', 0)))} waiting"
        f"  buffered {size(int(totals.get('buffered', 0)))}"
    )


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _times(totals: Mapping[str, float]) -> Text:
    parts = (f"{title} {_ms(totals.get(f'{name}_p50'))} / {_ms(totals.get(f'{name}_p99'))}" for name, title in _TIMES)
    return Text("p50 / p99 ms:  " + "  ".join(parts))


def _processes(view: Mapping[str, Any], sort: str, height: int | None) -> Iterator[RenderableType]:
    rows = in_order(view["processes"], sort)
    shown = rows if height is None else rows[: max(1, height - _HEAD_ROWS)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("process", "pid", "state", "cpu", "memory", "connections", "messages", "restarts"):
        table.add_column(title, justify="left" if title in ("process", "state") else "right", no_wrap=True)
    for row in shown:
        memory = None if row["memory"] is None else int(row["memory"])
        table.add_row(
            cell("", row["process"]),
            cell("pid", row["pid"]),
            Text(cell("", row["state"]), "" if row["state"] == "up" else "bold red"),
            _percent(row["cpu"]),
            cell("memory", memory),
            cell("", row["connections"]),
            _rate(row["rate"]),
            cell("", row["restarts"]),
        )
    yield Text("")
    yield table
    if len(shown) < len(rows):
        yield Text(f"and {len(rows) - len(shown)} more")
    if height is not None:
        yield Text(f"q quits; sort by: {_KEYS}", "dim")


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def _span(seconds: float) -> str:
    """A long time in its two largest units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{int(seconds)} s"
