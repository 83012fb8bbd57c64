"""`farm doctor`: what this machine allows."""

from __future__ import annotations

import click

from farm.cli.flag_types import whole
from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, FAILED
from farm.config import Resolved


@click.command("doctor", short_help="Check what this machine allows.")
@click.option(
    "--connections",
    type=whole(1, 10**9),
    metavar="N",
    help="How many are to be held. Default: what there is room for.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON, for scripts.")
@with_settings("--workers", "--routers", "--host", "--device-port", "--router-port", "--admin-port", "--data")
def command(connections: int | None, as_json: bool, resolved: Resolved) -> int:
    """Check what this machine allows against what a farm needs, and say what to change.

    \b
    Examples:
      farm doctor
      farm doctor --connections 200000 --workers 2

    Exit code 1 if a check fails: the farm could not start, or could not hold the connections asked for.
    """
    from farm.cli import report
    from farm.doctor import examine
    from farm.settings import FarmOptions

    rows = examine(resolved.settings, resolved.settings.get(FarmOptions).count, connections)
    report.print_checks_json(rows) if as_json else report.print_checks(rows)
    return FAILED if any(row.status == "fail" for row in rows) else DONE
