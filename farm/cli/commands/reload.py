"""`farm reload`: replace the processes of a running farm one by one."""

from __future__ import annotations

import time

import click

from farm.cli.flag_types import seconds
from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, complain, one_line
from farm.config import Resolved


@click.command("reload", short_help="Replace the workers and the routers one by one.")
@click.option("--timeout", type=seconds(), metavar="SECONDS", help="How long to wait. Default: no limit.")
@with_settings("--data")
def command(timeout: float | None, resolved: Resolved) -> int:
    """Replace the workers of a running farm one by one, then its routers (SIGHUP). Waits until that is done.

    New code, the settings (the file, and the variables and flags that the farm was started with) and the files that
    they name count from then on; what needs a restart (ports, farm.workers, router.routers, data.dir, store.kind,
    token.keys) is named, and keeps its value. Devices reconnect to the new workers, as many a second as drain.rate says
    (or over drain.seconds). While a router is replaced, for less than a second, pushes wait; nothing is lost.

    \b
    Examples:
      farm reload
      farm reload --data /var/lib/farm --timeout 300

    Exit code 1 if the new code or the new settings cannot be used: the farm goes on with the old ones then.
    """
    from farm import control
    from farm.cli import report

    began = time.monotonic()
    try:
        with control.Supervisor(control.pid_file(resolved.settings)) as supervisor:
            found = report.reload(supervisor, timeout)
    except control.ControlError as exc:
        return complain(f"farm reload: {exc}")
    if found["outcome"] != control.DONE:
        return complain(f"farm reload: {found['outcome']}: {one_line(str(found['why']))}")
    click.echo(f"reload: done after {time.monotonic() - began:.1f} s")
    if found["needs_restart"]:
        click.echo(f"reload: changed, but needs a restart: {', '.join(found['needs_restart'])}")
    return DONE
