"""`farm start`: a whole farm in the foreground."""

from __future__ import annotations

import click

from farm.cli.flags import SettingsCommand, with_settings
from farm.cli.outcome import BAD_INPUT, FAILED, complain, one_line
from farm.config import Resolved
from router.common.options import Settings


@click.command("start", cls=SettingsCommand, short_help="Start a farm in the foreground.")
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
    """Start a farm in the foreground: K routers, N workers, and a supervisor over them.

    \b
    Examples:
      farm start --workers 2
      farm start --config /etc/farm/farm.toml --workers auto
      farm start --device-port 80 --set store.synchronous=normal

    It prints what this machine allows, and one line when it is ready. SIGTERM (farm drain) lets the devices
    go one after another and ends it; SIGHUP (farm reload) replaces the processes one by one.
    """
    from farm.supervisor import supervisor

    def read_again() -> Settings:
        assert resolved.again is not None
        return resolved.again().settings

    try:
        return supervisor.run(resolved.settings, read_again)
    except supervisor.StartError as exc:
        return complain(f"farm start: {one_line(str(exc))}", code=BAD_INPUT if exc.vain else FAILED)
