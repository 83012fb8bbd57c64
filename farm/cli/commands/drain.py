"""`farm drain`: let the devices go and stop the farm."""

from __future__ import annotations

import time

import click

from farm.cli.flag_types import seconds
from farm.cli.flags import with_settings
from farm.cli.outcome import DONE, complain
from farm.config import Resolved


@click.command("drain", short_help="Let the devices go and stop the farm.")
@click.option("--timeout", type=seconds(), metavar="SECONDS", help="How long to wait. Default: no limit.")
@with_settings("--admin-port", "--data")
def command(timeout: float | None, resolved: Resolved) -> int:
    """Let the devices of a running farm go and stop it (SIGTERM). Waits until it has gone, and shows how far it is.

    For drain.notice seconds GET /ready answers 503 while the farm serves as before. Then the devices are closed one
    after another: drain.rate of them a second or, where that is 0, over drain.seconds.

    \b
    Examples:
      farm drain
      farm drain --data /var/lib/farm --timeout 60

    Exit code 1 if no farm runs on that data folder, or it has not gone in time.
    """
    from farm import control
    from farm.cli import report

    began = time.monotonic()
    try:
        with control.Supervisor(control.pid_file(resolved.settings)) as supervisor:
            gone = report.drain(supervisor, resolved.settings, timeout)
            pid = supervisor.pid
    except control.ControlError as exc:
        return complain(f"farm drain: {exc}")
    if not gone:
        return complain(f"farm drain: supervisor {pid} has not gone after {timeout:g} s; it goes on draining")
    click.echo(f"drained: supervisor {pid} ended after {time.monotonic() - began:.1f} s")
    return DONE
