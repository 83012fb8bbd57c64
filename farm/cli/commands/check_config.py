"""`farm check-config`: the settings that are in force."""

from __future__ import annotations

import click

from farm.cli.flags import SettingsCommand, with_settings
from farm.cli.outcome import DONE
from farm.config import Resolved


@click.command("check-config", cls=SettingsCommand, short_help="Check the settings, print what is in force.")
@with_settings(
    "--workers",
    "--routers",
    "--host",
    "--device-port",
    "--router-port",
    "--admin-port",
    "--data",
    checked=True,
)
def command(resolved: Resolved) -> int:
    """Check the settings file, variables and flags, and print what is in force with its sources.

    \b
    Examples:
      farm check-config
      FARM_LOG_FORMAT=json farm check-config --set drain.seconds=30

    Exit code 2, and one line for each problem, if anything is wrong.
    """
    from farm.config_text import as_toml

    click.echo(as_toml(resolved), nl=False)
    return DONE
