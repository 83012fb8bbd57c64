"""`farm top`: a running farm, live."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from farm.cli.flag_types import seconds
from farm.cli.flags import with_admin_port, with_settings
from farm.cli.outcome import BAD_INPUT, DONE, complain
from farm.config import Resolved

_SHORTEST_S = 0.2
_SORTS = {"process": "p", "cpu": "c", "memory": "m", "connections": "n", "messages": "r"}


@click.command("top", short_help="Watch a running farm: processes, rates, latencies.")
@click.option(
    "--interval", type=seconds(), default=2.0, metavar="SECONDS", help="Between two looks (0.2 at least). Default: 2."
)
@click.option("--sort", type=click.Choice(list(_SORTS)), default="process", help="Order of the processes.")
@click.option("--once", is_flag=True, help="Print it once, after one interval; so it is without a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as JSON.")
@with_admin_port
@with_settings("--admin-port")
def command(
    interval: float,
    sort: str,
    once: bool,
    as_json: bool,
    url: str | None,
    token_file: Path | None,
    resolved: Resolved,
) -> int:
    """Watch a running farm in the terminal: each process with its CPU, memory and connections, what is pushed and
    delivered in a second, and how long that takes. Keys: q quits, p c m n r sort the processes.

    \b
    Examples:
      farm top
      farm top --once --sort memory
      farm top --json | jq .totals.delivery_p99
    """
    from farm.admin_client import AdminClient, BadArgument
    from farm.cli import top_screen
    from farm.control import ControlError

    interval = max(interval, _SHORTEST_S)
    try:
        look = top_screen.looking(AdminClient.of(resolved.settings, url, token_file))
        if once or as_json or not sys.stdout.isatty():
            return top_screen.once(look, interval, _SORTS[sort], as_json)
        status, text = top_screen.live(look, interval, _SORTS[sort])
    except BadArgument as exc:
        return complain(f"farm top: {exc}", code=BAD_INPUT)
    except (ControlError, top_screen.NoFarm) as exc:
        return complain(f"farm top: {exc}")
    if status == DONE:
        click.echo(f"farm top: {text}" if text else "", nl=bool(text))
        return DONE
    return complain(f"farm top: {text}")
