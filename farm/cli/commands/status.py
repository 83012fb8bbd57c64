"""`farm status`: the state of a running farm."""

from __future__ import annotations

from pathlib import Path

import click

from farm.cli.flags import with_admin_port, with_settings
from farm.cli.outcome import BAD_INPUT, DONE, complain
from farm.config import Resolved


@click.command("status", short_help="Show a running farm.")
@click.option("--json", "as_json", is_flag=True, help="Print what the farm answered, for scripts.")
@with_admin_port
@with_settings("--admin-port")
def command(as_json: bool, url: str | None, token_file: Path | None, resolved: Resolved) -> int:
    """Show a running farm: a row a router or worker, with its pid, state, connections and memory, and with
    its version where it is not the supervisor's.

    \b
    Examples:
      farm status
      farm status --json | jq .workers[].connections
      farm status --url http://10.0.0.7:8082
    """
    from farm.admin_client import AdminClient, BadArgument
    from farm.cli import report
    from farm.control import ControlError

    try:
        found = AdminClient.of(resolved.settings, url, token_file).status()
    except BadArgument as exc:
        return complain(f"farm status: {exc}", code=BAD_INPUT)
    except ControlError as exc:
        return complain(f"farm status: {exc}")
    report.print_json(found) if as_json else report.print_status(found)
    return DONE
