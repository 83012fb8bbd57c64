"""`farm router`: the router alone."""

from __future__ import annotations

import click

from farm.cli.flags import with_settings
from farm.cli.outcome import complain
from farm.config import Resolved


@click.command("router", short_help="Run the router alone.")
@with_settings("--host", "--router-port", "--admin-port", "--data", checked=True)
def command(resolved: Resolved) -> int:
    """Run the router alone, for a set-up that has its own supervisor.

    \b
    Example:
      farm router --data /var/lib/farm
    """
    from router import process
    from router.common.listener import ListenError

    try:
        return process.run_single(resolved.settings)
    except ListenError as exc:
        return complain(f"farm router: {exc}")
